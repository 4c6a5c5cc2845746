"""SIGTERM and Ctrl-C end a run soon, wherever they meet it. The commit protocol needs no farewell.

SIGTERM: no new units, out within three seconds, after which Ray kills. Ctrl-C: the claim is given back. Python raises
what a handler raises between two of its own steps, and where these belong to a callback or a destructor, of Ray for
one, it is printed or lost: so the handler also notes that it was called, and `check` raises what was lost.
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

INTERRUPTED, TERMINATED = 130, 143
TERM_GRACE_S, INT_GRACE_S = 2.5, 30.0
_asked: list[type[BaseException]] = []


class Terminated(BaseException):
    """SIGTERM came; unwinds like KeyboardInterrupt."""


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Inside, SIGTERM raises Terminated and SIGINT KeyboardInterrupt in the main thread, and ends the process after
    a while whatever still runs.

    Enter it after ray.init, which sets handlers of its own.
    """
    endings = {
        signal.SIGTERM: (Terminated, TERM_GRACE_S, TERMINATED),
        signal.SIGINT: (KeyboardInterrupt, INT_GRACE_S, INTERRUPTED),
    }

    def end(signal_number: int, frame: FrameType | None) -> None:
        kind, grace_s, code = endings[signal.Signals(signal_number)]
        watchdog = threading.Timer(grace_s, os._exit, [code])
        watchdog.daemon = True
        watchdog.start()
        _asked.append(kind)
        raise kind

    before = {number: signal.signal(number, end) for number in endings}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)
        _asked.clear()


def check() -> None:
    """Raises what a handler raised and somebody swallowed."""
    if _asked:
        raise _asked[0]


def leave() -> NoReturn:
    """Ends the process at once: Python's own end, thread by thread and library by library, takes seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(TERMINATED)
