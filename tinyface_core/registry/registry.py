"""Versions of a model, on disk or in a store: each written once and whole before it is named, one of them current.

    versions/<name>/    model.safetensors, card.md, metrics.json, ... and, last, lineage.json: it says that all is there
    current.json        which version is current, since when, by whom: one write that is there or not
    history/<n>.json    every entry that was ever current.json, one file each, never changed
    ticks/<tick>.json   what a retraining decided
    runs/<tick>/        what a retraining is at work on; begun.json: what it was begun with

Whoever changes current.json holds a claim on the registry and gives the storage that the claim guards. Readers need
none. Knows names and bytes; not what a model is.
"""

from __future__ import annotations

import json
import re
import shlex
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from datetime import UTC, datetime
from typing import Any, Literal

from tinyface_core.errors import CheckpointError, OutputError
from tinyface_core.storage import ObjectError, ObjectMissing, Storage

MODEL, LINEAGE = "model.safetensors", "lineage.json"
BEGUN = "begun.json"  # of a tick
CURRENT = "current"
_NAME = re.compile(r"\d{8}T\d{4}Z-[0-9a-f]{8}")
Action = Literal["added", "promoted", "promoted by hand", "rolled back"]


@dataclass(frozen=True)
class Version:
    """A whole version. uri: of its model. model_hash: hex sha256 of that file."""

    name: str
    uri: str
    model_hash: str
    lineage: Mapping[str, Any]


@dataclass(frozen=True)
class Entry:
    """What current.json says, and one line of the history.

    number: from 1 on, by one. previous: the version that a rollback leads to; back_to: the number of its entry. tick:
    of the retraining that promoted it.
    """

    number: int
    version: str
    model_hash: str
    promoted_at: str
    by: str
    action: Action
    previous: str | None = None
    back_to: int | None = None
    tick: str | None = None


def version_name(tick: str, model_hash: str) -> str:
    """Sorts by time; the same tick and the same model give the same name. tick: as `tick_name` gives it."""
    return f"{tick}-{model_hash[:8]}"


def tick_name(when: datetime) -> str:
    """`20261129T0300Z`: to the minute, in UTC."""
    return when.astimezone(UTC).strftime("%Y%m%dT%H%MZ")


class Registry:
    """The folder of `--registry`.

    Args:
        storage: for writes, one that a claim guards. uri: as the user gave it, or canonical.
    """

    def __init__(self, storage: Storage, uri: str) -> None:
        self._storage = storage
        self.uri = storage.canonical(uri).rstrip("/")

    def path(self, name: str) -> str:
        return f"{self.uri}/{name}"

    def current(self) -> Entry | None:
        """None: no version was ever made current. Raises: OutputError, ObjectError, StorageError."""
        return self._entry("current.json")

    def find(self, name: str) -> Version:
        """The version of this name, or the one that is current now (`current`).

        Raises:
            CheckpointError: there is none.
        """
        if name == CURRENT:
            entry = self.current()
            if entry is None:
                raise CheckpointError(
                    f"registry {self.uri}: no model is current. Add one: python jobs/registry.py add MODEL --registry "
                    f"{shlex.quote(self.uri)}"
                )
            name = entry.version
        lineage = self.read_json(f"versions/{name}/{LINEAGE}") if _NAME.fullmatch(name) else None
        if lineage is None:
            known = self.versions()
            there = f"it has {', '.join(known[-5:])}" if known else "it has none"
            raise CheckpointError(f"registry {self.uri}: no version {name}; {there}.")
        return Version(name, self.path(f"versions/{name}/{MODEL}"), str(lineage["model_hash"]), lineage)

    def versions(self) -> list[str]:
        """Names of all whole versions, the oldest first."""
        whole = [info.uri for info in self._storage.list(self.path("versions/")) if info.uri.endswith(f"/{LINEAGE}")]
        return sorted(uri.split("/")[-2] for uri in whole)

    def read(self, version: str, name: str) -> bytes | None:
        """A file of a version; None where it has no such file."""
        try:
            return self._storage.read(self.path(f"versions/{version}/{name}"))
        except ObjectMissing:
            return None

    def write_version(self, name: str, files: Mapping[str, bytes], lineage: Mapping[str, Any]) -> None:
        """Writes a version; one that is whole stays as it is.

        files: by name, the model's too. lineage: JSON; its `model_hash` names the model.
        """
        if self._storage.stat(self.path(f"versions/{name}/{LINEAGE}")) is not None:
            return
        for file, data in files.items():
            self._storage.write(self.path(f"versions/{name}/{file}"), data)
        self.write_json(f"versions/{name}/{LINEAGE}", lineage)  # last: from here on it is a version

    def history(self) -> list[Entry]:
        """All entries, the oldest first; the current one too where a kill left its file unwritten."""
        names = [info.uri.removeprefix(f"{self.uri}/") for info in self._storage.list(self.path("history/"))]
        found = [self._entry(name) for name in sorted(names) if name.endswith(".json")]
        entries = {entry.number: entry for entry in [*found, self.current()] if entry is not None}
        return [entries[number] for number in sorted(entries)]

    def promote(self, name: str, *, action: Action, by: str, tick: str | None = None) -> Entry:
        """Makes a version current; one that is current stays so, without an entry.

        Raises:
            CheckpointError: no such version.
        """
        version, now = self.find(name), self.current()
        if now is not None and now.version == name:
            return now
        previous, back_to = (None, None) if now is None else (now.version, now.number)
        return self._put(now, version, by=by, action=action, previous=previous, back_to=back_to, tick=tick)

    def roll_back(self, *, by: str) -> Entry:
        """Makes the version current that was so before the current one; again: the one before that.

        Raises:
            OutputError: there is none, or the history lacks it.
        """
        now = self.current()
        if now is None or now.previous is None or now.back_to is None:
            raise OutputError(f"--registry {self.uri}: nothing was current before; there is nothing to roll back to.")
        before = next((entry for entry in self.history() if entry.number == now.back_to), None)
        if before is None:
            raise OutputError(
                f"--registry {self.uri}: history/{now.back_to:06}.json is gone. Name the version: "
                f"python jobs/registry.py promote {now.previous} --registry {shlex.quote(self.uri)}"
            )
        version = self.find(before.version)
        previous, back_to = before.previous, before.back_to
        return self._put(now, version, by=by, action="rolled back", previous=previous, back_to=back_to)

    def _put(self, now: Entry | None, version: Version, **values: Any) -> Entry:
        """current.json is what counts; its copy in the history follows, after a kill by whoever comes next."""
        at = datetime.now(UTC).isoformat(timespec="seconds")
        number = 1 if now is None else now.number + 1
        entry = Entry(number, version.name, version.model_hash, at, **values)
        if now is not None:
            self._note(now)
        self.write_json("current.json", asdict(entry))
        self._note(entry)
        return entry

    def _note(self, entry: Entry) -> None:
        name = f"history/{entry.number:06}.json"
        if self._storage.stat(self.path(name)) is None:
            self.write_json(name, asdict(entry))

    def decision(self, tick: str) -> dict[str, Any] | None:
        """What was decided at a tick; None: nothing yet."""
        decided: dict[str, Any] | None = self.read_json(f"ticks/{tick}.json")
        return decided

    def undecided(self) -> list[str]:
        """Ticks that were begun and have no decision, the oldest first."""
        runs = (info.uri.removeprefix(self.path("runs/")).split("/") for info in self._storage.list(self.path("runs/")))
        begun = sorted(parts[0] for parts in runs if parts[1:] == [BEGUN])
        return [tick for tick in begun if self.decision(tick) is None]

    def write_decision(self, tick: str, decision: Mapping[str, Any]) -> None:
        self.write_json(f"ticks/{tick}.json", decision)

    def _entry(self, name: str) -> Entry | None:
        values = self.read_json(name)
        try:
            return None if values is None else Entry(**values)
        except TypeError as error:
            raise OutputError(f"{self.path(name)}: is not of a registry ({error}). Is --registry right?") from error

    def read_json(self, name: str) -> Any:
        """The file's value; None when there is no such file. Raises: OutputError, StorageError."""
        try:
            return json.loads(self._storage.read(self.path(name)))
        except ObjectMissing:
            return None
        except ObjectError as error:
            raise OutputError(f"{self.path(name)}: cannot be read: {error}. Check the permissions.") from error
        except ValueError as error:
            raise OutputError(f"{self.path(name)}: is not JSON: {error}. Put the old one back.") from error

    def write_json(self, name: str, value: Any) -> None:
        """Whole or not at all."""
        self._storage.write(self.path(name), (json.dumps(value, indent=1, ensure_ascii=False) + "\n").encode())
