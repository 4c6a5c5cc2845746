"""Pictures of which none can be read stop a redaction: else it would end well, without a copy."""

from __future__ import annotations

import itertools
from collections.abc import Generator, Iterable, Iterator
from typing import Any, cast

import pyarrow as pa
import pytest

from redact_work import WAITING_MOST, Committed, CopyLoop, once_one_is_read
from tinyface_core.archive.record import Kind, Source, Unit
from tinyface_core.errors import StopRun
from tinyface_core.redact.results import CHANGED, NOT_EXAMINED, end_row, rows_table
from tinyface_core.tables.footer import CommitRecord
from tinyface_core.tables.unit_tables import UnitTotals

GONE, WRITTEN = "unreadable", None


def unit(number: int, *outcomes: str | None) -> tuple[Committed, pa.Table]:
    """A unit whose pictures ended in these error classes."""
    made = Unit((Source(f"s3://bucket/{number}.jpg", Kind.PICTURE),))
    rows = [
        {"unit": made.name, "kind": "record", "index": index, "error_class": outcome, "error_message": outcome}
        for index, outcome in enumerate(outcomes)
    ]
    record = CommitRecord("", made.name, "c", "", "", "", UnitTotals())
    return Committed(made, record), rows_table([*rows, end_row(made.name, len(rows))])


def committed(units: Iterable[tuple[Committed, pa.Table]], *, otherwise: bool = False) -> list[str]:
    return [work.unit.sources[0].uri[12] for work, _ in once_one_is_read(units, lambda: otherwise)]


def test_where_none_can_be_read_nothing_is_committed() -> None:
    units = once_one_is_read([unit(0, GONE, NOT_EXAMINED), unit(1, GONE)], lambda: False)
    with pytest.raises(StopRun, match=r"no picture can be read: unreadable\. Are they where they were"):
        next(units)


@pytest.mark.parametrize("outcome", [WRITTEN, CHANGED, "decoder_crashed"])
def test_they_wait_for_the_first_that_can(outcome: str | None) -> None:
    """Also where it changed: its bytes came."""
    assert committed([unit(0, GONE), unit(1, GONE, outcome), unit(2, GONE)]) == ["0", "1", "2"]


def test_many_stop_it_before_the_end() -> None:
    def units() -> Iterator[tuple[Committed, pa.Table]]:
        yield unit(0, *[GONE] * (WAITING_MOST + 1))
        pytest.fail("another unit is worked")

    with pytest.raises(StopRun):
        committed(units())


def test_where_what_was_copied_before_can_be_read_each_is_at_fault_itself() -> None:
    assert committed([unit(0, GONE), unit(1, GONE)], otherwise=True) == ["0", "1"]
    assert committed([unit(0, *[GONE] * (WAITING_MOST + 1)), unit(1, GONE)], otherwise=True) == ["0", "1"]


def test_pictures_that_were_never_examined_say_nothing_of_reading() -> None:
    assert committed([unit(0, NOT_EXAMINED), unit(1)]) == ["0", "1"]
    with pytest.raises(StopRun):
        committed([unit(0, NOT_EXAMINED), unit(1, GONE)])


def test_the_chain_is_closed_before_the_run_ends() -> None:
    """Ray Data waits for ever for a chain that is still open when Ray is gone; the error itself holds it open."""
    closed = []

    class Loop(CopyLoop):
        def _worked(self, units: Iterable[Committed]) -> Generator[tuple[Committed, pa.Table]]:
            try:
                for number in itertools.count():
                    yield unit(number, *[GONE] * WAITING_MOST)
            finally:
                closed.append(True)

    nothing = cast(Any, None)
    with pytest.raises(StopRun) as raised:
        Loop(nothing, nothing, nothing, nothing, nothing).work([])
    assert closed == [True]
    assert raised.value.__traceback__ is not None
