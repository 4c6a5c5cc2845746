"""What of a unit that is committed has to be worked again, and which of its rows stand.

A loose picture of another version, or an error row that is tried again, costs its own inference and no other's: the
rest of the unit's rows is carried over from its tables. Knows rows and sources; not who works them.
"""

from __future__ import annotations

from collections.abc import Collection, Sequence
from dataclasses import dataclass, replace
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinyface_core.archive.record import Kind, Part, Source, Unit, image_id_of
from tinyface_core.errors import StopRun
from tinyface_core.storage import ObjectError, Storage
from tinyface_core.tables.digest import commit_of
from tinyface_core.tables.footer import CommitRecord, Footer, denied_stops_the_run
from tinyface_core.tables.plan_rows import sources_array
from tinyface_core.tables.removed import Removed


@dataclass(frozen=True)
class UnitWork:
    """One unit to work.

    part: what is read and detected: the unit itself, or a part of it whose rows take the place of those of the
    pictures `replaced` (image_ids) in the committed tables `stands`. expected: how many pictures it was thought to be.
    """

    unit: Unit
    part: Unit
    stands: CommitRecord | None = None
    replaced: frozenset[str] = frozenset()
    expected: int = 0

    @classmethod
    def whole(cls, unit: Unit) -> UnitWork:
        return cls(unit, unit)

    def answered(self, rows: pa.Table) -> bool:
        """Whether these rows tell of every record of the part; an archive may not be there any more as it was.

        What stands is better then: an error row that is not answered must not go.
        """
        part = self.part.part
        if part is None:
            return True
        end = rows.filter(pc.equal(rows["kind"], "end"))["count"][0].as_py()
        broken = pc.and_(pc.equal(rows["status"], "error"), pc.is_null(rows["member"]))
        return end >= part.least and (part.onward is not None or not pc.any(broken).as_py())

    def failed(self, rows: pa.Table, gone: Collection[str] = ()) -> Part | None:
        """Which records of the whole unit are error rows once `rows` (of the part) are in; None for loose pictures.

        gone: image_ids that have no row.
        """
        if self.unit.is_loose:
            return None
        index_of = (self.part.part or Part(onward=0)).first(len(rows))
        wrong = rows.filter(pc.equal(rows["status"], "error"))
        wrong = wrong.filter(pc.invert(pc.is_in(wrong["image_id"], value_set=pa.array(sorted(gone), pa.string()))))
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
    removed: Removed | None = None,
) -> UnitWork:
    """The least that brings a committed unit up to date; the whole unit where its tables do not tell.

    Args:
        removed: pictures that have no rows, and shall have none.
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
    if unit.is_loose:
        part, replaced = _loose(unit, rows, carried, removed or Removed(), retry=retry)
    else:
        part = None if changed or footer.failed is None else replace(unit, part=footer.failed)
        replaced = frozenset(rows.filter(pc.equal(rows["status"], "error"))["image_id"].to_pylist())
        part = part if replaced else None
    if part is None or (len(replaced) == len(rows) and part.present):
        return UnitWork.whole(unit)
    return UnitWork(unit, part, record, replaced)


def committed_tables(storage: Storage, record: CommitRecord) -> tuple[pa.Table, pa.Table]:
    """Images and detections of a committed unit, as they were committed: their hash is that of the record.

    Raises: StopRun, StorageError.
    """
    where = (record.uri, record.detections_uri)
    try:
        with denied_stops_the_run():
            images, detections = (pq.read_table(pa.BufferReader(storage.read(uri))) for uri in where)
        found = commit_of((name, table[name]) for table in (images, detections) for name in table.column_names)
        if found != record.commit:
            raise ValueError(f"the rows of commit {record.commit} make {found}")
    except (ObjectError, pa.ArrowException, OSError, ValueError) as error:
        raise StopRun(
            f"{record.uri}: rows that have not changed cannot be carried over: {error}. Delete this file: "
            "detect_archive.py then works its pictures anew."
        ) from error
    return images, detections


def _loose(
    unit: Unit, rows: pa.Table, carried: Sequence[pa.Field], removed: Removed, *, retry: bool
) -> tuple[Unit | None, frozenset[str]]:
    """The pictures to work again, as a unit of their own (None: nobody knows which), and whose rows go.

    Where only rows go, or pictures changed that have none, it is a unit that gives no record.
    """
    names = [field.name for field in carried]
    row_of = {row["image_id"]: row for row in rows.to_pylist()}
    values = _carried_values(unit.present, carried)
    ids = [image_id_of(source.uri) for source in unit.present]

    def stands(source: Source, image_id: str, value: dict[str, Any]) -> bool:
        row = row_of.get(image_id)
        if image_id in removed.image_ids:
            return True
        if row is None or (retry and row["status"] == "error"):
            return False
        resized = source.size_bytes is not None and source.size_bytes != row["size_bytes"]
        if source.version != row["source_version"] or (source.version is None and resized):
            return False
        return _same(value, {name: row[name] for name in names})

    again = tuple(
        (source, image_id)
        for source, image_id, value in zip(unit.present, ids, values, strict=True)
        if not stands(source, image_id, value)
    )
    gone = row_of.keys() - set(ids)
    replaced = frozenset(image_id for _, image_id in again if image_id in row_of) | gone
    if again:
        return Unit(tuple(source for source, _ in again)), replaced
    without_row = {source.uri for source in unit.sources if source.kind is Kind.GONE}
    without_row |= {source.uri for source, name in zip(unit.present, ids, strict=True) if name in removed.image_ids}
    silent = tuple(replace(source, kind=Kind.GONE) for source in unit.sources if source.uri in without_row)
    return (Unit(silent) if silent else None), replaced


def _same(value: dict[str, Any], other: dict[str, Any]) -> bool:
    return value == other or repr(value) == repr(other)  # NaN is not equal to itself


def _carried_values(sources: Sequence[Source], carried: Sequence[pa.Field]) -> list[dict[str, Any]]:
    """What each source carries, as a table gives it back."""
    if not carried:
        return [{} for _ in sources]
    values: list[dict[str, Any]] = sources_array(sources, carried).field("carried").to_pylist()
    return values
