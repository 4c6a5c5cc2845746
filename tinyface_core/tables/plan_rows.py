"""Sources and units as Arrow rows, and back: what the files of a plan hold.

One row a unit, its sources as a nested list; a row with `gone` set is a tombstone: it takes the unit out of the
plan. Knows nothing of generations, files or listings.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from itertools import accumulate, chain

import pyarrow as pa

from tinyface_core.archive.record import Kind, Source, Unit
from tinyface_core.errors import InputError

_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND = timedelta(microseconds=1)
_KINDS = {str(kind): kind for kind in Kind}


def source_type(carried: Sequence[pa.Field]) -> pa.DataType:
    """Struct of one source; `modified_us` counts microseconds since 1970, UTC; `carried` only where there is any."""
    fields = [
        pa.field("uri", pa.string(), nullable=False),
        pa.field("kind", pa.string(), nullable=False),
        pa.field("size_bytes", pa.int64()),
        pa.field("version", pa.string()),
        pa.field("modified_us", pa.int64()),
    ]
    if carried:
        fields.append(pa.field("carried", pa.struct([pa.field(f.name, _plain(f.type)) for f in carried])))
    return pa.struct(fields)


def plan_schema(carried: Sequence[pa.Field]) -> pa.Schema:
    """Schema of a plan's files. start, stop and occurrences are those of `Unit`; null start: loose pictures."""
    return pa.schema(
        [
            pa.field("unit", pa.string(), nullable=False),
            pa.field("gone", pa.bool_(), nullable=False),
            pa.field("start", pa.int64()),
            pa.field("stop", pa.int64()),
            pa.field("byte_offset", pa.int64(), nullable=False),
            pa.field("occurrences", pa.map_(pa.int64(), pa.int64())),
            pa.field("sources", pa.list_(pa.field("element", source_type(carried), nullable=False))),
        ]
    )


def sources_array(sources: Sequence[Source], carried: Sequence[pa.Field]) -> pa.StructArray:
    """`sources` as a struct array of `source_type(carried)`.

    Raises:
        InputError: a carried value is not of its column's type.
    """
    kind = source_type(carried)
    columns = [
        pa.array([source.uri for source in sources], pa.string()),
        pa.array([str(source.kind) for source in sources], pa.string()),
        pa.array([source.size_bytes for source in sources], pa.int64()),
        pa.array([source.version for source in sources], pa.string()),
        pa.array(
            [None if source.modified is None else (source.modified - _EPOCH) // _MICROSECOND for source in sources],
            pa.int64(),
        ),
    ]
    if carried:
        values = [_carried_column(sources, field) for field in kind.field("carried").type]
        columns.append(pa.StructArray.from_arrays(values, fields=list(kind.field("carried").type)))
    return pa.StructArray.from_arrays(columns, fields=list(kind))


def _carried_column(sources: Sequence[Source], field: pa.Field) -> pa.Array:
    try:
        return pa.array([source.carried.get(field.name) for source in sources], field.type)
    except (pa.ArrowInvalid, pa.ArrowTypeError, OverflowError) as error:
        raise InputError(
            f"--carry {field.name}: a value is not of the column's type {field.type}: {error}. "
            "Give the column one type in every manifest, or leave it out of --carry."
        ) from error


def sources_from(array: pa.StructArray) -> list[Source]:
    """The sources that `sources_array` made this array of; carried values that are null are left out."""
    size = len(array)
    columns = [array.field(name).to_pylist() for name in ("uri", "kind", "size_bytes", "version", "modified_us")]
    if array.type.get_field_index("carried") < 0:
        values: list[dict[str, object]] = [{} for _ in range(size)]
    else:
        rows = array.field("carried").to_pylist()
        values = [{name: value for name, value in row.items() if value is not None} for row in rows]
    return [
        Source(uri, _KINDS[kind], size_bytes, version, None if us is None else _EPOCH + us * _MICROSECOND, carried)
        for uri, kind, size_bytes, version, us, carried in zip(*columns, values, strict=True)
    ]


def unit_rows(units: Sequence[Unit], carried: Sequence[pa.Field]) -> pa.RecordBatch:
    """One row a unit, in order."""
    schema = plan_schema(carried)
    sources = sources_array(list(chain.from_iterable(unit.sources for unit in units)), carried)
    offsets = list(accumulate((len(unit.sources) for unit in units), initial=0))
    return pa.record_batch(
        [
            pa.array([unit.name for unit in units], pa.string()),
            pa.array([False] * len(units), pa.bool_()),
            pa.array([unit.start for unit in units], pa.int64()),
            pa.array([unit.stop for unit in units], pa.int64()),
            pa.array([unit.byte_offset for unit in units], pa.int64()),
            pa.array([sorted(unit.occurrences.items()) for unit in units], schema.field("occurrences").type),
            pa.ListArray.from_arrays(pa.array(offsets, pa.int32()), sources, type=schema.field("sources").type),
        ],
        schema=schema,
    )


def tombstones(names: Sequence[str], carried: Sequence[pa.Field]) -> pa.RecordBatch:
    """Rows that take the units of these names out of the plan."""
    rows = [{"unit": name, "gone": True, "byte_offset": 0} for name in names]
    return pa.RecordBatch.from_pylist(rows, schema=plan_schema(carried))


def units_from(rows: pa.Table) -> Iterator[Unit]:
    """The units of these rows, in order; none of them a tombstone."""
    for batch in rows.to_batches():
        sources = sources_from(batch.column("sources").flatten())
        lengths = batch.column("sources").value_lengths().to_pylist()
        stops = accumulate(lengths)
        plain = [batch.column(name).to_pylist() for name in ("start", "stop", "byte_offset", "occurrences")]
        for start, stop, byte_offset, occurrences, length, end in zip(*plain, lengths, stops, strict=True):
            yield Unit(tuple(sources[end - length : end]), start, stop, byte_offset, dict(occurrences or ()))


def _plain(kind: pa.DataType) -> pa.DataType:
    """Dictionaries are an encoding, not a type of value: two listings may have made different ones."""
    return kind.value_type if pa.types.is_dictionary(kind) else kind
