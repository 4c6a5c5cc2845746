"""Progress that a person can read, from the commit loop: what is committed is what is done.

A bar in a terminal; a line every ten seconds in plain logs.
"""

from __future__ import annotations

import logging
import sys
import time
from types import TracebackType
from typing import Self

from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeElapsedColumn

from tinyface_core.tables.unit_tables import UnitTotals

log = logging.getLogger("progress")

LOG_EVERY_S = 10.0


class RunProgress:
    """Counts of this run. rate and time left are over the time since work began, start-up not counted."""

    def __init__(self, expected_pictures: int) -> None:
        self.expected = expected_pictures
        self.pictures = self.faces = self.errors = 0
        self._began = self._logged = time.monotonic()
        console = Console(stderr=True)
        self._bar: Progress | None = None
        if sys.stderr.isatty():
            columns = (TextColumn("{task.description}"), BarColumn(), MofNCompleteColumn(), TimeElapsedColumn())
            self._bar = Progress(*columns, TextColumn("{task.fields[said]}"), console=console)
            self._task = self._bar.add_task("pictures", total=expected_pictures or None, said="")

    def __enter__(self) -> Self:
        if self._bar:
            self._bar.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._bar:
            self._bar.stop()

    def committed(self, totals: UnitTotals, expected: int) -> None:
        """Takes one unit's counts in; expected: the pictures that it was thought to hold."""
        self.expected += totals.pictures - expected
        self.pictures += totals.pictures
        self.faces += totals.faces
        self.errors += sum(totals.errors.values())
        self.say()

    def say(self, *, now: bool = False) -> None:
        """Updates the bar, or logs a line when one is due."""
        if self._bar:
            self._bar.update(self._task, completed=self.pictures, total=self.expected or None, said=self._rates())
        elif now or time.monotonic() - self._logged >= LOG_EVERY_S:
            self._logged = time.monotonic()
            log.info("%s of about %s pictures, %s", f"{self.pictures:,}", f"{self.expected:,}", self._rates())

    @property
    def pictures_per_s(self) -> float:
        return self.pictures / max(1e-9, time.monotonic() - self._began)

    def _rates(self) -> str:
        rate = self.pictures_per_s
        left = f"{_clock((self.expected - self.pictures) / rate)} left" if rate else "time left unknown yet"
        return f"{rate:.2f} pictures/s, {self.faces:,} faces, {self.errors:,} errors, {left}"


def _clock(seconds: float) -> str:
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}"
