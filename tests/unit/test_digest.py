"""The commit hash tells all values apart, and nothing but values."""

from __future__ import annotations

from datetime import date
from decimal import Decimal

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tinyface_core.tables.digest import commit_of


def digest(*arrays: pa.Array) -> str:
    return commit_of((f"c{i}", pa.chunked_array([array])) for i, array in enumerate(arrays))


VALUES = [
    (pa.int32(), [1, None, 3, 0]),
    (pa.int8(), [1, -2, 3, 4]),
    (pa.float32(), [0.5, None, -0.0, float("nan")]),
    (pa.float64(), [0.5, None, 2.0, 3.0]),
    (pa.bool_(), [True, False, None, True]),
    (pa.string(), ["ab", "", None, "é"]),
    (pa.large_string(), ["ab", "", None, "é"]),
    (pa.binary(), [b"ab", b"", None, b"\xff"]),
    (pa.timestamp("us", tz="UTC"), [1, None, 3, 4]),
    (pa.date32(), [date(2020, 2, 29), None, date(1911, 1, 1), date(1970, 1, 1)]),
    (pa.list_(pa.float32()), [[1, 2], [], None, [None, 3]]),
    (pa.list_(pa.string()), [["a", "b"], [], None, [None, "c"]]),
    (pa.list_(pa.list_(pa.int8())), [[[1], [2, 3]], [], None, [[], [4]]]),
    (pa.list_(pa.int16(), 2), [[1, 2], None, [3, 4], [5, 6]]),
    (pa.struct([("a", pa.int32()), ("b", pa.string())]), [{"a": 1, "b": "x"}, None, {"a": None, "b": "y"}, {}]),
    (pa.dictionary(pa.int32(), pa.string()), ["x", "y", None, "x"]),
    (pa.map_(pa.string(), pa.int32()), [[("a", 1)], [], None, [("b", 2), ("c", 3)]]),
    (pa.decimal128(10, 2), [Decimal("1.50"), None, Decimal("2.00"), Decimal("0.01")]),
    (pa.null(), [None] * 4),
]


@pytest.mark.parametrize(
    ("kind", "values"), VALUES, ids=lambda value: str(value) if isinstance(value, pa.DataType) else ""
)
def test_layout_does_not_matter(kind: pa.DataType, values: list[object]) -> None:
    """Cut out of a larger array, in chunks, read back from a file: the same hash."""
    whole = pa.array(values, kind)
    expected = digest(whole)
    around = pa.array([values[0], *values, *values, values[3]], kind)
    assert digest(around.slice(1, 4)) == expected
    assert digest(around.slice(5, 4)) == expected
    chunks = pa.chunked_array([around.slice(1, 1), around.slice(6, 0), around.slice(6, 3)])
    assert commit_of([("c0", chunks)]) == expected
    sink = pa.BufferOutputStream()
    pq.write_table(pa.table({"c0": whole}), sink)
    back = pq.read_table(pa.BufferReader(sink.getvalue()))
    assert commit_of([("c0", back["c0"])]) == expected


@pytest.mark.parametrize(
    ("kind", "values"), VALUES[:-1], ids=lambda value: str(value) if isinstance(value, pa.DataType) else ""
)
def test_every_change_of_values_matters(kind: pa.DataType, values: list[object]) -> None:
    """Another order, one more, one less, another null, one repeated: all hashes differ."""
    variants = [
        values,
        values[::-1],
        values[:-1],
        [*values, values[0]],
        [None, *values[1:]],
        [values[0], values[0], *values[2:]],
        [],
    ]
    distinct = {repr(variant) for variant in variants}
    assert len({digest(pa.array(variant, kind)) for variant in variants}) == len(distinct)


def test_where_a_null_stands_matters() -> None:
    assert digest(pa.array([1, None, 2])) != digest(pa.array([1, 2, None]))
    assert digest(pa.array(["a", None])) != digest(pa.array([None, "a"]))


def test_where_one_value_ends_and_the_next_begins_matters() -> None:
    assert digest(pa.array(["ab", "c"])) != digest(pa.array(["a", "bc"]))
    assert digest(pa.array([[1, 2], [3]])) != digest(pa.array([[1], [2, 3]]))
    assert digest(pa.array(["a"]), pa.array(["b"])) != digest(pa.array(["a", "b"]))


def test_names_and_order_of_columns_matter_but_commit_does_not() -> None:
    one, two = pa.chunked_array([pa.array([1])]), pa.chunked_array([pa.array([2])])
    assert commit_of([("a", one), ("b", two)]) != commit_of([("b", two), ("a", one)])
    assert commit_of([("a", one)]) != commit_of([("b", one)])
    assert (
        commit_of([("a", one), ("commit", two)]) == commit_of([("a", one), ("commit", one)]) == commit_of([("a", one)])
    )
