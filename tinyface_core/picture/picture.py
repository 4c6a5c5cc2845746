"""The value that decoding gives, and the limits it works under. Knows only `errors`."""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime

import numpy as np
from numpy.typing import NDArray

DECODER_VERSION = 2  # raised whenever the same bytes may give other pixels: outputs of two versions never mix


@dataclass(frozen=True)
class Limits:
    """What one picture may cost. Checked from the header before decoding where the header tells.

    max_pixels: width x height. timeout_s and memory_bytes bound one picture's decoding in its child process.
    """

    max_pixels: int = 500_000_000
    timeout_s: float = 60.0
    memory_bytes: int = 8 << 30


@dataclass(frozen=True)
class Picture:
    """An upright picture.

    rgb_HW3: uint8, EXIF orientation applied. format: lower case, as `jpeg`, `png`, `webp`, `tiff`, `bmp`, `gif`,
    `heic`, `avif`. exif_orientation: 1..8, 1 when absent. taken_at: EXIF, without zone.
    """

    rgb_HW3: NDArray[np.uint8]
    format: str
    exif_orientation: int = 1
    taken_at: datetime | None = None

    @property
    def height(self) -> int:
        return int(self.rgb_HW3.shape[0])

    @property
    def width(self) -> int:
        return int(self.rgb_HW3.shape[1])
