"""Takes pictures out of an output for good, because somebody asked for it.

Their ids are noted first, and whatever is committed from then on is without them; then the units that hold them are
written again. A removal that was cut short is brought to its end by the next one, or by the next run.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinyface_core.archive.record import image_id_of
from tinyface_core.errors import OutputError
from tinyface_core.storage import ObjectError, ObjectInfo, Storage
from tinyface_core.tables.commit import Committer
from tinyface_core.tables.footer import THREADS, Footer, batches, committed, list_files, unit_of_images
from tinyface_core.tables.output import OutputFolder
from tinyface_core.tables.redo import committed_tables
from tinyface_core.tables.schema import images_schema
from tinyface_core.tables.unit_tables import UnitTables, UnitTotals, without


@dataclass(frozen=True)
class Wanted:
    """Which pictures: by id, by uri (an archive's with all that is in it), or by uri and member."""

    image_ids: frozenset[str] = frozenset()
    uris: frozenset[str] = frozenset()
    members: frozenset[tuple[str, str]] = frozenset()

    def told(self) -> frozenset[str]:
        """The ids that follow from the names alone, whether the output has them yet or not."""
        loose = {image_id_of(uri) for uri in self.uris}
        inside = {image_id_of(uri, member.encode()) for uri, member in self.members}
        return self.image_ids | loose | inside

    def among(self, rows: pa.Table) -> frozenset[str]:
        """The ids of those that are wanted of these rows of images."""
        by_name = pc.is_in(rows["uri"], value_set=pa.array(sorted(self.uris), pa.string()))
        by_id = pc.is_in(rows["image_id"], value_set=pa.array(sorted(self.told()), pa.string()))
        found = set(rows.filter(pc.or_(by_name, by_id))["image_id"].to_pylist())
        if self.members:  # a name that stands more than once in an archive, or is not UTF-8
            of_archives = pa.array(sorted({uri for uri, _ in self.members}), pa.string())
            few = rows.filter(pc.is_in(rows["uri"], value_set=of_archives))
            found |= {row["image_id"] for row in few.to_pylist() if (row["uri"], row["member"]) in self.members}
        return frozenset(found)


@dataclass(frozen=True)
class Found:
    """Where they are. in_units: unit -> image_ids. faces: rows of theirs in detections."""

    in_units: Mapping[str, frozenset[str]] = field(default_factory=dict)
    faces: int = 0

    @property
    def image_ids(self) -> frozenset[str]:
        return frozenset().union(*self.in_units.values())


def find(storage: Storage, output_uri: str, wanted: Wanted) -> Found:
    """Looks through the whole images table. Raises: OutputError, StorageError."""
    in_units, faces = {}, 0
    for unit, ids, count in _looked_through(storage, output_uri, wanted):
        if ids:
            in_units[unit], faces = ids, faces + count
    return Found(in_units, faces)


def _looked_through(storage: Storage, output_uri: str, wanted: Wanted) -> Iterator[tuple[str, frozenset[str], int]]:
    def look(info: ObjectInfo) -> tuple[str, frozenset[str], int]:
        try:
            with storage.open(info.uri) as file:
                rows = pq.read_table(file, columns=["image_id", "uri", "member", "num_faces"])
        except (ObjectError, pa.ArrowException, OSError) as error:
            raise OutputError(
                f"{info.uri}: cannot be read: {error}. `jobs/validate.py` tells what is wrong."
            ) from error
        ids = wanted.among(rows)
        own = pc.is_in(rows["image_id"], value_set=pa.array(sorted(ids), pa.string()))
        return unit_of_images(info.uri) or "", ids, pc.sum(rows.filter(own)["num_faces"]).as_py() or 0

    ours = (info for info in list_files(storage, output_uri, "images") if unit_of_images(info.uri))
    with ThreadPoolExecutor(THREADS) as pool:
        for few in batches(ours, 2 * THREADS):
            yield from pool.map(look, few)


def take_out(storage: Storage, output: OutputFolder, committer: Committer, found: Found) -> None:
    """Writes the units again without these pictures; the tables are not exact until the sweep that has to follow.

    Raises: OutputError, StorageError.
    """
    records = committed(storage, output.uri)
    for unit, ids in found.in_units.items():
        record = records.get(unit)
        if record is None:  # its files do not fit together: not done, so worked again, and then without them
            committer.retire([unit])
            continue
        images, detections = committed_tables(storage, output.uri, record)
        carried = [column for column in images.schema if column.name not in images_schema().names]
        tables = without(UnitTables(images, detections, record.commit, record.totals), ids, carried)
        with storage.open(record.uri) as file:
            footer = Footer.from_metadata(pq.read_metadata(file).metadata)
        if footer is None:
            raise OutputError(f"{record.uri}: changed while it was read; give the same command again.")
        if _errors(tables.totals) != _errors(record.totals):
            footer = replace(footer, failed=None)  # which of the failed records went cannot be told
        committer.put(replace(footer, commit=tables.commit, totals=tables.totals), tables)


def _errors(totals: UnitTotals) -> int:
    return sum(totals.errors.values())


def finish_removals(storage: Storage, output: OutputFolder, committer: Committer) -> AbstractSet[str]:
    """Brings removals that were cut short to their end; gives the ids of all that are out. A sweep has to follow."""
    removals = output.removals()
    for image_ids in (ids for ids, done in removals.items() if not done):
        output.delete_success()
        take_out(storage, output, committer, find(storage, output.uri, Wanted(image_ids)))
        output.write_removal(image_ids, done=True)
    return frozenset().union(*removals)
