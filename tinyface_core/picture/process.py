"""The parent's hand on one decoding child: starts it, gives it one picture at a time, kills it when it hangs.

Knows one child; `guard` knows how many there are and what a death means for a picture.
"""

from __future__ import annotations

import json
import os
import signal
import socket
import struct
import subprocess
import sys
from datetime import datetime

import numpy as np
import psutil

from tinyface_core.errors import ErrorClass, PictureError, Stage, TinyfaceError
from tinyface_core.picture.picture import Limits, Picture

_LENGTH = struct.Struct("<Q")
_LONGEST_START_S = 120.0  # a cold disk, a loaded machine; 0.3 s is usual
_LONGEST_HEAD_BYTES = 1 << 20
_LEAST_SHARE = 0.05  # of a processor: a child that gets less does not work, it hangs


class ChildDied(Exception):
    """The child ended by itself; the message says how: `SIGSEGV`, `exit code 3`."""


class Child:
    """One decoding process. Not thread-safe: one picture at a time.

    It is a fresh Python that runs `tinyface_core.picture.child` and never imports the caller's `__main__`, which
    inside a Ray worker could not be imported; it finds the packages where this process finds them.
    """

    def __init__(self, limits: Limits) -> None:
        """Starts the process without waiting for it: `wait_until_ready` does."""
        self._limits = limits
        self._began_s = self._seen_s = 0.0
        self._socket, theirs = socket.socketpair()
        with theirs:
            fd = theirs.fileno()
            numbers = (fd, os.getpid(), limits.max_pixels, limits.memory_bytes, limits.reduced)
            self._process = subprocess.Popen(
                # -P: a file numpy.py in the working folder is not numpy
                [sys.executable, "-P", "-m", "tinyface_core.picture.child", *map(str, numbers)],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                pass_fds=(fd,),
                process_group=0,  # Ctrl-C is the parent's affair
                env=_environment(),
            )

    @property
    def pid(self) -> int:
        return self._process.pid

    def wait_until_ready(self) -> None:
        """Raises TinyfaceError when the child does not come up: something is wrong with the installation."""
        self._limit_waiting(_LONGEST_START_S)
        try:
            ready = self._socket.recv(1)
        except OSError:
            ready = b""
        if not ready:
            how = self._how_it_ended()
            raise TinyfaceError(
                f"a decoding process ({sys.executable} -m tinyface_core.picture.child) did not start: {how}; "
                "its own words stand above in this process's error output"
            )
        self._limit_waiting(self._limits.timeout_s)

    def decode(self, data: bytes) -> Picture | PictureError:
        """Raises ChildDied. After that, and after `timed_out`, this child is of no further use: call `end`."""
        self._began_s = self._seen_s = self._used_s()
        try:
            self._send(_LENGTH.pack(len(data)))
            self._send(data)
            return self._reply()
        except BlockingIOError:  # how a limit on waiting shows itself
            message = f"decoding took longer than {self._limits.timeout_s:g} s and was ended"
            self.end()
            return PictureError(Stage.DECODE, ErrorClass.TIMED_OUT, message)
        except (OSError, EOFError):
            raise ChildDied(self._how_it_ended()) from None

    @property
    def ended(self) -> bool:
        return self._process.returncode is not None

    def kill(self) -> None:
        """At once; from any thread. The thread that uses the child then finds it dead, and calls `end`."""
        self._process.kill()

    def end(self) -> None:
        """Kills, waits for the end, and gives back what the process held here."""
        self._process.kill()
        self._process.wait()
        self._socket.close()

    def _reply(self) -> Picture | PictureError:
        (length,) = _LENGTH.unpack(self._receive(_LENGTH.size))
        if length > _LONGEST_HEAD_BYTES:
            raise EOFError
        head = json.loads(bytes(self._receive(length)))
        if "error_class" in head:
            return PictureError(Stage.DECODE, ErrorClass(head["error_class"]), head["message"])
        height, width = int(head["height"]), int(head["width"])
        if not 0 < height * width <= self._limits.max_pixels:
            raise EOFError
        rgb_HW3 = np.empty((height, width, 3), np.uint8)
        self._receive_into(rgb_HW3.data.cast("B"))
        taken_at = datetime.fromisoformat(head["taken_at"]) if head["taken_at"] else None
        whole_hw = head["whole_hw"] and (int(head["whole_hw"][0]), int(head["whole_hw"][1]))
        return Picture(rgb_HW3, head["format"], head["exif_orientation"], taken_at, int(head["reduced"]), whole_hw)

    def _send(self, data: bytes) -> None:
        view = memoryview(data)
        while view:
            view = view[self._socket.send(view) :]

    def _receive(self, size: int) -> bytearray:
        received = bytearray(size)
        self._receive_into(memoryview(received))
        return received

    def _receive_into(self, view: memoryview) -> None:
        while view:
            try:
                count = self._socket.recv_into(view, 0, socket.MSG_WAITALL)
            except BlockingIOError:
                if not self._is_held_up():
                    raise
                continue
            if count == 0:
                raise EOFError
            view = view[count:]

    def _is_held_up(self) -> bool:
        """Whether a child that did not answer in time works, and had not its time yet: the machine is busy."""
        before_s, self._seen_s = self._seen_s, self._used_s()
        limit_s = self._limits.timeout_s
        return self._seen_s - self._began_s < limit_s and self._seen_s - before_s > _LEAST_SHARE * limit_s

    def _used_s(self) -> float:
        """Seconds of the processor's time that the child has had."""
        try:
            times = psutil.Process(self.pid).cpu_times()
        except psutil.Error:
            return self._seen_s
        return float(times.user + times.system)

    def _limit_waiting(self, seconds: float) -> None:
        # the kernel's own limits: with Python's, a 6 MB picture would come in 30 pieces instead of one call
        whole, part = divmod(max(seconds, 0.001), 1)  # 0 would mean for ever
        limit = struct.pack("ll", int(whole), int(part * 1e6))
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, limit)

    def _how_it_ended(self) -> str:
        try:
            code = self._process.wait(timeout=1.0)
        except subprocess.TimeoutExpired:  # it closed its socket, or talked nonsense, and lives on
            self._process.kill()
            self._process.wait()
            return "it stopped answering"
        if code >= 0:
            return f"exit code {code}"
        try:
            return signal.Signals(-code).name
        except ValueError:
            return f"signal {-code}"


def _environment() -> dict[str, str]:
    """The parent's, with its module search path, which may have grown since it started; one thread a library.

    Not with its jemalloc: that reserves more addresses than it uses, and a child's are limited.
    """
    own = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD" or "jemalloc" not in value}
    one = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    path = os.pathsep.join(os.path.abspath(entry) for entry in sys.path)
    return own | one | {"PYTHONPATH": path}
