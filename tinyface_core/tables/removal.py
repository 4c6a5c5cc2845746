"""Takes pictures out of an output for good, because somebody asked for it.

Who they are is noted first, and whatever is committed from then on is without them; then the units that hold them are
written again. A removal that was cut short is brought to its end by the next one, or by the next run.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinyface_core.storage import ObjectInfo, ObjectMissing, Storage
from tinyface_core.tables.commit import Committer
from tinyface_core.tables.footer import (
    THREADS,
    batches,
    committed,
    folder_of,
    list_files,
    read_footer,
    unit_of_images,
)
from tinyface_core.tables.output import OutputFolder
from tinyface_core.tables.redo import committed_tables
from tinyface_core.tables.removed import Removal, Removed
from tinyface_core.tables.schema import images_schema
from tinyface_core.tables.unit_tables import UnitTables, UnitTotals, without


@dataclass(frozen=True)
class Found:
    """Where they are.

    in_units: unit -> image_ids. faces: rows of theirs in detections. unreadable: units whose images file is damaged:
    nobody knows what is in it. named: those of the uris that rows have. folders: those of the other uris below which
    rows are, and how many.
    """

    in_units: Mapping[str, frozenset[str]] = field(default_factory=dict)
    faces: int = 0
    unreadable: tuple[str, ...] = ()
    named: frozenset[str] = frozenset()
    folders: Mapping[str, int] = field(default_factory=dict)

    @property
    def pictures(self) -> int:
        return sum(map(len, self.in_units.values()))


def find(storage: Storage, output_uri: str, pictures: Removed) -> Found:
    """Looks through the whole images table. Raises: StorageError."""
    in_units, faces, unreadable, below, named = {}, 0, [], Counter[str](), frozenset[str]()
    for unit, seen in _looked_through(storage, output_uri, pictures):
        if seen is None:
            unreadable.append(unit)
            continue
        below.update(seen.below)
        named |= seen.named
        if seen.image_ids:
            in_units[unit], faces = seen.image_ids, faces + seen.faces
    folders = {uri: count for uri, count in below.items() if count and uri not in named}
    return Found(in_units, faces, tuple(unreadable), named, folders)


@dataclass(frozen=True)
class _Seen:
    """In one unit. faces: of these pictures. named: uris that name a row. below: uri -> rows below it as a folder."""

    image_ids: frozenset[str] = frozenset()
    faces: int = 0
    named: frozenset[str] = frozenset()
    below: Mapping[str, int] = field(default_factory=dict)


def _looked_through(storage: Storage, output_uri: str, pictures: Removed) -> Iterator[tuple[str, _Seen | None]]:
    """Each unit with what it holds of the pictures; None: it is damaged."""

    def look(info: ObjectInfo) -> tuple[str, _Seen | None]:
        unit = unit_of_images(info.uri) or ""
        try:
            with storage.open(info.uri) as file:
                columns = ["image_id", "uri", "member", "num_faces"]
                rows = pq.read_table(file, columns=columns, page_checksum_verification=True)
        except ObjectMissing:
            return unit, _Seen()
        except (pa.ArrowException, OSError):
            return unit, None
        ids = pictures.among(rows)
        own = pc.is_in(rows["image_id"], value_set=pa.array(sorted(ids), pa.string()))
        faces = pc.sum(rows.filter(own)["num_faces"]).as_py() or 0
        return unit, _Seen(ids, faces, *pictures.places(rows))

    ours = (info for info in list_files(storage, output_uri, "images") if unit_of_images(info.uri))
    with ThreadPoolExecutor(THREADS) as pool:
        for few in batches(ours, 2 * THREADS):
            yield from pool.map(look, few)


def _take_out(storage: Storage, output: OutputFolder, committer: Committer, removal: Removal, found: Found) -> bool:
    """Writes the units again without these pictures; False where some have to be worked anew, being damaged."""
    records = committed(storage, output.uri)
    damaged = [*found.unreadable, *(unit for unit in found.in_units if unit not in records)]
    if damaged:  # noted first: whoever goes on after a kill finds nothing of them any more
        output.write_removal(replace(removal, finished=False))
    committer.retire(damaged)
    for unit in found.in_units.keys() & records.keys():
        record = records[unit]
        info = storage.stat(record.uri)
        footer = read_footer(storage, info) if info else None
        if footer is None:
            damaged.append(unit)
            continue
        images, detections = committed_tables(storage, record)
        carried = [column for column in images.schema if column.name not in images_schema().names]
        tables = UnitTables(images, detections, record.commit, record.totals)
        tables = without(tables, found.in_units[unit], carried)
        if _errors(tables.totals) != _errors(record.totals):
            footer = replace(footer, failed=None)  # which of the failed records went cannot be told
        footer = replace(footer, commit=tables.commit, totals=tables.totals)
        committer.put(footer, tables, folder_of(output.uri, record.uri))
    return not damaged


def _errors(totals: UnitTotals) -> int:
    return sum(totals.errors.values())


def finish_removals(storage: Storage, output: OutputFolder, committer: Committer) -> bool:
    """Brings removals that are not done to their end; a sweep has to follow.

    Returns:
        Whether the tables are as whole as before: `_SUCCESS` was there, and no unit has to be worked anew.
    Raises: StopRun, StorageError.
    """
    open_ones = [removal for removal in output.removals() if not removal.done]
    whole = all(removal.finished for removal in open_ones)
    for removal in open_ones:
        found = find(storage, output.uri, removal.pictures)
        if found.in_units or found.unreadable:
            output.delete_success()
            output.delete_report()  # it may show them
            whole &= _take_out(storage, output, committer, removal, found)
        output.write_removal(replace(removal, done=True))
    return whole
