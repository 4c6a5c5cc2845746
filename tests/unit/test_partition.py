"""An output in folders `key=value/`: who lies where, and that kills, redos, removals and checks are as without."""

from __future__ import annotations

import shutil
from collections import Counter
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow.dataset as ds
import pytest

from tests.unit.row_samples import CORRUPT, make_rows, make_unit
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.record import Kind, Source, Unit
from tinyface_core.archive.units import HELD_UNITS, cut_units
from tinyface_core.errors import SettingsError
from tinyface_core.storage import Storage
from tinyface_core.tables.check_files import MIXED_FOLDERS, NO_DETECTIONS
from tinyface_core.tables.commit import Committer, Swept
from tinyface_core.tables.footer import committed, folder_of, is_part
from tinyface_core.tables.output import OutputFolder, OutputState
from tinyface_core.tables.partition import NO_VALUE, PartitionBy
from tinyface_core.tables.plan import Plan
from tinyface_core.tables.redo import UnitWork, committed_tables, least_work
from tinyface_core.tables.removal import finish_removals
from tinyface_core.tables.removed import Removal, Removed
from tinyface_core.tables.validate import validate

STORAGE = Storage()
DAY = PartitionBy.parse(r"day=/(\d{4}-\d\d-\d\d)/")
UNITS = {name: make_unit(5, name) for name in ("2016-05-03", "2016-05-04", "undated")}
FOLDERS = {"2016-05-03": "day=2016-05-03/", "2016-05-04": "day=2016-05-04/", "undated": f"day={NO_VALUE}/"}


class Output:
    """A finished output of three units, each in a folder of its own."""

    def __init__(self, folder: Path) -> None:
        self.path, self.uri = folder / "out", f"file://{folder}/out"
        self.folder = OutputFolder(STORAGE, self.uri)
        self.folder.write_settings({"model": "m"})
        Plan(STORAGE, self.uri).update((s for unit in UNITS.values() for s in unit.sources), lambda _: UNITS.values())
        self.committer = Committer(STORAGE, self.uri, "settings", "model", partition=DAY)
        for unit in UNITS.values():
            self.write(UnitWork.whole(unit), failing={2: CORRUPT})
        (self.path / "run.json").write_text("{}")
        self.folder.write_success()

    def write(self, work: UnitWork, **rows: Any) -> None:
        self.committer.write(work, "sources", make_rows(work.part, **rows))

    def files(self, table: str) -> Counter[str]:
        """How many lie in each folder."""
        root = self.path / table
        return Counter(f"{path.parent.relative_to(root)}/" for path in root.rglob("*.parquet"))

    def problems(self) -> list[tuple[str, str]]:
        return [(violation.file, violation.check) for violation in validate(STORAGE, self.uri).violations]


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(tmp_path)


def test_both_files_of_a_unit_lie_in_the_folder_of_its_value(output: Output) -> None:
    assert output.files("images") == output.files("detections") == Counter(FOLDERS.values())
    records = committed(STORAGE, output.uri)
    for name, unit in UNITS.items():
        record = records[unit.name]
        assert folder_of(output.uri, record.uri) == FOLDERS[name]
        assert folder_of(output.uri, record.detections_uri) == FOLDERS[name]
        images, detections = committed_tables(STORAGE, record)
        assert (len(images), len(detections)) == (5, 8)
    assert output.problems() == []
    assert output.folder.look() is OutputState.OURS


def test_readers_see_the_key_as_a_column_and_read_one_value_alone(output: Output) -> None:
    wanted = [("2016-05-03", 8), ("2016-05-04", 8), (None, 8)]
    sql = (
        f"SELECT images.day::VARCHAR AS d, count(*) FROM '{output.path}/images/**/*.parquet' images "
        f"JOIN '{output.path}/detections/**/*.parquet' USING (image_id, commit) GROUP BY d ORDER BY d"
    )
    with duckdb.connect() as connection:
        assert connection.execute(sql).fetchall() == wanted
    scanned = pl.scan_parquet(f"{output.path}/detections/**/*.parquet", hive_partitioning=True)
    counts = scanned.group_by(pl.col("day").cast(pl.String)).len().sort("day", nulls_last=True).collect()
    assert counts.rows() == wanted
    dataset = ds.dataset(output.path / "images", partitioning="hive")
    shutil.rmtree(output.path / "images" / "day=2016-05-04")  # of no use to who asks for another day
    assert dataset.to_table(filter=ds.field("day") == "2016-05-03").num_rows == 5


def test_what_a_kill_leaves_is_swept_in_its_folder(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    class Killed(BaseException):
        pass

    def dying(storage: Storage, uri: str, data: bytes) -> None:
        if "/images/" in uri:
            raise Killed
        write(storage, uri, data)

    write = Storage.write
    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", dying)
        with pytest.raises(Killed):
            output.write(UnitWork.whole(UNITS["undated"]), faces=4)
    assert output.files("detections")[FOLDERS["undated"]] == 2
    known = {name: record.commit for name, record in committed(STORAGE, output.uri).items()}
    assert output.committer.sweep({unit.name for unit in UNITS.values()}, known) == Swept(detections=1)
    assert output.problems() == []


def test_orphans_without_a_record_are_swept_in_their_folder(output: Output) -> None:
    """The record is looked for where the faces lie, not at the root."""
    unit = UNITS["2016-05-03"]
    output.committer.retire([unit.name, "f" * 32])
    assert unit.name not in committed(STORAGE, output.uri)
    assert output.committer.sweep({unit.name for unit in UNITS.values()}) == Swept(detections=1)
    output.write(UnitWork.whole(unit))
    assert output.problems() == []


def test_a_part_of_a_unit_is_written_where_the_unit_lies(output: Output) -> None:
    unit = UNITS["2016-05-04"]
    record = committed(STORAGE, output.uri)[unit.name]
    work = least_work(unit, record, STORAGE, (), changed=False, retry=True)
    assert len(work.part.sources) == 1
    output.write(work)
    assert committed(STORAGE, output.uri)[unit.name].totals.errors == {}
    output.committer.sweep({unit.name for unit in UNITS.values()})
    assert output.files("detections") == Counter(FOLDERS.values())
    assert output.problems() == []


def test_a_removal_writes_where_the_unit_lies(output: Output) -> None:
    gone = Removed.named(uris=[UNITS["2016-05-03"].sources[0].uri])
    output.folder.write_removal(Removal(gone, done=False, finished=True))
    committer = Committer(STORAGE, output.uri, "", "")  # as jobs/remove.py has it, which asks for no settings
    assert finish_removals(STORAGE, output.folder, committer)
    committer.sweep({unit.name for unit in UNITS.values()})
    assert output.files("images") == output.files("detections") == Counter(FOLDERS.values())
    assert sum(record.totals.pictures for record in committed(STORAGE, output.uri).values()) == 14


def test_files_in_the_wrong_folder_are_found(output: Output) -> None:
    (faces,) = (output.path / "detections" / "day=2016-05-03").iterdir()
    faces.rename(output.path / "detections" / "day=2016-05-04" / faces.name)
    (images,) = (output.path / "images" / "day=2016-05-03").iterdir()
    assert (f"images/day=2016-05-03/{images.name}", NO_DETECTIONS) in output.problems()
    for table in ("images", "detections"):
        for file in (output.path / table / "day=2016-05-04").glob("*.parquet"):
            file.rename(output.path / table / file.name)
    assert MIXED_FOLDERS in {check for _, check in output.problems()}


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        (f"images/part-{'0' * 32}.parquet", True),
        (f"images/day=1/part-{'0' * 32}.parquet", True),
        (f"detections/day=a%2Fb/part-{'0' * 32}-{'1' * 32}.parquet", True),
        (f"images/day/part-{'0' * 32}.parquet", False),
        (f"images/day=1/hour=2/part-{'0' * 32}.parquet", False),
        (f"images/day=1/part-{'0' * 32}.parquet.bak", False),
        (f"detections/day=1/part-{'0' * 32}.parquet", False),
    ],
)
def test_names_of_ours(name: str, wanted: bool) -> None:
    assert is_part(name) is wanted


@pytest.mark.parametrize(
    ("uri", "folder"),
    [
        ("s3://b/2016-05-03/a.jpg", "day=2016-05-03/"),
        ("s3://b/2015-01-01/2016-05-03/a.jpg", "day=2015-01-01/"),
        ("s3://b/none/a.jpg", f"day={NO_VALUE}/"),
    ],
)
def test_the_value_is_the_first_group(uri: str, folder: str) -> None:
    assert DAY.folder(uri) == folder


def test_a_value_is_one_name_of_a_folder_whatever_it_holds() -> None:
    partition = PartitionBy.parse("of=^s3://b/(.*)/[^/]+$")
    assert partition.folder("s3://b/a b/c=d/ü%/x.jpg") == "of=a%20b%2Fc%3Dd%2F%C3%BC%25/"
    assert partition.folder("s3://b//x.jpg") == f"of={NO_VALUE}/"
    long = partition.folder(f"s3://b/{'ü' * 300}/x.jpg")
    assert len(long) <= 255
    assert long.removeprefix("of=").removesuffix("/") == "%C3%BC" * 33


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("day", "give KEY=PATTERN"),
        ("Day=/(x)/", "small letters"),
        ("uri=/(x)/", "a column of the tables already"),
        ("score=/(x)/", "a column of the tables already"),
        ("album=/(x)/", "a column of the tables already"),
        ("day=/(x/", "no regular expression"),
        ("day=/x/", "into brackets"),
    ],
)
def test_what_is_no_key_and_pattern_is_refused(text: str, said: str) -> None:
    with pytest.raises(SettingsError, match=said):
        PartitionBy.parse(text, frozenset({"album"}))


def value_of(source: Source) -> str:
    return source.uri.split("/")[3]


def cut(sources: list[Source], pictures: int) -> list[Unit]:
    return list(cut_units(sources, STORAGE, CandidateFilter(), unit_pictures=pictures, value_of=value_of))


def test_no_unit_has_two_values_and_units_are_full_all_the_same() -> None:
    """Values that alternate in the listing, as cameras above days."""
    sources = [Source(f"s3://b/{number % 3}/{number:03}.jpg", Kind.PICTURE, 10) for number in range(30)]
    units = cut(sources, 4)
    assert all(len(set(map(value_of, unit.sources))) == 1 for unit in units)
    assert Counter(len(unit.sources) for unit in units) == {4: 6, 2: 3}
    assert sorted(source.uri for unit in units for source in unit.sources) == sorted(source.uri for source in sources)


def test_what_waits_for_others_of_its_value_is_bounded() -> None:
    """As many values as pictures: units of one, and no more held than for the largest."""
    taken = 0

    def sources() -> Any:
        nonlocal taken
        for number in range(1000):
            taken += 1
            yield Source(f"s3://b/{number}/x.jpg", Kind.PICTURE, 10)

    units = cut_units(sources(), STORAGE, CandidateFilter(), unit_pictures=2, value_of=value_of)
    next(units)
    assert taken <= 2 * HELD_UNITS + 2
    assert len(list(units)) == 999
