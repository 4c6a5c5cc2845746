"""The redaction job's chain and its commit loop: committed units -> pictures -> copies and rows -> results.

Only the driver writes results, and only of whole units, once all of their copies are there. What a worker that died
took along is tried again, each picture in a block of its own; what still fails becomes an error row, without a copy.
"""

from __future__ import annotations

import logging
import time
import warnings
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from itertools import islice

import pyarrow as pa
import pyarrow.compute as pc
import ray
from ray.data import ActorPoolStrategy, Dataset, TaskPoolStrategy
from ray.util.annotations import RayDeprecationWarning

import redact_stages
import signals
from ray_chain import configure_ray_data, rows_from
from ray_progress import RunProgress
from ray_start import READER_CPUS, Pool
from redact_stages import Redacting, RedactPictures, item_of, one_a_block, read_pictures
from settle import ALONE_MOST, PARTS, missing_in, split
from tinyface_core.archive.record import Unit
from tinyface_core.errors import ErrorClass, StopRun
from tinyface_core.redact.copies import row_of
from tinyface_core.redact.pictures import examined
from tinyface_core.redact.results import NOT_EXAMINED, ResultFiles, end_row, rows_table, unit_results
from tinyface_core.tables.collect import UnitCollector
from tinyface_core.tables.footer import CommitRecord
from tinyface_core.tables.unit_tables import UnitTotals, sum_totals

log = logging.getLogger(__name__)
ray.cloudpickle.register_pickle_by_value(redact_stages)  # as ray_stages, in ray_chain

WINDOW_UNITS = 500
WAITING_MOST = 1000  # pictures that wait for a first one that can be read
COMMIT_THREADS, COMMITS_AHEAD = 4, 16
_LOST = "its process died whenever it was tried; see Ray's logs"

Item = dict[str, bytes | str]


@dataclass(frozen=True)
class Committed:
    """A unit of the plan with what detect_archive.py committed of it."""

    unit: Unit
    record: CommitRecord


def copies_in(work: Sequence[Item], redacting: Redacting, pool: Pool) -> Dataset:
    """Committed units -> pictures with their faces -> copies, written; one row a picture, in no order."""
    configure_ray_data(redacting.block_bytes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", RayDeprecationWarning)  # as in ray_chain.faces_in
        return (
            ray.data.from_items(list(work), override_num_blocks=len(work))
            .map_batches(
                read_pictures,
                batch_size=None,
                batch_format="pyarrow",
                fn_kwargs={"redacting": redacting},
                compute=TaskPoolStrategy(size=max(2, pool.largest)),
                num_cpus=READER_CPUS,  # differs from the actors', or Ray would fuse reading into them
                max_retries=2,
            )
            .map_batches(
                RedactPictures,
                batch_size=None,
                batch_format="pyarrow",
                fn_constructor_kwargs={"redacting": redacting},
                compute=ActorPoolStrategy(min_size=pool.smallest, max_size=pool.largest, initial_size=pool.smallest),
                num_cpus=pool.cpus,
                max_restarts=20,
                max_task_retries=1,
            )
        )


@dataclass(frozen=True)
class CopyLoop:
    """Works units and commits them.

    on_commit: told of each and of its seconds, from the driver's thread. reads_otherwise: whether a picture that was
    copied before can be read today; asked only where none of this run can.
    """

    redacting: Redacting
    pool: Pool
    results: ResultFiles
    progress: RunProgress
    on_commit: Callable[[str, UnitTotals, float], None]
    reads_otherwise: Callable[[], bool] = lambda: False

    def work(self, units: Iterable[Committed]) -> UnitTotals:
        """Commits every unit; gives the counts of all.

        Raises:
            StopRun: the store, the cluster or the claim failed, or no picture at all can be read.
        """
        writing: dict[Future[tuple[UnitTotals, float]], Committed] = {}
        done: list[UnitTotals] = []

        def finish(ahead: int) -> None:
            for future, work in list(writing.items()):
                if future.done() or len(writing) > ahead:
                    totals, seconds = future.result()
                    del writing[future]
                    done.append(totals)
                    self.on_commit(work.unit.name, totals, seconds)
                    self.progress.committed(totals, work.record.totals.pictures)

        with ThreadPoolExecutor(COMMIT_THREADS, thread_name_prefix="commit") as threads:
            try:
                with closing(self._worked(units)) as worked:  # before Ray goes: Ray Data would wait for it for ever
                    for work, rows in once_one_is_read(worked, self.reads_otherwise):
                        writing[threads.submit(self._write, work.unit.name, work.record.commit, rows)] = work
                        finish(COMMITS_AHEAD)
                finish(0)
                signals.check()
            except BaseException:
                threads.shutdown(wait=False, cancel_futures=True)
                raise
        return sum_totals(done)

    def _write(self, name: str, commit: str, rows: pa.Table) -> tuple[UnitTotals, float]:
        """The commit, and the seconds that it took; in a thread."""
        began = time.monotonic()
        return self.results.write(name, commit, unit_results(rows)), time.monotonic() - began

    def _worked(self, units: Iterable[Committed]) -> Generator[tuple[Committed, pa.Table]]:
        """Each unit with all of its rows, window by window."""
        following = iter(units)
        while window := {work.unit.name: work for work in islice(following, WINDOW_UNITS)}:
            for name, rows in self._whole(window):
                yield window[name], rows

    def _whole(self, window: Mapping[str, Committed]) -> Iterator[tuple[str, pa.Table]]:
        """Each unit of the window once, with all of its rows."""
        collector, units = UnitCollector(), {name: work.unit for name, work in window.items()}
        yield from self._through_chain([item_of(work.unit, work.record) for work in window.values()], collector)
        before, parts = None, 1
        while (missing := missing_in(units, collector)) and missing != before:
            before = missing
            log.warning("%d units are not whole: what they lack is tried again, one picture a block", len(missing))
            items = [
                item_of(units[name], window[name].record, part)
                for name, indexes in missing.items()
                for part in split(indexes, parts)
            ]
            yield from self._through_chain(items, collector, alone=True)
            parts = PARTS
        yield from self._lost(window, missing, collector)

    def _through_chain(
        self, items: Sequence[Item], collector: UnitCollector, *, alone: bool = False
    ) -> Iterator[tuple[str, pa.Table]]:
        redacting = one_a_block(self.redacting) if alone else self.redacting
        for table in rows_from(copies_in(items, redacting, self.pool), self.pool):
            signals.check()
            self.progress.came(_seen(table))
            yield from collector.add(table)

    def _lost(
        self, window: Mapping[str, Committed], missing: Mapping[str, frozenset[int] | None], collector: UnitCollector
    ) -> Iterator[tuple[str, pa.Table]]:
        """Error rows for what no worker survives; raises StopRun where that is so much that the cluster is at fault."""
        if not missing:
            return
        wanted = {
            name: frozenset(range(window[name].record.totals.pictures)) if indexes is None else indexes
            for name, indexes in missing.items()
        }
        if (pictures := sum(map(len, wanted.values()))) > ALONE_MOST:
            raise StopRun(
                f"{pictures:,} pictures got no result though tried again: so many are not at fault themselves. "
                "See Ray's logs for why its workers die; what is committed stays, the same command resumes."
            )
        for name, indexes in wanted.items():
            record, redacting = window[name].record, self.redacting
            pictures_of = examined(redacting.storage, record, redacting.redaction.min_score)
            lost = [each for each in pictures_of.values() if each.index in indexes]
            rows = [row_of(name, record.commit, each, (ErrorClass.INTERNAL.value, _LOST)) for each in lost]
            yield from collector.add(rows_table([*rows, end_row(name, len(pictures_of))]))


def once_one_is_read(
    units: Iterable[tuple[Committed, pa.Table]], reads_otherwise: Callable[[], bool]
) -> Iterator[tuple[Committed, pa.Table]]:
    """The same units; those of which no picture could be read wait for a first one that could.

    Else a run with the credentials of somebody else, or without the disk that the pictures are on, would end well,
    without a copy. Raises: StopRun.
    """
    waiting: list[tuple[Committed, pa.Table]] = []
    unread, is_read = 0, False
    for work, rows in units:
        waiting.append((work, rows))
        outcomes = _outcomes(rows)
        is_read = is_read or any(outcome != ErrorClass.UNREADABLE for outcome in outcomes)
        unread += len(outcomes)
        if not is_read and unread > WAITING_MOST:
            is_read = _is_read(reads_otherwise, waiting)
        if is_read:
            yield from waiting
            waiting.clear()
    if unread and not is_read:
        _is_read(reads_otherwise, waiting)
    yield from waiting


def _outcomes(rows: pa.Table) -> list[str | None]:
    """The error class of each picture that was examined; None: it has its copy."""
    records = rows.filter(pc.equal(rows["kind"], "record"))
    return [outcome for outcome in records["error_class"].to_pylist() if outcome != NOT_EXAMINED]


def _is_read(reads_otherwise: Callable[[], bool], waiting: Sequence[tuple[Committed, pa.Table]]) -> bool:
    """True, as each picture that waits is then at fault itself. Raises StopRun."""
    if reads_otherwise():
        return True
    why = next(text for _, rows in waiting for text in rows["error_message"].to_pylist() if text)
    raise StopRun(
        f"no picture can be read: {why}. Are they where they were, and may they be read with these credentials (on S3, "
        "GetObject)? No copy was made; the same command goes on."
    )


def _seen(rows: pa.Table) -> pa.Table:
    """What RunProgress counts."""
    seconds = pa.nulls(len(rows), pa.float32())
    return pa.table(
        {"status": rows["status"], "num_faces": pc.cast(rows["faces_masked"], pa.int32()), "detect_s": seconds}
    )
