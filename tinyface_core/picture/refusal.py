"""What the decoders share: how one refuses a file, and OpenCV that refuses instead of giving nothing."""

from __future__ import annotations

import re
import struct
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyface_core.errors import ErrorClass, PictureError, Stage
from tinyface_core.picture.header import Header
from tinyface_core.picture.layout import is_whole

RGB = NDArray[np.uint8]

AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# What Pillow's readers are seen to raise for a file that they cannot read; one of these is no bug of ours
PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    RuntimeError,
    EOFError,
    struct.error,
)


class Refused(Exception):
    """One picture's error on its way up to `decode`; never leaves it."""

    def __init__(self, error_class: ErrorClass, message: str) -> None:
        super().__init__(message)
        self.error = PictureError(Stage.DECODE, error_class, message)


def refusal(data: bytes, header: Header, why: object) -> Refused:
    """`truncated` where the file's end is missing, else what the decoder's words say, else `corrupt`."""
    words = str(why)
    if re.search(r"(?i)insufficient memory|out of memory|failed to allocate", words) or not _has_memory_for(header):
        return Refused(ErrorClass.OUT_OF_MEMORY, "the picture does not fit into the memory limit")
    if not is_whole(header.format, data) or words.startswith("Premature end"):
        what = f"this {header.format} file ends too early: {len(data):,} bytes do not hold its picture"
        return Refused(ErrorClass.TRUNCATED, what)
    if re.search(r"(?i)unsupported|not implemented|data precision", words) and "marker" not in words:
        return Refused(ErrorClass.UNSUPPORTED, f"a kind of {header.format} that is not decoded here: {words}")
    return Refused(ErrorClass.CORRUPT, f"this {header.format} file is damaged: {words}")


def _has_memory_for(header: Header) -> bool:
    """Decoders keep a lack of memory to themselves, or call it damage: so ask whether it would have been there.

    16 bytes a pixel: what the hungriest of them take besides the picture. Asked for, never touched.
    """
    try:
        np.empty((header.height, header.width, 16), np.uint8)
    except MemoryError:
        return False
    return True


def opencv(data: bytes, header: Header, flags: int = AS_STORED) -> NDArray[Any]:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as why:
        if why.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        raise refusal(data, header, why.err or why) from why
    if pixels is None:
        raise refusal(data, header, "its data contradict themselves")
    return pixels
