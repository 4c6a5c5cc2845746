"""Whole units out of rows that come in any order, and more than once."""

from __future__ import annotations

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.unit.row_samples import CORRUPT, make_rows, make_unit
from tinyface_core.errors import StopRun
from tinyface_core.tables.collect import UnitCollector
from tinyface_core.tables.rows import stop_table
from tinyface_core.tables.schema import row_schema

SIZES = (0, 1, 7, 12)
UNITS = [make_unit(size, name=f"u{size}") for size in SIZES]
ROWS = {unit.name: make_rows(unit, faces=3, seed=100 * i) for i, unit in enumerate(UNITS)}
ALL = pa.concat_tables(ROWS.values()).combine_chunks()


def collect(blocks: list[pa.Table]) -> dict[str, pa.Table]:
    collector = UnitCollector()
    found = [item for block in blocks for item in collector.add(block)]
    assert len(dict(found)) == len(found), "a unit came out twice"
    assert collector.missing() == {}
    return dict(found)


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_order_blocks_and_replays_do_not_matter(data: st.DataObject) -> None:
    """Every row at least once, any rows again, in any order, cut into blocks anywhere: the same whole units."""
    again = data.draw(st.lists(st.integers(0, len(ALL) - 1), max_size=40))
    order = data.draw(st.permutations([*range(len(ALL)), *again]))
    cuts = sorted(data.draw(st.lists(st.integers(0, len(order)), max_size=12)))
    blocks = [
        ALL.take(pa.array(order[start:stop], pa.int64()))
        for start, stop in zip([0, *cuts], [*cuts, len(order)], strict=True)
    ]
    found = collect(blocks)
    assert found.keys() == ROWS.keys()
    for name, table in found.items():
        assert table.equals(ROWS[name])


def test_the_first_row_of_an_index_wins() -> None:
    unit = make_unit(3)
    first, second = make_rows(unit, seed=1), make_rows(unit, seed=2, failing={1: CORRUPT})
    collector = UnitCollector()
    assert collector.add(first.slice(0, 2)) == []
    [(_, table)] = collector.add(second)
    assert table.slice(0, 2).equals(first.slice(0, 2))
    assert table.slice(2, 1).equals(second.slice(2, 1))


def test_the_first_row_wins_within_a_block() -> None:
    unit = make_unit(3)
    first, second = make_rows(unit, seed=1), make_rows(unit, seed=2)
    [(_, table)] = UnitCollector().add(pa.concat_tables([first.slice(0, 3), second]))
    assert table.equals(first)


def test_a_whole_unit_stays_out_when_it_comes_again() -> None:
    collector = UnitCollector()
    rows = make_rows(make_unit(3))
    assert len(collector.add(rows)) == 1
    assert collector.add(rows) == []
    assert collector.missing() == {}


def test_a_unit_is_whole_only_with_its_end_marker() -> None:
    collector = UnitCollector()
    unit = make_unit(5)
    rows = make_rows(unit)
    assert collector.add(rows.slice(0, 5)) == []
    missing = collector.missing()[unit.name]
    assert (missing.indexes_K.tolist(), missing.count) == ([], None)
    assert [name for name, _ in collector.add(rows.slice(5))] == [unit.name]


def test_missing_tells_the_gaps() -> None:
    collector = UnitCollector()
    unit = make_unit(6)
    rows = make_rows(unit)
    collector.add(rows.take(pa.array([1, 4])))
    before = collector.missing()[unit.name]
    assert (before.indexes_K.tolist(), before.count) == ([0, 2, 3], None)
    collector.add(rows.slice(6))
    after = collector.missing()[unit.name]
    assert (after.indexes_K.tolist(), after.count) == ([0, 2, 3, 5], 6)
    assert after.indexes_K.dtype == np.int32


def test_missing_of_a_unit_larger_than_what_came() -> None:
    collector = UnitCollector()
    unit = make_unit(3000)
    collector.add(make_rows(unit, faces=0).slice(3000))
    assert collector.missing()[unit.name].indexes_K.tolist() == list(range(3000))


def test_of_two_readings_that_disagree_the_longer_one_is_meant() -> None:
    """An archive that broke in one reading and not in the next: no row of the longer reading is lost."""
    long, short = make_unit(6), make_unit(4)
    rows, broken = make_rows(long), make_rows(short)
    broken = broken.set_column(0, rows.schema.field("unit"), pa.array([long.name] * 5))
    for order in ([broken.slice(4), rows.slice(0, 5), rows.slice(5)], [rows.slice(6), broken, rows.slice(4, 2)]):
        collector = UnitCollector()
        found = [item for block in order for item in collector.add(block)]
        if order[0]["count"][0].as_py() == 4:
            # The shorter end came first, and all its rows: that reading was whole.
            assert [len(table) for _, table in found] == [5]
        else:
            assert [len(table) for _, table in found] == [7]


def test_a_stop_row_ends_the_run_with_its_message() -> None:
    block = pa.concat_tables([make_rows(make_unit(2)), stop_table("u", "credentials expired", row_schema())])
    with pytest.raises(StopRun, match="credentials expired"):
        UnitCollector().add(block)


def test_blocks_may_come_with_other_spellings_of_the_schema() -> None:
    """Ray joins blocks and forgets "not null"; a column may come as large_string."""
    unit = make_unit(4)
    rows = make_rows(unit)
    loose = rows.cast(
        pa.schema([pa.field(f.name, pa.large_string() if f.name == "uri" else f.type) for f in rows.schema])
    )
    [(_, table)] = [*(collector := UnitCollector()).add(rows.slice(0, 2)), *collector.add(loose.slice(2))]
    assert table.equals(rows)


def test_open_units_hold_copies_not_blocks() -> None:
    """One row of a large block must not keep the block, which lies in Ray's shared memory, alive."""
    unit, other = make_unit(2, "a"), make_unit(2000, "b")
    block = pa.concat_tables([make_rows(other, faces=5).slice(0, 2000), make_rows(unit).slice(0, 1)]).combine_chunks()
    collector = UnitCollector()
    collector.add(block.slice(2000))
    [piece] = collector._open[unit.name].pieces
    assert piece.get_total_buffer_size() < block.get_total_buffer_size() / 100
