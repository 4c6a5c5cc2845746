"""SIGTERM and SIGINT end a run within seconds, with their codes, and the same command finishes it exactly."""

from __future__ import annotations

import signal
from pathlib import Path

import psutil
import pytest

from tests.integration.job_pictures import deadly
from tests.integration.job_runs import Job, Tables, ray_processes_below
from tests.integration.ray_head import FAULTS, RayHead, ray_environment

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(900)]

COUNT = 80
SLOW = (250, 1, 5)


def test_sigterm_while_ray_starts_ends_the_run_like_any_other(tmp_path: Path, model: Path) -> None:
    """Ray's own handlers ended it with 15 and no word; and for seconds Ray waits where Python calls no handler."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").write_bytes(deadly(SLOW))
    options = ["--input", "in", "--output", "out", "--model", str(model), "--ray-address", "local"]
    for process in ("gcs_server", "raylet"):
        job = Job(tmp_path / "log", ray_environment(), *options, cwd=tmp_path)
        job.wait_until(lambda name=process, pid=job.process.pid: name in ray_processes_below(pid), f"{process} starts")
        started = psutil.Process(job.process.pid).children(recursive=True)
        run = job.signal(signal.SIGTERM).expect(143)
        assert run.err == "error: told to end (SIGTERM); the same command resumes.\n"
        assert run.seconds < 3
        _, alive = psutil.wait_procs(started, timeout=30)
        assert [each.name() for each in alive if each.is_running()] == []
    assert not (tmp_path / "out").exists()


def test_both_end_a_run_that_the_same_command_then_finishes(tmp_path: Path, ray_head: RayHead, model: Path) -> None:
    """SIGTERM to a run on a Ray of its own, which goes with it; SIGINT to one that joined a cluster.

    Slow pictures, so that the signal comes before the end.
    """
    (tmp_path / "in").mkdir()
    for number in range(COUNT):
        (tmp_path / "in" / f"{number:02}.jpg").write_bytes(deadly(SLOW))
    tables, log = Tables(tmp_path / "out"), tmp_path / "log"
    options = ["--input", "in", "--output", "out", "--model", str(model), "--zooms", "0.5", "--unit-pictures", "4"]

    local = Job(log, ray_environment() | {"PYTHONPATH": str(FAULTS)}, *options, "--ray-address", "local", cwd=tmp_path)
    local.wait_until(lambda: len(tables.committed()) >= 2, "2 units are committed")
    started = psutil.Process(local.process.pid).children(recursive=True)
    run = local.signal(signal.SIGTERM)
    assert run.code == 143, run.err
    assert run.seconds < 3  # then Ray kills
    assert "the same command resumes" in run.err
    _, alive = psutil.wait_procs(started, timeout=30)
    assert [process.name() for process in alive if process.is_running()] == []
    done = len(tables.committed())
    assert 2 <= done < COUNT // 4
    assert not (tmp_path / "out" / "_SUCCESS").exists()

    joined = Job(log, ray_head.environment, *options, cwd=tmp_path)
    joined.wait_until(lambda: len(tables.committed()) > done, "another unit is committed")
    run = joined.signal(signal.SIGINT)
    assert run.code == 130, run.err
    assert "the same command resumes" in run.err
    assert "Traceback" not in run.err
    assert not list((tmp_path / "out" / "_run" / "claims").iterdir()), "the claim is given back"

    Job(log, ray_head.environment, *options, cwd=tmp_path).wait().expect(0)
    assert len(tables.statuses()) == COUNT
    assert set(tables.statuses().values()) == {"ok"}
    tables.validated()
