"""Puts two outputs beside each other, and says whether the new one may take the old one's place.

    python jobs/compare.py faces_before/ faces_after/ --report comparison/

    python jobs/compare.py s3://b/faces1/ s3://b/faces2/ --max-lost 0.01 40-140=0.002 --accept s3://b/current.json

Nothing is written but what --report, --json and --accept ask for. What the limits mean, and how readers follow the
pointer of --accept: docs/compare.md.
Exit codes: 0 within the limits, 2 refused before the first write, 1 stopped later, 3 beyond the limits.
"""

from __future__ import annotations

import json
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

from cyclopts import Group, Parameter

from options import (
    StorageFlags,
    Texts,
    before_first_write,
    job_app,
    many,
    refuse_lost,
    refuse_unmakeable,
    refuse_unwritable,
    run_job,
)
from tinyface_core.compare.counts import Comparison
from tinyface_core.compare.outputs import Output, compare, differing_settings, find_output
from tinyface_core.compare.page import NAME, Told, page
from tinyface_core.compare.pointer import Pointer
from tinyface_core.compare.rule import Rule, limits_of
from tinyface_core.compare.tables import Table, as_json, settings_as_text, tables_of
from tinyface_core.errors import InputError, NotAccepted, SettingsError, StopRun
from tinyface_core.storage import Storage

_RULE, _WRITE = Group("When the new output is accepted", sort_key=1), Group("What to write", sort_key=2)
app = job_app("compare.py", __doc__ or "")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options:
    """All options of jobs/compare.py."""

    min_score: Annotated[float | None, Parameter(group=_RULE)] = None
    "Faces of a lower score count nowhere; None: the higher one of the --min-score that the outputs were made with."
    max_lost: Annotated[Texts, many(_RULE)] = ("0.01",)
    "Share of the old faces that may be gone; of one band of heights as 20-40=0.01; several may be given."
    max_gained: Annotated[Texts, many(_RULE)] = ()
    "Share of the new faces that the old output need not have; none: any."
    max_moved: Annotated[Texts, many(_RULE)] = ()
    "Share of the faces in both whose boxes may overlap by less than 0.9; none: any."
    max_missing: Annotated[float, Parameter(group=_RULE)] = 0.0
    "Share of the old output's results that may be an error, or not there, in the new one."
    max_changed: Annotated[float, Parameter(group=_RULE)] = 0.0
    "Share of them that may be other bytes in the new one, and so are not compared."
    accept: Annotated[str | None, Parameter(group=_WRITE)] = None
    "JSON file that names the output which is read now: it comes to name the new one, if the limits hold."
    report: Annotated[str | None, Parameter(group=_WRITE)] = None
    "Folder for compare.html; it shows no pictures but those that --report-pictures asks for."
    report_pictures: Annotated[int, Parameter(group=_WRITE)] = 0
    "Pictures that are drawn into it: those that differ most, at most 100."
    json_file: Annotated[str | None, Parameter("--json", group=_WRITE)] = None
    "File for all numbers."
    storage: StorageFlags = StorageFlags()

    def __post_init__(self) -> None:
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise SettingsError(f"--min-score {self.min_score:g}: needs a number from 0 to 1.")
        if not 0 <= self.report_pictures <= 100:
            raise SettingsError(f"--report-pictures {self.report_pictures}: needs a number from 0 to 100.")
        if self.report_pictures and self.report is None:
            raise SettingsError("--report-pictures without --report: it is that page which shows them.")
        for name, path in (("--accept", self.accept), ("--report", self.report), ("--json", self.json_file)):
            if path is not None and not path.strip():
                raise SettingsError(f"{name}: is empty. An unset variable?")
            refuse_lost(name, path or "/")
        if self.json_file is not None and "://" not in self.json_file:
            refuse_unwritable("--json", Path(self.json_file))
        if self.report is not None and "://" not in self.report:
            refuse_unmakeable("--report", Path(self.report))
        if self.accept is not None and "://" not in self.accept:
            refuse_unmakeable("--accept", Path(self.accept).parent)

    def rule(self) -> Rule:
        """Raises: SettingsError."""
        return Rule(
            lost=limits_of("--max-lost", self.max_lost),
            gained=limits_of("--max-gained", self.max_gained),
            moved=limits_of("--max-moved", self.max_moved),
            missing=self.max_missing,
            changed=self.max_changed,
        )


@app.default
def compare_outputs(old: str, new: str, /, *, options: Options | None = None) -> int:
    """Prints the settings that differ, pictures, faces by height and score, and whether the limits hold.

    Parameters
    ----------
    old
        Folder or prefix of the tables that are read now.
    new
        Folder or prefix of the tables that may take their place.
    """
    asked = options or Options()
    rule, storage = asked.rule(), Storage(asked.storage.options())
    with before_first_write():
        before, after = find_output(storage, old), find_output(storage, new)
        if before.uri == after.uri:
            raise InputError(f"{before.uri}: is both the old and the new output. Name two.")
        pointer = Pointer.at(storage, asked.accept, (before.uri, after.uri)) if asked.accept else None
        min_score = max(before.min_score, after.min_score) if asked.min_score is None else asked.min_score
        differing = differing_settings(before, after)
        found = compare(storage, before, after, min_score)
    broken, tables = rule.broken(found, finished=after.finished), tables_of(found, min_score)
    settings = settings_as_text(differing)
    _print(before, after, settings, tables)
    numbers = as_json(found, before, after, min_score, differing) | {"accepted": not broken, "broken": broken}
    if asked.json_file is not None:
        storage.write(storage.canonical(asked.json_file), (json.dumps(numbers, indent=1) + "\n").encode())
    if asked.report is not None:
        told = Told(settings, tables, broken)
        html = page(found, before, after, told, storage=storage, pictures=asked.report_pictures)
        uri = f"{storage.canonical(asked.report).rstrip('/')}/{NAME}"
        storage.write(uri, html.encode("utf-8", "backslashreplace"))
        print(f"report: {uri}")
    if broken:
        raise NotAccepted(f"{after.uri} must not take the place of {before.uri}: {'; '.join(broken)}.")
    print("The new output may take the old one's place.")
    if pointer is not None:
        _accept(pointer, before, after, found, numbers)
    return 0


def _print(old: Output, new: Output, settings: list[tuple[str, str, str]], tables: list[Table]) -> None:
    print(f"old: {old.uri}{'' if old.finished else ' (not finished)'}")
    print(f"new: {new.uri}{'' if new.finished else ' (not finished)'}\n")
    rows: list[tuple[str, ...]] = list(settings)
    print(Table("", "", ("setting", "old", "new"), rows) if settings else "The settings are the same.")
    for table in tables:
        print(f"\n{table.title}. {table.said}\n{table}")
    print()


def _accept(pointer: Pointer, old: Output, new: Output, found: Comparison, numbers: dict[str, Any]) -> None:
    if not find_output(pointer.storage, new.uri).finished:
        raise StopRun(f"{new.uri}: a run of detect_archive.py began on it meanwhile. Compare again when it is done.")
    faces = {name: numbers["faces"][name] for name in ("min_score", "old", "new", "lost", "gained", "moved")}
    moved = pointer.move(old.uri, new.uri, {"pictures": dict(sorted(found.pictures.items())), "faces": faces})
    print(f"{pointer.uri} {'names' if moved else 'named already'} {new.uri}")


if __name__ == "__main__":
    sys.exit(run_job(app))
