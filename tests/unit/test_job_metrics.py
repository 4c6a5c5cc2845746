"""The table of metrics, and what the driver and the stages count; without a Ray."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator
from contextlib import ExitStack, nullcontext
from typing import Any

import pyarrow as pa
import pytest

import ray_metrics
import run_metrics
from ray_metrics import METRICS, KeptGauges, StageSeconds, count_retries, made
from run_metrics import RunMetrics, exit_code_of
from signals import Terminated
from tinyface_core.archive.record import Record, UnitEnd, image_id_of
from tinyface_core.errors import ErrorClass, PictureError, SettingsError, Stage, StopRun, StorageError, TooManyErrors
from tinyface_core.stores import base
from tinyface_core.stores.base import Transient, with_retries
from tinyface_core.tables.rows import RowBuilder, records_table
from tinyface_core.tables.unit_tables import UnitTotals, unit_tables

Key = tuple[str, tuple[tuple[str, str], ...]]


class Counted:
    """Stands in for Ray's metrics: (name, labels) -> value, all values of a histogram."""

    def __init__(self) -> None:
        self.values: dict[Key, Any] = {}

    def made(self, name: str) -> Any:
        assert name in METRICS
        counted = self

        class One:
            def inc(self, value: float, labels: dict[str, str] | None = None) -> None:
                assert value > 0, "Ray refuses it"
                key = counted.key(name, labels)
                counted.values[key] = counted.values.get(key, 0) + value

            def set(self, value: float, labels: dict[str, str] | None = None) -> None:
                counted.values[counted.key(name, labels)] = value

            def observe(self, value: float, labels: dict[str, str] | None = None) -> None:
                counted.values.setdefault(counted.key(name, labels), []).append(value)

        return One()

    def key(self, name: str, labels: dict[str, str] | None) -> Key:
        assert set(labels or {}) == set(METRICS[name].labels)
        for label, value in (labels or {}).items():
            assert not METRICS[name].labels[label] or value in METRICS[name].labels[label]
        return name, tuple(sorted((labels or {}).items()))

    def of(self, name: str, **labels: str) -> Any:
        return self.values.get((name, tuple(sorted(labels.items()))))


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Iterator[Counted]:
    found = Counted()
    monkeypatch.setattr(ray_metrics, "made", found.made)
    monkeypatch.setattr(run_metrics, "made", found.made)
    monkeypatch.setattr(base, "_listener", None)
    return found


@pytest.mark.parametrize("name", METRICS)
def test_names_are_as_prometheus_wants_them(name: str) -> None:
    """Ours begin alike, counters end in _total and nothing else does, time is in seconds, shares are ratios."""
    metric = METRICS[name]
    assert re.fullmatch(r"tinyface(_[a-z]+)+", name)
    assert name.endswith("_total") == (metric.kind == "counter")
    assert not re.search(r"_(ms|milliseconds|minutes|percent|kb|mb|count|sum|bucket)(_|$)", name)
    assert metric.about.endswith(".")
    assert bool(metric.buckets) == (metric.kind == "histogram")
    assert list(metric.buckets) == sorted(metric.buckets)


def test_every_label_has_few_values_but_those_that_tell_of_a_run() -> None:
    free = {name: label for name, metric in METRICS.items() for label, values in metric.labels.items() if not values}
    assert set(free) == {"tinyface_run_info"}
    assert all(len(values) <= 16 for metric in METRICS.values() for values in metric.labels.values())


@pytest.mark.parametrize("name", METRICS)
def test_each_can_be_counted_where_no_ray_listens(name: str) -> None:
    """So a process whose node has no agent goes on as if nothing were."""
    metric, one = METRICS[name], made(name)
    labels = {label: (values or ("any",))[0] for label, values in metric.labels.items()}
    getattr(one, {"counter": "inc", "gauge": "set", "histogram": "observe"}[metric.kind])(1.0, labels)


def test_what_is_committed_is_counted_by_the_driver(counted: Counted) -> None:
    with ExitStack() as stack:
        metrics = RunMetrics("detect_archive", stack)
        metrics.start(model="tiny", precision="fp32", device="cpu")
        metrics.start(model="another")
        metrics.begin(7)
        errors = {("decode", "corrupt"): 2, ("read", "unreadable"): 1}
        metrics.committed(UnitTotals(5, 9, {"corrupt": 2, "unreadable": 1}), errors, 0.25)
        metrics.committed(UnitTotals(2, 0), {}, 0.75)
        metrics.begin(3)  # sources that changed meanwhile
        metrics.committed(UnitTotals(3, 1), {}, 1.0)
    assert counted.of("tinyface_pictures_total") == 10
    assert counted.of("tinyface_faces_total") == 10
    assert counted.of("tinyface_units_total") == 3
    assert counted.of("tinyface_errors_total", error_class="corrupt", error_stage="decode") == 2
    assert counted.of("tinyface_errors_total", error_class="unreadable", error_stage="read") == 1
    assert counted.of("tinyface_commit_seconds") == [0.25, 0.75, 1.0]
    assert counted.of("tinyface_stage_seconds_total", stage="commit") == 2.0
    assert counted.of("tinyface_expected_pictures") == 10
    assert counted.of("tinyface_runs_total", command="detect_archive", exit_code="0") == 1
    info = [dict(labels) for name, labels in counted.values if name == "tinyface_run_info"]
    assert [(each["command"], each["model"], each["precision"], each["device"]) for each in info] == [
        ("detect_archive", "tiny", "fp32", "cpu")
    ]


def test_copies_are_counted_apart_from_pictures(counted: Counted) -> None:
    with ExitStack() as stack:
        metrics = RunMetrics("redact", stack)
        metrics.start()
        metrics.begin(4)
        metrics.copied(UnitTotals(4, 6, {"unreadable": 1}), 0.5)
    assert counted.of("tinyface_copies_total") == 3
    assert counted.of("tinyface_masked_faces_total") == 6
    assert counted.of("tinyface_copy_errors_total", error_class="unreadable") == 1
    assert counted.of("tinyface_pictures_total") is None
    assert counted.of("tinyface_units_total") == 1


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (StorageError("away"), 1),
        (TooManyErrors("many"), 3),
        (SettingsError("late"), 2),
        (KeyboardInterrupt(), 130),
        (Terminated(), 143),
        (ZeroDivisionError(), 1),
        (None, 0),
    ],
)
def test_the_end_of_a_run_is_counted_by_its_exit_code(counted: Counted, error: BaseException | None, code: int) -> None:
    assert exit_code_of(error) == code
    with pytest.raises(type(error)) if error is not None else nullcontext(), ExitStack() as stack:
        RunMetrics("train", stack).start()
        if error is not None:
            raise error
    assert counted.of("tinyface_runs_total", command="train", exit_code=str(code)) == 1


def test_a_gauge_is_told_again_and_again_until_it_is_stopped(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    """Ray forgets one that is not set again."""
    monkeypatch.setattr(ray_metrics, "AGAIN_S", 0.005)
    gauges = KeptGauges()
    gauges.set("tinyface_train_loss", 0.5, part="labels")
    gauges.set("tinyface_train_loss", 0.25, part="labels")
    counted.values.clear()
    deadline = time.monotonic() + 30
    while not counted.values:
        assert time.monotonic() < deadline
        time.sleep(0.002)
    assert counted.of("tinyface_train_loss", part="labels") == 0.25
    gauges.stop()


def test_a_run_that_finds_nothing_to_do_counts_nothing(counted: Counted) -> None:
    with ExitStack() as stack:
        RunMetrics("detect_archive", stack)
    assert counted.values == {}


def test_seconds_of_a_stage_are_told_once_and_whole(counted: Counted, monkeypatch: pytest.MonkeyPatch) -> None:
    now = iter([10.0, 11.0, 20.0, 20.5, 30.0, 30.25])
    monkeypatch.setattr(ray_metrics.time, "perf_counter", lambda: next(now))
    seconds = StageSeconds()
    assert list(seconds.timed("read", "ab")) == ["a", "b"]  # the time to find the end counts too
    seconds.tell()
    seconds.tell()
    seconds.add("detect", 0.0)
    seconds.tell()
    assert counted.of("tinyface_stage_seconds_total", stage="read") == 1.75
    assert counted.of("tinyface_stage_seconds_total", stage="detect") is None


def test_a_reader_that_fails_has_spent_its_time_all_the_same(counted: Counted) -> None:
    def broken() -> Iterator[int]:
        yield 1
        raise StopRun("no")

    seconds = StageSeconds()
    with pytest.raises(StopRun):
        list(seconds.timed("read", broken()))
    seconds.tell()
    assert counted.of("tinyface_stage_seconds_total", stage="read") > 0


def test_each_try_that_a_store_repeats_is_counted_by_what_was_done(counted: Counted) -> None:
    count_retries()
    left = [Transient("503"), Transient("503")]

    def attempt() -> str:
        if left:
            raise left.pop()
        return "done"

    assert with_retries(attempt, "reading s3://bucket/key with spaces") == "done"
    assert with_retries(lambda: "at once", "writing s3://bucket/key") == "at once"
    assert counted.values == {("tinyface_store_retries_total", (("action", "reading"),)): 2}


def test_error_rows_are_told_by_stage_and_class() -> None:
    def record(index: int, stage: Stage, error_class: ErrorClass) -> Record:
        uri, error = f"file:///{index}.jpg", PictureError(stage, error_class, "why")
        return Record(index, uri, None, image_id_of(uri), data=None, error=error)

    records = [
        record(0, Stage.READ, ErrorClass.UNREADABLE),
        record(1, Stage.ARCHIVE, ErrorClass.CORRUPT),
        record(2, Stage.READ, ErrorClass.UNREADABLE),
    ]
    rows: pa.Table = RowBuilder(records_table("u", [*records, UnitEnd(3)])).table()
    tables = unit_tables("u", rows)
    assert tables.errors_by_stage() == {("read", "unreadable"): 2, ("archive", "corrupt"): 1}
    assert tables.totals.errors == {"unreadable": 2, "corrupt": 1}
