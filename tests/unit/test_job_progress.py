"""What a run says of itself in plain logs."""

from __future__ import annotations

import logging
import time

import pyarrow as pa
import pytest

import ray_progress
from ray_progress import RunProgress
from tinyface_core.tables.unit_tables import UnitTotals
from work import Worked


def rows(*status: str) -> pa.Table:
    took = [0.5 if one == "ok" else None for one in status]
    faces = pa.array([1] * len(status), pa.int32())
    return pa.table({"status": list(status), "num_faces": faces, "detect_s": pa.array(took, pa.float32())})


def test_seconds_of_detectors_are_summed_over_all_blocks() -> None:
    progress = RunProgress(5)
    progress.came(rows("ok", "error", "ok"))
    progress.came(rows("error"))
    progress.came(rows("ok"))
    assert progress.detect_s == 1.5


def test_duty_is_the_share_of_the_detectors_time() -> None:
    first = Worked(seconds=10.0, detect_s=12.0, detectors=2)
    assert first.duty == 0.6
    assert first.and_then(Worked(seconds=10.0, detect_s=4.0, detectors=1)).duty == 0.4
    assert Worked().duty is None


def test_a_run_says_that_it_waits_while_no_picture_comes(
    caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(ray_progress, "LOG_EVERY_S", 0.02)
    with RunProgress(7):
        deadline = time.monotonic() + 30
        while not caplog.messages:
            assert time.monotonic() < deadline
            time.sleep(0.01)
    assert caplog.messages[0] == (
        "0 of about 7 pictures, 0 faces, 0 errors, 0 committed, waiting for the first picture"
    )


def test_what_came_and_what_is_committed_are_told_apart(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    progress = RunProgress(3)
    progress.came(rows("ok", "error"))
    progress.say(now=True)
    assert caplog.messages[-1] == "2 of about 3 pictures, 2 faces, 1 error, 0 committed"
    progress.committed(UnitTotals(pictures=2, faces=1, errors={"corrupt": 1}), expected=2)
    progress.say(now=True)
    assert caplog.messages[-1].startswith("2 of about 3 pictures, 2 faces, 1 error, 2 committed")
