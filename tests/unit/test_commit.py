"""The commit protocol on a real folder: what is done, what is not, and what a sweep removes."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import duckdb
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.row_samples import CORRUPT, MODIFIED, UNREADABLE, make_rows, make_unit
from tinyface_core.archive.record import Kind, Source, Unit
from tinyface_core.errors import ClaimError, OutputError, StorageError
from tinyface_core.storage import Storage
from tinyface_core.tables.commit import ROW_GROUP_ROWS, Committer, Swept
from tinyface_core.tables.footer import committed, detections_uri, images_uri
from tinyface_core.tables.format_version import FORMAT_VERSION
from tinyface_core.tables.redo import UnitWork
from tinyface_core.tables.schema import DETECTIONS_SCHEMA, images_schema
from tinyface_core.tables.unit_tables import UnitTotals, sum_totals, unit_tables


def query(sql: str) -> list[tuple[Any, ...]]:
    with duckdb.connect() as connection:
        return connection.execute(sql).fetchall()


class Killed(BaseException):
    """Stands for SIGKILL: nothing after it runs, nothing catches it."""


class Output:
    """An output in a folder, with the storage that a test may break."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.storage = Storage()
        self.uri = self.storage.canonical(str(folder))
        self.committer = self.new_driver()

    def new_driver(self, **arguments: Any) -> Committer:
        return Committer(self.storage, self.uri, "settings", "model", **arguments)

    def files(self, table: str) -> list[str]:
        return sorted(os.listdir(self.folder / table))

    def committed(self) -> dict[str, Any]:
        return committed(self.storage, self.uri)

    def counts(self) -> tuple[int, int]:
        """(pictures, faces) as any reader may see them at any time: joined USING (image_id, commit)."""
        images = pq.read_table(self.folder / "images", columns=["image_id", "commit"])
        detections = pq.read_table(self.folder / "detections", columns=["image_id", "commit"])
        joined = images.join(detections, ["image_id", "commit"], join_type="inner", use_threads=False)
        return len(images), len(joined)

    def killed_before_write(self, number: int, monkeypatch: pytest.MonkeyPatch, act: Callable[[], object]) -> None:
        """Does `act`, and dies just before its write number `number` (0-based)."""
        write = Storage.write
        left = iter(range(number))

        def dying(storage: Storage, uri: str, data: bytes) -> None:
            if next(left, None) is None:
                raise Killed
            write(storage, uri, data)

        with monkeypatch.context() as patch:
            patch.setattr(Storage, "write", dying)
            with pytest.raises(Killed):
                act()


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(tmp_path / "out")


UNIT = make_unit(8)


def test_a_commit_is_two_files_and_counts_as_done(output: Output) -> None:
    rows = make_rows(UNIT, faces=3, failing={1: CORRUPT, 2: UNREADABLE, 5: CORRUPT}, skipped={".json": 2})
    totals = output.committer.write(UnitWork.whole(UNIT), "sources", rows).unit
    assert totals == UnitTotals(8, 15, {"corrupt": 2, "unreadable": 1}, {".json": 2})
    record = output.committed()[UNIT.name]
    assert output.files("images") == [f"part-{UNIT.name}.parquet"]
    assert output.files("detections") == [f"part-{UNIT.name}-{record.commit}.parquet"]
    assert record.totals == totals
    assert (record.unit, record.model_hash) == (UNIT.name, "model")
    assert record.is_done("settings", "sources")
    assert not record.is_done("settings", "sources of tomorrow")
    assert not record.is_done("other settings", "sources")
    assert output.counts() == (8, 15)


def test_files_have_the_constant_schema_checksums_and_footers(output: Output) -> None:
    carried = (pa.field("year", pa.int16()), pa.field("place", pa.dictionary(pa.int8(), pa.string())))
    values = {"year": 1911, "place": "Berlin"}
    driver = output.new_driver(carried=carried)
    driver.write(UnitWork.whole(UNIT), "sources", make_rows(UNIT, carried=carried, carried_values=values))
    for table, schema in (("images", images_schema(carried)), ("detections", DETECTIONS_SCHEMA)):
        path = output.folder / table / output.files(table)[0]
        file = pq.ParquetFile(path, page_checksum_verification=True)
        assert file.schema_arrow.equals(schema)
        assert file.read().schema.equals(schema)
        metadata = file.metadata.metadata
        expected = {"format_version": str(FORMAT_VERSION), "settings_hash": "settings", "model_hash": "model"}
        for key, value in expected.items():
            assert metadata[b"tinyface." + key.encode()].decode() == value
        assert all(
            file.metadata.row_group(0).column(column).compression == "ZSTD" for column in range(len(file.schema))
        )
        assert file.metadata.num_row_groups == 1
        spoilt = bytearray(path.read_bytes())
        spoilt[file.metadata.row_group(0).column(0).data_page_offset + 60] ^= 1
        with pytest.raises(OSError, match=r"(?i)crc|corrupt|decompress"):
            pq.ParquetFile(pa.BufferReader(bytes(spoilt)), page_checksum_verification=True).read()
    images = pq.read_table(output.folder / "images")
    assert images["year"].to_pylist() == [1911] * 8
    assert images["place"].to_pylist() == ["Berlin"] * 8


def test_rows_are_sorted_and_a_pictures_faces_are_together_best_first(output: Output) -> None:
    """By (uri, member) in byte order, whatever the order inside the archive; a null member first."""
    members = ["b.jpg", "Z.jpg", "ä.jpg", "a/1.jpg", None, "b.jpg"]
    unit = Unit((Source("file:///x.tar", Kind.TAR),), 0, None)
    rows = make_rows(make_unit(6), faces=4)
    worst_first = rows["faces"].to_pylist()
    for faces in worst_first[:6]:
        faces.reverse()
    for name, values in {
        "unit": [unit.name] * 7,
        "uri": ["file:///x.tar"] * 6 + [None],
        "member": [*members, None],
        "faces": worst_first,
    }.items():
        field = rows.schema.field(name)
        rows = rows.set_column(rows.schema.get_field_index(name), field, pa.array(values, field.type))
    output.committer.write(UnitWork.whole(unit), "sources", rows)
    images = pq.read_table(output.folder / "images")
    assert images["member"].to_pylist() == [None, "Z.jpg", "a/1.jpg", "b.jpg", "b.jpg", "ä.jpg"]
    expected = rows["image_id"].take(pa.array([4, 1, 3, 0, 5, 2])).to_pylist()
    assert images["image_id"].to_pylist() == expected
    detections = pq.read_table(output.folder / "detections")
    assert detections["image_id"].to_pylist() == [each for each in expected for _ in range(4)]
    score_KN = detections["score"].to_numpy().reshape(6, 4)
    assert (np.diff(score_KN, axis=1) <= 0).all()
    first = rows["faces"][4].as_py()
    assert detections.slice(0, 4)["x1"].to_pylist() == [face["x1"] for face in reversed(first)]


def test_a_unit_without_pictures_commits_both_files(output: Output) -> None:
    unit = Unit((Source("file:///empty.tar", Kind.TAR),), 0, None)
    rows = make_rows(make_unit(0, "none"), skipped={".txt": 9})
    rows = rows.set_column(0, rows.schema.field("unit"), pa.array([unit.name]))
    totals = output.committer.write(UnitWork.whole(unit), "sources", rows).unit
    assert totals == UnitTotals(0, 0, {}, {".txt": 9})
    assert output.committed()[unit.name].totals == totals
    assert output.counts() == (0, 0)


def test_rows_of_another_unit_or_not_all_rows_are_refused(output: Output) -> None:
    rows = make_rows(UNIT)
    for wrong, message in (
        (rows.slice(1), "7 rows"),
        (rows.slice(0, 8), "end markers"),
        (rows.take(pa.array([0, 0, 2, 3, 4, 5, 6, 7, 8])), "indexes"),
        (make_rows(make_unit(8, "other")), "other units"),
    ):
        with pytest.raises(ValueError, match=message):
            output.committer.write(UnitWork.whole(UNIT), "sources", wrong)
    assert output.files("images") == output.files("detections") == []


def test_killed_between_the_two_files_is_not_done_and_is_swept(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    rows = make_rows(UNIT)
    output.killed_before_write(1, monkeypatch, lambda: output.committer.write(UnitWork.whole(UNIT), "sources", rows))
    assert (len(output.files("images")), len(output.files("detections"))) == (0, 1)
    assert output.committed() == {}
    assert output.new_driver().sweep({UNIT.name}) == Swept(detections=1)
    assert output.files("detections") == []


def test_same_rows_again_keep_the_orphan_other_rows_replace_it(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """After a kill between the files: a redo with equal rows takes the file up, one with others leaves it behind;
    either way the join is exact, at once and after the sweep."""
    rows, others = make_rows(UNIT, faces=2), make_rows(UNIT, faces=5, seed=9)
    output.killed_before_write(1, monkeypatch, lambda: output.committer.write(UnitWork.whole(UNIT), "sources", rows))
    [orphan] = output.files("detections")
    before = os.stat(output.folder / "detections" / orphan).st_mtime_ns
    driver = output.new_driver()
    driver.write(UnitWork.whole(UNIT), "sources", rows)
    assert output.files("detections") == [orphan]
    assert os.stat(output.folder / "detections" / orphan).st_mtime_ns == before
    assert output.counts() == (8, 16)

    output.killed_before_write(1, monkeypatch, lambda: driver.write(UnitWork.whole(UNIT), "sources", others))
    assert output.counts() == (8, 16)  # the old record still stands
    driver = output.new_driver()
    driver.write(UnitWork.whole(UNIT), "sources", others)
    assert len(output.files("detections")) == 2
    assert output.counts() == (8, 40)
    assert driver.sweep({UNIT.name}) == Swept(detections=1)
    assert len(output.files("detections")) == 1
    assert output.counts() == (8, 40)


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    deaths=st.lists(
        st.tuples(st.integers(0, 3), st.integers(1, 3), st.integers(0, 2), st.booleans()), min_size=1, max_size=10
    )
)
def test_any_number_of_kills_leaves_exact_counts(
    deaths: list[tuple[int, int, int, bool]], tmp_path_factory: pytest.TempPathFactory
) -> None:
    """Drivers that die before any write of any unit, each with rows of its own; then one that lives."""
    output = Output(tmp_path_factory.mktemp("kills") / "out")
    units = [make_unit(3, f"u{i}") for i in range(4)]
    names = {unit.name for unit in units}
    faces_of = dict.fromkeys(names, 0)
    with pytest.MonkeyPatch.context() as patch:
        for unit_index, faces, writes, sweep in deaths:
            driver, unit = output.new_driver(), units[unit_index]
            if sweep:
                driver.sweep(names, {name: record.commit for name, record in output.committed().items()})
            rows = make_rows(unit, faces=faces)
            before = set(output.files("detections"))
            commit = unit_tables(unit.name, rows).commit
            needed = 1 if f"part-{unit.name}-{commit}.parquet" in before else 2
            if writes < needed:
                output.killed_before_write(
                    writes, patch, lambda d=driver, u=unit, r=rows: d.write(UnitWork.whole(u), "sources", r)
                )
            else:
                driver.write(UnitWork.whole(unit), "sources", rows)
                faces_of[unit.name] = faces
            done = output.committed()
            if done:
                assert output.counts() == (3 * len(done), 3 * sum(faces_of[name] for name in done))
    driver = output.new_driver()
    for unit in units:
        if unit.name not in output.committed():
            driver.write(UnitWork.whole(unit), "sources", make_rows(unit, faces=1))
            faces_of[unit.name] = 1
    driver.sweep(names)
    assert len(output.files("detections")) == len(output.files("images")) == 4
    plain = query(
        f"SELECT count(*), count(DISTINCT i.image_id) FROM '{output.folder}/images/*.parquet' i "
        f"JOIN '{output.folder}/detections/*.parquet' d USING (image_id)"
    )[0]
    assert plain == (3 * sum(faces_of.values()), 12)


def test_a_record_whose_detections_are_gone_is_not_there(output: Output) -> None:
    output.committer.write(UnitWork.whole(UNIT), "sources", make_rows(UNIT))
    os.unlink(output.folder / "detections" / output.files("detections")[0])
    assert output.committed() == {}


def test_only_our_files_are_records(output: Output) -> None:
    """Foreign, renamed, spoilt and empty files in images/ count for nothing, and no sweep touches foreign names."""
    output.committer.write(UnitWork.whole(UNIT), "sources", make_rows(UNIT))
    mine = output.folder / "images" / output.files("images")[0]
    shutil.copy(mine, output.folder / "images" / f"part-{'0' * 32}.parquet")  # another unit's content
    pq.write_table(pa.table({"a": [1]}), output.folder / "images" / f"part-{'1' * 32}.parquet")
    (output.folder / "images" / f"part-{'2' * 32}.parquet").write_bytes(b"")
    (output.folder / "images" / f"part-{'3' * 32}.parquet").write_bytes(b"PAR1" + b"\xff" * 40 + b"PAR1")
    (output.folder / "images" / f"part-{'4' * 32}.parquet").write_bytes(mine.read_bytes()[-3000:-8] + b"\x10\0\0\0PAR1")
    (output.folder / "images" / "other.parquet").write_bytes(mine.read_bytes())
    (output.folder / "detections" / "notes.txt").write_text("mine")
    assert output.committed().keys() == {UNIT.name}
    output.committer.sweep({UNIT.name})
    assert output.files("images") == sorted([mine.name, "other.parquet"])
    assert "notes.txt" in output.files("detections")


def test_a_record_under_another_units_name_is_not_one(output: Output) -> None:
    output.committer.write(UnitWork.whole(UNIT), "sources", make_rows(UNIT))
    [name] = output.files("images")
    os.rename(output.folder / "images" / name, output.folder / "images" / f"part-{'0' * 32}.parquet")
    assert output.committed() == {}


def test_footer_longer_than_the_first_read(output: Output) -> None:
    """Many carried columns make a footer that does not fit into the tail that is read first."""
    carried = [pa.field(f"carried_{i:03d}_{'x' * 60}", pa.string()) for i in range(150)]
    rows = make_rows(UNIT, carried=tuple(carried), carried_values={field.name: "v" * 50 for field in carried})
    output.new_driver(carried=carried).write(UnitWork.whole(UNIT), "sources", rows)
    data = (output.folder / "images" / output.files("images")[0]).read_bytes()
    assert int.from_bytes(data[-8:-4], "little") > 16 << 10
    assert output.committed()[UNIT.name].totals.pictures == 8


def test_units_that_are_not_planned_go_with_their_faces(output: Output) -> None:
    kept, gone = make_unit(3, "kept"), make_unit(3, "gone")
    for unit in (kept, gone):
        output.committer.write(UnitWork.whole(unit), "sources", make_rows(unit, faces=2))
    assert output.committer.sweep({kept.name}) == Swept(images=1, detections=1)
    assert output.committed().keys() == {kept.name}
    assert output.counts() == (3, 6)


def test_an_output_is_never_cleaned_by_an_empty_plan(output: Output) -> None:
    output.committer.write(UnitWork.whole(UNIT), "sources", make_rows(UNIT))
    with pytest.raises(OutputError, match="the plan names none"):
        output.committer.sweep(set())
    assert output.counts() == (8, 16)


def test_retired_units_are_not_committed_and_their_faces_are_swept(output: Output) -> None:
    output.committer.write(UnitWork.whole(UNIT), "sources", make_rows(UNIT))
    output.committer.retire([UNIT.name, "f" * 32])
    assert output.committed() == {}
    assert output.committer.sweep({UNIT.name}) == Swept(detections=1)


def test_what_is_known_saves_reading_but_never_decides(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    other = make_unit(3, "other")
    for unit in (UNIT, other):
        output.committer.write(UnitWork.whole(unit), "sources", make_rows(unit))
    known, writer = {name: record.commit for name, record in output.committed().items()}, output.committer
    output.committer = output.new_driver()
    opened = []
    real = Storage.open
    monkeypatch.setattr(Storage, "open", lambda self, uri, version=None: opened.append(uri) or real(self, uri, version))
    assert output.committer.sweep({UNIT.name, other.name}, known) == Swept()
    assert writer.sweep({UNIT.name, other.name}) == Swept()  # it knows what it wrote
    assert opened == []
    output.committer.write(UnitWork.whole(UNIT), "sources", make_rows(UNIT, seed=5))  # `known` is now out of date
    assert output.committer.sweep({UNIT.name, other.name}, known) == Swept(detections=1)
    assert opened == [images_uri(output.uri, UNIT.name)]
    assert output.counts() == (11, 22)


def test_a_half_written_file_of_a_dead_process_is_swept(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    """The temporary file that local storage writes, as a SIGKILL would leave it."""
    left = []

    def rename(source: str, target: str) -> None:
        shutil.copy(source, source + ".copy")
        left.append(source)
        os.rename(source, target)

    with monkeypatch.context() as patch:
        patch.setattr(os, "replace", rename)
        output.committer.write(UnitWork.whole(UNIT), "sources", make_rows(UNIT))
    for path in left:
        os.rename(path + ".copy", path)
    assert output.counts() == (8, 16)
    assert output.committer.sweep({UNIT.name}) == Swept(temporaries=2)
    assert len(output.files("images")) == len(output.files("detections")) == 1


@pytest.mark.slow
def test_sweeping_while_writing_loses_nothing(output: Output) -> None:
    """Writers redo units over and over, with rows that come back, while sweeps run: every record keeps its faces."""
    units = [make_unit(2, f"u{i}") for i in range(3)]
    names = {unit.name for unit in units}
    rows = {unit.name: [make_rows(unit, faces=faces) for faces in (1, 2)] for unit in units}
    stop = threading.Event()
    sweeps = []

    def keep_sweeping() -> None:
        while not stop.is_set():
            sweeps.append(output.committer.sweep(names))

    sweeper = threading.Thread(target=keep_sweeping)
    for unit in units:
        output.committer.write(UnitWork.whole(unit), "sources", rows[unit.name][0])
    sweeper.start()
    try:
        for turn in range(25):
            for unit in units:
                output.committer.write(UnitWork.whole(unit), "sources", rows[unit.name][turn % 2])
                assert unit.name in output.committed()
    finally:
        stop.set()
        sweeper.join()
    output.committer.sweep(names)
    assert output.committed().keys() == names
    assert output.counts() == (6, 6)
    assert sum(sweep.detections for sweep in sweeps) > 0


def test_no_write_or_delete_without_the_claim(output: Output) -> None:
    """`check` is asked before each of them, also between the two files of one commit."""
    answers = iter([True, False])

    def check() -> None:
        if not next(answers, False):
            raise ClaimError("ours was taken")

    driver = output.new_driver(check=check)
    with pytest.raises(ClaimError):
        driver.write(UnitWork.whole(UNIT), "sources", make_rows(UNIT))
    assert (len(output.files("images")), len(output.files("detections"))) == (0, 1)
    with pytest.raises(ClaimError):
        driver.sweep({UNIT.name})
    assert len(output.files("detections")) == 1
    output.committer.write(UnitWork.whole(UNIT), "sources", make_rows(UNIT))
    with pytest.raises(ClaimError):
        driver.retire([UNIT.name])
    assert len(output.files("images")) == 1


def test_a_store_that_fails_leaves_the_old_commit(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    output.committer.write(UnitWork.whole(UNIT), "sources", make_rows(UNIT))

    def full(storage: Storage, uri: str, data: bytes) -> None:
        raise StorageError("disk full")

    with monkeypatch.context() as patch:
        patch.setattr(Storage, "write", full)
        with pytest.raises(StorageError):
            output.committer.write(UnitWork.whole(UNIT), "sources", make_rows(UNIT, faces=5))
    assert output.counts() == (8, 16)
    output.committer.write(UnitWork.whole(UNIT), "sources", make_rows(UNIT, faces=5))  # the unit is free again
    assert output.counts() == (8, 40)


def test_many_threads_commit_at_a_time(output: Output) -> None:
    units = [make_unit(5, f"u{i}") for i in range(24)]
    threads = [
        threading.Thread(
            target=output.committer.write, args=(UnitWork.whole(unit), "sources", make_rows(unit, faces=2))
        )
        for unit in units
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert output.committed().keys() == {unit.name for unit in units}
    assert output.counts() == (120, 240)
    assert sum_totals(record.totals for record in output.committed().values()) == UnitTotals(120, 240)


@settings(max_examples=40, deadline=None)
@given(seed=st.integers(0, 2**16), cuts=st.lists(st.integers(0, 9), max_size=4))
def test_the_commit_hash_is_of_values_not_of_layout(seed: int, cuts: list[int]) -> None:
    """Rows in any order, in any chunks, cut out of larger tables: one hash. Any value changed: another."""
    rows = make_rows(UNIT, faces=3, failing={2: CORRUPT, 4: UNREADABLE})
    order = np.random.default_rng(seed).permutation(len(rows))
    around = pa.concat_tables([make_rows(make_unit(2, "z")), rows.take(pa.array(order)), rows]).combine_chunks()
    bounds = [0, *sorted(cuts), len(rows)]
    chunks = [around.slice(3 + start, stop - start) for start, stop in pairwise(bounds)]
    assert unit_tables(UNIT.name, pa.concat_tables(chunks)).commit == unit_tables(UNIT.name, rows).commit


@pytest.mark.parametrize(
    ("column", "value"),
    [
        ("uri", "file:///archive/a/00000.jpeg"),
        ("width", 54),
        ("zooms", [0.5, 1.0]),
        ("taken_at", MODIFIED.replace(tzinfo=None)),
        ("sha256", None),
        ("min_face_px", 6.5),
        ("status", "error"),
    ],
)
def test_any_changed_value_changes_the_commit(column: str, value: object) -> None:
    rows = make_rows(UNIT)
    values = rows[column].to_pylist()
    values[0] = value
    field = rows.schema.field(column)
    changed = rows.set_column(rows.schema.get_field_index(column), field, pa.array(values, field.type))
    assert unit_tables(UNIT.name, changed).commit != unit_tables(UNIT.name, rows).commit


def test_a_null_is_not_an_empty_string_and_a_face_belongs_to_its_picture() -> None:
    rows = make_rows(UNIT, faces=1)
    field = rows.schema.field("member")
    index = rows.schema.get_field_index("member")
    empty = rows.set_column(index, field, pa.array([""] * 8 + [None], field.type))
    assert unit_tables(UNIT.name, empty).commit != unit_tables(UNIT.name, rows).commit
    faces = rows["faces"].to_pylist()
    faces[0], faces[1] = [], faces[0] + faces[1]
    field, index = rows.schema.field("faces"), rows.schema.get_field_index("faces")
    moved = rows.set_column(index, field, pa.array(faces, field.type))
    assert unit_tables(UNIT.name, moved).commit != unit_tables(UNIT.name, rows).commit


def test_large_units_have_row_groups_for_analytics(output: Output) -> None:
    size = ROW_GROUP_ROWS + 10
    rows = make_rows(UNIT, faces=0)
    many = rows.take(pa.array(np.zeros(size, np.int64)))
    many = many.set_column(2, rows.schema.field("index"), pa.array(np.arange(size), pa.int32()))
    end = rows.slice(8).set_column(3, rows.schema.field("count"), pa.array([size], pa.int32()))
    output.committer.write(UnitWork.whole(UNIT), "sources", pa.concat_tables([many, end]))
    metadata = pq.read_metadata(output.folder / "images" / output.files("images")[0])
    assert [metadata.row_group(i).num_rows for i in range(metadata.num_row_groups)] == [ROW_GROUP_ROWS, 10]


class TestReaders:
    """Plain globs in the engines that users have."""

    @pytest.fixture(params=["with faces", "no faces at all"])
    def faces(self, request: pytest.FixtureRequest, output: Output) -> int:
        faces = 3 if request.param == "with faces" else 0
        for i in range(3):
            unit = make_unit(4, f"u{i}")
            failing = {i: replace(CORRUPT, message=f"message {i}")} if i else {}
            output.committer.write(
                UnitWork.whole(unit), "sources", make_rows(unit, faces=faces if i else 0, failing=failing)
            )
        return 6 * faces

    def test_duckdb(self, output: Output, faces: int) -> None:
        images, detections = f"'{output.folder}/images/**/*.parquet'", f"'{output.folder}/detections/**/*.parquet'"
        assert query(f"SELECT count(*) FROM {images}")[0] == (12,)
        assert query(f"SELECT status, count(*) FROM {images} GROUP BY 1 ORDER BY 1") == [
            ("error", 2),
            ("ok", 10),
        ]
        assert query(f"SELECT error_class, format FROM {images} WHERE status = 'error'") == [("corrupt", "jpeg")] * 2
        joined = query(
            f"SELECT count(*), count(*) FILTER (ellipse_source = 'inscribed') FROM {images} "
            f"JOIN {detections} USING (image_id, commit)"
        )[0]
        assert joined == (faces, faces)
        assert query(f"SELECT sum(num_faces) FROM {images}")[0] == (faces,)
        assert query(f"SELECT DISTINCT zooms FROM {images} WHERE status = 'ok'") == [([0.5, 1, 2],)]
        footers = query(
            f"SELECT count(*) FROM parquet_kv_metadata({images}) WHERE decode(key) = 'tinyface.settings_hash'"
        )[0]
        assert footers == (3,)

    def test_polars(self, output: Output, faces: int) -> None:
        images = pl.scan_parquet(f"{output.folder}/images/**/*.parquet")
        detections = pl.scan_parquet(f"{output.folder}/detections/**/*.parquet")
        joined = images.join(detections, on=["image_id", "commit"]).collect()
        assert joined.height == faces
        by_status = dict(images.group_by("status").len().collect().rows())
        assert by_status == {"ok": 10, "error": 2}
        broken = images.filter(pl.col("error_class") == "corrupt").collect()
        assert sorted(broken["error_message"].to_list()) == ["message 1", "message 2"]
        assert detections.select(pl.col("ellipse_source").cast(pl.String).unique()).collect().height == bool(faces)

    def test_pyarrow(self, output: Output, faces: int) -> None:
        assert pq.read_table(output.folder / "images").num_rows == 12
        assert pq.read_table(output.folder / "detections").num_rows == faces
        assert pc.sum(pq.read_table(output.folder / "images")["num_faces"]).as_py() == faces


def test_names_of_files() -> None:
    assert images_uri("s3://b/o/", "u") == "s3://b/o/images/part-u.parquet"
    assert detections_uri("s3://b/o", "u", "c") == "s3://b/o/detections/part-u-c.parquet"
