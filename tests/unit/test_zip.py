"""Zips as the wild has them; what is wrong with one member costs one row."""

from __future__ import annotations

import base64
import io
import struct
import zipfile
from collections.abc import Iterable
from pathlib import Path

import pytest

from tests.unit.archives import Members, cuts, errors, good, read, save, some_bytes, some_members, zip_bytes
from tinyface_core.archive import zip_end
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.record import Unit, image_id_of
from tinyface_core.archive.units import cut_units
from tinyface_core.storage import Storage


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


def with_comment(data: bytes, comment: bytes) -> bytes:
    return data[:-2] + struct.pack("<H", len(comment)) + comment


def with_directory_of(data: bytes, keep: Iterable[int], before: bytes = b"") -> bytes:
    """The zip with only these members in its directory, in this order; `before` stands before the directory."""
    start, end = data.index(b"PK\1\2"), data.rindex(b"PK\5\6")
    entries, at = [], start
    while at < end:
        stop = at + 46 + sum(struct.unpack_from("<HHH", data, at + 28))
        entries.append(data[at:stop])
        at = stop
    kept = [entries[place] for place in keep]
    size, place = sum(map(len, kept)), start + len(before)
    end_record = struct.pack("<4s4H2LH", b"PK\5\6", 0, 0, len(kept), len(kept), size, place, 0)
    return data[:start] + before + b"".join(kept) + end_record


def streamed(members: Members) -> bytes:
    """As written to a pipe: sizes stand behind the data, in descriptors."""

    class Pipe(io.BytesIO):
        def tell(self) -> int:
            raise OSError("a pipe")

    buffer = Pipe()
    with zipfile.ZipFile(buffer, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in members:
            archive.writestr(name, data)
    return buffer.getvalue()


def padded(members: Members, size: int = 300) -> bytes:
    """With an extra field that only the local headers have, as zipalign writes it."""
    buffer = io.BytesIO()
    with zipfile.ZipFile(buffer, "w") as archive:
        for name, data in members:
            info = zipfile.ZipInfo(name)
            info.extra = struct.pack("<HH", 0xD935, size) + bytes(size)
            archive.writestr(info, data)
            info.extra = b""
    return buffer.getvalue()


@pytest.mark.parametrize(
    "comment",
    [
        b"hello PK\5\6 world",
        b"PK\5\6" + bytes(18),  # an end record of an empty zip, and it ends with the file
        b"PK\5\6" + bytes(40),
        b"PK\5\6" + struct.pack("<4H2LH", 0, 0, 1, 1, 50, 10, 0),  # of a directory that is not there
        b"PK\5\6" * 10_000,
    ],
    ids=["words", "empty zip", "zeros", "no directory", "many"],
)
def test_a_comment_that_looks_like_an_end_is_a_comment(tmp_path: Path, comment: bytes) -> None:
    """Of 20 pictures there was no row, and no error."""
    members = some_members(20)
    data = with_comment(zip_bytes(members), comment)
    for behind in (b"", b"\0" * 100)[: 1 if len(comment) > 10_000 else 2]:  # nothing tells it from 10,000 others then
        records, end = read(save(tmp_path / "a.zip", data + behind))
        assert (good(records), end.count) == (members, 20)


MEMBERS = some_members(6)
ZIP, OTHER = zip_bytes(MEMBERS), zip_bytes([("other.jpg", some_bytes(99))])
LEFT_OUT = {  # bytes -> members that are read
    "joined": (OTHER + ZIP, MEMBERS),
    "joined, of one name": (ZIP + ZIP, MEMBERS),
    "joined, the end of the second lost": (ZIP + OTHER[:-22], MEMBERS),
    "the first not named": (with_directory_of(ZIP, range(3, 6)), MEMBERS[3:]),
    "the last not named": (with_directory_of(ZIP, range(3)), MEMBERS[:3]),
    "the middle not named": (with_directory_of(ZIP, range(0, 6, 5)), [MEMBERS[0], MEMBERS[5]]),
    "none named": (with_directory_of(ZIP, range(0)), []),
    "behind a descriptor": (with_directory_of(streamed(MEMBERS), range(3)), MEMBERS[:3]),
    "behind a local extra field": (with_directory_of(padded(MEMBERS), range(3)), MEMBERS[:3]),
    "cut short within, a zip inside": (
        zip_bytes([("in", ZIP), *MEMBERS], zipfile.ZIP_STORED)[: len(ZIP) + 99],
        MEMBERS,
    ),
}


@pytest.mark.parametrize("kind", LEFT_OUT)
def test_members_that_the_directory_does_not_name_are_one_error_row(tmp_path: Path, kind: str) -> None:
    data, named = LEFT_OUT[kind]
    source = save(tmp_path / "a.zip", data)
    records, end = read(source)
    assert good(records) == named
    assert errors(records) == [(None, "corrupt")]
    assert "hold more members" in str(records[-1].error)
    assert records[-1].image_id == image_id_of(source.uri)
    assert read(source, only={end.count - 1})[0] == records[-1:]


def test_the_row_of_what_is_not_named_comes_once_however_the_zip_is_cut(tmp_path: Path) -> None:
    source = save(tmp_path / "a.zip", OTHER + with_directory_of(ZIP, range(1, 6)))
    direct = save(tmp_path / "b.zip", with_directory_of(ZIP, range(1, 6)))
    for one in (source, direct):
        units = list(cut_units([one], Storage(), CandidateFilter(), unit_pictures=2))
        assert (len(units), [bool(unit.byte_offset) for unit in units]) == (3, [one is direct] * 3)
        rows = [row for unit in units for row in read(unit)[0]]
        assert [row.image_id for row in rows[:-1]] == [row.image_id for row in read(one)[0][:-1]]
        assert (good(rows), errors(rows)) == (MEMBERS[1:], [(None, "corrupt")])


@pytest.mark.parametrize(
    "data",
    [
        b"#!/bin/sh\n" * 500 + ZIP,
        streamed(MEMBERS),
        padded(MEMBERS),
        with_directory_of(ZIP, range(6), before=b"APK Sig Block" * 400),
        ZIP + b"\n" * 300,
        ZIP + zip_bytes([]),
        with_directory_of(ZIP, range(5, -1, -1)),
    ],
    ids=["behind a program", "streamed", "padded", "a signature", "data behind", "an empty zip behind", "not in order"],
)
def test_gaps_that_hold_no_member_are_silent(tmp_path: Path, data: bytes) -> None:
    records, _ = read(save(tmp_path / "a.zip", data))
    assert (sorted(good(records)), errors(records)) == (MEMBERS, [])


def test_looking_for_what_is_not_named_reads_little(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only the largest gaps, a few bytes of each; of a zip without gaps nothing."""
    spans: list[int] = []
    original = zip_end._read_at
    monkeypatch.setattr(zip_end, "_read_at", lambda *args: spans.append(args[2]) or original(*args))  # type: ignore[func-returns-value]
    members = [(f"{number:04}.jpg", b"x" * 50) for number in range(300)]
    looks = []
    for data in (zip_bytes(members), padded(members)):
        spans.clear()
        assert good(read(save(tmp_path / "a.zip", data))[0]) == members
        looks.append(len(spans))
        assert sum(sorted(spans)[:-2]) < 64 * 60 + 100  # without the tail and the directory
    assert looks == [3, 3 + 2 * 64]


def test_a_folder_that_holds_data_is_a_member(tmp_path: Path) -> None:
    """The directory is believed about the data, not about the name."""
    members = [("sub/", b""), ("x.jpg/", b"data"), ("a.jpg", b"1")]
    records, _ = read(save(tmp_path / "a.zip", zip_bytes(members)))
    assert good(records) == members[1:]
