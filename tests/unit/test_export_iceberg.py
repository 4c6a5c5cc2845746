"""Iceberg tables brought to an output: the same rows, once, whatever happened to the output meanwhile."""

from __future__ import annotations

from datetime import UTC, datetime, time
from decimal import Decimal
from pathlib import Path
from typing import Any
from zoneinfo import ZoneInfo

import duckdb
import pyarrow as pa
import pytest
from pyiceberg.catalog import Catalog

from tests.unit.row_samples import CORRUPT, make_rows, make_unit
from tinyface_core.archive.record import Unit
from tinyface_core.errors import OutputError, SettingsError, StorageError
from tinyface_core.export import iceberg
from tinyface_core.export.iceberg import Change, Place, check_tables, export_iceberg, open_catalog
from tinyface_core.storage import Storage, StorageOptions
from tinyface_core.tables.commit import Committer
from tinyface_core.tables.footer import committed
from tinyface_core.tables.redo import UnitWork

STORAGE = Storage()
PLACE = Place("lake", "faces")
A, B, C = (make_unit(3, name) for name in "abc")


@pytest.fixture
def output(tmp_path: Path) -> str:
    """Two units of three pictures with two faces each, one picture broken."""
    uri = f"file://{tmp_path}/out"
    commit(uri, A)
    commit(uri, B, failing={1: CORRUPT})
    return uri


@pytest.fixture
def catalog(tmp_path: Path) -> Catalog:
    where = {"type": "sql", "uri": f"sqlite:///{tmp_path}/lake.db", "warehouse": f"file://{tmp_path}/lake"}
    return open_catalog(PLACE, where, STORAGE)


def commit(uri: str, unit: Unit, **rows: Any) -> None:
    """Anew, if it was: other rows replace the unit's."""
    Committer(STORAGE, uri, "settings", "model").write(UnitWork.whole(unit), "sources", make_rows(unit, **rows))
    names = {record.commit for record in committed(STORAGE, uri).values()}
    for file in Path(uri.removeprefix("file://")).glob("detections/*"):
        if file.stem.rpartition("-")[2] not in names:
            file.unlink()


def rows(catalog: Catalog, name: str) -> list[tuple[Any, ...]]:
    stored = catalog.load_table(PLACE.table(name)).scan().to_arrow()  # noqa: F841, read by DuckDB
    columns = "image_id, commit, uri, status, num_faces" if name == "images" else "image_id, commit, x1, score"
    return duckdb.sql(f"SELECT {columns} FROM stored ORDER BY ALL").fetchall()


def expected(uri: str, name: str) -> list[tuple[Any, ...]]:
    columns = "image_id, commit, uri, status, num_faces" if name == "images" else "image_id, commit, x1, score"
    return duckdb.sql(f"SELECT {columns} FROM '{uri.removeprefix('file://')}/{name}/*.parquet' ORDER BY ALL").fetchall()


def check_equal(catalog: Catalog, uri: str) -> None:
    for name in ("images", "detections"):
        assert rows(catalog, name) == expected(uri, name)


def test_all_rows_arrive_with_their_columns(output: str, catalog: Catalog) -> None:
    assert export_iceberg(STORAGE, output, catalog, PLACE) == Change(2, 0, 6, 10)
    check_equal(catalog, output)
    schema = catalog.load_table("faces.images").schema()
    assert schema.find_field("image_id").doc.startswith("hex of blake2b-128")
    assert schema.find_field("image_id").required
    assert str(schema.find_field("source_modified").field_type) == "timestamptz"


def test_the_same_export_again_does_nothing(output: str, catalog: Catalog) -> None:
    export_iceberg(STORAGE, output, catalog, PLACE)
    before = [len(catalog.load_table(f"faces.{name}").snapshots()) for name in ("images", "detections")]
    assert export_iceberg(STORAGE, output, catalog, PLACE) == Change(0, 0, 0, 0)
    assert before == [len(catalog.load_table(f"faces.{name}").snapshots()) for name in ("images", "detections")]
    check_equal(catalog, output)


def test_a_grown_output_adds_only_what_is_new(output: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch) -> None:
    export_iceberg(STORAGE, output, catalog, PLACE)
    commit(output, C)
    read = []
    monkeypatch.setattr(
        iceberg, "read_table", lambda *args, whole=iceberg.read_table: read.append(args) or whole(*args)
    )
    assert export_iceberg(STORAGE, output, catalog, PLACE) == Change(1, 0, 3, 6)
    assert len(read) == 3  # two files of the new unit, and one more for the columns
    check_equal(catalog, output)


def test_a_unit_that_was_worked_anew_replaces_its_rows(output: str, catalog: Catalog) -> None:
    export_iceberg(STORAGE, output, catalog, PLACE)
    commit(output, B, faces=5, seed=7)
    assert export_iceberg(STORAGE, output, catalog, PLACE) == Change(1, 1, 3, 15)
    check_equal(catalog, output)


def test_pictures_without_faces_have_rows_too(output: str, catalog: Catalog) -> None:
    commit(output, C, faces=0)
    export_iceberg(STORAGE, output, catalog, PLACE)
    check_equal(catalog, output)
    assert export_iceberg(STORAGE, output, catalog, PLACE).added == 0


def test_an_output_without_units_makes_no_table(tmp_path: Path, catalog: Catalog) -> None:
    assert export_iceberg(STORAGE, f"file://{tmp_path}/none", catalog, PLACE) == Change(0, 0, 0, 0)
    assert not catalog.table_exists("faces.images")


def test_killed_between_the_two_tables_the_same_export_goes_on(
    output: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is seen meanwhile joins on image_id and commit, and has no face twice."""
    bring = iceberg._Tables.bring

    def dying(self: Any, name: str, *args: Any) -> Any:
        if name == "images":
            raise KeyboardInterrupt
        return bring(self, name, *args)

    with monkeypatch.context() as killed:
        killed.setattr(iceberg._Tables, "bring", dying)
        with pytest.raises(KeyboardInterrupt):
            export_iceberg(STORAGE, output, catalog, PLACE)
    assert not catalog.table_exists("faces.images")
    assert export_iceberg(STORAGE, output, catalog, PLACE) == Change(2, 0, 6, 10)
    check_equal(catalog, output)


@pytest.mark.parametrize("first", ["none", "some"])
def test_of_two_exports_at_once_one_is_told_and_no_row_is_there_twice(
    output: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch, first: str
) -> None:
    """Both have looked before either writes: pyiceberg by itself would then append to what the other one made."""
    if first == "some":
        export_iceberg(STORAGE, output, catalog, PLACE)
        commit(output, C)
    read, others = iceberg._Tables._rows, [Change(0, 0, 0, 0)]

    def overtaken(self: Any, *args: Any) -> Any:
        monkeypatch.setattr(iceberg._Tables, "_rows", read)
        others.append(export_iceberg(STORAGE, output, catalog, PLACE))
        return read(self, *args)

    monkeypatch.setattr(iceberg._Tables, "_rows", overtaken)
    with pytest.raises(StorageError, match=r"faces.detections: another writer changed the table meanwhile, and none"):
        export_iceberg(STORAGE, output, catalog, PLACE)
    assert others[1].added == (1 if first == "some" else 2)
    check_equal(catalog, output)
    assert export_iceberg(STORAGE, output, catalog, PLACE) == Change(0, 0, 0, 0)
    stored = [catalog.load_table(f"faces.{name}").properties for name in ("images", "detections")]
    assert not any("commit.retry.num-retries" in properties for properties in stored)


def test_killed_while_rows_come_nothing_of_them_is_seen(
    output: str, catalog: Catalog, monkeypatch: pytest.MonkeyPatch
) -> None:
    missing = next(Path(output.removeprefix("file://")).glob("detections/*"))
    kept = missing.read_bytes()
    with monkeypatch.context() as broken:
        broken.setattr(
            iceberg, "in_threads", lambda work, units: (missing.unlink(missing_ok=True), map(work, units))[1]
        )
        with pytest.raises(StorageError, match="went away while it was exported"):
            export_iceberg(STORAGE, output, catalog, PLACE)
    missing.write_bytes(kept)
    export_iceberg(STORAGE, output, catalog, PLACE)
    check_equal(catalog, output)


def test_tables_of_another_output_or_of_others_are_refused(output: str, catalog: Catalog) -> None:
    export_iceberg(STORAGE, output, catalog, PLACE)
    check_tables(catalog, PLACE, output, overwrite=False)
    with pytest.raises(OutputError, match=r"was made of file://.* One output has one pair"):
        check_tables(catalog, PLACE, "s3://b/other", overwrite=False)
    check_tables(catalog, PLACE, "s3://b/other", overwrite=True)
    with catalog.load_table("faces.images").transaction() as change:
        change.remove_properties(iceberg.MADE_OF)
    for overwrite in (False, True):
        with pytest.raises(OutputError, match="was not made by an export"):
            check_tables(catalog, PLACE, output, overwrite=overwrite)


def test_overwrite_puts_another_output_in_place(output: str, catalog: Catalog, tmp_path: Path) -> None:
    export_iceberg(STORAGE, output, catalog, PLACE)
    other = f"file://{tmp_path}/other"
    commit(other, C, faces=1)
    assert export_iceberg(STORAGE, other, catalog, PLACE) == Change(1, 2, 3, 3)
    check_equal(catalog, other)
    check_tables(catalog, PLACE, other, overwrite=False)


def test_an_output_with_other_columns_is_refused_before_anything_is_changed(
    output: str, catalog: Catalog, tmp_path: Path
) -> None:
    export_iceberg(STORAGE, output, catalog, PLACE)
    other = f"file://{tmp_path}/other"
    carried = (pa.field("album", pa.string()),)
    rows = make_rows(C, carried=carried, carried_values={"album": "Ä"})
    Committer(STORAGE, other, "settings", "model", carried).write(UnitWork.whole(C), "sources", rows)
    with pytest.raises(OutputError, match=r"has other columns than this output \(album\)"):
        export_iceberg(STORAGE, other, catalog, PLACE)
    check_equal(catalog, output)
    export_iceberg(STORAGE, other, catalog, Place("lake", "others"))
    assert catalog.load_table("others.images").scan().to_arrow()["album"].to_pylist() == ["Ä"] * 3


BERLIN = datetime(2020, 1, 1, 13, tzinfo=ZoneInfo("Europe/Berlin"))
CARRIED = {
    "pandas' timestamp": (pa.timestamp("ns"), datetime(2020, 1, 1, 12), datetime(2020, 1, 1, 12)),
    "a zone": (pa.timestamp("ns", "Europe/Berlin"), BERLIN, datetime(2020, 1, 1, 12, tzinfo=UTC)),
    "seconds": (pa.timestamp("s"), datetime(2020, 1, 1, 12), datetime(2020, 1, 1, 12)),
    "a time": (pa.time32("s"), time(12, 30), time(12, 30)),
    "uint8": (pa.uint8(), 255, 255),
    "uint32": (pa.uint32(), 2**32 - 1, 2**32 - 1),
    "uint64": (pa.uint64(), 2**64 - 1, Decimal(2**64 - 1)),
    "float16": (pa.float16(), 1.5, 1.5),
    "nothing": (pa.null(), None, None),
    "a list": (pa.list_(pa.uint32()), [1, 2**32 - 1], [1, 2**32 - 1]),
    "a struct": (pa.struct({"a": pa.uint16(), "b": pa.timestamp("ns")}), {"a": 1, "b": None}, {"a": 1, "b": None}),
    "a map": (pa.map_(pa.string(), pa.uint32()), [("a", 2**31)], [("a", 2**31)]),
}


def carrying(uri: str, kind: pa.DataType, value: Any) -> None:
    """An output with one carried column."""
    carried = (pa.field("taken", kind),)
    rows = make_rows(C, carried=carried, carried_values={"taken": value})
    Committer(STORAGE, uri, "settings", "model", carried).write(UnitWork.whole(C), "sources", rows)


@pytest.mark.parametrize(("kind", "value", "wanted"), CARRIED.values(), ids=CARRIED)
def test_carried_columns_of_types_that_iceberg_has_not_arrive_as_the_nearest(
    kind: pa.DataType, value: Any, wanted: Any, tmp_path: Path, catalog: Catalog
) -> None:
    carrying(f"file://{tmp_path}/other", kind, value)
    export_iceberg(STORAGE, f"file://{tmp_path}/other", catalog, PLACE)
    assert catalog.load_table("faces.images").scan().to_arrow()["taken"].to_pylist() == [wanted] * 3


@pytest.mark.parametrize("kind", [pa.duration("s"), pa.list_(pa.duration("s")), pa.struct({"a": pa.duration("s")})])
def test_a_column_that_iceberg_has_no_type_for_is_refused_before_anything_is_made(
    kind: pa.DataType, tmp_path: Path, catalog: Catalog
) -> None:
    carrying(f"file://{tmp_path}/other", kind, None)
    with pytest.raises(OutputError, match=r"the column taken is .*duration\[s\].*, which Iceberg has no type for"):
        export_iceberg(STORAGE, f"file://{tmp_path}/other", catalog, PLACE)
    assert not catalog.table_exists("faces.detections")


@pytest.mark.parametrize("out", ["lake", "lake.", ".faces", "faces/lake", "a..b"])
def test_a_name_that_is_none_is_refused(out: str) -> None:
    with pytest.raises(SettingsError, match=r"CATALOG.NAMESPACE"):
        Place.of(out)


def test_a_store_with_an_endpoint_has_a_region_so_that_aws_is_not_asked_for_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    where = {"type": "sql", "uri": f"sqlite:///{tmp_path}/lake.db", "warehouse": "s3://b/lake"}
    elsewhere = Storage(StorageOptions(endpoint_url="http://127.0.0.1:9"))
    for name in ("AWS_REGION", "AWS_DEFAULT_REGION", "AWS_ENDPOINT_URL", "AWS_ENDPOINT_URL_S3"):
        monkeypatch.delenv(name, raising=False)
    assert open_catalog(PLACE, where, elsewhere).properties["client.region"] == "us-east-1"
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-1")
    assert open_catalog(PLACE, where, elsewhere).properties["client.region"] == "eu-1"
    assert open_catalog(PLACE, where | {"client.region": "x"}, elsewhere).properties["client.region"] == "x"
    assert "client.region" not in open_catalog(PLACE, where, Storage()).properties


def test_a_catalog_that_cannot_be_opened_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"the catalog cannot be opened.*--catalog-option"):
        open_catalog(Place("nowhere", "faces"), {}, STORAGE)
