"""Writes the faces of an output in the form of others: COCO, WIDER FACE, FDDB, FiftyOne, img2dataset, Iceberg.

    python jobs/export.py faces/ --to coco --output faces.json

    python jobs/export.py s3://bucket/faces/ --to img2dataset --output s3://bucket/blur.parquet --min-score 0.3

What each form holds, and how pictures in archives are named: docs/export.md.
Exit codes: 0 done, 2 refused before the first write, 1 stopped later; the same command goes on.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Group, Parameter

from options import StorageFlags, Texts, before_first_write, job_app, many, refuse_lost, run_job
from tinyface_core.errors import InputError, SettingsError
from tinyface_core.export.forms import FORMS, described, stage
from tinyface_core.export.names import Names
from tinyface_core.export.pictures import Tally, Wanted
from tinyface_core.export.target import Target
from tinyface_core.report.text import counted
from tinyface_core.storage import Storage
from tinyface_core.tables.output import SETTINGS
from tinyface_core.tables.unit_files import images_files

_WHAT = Group("What to write", sort_key=1)
_ICEBERG = Group("Iceberg", sort_key=4)
app = job_app("export.py", __doc__ or "")


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WhatFlags:
    """What is written of a picture; not for Iceberg."""

    min_score: Annotated[float | None, Parameter(group=_WHAT)] = None
    "Faces of a lower score are left out."
    min_height: Annotated[float | None, Parameter(group=_WHAT)] = None
    "Faces of less height, in pixels, are left out."
    below: Annotated[str | None, Parameter(group=_WHAT)] = None
    "Folder or archive that the names of pictures begin at; without it they are whole paths."


@app.default
def export(
    tables: str,
    /,
    *,
    to: Literal["coco", "wider", "fddb", "fiftyone", "img2dataset", "iceberg"],
    out: Annotated[str, Parameter("--output")],
    what: WhatFlags | None = None,
    overwrite: Annotated[bool, Parameter(negative=())] = False,
    catalog_option: Annotated[Texts, many(_ICEBERG)] = (),
    storage: StorageFlags | None = None,
) -> int:
    """Writes an export, and tells what is in it and what is not.

    Parameters
    ----------
    tables
        Folder or prefix of the tables that detect_archive.py wrote.
    to
        The form.
    out
        Where to write: a file; for wider a folder; for iceberg CATALOG.NAMESPACE.
    overwrite
        Replace an earlier export.
    catalog_option
        key=value for pyiceberg, as uri=sqlite:////home/me/catalog.db; may be repeated.
    """
    store = Storage((storage or StorageFlags()).options())
    what = what or WhatFlags()
    wanted = Wanted(what.min_score, what.min_height)
    if not out.strip():
        raise SettingsError("--output: is empty. An unset variable?")
    output_uri = store.canonical(tables).rstrip("/")
    if to == "iceberg":
        if what != WhatFlags():
            raise SettingsError(
                "--to iceberg: takes the tables as they are, without --min-score, --min-height and --below. Ask for "
                "these in your queries."
            )
        return _to_iceberg(store, output_uri, out, _pairs(catalog_option), overwrite=overwrite)
    if catalog_option:
        raise SettingsError(f"--catalog-option {catalog_option[0]}: is for --to iceberg only.")
    refuse_lost("--output", out)
    target = Target(store, out, suffix=FORMS[to].suffix, overwrite=overwrite)
    with before_first_write():
        unfinished = _look(store, output_uri)
        target.check(output_uri)
    with target.stage() as folder:
        place = Path(folder) / "export"
        with before_first_write():
            names = Names(store.canonical(what.below) if what.below else None)
            tally = stage(store, output_uri, to, place, names, wanted)
        target.publish(place, described(to, tally))
    print(f"{counted(tally.pictures, 'picture')} with {counted(tally.faces, 'face')} written to {target.uri}")
    _tell(tally, keeps_errors=FORMS[to].keeps_errors, unfinished=unfinished)
    return 0


def _look(store: Storage, output_uri: str) -> bool:
    """Whether the output is not finished. Raises: InputError where there is none."""
    if store.stat(f"{output_uri}/{SETTINGS}") is None and next(images_files(store, output_uri), None) is None:
        raise InputError(f"no output of detect_archive.py: {output_uri}: nothing is there.")
    return store.stat(f"{output_uri}/_SUCCESS") is None


def _tell(tally: Tally, *, keeps_errors: bool, unfinished: bool) -> None:
    if tally.errors:
        classes = ", ".join(f"{count:,} {name}" for name, count in sorted(tally.errors.items()))
        rows = f"{counted(tally.errors.total(), 'picture')} with an error row ({classes})"
        print(f"without faces: {rows}" if keeps_errors else f"left out: {rows}")
    for why, count in tally.left_out.items():
        print(f"left out: {counted(count, 'picture')} ({why})")
    if tally.unwanted:
        print(f"left out: {counted(tally.unwanted, 'face')} below --min-score or --min-height")
    for sentence in tally.notes:
        print(sentence)
    if tally.torn_units:
        print(f"left out: {counted(tally.torn_units, 'unit')} whose faces are not there: run detect_archive.py again.")
    if unfinished:
        print("The output is not finished (no _SUCCESS): what was committed until now is written.")


def _pairs(options: Texts) -> dict[str, str]:
    pairs = {}
    for text in options:
        key, equals, value = text.partition("=")
        if not equals or not key:
            raise SettingsError(f"--catalog-option {key or text}: give it as key=value.")
        pairs[key] = value
    return pairs


def _to_iceberg(store: Storage, output_uri: str, out: str, properties: dict[str, str], *, overwrite: bool) -> int:
    try:
        from tinyface_core.export import iceberg
    except ImportError as error:
        raise SettingsError("--to iceberg: pyiceberg is not installed: pip install 'tinyface[iceberg]'.") from error
    place = iceberg.Place.of(out)
    with before_first_write():
        unfinished = _look(store, output_uri)
        catalog = iceberg.open_catalog(place, properties, store)
        iceberg.check_tables(catalog, place, output_uri, overwrite=overwrite)
    change = iceberg.export_iceberg(store, output_uri, catalog, place)
    rows = f"{counted(change.pictures, 'picture')} and {counted(change.faces, 'face')}"
    print(f"added to {out}: {counted(change.added, 'unit')} with {rows}")
    if change.deleted:
        print(f"deleted from {out}: rows of {counted(change.deleted, 'commit')} that the output has no more")
    _tell(Tally(), keeps_errors=True, unfinished=unfinished)
    return 0


if __name__ == "__main__":
    sys.exit(run_job(app))
