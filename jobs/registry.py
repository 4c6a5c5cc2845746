"""Looks into a registry of models, and changes which version is current.

    python jobs/registry.py add hr-mobilenetv2 --registry s3://b/registry

    python jobs/registry.py list --registry s3://b/registry

    python jobs/registry.py rollback --registry s3://b/registry

Exit codes: 0 done, 2 refused, 1 stopped: another one changes it at this moment, or the store failed.
"""

from __future__ import annotations

import getpass
import json
import os
import shlex
import socket
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Annotated, Any, Literal

from cyclopts import Parameter
from rich.console import Console
from rich.table import Table

from options import StorageFlags, before_first_write, job_app, registry_of, run_job
from tinyface_core.errors import InputError, SettingsError
from tinyface_core.model.locate import fetch, locate
from tinyface_core.model.spec import BUNDLED, read_spec
from tinyface_core.registry.registry import CURRENT, MODEL, Entry, Registry, tick_name, version_name
from tinyface_core.storage import Storage
from tinyface_core.tables.claim import Claim
from tinyface_core.tables.place import check_writable

app = job_app("registry.py", __doc__ or "")
What = Literal["list", "show", "add", "promote", "rollback"]


@app.default
def registry(
    what: What,
    name: str | None = None,
    /,
    *,
    registry: Annotated[str | None, Parameter(show_default=False)] = None,
    storage: StorageFlags | None = None,
) -> None:
    """Prints what there is, or what is current from now on.

    Parameters
    ----------
    what
        list: versions, and the history. show: a version's card. add: a checkpoint as a version; the first one becomes
        current. promote: a version becomes current. rollback: what was current before becomes so again.
    name
        Of show: a version (none: the current one). Of promote: a version. Of add: a bundled model, a path or a url.
    registry
        Folder or url; none: TINYFACE_REGISTRY.
    """
    if name is None and what in ("add", "promote"):
        raise SettingsError(
            f"{what}: {'which checkpoint' if what == 'add' else 'which version'}? Name it behind {what}."
        )
    if name is not None and what in ("list", "rollback"):
        raise SettingsError(f"{what} {name}: takes no name. promote {name} makes that version current.")
    store = Storage((storage or StorageFlags()).options())
    folder = Registry(store, registry_of(registry))
    with before_first_write():
        if what == "list":
            _list(folder)
        elif what == "show":
            _show(folder, name or CURRENT)
        elif what == "add":
            _add(folder, store, str(name))
        elif what == "promote":
            folder.find(str(name))  # refused before a claim is written
            _change(folder, store, lambda own: own.promote(str(name), action="promoted by hand", by=_who()))
        else:
            folder.find(CURRENT)
            _change(folder, store, lambda own: own.roll_back(by=_who()))


def _list(folder: Registry) -> None:
    """Raises: InputError where there is none: a name that is misspelt must not look like an empty one."""
    entry, names = folder.current(), folder.versions()
    if entry is None and not names:
        raise InputError(
            f"no registry: {folder.uri}: nothing is there. Check the spelling, or begin one: jobs/registry.py add "
            f"MODEL --registry {shlex.quote(folder.uri)}"
        )
    versions = Table(title="Versions", title_justify="left")
    for heading in ("", "version", "made (UTC)", "all faces, against the current one then"):
        versions.add_column(heading, no_wrap=heading == "version", overflow="fold")  # names are to be copied
    for name in names:
        lineage = folder.find(name).lineage
        is_current = entry is not None and entry.version == name
        versions.add_row(
            "current" if is_current else "",
            name,
            _time(str(lineage.get("made_at", ""))),
            _judged(folder.read(name, "metrics.json")),
        )
    history = Table(title="History", title_justify="left")
    for heading in ("when (UTC)", "what", "version", "by"):
        history.add_column(heading, no_wrap=heading == "version", overflow="fold")
    for each in folder.history():
        history.add_row(_time(each.promoted_at), each.action, each.version, each.by)
    console = Console(highlight=False, markup=False)
    console.print(versions)
    console.print(history)


def _time(at: str) -> str:
    """For a column that may be narrow: it breaks between date and time."""
    return at.replace("T", " ").removesuffix("+00:00")


def _judged(metrics: bytes | None) -> str:
    """Of metrics.json: the difference over all faces, and what the rule said."""
    if metrics is None:
        return ""
    found = json.loads(metrics)
    whole = found["groups"][0]
    verdict = "better" if found["promote"] else "not better"
    return f"{whole['difference']:+.4f} ({whole['low']:+.4f} to {whole['high']:+.4f}): {verdict} by its rule"


def _show(folder: Registry, name: str) -> None:
    version = folder.find(name)
    text = folder.read(version.name, "card.md")
    print(f"{version.uri}\nsha256 {version.model_hash}\n\n{'' if text is None else text.decode()}")


def _add(folder: Registry, store: Storage, model: str) -> None:
    """A version of a checkpoint that was made elsewhere."""
    address = locate(model, store, folder.uri)
    path = fetch(address, store)
    spec = read_spec(path)
    if not address.bundled:
        from tinyface_core.model.checkpoint import refuse_unusable  # with torch, for such models alone

        refuse_unusable(path, model)
    check_writable(store, folder.uri, "--registry")
    now = datetime.now(UTC)
    version = version_name(tick_name(now), address.sha256)
    lineage: dict[str, Any] = {
        "version": version,
        "model_hash": address.sha256,
        "made_at": now.isoformat(timespec="seconds"),
        "made_by": "jobs/registry.py add",
        "from": model,
        "by": _who(),
        "provenance": spec.provenance,
    }
    bundled = BUNDLED / f"{model}.md"
    card = bundled.read_text() if bundled.is_file() else f"# {spec.name}\n\nAdded from `{model}`.\n"

    def change(own: Registry) -> Entry | None:
        if same := [name for name in own.versions() if own.find(name).model_hash == address.sha256]:
            print(f"{same[0]}: this very model is there already")
            return own.current() or own.promote(same[0], action="added", by=_who())
        own.write_version(version, {MODEL: path.read_bytes(), "card.md": card.encode()}, lineage)
        print(f"{version}: added")
        return own.current() or own.promote(version, action="added", by=_who())

    _change(folder, store, change)


def _change(folder: Registry, store: Storage, change: Callable[[Registry], Entry | None]) -> None:
    with Claim(store, folder.uri, option="--registry") as claim:
        entry = change(Registry(claim.guarded(), folder.uri))
    assert entry is not None
    print(f"current: {entry.version} ({entry.action}, {entry.promoted_at}); before it {entry.previous or 'none'}")


def _who() -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # a container's user without a name
        user = f"user {os.getuid()}"
    return f"{user} on {socket.gethostname()}"


if __name__ == "__main__":
    sys.exit(run_job(app))
