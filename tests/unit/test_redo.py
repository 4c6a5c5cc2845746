"""What of a committed unit is worked again, and that carried rows and new ones make the tables of a whole unit."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.archives import parquet_bytes, read, save, some_bytes, tar_bytes, zip_bytes
from tests.unit.row_samples import CORRUPT, UNREADABLE, make_rows, make_unit
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.read import read_unit
from tinyface_core.archive.record import Kind, Part, Source, Unit, UnitEnd, image_id_of
from tinyface_core.errors import ErrorClass, PictureError, Stage, StopRun
from tinyface_core.storage import Storage
from tinyface_core.tables.check_files import WRONG_FAILED
from tinyface_core.tables.commit import Committer
from tinyface_core.tables.footer import CommitRecord, Footer, committed
from tinyface_core.tables.redo import UnitWork, least_work
from tinyface_core.tables.removed import Removed
from tinyface_core.tables.rows import RowBuilder, records_table
from tinyface_core.tables.unit_tables import unit_tables
from tinyface_core.tables.validate import validate

STORAGE = Storage()
UNIT = make_unit(6)


class Output:
    """An output with one committed unit."""

    def __init__(
        self,
        folder: Path,
        unit: Unit,
        rows: pa.Table,
        carried: tuple[pa.Field, ...] = (),
        removed: Removed | None = None,
    ) -> None:
        self.uri, self.carried = f"file://{folder}", carried
        self.committer = Committer(STORAGE, self.uri, "settings", "model", carried, removed=removed)
        self.committer.write(UnitWork.whole(unit), "sources", rows)

    @property
    def record(self) -> CommitRecord:
        (record,) = committed(STORAGE, self.uri).values()
        return record

    def least_work(self, unit: Unit, *, changed: bool = True, retry: bool = False) -> UnitWork:
        return least_work(unit, self.record, STORAGE, self.carried, changed=changed, retry=retry)

    def table(self, name: str) -> pa.Table:
        """Of the one unit."""
        path = self.record.uri.removeprefix("file://")
        if name == "detections":
            path = path.replace("/images/", "/detections/").replace(".parquet", f"-{self.record.commit}.parquet")
        return pq.ParquetFile(path).read()

    def footer(self) -> Footer:
        metadata = pq.read_metadata(self.record.uri.removeprefix("file://")).metadata
        footer = Footer.from_metadata(metadata)
        assert footer is not None
        return footer


def changed_at(unit: Unit, places: set[int], **values: Any) -> Unit:
    sources = [replace(source, **values) if place in places else source for place, source in enumerate(unit.sources)]
    return Unit(tuple(sources))


def ids(unit: Unit, places: set[int]) -> frozenset[str]:
    return frozenset(image_id_of(unit.sources[place].uri) for place in places)


def test_of_loose_pictures_those_of_another_version_are_worked(tmp_path: Path) -> None:
    output = Output(tmp_path, UNIT, make_rows(UNIT))
    now = changed_at(UNIT, {1, 4}, version="v2")
    work = output.least_work(now)
    assert work.unit == now
    assert work.part == Unit((now.sources[1], now.sources[4]))
    assert (work.stands, work.replaced) == (output.record, ids(UNIT, {1, 4}))


def test_of_a_picture_that_is_gone_the_row_goes_without_work(tmp_path: Path) -> None:
    """The part that is worked gives no record, only its end; what changed besides is worked."""
    output = Output(tmp_path, UNIT, make_rows(UNIT))
    now = changed_at(UNIT, {1, 4}, kind=Kind.GONE, version=None)
    work = output.least_work(now)
    assert (work.part.present, work.replaced) == ((), ids(UNIT, {1, 4}))
    assert [type(value) for value in read_unit(work.part, STORAGE, CandidateFilter())] == [UnitEnd]
    written = output.committer.write(work, "sources 2", make_rows(work.part))
    assert (written.worked.pictures, written.unit.pictures) == (0, 4)
    left = set(output.table("images")["image_id"].to_pylist())
    assert left == ids(UNIT, {0, 2, 3, 5}) >= set(output.table("detections")["image_id"].to_pylist())
    both = changed_at(now, {2}, version="v2")
    assert output.least_work(both).part == Unit((both.sources[2],))
    back = output.least_work(changed_at(now, {4}, kind=Kind.PICTURE, version="v1"))
    assert (back.part.present, back.replaced) == ((UNIT.sources[4],), frozenset())
    output.committer.write(back, "sources 3", make_rows(back.part))
    assert set(output.table("images")["image_id"].to_pylist()) == ids(UNIT, {0, 2, 3, 4, 5})


def test_the_last_rows_of_a_unit_go_without_work_too(tmp_path: Path) -> None:
    """What is left of it was taken out on request, and is not read again for that."""
    pair = make_unit(2)
    removed = Removed.named(uris=[pair.sources[0].uri])
    output = Output(tmp_path, pair, make_rows(pair), removed=removed)
    now = changed_at(pair, {1}, kind=Kind.GONE, version=None)
    work = least_work(now, output.record, STORAGE, (), changed=True, retry=False, removed=removed)
    assert (work.part.present, work.replaced) == ((), ids(pair, {1}))
    assert output.committer.write(work, "sources 2", make_rows(work.part)).unit.pictures == 0


def test_a_change_of_a_picture_that_was_taken_out_costs_no_work(tmp_path: Path) -> None:
    removed = Removed.named(uris=[UNIT.sources[1].uri])
    output = Output(tmp_path, UNIT, make_rows(UNIT), removed=removed)
    now = changed_at(UNIT, {1}, version="v2")
    work = least_work(now, output.record, STORAGE, (), changed=True, retry=False, removed=removed)
    assert (work.part.present, work.replaced, work.stands) == ((), frozenset(), output.record)
    assert output.committer.write(work, "sources 2", make_rows(work.part)).unit.pictures == 5


def test_carried_and_new_rows_make_the_tables_of_a_whole_unit(tmp_path: Path) -> None:
    """To the bit: the same commit hash as a unit that was worked whole; also where faces come or go."""
    now = changed_at(UNIT, {1, 4}, version="v2")
    failing = {2: CORRUPT, 5: UNREADABLE}
    output = Output(tmp_path, UNIT, make_rows(UNIT, failing=failing | {1: CORRUPT}))
    work = output.least_work(now)
    fresh = make_rows(work.part, faces=3, failing={1: CORRUPT}, seed=7)
    written = output.committer.write(work, "sources 2", fresh)
    assert (written.worked.pictures, written.worked.faces, written.worked.errors) == (2, 3, {"corrupt": 1})
    assert (written.unit.pictures, written.unit.faces) == (6, 2 * 2 + 3)
    assert written.unit.errors == {"corrupt": 2, "unreadable": 1}
    assert output.record.totals == written.unit

    standing = make_rows(now, failing=failing | {4: CORRUPT})
    new = {1: renumbered(fresh, 0, 1, now), 4: renumbered(fresh, 1, 4, now)}
    rows = [new.get(row, standing.slice(row, 1)) for row in range(len(standing))]
    whole = unit_tables(now.name, pa.concat_tables(rows))
    assert output.record.commit == whole.commit
    assert output.table("images").to_pylist() == whole.images.to_pylist()
    assert output.table("detections").to_pylist() == whole.detections.to_pylist()


def renumbered(rows: pa.Table, row: int, index: int, unit: Unit) -> pa.Table:
    """One row as it would stand in the whole unit."""
    one = rows.slice(row, 1).to_pylist()[0]
    return pa.Table.from_pylist([one | {"index": index, "unit": unit.name}], schema=rows.schema)


def test_a_listing_without_versions_is_judged_by_size(tmp_path: Path) -> None:
    """As over HTTP without ETags: rows then hold the size of what was read."""
    unit = Unit(tuple(replace(s, version=None, size_bytes=1000 + i) for i, s in enumerate(UNIT.sources)))
    rows = make_rows(unit)
    none = pa.nulls(len(rows), pa.string())
    rows = rows.set_column(rows.schema.get_field_index("source_version"), rows.schema.field("source_version"), none)
    output = Output(tmp_path, unit, rows)
    assert output.least_work(changed_at(unit, {3}, size_bytes=7)).replaced == ids(unit, {3})


def test_another_carried_value_is_worked(tmp_path: Path) -> None:
    carried = (pa.field("who", pa.string()), pa.field("count", pa.int64()))
    unit = changed_at(UNIT, set(range(6)), carried={"who": "Ann", "count": 1})
    rows = make_rows(unit, carried=carried, carried_values={"who": "Ann", "count": 1})
    output = Output(tmp_path, unit, rows, carried)
    assert output.least_work(changed_at(unit, {2}, carried={"who": "Ann"})).replaced == ids(unit, {2})
    assert output.least_work(changed_at(unit, {0}, carried={"who": "Bob", "count": 1})).replaced == ids(unit, {0})


def test_retry_takes_the_error_rows_and_what_changed(tmp_path: Path) -> None:
    output = Output(tmp_path, UNIT, make_rows(UNIT, failing={0: CORRUPT, 3: UNREADABLE}))
    assert output.least_work(UNIT, changed=False, retry=True).replaced == ids(UNIT, {0, 3})
    now = changed_at(UNIT, {1}, version="v2")
    assert output.least_work(now, retry=True).replaced == ids(UNIT, {0, 1, 3})
    assert output.least_work(now).replaced == ids(UNIT, {1})


def test_all_is_worked_where_nothing_stands_or_the_tables_do_not_tell(tmp_path: Path) -> None:
    output = Output(tmp_path, UNIT, make_rows(UNIT))
    everything = changed_at(UNIT, set(range(6)), version="v2")
    assert output.least_work(everything) == UnitWork.whole(everything)
    assert output.least_work(UNIT) == UnitWork.whole(UNIT)  # who says it changed knows more than the rows
    record = output.record
    Path(record.uri.removeprefix("file://")).write_bytes(b"no Parquet")
    now = changed_at(UNIT, {1}, version="v2")
    assert least_work(now, record, STORAGE, (), changed=True, retry=False) == UnitWork.whole(now)
    Path(record.uri.removeprefix("file://")).unlink()
    assert least_work(now, record, STORAGE, (), changed=True, retry=False) == UnitWork.whole(now)


def test_rows_that_cannot_be_carried_over_are_named_and_nothing_is_written(tmp_path: Path) -> None:
    output = Output(tmp_path, UNIT, make_rows(UNIT))
    work = output.least_work(changed_at(UNIT, {1}, version="v2"))
    before = Path(output.record.uri.removeprefix("file://")).read_bytes()
    (detections,) = (tmp_path / "detections").iterdir()
    detections.write_bytes(b"PAR1")
    with pytest.raises(StopRun, match=r"Delete this file: detect_archive\.py then works its pictures anew"):
        output.committer.write(work, "sources 2", make_rows(work.part))
    assert Path(output.record.uri.removeprefix("file://")).read_bytes() == before


def test_rows_that_are_not_those_that_were_committed_are_not_carried_over(tmp_path: Path) -> None:
    """A bit that a disk turned would be committed anew as good."""
    output = Output(tmp_path, UNIT, make_rows(UNIT))
    work = output.least_work(changed_at(UNIT, {1}, version="v2"))
    (path,) = (tmp_path / "detections").iterdir()
    table, metadata = pq.read_table(path), pq.read_metadata(path).metadata
    scores = pa.array([0.125, *table["score"].to_pylist()[1:]], pa.float32())
    table = table.set_column(table.schema.get_field_index("score"), table.schema.field("score"), scores)
    pq.write_table(table.replace_schema_metadata(metadata), path)
    with pytest.raises(StopRun, match="cannot be carried over"):
        output.committer.write(work, "sources 2", make_rows(work.part))


def test_a_value_that_is_no_number_is_equal_to_itself(tmp_path: Path) -> None:
    carried = (pa.field("depth", pa.float64()),)
    unit = changed_at(UNIT, set(range(6)), carried={"depth": float("nan")})
    output = Output(tmp_path, unit, make_rows(unit, carried=carried, carried_values={"depth": float("nan")}), carried)
    assert output.least_work(changed_at(unit, {2}, version="v2")).replaced == ids(unit, {2})


MEMBERS = [(f"{number}.jpg", some_bytes(number)) for number in range(5)]
FORMS = {
    "a.tar": tar_bytes(MEMBERS),
    "a.tar.gz": tar_bytes(MEMBERS, "w:gz"),
    "a.zip": zip_bytes(MEMBERS),
    "a.parquet": parquet_bytes(MEMBERS),
}


@pytest.mark.parametrize("name", FORMS)
def test_a_part_of_an_archive_is_numbered_by_itself(tmp_path: Path, name: str) -> None:
    source = save(tmp_path / name, FORMS[name])
    whole, _ = read(Unit((source,), 0))
    part, end = read(Unit((source,), 0, part=Part(frozenset({1, 2}), onward=4)))
    assert [record.index for record in part] == [0, 1, 2]
    assert [record.image_id for record in part] == [whole[place].image_id for place in (1, 2, 4)]
    assert [record.data for record in part] == [whole[place].data for place in (1, 2, 4)]
    assert end.count == 3
    only, end = read(Unit((source,), 0, part=Part(frozenset({1, 4}))), only={1})
    assert [(record.index, record.image_id) for record in only] == [(1, whole[4].image_id)]
    assert end.count == 2


def test_a_part_has_a_name_of_its_own() -> None:
    unit = Unit((Source("s3://b/a.tar", Kind.TAR),), 0)
    names = {replace(unit, part=part).name for part in (None, Part(), Part(frozenset({1})), Part(frozenset({1}), 3))}
    assert len(names) == 4
    assert Part(frozenset({4, 1, 9}), 6).first(5) == [1, 4, 6, 7, 8]
    assert Part(frozenset({4, 1})).first(5) == [1, 4]


def archive_rows(unit: Unit, failing: set[int]) -> pa.Table:
    """Rows of an archive's unit as reading gives them; those at these indexes of the part fail in decoding."""
    records, end = read(unit)
    builder = RowBuilder(records_table(unit.name, [*records, end]))
    for row, _ in builder.encoded():
        # One error for all: what matters here is which rows are replaced, not by what.
        builder.add(row, CORRUPT if row in failing else PictureError(Stage.DECODE, ErrorClass.UNSUPPORTED, "no"))
    return builder.table()


@pytest.mark.parametrize("name", FORMS)
def test_an_archives_error_rows_are_known_by_the_footer(tmp_path: Path, name: str) -> None:
    """Rows of the part keep their place in the whole: a second retry reads the same records."""
    unit = Unit((save(tmp_path / name, FORMS[name]),), 0)
    rows = archive_rows(unit, set())
    status = pa.array(["ok", "error", "ok", "error", "ok", None])
    cleared = ["error_stage", "error_class", "error_message"]
    for column, values in {"status": status, **{key: masked(rows, key, status) for key in cleared}}.items():
        rows = rows.set_column(rows.schema.get_field_index(column), rows.schema.field(column), values)
    output = Output(tmp_path / "out", unit, rows)
    assert output.footer().failed == Part(frozenset({1, 3}))
    work = output.least_work(unit, changed=False, retry=True)
    assert work.part == replace(unit, part=Part(frozenset({1, 3})))
    assert output.least_work(unit, changed=True, retry=True) == UnitWork.whole(unit)

    fresh = archive_rows(work.part, {1})
    output.committer.write(work, "sources", fresh)
    assert output.table("images")["status"].to_pylist() == ["ok", "error", "ok", "error", "ok"]
    assert output.table("images")["error_class"].to_pylist() == [None, "unsupported", None, "corrupt", None]
    assert output.footer().failed == Part(frozenset({1, 3}))
    assert WRONG_FAILED not in checks(output)
    forget(output, 3)
    assert WRONG_FAILED in checks(output)


def checks(output: Output) -> set[str]:
    """What a validator finds wrong."""
    return {each.check for each in validate(STORAGE, output.uri).violations}


def forget(output: Output, index: int) -> None:
    """Takes one record out of the footer's failed ones."""
    path = output.record.uri.removeprefix("file://")
    footer = output.footer()
    assert footer.failed is not None
    other = replace(footer, failed=Part(footer.failed.indexes - {index}))
    table = pq.ParquetFile(path).read()
    with pq.ParquetWriter(path, table.schema, write_page_checksum=True) as writer:
        writer.write_table(table)
        writer.add_key_value_metadata(other.metadata())


def masked(rows: pa.Table, column: str, status: pa.Array) -> pa.Array:
    return pa.array(
        [
            value if state == "error" else None
            for value, state in zip(rows[column].to_pylist(), status.to_pylist(), strict=True)
        ],
        pa.string(),
    )


def test_behind_the_place_where_an_archive_broke_all_is_read_again(tmp_path: Path) -> None:
    cut = tar_bytes(MEMBERS)[:4000]
    unit = Unit((save(tmp_path / "a.tar", cut),), 0)
    records, end = read(unit)
    broken = end.count - 1
    assert records[broken].error is not None
    rows = archive_rows(unit, set())
    assert UnitWork.whole(unit).failed(rows) == Part(frozenset(range(broken)), onward=broken)
    (tmp_path / "a.tar").write_bytes(tar_bytes(MEMBERS))  # as if the store had sent a part of it only
    source = replace(save(tmp_path / "a.tar", tar_bytes(MEMBERS)), version=None)
    again, _ = read(Unit((source,), 0, part=Part(onward=broken)))
    assert [record.member for record in again] == [name for name, _ in MEMBERS[broken:]]


@pytest.mark.parametrize("name", ["a.tar", "a.zip", "a.parquet"])
@pytest.mark.parametrize("part", [Part(frozenset({1, 3})), Part(frozenset({1}), onward=3)], ids=["some", "and onward"])
def test_an_archive_that_is_not_there_any_more_answers_nothing(tmp_path: Path, name: str, part: Part) -> None:
    """What stands must not go for it."""
    unit = Unit((save(tmp_path / name, FORMS[name]),), 0, part=part)
    work = UnitWork(replace(unit, part=None), unit)
    assert work.answered(archive_rows(unit, set()))
    (tmp_path / name).unlink()
    assert not work.answered(archive_rows(unit, set()))


def test_an_archive_that_breaks_within_a_part_answers_only_from_there_on(tmp_path: Path) -> None:
    """The last record of a part, told as the archive's break: rows behind it stand, so it cannot mean all of them."""
    source = save(tmp_path / "a.tar", tar_bytes(MEMBERS)[:4000])
    last = read(Unit((source,), 0))[1].count - 1
    for part, answered in ((Part(frozenset({0, last})), False), (Part(frozenset({0}), onward=last), True)):
        unit = Unit((source,), 0, part=part)
        work, rows = UnitWork(replace(unit, part=None), unit), archive_rows(unit, set())
        assert rows["count"].to_pylist()[-1] == 2
        assert work.answered(rows) == answered
    assert work.failed(rows) == Part(frozenset({0}), onward=last)
    assert work.failed(rows, {image_id_of(source.uri)}) == Part(frozenset({0})), "less what has no row"


def test_an_output_of_an_earlier_version_works_its_archives_whole(tmp_path: Path) -> None:
    """Its footers do not say which records failed."""
    unit = Unit((save(tmp_path / "a.zip", FORMS["a.zip"]),), 0)
    output = Output(tmp_path / "out", unit, archive_rows(unit, set()))
    path = output.record.uri.removeprefix("file://")
    table = pq.ParquetFile(path).read()
    later = (b"tinyface.failed", b"tinyface.check")
    metadata = {key: value for key, value in pq.read_metadata(path).metadata.items() if key not in later}
    pq.write_table(table.replace_schema_metadata(metadata), path)
    assert output.least_work(unit, changed=False, retry=True) == UnitWork.whole(unit)
