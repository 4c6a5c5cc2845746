"""What the driver of one run counts: what is committed, and that it is at work. So nothing is counted twice, whatever
worker had to do it again."""

from __future__ import annotations

import time
from collections.abc import Mapping
from contextlib import ExitStack
from types import TracebackType
from typing import Any

import tinyface_core
from ray_metrics import KeptGauges, StageSeconds, count_retries, made
from signals import INTERRUPTED, TERMINATED, Terminated
from tinyface_core.errors import TinyfaceError
from tinyface_core.logs import current
from tinyface_core.tables.unit_tables import UnitTotals


class RunMetrics:
    """Counts from `start` on, which needs a Ray; a run that finds nothing to do starts nothing.

    The stack is the one on which that Ray was entered: the end of the run is counted while there still is one.
    """

    def __init__(self, command: str, stack: ExitStack) -> None:
        self._command, self._stack = command, stack
        self._metrics: dict[str, Any] = {}
        self._gauges: KeptGauges | None = None
        self._pictures = self._pictures_before = 0

    def start(self, *, model: str = "", precision: str = "", device: str = "") -> None:
        """The run is at work, with these; told once."""
        if self._gauges is not None:
            return
        self._stack.push(self._ended)
        count_retries()
        self._seconds, self._gauges = StageSeconds(), KeptGauges()
        told = {"model": model, "precision": precision, "device": device, "version": tinyface_core.__version__}
        self._gauges.set("tinyface_run_info", 1, command=self._command, run=current().run, **told)

    def begin(self, expected: int) -> None:
        """A round of commits begins, with so many pictures."""
        self._pictures_before = self._pictures
        self.expect(expected)
        self._set("tinyface_last_commit_timestamp_seconds", time.time())

    def expect(self, pictures: int) -> None:
        """So many does this round of work have, as far as is known now."""
        self._set("tinyface_expected_pictures", self._pictures_before + pictures)

    def committed(self, worked: UnitTotals, errors: Mapping[tuple[str, str], int], seconds: float) -> None:
        """A unit of detect_archive.py. errors: by (stage, class). seconds: what its commit took."""
        self._unit(worked, seconds)
        self._add("tinyface_pictures_total", worked.pictures)
        self._add("tinyface_faces_total", worked.faces)
        for (stage, error_class), count in errors.items():
            self._add("tinyface_errors_total", count, error_class=error_class, error_stage=stage)

    def copied(self, worked: UnitTotals, seconds: float) -> None:
        """A unit of redact.py."""
        self._unit(worked, seconds)
        self._add("tinyface_copies_total", worked.pictures - sum(worked.errors.values()))
        self._add("tinyface_masked_faces_total", worked.faces)
        for error_class, count in worked.errors.items():
            self._add("tinyface_copy_errors_total", count, error_class=error_class)

    def _unit(self, worked: UnitTotals, seconds: float) -> None:
        self._pictures += worked.pictures
        self._add("tinyface_units_total", 1)
        self._metric("tinyface_commit_seconds").observe(seconds)
        self._set("tinyface_last_commit_timestamp_seconds", time.time())
        self._seconds.add("commit", seconds)
        self._seconds.tell()

    def _add(self, name: str, count: int, **labels: str) -> None:
        if count > 0:  # Ray refuses 0
            self._metric(name).inc(count, labels)

    def _set(self, name: str, value: float) -> None:
        assert self._gauges is not None, "start comes first"
        self._gauges.set(name, value)

    def _metric(self, name: str) -> Any:
        if name not in self._metrics:
            self._metrics[name] = made(name)
        return self._metrics[name]

    def _ended(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        if self._gauges is not None:
            self._gauges.stop()
        self._add("tinyface_runs_total", 1, command=self._command, exit_code=str(exit_code_of(error)))


def exit_code_of(error: BaseException | None) -> int:
    """What options.run_job ends a job with."""
    if error is None:
        return 0
    if isinstance(error, TinyfaceError):
        return error.exit_code
    return {KeyboardInterrupt: INTERRUPTED, Terminated: TERMINATED}.get(type(error), 1)
