"""Parquet files of pictures: which columns count, and what is wrong with one row costs one row."""

from __future__ import annotations

import io
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.archives import cuts, errors, good, parquet_bytes, read, save, some_bytes, some_members, whole
from tinyface_core.archive import parquet
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.members import ArchiveBroken
from tinyface_core.archive.parquet import PictureColumns, picture_columns
from tinyface_core.archive.read import read_unit
from tinyface_core.archive.record import Unit, image_id_of
from tinyface_core.errors import ErrorClass, StorageError
from tinyface_core.storage import Storage


def table_bytes(group: int = 2, **columns: Any) -> bytes:
    buffer = io.BytesIO()
    pq.write_table(pa.table(columns), buffer, row_group_size=group)
    return buffer.getvalue()


def test_hugging_face_struct(tmp_path: Path) -> None:
    members = some_members(5)
    source = save(tmp_path / "a.parquet", parquet_bytes(members, label=[1, 2, 3, 4, 5]))
    records, end = read(source, carry=["label"])
    assert good(records) == members
    assert end.count == 5
    assert records[0].image_id == image_id_of(source.uri, members[0][0].encode(), 0)
    assert [record.carried for record in records] == [{"label": number} for number in range(1, 6)]


@pytest.mark.parametrize("kind", [pa.binary(), pa.large_binary(), pa.binary_view()])
@pytest.mark.parametrize("name", ["path", "name", "key", "__key__", "FileName"])
def test_a_binary_column_and_a_name(tmp_path: Path, kind: pa.DataType, name: str) -> None:
    members = some_members(3)
    columns = {"note": [b"\0"] * 3, "jpg": pa.array([data for _, data in members], kind), name: [n for n, _ in members]}
    records, _ = read(save(tmp_path / "a.parquet", table_bytes(**columns)))
    assert good(records) == members


def test_without_names_rows_are_called_by_their_number(tmp_path: Path) -> None:
    source = save(tmp_path / "a.parquet", table_bytes(bytes=[some_bytes(n) for n in range(5)]))
    assert [name for name, _ in good(read(source)[0])] == ["0", "1", "2", "3", "4"]
    assert [name for name, _ in good(read(Unit((source,), 3, 5))[0])] == ["3", "4"]


def test_empty_and_equal_names(tmp_path: Path) -> None:
    """A row without a name may be called as another row is."""
    source = save(tmp_path / "a.parquet", table_bytes(bytes=[b"1", b"2", b"3"], path=["2", "2", None]))
    records, _ = read(source)
    assert [record.member for record in records] == ["2", "2", "2"]
    assert len({record.image_id for record in records}) == 3


def test_a_row_without_bytes_is_a_row(tmp_path: Path) -> None:
    kind = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    rows = [{"bytes": None, "path": "gone.jpg"}, None, {"bytes": b"", "path": "empty.jpg"}]
    source = save(tmp_path / "a.parquet", table_bytes(image=pa.array(rows, kind)))
    records, _ = read(source)
    assert errors(records) == [("gone.jpg", "unreadable"), ("1", "unreadable")]
    assert good(records) == [("empty.jpg", b"")]


def test_which_columns_hold_pictures() -> None:
    def of(**types: pa.DataType) -> PictureColumns | None:
        return picture_columns(pa.schema(list(types.items())))

    both = pa.struct([("bytes", pa.binary()), ("path", pa.string())])
    assert of(uri=pa.string(), size=pa.int64()) is None
    assert of(md5=pa.binary(16), uri=pa.string()) is None  # of fixed length: a hash
    assert of(thumb=pa.binary(), image=both) == PictureColumns(("image", "bytes"), ("image", "path"))
    assert of(**{"a.jpg": pa.binary(), "name": pa.string()}) == PictureColumns(("a.jpg",), ("name",))
    assert of(x=pa.binary(), name=pa.float64()) == PictureColumns(("x",), None)
    assert of(x=pa.struct([("bytes", pa.binary())]), key=pa.int64()) == PictureColumns(("x", "bytes"), ("key",))


def test_a_column_with_a_dot_in_its_name(tmp_path: Path) -> None:
    source = save(tmp_path / "a.parquet", table_bytes(**{"a.jpg": [b"1", b"2"], "__key__": ["x", "y"]}))
    assert good(read(source)[0]) == [("x", b"1"), ("y", b"2")]


def test_rows_are_skipped_by_name_as_members_are_but_their_paths_may_begin_anywhere(tmp_path: Path) -> None:
    """A data set that was made in ~/.cache keeps that in its paths, and its pictures are not hidden for it."""
    members = [(".cache/a.jpg", b"1"), ("b.jpg", b"2"), ("b.json", b"{}"), ("c/.d.jpg", b"3"), ("e.gif", b"4")]
    source = save(tmp_path / "a.parquet", parquet_bytes(members))
    records, end = read(source, CandidateFilter(exclude=("*.gif",)))
    assert (good(records), end.skipped) == (members[:2], {".json": 1, "hidden": 1, "excluded": 1})
    assert good(read(source, CandidateFilter(all_files=True))[0]) == members


def test_a_range_reads_only_its_row_groups(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    members = some_members(10)
    source = save(tmp_path / "a.parquet", parquet_bytes(members))
    read_groups: list[int] = []
    original = pq.ParquetFile.iter_batches

    def noted(self: pq.ParquetFile, *args: Any, row_groups: list[int], **options: Any) -> Any:
        read_groups.extend(row_groups)
        return original(self, *args, row_groups=row_groups, **options)

    monkeypatch.setattr(pq.ParquetFile, "iter_batches", noted)
    assert good(read(Unit((source,), 3, 7))[0]) == members[3:7]
    assert read_groups == [1, 2, 3]


def test_only(tmp_path: Path) -> None:
    members = some_members(6)
    records, end = read(save(tmp_path / "a.parquet", parquet_bytes(members)), only={0, 5})
    assert [(record.index, record.data) for record in records] == [(0, members[0][1]), (5, members[5][1])]
    assert end.count == 6


def test_broken_files(tmp_path: Path) -> None:
    data = parquet_bytes(some_members(4))
    for place, part in enumerate(cuts(data, 5)):
        assert errors(read(save(tmp_path / f"{place}.parquet", part))[0]) == [(None, "truncated")]
    assert errors(read(save(tmp_path / "e.parquet", b""))[0]) == [(None, "truncated")]
    assert errors(read(save(tmp_path / "n.parquet", b"hello" * 99))[0]) == [(None, "corrupt")]
    assert errors(read(save(tmp_path / "t.parquet", table_bytes(a=[1, 2])))[0]) == [(None, "not_an_image")]


def test_a_damaged_page_gives_the_rows_before_it(tmp_path: Path) -> None:
    members = some_members(6)
    data = bytearray(parquet_bytes(members))
    data[data.index(members[4][1][50:90]) + 3] ^= 1  # stored as it is: random bytes do not shrink
    records, _ = read(save(tmp_path / "a.parquet", bytes(data)))
    assert good(records) == members[:4]
    assert errors(records) == [(None, "corrupt")]


def test_a_store_that_fails_in_the_middle_stops_the_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At whichever read: the error of the store must come through pyarrow as it is, not as a damaged file."""
    source = save(tmp_path / "a.parquet", parquet_bytes(some_members(6, 5000)))
    data = (tmp_path / "a.parquet").read_bytes()

    class Failing(io.BytesIO):
        left = 0

        def read(self, size: int | None = -1) -> bytes:
            self.left -= 1
            if self.left < 0:
                raise StorageError("the network is gone")
            return super().read(size)

    file = Failing(data)
    monkeypatch.setattr(Storage, "open", lambda self, uri, version=None: file)
    rows_before = []
    for reads in range(100):
        file = Failing(data)
        file.left = reads
        records = read_unit(whole(source), Storage(), CandidateFilter())
        count = 0
        try:
            for _ in records:
                count += 1
        except StorageError:
            rows_before.append(count)
        else:
            assert count == 7
            break
    assert rows_before[0] == 0
    assert rows_before[-1] >= 4


def test_text_that_is_not_utf8_costs_nothing(tmp_path: Path) -> None:
    """Other writers put any bytes into string columns."""
    name = pa.StringArray.from_buffers(1, pa.py_buffer(b"\0\0\0\0\x04\0\0\0"), pa.py_buffer(b"\xe9\xff.x"))
    columns = {"bytes": pa.array([b"1"]), "name": name, "note": name, "kind": pa.array(["k"]).dictionary_encode()}
    source = save(tmp_path / "a.parquet", table_bytes(**columns))
    (record,), _ = read(source, carry=["note", "kind"])
    assert (record.member, record.data) == ("\\xe9\\xff.x", b"1")
    assert record.image_id == image_id_of(source.uri, b"\xe9\xff.x", 0)
    assert record.carried == {"note": "\\xe9\\xff.x", "kind": "k"}


def test_names_of_other_types(tmp_path: Path) -> None:
    for names, expected in (([7, 8], ["7", "8"]), (pa.array(["a", "b"]).dictionary_encode(), ["a", "b"])):
        source = save(tmp_path / "a.parquet", table_bytes(bytes=[b"1", b"2"], key=names))
        assert [name for name, _ in good(read(source)[0])] == expected


def test_an_archive_in_a_row_is_refused_by_its_name_as_in_other_archives(tmp_path: Path) -> None:
    source = save(tmp_path / "a.parquet", parquet_bytes([("a.jpg", b"1"), ("b.tar", b"no tar"), ("c.jpg", b"2")]))
    records, _ = read(source)
    assert errors(records) == [("b.tar", "unsupported")]
    assert good(records) == [("a.jpg", b"1"), ("c.jpg", b"2")]


@pytest.mark.parametrize("wrapped", [False, True], ids=["column", "in a struct"])
def test_pictures_behind_a_dictionary(tmp_path: Path, wrapped: bool) -> None:
    """As pandas writes categories; below a folder such a file was skipped in silence."""
    data = pa.array([b"1", b"2", None, b"1"]).dictionary_encode()
    names = pa.array(["a", "b", "c", "d"])
    columns = {"image": pa.StructArray.from_arrays([data, names], ["bytes", "path"])} if wrapped else {"image": data}
    source = save(tmp_path / "a.parquet", table_bytes(**columns, key=names.dictionary_encode()))
    records, _ = read(source, carry=["key"])
    assert (good(records), errors(records)) == ([("a", b"1"), ("b", b"2"), ("d", b"1")], [("c", "unreadable")])
    assert [record.carried["key"] for record in records] == ["a", "b", "c", "d"]


def test_a_dictionary_counts_once_for_what_a_file_may_unpack_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not for each few rows that are read of it."""
    monkeypatch.setattr("tinyface_core.archive.parquet.RATIO_FROM_BYTES", 0)
    monkeypatch.setattr("tinyface_core.archive.parquet.MAX_RATIO", 2)
    pictures = [some_bytes(number) for number in range(40)]
    source = save(tmp_path / "a.parquet", table_bytes(40, image=pa.array(pictures).dictionary_encode()))
    assert [data for _, data in good(read(source)[0])] == pictures


def with_rows(data: bytes, *, file: int, group: int, of: int) -> bytes:
    """The file with the rows that its footer tells of, in whole and for its one group of `of` rows, told anew."""
    start = len(data) - 8 - int.from_bytes(data[-8:-4], "little")
    in_file = data.index(bytes([0x16, 2 * of, 0x19]), start)  # field 3: an i64, then the list of row groups
    in_group = data.rindex(bytes([0x16, 2 * of]), start)  # the last one of the only group
    changed = bytearray(data)
    changed[in_file + 1], changed[in_group + 1] = 2 * file, 2 * group
    return bytes(changed)


@pytest.mark.parametrize(
    ("file", "group", "rows", "told"),
    [
        (6, 6, 6, None),
        (4, 6, 6, "its row groups have 6 rows, the footer says 4"),
        (10, 6, 6, "its row groups have 6 rows, the footer says 10"),
        (6, 4, 4, "its row groups have 4 rows, the footer says 6"),
        (6, 10, 6, "row group 0 holds 6 rows, the footer says 10"),
        (10, 10, 6, "row group 0 holds 6 rows, the footer says 10"),
    ],
)
def test_a_footer_that_lies_about_its_rows_is_told_once(
    tmp_path: Path, file: int, group: int, rows: int, told: str | None
) -> None:
    """Rows went missing without a word."""
    pictures = [some_bytes(number, 30) for number in range(6)]
    buffer = io.BytesIO()
    options = {"store_schema": False, "use_dictionary": False, "write_statistics": False}
    pq.write_table(pa.table({"image": pictures}), buffer, **options)
    source = save(tmp_path / "a.parquet", with_rows(buffer.getvalue(), file=file, group=group, of=6))
    for units in ([whole(source)], [Unit((source,), 0, 3), Unit((source,), 3, None)]):
        records = [record for unit in units for record in read(unit)[0]]
        assert [data for _, data in good(records)] == pictures[:rows]
        broken = [record for record in records if record.error is not None]
        assert errors(broken) == ([] if told is None else [(None, "corrupt")])
        assert [told in str(record.error) for record in broken if told] == [True] * len(broken)


@pytest.mark.parametrize("doubled", ["image", "path", "note"])
def test_two_columns_of_one_name_are_unsupported_where_the_name_is_asked_for(tmp_path: Path, doubled: str) -> None:
    names = ["image", "path", "note", doubled]
    table = pa.Table.from_arrays(
        [pa.array([b"1"], pa.binary()) if n == "image" else pa.array(["a"]) for n in names], names
    )
    buffer = io.BytesIO()
    pq.write_table(table, buffer)
    source = save(tmp_path / "a.parquet", buffer.getvalue())
    (record,), _ = read(source, carry=["note"])
    assert errors([record]) == [(None, "unsupported")]
    assert f"2 columns are called '{doubled}'" in str(record.error)
    assert doubled != "note" or good(read(source)[0]) == [("a", b"1")]


def test_a_dictionary_that_unpacks_to_more_than_arrow_holds_is_too_large() -> None:
    class Column:
        type = pa.dictionary(pa.int32(), pa.binary())

        def dictionary_decode(self) -> None:
            raise pa.ArrowInvalid("Take operation overflowed binary array capacity")

    batch = cast(Any, SimpleNamespace(column=lambda name: Column()))
    with pytest.raises(ArchiveBroken) as told:
        parquet._leaf(batch, ("image",))
    assert told.value.error.error_class is ErrorClass.TOO_LARGE
