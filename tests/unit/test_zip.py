"""Zips as the wild has them; what is wrong with one member costs one row."""

from __future__ import annotations

import base64
import io
import struct
import zipfile
from pathlib import Path

import pytest

from tests.unit.archives import cuts, errors, good, read, save, some_bytes, some_members, zip_bytes
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.record import Unit, image_id_of


def flagged(data: bytes, flag: int, member: int = 0) -> bytes:
    """The zip with a flag bit set on one member, in its local header and in the directory."""
    result = bytearray(data)
    for signature, offset in ((b"PK\x03\x04", 6), (b"PK\x01\x02", 8)):
        place = -1
        for _ in range(member + 1):
            place = data.index(signature, place + 1)
        result[place + offset] |= flag
    return bytes(result)


@pytest.mark.parametrize("method", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
def test_gives_every_member_in_order(tmp_path: Path, method: int) -> None:
    members = [*some_members(5), ("empty.jpg", b""), ("flat.bmp", bytes(300_000))]
    source = save(tmp_path / "a.zip", zip_bytes(members, method))
    records, end = read(source)
    assert [(record.member, record.data) for record in records] == members
    assert records[0].image_id == image_id_of(source.uri, members[0][0].encode(), 0)
    assert (end.count, end.skipped) == (7, {})


def test_zip64(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive, archive.open("a.jpg", "w", force_zip64=True) as file:
        file.write(b"1" * 5000)
    assert good(read(save(tmp_path / "a.zip", buffer.getvalue()))[0]) == [("a.jpg", b"1" * 5000)]


def test_zip64_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """More members than 16 bits count, made cheap by lowering the library's border."""
    monkeypatch.setattr(zipfile, "ZIP_FILECOUNT_LIMIT", 2)
    data = zip_bytes(some_members(5))
    assert b"PK\x06\x06" in data
    monkeypatch.undo()
    assert good(read(save(tmp_path / "a.zip", data))[0]) == some_members(5)


def test_names_by_their_bytes(tmp_path: Path) -> None:
    """Flagged UTF-8, UTF-8 that is not flagged (macOS writes it), and bytes that are no UTF-8."""
    plain = zip_bytes([("\xe9.jpg", b"1"), ("xx.jpg", b"2"), ("yy.jpg", b"3")])
    data = plain.replace(b"xx.jpg", "\xe9.jpg".encode()).replace(b"yy.jpg", b"\xe9\xff.jpg")
    source = save(tmp_path / "a.zip", data)
    records, _ = read(source)
    assert [record.member for record in records] == ["\xe9.jpg", "\xe9.jpg", "\\xe9\\xff.jpg"]
    # The first two names are equal bytes, so they are two occurrences of one name.
    raw = [("\xe9.jpg".encode(), 0), ("\xe9.jpg".encode(), 1), (b"\xe9\xff.jpg", 0)]
    assert [record.image_id for record in records] == [image_id_of(source.uri, *name) for name in raw]


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_equal_names_are_told_apart_by_occurrence(tmp_path: Path) -> None:
    source = save(tmp_path / "a.zip", zip_bytes([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3")]))
    records, _ = read(source)
    assert [record.data for record in records] == [b"1", b"2", b"3"]
    assert records[2].image_id == image_id_of(source.uri, b"a.jpg", 1)
    # A range in the middle counts what stood before it.
    assert [record.image_id for record in read(Unit((source,), 2, None))[0]] == [records[2].image_id]


def test_what_is_no_candidate_is_counted(tmp_path: Path) -> None:
    link = zipfile.ZipInfo("link.jpg")
    link.external_attr = 0o120777 << 16
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name in ("a.jpg", "sub/", "sub/a.JSON", "__MACOSX/._a.jpg", ".b.jpg", "../c.jpg", "in.parquet"):
            archive.writestr(name, b"x" if not name.endswith("/") else b"")
        archive.writestr(link, b"a.jpg")
    source = save(tmp_path / "a.zip", buffer.getvalue())
    records, end = read(source)
    assert [name for name, _ in good(records)] == ["a.jpg", "../c.jpg"]
    assert errors(records) == [("in.parquet", "unsupported")]
    assert end.skipped == {".json": 1, "hidden": 2, "special": 1}
    assert len(read(source, CandidateFilter(all_files=True))[0]) == 6
    only = read(source, CandidateFilter(include=("a.*",)))[0]
    assert ([name for name, _ in good(only)], errors(only)) == (["a.jpg"], [])


ENCRYPTED = {  # a.jpg with a password, b.jpg without, by Info-ZIP and by pyzipper
    "ZipCrypto": "UEsDBAoACQAAAIZ9e12SfKtFGgAAAA4AAAAFAAAAYS5qcGcmv9wWCqzyH4el7aJd+NCYOj4X336mXYykg1BLBwiSfKtFGgAAAA4A"
    "AABQSwMECgAAAAAAhn17XUYAnw4MAAAADAAAAAUAAABiLmpwZ29wZW4gcGljdHVyZVBLAQIeAwoACQAAAIZ9e12SfKtFGgAAAA4AAAAFAAAAAA"
    "AAAAEAAACkgQAAAABhLmpwZ1BLAQIeAwoAAAAAAIZ9e11GAJ8ODAAAAAwAAAAFAAAAAAAAAAEAAACkgU0AAABiLmpwZ1BLBQYAAAAAAgACAGYA"
    "AAB8AAAAAAA=",
    "AES": "UEsDBBQAAQBjAIZ9e10AAAAAKgAAAA4AAAAFAAsAYS5qcGcBmQcAAgBBRQMAAP0naRaPUeSd7dWf5yhhCNI5cwWyAxQVf/B3s7FbrV/FjA"
    "QsUbwlSuK8LlBLAwQUAAAAAACGfXtdRgCfDgwAAAAMAAAABQAAAGIuanBnb3BlbiBwaWN0dXJlUEsBAhQDFAABAGMAhn17XQAAAAAqAAAADgAA"
    "AAUAAAAAAAAAAAAAAIABAAAAAGEuanBnUEsBAhQDFAAAAAAAhn17XUYAnw4MAAAADAAAAAUAAAAAAAAAAAAAAIABWAAAAGIuanBnUEsFBgAAAA"
    "ACAAIAZgAAAIcAAAAAAA==",
}


@pytest.mark.parametrize("kind", ENCRYPTED)
def test_a_member_that_is_really_encrypted_costs_one_row(tmp_path: Path, kind: str) -> None:
    records, _ = read(save(tmp_path / "a.zip", base64.b64decode(ENCRYPTED[kind])))
    assert errors(records) == [("a.jpg", "encrypted")]
    assert good(records) == [("b.jpg", b"open picture")]


def test_an_encrypted_member_costs_one_row(tmp_path: Path) -> None:
    records, _ = read(save(tmp_path / "a.zip", flagged(zip_bytes(some_members(3)), 0x1, member=1)))
    assert errors(records) == [(some_members(3)[1][0], "encrypted")]
    assert len(good(records)) == 2
    assert records[1].error.stage == "archive"  # type: ignore[union-attr]


def test_a_wrong_check_sum_costs_one_row(tmp_path: Path) -> None:
    members = some_members(3)
    data = bytearray(zip_bytes(members, zipfile.ZIP_STORED))
    data[data.index(members[1][1]) + 5] ^= 1
    records, _ = read(save(tmp_path / "a.zip", bytes(data)))
    assert errors(records) == [(members[1][0], "member_corrupt")]
    assert len(good(records)) == 2


def test_damaged_deflate_data_costs_one_row(tmp_path: Path) -> None:
    members = [(name, data[:20] * 50) for name, data in some_members(3)]
    data = bytearray(zip_bytes(members))
    start = data.index(members[1][0].encode()) + len(members[1][0])
    data[start : start + 20] = b"\xff" * 20
    records, _ = read(save(tmp_path / "a.zip", bytes(data)))
    assert errors(records) == [(members[1][0], "member_corrupt")]


def test_an_unknown_compression_costs_one_row(tmp_path: Path) -> None:
    data = bytearray(zip_bytes(some_members(2)))
    data[data.index(b"PK\x01\x02") + 10] = 9  # Deflate64
    assert errors(read(save(tmp_path / "a.zip", bytes(data)))[0]) == [(some_members(2)[0][0], "unsupported")]


@pytest.mark.parametrize(
    ("claimed", "expected"), [(0xFFFFFFF0, "too_large"), (600_000_000, "too_large"), (5000, "member_corrupt")]
)
def test_a_size_that_lies_allocates_nothing(tmp_path: Path, claimed: int, expected: str) -> None:
    data = bytearray(zip_bytes(some_members(2)))
    struct.pack_into("<L", data, data.index(b"PK\x01\x02") + 24, claimed)
    assert errors(read(save(tmp_path / "a.zip", bytes(data)))[0]) == [(some_members(2)[0][0], expected)]


@pytest.mark.parametrize("method", [zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA, zipfile.ZIP_DEFLATED])
def test_more_data_than_claimed_is_not_unpacked(tmp_path: Path, method: int) -> None:
    """A bomb that claims 1,000 bytes and holds 64 MiB of zeros."""
    import tracemalloc

    data = bytearray(zip_bytes([("a.jpg", bytes(64 << 20))], method))
    for signature, place in ((b"PK\x01\x02", 24), (b"PK\x03\x04", 22)):
        struct.pack_into("<L", data, data.index(signature) + place, 1000)
    source = save(tmp_path / "a.zip", bytes(data))
    tracemalloc.start()
    try:
        assert errors(read(source)[0]) == [("a.jpg", "member_corrupt")]
        assert tracemalloc.get_traced_memory()[1] < 200 << 20
    finally:
        tracemalloc.stop()


def test_cut_short_it_gives_one_error_row(tmp_path: Path) -> None:
    for place, part in enumerate(cuts(zip_bytes(some_members(4)), 9)):
        source = save(tmp_path / f"{place}.zip", part)
        records, end = read(source)
        assert errors(records) == [(None, "truncated")]
        assert (records[0].image_id, end.count) == (image_id_of(source.uri), 1)


def test_what_is_no_zip(tmp_path: Path) -> None:
    assert errors(read(save(tmp_path / "a.zip", b""))[0]) == [(None, "truncated")]
    assert errors(read(save(tmp_path / "b.zip", b"hello"))[0]) == [(None, "corrupt")]
    assert errors(read(save(tmp_path / "c.zip", b"hello" * 99))[0]) == [(None, "corrupt")]


def test_a_damaged_directory_costs_the_archive(tmp_path: Path) -> None:
    data = bytearray(zip_bytes(some_members(4)))
    data[data.rindex(b"PK\x01\x02")] = 0
    assert errors(read(save(tmp_path / "a.zip", bytes(data)))[0]) == [(None, "corrupt")]


def test_a_comment_a_head_and_an_empty_zip(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        archive.comment = b"c" * 5000
        archive.writestr("a.jpg", b"1")
    source = save(tmp_path / "a.zip", b"#!self-extracting\n" + buffer.getvalue())
    assert good(read(source)[0]) == [("a.jpg", b"1")]
    records, end = read(save(tmp_path / "b.zip", zip_bytes([])))
    assert (records, end.count) == ([], 0)


def test_a_directory_too_large_is_not_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save(tmp_path / "a.zip", zip_bytes(some_members(40)))
    monkeypatch.setattr("tinyface_core.archive.zip.MAX_MEMBERS", 39)
    assert errors(read(source)[0]) == [(None, "too_large")]
    monkeypatch.setattr("tinyface_core.archive.zip._MAX_READ_BYTES", 1000)
    assert errors(read(source)[0]) == [(None, "too_large")]


def test_only_reads_the_wanted(tmp_path: Path) -> None:
    members = some_members(5)
    data = bytearray(zip_bytes(members, zipfile.ZIP_STORED))
    data[data.index(members[0][1]) + 5] ^= 1
    source = save(tmp_path / "a.zip", bytes(data))
    records, end = read(source, only={3})
    assert [(record.index, record.data) for record in records] == [(3, members[3][1])]
    assert end.count == 5
    assert errors(read(source, only={0})[0]) == [(members[0][0], "member_corrupt")]


def test_a_later_range_that_breaks_has_an_id_of_its_own(tmp_path: Path) -> None:
    source = save(tmp_path / "a.zip", some_bytes(1))
    first, second = (read(Unit((source,), start, None))[0][0] for start in (0, 5))
    assert first.image_id == image_id_of(source.uri)
    assert second.image_id != first.image_id


def test_a_member_without_a_name_is_a_member(tmp_path: Path) -> None:
    """The library ends a name at a NUL, and its own test for folders fails at an empty one."""
    data = zip_bytes([("zz", b"1"), ("a.jpg", b"2")]).replace(b"zz", b"\0z")
    assert good(read(save(tmp_path / "a.zip", data))[0]) == [("\0z", b"1"), ("a.jpg", b"2")]
