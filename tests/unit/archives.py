"""Real archives for the tests, made in a folder of the test: good ones, and ones that are broken on purpose."""

from __future__ import annotations

import io
import random
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq

from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.read import read_unit
from tinyface_core.archive.record import Kind, Record, Source, Unit, UnitEnd
from tinyface_core.storage import Storage

Members = list[tuple[str, bytes]]


def some_bytes(seed: int, size: int = 700) -> bytes:
    """Stands for an encoded picture; readers do not look inside."""
    return b"\xff\xd8\xff" + random.Random(seed).randbytes(size)


def some_members(count: int = 6, size: int = 700) -> Members:
    return [(f"day {number // 3}/{number:03}.jpg", some_bytes(number, size + number)) for number in range(count)]


def tar_bytes(members: Iterable[tuple[str | tarfile.TarInfo, bytes]], mode: str = "w", **options: object) -> bytes:
    """A tar in memory; a TarInfo stands for a member that is not a plain file."""
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode=mode, **options) as archive:  # type: ignore[call-overload]
        for name, data in members:
            info = tarfile.TarInfo(name) if isinstance(name, str) else name
            info.size = info.size or len(data)
            archive.addfile(info, io.BytesIO(data) if data else None)
    return buffer.getvalue()


def zip_bytes(members: Iterable[tuple[str, bytes]], compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w", compression) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def parquet_bytes(members: Members, group: int = 2, **columns: list[object]) -> bytes:
    """As Hugging Face writes pictures: a struct of bytes and path, in small row groups."""
    structs = [{"bytes": data, "path": name} for name, data in members]
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    table = pa.table({"image": pa.array(structs, kind), **columns})
    buffer = io.BytesIO()
    pq.write_table(table, buffer, row_group_size=group, write_page_checksum=True)
    return buffer.getvalue()


def save(path: Path, data: bytes) -> Source:
    """The file as the listing would give it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(data)
    return source_of(str(path))


def source_of(url: str, storage: Storage | None = None) -> Source:
    from tinyface_core.archive.candidates import kind_of

    storage = storage or Storage()
    info = storage.stat(storage.canonical(url))
    assert info is not None, url
    return Source(info.uri, kind_of(info.uri), info.size_bytes, info.version, info.modified)


def whole(source: Source) -> Unit:
    return Unit((source,)) if source.kind is Kind.PICTURE else Unit((source,), start=0)


def read(
    unit: Unit | Source,
    candidates: CandidateFilter = CandidateFilter(),
    storage: Storage | None = None,
    **options: object,
) -> tuple[list[Record], UnitEnd]:
    """All that reading gives; checks that records are numbered without gaps and that the end comes last."""
    unit = whole(unit) if isinstance(unit, Source) else unit
    *records, end = read_unit(unit, storage or Storage(), candidates, **options)  # type: ignore[arg-type]
    assert isinstance(end, UnitEnd)
    assert all(isinstance(record, Record) for record in records)
    if "only" not in options:
        assert [record.index for record in records] == list(range(end.count))
    return records, end


def good(records: Iterable[Record]) -> Members:
    """(member, data) of the records without an error."""
    return [(record.member or "", record.data) for record in records if record.data is not None]


def errors(records: Iterable[Record]) -> list[tuple[str | None, str]]:
    """(member, error class) of the others."""
    return [(record.member, str(record.error.error_class)) for record in records if record.error is not None]


def cuts(data: bytes, count: int) -> Iterator[bytes]:
    """The file cut short at `count` places, spread over it."""
    for place in range(1, count + 1):
        yield data[: len(data) * place // (count + 1)]
