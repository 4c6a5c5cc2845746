"""Two outputs, unit by unit, in memory that does not grow with them.

A unit has the same name in both outputs where it holds the same sources, so most pictures are compared as their pair of
files is read. Only those that lie in another unit, or in none, wait on disk (`spill.py`). In memory: the names of the
units. Knows files and order; what is compared is in `pictures.py`.
"""

from __future__ import annotations

import functools
import operator
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from tinyface_core.compare.counts import Comparison
from tinyface_core.compare.pictures import alone, side_by_side
from tinyface_core.compare.rows import ROWS, unit_rows
from tinyface_core.compare.spill import Spill
from tinyface_core.errors import InputError
from tinyface_core.storage import Storage
from tinyface_core.tables.output import OutputFolder
from tinyface_core.tables.unit_files import images_files, in_threads

_NOT_TOLD = ("model_hash",)  # beside the model's name only where that is the same
_EMPTY = ROWS.empty_table()


@dataclass(frozen=True)
class Output:
    """One of the two. settings: as recorded; empty where none are. finished: `_SUCCESS` is there."""

    uri: str
    settings: Mapping[str, Any]
    finished: bool

    @property
    def min_score(self) -> float:
        value = self.settings.get("min_score")
        return float(value) if isinstance(value, int | float) else 0.0


def find_output(storage: Storage, url: str) -> Output:
    """Raises: InputError where there is none; FormatError, OutputError, StorageError, ObjectError."""
    folder = OutputFolder(storage, url)
    folder.check_format()
    settings = folder.settings()
    if settings is None and next(images_files(storage, folder.uri), None) is None:
        raise InputError(f"no output of detect_archive.py: {folder.uri}: nothing is there.")
    finished = storage.stat(folder.path("_SUCCESS")) is not None
    return Output(folder.uri, settings or {}, finished)


def differing_settings(old: Output, new: Output) -> list[tuple[str, Any, Any]]:
    """(name, old value, new value) of each setting that is not the same, as recorded in `_run/settings.json`."""
    names = [name for name in {**old.settings, **new.settings} if old.settings.get(name) != new.settings.get(name)]
    if "model" in names:
        names = [name for name in names if name not in _NOT_TOLD]
    return [(name, old.settings.get(name), new.settings.get(name)) for name in names]


def compare(storage: Storage, old: Output, new: Output, min_score: float) -> Comparison:
    """All that is committed in both.

    Args:
        min_score: as in `side_by_side`.
    Raises:
        StorageError: a table cannot be read; FormatError; ObjectError.
    """
    with Spill() as spill:
        total = functools.reduce(operator.add, _by_unit(storage, old, new, min_score, spill), Comparison())
        for pair in spill.joined():
            total += side_by_side(*pair, min_score)
        for side in ("old", "new"):
            total = functools.reduce(operator.add, (alone(rows, side) for rows in spill.alone(side)), total)
    return total


def _by_unit(storage: Storage, old: Output, new: Output, min_score: float, spill: Spill) -> Iterator[Comparison]:
    """What is told while units are read; the rest goes to `spill`."""
    units = [{uri.rpartition("/")[2]: uri for uri in images_files(storage, side.uri)} for side in (old, new)]

    def read(name: str) -> tuple[Comparison, pa.Table, pa.Table]:
        tables, torn = list[pa.Table](), list[int]()
        for side, uris in zip((old, new), units, strict=True):
            rows = unit_rows(storage, side.uri, uris[name]) if name in uris else _EMPTY
            tables.append(_EMPTY if rows is None else rows)
            torn.append(int(rows is None))
        found, left_old, left_new = _paired(tables[0], tables[1], min_score)
        return found + Comparison(torn_old=torn[0], torn_new=torn[1]), left_old, left_new

    for found, left_old, left_new in in_threads(read, sorted(units[0].keys() | units[1].keys())):
        spill.add("old", left_old)
        spill.add("new", left_new)
        yield found


def _paired(old: pa.Table, new: pa.Table, min_score: float) -> tuple[Comparison, pa.Table, pa.Table]:
    """What is said of the pictures that both have, and the rest of each."""
    place_P = pc.index_in(new["image_id"], value_set=old["image_id"].combine_chunks()).combine_chunks()
    here_P = place_P.is_valid()
    compared = side_by_side(old.take(place_P.drop_null()), new.filter(here_P), min_score)
    left_old = old.filter(pc.invert(pc.is_in(old["image_id"], value_set=new["image_id"].combine_chunks())))
    return compared, left_old, new.filter(pc.invert(here_P))
