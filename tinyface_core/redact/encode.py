"""Upright pixels -> the file of a copy. Nothing of the source's file goes in but its pixels.

So no EXIF with place, time and camera, no thumbnail (which would show the faces as they were), no XMP, no IPTC, no
comment, no colour profile; and no further frames or pages, which nobody examined. Knows formats; no faces.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

ENCODER_VERSION = 1  # raised whenever the same pixels may give other bytes: one destination holds one version's copies

# What a copy of each format is written as. What lost nothing loses nothing; what no browser shows becomes JPEG.
_WRITTEN_AS = {
    "jpeg": "jpeg",
    "heic": "jpeg",
    "avif": "jpeg",
    "webp": "webp",
    "png": "png",
    "bmp": "png",
    "gif": "png",
    "tiff": "png",
}
EXTENSIONS = {"jpeg": (".jpg", ".jpeg", ".jpe", ".jfif"), "png": (".png",), "webp": (".webp",)}


def copy_format(source_format: str) -> str:
    """`jpeg`, `png` or `webp`; raises KeyError for a format that decoding does not give."""
    return _WRITTEN_AS[source_format]


def encode(rgb_HW3: NDArray[np.uint8], name: str, quality: int) -> bytes:
    """A file of the format `name` (of `copy_format`). Raises ValueError where that format cannot hold it."""
    flags = {"jpeg": [cv2.IMWRITE_JPEG_QUALITY, quality], "webp": [cv2.IMWRITE_WEBP_QUALITY, quality], "png": []}[name]
    try:
        done, data = cv2.imencode(EXTENSIONS[name][0], cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2BGR), flags)
    except cv2.error as error:
        raise ValueError(f"cannot be written as {name}: {' '.join(str(error).split())}") from error
    if not done:
        raise ValueError(f"{rgb_HW3.shape[1]} x {rgb_HW3.shape[0]} pixels cannot be written as {name}")
    return data.tobytes()
