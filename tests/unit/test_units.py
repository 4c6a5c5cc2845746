"""Units: nothing lost or doubled between them, and a split archive gives the same records as the whole."""

from __future__ import annotations

import io
import tarfile
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from itertools import islice
from pathlib import Path

import pytest

from tests.unit.archives import (
    errors,
    good,
    parquet_bytes,
    read,
    save,
    some_bytes,
    some_members,
    tar_bytes,
    zip_bytes,
)
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.record import Kind, Record, Source, Unit
from tinyface_core.archive.units import cut_units, unit_size_for
from tinyface_core.errors import StorageError
from tinyface_core.storage import Storage

ALL = CandidateFilter()


def cut(*sources: Source, candidates: CandidateFilter = ALL, pictures: int = 1000, bytes_: int = 1 << 30) -> list[Unit]:
    return list(cut_units(sources, Storage(), candidates, unit_pictures=pictures, unit_bytes=bytes_))


def identity(records: list[Record]) -> list[tuple[str, str | None, str | None]]:
    return [(record.image_id, record.member, record.sha256) for record in records]


def assert_same_as_whole(source: Source, units: list[Unit], candidates: CandidateFilter = ALL) -> None:
    """The units together give what the archive gives as one, and their names differ."""
    parts = [read(unit, candidates) for unit in units]
    records, end = read(Unit((source,), 0), candidates)
    assert identity([record for part, _ in parts for record in part]) == identity(records)
    assert sum((part_end.skipped.get(".json", 0) for _, part_end in parts), 0) == end.skipped.get(".json", 0)
    assert len({unit.name for unit in units}) == len(units)
    assert [unit.start for unit in units[1:]] == [unit.stop for unit in units[:-1]]
    assert (units[0].start, units[-1].stop) == (0, None)


def loose(count: int, size: int | None = 10) -> Iterator[Source]:
    return (Source(f"s3://b/{number:04}.jpg", Kind.PICTURE, size) for number in range(count))


def test_loose_pictures_by_count_and_by_bytes() -> None:
    assert [len(unit.sources) for unit in cut(*loose(10), pictures=4)] == [4, 4, 2]
    assert [len(unit.sources) for unit in cut(*loose(10), bytes_=35)] == [3, 3, 3, 1]
    assert [len(unit.sources) for unit in cut(*loose(3, 99), bytes_=35)] == [1, 1, 1]
    assert [len(unit.sources) for unit in cut(*loose(5, None), pictures=4)] == [4, 1]
    assert cut() == []
    assert cut(*loose(1))[0].start is None


def test_loose_pictures_gather_across_archives(tmp_path: Path) -> None:
    tar = save(tmp_path / "m.tar", tar_bytes(some_members(2)))
    first, second, third = loose(3)
    units = cut(first, tar, second, third, pictures=2)
    assert [tuple(source.uri[-8:] for source in unit.sources) for unit in units] == [
        (tar.uri[-8:],), ("0000.jpg", "0001.jpg"), ("0002.jpg",),
    ]  # fmt: skip


def test_it_streams() -> None:
    """The first unit comes before the listing is read to its end."""
    asked = 0

    def endless() -> Iterator[Source]:
        nonlocal asked
        for source in loose(10**9):
            asked += 1
            yield source

    units = cut_units(endless(), Storage(), ALL, unit_pictures=10)
    assert len(next(units).sources) == 10
    assert asked == 11
    units.close()


@pytest.mark.parametrize(
    ("count", "size"), [(0, 25), (1, 25), (668, 25), (1700, 27), (6_400, 100), (63_999, 1000), (64_000, 1000)]
)
def test_units_of_a_small_input_are_smaller(count: int, size: int) -> None:
    found, sources = unit_size_for(loose(count), lambda source: 1)
    assert (found, sum(1 for _ in sources)) == (size, count)


def test_archives_count_as_the_pictures_in_them_and_a_large_input_is_not_read_to_its_end() -> None:
    assert unit_size_for(loose(10), lambda source: 320)[0] == 50
    size, sources = unit_size_for(loose(10**9), lambda source: 1)
    assert size == 1000
    assert [source.uri for source in islice(sources, 2)] == ["s3://b/0000.jpg", "s3://b/0001.jpg"]


def test_a_small_archive_is_one_unit(tmp_path: Path) -> None:
    members = some_members(4)
    for name, data in (
        ("a.zip", zip_bytes(members)),
        ("a.tar", tar_bytes(members)),
        ("a.parquet", parquet_bytes(members)),
    ):
        (unit,) = cut(save(tmp_path / name, data))
        assert (unit.start, unit.stop) == (0, None)
        assert good(read(unit)[0]) == members


@pytest.mark.filterwarnings("ignore:Duplicate name")
def test_a_split_zip_gives_the_same_records(tmp_path: Path) -> None:
    members = [*some_members(10), ("a.json", b"{}"), ("x/", b""), *some_members(7)]
    source = save(tmp_path / "a.zip", zip_bytes(members))
    for pictures, bytes_, count in ((3, 1 << 30, 6), (1000, 1500, 9), (1, 1 << 30, 17)):
        units = cut(source, pictures=pictures, bytes_=bytes_)
        assert len(units) == count
        assert_same_as_whole(source, units)
        assert all(read(unit)[1].count <= pictures for unit in units)


@pytest.mark.parametrize("form", [tarfile.GNU_FORMAT, tarfile.PAX_FORMAT])
def test_a_split_tar_gives_the_same_records(tmp_path: Path, form: int) -> None:
    """Also with long names (a header before the header), equal names across the cuts, folders and sidecars."""
    folder = tarfile.TarInfo("sub")
    folder.type = tarfile.DIRTYPE
    long = [("é" * 90 + f"/{number}.jpg", some_bytes(number)) for number in range(4)]
    members = [*some_members(6), (folder, b""), ("a.json", b"{}"), *long, *some_members(5), *long[:2]]
    source = save(tmp_path / "a.tar", tar_bytes(members, format=form))
    for pictures, bytes_, least in ((1000, 4000, 4), (2, 1 << 14, 7), (1, 1000, 17)):
        units = cut(source, pictures=pictures, bytes_=bytes_)
        assert len(units) >= least
        assert_same_as_whole(source, units)
        assert_same_as_whole(source, units, CandidateFilter(all_files=True))
    wanted, end = read(units[-1], only={0})
    assert (len(wanted), end.count) == (1, 1)


def test_a_tar_below_the_limit_or_gzipped_is_one_unit(tmp_path: Path) -> None:
    members = some_members(10)
    assert len(cut(save(tmp_path / "a.tar", tar_bytes(members)), pictures=3)) == 1
    assert len(cut(save(tmp_path / "a.tgz", tar_bytes(members, "w:gz")), pictures=3, bytes_=500)) == 1


def test_a_tar_whose_headers_hold_for_all_is_one_unit(tmp_path: Path) -> None:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w", format=tarfile.PAX_FORMAT, pax_headers={"gname": "x"}) as archive:
        for name, data in some_members(6):
            info = tarfile.TarInfo(name)
            info.size = len(data)
            archive.addfile(info, io.BytesIO(data))
    source = save(tmp_path / "a.tar", buffer.getvalue())
    assert len(cut(source, bytes_=1000)) == 1


def test_a_broken_tar_is_cut_as_far_as_it_goes(tmp_path: Path) -> None:
    members = some_members(6)
    source = save(tmp_path / "a.tar", tar_bytes(members)[:7000])
    units = cut(source, bytes_=2000)
    assert len(units) > 1
    records = [record for unit in units for record in read(unit)[0]]
    assert good(records) == good(read(source)[0])
    assert errors(records) == [(None, "truncated")]


@pytest.mark.parametrize(
    ("group", "pictures", "starts"),
    [
        (2, 4, [0, 4, 8]),  # at borders of row groups
        (3, 4, [0, 3, 6]),
        (6, 4, [0, 6]),  # not worth to split a row group for
        (10, 4, [0, 3, 6]),  # split evenly
        (1, 1000, [0]),
    ],
)
def test_a_split_parquet_gives_the_same_records(tmp_path: Path, group: int, pictures: int, starts: list[int]) -> None:
    members = [(f"{number % 4}.jpg", some_bytes(number)) for number in range(10)]  # names come again across cuts
    source = save(tmp_path / "a.parquet", parquet_bytes(members, group))
    units = cut(source, pictures=pictures)
    assert [unit.start for unit in units] == starts
    assert_same_as_whole(source, units)


def test_a_parquet_is_split_by_bytes_too(tmp_path: Path) -> None:
    source = save(tmp_path / "a.parquet", parquet_bytes(some_members(10), 10))
    units = cut(source, bytes_=2000)
    assert len(units) >= 4
    assert_same_as_whole(source, units)


def test_what_cannot_be_opened_is_one_unit(tmp_path: Path) -> None:
    for name in ("a.zip", "a.parquet", "a.tar"):
        source = save(tmp_path / name, b"hello" * 1000)
        (unit,) = cut(source, bytes_=100)
        assert errors(read(unit)[0]) == [(None, "corrupt")]
        gone = replace(source, uri=source.uri + ".gone")
        (unit,) = cut(gone, bytes_=100)
        assert errors(read(unit)[0]) == [(None, "unreadable")]


def test_a_store_that_fails_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = save(tmp_path / "a.zip", zip_bytes(some_members(2)))

    def fail(self: Storage, uri: str, version: str | None = None) -> None:
        raise StorageError("the network is gone")

    monkeypatch.setattr(Storage, "open", fail)
    with pytest.raises(StorageError):
        cut(source)


def test_names_leave_versions_out(tmp_path: Path) -> None:
    source = save(tmp_path / "a.zip", zip_bytes(some_members(4)))
    before = [unit.name for unit in cut(source, pictures=2)]
    assert before == [unit.name for unit in cut(replace(source, version=None, size_bytes=1), pictures=2)]


def test_a_unit_of_a_zip_reads_its_part_of_the_directory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a zip of a million members each unit would else read a million entries."""
    members = [(f"é{number}.jpg", some_bytes(number, 50)) for number in range(500)]
    source = save(tmp_path / "a.zip", zip_bytes(members))
    units = cut(source, pictures=50)
    directory = (tmp_path / "a.zip").read_bytes().index(b"PK\x01\x02")
    assert units[0].byte_offset == directory
    assert all(unit.byte_offset for unit in units)
    sizes = []
    original = zipfile.ZipFile.infolist
    monkeypatch.setattr(zipfile.ZipFile, "infolist", lambda self: sizes.append(len(original(self))) or original(self))  # type: ignore[func-returns-value]
    assert [row for unit in units for row in good(read(unit)[0])] == members
    assert set(sizes) == {50}


@pytest.mark.parametrize("offset", [1, 1000])
def test_a_part_that_is_not_there_falls_back_to_the_whole(tmp_path: Path, offset: int) -> None:
    members = some_members(20)
    source = save(tmp_path / "a.zip", zip_bytes(members))
    for unit in cut(source, pictures=6):
        start, stop = unit.start or 0, unit.stop
        moved = replace(unit, byte_offset=unit.byte_offset + offset)
        assert good(read(moved)[0]) == members[start:stop]


def test_a_zip_behind_other_data_is_read_whole(tmp_path: Path) -> None:
    buffer = io.BytesIO(b"#!/bin/sh\n")
    buffer.seek(0, 2)
    members = some_members(20)
    packed = zip_bytes(members)
    source = save(tmp_path / "a.zip", buffer.getvalue() + packed)
    units = cut(source, pictures=6)
    assert {unit.byte_offset for unit in units} == {0}
    assert_same_as_whole(source, units)
    # Python itself writes right offsets when it appends to a file.
    path = tmp_path / "b.zip"
    path.write_bytes(b"#!/bin/sh\n")
    with zipfile.ZipFile(path, "a") as archive:
        archive.comment = b"with a comment"
        for name, data in members:
            archive.writestr(name, data)
    source = save(path, path.read_bytes())
    units = cut(source, pictures=6)
    assert all(unit.byte_offset for unit in units)
    assert_same_as_whole(source, units)


def test_a_zip64_directory_is_cut_too(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Entries whose offsets and sizes stand in the zip64 field."""
    monkeypatch.setattr(zipfile, "ZIP64_LIMIT", 1000)
    data = zip_bytes(some_members(20), zipfile.ZIP_STORED)
    monkeypatch.undo()
    assert b"\xff\xff\xff\xff" in data
    source = save(tmp_path / "a.zip", data)
    units = cut(source, pictures=6)
    assert all(unit.byte_offset for unit in units)
    assert_same_as_whole(source, units)
