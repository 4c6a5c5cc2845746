"""Columns of the two tables as Iceberg's format 2 has them: the nearest type, so that values stay what they are.

Our own columns need little; those that --carry took along are of any type that Parquet has. Knows Arrow, not pyiceberg.
"""

from __future__ import annotations

from collections.abc import Callable

import pyarrow as pa
import pyarrow.types as kinds

from tinyface_core.errors import OutputError
from tinyface_core.tables.schema import DETECTIONS_SCHEMA, images_schema

_DOCS = {column.name: column.metadata for column in (*images_schema(), *DETECTIONS_SCHEMA)}
_KEPT: tuple[Callable[[pa.DataType], bool], ...] = (
    kinds.is_boolean,
    kinds.is_int32,
    kinds.is_int64,
    kinds.is_floating,
    kinds.is_decimal128,
    kinds.is_date,
    kinds.is_string,
    kinds.is_large_string,
    kinds.is_binary,
    kinds.is_large_binary,
    kinds.is_fixed_size_binary,
)


def iceberg_columns(schema: pa.Schema) -> pa.Schema:
    """The same columns with their descriptions, to cast to with `safe=False`: nanoseconds are cut to microseconds.

    Raises: OutputError: one is of a type that Iceberg has nothing for.
    """
    return pa.schema([_column(column) for column in schema])


def _column(column: pa.Field) -> pa.Field:
    kind = _kind(column.type)
    if kind is None:
        raise OutputError(
            f"--to iceberg: the column {column.name} is {column.type}, which Iceberg has no type for. Read the Parquet "
            "files as they are, or carry it along as another type in a new output."
        )
    return column.with_type(kind).with_metadata(_DOCS.get(column.name))  # a file does not keep them


def _kind(kind: pa.DataType) -> pa.DataType | None:
    """Wide enough for each value; None where there is no such type."""
    if kinds.is_dictionary(kind):
        return _kind(kind.value_type)
    if kinds.is_struct(kind):
        parts = [(part, _kind(part.type)) for part in kind]
        return pa.struct([part.with_type(each) for part, each in parts if each]) if all(e for _, e in parts) else None
    if kinds.is_map(kind):
        key, item = _kind(kind.key_type), _kind(kind.item_type)
        return pa.map_(key, item) if key and item else None
    if kinds.is_list(kind) or kinds.is_large_list(kind) or kinds.is_fixed_size_list(kind):
        value = _kind(kind.value_type)
        return pa.list_(kind.value_field.with_type(value)) if value else None
    return _plain_kind(kind)


def _plain_kind(kind: pa.DataType) -> pa.DataType | None:
    if kinds.is_null(kind):  # a column without a value
        return pa.string()
    if kinds.is_uint64(kind):
        return pa.decimal128(20, 0)
    if kinds.is_uint32(kind):
        return pa.int64()
    if kinds.is_integer(kind) and kind.bit_width < 32:
        return pa.int32()
    if kinds.is_timestamp(kind):
        return pa.timestamp("us", "UTC" if kind.tz else None)
    if kinds.is_time(kind):
        return pa.time64("us")
    return kind if any(is_kind(kind) for is_kind in _KEPT) else None
