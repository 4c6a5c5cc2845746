"""SIGTERM and Ctrl-C end a run soon, wherever they meet it. The commit protocol needs no farewell.

SIGTERM: no new units, out within three seconds, after which Ray kills. Ctrl-C: the claim is given back. Python raises
what a handler raises between two of its own steps, and where these belong to a callback or a destructor, of Ray for
one, it is printed or lost: so the handler also notes that it was called, and `check` raises what was lost. While the
main thread is in C, as for seconds in ray.init, Python calls no handler at all: a thread of ours is told then too.
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
TOLD = {
    INTERRUPTED: "interrupted; the same command resumes.",
    TERMINATED: "told to end (SIGTERM); the same command resumes.",
}
_asked: list[type[BaseException]] = []
_pipes: list[int] = []  # to the watching thread


class Terminated(BaseException):
    """SIGTERM came; unwinds like KeyboardInterrupt."""


@contextmanager
def ending_on_signals() -> Iterator[None]:
    """Inside, SIGTERM raises Terminated and SIGINT KeyboardInterrupt in the main thread, and ends the process after
    a while whatever still runs.

    What sets handlers of its own, as ray.init does, is to be kept from it.
    """
    kinds = {signal.SIGTERM: Terminated, signal.SIGINT: KeyboardInterrupt}

    def end(signal_number: int, frame: FrameType | None) -> None:
        kind = kinds[signal.Signals(signal_number)]
        _asked.append(kind)
        raise kind

    with _watchdogs():
        before = {number: signal.signal(number, end) for number in kinds}
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)
            _asked.clear()


@contextmanager
def _watchdogs() -> Iterator[None]:
    """Starts one at each signal; those that were started stay at the end."""
    reading, writing = os.pipe()  # Python writes the number of each signal that comes, from within C
    os.set_blocking(writing, False)
    before = signal.set_wakeup_fd(writing, warn_on_full_buffer=False)
    _pipes.append(writing)
    thread = threading.Thread(target=_watch, args=(reading,), name="tinyface-signals", daemon=True)
    thread.start()
    try:
        yield
    finally:
        _pipes.remove(writing)
        signal.set_wakeup_fd(before)
        os.write(writing, b"\0")
        thread.join()
        os.close(writing)
        os.close(reading)


def _forget() -> None:
    """In a child by fork: it shares the pipe, and a signal to it would end its parent."""
    if _pipes:
        signal.set_wakeup_fd(-1)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.default_int_handler)


os.register_at_fork(after_in_child=_forget)


def _watch(reading: int) -> None:
    graces_s = {signal.SIGTERM: (TERM_GRACE_S, TERMINATED), signal.SIGINT: (INT_GRACE_S, INTERRUPTED)}
    while number := os.read(reading, 1)[0]:
        if number in graces_s:
            grace_s, code = graces_s[signal.Signals(number)]
            watchdog = threading.Timer(grace_s, _end, [code])
            watchdog.daemon = True
            watchdog.start()


def check() -> None:
    """Raises what a handler raised and somebody swallowed."""
    if _asked:
        raise _asked[0]


def leave() -> NoReturn:
    """Ends the process at once: Python's own end, thread by thread and library by library, takes seconds."""
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(TERMINATED)


def _end(code: int) -> NoReturn:
    """For a main thread that is stuck: says what it would say, and takes no lock that it may hold."""
    os.write(2, f"error: {TOLD[code]}\n".encode())
    os._exit(code)
