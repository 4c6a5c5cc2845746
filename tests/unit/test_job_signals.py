"""A signal ends a run wherever it meets it, also where somebody swallows what its handler raises."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest

import signals


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[object]]:
    """Within the handlers, whose watchdogs end nothing: each leaves its exit code."""
    ended: list[object] = []
    monkeypatch.setattr(signals.os, "_exit", ended.append)
    with signals.ending_on_signals():
        yield ended
    for watchdog in signals._watching:
        watchdog.cancel()
    signals._watching.clear()


@pytest.mark.parametrize(("number", "kind"), [(signal.SIGINT, KeyboardInterrupt), (signal.SIGTERM, signals.Terminated)])
def test_what_was_swallowed_is_raised_again(
    number: signal.Signals, kind: type[BaseException], inside: list[object]
) -> None:
    signals.check()
    with pytest.raises(kind):
        os.kill(os.getpid(), number)
    for _ in range(2):
        with pytest.raises(kind):
            signals.check()


def test_handlers_are_put_back(monkeypatch: pytest.MonkeyPatch) -> None:
    before = [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)]
    with signals.ending_on_signals():
        assert signal.getsignal(signal.SIGINT) != before[0]
    assert [signal.getsignal(number) for number in (signal.SIGINT, signal.SIGTERM)] == before
    signals.check()
