"""A signal ends a run wherever it meets it, also where somebody swallows what its handler raises."""

from __future__ import annotations

import ctypes
import os
import queue
import signal
import subprocess
import sys
import threading
from typing import Any, cast

import pytest
import ray

import options
import ray_start
import signals
from options import job_app, run_job

Watchdogs = queue.SimpleQueue[tuple[float, int]]


@pytest.fixture
def watchdogs(monkeypatch: pytest.MonkeyPatch) -> Watchdogs:
    """Those that were started, which end nothing: each leaves its time and exit code."""
    started: Watchdogs = queue.SimpleQueue()

    class Watchdog(threading.Timer):
        def start(self) -> None:
            started.put((self.interval, *cast(Any, self.args)))

    monkeypatch.setattr(signals.threading, "Timer", Watchdog)
    return started


@pytest.mark.parametrize(
    ("number", "kind", "watchdog"),
    [(signal.SIGINT, KeyboardInterrupt, (30.0, 130)), (signal.SIGTERM, signals.Terminated, (2.5, 143))],
)
def test_what_was_swallowed_is_raised_again(
    number: signal.Signals, kind: type[BaseException], watchdog: tuple[float, int], watchdogs: Watchdogs
) -> None:
    with signals.ending_on_signals():
        signals.check()
        with pytest.raises(kind):
            os.kill(os.getpid(), number)
        for _ in range(2):
            with pytest.raises(kind):
                signals.check()
    assert watchdogs.get(timeout=10) == watchdog
    assert watchdogs.empty()


STUCK = """
import ctypes, os, signal, threading
import signals
signals.TERM_GRACE_S = 0.05
lock, libc = ctypes.create_string_buffer(64), ctypes.CDLL(None)
with signals.ending_on_signals():
    threading.Timer(0.1, os.kill, [os.getpid(), signal.SIGTERM]).start()
    while True:
        try:
            libc.pthread_mutex_lock(lock)  # the second time it never comes back, and Python calls no handler
        except signals.Terminated:
            pass
"""


def test_a_main_thread_that_is_stuck_in_c_is_ended_too_with_the_message() -> None:
    """As in ray.init, which waits in C for seconds until its processes answer."""
    jobs = {**os.environ, "PYTHONPATH": os.path.dirname(signals.__file__)}
    run = subprocess.run([sys.executable, "-c", STUCK], env=jobs, capture_output=True, text=True, timeout=30)
    assert (run.returncode, run.stderr) == (143, "error: told to end (SIGTERM); the same command resumes.\n")


FORKED = """
import os, signal, time
import signals
with signals.ending_on_signals():
    child = os.fork()
    if not child:
        time.sleep(60)
    time.sleep(0.1)
    os.kill(child, signal.SIGTERM)
    print(os.WTERMSIG(os.waitpid(child, 0)[1]))
    time.sleep(signals.TERM_GRACE_S + 0.3)
    print("alive")
"""


def test_the_end_of_a_forked_child_is_not_that_of_its_parent() -> None:
    """They share the pipe through which the watching thread is told."""
    jobs = {**os.environ, "PYTHONPATH": os.path.dirname(signals.__file__)}
    run = subprocess.run([sys.executable, "-c", FORKED], env=jobs, capture_output=True, text=True, timeout=30)
    assert (run.returncode, run.stdout) == (0, f"{int(signal.SIGTERM)}\nalive\n"), run.stderr


def test_ray_leaves_our_handler_where_it_is(watchdogs: Watchdogs, monkeypatch: pytest.MonkeyPatch) -> None:
    """While it starts it sets two of its own, and one in C below Python's: a run then ended with 15 and no word."""

    def init(**_: object) -> None:
        ray._private.utils.set_sigterm_handler(lambda *_: sys.exit(15))
        with pytest.raises(signals.Terminated):
            os.kill(os.getpid(), signal.SIGTERM)
        ctypes.CDLL(None).signal(int(signal.SIGTERM), int(signal.SIG_IGN))

    monkeypatch.setattr(ray, "init", init)
    with signals.ending_on_signals():
        ray_start._init(address="local")
        with pytest.raises(signals.Terminated):
            os.kill(os.getpid(), signal.SIGTERM)


def test_a_job_is_told_to_end_wherever_it_is(
    watchdogs: Watchdogs, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    app = job_app("any.py", "")

    @app.default
    def main() -> int:
        os.kill(os.getpid(), signal.SIGTERM)
        return 0

    monkeypatch.setattr(options, "leave", lambda: sys.exit(signals.TERMINATED))
    with pytest.raises(SystemExit, match="143"):
        run_job(app, [])
    assert capsys.readouterr().err == "error: told to end (SIGTERM); the same command resumes.\n"


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with signals.ending_on_signals():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    signals.check()
