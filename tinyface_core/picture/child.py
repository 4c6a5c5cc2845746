"""The program that decodes in a process of its own: `python -m tinyface_core.picture.child` (see `process`).

Started by `process.Child` only. It may crash, hang or run out of memory at any picture. It imports numpy, cv2 and
Pillow, never Ray or torch; it dies with its parent, and leaves Ctrl-C to it.
"""

from __future__ import annotations

import contextlib
import ctypes
import json
import os
import resource
import signal
import socket
import struct
import sys
from pathlib import Path

import cv2

from tinyface_core.errors import PictureError
from tinyface_core.picture.decode import decode
from tinyface_core.picture.picture import Limits, Picture

LENGTH = struct.Struct("<Q")
READY = b"r"
_PR_SET_PDEATHSIG = 1


def main(socket_fd: int, parent_pid: int, limits: Limits) -> None:
    """Serves until the parent closes its end: LENGTH + encoded bytes in; LENGTH + JSON, then raw pixels, out.

    Nothing that the parent would have to trust comes out: a child that a hostile picture took over can lie about
    this picture, not run code elsewhere.
    """
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    _die_with(parent_pid)
    _be_the_first_to_go()
    cv2.setNumThreads(1)
    _limit_memory(limits.memory_bytes)
    with socket.socket(fileno=socket_fd) as parent:
        parent.sendall(READY)
        os.dup2(os.open(os.devnull, os.O_WRONLY), 2)  # libjpeg, libtiff and libpng tell of each damaged file
        while length := _receive(parent, LENGTH.size):
            data = _receive(parent, LENGTH.unpack(length)[0])
            _reply(parent, decode(bytes(data), limits))


def _reply(parent: socket.socket, result: Picture | PictureError) -> None:
    if isinstance(result, PictureError):
        head: dict[str, object] = {"error_class": result.error_class, "message": result.message}
    else:
        height, width = result.rgb_HW3.shape[:2]
        head = {
            "height": height,
            "width": width,
            "format": result.format,
            "exif_orientation": result.exif_orientation,
            "taken_at": result.taken_at and result.taken_at.isoformat(),
            "reduced": result.reduced,
            "whole_hw": result.whole_hw,
        }
    encoded = json.dumps(head).encode()
    parent.sendall(LENGTH.pack(len(encoded)) + encoded)
    if isinstance(result, Picture):
        parent.sendall(result.rgb_HW3.data.cast("B"))


def _receive(parent: socket.socket, size: int) -> bytearray:
    """Exactly `size` bytes; none when the parent is gone."""
    received = bytearray(size)
    view = memoryview(received)
    while view:
        count = parent.recv_into(view, 0, socket.MSG_WAITALL)
        if count == 0:
            return bytearray()
        view = view[count:]
    return received


def _die_with(parent_pid: int) -> None:
    """A closed socket would end an idle child; this ends one that hangs inside a decoder, too."""
    if sys.platform == "linux":
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != parent_pid:  # it died before the line above
        sys.exit(0)


def _be_the_first_to_go() -> None:
    """When the machine runs out of memory, the kernel ends a child that can be replaced, not the model's process."""
    with contextlib.suppress(OSError):
        Path("/proc/self/oom_score_adj").write_text("1000")


def _limit_memory(memory_bytes: int) -> None:
    """Bounds what decoding may add to the address space that the libraries take already."""
    with contextlib.suppress(OSError, ValueError):
        taken = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
        _, hard = resource.getrlimit(resource.RLIMIT_AS)
        wanted = taken + memory_bytes
        resource.setrlimit(resource.RLIMIT_AS, (wanted if hard == resource.RLIM_INFINITY else min(wanted, hard), hard))


if __name__ == "__main__":
    fd, parent, max_pixels, memory_limit, reduced = map(int, sys.argv[1:])
    main(fd, parent, Limits(max_pixels=max_pixels, memory_bytes=memory_limit, reduced=reduced))
