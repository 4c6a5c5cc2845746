"""What of a unit that is committed has to be worked again, and which of its rows stand.

A loose picture of another version, or an error row that is tried again, costs its own inference and no other's: the
rest of the unit's rows is carried over from its tables. Knows rows and sources; not who works them.
"""

from __future__ import annotations

from collections.abc import Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinyface_core.archive.record import Part, Source, Unit, image_id_of
from tinyface_core.errors import OutputError
from tinyface_core.storage import ObjectError, Storage
from tinyface_core.tables.footer import CommitRecord, Footer, denied_stops_the_run, detections_uri
from tinyface_core.tables.plan_rows import sources_array


@dataclass(frozen=True)
class UnitWork:
    """One unit to work.

    part: what is read and detected: the unit itself, or a part of it whose rows take the place of those of the
    pictures `replaced` (image_ids) in the committed tables `stands`.
    """

    unit: Unit
    part: Unit
    stands: CommitRecord | None = None
    replaced: frozenset[str] = frozenset()

    @classmethod
    def whole(cls, unit: Unit) -> UnitWork:
        return cls(unit, unit)

    def failed(self, rows: pa.Table) -> Part | None:
        """Which records of the whole unit are error rows once `rows` (of the part) are in; None for loose pictures."""
        if _is_loose(self.unit):
            return None
        wrong = rows.filter(pc.equal(rows["status"], "error"))
        index_of = (self.part.part or Part(onward=0)).first(len(rows))
        indexes = [index_of[rank] for rank in wrong["index"].to_pylist()]
        broken = [index for index, member in zip(indexes, wrong["member"].to_pylist(), strict=True) if member is None]
        # Behind the place where an archive broke nobody knows what there is.
        return Part(frozenset(indexes) - frozenset(broken), min(broken, default=None))


def least_work(
    unit: Unit,
    record: CommitRecord,
    storage: Storage,
    carried: Sequence[pa.Field],
    *,
    changed: bool,
    retry: bool,
    removed: AbstractSet[str] = frozenset(),
) -> UnitWork:
    """The least that brings a committed unit up to date; the whole unit where its tables do not tell.

    Args:
        removed: image_ids that have no rows, and shall have none.
        changed: its sources, their carried values or the candidate filter are not those of the record.
        retry: error rows are tried again.
    """
    names = ["image_id", "status", "source_version", "size_bytes", *(field.name for field in carried)]
    try:
        with storage.open(record.uri) as file, pq.ParquetFile(file) as images:
            rows, footer = images.read(columns=names), Footer.from_metadata(images.metadata.metadata)
    except (ObjectError, pa.ArrowException, OSError):
        return UnitWork.whole(unit)
    if footer is None or footer.commit != record.commit:
        return UnitWork.whole(unit)
    if _is_loose(unit):
        part, replaced = _loose(unit, rows, carried, removed, retry=retry)
    else:
        part = None if changed or footer.failed is None else replace(unit, part=footer.failed)
        replaced = frozenset(rows.filter(pc.equal(rows["status"], "error"))["image_id"].to_pylist())
    if part is None or not 0 < len(replaced) < len(rows):
        return UnitWork.whole(unit)
    return UnitWork(unit, part, record, replaced)


def committed_tables(storage: Storage, output_uri: str, record: CommitRecord) -> tuple[pa.Table, pa.Table]:
    """Images and detections of a committed unit. Raises: OutputError, StorageError."""
    where = (record.uri, detections_uri(output_uri, record.unit, record.commit))
    try:
        with denied_stops_the_run():
            images, detections = (pq.read_table(pa.BufferReader(storage.read(uri))) for uri in where)
    except (ObjectError, pa.ArrowException, OSError) as error:
        raise OutputError(
            f"{record.uri}: rows that have not changed cannot be carried over: {error}. Delete this file: "
            "detect_archive.py then works its pictures anew."
        ) from error
    return images, detections


def _loose(
    unit: Unit, rows: pa.Table, carried: Sequence[pa.Field], removed: AbstractSet[str], *, retry: bool
) -> tuple[Unit | None, frozenset[str]]:
    """The pictures to work again, as a unit of their own (None: all, or none), and whose rows go."""
    names = [field.name for field in carried]
    row_of = {row["image_id"]: row for row in rows.to_pylist()}
    values = _carried_values(unit.sources, carried)
    ids = [image_id_of(source.uri) for source in unit.sources]

    def stands(source: Source, image_id: str, value: dict[str, Any]) -> bool:
        row = row_of.get(image_id)
        if image_id in removed:
            return True
        if row is None or (retry and row["status"] == "error"):
            return False
        same = source.size_bytes == row["size_bytes"] if source.version is None else True
        return same and source.version == row["source_version"] and value == {name: row[name] for name in names}

    again = tuple(
        (source, image_id)
        for source, image_id, value in zip(unit.sources, ids, values, strict=True)
        if not stands(source, image_id, value)
    )
    gone = row_of.keys() - set(ids)
    replaced = frozenset(image_id for _, image_id in again if image_id in row_of) | gone
    return (Unit(tuple(source for source, _ in again)) if again else None), replaced


def _carried_values(sources: Sequence[Source], carried: Sequence[pa.Field]) -> list[dict[str, Any]]:
    """What each source carries, as a table gives it back."""
    if not carried:
        return [{} for _ in sources]
    values: list[dict[str, Any]] = sources_array(sources, carried).field("carried").to_pylist()
    return values


def _is_loose(unit: Unit) -> bool:
    return unit.start is None
