"""Decoding that nothing can break: in child processes that may crash, hang or eat memory, one picture at a time.

A library was tried first: pebble's ProcessPool took 13 ms more a 1080p picture (7 ms of them in the parent),
imports the caller's main module in its children, and cannot bound the bytes that wait. Here pixels come through
a socket: one kernel copy, no shared memory to leak, and a picture stays in its child until it is wanted.
"""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Iterable, Iterator
from concurrent.futures import CancelledError, Future, ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from types import TracebackType
from typing import Generic, Self, TypeVar

from tinyface_core.errors import ErrorClass, PictureError, Stage, TinyfaceError
from tinyface_core.picture.decode import decode
from tinyface_core.picture.header import sniff
from tinyface_core.picture.picture import Limits, Picture
from tinyface_core.picture.process import Child, ChildDied

log = logging.getLogger(__name__)

T = TypeVar("T")
Result = Picture | PictureError


class DecodePool:
    """Decodes ahead of its user, in `children` processes that may die alone.

    A child that dies by a signal gives `decoder_crashed` for its picture, one that takes longer than
    limits.timeout_s `timed_out`, one that asks for more than limits.memory_bytes `out_of_memory`; neighbours are
    not harmed, and the child is replaced. A picture whose child died is tried once more, in a fresh child while
    this pool's others wait: the kernel may have ended the first one for a neighbour's hunger. One that timed out
    is not tried again here.

    children: 0 decodes in this process, unguarded: a crash of a decoder is then a crash of the caller, and the
    limits on time and memory do not hold. For notebooks.
    ahead: at most this many pictures are decoding or wait decoded. ahead_bytes: at most this many bytes of them
    (encoded and decoded); a picture that alone is larger is decoded when no other waits.

    decode_s: seconds that its children worked on pictures so far, waits for them to start included.

    A context manager; entering starts the children (TinyfaceError if they do not come up), leaving ends them
    within a second. Threads may share a pool; each calls decode_ahead for itself.
    """

    def __init__(self, children: int, limits: Limits = Limits(), ahead: int = 8, ahead_bytes: int = 1 << 30) -> None:
        if children < 0 or ahead < 1:
            raise ValueError(f"children must be 0 or more and ahead 1 or more, not {children} and {ahead}")
        self._count, self._limits, self._ahead, self._ahead_bytes = children, limits, ahead, ahead_bytes
        self._executor: ThreadPoolExecutor | None = None
        self._idle: deque[Child] = deque()
        self._all: set[Child] = set()
        self.decode_s = 0.0
        self._lock = threading.Lock()  # of decode_s, _all and _closing
        self._closing = False
        self._turns = _Turns()

    def __enter__(self) -> Self:
        if self._count:
            # children are started by the pool's threads: Linux ends a child with the *thread* that started it
            self._executor = ThreadPoolExecutor(self._count, "decode")
            starting = [self._executor.submit(self._start) for _ in range(self._count)]
            try:
                self._idle.extend(started.result() for started in starting)
            except BaseException:
                self.close()
                raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.close()

    def close(self) -> None:
        """Ends all children, also those at work; twice is fine. Pictures still wanted become `internal` errors."""
        with self._lock:
            self._closing = True
            for child in self._all:
                child.kill()
        if self._executor:
            self._executor.shutdown(wait=True, cancel_futures=True)
        while self._all:
            self._all.pop().end()

    def decode_ahead(self, items: Iterable[tuple[T, bytes]]) -> Iterator[tuple[T, Result]]:
        """Each item's key with its picture, or why there is none, in the order of items.

        Lazy: items is pulled from the calling thread, never more than `ahead` + 1 before the picture that is
        given. Only what items itself raises is raised here.
        """
        if not self._count:
            yield from ((key, decode(data, self._limits)) for key, data in items)
            return
        source = iter(items)
        waiting: deque[_Waiting[T]] = deque()
        held: _Waiting[T] | None = None  # pulled, but too large to begin now
        exhausted = False
        try:
            while True:
                while not exhausted and len(waiting) < self._ahead:
                    held = held or self._wanted(next(source, None))
                    exhausted = held is None
                    if held is None or (waiting and held.size + sum(w.size for w in waiting) > self._ahead_bytes):
                        break
                    self._begin(held)
                    waiting.append(held)
                    held = None
                if not waiting:
                    return
                yield waiting.popleft().given()  # in no variable here: a picture must not outlive its user
        finally:
            for left in waiting:
                left.result.cancel()

    def _wanted(self, item: tuple[T, bytes] | None) -> _Waiting[T] | None:
        """Sizes a picture by its header; one that the header condemns needs no child."""
        if item is None:
            return None
        key, data = item
        header = sniff(data, self._limits)
        if isinstance(header, PictureError):
            waiting = _Waiting(key, b"", 0)
            waiting.result.set_result(header)
            return waiting
        return _Waiting(key, data, len(data) + header.decoded_bytes)

    def _begin(self, waiting: _Waiting[T]) -> None:
        if waiting.result.done():
            return
        if self._executor is None or self._closing:
            raise RuntimeError("this DecodePool is not open: use it as `with DecodePool(...) as pool:`")
        waiting.result = self._executor.submit(self._decode, waiting.data)

    def _decode(self, data: bytes) -> Result:
        """Runs in one of the pool's threads; never raises."""
        try:
            try:
                with self._turns.beside_others():
                    return self._in_child(data, fresh=False)
            except ChildDied as first:
                with self._turns.alone():
                    picture = self._in_child(data, fresh=True)
                log.warning("a decoding process died (%s) but the picture is well in a fresh one", first)
                return picture
        except ChildDied as died:
            message = f"the decoder died on this picture ({died}), twice, the second time alone in a fresh process"
            return _error(ErrorClass.DECODER_CRASHED, message)
        except MemoryError:
            return _error(ErrorClass.OUT_OF_MEMORY, "the decoded picture does not fit into this process's memory")
        except Exception as why:
            return _error(ErrorClass.INTERNAL, f"the picture could not be handed to a decoding process: {why}")

    def _in_child(self, data: bytes, *, fresh: bool) -> Result:
        began = time.perf_counter()
        try:
            child = None if fresh else self._idle.pop()
        except IndexError:
            child = None
        child = child or self._start()
        try:
            result = child.decode(data)
            if not child.ended and len(self._idle) < self._count:
                self._idle.append(child)
                child = None
            return result
        finally:
            if child is not None:
                self._end(child)
            with self._lock:
                self.decode_s += time.perf_counter() - began

    def _start(self) -> Child:
        with self._lock:
            if self._closing:
                raise TinyfaceError("the DecodePool is closing")
            child = Child(self._limits)
            self._all.add(child)
        try:
            child.wait_until_ready()
        except BaseException:
            self._end(child)
            raise
        return child

    def _end(self, child: Child) -> None:
        child.end()
        with self._lock:
            self._all.discard(child)


@dataclass
class _Waiting(Generic[T]):
    """One picture on its way. size: bytes that it takes, encoded and decoded."""

    key: T
    data: bytes
    size: int
    result: Future[Result] = field(default_factory=Future)

    def given(self) -> tuple[T, Result]:
        try:
            return self.key, self.result.result()
        except CancelledError:
            return self.key, _error(ErrorClass.INTERNAL, "the DecodePool was closed before this picture's turn")


class _Turns:
    """Many may work beside each other, or one alone."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._working = 0
        self._one_alone = False

    @contextmanager
    def beside_others(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._one_alone)
            self._working += 1
        try:
            yield
        finally:
            with self._changed:
                self._working -= 1
                self._changed.notify_all()

    @contextmanager
    def alone(self) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(lambda: not self._one_alone)
            self._one_alone = True
            self._changed.wait_for(lambda: self._working == 0)
        try:
            yield
        finally:
            with self._changed:
                self._one_alone = False
                self._changed.notify_all()


def _error(error_class: ErrorClass, message: str) -> PictureError:
    return PictureError(Stage.DECODE, error_class, message)
