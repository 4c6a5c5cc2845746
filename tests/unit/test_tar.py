"""Tars as the wild has them: read as a stream, and never a member lost in silence."""

from __future__ import annotations

import gzip
import io
import tarfile
from pathlib import Path

import pytest

from tests.unit.archives import cuts, errors, good, read, save, some_bytes, some_members, tar_bytes
from tinyface_core.archive import members as limits
from tinyface_core.archive import tar
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.record import Kind, Source, Unit, image_id_of
from tinyface_core.storage import Storage


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("packed", [False, True])
def test_gives_every_member_in_order(tmp_path: Path, form: int, packed: bool) -> None:
    members = some_members()
    mode, name = ("w:gz", "a.tar.gz") if packed else ("w", "a.tar")
    source = save(tmp_path / name, tar_bytes(members, mode, format=form))
    records, end = read(source)
    assert good(records) == members
    assert end.skipped == {}
    first = records[0]
    assert first.image_id == image_id_of(source.uri, members[0][0].encode(), 0)
    assert (first.uri, first.size_bytes, first.source_version) == (source.uri, len(members[0][1]), source.version)
    assert first.sha256 is not None
    assert len(first.sha256) == 64


def test_long_and_foreign_names(tmp_path: Path) -> None:
    names = [
        "é/日本.jpg",
        "x" * 150 + "/" + "y" * 200 + ".jpg",
        "./a.jpg",
        "../../etc/b.jpg",
        "/abs/c.jpg",
        "sp ace%20.jpg",
    ]
    for form in (tarfile.GNU_FORMAT, tarfile.PAX_FORMAT):
        source = save(tmp_path / f"{form}.tar", tar_bytes([(name, name.encode()) for name in names], format=form))
        # tarfile writes an absolute name as it is; nothing is unpacked, so it is only a name
        assert [name for name, _ in good(read(source)[0])] == names


def test_a_name_that_is_not_utf8_is_shown_with_its_bytes_and_hashed_raw(tmp_path: Path) -> None:
    data = tar_bytes([("caf\xe9.jpg", b"x")], format=tarfile.USTAR_FORMAT, encoding="latin-1")
    source = save(tmp_path / "a.tar", data)
    (record,), _ = read(source)
    assert record.member == "caf\\xe9.jpg"
    assert record.image_id == image_id_of(source.uri, b"caf\xe9.jpg", 0)


def test_equal_names_are_told_apart_by_occurrence(tmp_path: Path) -> None:
    source = save(tmp_path / "a.tar", tar_bytes([("a.jpg", b"1"), ("b.jpg", b"2"), ("a.jpg", b"3"), ("a.jpg", b"4")]))
    records, _ = read(source)
    assert [record.data for record in records] == [b"1", b"2", b"3", b"4"]
    wanted = [(b"a.jpg", 0), (b"b.jpg", 0), (b"a.jpg", 1), (b"a.jpg", 2)]
    assert [record.image_id for record in records] == [image_id_of(source.uri, *pair) for pair in wanted]


def test_what_is_no_candidate_is_counted_not_read(tmp_path: Path) -> None:
    link, hard, folder = tarfile.TarInfo("l.jpg"), tarfile.TarInfo("h.jpg"), tarfile.TarInfo("sub")
    link.type, link.linkname = tarfile.SYMTYPE, "a.jpg"
    hard.type, hard.linkname = tarfile.LNKTYPE, "a.jpg"
    folder.type = tarfile.DIRTYPE
    device = tarfile.TarInfo("dev.jpg")
    device.type = tarfile.CHRTYPE
    plain = [("a.jpg", b"1"), ("a.json", b"{}"), ("A.TXT", b"t"), (".x/b.jpg", b"h"), ("__MACOSX/._a.jpg", b"m")]
    odd = [(link, b""), (hard, b""), (folder, b""), (device, b"")]
    source = save(tmp_path / "a.tar", tar_bytes([*plain, *odd, ("b.pdf", b"%PDF"), ("Thumbs.db", b"")]))
    records, end = read(source)
    assert [name for name, _ in good(records)] == ["a.jpg", "b.pdf"]
    assert end.skipped == {".json": 1, ".txt": 1, "hidden": 3, "special": 3}


def test_a_sparse_file_is_special(tmp_path: Path) -> None:
    """GNU sparse 1.0, by hand: the map stands before the data."""
    sparse_map = b"1\n1000\n3\n".ljust(512, b"\0")
    info = tarfile.TarInfo("GNUSparseFile.0/s.jpg")
    info.pax_headers = {
        "GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.name": "s.jpg", "GNU.sparse.realsize": "1003",
    }  # fmt: skip
    data = tar_bytes([(info, sparse_map + b"abc"), ("b.jpg", b"x")], format=tarfile.PAX_FORMAT)
    records, end = read(save(tmp_path / "a.tar", data))
    assert good(records) == [("b.jpg", b"x")]
    assert end.skipped == {"special": 1}


def test_an_empty_tar_ends_with_nothing(tmp_path: Path) -> None:
    records, end = read(save(tmp_path / "a.tar", tar_bytes([])))
    assert (records, end.count) == ([], 0)


def test_an_empty_file_is_truncated(tmp_path: Path) -> None:
    for name in ("a.tar", "a.tar.gz"):
        assert errors(read(save(tmp_path / name, b""))[0]) == [(None, "truncated")]


@pytest.mark.parametrize("packed", [False, True])
def test_cut_short_anywhere_it_gives_its_rows_so_far_and_one_error_row(tmp_path: Path, packed: bool) -> None:
    members = some_members(8)
    data = tar_bytes(members, "w:gz" if packed else "w")
    if not packed:
        data = data[: data.rindex(b"\xff\xd8\xff") + 1024]  # without the padding, in which a cut changes nothing
    most = 0
    for place, part in enumerate(cuts(data, 23)):
        source = save(tmp_path / f"{place}.tar{'.gz' * packed}", part)
        records, end = read(source)
        rows = good(records)
        assert rows == members[: len(rows)]
        assert errors(records) == [(None, "truncated")], place
        assert records[-1].image_id == image_id_of(source.uri)
        assert end.count == len(rows) + 1
        most = max(most, len(rows))
    assert most >= 6


def test_a_tar_that_stops_between_members_is_told(tmp_path: Path) -> None:
    """The standard library takes that for a good end."""
    data = tar_bytes(some_members(2, 509 - 3))
    records, _ = read(save(tmp_path / "a.tar", data[: 2 * 512 + 512]))
    assert len(good(records)) == 1
    assert errors(records) == [(None, "truncated")]


def test_a_damaged_header_in_the_middle_is_told(tmp_path: Path) -> None:
    """The standard library ends there in silence."""
    data = bytearray(tar_bytes(some_members(4, 100)))
    data[2 * 1024 + 3] ^= 0xFF  # in the third header
    records, _ = read(save(tmp_path / "a.tar", bytes(data)))
    assert len(good(records)) == 2
    assert errors(records) == [(None, "corrupt")]


def test_joined_tars_are_told(tmp_path: Path) -> None:
    data = tar_bytes([("a.jpg", b"1")]) + tar_bytes([("b.jpg", b"2")])
    records, _ = read(save(tmp_path / "a.tar", data))
    assert good(records) == [("a.jpg", b"1")]
    assert errors(records) == [(None, "corrupt")]
    assert "joined" in records[-1].error.message  # type: ignore[union-attr]


def test_not_a_tar_at_all(tmp_path: Path) -> None:
    assert errors(read(save(tmp_path / "a.tar", b"hello" * 500))[0]) == [(None, "corrupt")]
    assert errors(read(save(tmp_path / "a.tgz", b"hello" * 500))[0]) == [(None, "corrupt")]


def test_gzip_checks_its_sum_behind_the_last_member(tmp_path: Path) -> None:
    data = bytearray(tar_bytes(some_members(3), "w:gz"))
    data[-6] ^= 1  # in the check sum
    records, _ = read(save(tmp_path / "a.tgz", bytes(data)))
    assert len(good(records)) == 3
    assert errors(records) == [(None, "corrupt")]


def test_damaged_deflate_data_gives_one_error_row(tmp_path: Path) -> None:
    data = bytearray(gzip.compress(tar_bytes(some_members(60, 5000)), 1))
    for place in range(len(data) // 2, len(data) // 2 + 40):
        data[place] ^= 0x5A
    records, _ = read(save(tmp_path / "a.tgz", bytes(data)))
    assert errors(records)[-1] in [(None, "corrupt"), (None, "truncated")]
    assert len(errors(records)) == 1


def test_gzip_in_several_parts_is_one_stream(tmp_path: Path) -> None:
    members = some_members()
    data = tar_bytes(members)
    packed = gzip.compress(data[:1500]) + gzip.compress(data[1500:])
    assert good(read(save(tmp_path / "a.tar.gz", packed))[0]) == members


def test_archives_inside_are_named_not_read(tmp_path: Path) -> None:
    source = save(tmp_path / "a.tar", tar_bytes([("in.zip", b"PK"), ("in.tar.gz", b"x"), ("a.jpg", b"1")]))
    assert errors(read(source)[0]) == [("in.zip", "unsupported"), ("in.tar.gz", "unsupported")]


def test_a_size_that_lies_allocates_nothing(tmp_path: Path) -> None:
    info = tarfile.TarInfo("big.jpg")
    info.size = 1 << 40
    head = info.tobuf(tarfile.GNU_FORMAT)
    records, _ = read(save(tmp_path / "a.tar", tar_bytes([("a.jpg", b"1")])[:1024] + head + b"x" * 512))
    assert errors(records) == [("big.jpg", "too_large"), (None, "truncated")]


def test_a_header_of_headers_that_lies_allocates_nothing(tmp_path: Path) -> None:
    """A long name of 1 TB: the library would read it whole."""
    info = tarfile.TarInfo("././@LongLink")
    info.type, info.size = tarfile.GNUTYPE_LONGNAME, 1 << 40
    records, _ = read(save(tmp_path / "a.tar", tar_bytes([("a.jpg", b"1")])[:1024] + info.tobuf(tarfile.GNU_FORMAT)))
    assert good(records) == [("a.jpg", b"1")]
    assert errors(records) == [(None, "corrupt")]


def test_a_negative_size_does_not_loop(tmp_path: Path) -> None:
    info = tarfile.TarInfo("a.jpg")
    head = bytearray(info.tobuf(tarfile.GNU_FORMAT))
    head[124:136] = tarfile.itn(-1024, 12, tarfile.GNU_FORMAT)  # type: ignore[attr-defined]
    head[148:156] = b"%06o\0 " % (sum(head[:148]) + 8 * 32 + sum(head[156:512]))
    assert errors(read(save(tmp_path / "a.tar", bytes(head) * 4))[0]) == [(None, "corrupt")]


def test_too_many_members_and_too_much_inside(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyface_core.archive.tar.MAX_MEMBERS", 4)
    records, _ = read(save(tmp_path / "a.tar", tar_bytes(some_members(6))))
    assert (len(good(records)), errors(records)) == (4, [(None, "too_large")])
    monkeypatch.setattr("tinyface_core.archive.tar.MAX_MEMBERS", limits.MAX_MEMBERS)
    monkeypatch.setattr("tinyface_core.archive.tar.RATIO_FROM_BYTES", 4 << 20)
    bomb = [(f"{number}.bmp", bytes(1 << 20)) for number in range(8)]
    records, _ = read(save(tmp_path / "a.tgz", tar_bytes(bomb, "w:gz")))
    assert errors(records) == [(None, "too_large")]
    assert 1 <= len(good(records)) < 8


def test_only_gives_the_wanted_and_counts_all(tmp_path: Path) -> None:
    members = [*some_members(5), ("x.json", b"{}")]
    source = save(tmp_path / "a.tar", tar_bytes(members))
    records, end = read(source, only={1, 4, 99})
    assert [(record.index, record.data) for record in records] == [(1, members[1][1]), (4, members[4][1])]
    assert (end.count, end.skipped) == (5, {".json": 1})


def test_members_seen_are_not_kept(tmp_path: Path) -> None:
    """A tar of many members must not fill the memory: the library's own list is emptied."""
    from tinyface_core.archive.tar import Members

    members = iter(Members(io.BytesIO(tar_bytes(some_members(50, 1)))))
    for _ in range(40):
        member = next(members)
    assert len(member._archive.members) <= 2  # type: ignore[attr-defined]


def test_a_source_that_changed_or_vanished_is_unreadable(tmp_path: Path) -> None:
    source = save(tmp_path / "a.tar", tar_bytes(some_members(2)))
    old = Source(source.uri, Kind.TAR, source.size_bytes, "1-1")
    assert errors(read(Unit((old,), start=0))[0]) == [(None, "unreadable")]
    (tmp_path / "a.tar").unlink()
    records, end = read(source, CandidateFilter(), Storage())
    assert errors(records) == [(None, "unreadable")]
    assert end.count == 1
    assert records[0].error.stage == "read"  # type: ignore[union-attr]


@pytest.mark.parametrize(("name", "packed"), [("a.tar", True), ("a.tar.gz", False)])
def test_the_first_bytes_tell_a_tar_from_a_gzip(tmp_path: Path, name: str, packed: bool) -> None:
    """With the wrong name all of it was `corrupt`."""
    members = some_members(5)
    source = save(tmp_path / name, tar_bytes(members, "w:gz" if packed else "w"))
    assert good(read(source)[0]) == members
    assert good(read(source, only={3})[0]) == members[3:4]  # by seeking, where that can be
    cut = save(tmp_path / name, (tmp_path / name).read_bytes()[:-700])
    assert errors(read(cut)[0]) == [(None, "truncated")] * packed  # of the plain tar that is padding


def test_a_gzip_that_holds_no_tar_is_corrupt(tmp_path: Path) -> None:
    assert errors(read(save(tmp_path / "a.tar", gzip.compress(b"hello" * 500)))[0]) == [(None, "corrupt")]


@pytest.mark.parametrize("form", [tarfile.USTAR_FORMAT, tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
@pytest.mark.parametrize("size", [1, 512, 3000])
@pytest.mark.parametrize("holds_data", [True, False])
def test_a_hard_link_may_hold_data(tmp_path: Path, form: int, size: int, holds_data: bool) -> None:
    """The rest of the tar was `corrupt`. In other tars the size of a link says nothing, and the next header follows."""
    link = tarfile.TarInfo("d" * 90 + "/" + "n" * 60 + ".jpg")  # too long for one plain header
    link.type, link.linkname, link.size = tarfile.LNKTYPE, "a.jpg", size
    data = (b"x" * size).ljust(-(-size // 512) * 512, b"\0") if holds_data else b""
    middle = link.tobuf(form) + data
    before, after = tar_bytes([("a.jpg", b"1")])[:1024], tar_bytes([("b.jpg", b"2")])
    source = save(tmp_path / "a.tar", before + middle + after)
    for only in (None, {0, 1}):  # as a stream, and by seeking
        records, end = read(source, only=only)
        assert (good(records), errors(records)) == ([("a.jpg", b"1"), ("b.jpg", b"2")], [])
        assert end.skipped == {"special": 1}
    last = save(tmp_path / "b.tar", before + middle + bytes(1024))
    assert errors(read(last)[0]) == []


@pytest.mark.parametrize("flag", [8, 16], ids=["name", "comment"])
def test_a_gzip_header_without_end_is_not_read_to_its_end(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, flag: int
) -> None:
    """Byte by byte the library would: 50 MB took 12 seconds."""
    monkeypatch.setattr("tinyface_core.archive.tar._MAX_SINGLE_BYTES", 10_000)
    head = b"\x1f\x8b\x08" + bytes([flag]) + bytes(6)
    packed = gzip.compress(tar_bytes([("a.jpg", b"1")]))[10:]
    (record,), _ = read(save(tmp_path / "a.tgz", head + b"a" * 20_000 + b"\0" + packed))
    assert errors([record]) == [(None, "corrupt")]
    assert "10000 bytes of names" in str(record.error)
    named = head + b"a" * 5000 + b"\0" + packed
    assert good(read(save(tmp_path / "b.tgz", named + bytes(4000)))[0]) == [("a.jpg", b"1")]
    assert errors(read(save(tmp_path / "c.tgz", named + bytes(40_000)))[0]) == [(None, "corrupt")]


def test_a_plain_tar_has_no_such_bound(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The library asks for one byte behind each member that is passed over: a million sidecars broke a tar."""
    monkeypatch.setattr(tar, "_MAX_SINGLE_BYTES", 3)
    members = [*((f"{number}.json", b"{}" * 400) for number in range(9)), ("a.jpg", some_bytes(1, 900))]
    records, end = read(save(tmp_path / "a.tar", tar_bytes(members)))
    assert (good(records), end.skipped) == (members[-1:], {".json": 9})


def test_seeds_differ() -> None:
    assert some_bytes(1) != some_bytes(2)
