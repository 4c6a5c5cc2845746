"""SIGTERM: no new units, out within three seconds, after which Ray kills. The commit protocol needs no farewell."""

from __future__ import annotations

import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from types import FrameType
from typing import NoReturn

TERMINATED = 143
GRACE_S = 2.5


class Terminated(BaseException):
    """SIGTERM came; unwinds like KeyboardInterrupt."""


@contextmanager
def ending_on_sigterm() -> Iterator[None]:
    """Inside, SIGTERM raises Terminated in the main thread, and ends the process after GRACE_S whatever still runs.

    Enter it after ray.init, which sets a handler of its own.
    """

    def end(signal_number: int, frame: FrameType | None) -> None:
        watchdog = threading.Timer(GRACE_S, os._exit, [TERMINATED])
        watchdog.daemon = True
        watchdog.start()
        raise Terminated

    before = signal.signal(signal.SIGTERM, end)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


def leave() -> NoReturn:
    """Ends the process at once: Python's own end, thread by thread and library by library, takes seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(TERMINATED)
