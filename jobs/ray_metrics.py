"""Every metric of the jobs, in one table, and how a process of Ray counts it. docs/observing.md explains them.

Ray puts `ray_` before each name, and its own labels beside ours (SessionName, NodeAddress, WorkerId, ...). Each
process sends its counts to the agent of its node, which Prometheus asks; where no agent listens they are dropped. A
label's values are few and known: never a uri, a unit or a name of a picture.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Literal, TypeVar

from tinyface_core.errors import ErrorClass, Stage
from tinyface_core.storage import on_retry

T = TypeVar("T")
COMMANDS = ("detect_archive", "redact", "train")
STAGES = ("read", "decode", "detect", "redact", "commit")
ACTIONS = ("reading", "writing", "listing", "deleting", "asking")
EXIT_CODES = ("0", "1", "2", "3", "130", "143")
AGAIN_S = 1.0  # the shortest interval at which Ray takes metrics
FREE = ("run", "model", "precision", "device", "version")  # of the one metric that tells of a run


@dataclass(frozen=True)
class Metric:
    """labels: name -> the values that it may have; none: free, one a run. buckets: upper bounds of a histogram."""

    kind: Literal["counter", "gauge", "histogram"]
    about: str
    labels: dict[str, tuple[str, ...]] = field(default_factory=dict)
    buckets: tuple[float, ...] = ()


_ERRORS = {"error_class": tuple(each.value for each in ErrorClass)}

METRICS = {
    "tinyface_run_info": Metric(
        "gauge",
        "1 while a run is at work; its labels say what it runs with.",
        {"command": COMMANDS, **dict.fromkeys(FREE, ())},
    ),
    "tinyface_runs_total": Metric(
        "counter", "Runs that ended, by exit code.", {"command": COMMANDS, "exit_code": EXIT_CODES}
    ),
    "tinyface_expected_pictures": Metric("gauge", "Pictures that this run has to work, as far as it knows."),
    "tinyface_pictures_total": Metric("counter", "Pictures committed, error rows among them."),
    "tinyface_faces_total": Metric("counter", "Faces committed."),
    "tinyface_errors_total": Metric(
        "counter",
        "Error rows committed, by what was wrong and where.",
        {**_ERRORS, "error_stage": tuple(each.value for each in Stage)},
    ),
    "tinyface_units_total": Metric("counter", "Units committed."),
    "tinyface_commit_seconds": Metric(
        "histogram",
        "Time that one commit took, retries of the store included.",
        buckets=(0.02, 0.05, 0.1, 0.2, 0.5, 1.0, 2.0, 5.0, 10.0, 20.0),
    ),
    "tinyface_last_commit_timestamp_seconds": Metric(
        "gauge", "When the latest unit was committed, in Unix time; before the first one, when the work began."
    ),
    "tinyface_copies_total": Metric("counter", "Copies with hidden faces, committed by redact.py."),
    "tinyface_masked_faces_total": Metric("counter", "Faces hidden in these."),
    "tinyface_copy_errors_total": Metric("counter", "Pictures without a copy, by what was wrong.", _ERRORS),
    "tinyface_stage_seconds_total": Metric(
        "counter",
        "Time spent at work in each stage, of all processes; what was done twice counts twice.",
        {"stage": STAGES},
    ),
    "tinyface_detectors": Metric("gauge", "1 for each process that holds a detector, as long as it lives."),
    "tinyface_store_retries_total": Metric(
        "counter", "Requests to a store that were tried again, by what was done.", {"action": ACTIONS}
    ),
    "tinyface_train_crops_total": Metric("counter", "Training crops that all workers learned from."),
    "tinyface_train_loss": Metric("gauge", "Loss since the latest report, a crop.", {"part": ("labels", "boxes")}),
    "tinyface_train_waiting_ratio": Metric("gauge", "Share of a worker's time in which it waited for crops."),
    "tinyface_train_validation_ratio": Metric("gauge", "Average precision on the fixed crops, 0 to 1, latest epoch."),
}


def made(name: str) -> Any:
    """The metric of this name, ready to count in this process: with `inc`, `set` or `observe`."""
    # Here alone: stages are imported before ray_start, which sets what Ray reads as it is imported.
    from ray.util.metrics import Counter, Gauge, Histogram

    metric = METRICS[name]
    given = {"description": metric.about, "tag_keys": tuple(metric.labels)}
    if metric.kind == "histogram":
        return Histogram(name, boundaries=list(metric.buckets), **given)
    # Ray's exporter puts `_total` behind a counter's name.
    return Gauge(name, **given) if metric.kind == "gauge" else Counter(name.removesuffix("_total"), **given)


def count_retries() -> None:
    """From now on this process counts what its stores try again."""
    counter = made("tinyface_store_retries_total")
    on_retry(lambda action: counter.inc(1, {"action": action}))


class KeptGauges:
    """Gauges that a process tells as long as it lives.

    Ray takes a gauge's value once, and forgets it after two intervals: so a thread sets each again and again.
    """

    def __init__(self) -> None:
        self._told: dict[tuple[str, tuple[tuple[str, str], ...]], tuple[Any, float]] = {}
        self._stopped = threading.Event()
        threading.Thread(target=self._tell_again, name="tinyface-gauges", daemon=True).start()

    def set(self, name: str, value: float, **labels: str) -> None:
        key = name, tuple(labels.items())
        metric = self._told[key][0] if key in self._told else made(name)
        metric.set(value, labels)
        self._told[key] = metric, value

    def stop(self) -> None:
        """From now on they are left to be forgotten."""
        self._stopped.set()

    def _tell_again(self) -> None:
        while not self._stopped.wait(AGAIN_S):
            for (_, labels), (metric, value) in list(self._told.items()):
                metric.set(value, dict(labels))


class StageSeconds:
    """Adds up the time that this process spends in stages; tells Ray when asked to: a block at a time costs nothing."""

    def __init__(self) -> None:
        self._counter = made("tinyface_stage_seconds_total")
        self._seconds: dict[str, float] = {}

    def add(self, stage: str, seconds: float) -> None:
        self._seconds[stage] = self._seconds.get(stage, 0.0) + seconds

    def timed(self, stage: str, values: Iterable[T]) -> Iterator[T]:
        """The same values; the time that each takes to come is the stage's."""
        following = iter(values)
        while True:
            began = time.perf_counter()
            try:
                value = next(following)
            except StopIteration:
                return
            finally:
                self.add(stage, time.perf_counter() - began)
            yield value

    def tell(self) -> None:
        for stage, seconds in self._seconds.items():
            if seconds > 0:
                self._counter.inc(seconds, {"stage": stage})
        self._seconds.clear()
