"""The output folder: whose it is, its settings, and the small files around the two tables.

    images/part-<unit>.parquet, detections/part-<unit>-<commit>.parquet     the tables
    run.json        the latest run        _SUCCESS    the tables are exact as they lie there
    _run/           settings.json, plan/, claims/, runs/<time>.json, attempts/<unit>.json, removed/<hash>.json

Knows names and states of these; not the tables' rows, nor what is in a plan or a claim.
"""

from __future__ import annotations

import hashlib
import json
import os
import re
from collections.abc import Iterator, Mapping, Set
from datetime import UTC, datetime
from enum import Enum
from itertools import islice
from typing import Any

from tinyface_core.errors import InputError, OutputError, SettingsError, StorageError
from tinyface_core.storage import ObjectError, ObjectMissing, Storage
from tinyface_core.tables.footer import is_part
from tinyface_core.tables.format_version import check_format
from tinyface_core.tables.place import check_writable, output_around
from tinyface_core.tables.removed import Removal, Removed

SETTINGS = "_run/settings.json"
_ATTEMPTS, _REMOVED = "_run/attempts", "_run/removed"
# What may lie in a folder that is still empty: claims are taken before the settings are written, a driver killed
# while writing leaves a hidden temporary file, and file managers leave theirs.
_NOT_FOREIGN = re.compile(r"_run/(claims/|probe-|\.[^/]+\.tmp$)|(.*/)?(\.DS_Store|Thumbs\.db|desktop\.ini)$")
_NAMED_FILES = 3


class OutputState(Enum):
    EMPTY = "empty"
    OURS = "ours"
    FOREIGN = "foreign"


class OutputFolder:
    """The folder of `--output`; other jobs' folders, which name them otherwise, derive from it.

    Args:
        uri: as the user gave it, or canonical.
    """

    option = "--output"  # for messages
    settings_name = SETTINGS  # what tells whose folder it is

    def __init__(self, storage: Storage, uri: str) -> None:
        self._storage = storage
        self.uri = storage.canonical(uri).rstrip("/")

    @property
    def named(self) -> str:
        """The option and the folder, for messages."""
        return f"{self.option} {self.uri}"

    def path(self, name: str) -> str:
        return f"{self.uri}/{name}"

    def state(self) -> OutputState:
        """EMPTY, OURS (it has our settings), or FOREIGN; lists no more than it needs to tell."""
        if self._storage.stat(self.path(self.settings_name)) is not None:
            return OutputState.OURS
        return OutputState.FOREIGN if self._foreign() else OutputState.EMPTY

    def refuse_none(self) -> None:
        """Raises InputError where there is no output to read; what is there is named."""
        state = self.state()
        if state is not OutputState.OURS:
            is_file, seen = self._storage.stat(self.uri) is not None, ", ".join(self._foreign())
            why = f"holds {seen}, and no {self.settings_name}" if seen else "nothing is there"
            why = "is a file: give the folder" if is_file else why
            raise InputError(f"no output of detect_archive.py: {self.uri}: {why}.")

    def check(self) -> OutputState:
        """The state of an output that may be written to: EMPTY or OURS; changes nothing.

        Raises:
            OutputError: as `look`, or it is not writable.
        """
        state = self.look()
        check_writable(self._storage, self.uri, self.option)
        return state

    def look(self) -> OutputState:
        """As `check`, without trying to write.

        Raises:
            OutputError: it is a file, holds foreign files or tables, or has tables and no plan. FormatError.
        """
        try:
            return self._checked_state()
        except (ObjectError, StorageError) as error:
            raise OutputError(f"{self.named}: cannot be looked into: {error}") from error

    def _checked_state(self) -> OutputState:
        if self._storage.stat(self.uri) is not None:
            raise OutputError(f"{self.named}: is a file; give a folder that is empty or does not exist yet.")
        if around := output_around(self._storage, self.uri, SETTINGS):
            raise OutputError(
                f"{self.named}: lies inside the output {around}, whose queries would read these tables too. "
                "Give a folder outside of it."
            )
        state = self.state()
        if state is OutputState.FOREIGN:
            raise OutputError(
                f"{self.named}: holds files that tinyface did not write, or has lost its {self.settings_name}: "
                f"{', '.join(self._foreign())}. Give a folder that is empty or does not exist yet."
            )
        if state is OutputState.OURS:
            self.check_format()
        if state is OutputState.OURS and not self._has_plan() and (parts := list(islice(self._parts(), _NAMED_FILES))):
            raise OutputError(
                f"{self.named}: holds tables ({', '.join(parts)}) but no plan in _run/plan, so what is finished "
                f"cannot be told. Nothing was changed: put _run/plan back, or write to another {self.option}."
            )
        strangers = (name for name in self._parts() if name.endswith(".parquet") and not is_part(name))
        if names := list(islice(strangers, _NAMED_FILES)):
            raise OutputError(
                f"{self.named}: holds tables that tinyface did not write, and queries over it would read them: "
                f"{', '.join(names)}. Move them out of this folder."
            )
        return state

    def check_format(self) -> None:
        """By the recorded settings, where there are any. Raises: FormatError; OutputError, StorageError."""
        recorded = self.read_json(self.settings_name)
        settings = recorded.get("settings") if isinstance(recorded, dict) else None
        if isinstance(settings, dict) and "format_version" in settings:
            check_format(settings["format_version"], self.uri)

    def _foreign(self) -> list[str]:
        """The first few names that neither we nor a file manager put there."""
        names = (info.uri.removeprefix(f"{self.uri}/") for info in self._storage.list(f"{self.uri}/"))
        return list(islice((name for name in names if not _NOT_FOREIGN.match(name)), _NAMED_FILES))

    def _has_plan(self) -> bool:
        return any(info.uri.endswith(".complete") for info in self._storage.list(self.path("_run/plan/")))

    def _parts(self) -> Iterator[str]:
        found = (info.uri for table in ("images", "detections") for info in self._storage.list(self.path(f"{table}/")))
        return (uri.removeprefix(f"{self.uri}/") for uri in found)

    def settings(self) -> dict[str, Any] | None:
        """What the first run on this output recorded; None before it."""
        recorded = self.read_json(self.settings_name)
        if recorded is None:
            return None
        settings = recorded.get("settings") if isinstance(recorded, dict) else None
        if not isinstance(settings, dict) or recorded.get("hash") != settings_hash(settings):
            raise OutputError(
                f"{self.path(self.settings_name)}: was changed since it was written. Put the old one back, or write to "
                f"another {self.option}."
            )
        return settings

    def write_settings(self, settings: Mapping[str, Any]) -> None:
        """Records the settings, whole, once; before the first plan.

        Raises:
            SettingsError: others are recorded.
        """
        if (recorded := self.settings()) is None:
            self.write_json(self.settings_name, {"settings": dict(settings), "hash": settings_hash(settings)})
        elif settings_hash(recorded) != settings_hash(settings):
            names = [name for name in {**recorded, **settings} if recorded.get(name) != settings.get(name)]
            raise SettingsError(f"{self.named}: was made with other settings ({', '.join(names)}).")

    def resolve(
        self, requested: Mapping[str, Any], explicit: Set[str], *, facts: Set[str] = frozenset()
    ) -> dict[str, Any]:
        """The settings to work with: the recorded ones, if there are any, else `requested`.

        A key left at its default takes the recorded value: what differs from `requested` in the result is what the
        job has to tell.

        Args:
            requested: all settings that can change a row, JSON values.
            explicit: keys that the user gave on the command line or in a file.
            facts: keys that nobody can choose, as the format version: they cannot take another value either.
        Raises:
            SettingsError: an explicit value or a fact is not the recorded one.
        """
        recorded = self.settings()
        if recorded is None:
            return dict(requested)
        for name in [*requested, *(recorded.keys() - requested.keys())]:
            if name not in requested or name not in recorded:
                had, has = ("without", "has") if name in requested else ("with", "does not have")
                raise SettingsError(
                    f"{self.named}: was made {had} the setting {name!r}, which this version of tinyface {has}. "
                    f"Use the version that made the output, or write to another {self.option}."
                )
            old, new = recorded[name], requested[name]
            if (name in explicit or name in facts) and _canonical(old) != _canonical(new):
                asked = f"--{name.replace('_', '-')} asks for" if name in explicit else f"{name} is now"
                raise SettingsError(
                    f"{self.named}: was made with {name} = {_shown(old)}, {asked} {_shown(new)}. One output has "
                    f"one setting: leave it at {_shown(old)}, or write to another {self.option}."
                )
        return recorded

    def read_json(self, name: str) -> Any:
        """The file's value; None when there is no such file."""
        try:
            return json.loads(self._storage.read(self.path(name)))
        except ObjectMissing:
            return None
        except ObjectError as error:
            raise OutputError(f"{self.path(name)}: cannot be read: {error}. Check the permissions.") from error
        except ValueError as error:
            raise OutputError(
                f"{self.path(name)}: is not JSON: {error}. Delete it, or put the old one back."
            ) from error

    def write_json(self, name: str, value: Any) -> None:
        """Whole or not at all."""
        self._storage.write(self.path(name), json.dumps(value, indent=1, ensure_ascii=False).encode())

    def delete_success(self) -> None:
        """Before a run's first write to the tables."""
        self._storage.delete(self.path("_SUCCESS"))

    def write_success(self) -> None:
        """The very last write of a run."""
        self._storage.write(self.path("_SUCCESS"), b"")

    def write_run(self, report: Mapping[str, Any], started: datetime) -> None:
        """`run.json`, and the same under `_run/runs/` by the time the run started."""
        time = started.astimezone(UTC).strftime("%Y%m%dT%H%M%S.%fZ")
        self.write_json(f"_run/runs/{time}.json", dict(report))
        self.write_json("run.json", dict(report))

    def attempts(self) -> dict[str, dict[int, int]]:
        """Unit -> record index -> how often it was tried in vain, so that a later run begins where this one was."""
        found = {}
        for info in list(self._storage.list(self.path(f"{_ATTEMPTS}/"))):
            unit, extension = os.path.splitext(info.uri.rpartition("/")[2])
            counts = self.read_json(f"{_ATTEMPTS}/{unit}.json") if extension == ".json" else None
            if counts is not None:
                found[unit] = {int(index): int(count) for index, count in counts.items()}
        return found

    def write_attempts(self, unit: str, counts: Mapping[int, int]) -> None:
        """Replaces what is noted for this unit; no counts: nothing is noted any more (it was committed)."""
        if counts:
            self.write_json(f"{_ATTEMPTS}/{unit}.json", {str(index): count for index, count in counts.items()})
        else:
            self._storage.delete(self.path(f"{_ATTEMPTS}/{unit}.json"))

    def removals(self) -> list[Removal]:
        """What was taken out on request, or is to be."""
        names = [info.uri.removeprefix(f"{self.uri}/") for info in self._storage.list(self.path(f"{_REMOVED}/"))]
        found = [self.read_json(name) for name in sorted(names) if name.endswith(".json")]
        return [
            Removal(Removed.from_json(each), bool(each["done"]), bool(each["finished"]))
            for each in found
            if each is not None
        ]

    def write_removal(self, removal: Removal) -> None:
        """Notes that these pictures are to stay out of all that is written from now on."""
        pictures = removal.pictures.as_json()
        name = settings_hash(pictures)
        self.write_json(f"{_REMOVED}/{name}.json", pictures | {"done": removal.done, "finished": removal.finished})

    def delete_report(self) -> None:
        self._storage.delete(self.path("report.html"))


def settings_hash(settings: Mapping[str, Any]) -> str:
    """Hex of blake2b-128 over canonical JSON: key order, tuple or list, 1 or 1.0 make no difference.

    Raises:
        TypeError, ValueError: a value is not JSON, or not finite.
    """
    return hashlib.blake2b(_canonical(settings).encode(), digest_size=16).hexdigest()


def _canonical(value: Any) -> str:
    return json.dumps(_plain(value), sort_keys=True, separators=(",", ":"), allow_nan=False)


def _plain(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {str(name): _plain(inner) for name, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_plain(inner) for inner in value]
    return int(value) if isinstance(value, float) and value.is_integer() else value


def _shown(value: Any) -> str:
    return "unset" if value is None else " ".join(map(str, value)) if isinstance(value, list | tuple) else str(value)
