"""The plan against a plain model in memory, and what a kill leaves behind. No network, no Ray; files in tmp_path."""

from __future__ import annotations

import tempfile
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from itertools import islice
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tinyface_core.archive.record import Kind, Source, Unit
from tinyface_core.errors import InputError, OutputError, SettingsError
from tinyface_core.storage import Storage
from tinyface_core.tables import plan_diff, plan_files
from tinyface_core.tables.plan import Plan, expected_pictures, sources_hash, take

LABEL = pa.field("label", pa.string())
WHEN = datetime(2024, 2, 29, 12, 30, 1, 234567, tzinfo=UTC)


def picture(name: str, version: str | None = "1", size: int | None = 100, **carried: Any) -> Source:
    return Source(f"file:///in/{name}", Kind.PICTURE, size, version, WHEN, carried)


def archive(name: str, version: str | None = "1", size: int | None = 100, **carried: Any) -> Source:
    return Source(f"file:///in/{name}", Kind.ZIP, size, version, WHEN, carried)


def cut(sources: Iterable[Source]) -> Iterator[Unit]:
    """Neighbours in threes; an archive into as many units of two members as its version says."""
    loose: list[Source] = []
    last = ""
    for source in sources:
        assert source.uri > last, "cut is promised sorted sources, each once"
        last = source.uri
        if source.kind is Kind.PICTURE:
            loose.append(source)
        else:
            count = int(source.version or 1)
            for part in range(count):
                stop = None if part == count - 1 else 2 * part + 2
                yield Unit((source,), 2 * part, stop, byte_offset=512 * part, occurrences={2 * part: 1, 7: part})
        if len(loose) == 3:
            yield Unit(tuple(loose))
            loose = []
    if loose:
        yield Unit(tuple(loose))


def plan_at(folder: Path, carried: Sequence[pa.Field] = (), storage: Storage | None = None) -> Plan:
    return Plan(storage or Storage(), f"file://{folder}", carried)


def planned(plan: Plan) -> dict[str, Unit]:
    """The plan's units by name; a unit given twice fails."""
    units = list(plan.units())
    assert len({unit.name for unit in units}) == len(units)
    return {unit.name: unit for unit in units}


def test_units_come_back_as_they_were_cut(tmp_path: Path) -> None:
    """Versions, times, sizes, ranges, offsets and occurrences; None stays None; odd names stay."""
    sources = [
        picture("a'b\".jpg"),
        Source("file:///in/ä 100%.jpg", Kind.PICTURE),
        Source("s3://b/x.tar", Kind.TAR, 1 << 40, "2", WHEN),
    ]
    plan = plan_at(tmp_path)
    plan.update(sources, cut)
    assert planned(plan) == {unit.name: unit for unit in cut(sources)}
    assert plan.names() == set(planned(plan))
    assert all(type(source.kind) is Kind for unit in plan.units() for source in unit.sources)


def test_the_first_of_a_uri_named_twice_counts(tmp_path: Path) -> None:
    plan = plan_at(tmp_path, [LABEL])
    twice = [picture("b.jpg", label="first"), picture("a.jpg"), picture("b.jpg", "9", label="second")]
    change = plan.update(twice, cut)
    assert change.sources_new == 2
    assert planned(plan) == {unit.name: unit for unit in cut([picture("a.jpg"), picture("b.jpg", label="first")])}


def test_a_changed_picture_rewrites_its_unit_under_the_same_name(tmp_path: Path) -> None:
    plan = plan_at(tmp_path)
    plan.update([picture("a.jpg"), picture("b.jpg"), picture("c.jpg"), picture("d.jpg")], cut)
    before = planned(plan)
    change = plan.update([picture("b.jpg", "2", 200)], cut)
    after = planned(plan)
    assert (change.units_changed, change.units_new, change.units_unchanged, change.retired) == (1, 0, 1, ())
    assert (change.sources_changed, change.sources_gone) == (1, 3)
    assert before.keys() == after.keys()
    (rewritten,) = [unit for name, unit in after.items() if unit != before[name]]
    assert rewritten.sources == (picture("a.jpg"), picture("b.jpg", "2", 200), picture("c.jpg"))


def test_a_changed_archive_is_cut_again_and_its_old_units_are_told_first(tmp_path: Path) -> None:
    """The units' images must be gone before the new plan counts: the old plan is still in force when they are told."""
    plan = plan_at(tmp_path)
    plan.update([archive("x.zip", "3"), archive("y.zip", "2")], cut)
    old = planned(plan)
    seen: list[set[str]] = []

    def retire(names: Sequence[str]) -> None:
        seen.append(set(names))
        assert planned(plan) == old

    change = plan.update([archive("x.zip", "2"), archive("y.zip", "2")], cut, retire=retire)
    assert seen == [{unit.name for unit in cut([archive("x.zip", "3")])}]
    assert set(change.retired) == seen[0]
    assert planned(plan) == {unit.name: unit for unit in cut([archive("x.zip", "2"), archive("y.zip", "2")])}


def test_an_unknown_version_is_no_change_but_another_size_is(tmp_path: Path) -> None:
    plan = plan_at(tmp_path)
    plan.update([picture("a.jpg", "1"), picture("b.jpg", None)], cut)
    assert plan.update([picture("a.jpg", None), picture("b.jpg", None, None)], cut).sources_unchanged == 2
    assert plan.update([picture("a.jpg", None, 101), picture("b.jpg", "1")], cut).sources_changed == 2


def test_nothing_new_writes_no_generation_but_an_empty_listing_is_a_plan(tmp_path: Path) -> None:
    plan = plan_at(tmp_path)
    assert not plan.exists()
    assert plan.update([], cut).generation == 1
    assert plan.exists()
    assert plan.update([], cut).generation is None
    assert plan.update([picture("a.jpg")], cut).generation == 2
    assert plan.update([picture("a.jpg")], cut).generation is None
    assert plan.update([], cut).sources_gone == 1


SOURCES = st.one_of(
    st.builds(
        picture,
        st.sampled_from([f"{letter}.jpg" for letter in "abcdefgh"]),
        st.sampled_from(["1", "2", None]),
        st.sampled_from([100, 101, None]),
        label=st.sampled_from(["x", "y", None]),
    ),
    st.builds(
        archive,
        st.sampled_from([f"{letter}.zip" for letter in "bdz"]),
        st.sampled_from(["1", "2", "3", None]),
        label=st.sampled_from(["x", None]),
    ),
)


class Model:
    """What a plan promises, with dictionaries."""

    def __init__(self) -> None:
        self.units: dict[str, Unit] = {}

    def update(self, listing: Sequence[Source], *, prune: bool) -> tuple[int, int, int, int, set[str]]:
        before = {source.uri: source for unit in self.units.values() for source in unit.sources}
        first = {source.uri: known(source) for source in reversed(listing)}
        changed = {uri: now for uri, source in first.items() if uri in before and (now := changes(before[uri], source))}
        retired = set()
        for name, unit in list(self.units.items()):
            sources = [changed.get(source.uri, source) for source in unit.sources]
            if prune:
                sources = [source if source.uri in first else taken_out(source) for source in sources]
            gone = all(source.kind is Kind.GONE for source in sources)
            if gone or (sources[0].kind is Kind.ZIP and sources[0].uri in changed):
                retired.add(name)
                del self.units[name]
            else:
                self.units[name] = replace(unit, sources=tuple(sources))
        again = [source for source in changed.values() if source.kind is Kind.ZIP]
        new = [source for uri, source in first.items() if uri not in before]
        self.units |= {unit.name: unit for unit in cut(sorted([*again, *new], key=lambda source: source.uri))}
        lost = [uri for uri, source in before.items() if source.kind is not Kind.GONE and uri not in first]
        return len(new), len(changed), len(first) - len(new) - len(changed), len(lost), retired


def taken_out(source: Source) -> Source:
    return Source(source.uri, Kind.GONE, carried=source.carried)


def known(source: Source) -> Source:
    return replace(source, carried={name: value for name, value in source.carried.items() if value is not None})


def changes(old: Source, new: Source) -> Source | None:
    if old.kind is Kind.GONE:
        fresh = True
    elif new.version is None:
        fresh = None not in (old.size_bytes, new.size_bytes) and old.size_bytes != new.size_bytes
    else:
        fresh = old.version != new.version
    if fresh:
        return new
    return replace(old, carried=new.carried) if old.carried != new.carried else None


@pytest.mark.slow
@settings(max_examples=30, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    listings=st.lists(st.tuples(st.lists(SOURCES, max_size=14), st.booleans()), min_size=1, max_size=4),
    small=st.booleans(),
)
def test_any_sequence_of_listings_gives_what_the_model_gives(
    listings: list[tuple[list[Source], bool]], small: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Pruned or not; also with batches, files and sorted ranges of two or three sources."""
    with monkeypatch.context() as patch, tempfile.TemporaryDirectory() as folder:
        if small:
            patch.setattr(plan_diff, "_BATCH_SOURCES", 3)
            patch.setattr(plan_diff, "_SAMPLE_EVERY", 1)
            patch.setattr(plan_diff, "_SORT_BYTES", 48 << 20)
            patch.setattr(plan_files, "_BATCH_SOURCES", 3)
            patch.setattr(plan_files, "_FILE_SOURCES", 5)
        model, plan = Model(), plan_at(Path(folder), [LABEL])
        for listing, prune in listings:
            before = set(model.units)
            new, changed, unchanged, gone, retired = model.update(listing, prune=prune)
            change = plan.update(iter(listing), cut, prune=1.0 if prune else None)
            assert planned(plan) == model.units
            assert list(plan.units()) == list(plan_at(Path(folder), [LABEL]).units())
            counted = (change.sources_new, change.sources_changed, change.sources_unchanged, change.sources_gone)
            assert counted == (new, changed, unchanged, gone)
            assert set(change.retired) == retired
            uris = {source.uri for source in listing}
            unlisted = {n for n, unit in model.units.items() if not unit.is_loose and unit.sources[0].uri not in uris}
            assert change.unlisted == unlisted
            assert change.units_changed + change.units_unchanged + len(change.retired) == len(before)
            assert change.units_new + change.units_changed + change.units_unchanged == len(model.units)


def test_what_is_gone_is_pruned_up_to_a_share_and_keeps_its_place(tmp_path: Path) -> None:
    """The unit keeps its name, so the other rows of it stand; a unit of which nothing is left goes."""
    plan = plan_at(tmp_path)
    everything = [*(picture(f"{name}.jpg") for name in "abcd"), archive("x.zip"), archive("y.zip")]
    plan.update(everything, cut)
    (name,) = [name for name, unit in planned(plan).items() if len(unit.sources) == 3]
    left = [picture("a.jpg"), picture("c.jpg"), archive("y.zip")]
    with pytest.raises(SettingsError, match=r"^--prune 0.4: 3 of 6 sources are no longer listed"):
        plan.update(left, cut, prune=0.4)
    assert planned(plan) == {unit.name: unit for unit in cut(everything)}
    retired: list[str] = []
    change = plan.update(left, cut, prune=0.5, retire=retired.extend)
    assert (change.sources_gone, change.units_changed, len(retired)) == (3, 1, 2)
    now = planned(plan)
    assert [source.uri[-5:] for source in now[name].present] == ["a.jpg", "c.jpg"]
    assert {source.uri[-5:] for unit in now.values() for source in unit.present} == {"a.jpg", "c.jpg", "y.zip"}
    assert sources_hash(now[name], "") == sources_hash(Unit((picture("a.jpg"), picture("c.jpg"))), "")
    assert plan.update(left, cut, prune=0.0).generation is None
    assert plan.update([picture("b.jpg", "2")], cut).sources_changed == 1
    assert planned(plan)[name].sources == (picture("a.jpg"), picture("b.jpg", "2"), picture("c.jpg"))


class Killed(BaseException):
    """Stands in for SIGKILL: nothing of ours may catch it."""


class DyingStorage(Storage):
    """Dies before its n-th write or delete."""

    def __init__(self, left: int) -> None:
        super().__init__()
        self.left = left

    def write(self, uri: str, data: bytes) -> None:
        self._die()
        super().write(uri, data)

    def delete(self, uri: str) -> None:
        self._die()
        super().delete(uri)

    def _die(self) -> None:
        if self.left == 0:
            raise Killed
        self.left -= 1


@pytest.mark.parametrize("left", range(7))
def test_an_interrupted_generation_does_not_count_and_leaves_nothing(
    left: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Files of the killed run are more than the next run writes: none of them may be read as the next run's."""
    monkeypatch.setattr(plan_files, "_BATCH_SOURCES", 1)
    monkeypatch.setattr(plan_files, "_FILE_SOURCES", 3)
    first = [picture(f"{letter}.jpg") for letter in "abcdef"]
    plan_at(tmp_path).update(first, cut)
    before = planned(plan_at(tmp_path))
    many = [picture(f"{letter}.jpg", "2") for letter in "abcdefghijklmno"]
    written = sorted((tmp_path / "_run/plan").iterdir())
    with pytest.raises(Killed):
        plan_at(tmp_path, storage=DyingStorage(min(left, 5))).update(many, cut)
    assert planned(plan_at(tmp_path)) == before
    if left == 6:  # killed twice
        with pytest.raises(Killed):
            plan_at(tmp_path, storage=DyingStorage(3)).update(many, cut)
    change = plan_at(tmp_path).update([*first, picture("z.jpg")], cut)
    assert change.generation == 2
    assert planned(plan_at(tmp_path)) == before | {unit.name: unit for unit in cut([picture("z.jpg")])}
    new = {path.name for path in (tmp_path / "_run/plan").iterdir()} - {path.name for path in written}
    assert new == {"000002-0.parquet", "000002.complete"}


def test_a_missing_part_is_named_instead_of_planned_again(tmp_path: Path) -> None:
    plan_at(tmp_path).update([picture("a.jpg")], cut)
    (tmp_path / "_run/plan/000001-0.parquet").unlink()
    with pytest.raises(OutputError, match=r"000001-0\.parquet.*missing"):
        plan_at(tmp_path).update([picture("a.jpg")], cut)


def test_a_listing_or_a_cut_that_fails_writes_nothing_that_counts(tmp_path: Path) -> None:
    def broken(sources: Iterable[Source]) -> Iterator[Unit]:
        yield from islice(cut(sources), 1)
        raise InputError("no")

    def ends(sources: Iterable[Source]) -> Iterator[Source]:
        yield from sources
        raise InputError("no")

    sources = [picture(f"{letter}.jpg") for letter in "abcdef"]
    for listing, cutter in [(ends(sources), cut), (sources, broken)]:
        with pytest.raises(InputError):
            plan_at(tmp_path).update(listing, cutter)
        assert not plan_at(tmp_path).exists()


CARRIED = [
    (pa.int64(), [1, -(2**60)]),
    (pa.uint8(), [0, 255]),
    (pa.float64(), [0.1, float("inf")]),
    (pa.float32(), [0.5, 1.5]),
    (pa.bool_(), [True, False]),
    (pa.string(), ["", "ä\0b"]),
    (pa.large_string(), ["x", "y"]),
    (pa.binary(), [b"\xff", b""]),
    (pa.date32(), [date(1900, 1, 1), date(2024, 2, 29)]),
    (pa.timestamp("us"), [datetime(2024, 1, 1, 1, 2, 3, 4), datetime(1960, 1, 1)]),
    (pa.timestamp("us", tz="UTC"), [WHEN, WHEN + timedelta(microseconds=1)]),
    (pa.decimal128(20, 3), [Decimal("1.500"), Decimal("-7.001")]),
    (pa.list_(pa.string()), [["a", None], []]),
    (pa.struct([("x", pa.int32()), ("y", pa.string())]), [{"x": 1, "y": None}, {"x": 2, "y": "b"}]),
    (pa.dictionary(pa.int32(), pa.string()), ["a", "b"]),
]


@pytest.mark.parametrize(("kind", "values"), CARRIED, ids=[str(kind) for kind, _ in CARRIED])
def test_carried_values_keep_their_type_and_a_change_of_them_is_a_change(
    kind: pa.DataType, values: list[Any], tmp_path: Path
) -> None:
    plan = plan_at(tmp_path, [pa.field("c", kind)])
    listing = [picture("a.jpg", c=values[0]), picture("b.jpg", c=values[1]), picture("c.jpg")]
    plan.update(listing, cut)
    (unit,) = plan.units()
    assert list(unit.sources) == listing
    assert sources_hash(unit, "f") == sources_hash(Unit(tuple(listing)), "f")
    assert plan.update(listing, cut).sources_unchanged == 3
    change = plan.update([picture("a.jpg", c=values[1]), picture("b.jpg", c=values[1]), picture("c.jpg")], cut)
    assert (change.sources_changed, change.units_changed) == (1, 1)
    (unit,) = plan.units()
    assert unit.sources[0] == picture("a.jpg", c=values[1])


def test_a_carried_value_of_another_type_names_the_column(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"--carry label.*string"):
        plan_at(tmp_path, [LABEL]).update([picture("a.jpg", label=5)], cut)


def test_other_carried_columns_than_the_plan_has_are_refused(tmp_path: Path) -> None:
    plan_at(tmp_path, [LABEL]).update([picture("a.jpg", label="x")], cut)
    with pytest.raises(OutputError, match=r"other --carry columns"):
        list(plan_at(tmp_path, [pa.field("label", pa.int64())]).units())


def test_the_files_of_a_plan_are_read_by_any_parquet_reader(tmp_path: Path) -> None:
    plan_at(tmp_path).update([picture("a.jpg"), picture("b.jpg"), archive("c.zip", "2")], cut)
    rows = duckdb.sql(f"SELECT unnest(sources).uri FROM '{tmp_path}/_run/plan/*.parquet' ORDER BY 1").fetchall()
    assert [uri for (uri,) in rows] == ["file:///in/a.jpg", "file:///in/b.jpg", *["file:///in/c.zip"] * 2]


def test_take_gives_whole_units_until_the_limit_is_reached() -> None:
    loose = [Unit((picture("a.jpg"), picture("b.jpg"))), Unit((picture("c.jpg"), picture("d.jpg")))]
    bounded, unknown = Unit((archive("x.zip"),), 10, 15), Unit((archive("y.zip"),), 15, None)
    assert [expected_pictures(unit) for unit in [*loose, bounded]] == [2, 2, 5]
    sized = replace(archive("y.tar"), size_bytes=3_000_000_000)
    assert expected_pictures(Unit((sized,), 0, None)) == 20_000
    assert expected_pictures(Unit((sized,), 15, None)) == 1000
    assert expected_pictures(unknown) == 1
    assert list(take(loose, None)) == loose
    assert list(take(loose, 0)) == []
    assert list(take(loose, 2)) == loose[:1]
    assert list(take(loose, 3)) == loose
    assert list(take([bounded, *loose], 6)) == [bounded, loose[0]]
    assert list(take([Unit((sized,), 0, None), *loose], 1000))[1:] == []


def test_the_sources_hash_changes_with_all_that_can_change_a_row_and_with_nothing_else() -> None:
    unit = Unit((picture("a.jpg", label="x", when=WHEN),), 0, 5)
    (source,) = unit.sources
    others = [
        Unit((replace(source, uri="file:///in/b.jpg"),), 0, 5),
        Unit((replace(source, version="2"),), 0, 5),
        Unit((replace(source, version=None),), 0, 5),
        Unit((replace(source, carried={"label": "y", "when": WHEN}),), 0, 5),
        Unit((replace(source, carried={"when": "x", "label": WHEN}),), 0, 5),
        Unit((source,), 1, 5),
        Unit((source,), 0, 6),
        Unit((source,), 0, None),
        Unit((source, source), 0, 5),
    ]
    hashes = {sources_hash(unit, "f"), sources_hash(unit, "g"), *(sources_hash(other, "f") for other in others)}
    assert len(hashes) == len(others) + 2
    elsewhere = WHEN.astimezone(timezone(timedelta(hours=2)))
    same = replace(source, modified=None, size_bytes=1, carried={"when": elsewhere, "label": "x", "none": None})
    assert sources_hash(Unit((same,), 0, 5), "f") == sources_hash(unit, "f")
