"""Parquet files that hold pictures: a binary column, or a struct of `bytes` and `path` as Hugging Face writes it.

Only the needed columns are read, a few rows at a time. Rows are skipped by their names as members of other archives
are, except that folders in a path say nothing.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any, BinaryIO

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.members import (
    MAX_RATIO,
    RATIO_FROM_BYTES,
    ArchiveBroken,
    Numbering,
    Occurrences,
    refusal,
    shown,
)
from tinyface_core.archive.record import Record, Source, Unit
from tinyface_core.errors import ErrorClass, PictureError, Stage
from tinyface_core.storage import Storage

_ROWS = 4  # at a time: a dictionary of one value makes each of them as large as a picture may be, out of nothing
_ENCRYPTED = "the Parquet file is encrypted: write it again without a key"
_STREAM_BYTES = 1 << 20  # else a whole column chunk is read into memory
_DATA_NAMES = ("image", "bytes", "data", "content", "image_bytes", "img", "picture", "jpg", "jpeg", "png", "webp")
_NAME_NAMES = ("path", "name", "key", "__key__", "file_name", "filename", "file_path", "image_path", "image_name")


@dataclass(frozen=True)
class PictureColumns:
    """Where the pictures and their names are: paths as ("image", "bytes"). names: None for the row number."""

    data: tuple[str, ...]
    names: tuple[str, ...] | None


def picture_columns(schema: pa.Schema) -> PictureColumns | None:
    """The columns of pictures and of their names; None where no column is binary.

    Of several binary columns the one with a usual name (`image`, `bytes`, ...), else the first.
    Raises: ArchiveBroken where two columns have the name that is chosen.
    """
    found = {field.name: path for field in schema if (path := _data_path(field)) is not None}
    if not found:
        return None
    chosen = next((name for name in _DATA_NAMES if name in found), next(iter(found)))
    _refuse_doubled(schema, chosen)
    if len(found[chosen]) > 1 and schema.field(chosen).type.get_field_index("path") >= 0:
        return PictureColumns(found[chosen], (chosen, "path"))
    names = {field.name.lower(): field.name for field in schema if _is_name(field)}
    name = next((names[name] for name in _NAME_NAMES if name in names), None)
    if name is None:
        return PictureColumns(found[chosen], None)
    _refuse_doubled(schema, name)
    return PictureColumns(found[chosen], (name,))


def _refuse_doubled(schema: pa.Schema, name: str) -> None:
    count = len(schema.get_all_field_indices(name))
    if count > 1:
        message = f"{count} columns are called {name!r}: which one is meant? Rename the others, or leave them out"
        raise ArchiveBroken(ErrorClass.UNSUPPORTED, message)


@contextmanager
def opened(source: Source, storage: Storage) -> Iterator[pq.ParquetFile]:
    """The file with its footer read. Raises: ArchiveBroken, ObjectError, StorageError."""
    with storage.open(source.url, source.version) as file:
        try:
            parquet = pq.ParquetFile(file, buffer_size=_STREAM_BYTES, pre_buffer=False, page_checksum_verification=True)
            parquet.schema_arrow.names  # noqa: B018  # a damaged footer may hold names that are not UTF-8
        except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
            raise _why_not(file, error) from error
        with parquet:
            yield parquet


def read_parquet(
    unit: Unit, storage: Storage, candidates: CandidateFilter, numbering: Numbering, carry: Sequence[str]
) -> Iterator[Record]:
    """A record for each row of the unit. Raises: ArchiveBroken, ObjectError, StorageError."""
    source = unit.sources[0]
    with opened(source, storage) as parquet:
        columns = picture_columns(parquet.schema_arrow)
        if columns is None:
            raise ArchiveBroken(ErrorClass.NOT_AN_IMAGE, "no binary column: the file holds no pictures")
        carried = [name for name in carry if name in parquet.schema_arrow.names]
        for column in carried:
            _refuse_doubled(parquet.schema_arrow, column)
        occurrences = Occurrences(unit.occurrences)
        for row, values in _rows(parquet, unit, columns, carried):
            name = _raw_name(values[columns.names], row) if columns.names else str(row).encode()
            occurrence = occurrences.of(name, row) if columns.names else 0
            if (skipped := candidates.row_skipped_as(shown(name))) is not None:
                numbering.skipped[skipped] += 1
            elif not numbering.wants_next():
                numbering.pass_over()
            else:
                own = {column: _plain(values[column,]) for column in carried}
                data = _data(columns, values, shown(name))
                yield numbering.record(source, (name, occurrence), data, carried=own)


def name_values(parquet: pq.ParquetFile, columns: PictureColumns) -> Iterator[bytes]:
    """The names of all rows, in order, without reading the pictures. Raises: ArchiveBroken, StorageError."""
    assert columns.names is not None
    row = 0
    for batch in _batches(parquet, list(range(parquet.num_row_groups)), [columns.names], 1000):
        for value in _leaf(batch, columns.names):
            yield _raw_name(value, row)
            row += 1


def _why_not(file: BinaryIO, error: Exception) -> ArchiveBroken:
    """A file cut short begins as a Parquet file, and does not end like one."""
    size = file.seek(0, io.SEEK_END)
    file.seek(0)
    begin = file.read(4)
    file.seek(max(0, size - 4))
    end = file.read(4)
    if end == b"PARE":
        return ArchiveBroken(ErrorClass.ENCRYPTED, _ENCRYPTED)
    cut = size == 0 or (begin == b"PAR1" and (size < 12 or end != b"PAR1"))
    told = f"the Parquet file {'ends early' if cut else 'is damaged'}: {_line(error)}"
    return ArchiveBroken(ErrorClass.TRUNCATED if cut else ErrorClass.CORRUPT, told)


def _rows(
    parquet: pq.ParquetFile, unit: Unit, columns: PictureColumns, carried: list[str]
) -> Iterator[tuple[int, dict[tuple[str, ...], pa.Scalar]]]:
    """(row number in the file, values) for the rows of the unit; row groups outside it are not read.

    It breaks at a group with fewer rows than the footer says, and behind all rows where the footer contradicts itself.
    What the footer says of single columns is not asked for: where it is damaged that ends the process (pyarrow 26).
    """
    size_bytes = unit.sources[0].size_bytes
    left = None if size_bytes is None else max(RATIO_FROM_BYTES, MAX_RATIO * size_bytes)
    in_groups = sum(parquet.metadata.row_group(group).num_rows for group in range(parquet.num_row_groups))
    start, stop = unit.start or 0, in_groups if unit.stop is None else unit.stop
    first = 0
    for group in range(parquet.num_row_groups):
        rows = parquet.metadata.row_group(group).num_rows
        if first < stop and first + rows > start:
            row = first
            wanted = [columns.data, *([columns.names] if columns.names else []), *((name,) for name in carried)]
            for batch in _batches(parquet, [group], wanted, _ROWS):
                named = {path: _leaf(batch, path) for path in wanted}
                if left is not None and (left := left - sum(column.nbytes for column in named.values())) < 0:
                    raise ArchiveBroken(ErrorClass.TOO_LARGE, f"unpacks to more than {MAX_RATIO} times its size")
                for place in range(batch.num_rows):
                    if start <= row < stop:
                        yield row, {path: column[place] for path, column in named.items()}
                    row += 1
                if row >= stop:
                    break
            if row < min(stop, first + rows):
                raise _miscounted(f"row group {group} holds {row - first} rows, the footer says {rows}")
        first += rows
    if unit.stop is None and parquet.metadata.num_rows != in_groups:
        raise _miscounted(f"its row groups have {in_groups} rows, the footer says {parquet.metadata.num_rows}")


def _miscounted(what: str) -> ArchiveBroken:
    return ArchiveBroken(ErrorClass.CORRUPT, f"the Parquet file is damaged: {what}; rows may be missing")


def _batches(
    parquet: pq.ParquetFile, groups: list[int], paths: list[tuple[str, ...]], rows: int
) -> Iterator[pa.RecordBatch]:
    columns = [".".join(path) for path in paths]
    batches = iter(parquet.iter_batches(rows, row_groups=groups, columns=columns, use_threads=False))
    while True:
        try:
            batch = next(batches, None)
        except (pa.ArrowException, OSError) as error:
            if "decrypt" in str(error).lower():  # of a column, where the footer is plain
                raise ArchiveBroken(ErrorClass.ENCRYPTED, _ENCRYPTED) from error
            raise ArchiveBroken(ErrorClass.CORRUPT, f"the Parquet file is damaged: {_line(error)}") from error
        if batch is None:
            return
        yield batch


def _data(columns: PictureColumns, values: dict[tuple[str, ...], pa.Scalar], name: str) -> bytes | PictureError:
    scalar = values[columns.data]
    if not scalar.is_valid:
        return PictureError(Stage.ARCHIVE, ErrorClass.UNREADABLE, f"the row holds no bytes in {'.'.join(columns.data)}")
    data: bytes | PictureError = refusal(name, len(scalar.as_buffer())) or scalar.as_py()
    return data


def _raw_name(value: pa.Scalar, row: int) -> bytes:
    """The bytes of the name; a row without one is called by its number."""
    raw: bytes = (
        value.as_buffer().to_pybytes() if _is_text(value) else b"" if not value.is_valid else str(value).encode()
    )
    return raw or str(row).encode()


def _plain(value: pa.Scalar) -> Any:
    """The value of a carried column; text that is not UTF-8, as other writers leave it, shows its bytes as `\\xNN`."""
    return shown(value.as_buffer().to_pybytes()) if _is_text(value) else value.as_py()


def _is_text(value: pa.Scalar) -> bool:
    return isinstance(value, pa.StringScalar | pa.LargeStringScalar | pa.StringViewScalar) and value.is_valid


def _leaf(batch: pa.RecordBatch, path: tuple[str, ...]) -> pa.Array:
    """The column at a path, without a dictionary; null where the struct around it is null."""
    column = batch.column(path[0])
    for part in path[1:]:
        column = pc.struct_field(column, part)
    try:
        return column.dictionary_decode() if pa.types.is_dictionary(column.type) else column
    except pa.ArrowException as error:  # more than 2 GiB
        raise ArchiveBroken(ErrorClass.TOO_LARGE, f"{'.'.join(path)} unpacks to too much: {_line(error)}") from error


def _data_path(field: pa.Field) -> tuple[str, ...] | None:
    kind = field.type
    if _is_binary(kind):
        return (field.name,)
    if pa.types.is_struct(kind):
        place = kind.get_field_index("bytes")
        if place >= 0 and _is_binary(kind.field(place).type):
            return (field.name, "bytes")
    return None


def _is_binary(kind: pa.DataType) -> bool:
    """Of any length, also behind a dictionary: a column of fixed length holds hashes."""
    kind = kind.value_type if pa.types.is_dictionary(kind) else kind
    return pa.types.is_binary(kind) or pa.types.is_large_binary(kind) or pa.types.is_binary_view(kind)


def _is_name(field: pa.Field) -> bool:
    kind = field.type.value_type if pa.types.is_dictionary(field.type) else field.type
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view, pa.types.is_integer)
    return any(test(kind) for test in tests)


def _line(error: Exception) -> str:
    return str(error).split("\n", 1)[0][:300] or type(error).__name__
