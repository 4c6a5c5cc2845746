"""A signal ends a run wherever it meets it, also where somebody swallows what its handler raises."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from typing import Any, cast

import pytest

import signals

Watchdogs = list[tuple[float, int]]


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Iterator[Watchdogs]:
    """Within the handlers, whose watchdogs end nothing: each leaves its time and exit code."""
    started: Watchdogs = []

    class Watchdog(threading.Timer):
        def start(self) -> None:
            started.append((self.interval, *cast(Any, self.args)))

    monkeypatch.setattr(signals.threading, "Timer", Watchdog)
    with signals.ending_on_signals():
        yield started


@pytest.mark.parametrize(
    ("number", "kind", "watchdog"),
    [(signal.SIGINT, KeyboardInterrupt, (30.0, 130)), (signal.SIGTERM, signals.Terminated, (2.5, 143))],
)
def test_what_was_swallowed_is_raised_again(
    number: signal.Signals, kind: type[BaseException], watchdog: tuple[float, int], inside: Watchdogs
) -> None:
    signals.check()
    with pytest.raises(kind):
        os.kill(os.getpid(), number)
    for _ in range(2):
        with pytest.raises(kind):
            signals.check()
    assert inside == [watchdog]


def test_handlers_are_put_back() -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with signals.ending_on_signals():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    signals.check()
