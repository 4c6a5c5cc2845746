"""Takes pictures out of an output for good: out of both tables, and of everything that later runs write.

    python jobs/remove.py faces/ --uri s3://bucket/archive/holiday.jpg

    python jobs/remove.py faces/ --uri s3://bucket/archive/day1.tar --member "beach/0012.jpg"

What it does not reach (the pictures themselves, versions that a store keeps, copies of the tables): docs/privacy.md.
Exit codes: 0 done, 2 refused before the first write, 1 stopped later; the same command goes on.
"""

from __future__ import annotations

import logging
import sys
from contextlib import ExitStack
from typing import Annotated

from cyclopts import Group, Parameter

from options import StorageFlags, Texts, before_first_write, job_app, many, run_job
from tinyface_core.archive.globs import has_magic
from tinyface_core.errors import InputError, SettingsError
from tinyface_core.report.text import counted
from tinyface_core.storage import Storage, unsigned
from tinyface_core.tables.claim import Claim
from tinyface_core.tables.commit import Committer
from tinyface_core.tables.footer import committed
from tinyface_core.tables.output import OutputFolder
from tinyface_core.tables.plan import Plan
from tinyface_core.tables.removal import Found, find, finish_removals
from tinyface_core.tables.removed import Removal, Removed

log = logging.getLogger(__name__)
_WHICH = Group("Which pictures", sort_key=1)
app = job_app("remove.py", __doc__ or "")


@app.default
def remove(
    tables: str,
    /,
    *,
    uri: Annotated[Texts, many(_WHICH)] = (),
    member: Annotated[Texts, many(_WHICH)] = (),
    image_id: Annotated[Texts, many(_WHICH)] = (),
    dry_run: Annotated[bool, Parameter(negative=())] = False,
    storage: StorageFlags | None = None,
) -> int:
    """Takes pictures out.

    Parameters
    ----------
    tables
        Folder or prefix of the tables that detect_archive.py wrote.
    uri
        Of a picture, or of an archive with all that is in it; may be repeated.
    member
        Names inside the one archive that --uri gives: only these; may be repeated.
    image_id
        Ids as the tables have them; may be repeated.
    dry_run
        Tell what would be taken out; write nothing.
    """
    store = Storage((storage or StorageFlags()).options())
    wanted = _wanted(store, uri, member, image_id)
    folder = OutputFolder(store, tables)
    with ExitStack() as stack:
        with before_first_write():
            folder.refuse_none()
            _ = folder.look() if dry_run else folder.check()
            found = find(store, folder.uri, wanted)
            _refuse_what_is_no_name(wanted, found)
            print(f"{counted(found.pictures, 'picture')} with {counted(found.faces, 'face')} in the output")
            absent = sorted(wanted.uris - found.named) or ([] if found.pictures else ["what was named"])
            for name in absent:
                print(f"not in the output: {name}")
            if dry_run:
                print("Nothing was written.")
                return 0
            claim = stack.enter_context(Claim(store, folder.uri))
        whole = _remove(store, OutputFolder(claim.guarded(), tables), claim, wanted)
    if found.pictures:
        print(f"taken out of {folder.uri}; report.html, which may show them, is deleted until the next run")
    if absent:
        print(
            "What is not in the output is noted: it stays out if it comes under exactly this name. Is the name right?"
        )
    if not whole:
        print("The tables are not whole: a run is open, or files are damaged. detect_archive.py, as before, goes on.")
    return 0


def _wanted(store: Storage, uris: Texts, members: Texts, image_ids: Texts) -> Removed:
    if not uris and not image_ids:
        raise SettingsError("give --uri or --image-id: which pictures?")
    if not all(text.strip() for text in (*uris, *members)):
        raise SettingsError("--uri or --member: is empty. An unset variable?")
    if members and len(uris) != 1:
        raise SettingsError(f"--member {members[0]}: give exactly one --uri, the archive that it is in.")
    if wrong := [given for given in image_ids if len(given) != 32 or set(given) - set("0123456789abcdef")]:
        raise SettingsError(f"--image-id {wrong[0]}: is no id; the tables have them as 32 hexadecimal digits.")
    canonical = [unsigned(store.canonical(uri)) for uri in uris]
    if members:
        return Removed.named(image_ids, members=[(canonical[0], member) for member in members])
    return Removed.named(image_ids, canonical)


def _refuse_what_is_no_name(wanted: Removed, found: Found) -> None:
    """Raises: InputError."""
    for uri, count in found.folders.items():
        raise InputError(
            f"--uri {uri}: names no picture and no archive, but a folder: the output has {counted(count, 'picture')} "
            "below it. Nothing was changed: name each by its own uri, as the images table has it."
        )
    for uri in sorted(wanted.uris - found.named):
        if has_magic(uri.partition("?")[0] if uri.startswith("http") else uri) or "{" in uri:
            raise InputError(
                f"--uri {uri}: is a pattern, and nothing in the output has it for its name. Nothing was changed: name "
                "each picture by its own uri, as the images table has it."
            )


def _remove(store: Storage, output: OutputFolder, claim: Claim, wanted: Removed) -> bool:
    """The note first: a kill anywhere leaves it, and the next run or removal goes on. Whether the tables are whole."""
    finished = store.stat(output.path("_SUCCESS")) is not None
    finished = finished or any(removal.finished for removal in output.removals() if not removal.done)
    output.write_removal(Removal(wanted, done=False, finished=finished))
    committer = Committer(store, output.uri, "", "", check=claim.check)
    whole = finish_removals(store, output, committer)
    planned = Plan(store, output.uri).names()
    committer.sweep(planned, {name: record.commit for name, record in committed(store, output.uri).items()})
    if whole:
        claim.check()
        output.write_success()
    return whole


if __name__ == "__main__":
    sys.exit(run_job(app))
