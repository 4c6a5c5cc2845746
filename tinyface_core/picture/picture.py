"""The value that decoding gives, and the limits it works under. Knows only `errors`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

DECODER_VERSION = 3  # raised whenever the same bytes may give other pixels: outputs of two versions never mix


@dataclass(frozen=True)
class Limits:
    """What one picture may cost. Checked from the header before decoding where the header tells.

    max_pixels: width x height. timeout_s and memory_bytes bound one picture's decoding in its child process.
    reduced: 1, 2, 4 or 8: a JPEG may be decoded so many times smaller, as nobody looks closer.
    """

    max_pixels: int = 500_000_000
    timeout_s: float = 60.0
    memory_bytes: int = 8 << 30
    reduced: int = 1


@dataclass(frozen=True)
class Picture:
    """An upright picture.

    rgb_HW3: uint8, EXIF orientation applied. format: lower case, as `jpeg`, `png`, `webp`, `tiff`, `bmp`, `gif`,
    `heic`, `avif`. exif_orientation: 1..8, 1 when absent. taken_at: EXIF, without zone. reduced: how many times smaller
    it was decoded: each pixel stands for a square of so many, those at the right and the bottom maybe for part of one.
    """

    rgb_HW3: NDArray[np.uint8]
    format: str
    exif_orientation: int = 1
    taken_at: datetime | None = None
    reduced: int = 1
    whole_hw: tuple[int, int] | None = None  # where it was reduced

    @property
    def size_hw(self) -> tuple[int, int]:
        """Of the whole picture, px."""
        return self.whole_hw or (self.rgb_HW3.shape[0], self.rgb_HW3.shape[1])

    @property
    def height(self) -> int:
        return self.size_hw[0]

    @property
    def width(self) -> int:
        return self.size_hw[1]
