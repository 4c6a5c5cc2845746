"""Progress that a person can read: what came out of the detectors, and how much of it is committed.

A bar in a terminal; a line every ten seconds in plain logs.
"""

from __future__ import annotations

import logging
import sys
import threading
import time
from types import TracebackType
from typing import Self

import pyarrow as pa
import pyarrow.compute as pc
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tinyface_core.logs import current
from tinyface_core.report.text import counted
from tinyface_core.tables.unit_tables import UnitTotals

log = logging.getLogger("progress")

LOG_EVERY_S, RATE_AFTER_S = 10.0, 5.0


class RunProgress:
    """Counts of this run. Rate and time left are taken from the first block on: start-up is not counted.

    expected: pictures that there are to work, corrected as units tell how many they hold. pictures, faces, errors:
    committed. seen: rows that came out of the detectors, committed or not. detect_s: seconds of all detectors in these.
    """

    def __init__(self, expected: int) -> None:
        self.expected = expected
        self.pictures = self.faces = self.errors = 0
        self.detect_s = 0.0
        self._seen = self._seen_faces = self._seen_errors = 0
        self._began: float | None = None
        self._first = 0  # rows of the first block, whose time nobody knows
        self._logged = time.monotonic()
        self._ended = threading.Event()
        self._bar: Progress | None = None
        if sys.stderr.isatty() and current().form == "text":
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[said]}"), console=Console(stderr=True))
            self._task = self._bar.add_task("pictures", total=expected or None, said="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        threading.Thread(target=self._tick, daemon=True).start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._ended.set()
        if self._bar:
            self._bar.stop()

    def _tick(self) -> None:
        """A run says that it lives also while no block comes: the first may take minutes."""
        while not self._ended.wait(LOG_EVERY_S):
            self.say()

    def came(self, rows: pa.Table) -> None:
        """Takes a block of rows in, as the chain gives it."""
        is_error = pc.equal(rows["status"], "error")
        self._seen += len(rows) - rows["status"].null_count  # the markers between the pictures have none
        self._seen_errors += pc.sum(is_error).as_py() or 0
        self._seen_faces += pc.sum(rows["num_faces"]).as_py() or 0
        self.detect_s += pc.sum(rows["detect_s"]).as_py() or 0.0
        if self._began is None:
            self._began, self._first = time.monotonic(), self._seen
        self.say()

    def committed(self, totals: UnitTotals, expected: int) -> None:
        """Takes one unit's counts in; expected: the pictures that it was thought to hold."""
        self.expected += totals.pictures - expected
        self.pictures += totals.pictures
        self.faces += totals.faces
        self.errors += sum(totals.errors.values())
        self.say()

    def say(self, *, now: bool = False) -> None:
        """Updates the bar, or logs a line when one is due."""
        done = max(self.pictures, min(self._seen, self.expected))  # a replayed block is seen twice
        if self._bar:
            self._bar.update(self._task, completed=done, total=self.expected or None, said=self._told(done))
        elif now or time.monotonic() - self._logged >= LOG_EVERY_S:
            self._logged = time.monotonic()
            log.info("%s of about %s pictures, %s", f"{done:,}", f"{self.expected:,}", self._told(done))

    def _told(self, done: int) -> str:
        faces, errors = max(self.faces, self._seen_faces), max(self.errors, self._seen_errors)
        counts = f"{counted(faces, 'face')}, {counted(errors, 'error')}, {self.pictures:,} committed"
        if self._began is None:
            return f"{counts}, waiting for the first picture"
        passed_s = time.monotonic() - self._began
        rate = (done - self._first) / max(1e-3, passed_s)
        if rate <= 0 or passed_s < RATE_AFTER_S:  # blocks come in bursts
            return counts
        return f"{rate:.2f} pictures/s, {counts}, {_clock((self.expected - done) / rate)} left"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
