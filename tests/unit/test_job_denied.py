"""A 403 on one object is an error row while others can be read; where nothing can be read, the run must stop."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import nullcontext
from dataclasses import replace
from typing import Any, cast

import pyarrow as pa
import pytest

from tinyface_core.archive.record import DENIED, Kind, Part, Record, Source, Unit, UnitEnd, image_id_of
from tinyface_core.errors import ErrorClass, PictureError, Stage, StopRun, TooManyErrors
from tinyface_core.tables.commit import Written
from tinyface_core.tables.redo import UnitWork
from tinyface_core.tables.rows import RowBuilder, records_table
from tinyface_core.tables.unit_tables import UnitTotals
from work import DENIED_MOST, CommitLoop


class Quiet:
    """Stands in for what the loop tells and writes; remembers the names of units written."""

    pictures = errors = 0

    def __init__(self) -> None:
        self.written: list[str] = []

    def write(self, work: UnitWork, sources_hash: str, rows: pa.Table) -> Written:
        self.written.append(work.unit.name)
        return Written(UnitTotals(), UnitTotals())

    def committed(self, totals: UnitTotals, expected: int) -> None: ...


def unit(number: int) -> Unit:
    return Unit((Source(f"s3://bucket/{number}.jpg", Kind.PICTURE),))


def rows(of: Unit, message: str | None, count: int = 1) -> pa.Table:
    """A unit's rows: read well (then broken in decoding) where message is None, else `unreadable` for it."""
    error = None if message is None else PictureError(Stage.READ, ErrorClass.UNREADABLE, message)
    uri = of.sources[0].uri
    data = (b"x", "ab") if error is None else (None, None)
    records = [Record(i, uri, None, image_id_of(uri), data[0], sha256=data[1], error=error) for i in range(count)]
    builder = RowBuilder(records_table(of.name, [*records, UnitEnd(count)]))
    for row, _ in builder.encoded():
        builder.add(row, PictureError(Stage.DECODE, ErrorClass.CORRUPT, "bad data"))
    return builder.table()


@pytest.fixture
def loop() -> Iterator[CommitLoop]:
    quiet = cast(Any, Quiet())
    made = CommitLoop(quiet, quiet, lambda of: "", quiet, lambda work, written, seconds: None)
    with ThreadPoolExecutor(1) as pool:
        made._pool, made._writing, made._denied, made._has_read = pool, {}, [], False
        yield made
        made._finish(0)


def give(loop: CommitLoop, of: Unit, table: pa.Table) -> None:
    loop._commit({of.name: UnitWork.whole(of)}, of.name, table)


@pytest.mark.parametrize(
    ("pictures", "errors", "changed", "stops"),
    [(199, 199, 0, False), (200, 101, 0, True), (200, 100, 0, False), (200, 110, 10, False)],
)
def test_the_share_of_errors_is_judged_from_the_200th_picture(
    loop: CommitLoop, pictures: int, errors: int, changed: int, stops: bool
) -> None:
    """Above the share, not at it; what changed meanwhile is tried again, and does not count."""
    loop.max_error_share = 0.5
    loop.changed = {str(number): unit(number).sources[0] for number in range(changed)}
    vars(loop.progress).update(pictures=pictures, errors=errors)
    with pytest.raises(TooManyErrors, match=f"{errors} of 200") if stops else nullcontext():
        loop._judge()
    if pictures == 199:
        with pytest.raises(TooManyErrors):
            loop._judge(at_end=True)
    loop.max_error_share = None


def test_a_run_that_is_denied_everything_stops_and_commits_nothing(loop: CommitLoop) -> None:
    for number in range(3):
        give(loop, unit(number), rows(unit(number), f"{DENIED}s3://bucket/{number}.jpg: 403"))
    with pytest.raises(StopRun, match="no object could be read: permission denied"):
        loop._check_denied(0)
    loop._finish(0)
    assert cast(Any, loop.committer).written == []


def test_many_denied_pictures_stop_it_before_the_end(loop: CommitLoop) -> None:
    with pytest.raises(StopRun, match="GetObject"):
        give(loop, unit(0), rows(unit(0), f"{DENIED}403", DENIED_MOST + 1))


def test_denied_units_are_committed_once_another_object_can_be_read(loop: CommitLoop) -> None:
    give(loop, unit(0), rows(unit(0), f"{DENIED}403"))
    give(loop, unit(1), rows(unit(1), None))
    give(loop, unit(2), rows(unit(2), f"{DENIED}403"))
    loop._check_denied(0)
    loop._finish(0)
    assert cast(Any, loop.committer).written == [unit(number).name for number in range(3)]


def test_a_new_object_that_is_denied_is_a_row_where_what_was_worked_before_can_be_read(loop: CommitLoop) -> None:
    """A finished output would else never be finished again."""
    loop.reads_otherwise = lambda: True
    give(loop, unit(0), rows(unit(0), f"{DENIED}403"))
    loop._check_denied(0)
    loop._finish(0)
    assert cast(Any, loop.committer).written == [unit(0).name]


def test_objects_that_are_gone_are_no_denial(loop: CommitLoop) -> None:
    give(loop, unit(0), rows(unit(0), "s3://bucket/0.jpg: no such object"))
    loop._finish(0)
    assert cast(Any, loop.committer).written == [unit(0).name]


def test_a_part_that_is_not_answered_is_not_committed(loop: CommitLoop, caplog: pytest.LogCaptureFixture) -> None:
    """As where a tar is denied when its error rows are tried again: they stay."""
    whole = Unit((Source("s3://bucket/a.tar", Kind.TAR),), 0)
    part = replace(whole, part=Part(frozenset({3})))
    nothing = RowBuilder(records_table(part.name, [UnitEnd(0)])).table()
    loop._commit({part.name: UnitWork(whole, part)}, part.name, nothing)
    loop._finish(0)
    assert cast(Any, loop.committer).written == []
    assert "s3://bucket/a.tar: cannot be read as it was: its error rows stay" in caplog.text
