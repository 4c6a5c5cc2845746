"""Reading a unit: whatever goes wrong becomes a record, only the store's failure is raised."""

from __future__ import annotations

import hashlib
import random
import threading
import time
import zipfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

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
    whole,
    zip_bytes,
)
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.members import MAX_PICTURE_BYTES, Numbering, Occurrences
from tinyface_core.archive.read import read_unit
from tinyface_core.archive.record import Kind, Source, Unit, image_id_of
from tinyface_core.archive.units import cut_units
from tinyface_core.errors import StorageError
from tinyface_core.storage import Storage


@pytest.fixture
def pictures(tmp_path: Path) -> tuple[Source, ...]:
    return tuple(save(tmp_path / f"{number:02}.jpg", some_bytes(number)) for number in range(20))


def test_loose_pictures_in_order(pictures: tuple[Source, ...]) -> None:
    pictures = (replace(pictures[0], carried={"who": "Ann"}), *pictures[1:])
    records, end = read(Unit(pictures))
    assert [record.data for record in records] == [some_bytes(number) for number in range(20)]
    first = records[0]
    assert first.sha256 == hashlib.sha256(some_bytes(0)).hexdigest()
    assert (first.member, first.image_id, first.carried) == (None, image_id_of(first.uri), {"who": "Ann"})
    assert (first.size_bytes, first.source_version) == (703, pictures[0].version)
    assert (first.source_modified, end.count) == (pictures[0].modified, 20)


def test_what_is_wrong_with_one_picture_is_its_record(pictures: tuple[Source, ...], tmp_path: Path) -> None:
    (tmp_path / "03.jpg").unlink()
    (tmp_path / "05.jpg").write_bytes(b"other")
    sources = list(pictures)
    sources[7] = replace(sources[7], size_bytes=MAX_PICTURE_BYTES + 1)
    records, end = read(Unit(tuple(sources)))
    found = {record.index: str(record.error.error_class) for record in records if record.error is not None}
    assert found == {3: "unreadable", 5: "unreadable", 7: "too_large"}
    assert (end.count, len(good(records))) == (20, 17)
    assert records[7].size_bytes == MAX_PICTURE_BYTES + 1
    assert "listed as" in records[5].error.message  # type: ignore[union-attr]


def test_an_empty_picture_is_given_on(tmp_path: Path) -> None:
    """Decoding says what 0 bytes are."""
    assert good(read(save(tmp_path / "a.jpg", b""))[0]) == [("", b"")]


def test_only_the_wanted_are_read(pictures: tuple[Source, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    seen = []
    original = Storage.read
    monkeypatch.setattr(Storage, "read", lambda self, uri, *where: seen.append(uri) or original(self, uri, *where))  # type: ignore[func-returns-value]
    records, end = read(Unit(pictures), only={2, 17})
    assert [record.index for record in records] == [2, 17]
    assert seen == [pictures[2].uri, pictures[17].uri]
    assert end.count == 20


def test_a_few_are_read_ahead_and_no_more(pictures: tuple[Source, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """An object store answers slowly, but many at once; pictures not yet asked for must not pile up."""
    lock, running, most, started = threading.Lock(), 0, 0, 0

    def slow(self: Storage, uri: str, *where: Any) -> bytes:
        nonlocal running, most, started
        with lock:
            running, started = running + 1, started + 1
            most = max(most, running)
        time.sleep(0.005)
        with lock:
            running -= 1
        return b"x"

    monkeypatch.setattr(Storage, "read", slow)
    records = read_unit(Unit(pictures), Storage(), CandidateFilter())
    next(records)
    assert started <= 9
    assert sum(1 for _ in records) == 20
    assert 4 <= most <= 8


def test_large_pictures_are_not_read_ahead(pictures: tuple[Source, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    started = []
    monkeypatch.setattr(Storage, "read", lambda self, uri, *where: started.append(uri) or b"x")  # type: ignore[func-returns-value]
    large = tuple(replace(source, size_bytes=100 << 20) for source in pictures)
    next(read_unit(Unit(large), Storage(), CandidateFilter()))
    assert len(started) == 1


def test_a_store_that_fails_stops_the_run(pictures: tuple[Source, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(self: Storage, uri: str, *where: Any) -> bytes:
        if uri == pictures[4].uri:
            raise StorageError("the network is gone")
        return b"x"

    monkeypatch.setattr(Storage, "read", fail)
    with pytest.raises(StorageError):
        read(Unit(pictures))


def test_a_bug_costs_one_picture_or_the_rest_of_an_archive(
    pictures: tuple[Source, ...], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def bug(*args: Any) -> bytes:
        raise ZeroDivisionError("oops")

    monkeypatch.setattr(Storage, "read", bug)
    records, _ = read(Unit(pictures))
    assert errors(records) == [(None, "internal")] * 20
    monkeypatch.setattr("tinyface_core.archive.tar.refusal", bug)
    records, _ = read(save(tmp_path / "a.tar", tar_bytes(some_members(3))))
    assert errors(records) == [(None, "internal")]
    assert "ZeroDivisionError: oops" in records[0].error.message  # type: ignore[union-attr]


def test_an_archive_that_broke_is_told_again_when_only_its_end_is_wanted(tmp_path: Path) -> None:
    source = save(tmp_path / "a.tar", tar_bytes(some_members(4))[:4000])
    records, end = read(source)
    last = end.count - 1
    assert errors(read(source, only={last})[0]) == errors(records) == [(None, "truncated")]
    assert read(source, only={0})[1].count == end.count


def test_every_kind_gives_the_same_pictures(tmp_path: Path) -> None:
    members = [(f"{number}.jpg", some_bytes(number)) for number in range(5)]
    forms = {
        "a.tar": tar_bytes(members),
        "a.tar.gz": tar_bytes(members, "w:gz"),
        "a.zip": zip_bytes(members),
        "a.parquet": parquet_bytes(members),
    }
    for name, data in forms.items():
        source = replace(save(tmp_path / name, data), carried={"id": 7})
        records, end = read(source)
        assert good(records) == members
        assert end.count == 5
        assert {record.carried["id"] for record in records} == {7}
        assert records[0].source_modified == source.modified


def test_a_reader_that_is_left_early_closes_its_file(tmp_path: Path) -> None:
    """Warnings are errors: a file left open would fail the test."""
    for name, data in (("a.tar", tar_bytes(some_members(3))), ("a.zip", zip_bytes(some_members(3)))):
        records = read_unit(whole(save(tmp_path / name, data)), Storage(), CandidateFilter())
        next(records)
        assert isinstance(records, Iterator)
        records.close()  # type: ignore[attr-defined]


def test_numbering_and_occurrences() -> None:
    numbering = Numbering(only={1})
    source = Source("s3://b/a.zip", Kind.ZIP)
    assert not numbering.wants_next()
    numbering.pass_over()
    record = numbering.record(source, (b"m", 3), b"data")
    assert (record.index, record.image_id) == (1, image_id_of(source.uri, b"m", 3))
    assert numbering.end().count == 2
    seen = Occurrences({7: 2})
    assert [seen.of(b"a"), seen.of(b"b"), seen.of(b"a"), seen.of(b"a")] == [0, 0, 1, 2]
    assert [seen.of(b"c", 7), seen.of(b"c", 8)] == [2, 3]


@pytest.mark.parametrize("name", ["a.tar", "a.tgz", "a.zip", "b.zip", "a.parquet"])
def test_damage_of_any_kind_is_told_by_rows_and_never_raised(tmp_path: Path, name: str) -> None:
    """And a second reading of the last row finds the same row under the same number."""
    members = [*some_members(6, 200), ("é" * 80 + ".jpg", b"1"), ("x.json", b"{}")]
    make: dict[str, Any] = {
        "a.tar": tar_bytes, "a.tgz": lambda m: tar_bytes(m, "w:gz"), "a.zip": zip_bytes,
        "b.zip": lambda m: zip_bytes(m, zipfile.ZIP_BZIP2), "a.parquet": parquet_bytes,
    }  # fmt: skip
    sound = make[name](members)
    told: Counter[str] = Counter()
    for seed in range(120):
        rng = random.Random(seed)
        data = bytearray(sound)
        for _ in range(rng.choice([1, 2, 5, 40])):
            data[rng.randrange(len(data))] = rng.randrange(256)
        source = save(tmp_path / name, bytes(data))
        for unit in cut_units([source], Storage(), CandidateFilter(), unit_pictures=3, unit_bytes=1500):
            records, end = read(unit)
            told.update(error_class for _, error_class in errors(records))
            if records:
                assert read(unit, only={end.count - 1}) == (records[-1:], end), seed
    assert told
    assert "internal" not in told
