"""The commit loop: units go through the chain in windows, whole ones are committed, each window is settled.

Only the driver writes tables. Encoding and writing run in threads beside the loop.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import pyarrow as pa
import pyarrow.compute as pc

import signals
from prepare import Run
from ray_chain import faces_in, rows_from
from ray_progress import RunProgress
from ray_stages import work_item
from ray_start import Pool
from settle import Indexes, Settling
from tinyface_core.archive.record import CHANGED, DENIED, Source, Unit
from tinyface_core.errors import StopRun, TooManyErrors
from tinyface_core.logs import about
from tinyface_core.report.text import counted
from tinyface_core.tables.collect import UnitCollector
from tinyface_core.tables.commit import Committer, Written
from tinyface_core.tables.redo import UnitWork
from tinyface_core.tables.unit_tables import UnitTotals, sum_totals
from to_do import ToDo

log = logging.getLogger(__name__)

WINDOW_UNITS, WINDOW_SOURCES = 2000, 200_000  # what the driver holds as rows of work, and puts into the object store
COMMIT_THREADS, COMMITS_AHEAD = 4, 16
DENIED_MOST = 1000  # pictures that wait for a first one that can be read
CHANGED_MOST = 100_000  # sources that one run plans again
JUDGED_FROM = 200  # pictures; a smaller sample says little


@dataclass(frozen=True)
class Worked:
    """What one run did.

    totals: of what was worked, twice what was worked twice. units: their names. seconds: from the first work to the
    last commit, start-up left out. changed: sources that were not the planned version when they were read. detect_s:
    seconds that all detectors computed; detectors: the most that there were.
    """

    totals: UnitTotals = UnitTotals()
    units: frozenset[str] = frozenset()
    seconds: float = 0.0
    changed: tuple[Source, ...] = ()
    detect_s: float = 0.0
    detectors: int = 0

    @property
    def duty(self) -> float | None:
        """Share of the detectors' time in which they computed; None where nothing was worked."""
        return self.detect_s / self.seconds / self.detectors if self.seconds and self.detectors else None

    def and_then(self, other: Worked) -> Worked:
        """This, and what was worked after it: whose `changed` is the last word."""
        totals, seconds = sum_totals([self.totals, other.totals]), self.seconds + other.seconds
        detect_s, detectors = self.detect_s + other.detect_s, max(self.detectors, other.detectors)
        return Worked(totals, self.units | other.units, seconds, other.changed, detect_s, detectors)


def work(run: Run, to_do: ToDo, pool: Pool) -> Worked:
    """Works all there is to do. Raises as CommitLoop.work does."""
    run.output.delete_success()
    detecting = run.decided.detecting(run.reading, pool, run.output)
    amount = f"{counted(to_do.units, 'unit')} to work, about {counted(to_do.pictures, 'picture')}"
    log.info("%s, on %s", amount, _told(pool))
    suspects = {name: frozenset(counts) for name, counts in run.output.attempts().items()}
    done: dict[str, UnitTotals] = {}
    runtime = run.decided.runtime
    run.metrics.start(model=run.decided.model.name, precision=runtime.precision, device=runtime.device)
    run.metrics.begin(to_do.pictures)

    def on_commit(work: UnitWork, written: Written, seconds: float) -> None:
        done[work.unit.name], to_do.totals[work.unit.name] = written.worked, written.unit
        run.metrics.committed(written.worked, written.errors, seconds)
        run.metrics.expect(progress.expected)
        if work.part.name in suspects:
            run.output.write_attempts(work.part.name, {})

    def remember(missing: Indexes) -> None:
        for name, indexes in missing.items():
            suspects[name] = indexes
            run.output.write_attempts(name, dict.fromkeys(indexes, 1))

    began = time.monotonic()
    with RunProgress(to_do.pictures) as progress:
        settling = Settling(run.reading, detecting, pool, remember)
        loop = CommitLoop(
            settling,
            run.committer,
            to_do.hash_of,
            progress,
            on_commit,
            run.job.max_error_share,
            lambda: to_do.reads_committed(run.reading.storage),
            on_rows=lambda rows: run.start_up.end("detectors", "first block", pc.sum(rows["detect_s"]).as_py() or 0.0),
        )
        loop.work(to_do, dict(suspects))
        progress.say(now=True)
    seconds, changed = time.monotonic() - began, tuple(loop.changed.values())
    return Worked(sum_totals(done.values()), frozenset(done), seconds, changed, progress.detect_s, pool.largest)


def _told(pool: Pool) -> str:
    count = f"{pool.smallest}" if pool.smallest == pool.largest else f"{pool.smallest} to {pool.largest}"
    share = f"{pool.gpus:g} GPU" if pool.gpus else f"{pool.threads} CPU"
    return f"{count} detector{'s' if pool.largest > 1 else ''} of {share} each"


@dataclass
class CommitLoop:
    """Works units and commits them. hash_of: a unit's sources_hash. on_commit: told of each commit, and its seconds.

    reads_otherwise: whether objects that this run does not work can be read. on_rows: told of each block. changed:
    uri -> source as it was planned, of objects that were another version when they were read.
    """

    settling: Settling
    committer: Committer
    hash_of: Callable[[Unit], str]
    progress: RunProgress
    on_commit: Callable[[UnitWork, Written, float], None]
    max_error_share: float | None = None
    reads_otherwise: Callable[[], bool] = lambda: False
    on_rows: Callable[[pa.Table], None] = lambda _: None
    changed: dict[str, Source] = field(default_factory=dict)

    def work(self, units: Iterable[UnitWork], suspects: Indexes) -> None:
        """Commits every unit, or raises why not.

        Raises:
            StopRun: the store, the cluster or the claim failed. TooManyErrors: above max_error_share.
        """
        with ThreadPoolExecutor(COMMIT_THREADS, thread_name_prefix="commit") as pool:
            self._pool, self._writing = pool, dict[Future[tuple[Written, float]], UnitWork]()
            self._denied, self._has_read = list[tuple[UnitWork, pa.Table]](), False
            try:
                for window in windows(units):
                    self._work_window(window, {name: suspects[name] for name in suspects.keys() & window.keys()})
                self._check_denied(0)
                self._finish(0)
                signals.check()
            except BaseException:
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        self._judge(at_end=True)

    def _work_window(self, units: dict[str, UnitWork], suspects: Indexes) -> None:
        """units: by the name of the part that is worked."""
        collector = UnitCollector()
        settling = self.settling
        parts = {name: work.part for name, work in units.items()}
        work = [work_item(part, settling.reading.carried) for name, part in parts.items() if name not in suspects]
        if work:
            chain = faces_in(work, settling.reading, settling.detecting, settling.pool)
            for table in rows_from(chain, settling.pool):
                signals.check()
                self.progress.came(table)
                self.on_rows(table)
                for whole in collector.add(table):
                    self._commit(units, *whole)
        for whole in settling.settle(parts, collector, suspects):
            self._commit(units, *whole)

    def _commit(self, units: dict[str, UnitWork], name: str, rows: pa.Table) -> None:
        """Writes a whole unit; one of which every object is denied waits until another object can be read."""
        if not units[name].answered(rows):
            unit = units[name].unit
            log.warning(
                "%s: cannot be read as it was: its error rows stay", unit.sources[0].uri, extra={"unit": unit.name}
            )
            return
        if not self._has_read and _all_denied(rows):
            self._denied.append((units[name], rows))
            self._check_denied(DENIED_MOST)
            return
        if rows["sha256"].null_count < len(rows):
            self._denied_are_rows()
        self._submit(units[name], rows)

    def _denied_are_rows(self) -> None:
        """Something can be read: each denial is that object's own affair."""
        self._has_read = True
        for work, waiting in self._denied:
            self._submit(work, waiting)
        self._denied.clear()

    def _submit(self, work: UnitWork, rows: pa.Table) -> None:
        self._note_changed(work, rows)
        self._writing[self._pool.submit(self._write, work, self.hash_of(work.unit), rows)] = work
        self._finish(COMMITS_AHEAD)

    def _write(self, work: UnitWork, sources_hash: str, rows: pa.Table) -> tuple[Written, float]:
        """The commit, and the seconds that it took; in a thread."""
        began = time.monotonic()
        with about(unit=work.unit.name):
            written = self.committer.write(work, sources_hash, rows)
        return written, time.monotonic() - began

    def _note_changed(self, work: UnitWork, rows: pa.Table) -> None:
        uris = set(rows.filter(pc.starts_with(rows["error_message"], CHANGED))["uri"].to_pylist())
        found = [source for source in work.part.sources if source.uri in uris]
        self.changed |= {source.uri: source for source in found[: CHANGED_MOST - len(self.changed)]}

    def _check_denied(self, most: int) -> None:
        """Raises StopRun where more than `most` pictures wait, and nothing at all can be read."""
        if sum(len(rows) for _, rows in self._denied) <= most:
            return
        if self.reads_otherwise():
            self._denied_are_rows()
        else:
            raise StopRun(
                f"no object could be read: {self._denied[0][1]['error_message'][0].as_py()}. Check the credentials and "
                "the right to read (on S3, GetObject beside ListBucket); the same command goes on."
            )

    def _finish(self, ahead: int) -> None:
        """Takes in what is written; waits for the oldest while more than `ahead` are under way."""
        for future, work in list(self._writing.items()):
            if future.done() or len(self._writing) > ahead:
                written, seconds = future.result()
                del self._writing[future]
                self.progress.committed(written.worked, work.expected)
                self.on_commit(work, written, seconds)
        self._judge()

    def _judge(self, *, at_end: bool = False) -> None:
        pictures, errors, most = self.progress.pictures, self.progress.errors, self.max_error_share
        errors -= len(self.changed)  # they are tried again
        if most is not None and pictures and (at_end or pictures >= JUDGED_FROM) and errors > most * pictures:
            raise TooManyErrors(
                f"{errors} of {pictures} pictures of this run are error rows, above --max-error-share {most:g}. "
                "They are committed; see error_class in the images table, mend the cause and run it again with "
                "--retry errors."
            )


def _all_denied(rows: pa.Table) -> bool:
    """Whether every picture of a unit is an error row for want of permission; False for a unit without pictures."""
    denied = pc.sum(pc.starts_with(rows["error_message"], DENIED)).as_py() or 0
    pictures = len(rows) - rows["status"].null_count
    return bool(pictures) and int(denied) == pictures


def windows(units: Iterable[UnitWork]) -> Iterator[dict[str, UnitWork]]:
    """The units by the name of what is worked of them, some thousands at a time."""
    window: dict[str, UnitWork] = {}
    sources = 0
    for work in units:
        window[work.part.name] = work
        sources += len(work.unit.sources)
        if len(window) >= WINDOW_UNITS or sources >= WINDOW_SOURCES:
            yield window
            window, sources = {}, 0
    if window:
        yield window
