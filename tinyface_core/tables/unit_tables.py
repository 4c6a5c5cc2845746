"""The rows of one unit as its two tables: flat, sorted, with the hash that joins them, and what they add up to.

Knows the columns and their order; does not know files, stores, or settings.
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tinyface_core.tables.digest import commit_of
from tinyface_core.tables.schema import CARRIED_PREFIX, DETECTIONS_SCHEMA, images_schema

# A loose picture has no member; it comes before the members of an object of the same name.
SORT_KEYS = [("uri", "ascending"), ("member", "ascending")]
_OWN = frozenset(images_schema().names)


@dataclass(frozen=True, slots=True)
class UnitTotals:
    """Counts of one unit, or of many: rows of images, of detections, error rows by class, skips by extension."""

    pictures: int = 0
    faces: int = 0
    errors: dict[str, int] = field(default_factory=dict)
    skipped: dict[str, int] = field(default_factory=dict)


def sum_totals(totals: Iterable[UnitTotals]) -> UnitTotals:
    """All of them together, keys sorted."""
    pictures = faces = 0
    errors: Counter[str] = Counter()
    skipped: Counter[str] = Counter()
    for each in totals:
        pictures += each.pictures
        faces += each.faces
        errors.update(each.errors)
        skipped.update(each.skipped)
    return UnitTotals(pictures, faces, dict(sorted(errors.items())), dict(sorted(skipped.items())))


@dataclass(frozen=True)
class UnitTables:
    """images of `images_schema(carried)`, sorted by (uri, member); detections of `DETECTIONS_SCHEMA`, in the same
    order, best score first within a picture; both carry `commit`."""

    images: pa.Table
    detections: pa.Table
    commit: str
    totals: UnitTotals

    def errors_by_stage(self) -> dict[tuple[str, str], int]:
        """Error rows by (stage, class)."""
        errors = self.images.filter(self.images["error_class"].is_valid())
        return dict(Counter(zip(*(errors[name].to_pylist() for name in ("error_stage", "error_class")), strict=True)))


def unit_tables(unit_name: str, rows: pa.Table, carried: Iterable[pa.Field] = ()) -> UnitTables:
    """The two tables of a whole unit.

    Args:
        rows: of `row_schema(carried)`, as the collector gives them: indexes 0..n-1, and an end marker with n.
    Raises:
        ValueError: rows of another unit, or not all of them.
    """
    is_record = pc.equal(rows["kind"], "record")
    records, ends = rows.filter(is_record), rows.filter(pc.equal(rows["kind"], "end"))
    _check_whole(unit_name, records, ends)
    records = records.take(_order(records)).combine_chunks()

    faces = records["faces"].combine_chunks()
    faces_N = pc.fill_null(pc.list_value_length(faces), 0).to_numpy()
    schema = images_schema(carried)
    images = _images(records, faces_N, schema)
    detections = _detections(images["image_id"], faces, faces_N)
    return _committed(images, detections, json.loads(ends["skipped"][0].as_py() or "{}"), schema)


def amended(
    unit_name: str,
    standing: tuple[pa.Table, pa.Table],
    replaced: Collection[str],
    new: UnitTables,
    carried: Iterable[pa.Field] = (),
) -> UnitTables:
    """The two tables of a committed unit, with other rows in the place of some.

    Args:
        standing: images and detections as they were committed. replaced: image_ids of pictures whose rows go, beside
            those that have new ones.
        new: tables of the rows that come instead, under any unit's name.
    """
    schema, replaced = images_schema(carried), {*replaced, *new.images["image_id"].to_pylist()}
    images, detections = standing
    pictures = _joined([_others(images, replaced), new.images], schema)
    pictures = pictures.take(_order(pictures.append_column("index", pa.array(np.arange(len(pictures))))))
    unit = pa.repeat(pa.scalar(unit_name), len(pictures))
    pictures = pictures.set_column(pictures.schema.get_field_index("unit"), pictures.schema.field("unit"), unit)
    faces = _joined([_others(detections, replaced), new.detections], DETECTIONS_SCHEMA)
    picture_K = pc.index_in(faces["image_id"], value_set=pictures["image_id"].combine_chunks())
    faces = faces.take(pa.array(np.argsort(picture_K.to_numpy(), kind="stable")))
    return _rebuilt(pictures, faces, new.totals.skipped, schema)


def without(tables: UnitTables, gone: Collection[str], carried: Iterable[pa.Field] = ()) -> UnitTables:
    """The same tables less the rows of these pictures (image_ids)."""
    schema = images_schema(carried)
    images = _joined([_others(tables.images, gone)], schema)
    detections = _joined([_others(tables.detections, gone)], DETECTIONS_SCHEMA)
    return _rebuilt(images, detections, tables.totals.skipped, schema)


def _others(table: pa.Table, gone: Collection[str]) -> pa.Table:
    return table.filter(pc.invert(pc.is_in(table["image_id"], value_set=pa.array(sorted(gone), pa.string()))))


def _joined(tables: Sequence[pa.Table], schema: pa.Schema) -> pa.Table:
    """One after the other, without `commit`; dictionaries, which differ from table to table, spelled out."""
    fields = [_plain(field) for field in schema if field.name != "commit"]
    names = [field.name for field in fields]
    return pa.concat_tables([table.select(names).cast(pa.schema(fields)) for table in tables]).combine_chunks()


def _plain(field: pa.Field) -> pa.Field:
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


def _rebuilt(images: pa.Table, detections: pa.Table, skipped: dict[str, int], schema: pa.Schema) -> UnitTables:
    """From spelled out columns back to those that are written."""
    columns = [{name: table[name] for name in table.column_names} for table in (images, detections)]
    return _committed(_table(columns[0], schema), _table(columns[1], DETECTIONS_SCHEMA), skipped, schema)


def _committed(images: pa.Table, detections: pa.Table, skipped: dict[str, int], schema: pa.Schema) -> UnitTables:
    """Both tables with their hash, and what they add up to."""
    commit = commit_of((name, table[name]) for table in (images, detections) for name in table.column_names)
    classes = pc.value_counts(pc.drop_null(images["error_class"].cast(pa.string())))
    totals = UnitTotals(
        pictures=len(images),
        faces=len(detections),
        errors={each["values"].as_py(): each["counts"].as_py() for each in classes},
        skipped=skipped,
    )
    return UnitTables(
        _with_commit(images, commit, schema), _with_commit(detections, commit, DETECTIONS_SCHEMA), commit, totals
    )


def _order(records: pa.Table) -> pa.Array:
    """By (uri, member, index), names by their bytes; a null member comes first (no member's name is empty)."""
    member = pc.fill_null(records["member"], "")
    keys = pa.table({"uri": records["uri"], "member": member, "index": records["index"]})
    return pc.sort_indices(keys, sort_keys=[*SORT_KEYS, ("index", "ascending")])


def _check_whole(unit_name: str, records: pa.Table, ends: pa.Table) -> None:
    foreign = pc.sum(pc.not_equal(records["unit"], unit_name)).as_py()
    if foreign:
        raise ValueError(f"unit {unit_name}: {foreign} rows of other units")
    if len(ends) != 1 or ends["count"][0].as_py() != len(records):
        raise ValueError(f"unit {unit_name}: {len(records)} rows, but end markers say {ends['count'].to_pylist()}")
    if not np.array_equal(np.sort(records["index"].to_numpy()), np.arange(len(records))):
        raise ValueError(f"unit {unit_name}: the indexes of its rows are not 0 to {len(records) - 1}")


def _images(records: pa.Table, faces_N: NDArray[np.int32], schema: pa.Schema) -> pa.Table:
    """The images table without `commit`."""
    columns = {}
    for column in schema.names:
        if column == "num_faces":
            columns[column] = pa.chunked_array([pa.array(faces_N, pa.int32())])
        elif column != "commit":
            columns[column] = records[column if column in _OWN else CARRIED_PREFIX + column]
    return _table(columns, schema)


def _detections(image_id: pa.ChunkedArray, faces: pa.Array, faces_N: NDArray[np.int32]) -> pa.Table:
    """The detections table without `commit`: one row a face, in the pictures' order, best score first."""
    flat = faces.flatten()
    columns = dict(zip(flat.type.names, flat.flatten(), strict=True))
    picture_K = np.repeat(np.arange(len(faces_N)), faces_N)
    score_K = columns["score"].to_numpy()
    if np.any((np.diff(score_K) > 0) & (np.diff(picture_K) == 0)):
        order = pa.array(np.lexsort((-score_K, picture_K)))
        columns = {name: column.take(order) for name, column in columns.items()}
    columns["image_id"] = image_id.take(pa.array(picture_K))
    return _table(columns, DETECTIONS_SCHEMA)


def _table(columns: dict[str, pa.Array | pa.ChunkedArray], schema: pa.Schema) -> pa.Table:
    fields = [field for field in schema if field.name != "commit"]
    return pa.Table.from_arrays([_as(columns[field.name], field.type) for field in fields], schema=pa.schema(fields))


def _as(column: pa.Array | pa.ChunkedArray, kind: pa.DataType) -> pa.Array | pa.ChunkedArray:
    if pa.types.is_dictionary(kind) and not pa.types.is_dictionary(column.type):
        return column.cast(kind.value_type).dictionary_encode()
    return column if column.type == kind else column.cast(kind)


def _with_commit(table: pa.Table, commit: str, schema: pa.Schema) -> pa.Table:
    return table.add_column(
        schema.get_field_index("commit"), schema.field("commit"), pa.repeat(pa.scalar(commit), len(table))
    )
