"""Archives made to break their reader: one error row says why, and what stands beside it is read."""

from __future__ import annotations

import base64
import gzip
import io
import lzma
import struct
import tarfile
import time
import tracemalloc
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pyarrow.parquet.encryption as encryption
import pytest

from tests.unit.archives import (
    errors,
    good,
    parquet_bytes,
    read,
    save,
    some_bytes,
    some_members,
    source_of,
    tar_bytes,
    zip_bytes,
)
from tests.unit.mutations import varint, with_sum
from tinyface_core.archive.record import Record, Source, image_id_of
from tinyface_core.errors import ErrorClass, PictureError, Stage
from tinyface_core.picture.decode import decode

MIB = 1 << 20
GOOD = [("a.jpg", b"1"), ("b.jpg", b"2")]


@contextmanager
def at_most(mib: int, seconds: float = 5.0) -> Iterator[None]:
    """What Python allocates within it, and the time that it takes."""
    begun = time.process_time()
    tracemalloc.start()
    try:
        yield
        assert tracemalloc.get_traced_memory()[1] < mib * MIB
    finally:
        tracemalloc.stop()
    assert time.process_time() - begun < seconds


def one_by_one(source: Source) -> list[Record]:
    """The records; each is the same when it alone is wanted, which is read by seeking."""
    records, end = read(source)
    for record in records:
        assert read(source, only={record.index}) == ([record], end)
    return records


def told(records: list[Record]) -> list[tuple[str | None, str]]:
    """As `errors`; all of them of the stage `archive`."""
    assert all(record.error is None or record.error.stage is Stage.ARCHIVE for record in records)
    return errors(records)


# --- tar -------------------------------------------------------------------------------------------------------------


def header(kind: bytes, content: bytes, name: str = "x.jpg") -> bytes:
    """A header of a tar with its content, padded."""
    info = tarfile.TarInfo(name)
    info.type, info.size = kind, len(content)
    return info.tobuf(tarfile.GNU_FORMAT) + content.ljust(-(-len(content) // 512) * 512, b"\0")


def record_of(key: bytes, value: bytes) -> bytes:
    """One record of a pax header, whose length counts its own digits."""
    size = len(key) + len(value) + 3
    length = next(size + digits for digits in range(1, 9) if len(str(size + digits)) == digits)
    return b"%d %s=%s\n" % (length, key, value)


def sparse_header(*, goes_on: bool) -> bytes:
    """Of an old GNU sparse file, `s.jpg`: a map of one piece in the header, more blocks of it behind."""
    block = bytearray(header(tarfile.GNUTYPE_SPARSE, b"", "s.jpg"))
    block[386:410] = b"00000000001\0" * 2
    block[482] = goes_on
    return with_sum(bytes(block))


PIECES = (b"00000000001\0" * 42).ljust(512, b"\0")


def pax_sparse(*records: tuple[bytes, bytes]) -> bytes:
    """A file of 3 bytes whose pax header makes it sparse."""
    content = b"".join(record_of(b"GNU.sparse." + key, value) for key, value in records)
    return header(tarfile.XHDTYPE, content) + header(tarfile.REGTYPE, b"abc", "s.jpg")


@pytest.mark.parametrize(
    "sparse",
    [
        sparse_header(goes_on=False),
        sparse_header(goes_on=True) + PIECES[:504] + b"\1" + bytes(7) + PIECES,
        pax_sparse((b"size", b"9"), (b"numblocks", b"1"), (b"offset", b"0"), (b"numbytes", b"3")),
        pax_sparse((b"size", b"9"), (b"map", b"0,3")),
    ],
    ids=["old", "old and long", "0.0", "0.1"],
)
def test_every_form_of_a_sparse_file_is_special(tmp_path: Path, sparse: bytes) -> None:
    for name, pack in (("a.tar", bytes), ("a.tgz", gzip.compress)):
        data = tar_bytes(GOOD[:1])[:1024] + sparse + tar_bytes(GOOD[1:])
        records, end = read(save(tmp_path / name, pack(data)))
        assert good(records) == GOOD
        assert end.skipped == {"special": 1}


@pytest.mark.parametrize(
    ("name", "head"),
    [
        ("old", sparse_header(goes_on=True) + (PIECES[:504] + b"\1" + bytes(7)) * 4096),
        ("1.0", pax_sparse((b"major", b"1"), (b"minor", b"0"))[:-512] + b"9999999\n" + b"1\n" * MIB),
    ],
)
def test_an_endless_map_of_a_sparse_file_fills_no_memory(tmp_path: Path, name: str, head: bytes) -> None:
    """The library keeps each piece; a gzip of 4 MB can hold a map that takes 5 GB."""
    source = save(tmp_path / "a.tgz", gzip.compress(tar_bytes(GOOD)[:2048] + head, 1))
    records, _ = read(source)
    assert good(records) == GOOD
    assert told(records) == [(None, "corrupt")]
    assert "bytes of headers" in records[-1].error.message  # type: ignore[union-attr]


@pytest.mark.parametrize("kind", [tarfile.GNUTYPE_LONGNAME, tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_chain_of_headers_is_corrupt_not_internal(tmp_path: Path, kind: bytes) -> None:
    """The library reads each header inside the one before: a RecursionError."""
    content = b"n.jpg\0" if kind == tarfile.GNUTYPE_LONGNAME else record_of(b"comment", b"c")
    for length, expected in ((3, []), (400, [(None, "corrupt")])):
        data = tar_bytes(GOOD[:1])[:1024] + header(kind, content) * length + tar_bytes(GOOD[1:])
        records = one_by_one(save(tmp_path / "a.tar", data))
        assert good(records)[0] == GOOD[0]
        assert told(records) == expected
        assert len(records) == 2


@pytest.mark.parametrize(
    "content",
    [
        b"1" * 500_000,
        b"2 " * 250_000 + b"==",
        b"".join(record_of(b"k", b"1" * 60_000) for _ in range(8)),
        b"99 path=a.jpg\n",
        b"13 path=a.jpg",
        b"0 a=b\n",
    ],
    ids=["digits", "keywords", "digits in values", "too long", "no line end", "zero"],
)
def test_a_malformed_pax_header_is_corrupt_and_quickly(tmp_path: Path, content: bytes) -> None:
    """Python before 3.11.10 took the square of its length: minutes, and gigabytes."""
    source = save(tmp_path / "a.tar", tar_bytes(GOOD)[:2048] + header(tarfile.XHDTYPE, content) + tar_bytes(GOOD))
    with at_most(20):
        records, _ = read(source)
    assert good(records) == GOOD
    assert told(records) == [(None, "corrupt")]


def test_a_pax_header_with_long_names_and_numbers_in_them_is_read(tmp_path: Path) -> None:
    names = ["é" * 1000 + "/" + "7" * 250 + ".jpg", "x" * 4000 + ".jpg"]
    content = [
        record_of(b"path", name.encode()) + record_of(b"SCHILY.xattr.user.note", b"\n=\0" * 90) for name in names
    ]
    data = b"".join(header(tarfile.XHDTYPE, one) + header(tarfile.REGTYPE, b"data") for one in content)
    records = one_by_one(save(tmp_path / "a.tar", data + tar_bytes(GOOD)))
    assert good(records) == [(name, b"data") for name in names] + GOOD


def test_headers_for_all_members_may_not_pile_up(tmp_path: Path) -> None:
    """Each member costs a copy of all of them."""
    piece = header(tarfile.XGLTYPE, b"".join(record_of(b"%d" % key, b"") for key in range(3000)))
    other = header(tarfile.XGLTYPE, b"".join(record_of(b"%d" % key, b"x" * 20) for key in range(3000, 5000)))
    member = tar_bytes(GOOD[:1])[:1024]
    records = one_by_one(save(tmp_path / "a.tar", piece + member + other + member + other + tar_bytes(GOOD)))
    assert good(records) == GOOD[:1]
    assert told(records) == [(None, "corrupt")]
    comment = header(tarfile.XGLTYPE, record_of(b"comment", b"0" * 40))  # as `git archive` writes it, joined often
    assert len(good(read(save(tmp_path / "b.tar", (comment + member) * 300 + tar_bytes([])))[0])) == 300


@pytest.mark.parametrize("key", [b"GNU.sparse.realsize", b"GNU.sparse.size"])
@pytest.mark.parametrize("kind", [tarfile.XHDTYPE, tarfile.XGLTYPE])
def test_a_size_told_twice_and_differently_is_corrupt(tmp_path: Path, key: bytes, kind: bytes) -> None:
    """A stream read on where seeking found the next member: a record had another number each time."""
    key = key if kind == tarfile.XHDTYPE else b"size"
    data = tar_bytes(GOOD)[:2048] + header(kind, record_of(key, b"1000")) + tar_bytes([("c.jpg", b"3")])
    records = one_by_one(save(tmp_path / "a.tar", data))
    assert good(records) == GOOD
    assert told(records) == [(None, "corrupt")] or key == b"GNU.sparse.size"


@pytest.mark.parametrize("size", [1 << 62, 1 << 80])
def test_a_size_that_no_file_can_have_is_the_same_row_however_it_is_read(tmp_path: Path, size: int) -> None:
    """Seeking there is another error than reading on to the end."""
    block = bytearray(header(tarfile.REGTYPE, b"", "big.jpg"))
    block[124:136] = b"\x80" + size.to_bytes(11, "big")
    records = one_by_one(save(tmp_path / "a.tar", tar_bytes(GOOD)[:2048] + with_sum(bytes(block))))
    assert good(records) == GOOD
    assert told(records) == [("big.jpg", "too_large"), (None, "truncated")]


def test_a_cut_within_a_long_name_or_a_pax_header_is_truncated(tmp_path: Path) -> None:
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        data = tar_bytes([*GOOD, ("é" * 300 + ".jpg", b"3")], format=form)
        for size in (2048 + 511, 2048 + 512, 2048 + 600, 2048 + 1536, 2048 + 1600):
            records = one_by_one(save(tmp_path / "a.tar", data[:size]))
            assert (good(records), told(records)) == (GOOD, [(None, "truncated")])


def test_a_member_without_a_name_is_called_by_its_number(tmp_path: Path) -> None:
    """The row of an archive that breaks is the one without a name: both had one image_id."""
    nameless = header(tarfile.REGTYPE, b"3", "")
    source = save(tmp_path / "a.tar", tar_bytes(GOOD)[:2048] + nameless + nameless[:512])
    records = one_by_one(source)
    assert [record.member for record in records] == ["a.jpg", "b.jpg", "2", None]
    assert [record.image_id for record in records[2:]] == [image_id_of(source.uri, b"2"), image_id_of(source.uri)]
    records = one_by_one(save(tmp_path / "a.zip", with_directory(*without_last_name([*GOOD, ("z", b"3")]))))
    assert good(records) == [*GOOD, ("2", b"3")]


# --- zip -------------------------------------------------------------------------------------------------------------


def with_directory(body: bytes, entries: list[bytes]) -> bytes:
    directory = b"".join(entries)
    count = min(len(entries), 0xFFFF)
    return body + directory + struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, count, count, len(directory), len(body), 0)


def parts_of(data: bytes) -> tuple[bytes, list[bytes]]:
    """(local headers and data, entries of the directory)."""
    start, end = data.index(b"PK\1\2"), data.rindex(b"PK\5\6")
    body, directory, entries = data[:start], data[start:end], []
    while directory:
        size = 46 + sum(struct.unpack_from("<HHH", directory, 28))
        entries.append(directory[:size])
        directory = directory[size:]
    return body, entries


def without_last_name(members: list[tuple[str, bytes]]) -> tuple[bytes, list[bytes]]:
    """Body and entries; the last member's name, one letter, is taken out of both."""
    body, entries = parts_of(zip_bytes(members, zipfile.ZIP_STORED))
    local, entry = body.rindex(b"PK\3\4"), entries[-1]
    body = body[: local + 26] + b"\0\0" + body[local + 28 : local + 30] + body[local + 31 :]
    return body, [*entries[:-1], entry[:28] + b"\0\0" + entry[30:46] + entry[47:]]


def test_members_that_share_their_data_are_a_bomb(tmp_path: Path) -> None:
    """One member of 8 MiB told 200 times; the last is good, as newer Pythons have it."""
    body, entries = parts_of(zip_bytes([("a.jpg", bytes(8 * MIB)), ("b.jpg", b"2")]))
    source = save(tmp_path / "a.zip", with_directory(body, [*entries[:1] * 200, entries[1]]))
    records, end = read(source)
    assert end.count == 201
    assert told(records) == [("a.jpg", "member_corrupt")] * 199
    assert [(name, len(data or b"")) for name, data in good(records)] == [("a.jpg", 8 * MIB), ("b.jpg", 1)]


def test_folders_and_empty_members_may_be_told_to_stand_anywhere(tmp_path: Path) -> None:
    body, entries = parts_of(zip_bytes([*GOOD, ("sub/", b""), ("empty.jpg", b"")], zipfile.ZIP_STORED))
    source = save(tmp_path / "a.zip", with_directory(body, [*entries[:2], _moved(entries[2], -66), entries[3]]))
    assert [name for name, _ in good(read(source)[0])] == ["a.jpg", "b.jpg", "empty.jpg"]
    assert told(read(source)[0]) == []


def test_members_that_lie_within_others_are_a_bomb(tmp_path: Path) -> None:
    """Each holds the local header and the data of the next one: the packed bytes of the last count for all."""
    kernel = zip_bytes([("k.jpg", bytes(MIB))])
    body, (entry,) = parts_of(kernel)
    entries, size = [entry], len(body)
    for number in range(50):
        quoted = struct.pack("<BHH", 0, len(body), len(body) ^ 0xFFFF) + body  # a stored block of deflate, not the last
        name = b"%03d.jpg" % number
        local = struct.pack("<4s5H3L2H", b"PK\3\4", 20, 0, 8, 0, 33, 0, len(quoted), MIB, len(name), 0) + name
        body = local + quoted
        fields = (b"PK\1\2", 20, 20, 0, 8, 0, 33, 0, len(quoted), MIB, len(name), 0, 0, 0, 0, 0, 0)
        entries.append(struct.pack("<4s6H3L5H2L", *fields) + name)
        shift = len(local) + 5
        entries = [_moved(one, shift) for one in entries[:-1]] + entries[-1:]
        size = len(body)
    assert size < 10_000
    source = save(tmp_path / "a.zip", with_directory(body, entries))
    with at_most(20):
        records, end = read(source)
    assert end.count == 51
    assert [name for name, _ in good(records)] == ["k.jpg"]
    assert {error for _, error in told(records)} == {"member_corrupt"}


def _moved(entry: bytes, shift: int) -> bytes:
    return entry[:42] + struct.pack("<L", struct.unpack_from("<L", entry, 42)[0] + shift) + entry[46:]


@pytest.mark.parametrize("field", [20, 42], ids=["packed size", "place"])
def test_an_entry_that_points_elsewhere_costs_one_row(tmp_path: Path, field: int) -> None:
    """Its neighbours are read, also where only zip64 can hold the number, which no file can have."""
    body, entries = parts_of(zip_bytes(some_members(3)))
    names = [name for name, _ in some_members(3)]
    for number in (7, 0xFFFFFFF0, 1 << 62, (1 << 64) - 1):
        middle = bytearray(entries[1])
        if number > 0xFFFFFFFF:
            struct.pack_into("<L", middle, field, 0xFFFFFFFF)
            struct.pack_into("<H", middle, 30, 12)
            middle += struct.pack("<HHQ", 1, 8, number)
        else:
            struct.pack_into("<L", middle, field, number)
        source = save(tmp_path / "a.zip", with_directory(body, [entries[0], bytes(middle), entries[2]]))
        records = one_by_one(source)
        assert told(records) == ([(names[0], "member_corrupt")] if (field, number) == (42, 7) else []) + [
            (names[1], "member_corrupt")
        ]
        assert good(records)[-1] == some_members(3)[2]


@pytest.mark.parametrize("count", [0xFFFF, 1 << 40, (1 << 64) - 1])
def test_an_absurd_count_of_members_allocates_nothing(tmp_path: Path, count: int) -> None:
    body, entries = parts_of(zip_bytes(GOOD))
    directory = b"".join(entries)
    size = len(directory)
    end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, size, len(body))
    locator = struct.pack("<4sLQL", b"PK\6\7", 0, len(body) + size, 1)
    end = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
    source = save(tmp_path / "a.zip", body + directory + end64 + locator + end)
    with at_most(5):
        assert good(read(source)[0]) == GOOD
    for lie in (size + 1, 1 << 30, 1 << 63):
        end64 = struct.pack("<4sQ2H2L4Q", b"PK\6\6", 44, 45, 45, 0, 0, count, count, lie, len(body))
        source = save(tmp_path / "a.zip", body + directory + end64 + locator + end)
        with at_most(5):
            assert told(read(source)[0]) == [(None, "corrupt")]


def test_an_lzma_member_that_asks_for_4_gib(tmp_path: Path) -> None:
    """Its dictionary is reserved, never filled."""
    data = bytearray(zip_bytes(GOOD, zipfile.ZIP_LZMA))
    at = data.index(lzma_properties())
    data[at + 1 : at + 5] = b"\xff" * 4
    records, _ = read(save(tmp_path / "a.zip", bytes(data)))
    assert good(records)[-1] == GOOD[1]
    assert told(records) in ([], [("a.jpg", "out_of_memory")])


def lzma_properties() -> bytes:
    return lzma._encode_filter_properties({"id": lzma.FILTER_LZMA1})  # type: ignore[attr-defined,no-any-return]


# --- Parquet ---------------------------------------------------------------------------------------------------------


def repeated(value: bytes, rows: int) -> bytes:
    """A file that holds one value, and a row for it as often as told."""
    column = pa.DictionaryArray.from_arrays(pa.array([0] * rows, pa.int32()), pa.array([value]))
    buffer = io.BytesIO()
    options = {"compression": "zstd", "dictionary_pagesize_limit": 1 << 30, "store_schema": False}
    pq.write_table(pa.table({"image": column}), buffer, **options)
    return buffer.getvalue()


def test_one_value_told_as_many_rows_is_a_bomb(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyface_core.archive.parquet.RATIO_FROM_BYTES", 32 * MIB)
    data = repeated(bytes(2 * MIB), 100)
    assert len(data) < 2000
    source = save(tmp_path / "a.parquet", data)
    records = one_by_one(source)
    assert [len(data) for _, data in good(records) if data] == [2 * MIB] * 12  # four at a time
    assert told(records) == [(None, "too_large")]
    assert "200 times" in records[-1].error.message  # type: ignore[union-attr]


def test_a_footer_that_lies_about_its_length_allocates_nothing(tmp_path: Path) -> None:
    data = parquet_bytes(some_members(3))
    for told_bytes in (0, 10, len(data) + 1, 0x7FFFFFFF, 0xFFFFFFFF):
        with at_most(5):
            records, end = read(save(tmp_path / "a.parquet", data[:-8] + struct.pack("<I", told_bytes) + b"PAR1"))
        assert (told(records), end.count) == ([(None, "corrupt")], 1)


class Keys(encryption.KmsClient):
    """Wraps keys by writing them out."""

    def __init__(self, _: object) -> None:
        super().__init__()

    def wrap_key(self, key: bytes, _: str) -> bytes:
        return base64.b64encode(key)


@pytest.mark.parametrize("plain_footer", [False, True])
def test_a_parquet_file_with_a_key_is_encrypted(tmp_path: Path, plain_footer: bool) -> None:
    """As a whole, or the pictures alone."""
    table = pa.table({"path": [name for name, _ in GOOD], "image": [data for _, data in GOOD]})
    config = encryption.EncryptionConfiguration("footer", column_keys={"c": ["image"]}, plaintext_footer=plain_footer)
    keys = encryption.CryptoFactory(Keys).file_encryption_properties(encryption.KmsConnectionConfig(), config)
    with pq.ParquetWriter(tmp_path / "a.parquet", table.schema, encryption_properties=keys) as writer:
        writer.write_table(table)
    source = source_of(f"file://{tmp_path}/a.parquet")
    assert told(read(source)[0]) == [(None, "encrypted")]
    assert told(one_by_one(source)) == [(None, "encrypted")]


@pytest.mark.parametrize("depth", [1000, 100_000])
def test_a_schema_that_never_ends_is_corrupt(tmp_path: Path, depth: int) -> None:
    """Groups in groups, as deep as told: a stack overflow where nobody counts."""
    group, leaf = b"\x35\x02\x18\x01a\x15\x02\0", b"\x15\x0c\x25\x02\x18\x01x\0"
    footer = b"\x15\x02\x19\xfc" + varint(depth + 2) + group * (depth + 1) + leaf + b"\x16\0\x19\x0c\0"
    data = b"PAR1" + footer + struct.pack("<I", len(footer)) + b"PAR1"
    (record,) = read(save(tmp_path / "a.parquet", data))[0]
    assert told([record]) == [(None, "corrupt")]
    assert "nested" in record.error.message  # type: ignore[union-attr]


# --- all of them -----------------------------------------------------------------------------------------------------

NESTED = {"zip": zip_bytes(GOOD), "tar": tar_bytes(GOOD), "gzip": gzip.compress(bytes(8 * MIB))}
PACK = {"a.tar": tar_bytes, "a.tgz": lambda m: tar_bytes(m, "w:gz"), "a.zip": zip_bytes, "a.parquet": parquet_bytes}


@pytest.mark.parametrize("name", PACK)
def test_an_archive_called_a_picture_is_never_opened(tmp_path: Path, name: str) -> None:
    """Bombs in bombs: what is inside is one member's bytes, and decoding says what they are."""
    members = [("a.jpg", some_bytes(1)), *((f"{kind}.jpg", data) for kind, data in NESTED.items()), ("z.jpg", b"x")]
    records, end = read(save(tmp_path / name, PACK[name](members)))
    assert good(records) == members
    assert end.count == len(members)
    for record in records[1:-1]:
        found = decode(record.data or b"")
        assert isinstance(found, PictureError)
        assert (found.stage, found.error_class) == (Stage.DECODE, ErrorClass.UNSUPPORTED)


@pytest.mark.parametrize("name", PACK)
def test_a_name_that_leads_elsewhere_is_only_a_name(tmp_path: Path, name: str) -> None:
    """Nothing is unpacked: no file appears anywhere near."""
    names = ["../../up.jpg", f"{tmp_path}/absolute.jpg", "C:\\x\\..\\w.jpg", "a/../../b.jpg", "~/home.jpg", "n\nl.jpg"]
    inside = tmp_path / "one" / "two"
    source = save(inside / name, PACK[name]([(one, one.encode()) for one in names]))
    assert good(read(source)[0]) == [(one, one.encode()) for one in names]
    assert [path for path in sorted(tmp_path.rglob("*")) if path.is_file()] == [inside / name]
