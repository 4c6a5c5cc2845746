"""What a picture's first bytes tell, before anything is decoded: format, size, orientation, time; and the limits.

Runs no decoder, so it is safe where a crash would cost more than one picture.
"""

from __future__ import annotations

import struct
from dataclasses import dataclass
from datetime import datetime

from tinyface_core.errors import ErrorClass, PictureError, Stage
from tinyface_core.picture.ifd import exif_facts
from tinyface_core.picture.layout import LAYOUTS, Damaged, NotDecoded
from tinyface_core.picture.magic import format_of
from tinyface_core.picture.picture import Limits

LONGEST_SIDE_PX = 1_000_000  # libpng's own limit, OpenCV's is near: no picture of people is that long


@dataclass(frozen=True)
class Header:
    """width, height: pixels as stored, before orientation. exif_orientation: 1..8, 1 when absent.

    For heic and avif, orientation and time stand where only their libraries look: decoding tells them. The size
    of a heic is an upper bound: its coded picture is cropped.
    """

    format: str
    width: int
    height: int
    exif_orientation: int = 1
    taken_at: datetime | None = None

    @property
    def decoded_bytes(self) -> int:
        """Size of the decoded picture, 3 bytes a pixel."""
        return 3 * self.width * self.height


def sniff(data: bytes, limits: Limits = Limits()) -> Header | PictureError:
    """The header of an encoded picture, or why it will not be decoded; never raises.

    Errors (stage `decode`): `truncated` (0 bytes, or it ends within its header), `not_an_image`, `unsupported`,
    `corrupt` (its header makes no sense), `too_large` (more than limits.max_pixels).
    """
    name = format_of(data)
    if isinstance(name, PictureError):
        return name
    try:
        extent = LAYOUTS[name].extent(data)
    except (IndexError, struct.error):
        return _error(ErrorClass.TRUNCATED, f"this {name} file ends too early: it has only {len(data):,} bytes")
    except NotDecoded as kind:
        return _error(ErrorClass.UNSUPPORTED, f"this is {kind}, which is not decoded here")
    except (Damaged, ValueError, OverflowError, MemoryError) as why:
        return _error(ErrorClass.CORRUPT, f"the header of this {name} file makes no sense: {why}")
    if extent.width <= 0 or extent.height <= 0:
        return _error(
            ErrorClass.CORRUPT, f"the header of this {name} file says {extent.width} x {extent.height} pixels"
        )
    orientation, taken_at = exif_facts(extent.exif)
    header = Header(name, extent.width, extent.height, orientation, taken_at)
    return too_large(header.width, header.height, limits) or header


def too_large(width: int, height: int, limits: Limits) -> PictureError | None:
    """The error for a picture over the limits, else None."""
    if width * height > limits.max_pixels:
        found = f"{width} x {height} is {width * height / 1e6:,.1f} megapixels"
        return _error(ErrorClass.TOO_LARGE, f"{found}; the limit is {limits.max_pixels / 1e6:,.1f}")
    if max(width, height) > LONGEST_SIDE_PX:
        return _error(ErrorClass.TOO_LARGE, f"{width} x {height}: no side may be over {LONGEST_SIDE_PX:,} pixels")
    return None


def _error(error_class: ErrorClass, message: str) -> PictureError:
    return PictureError(Stage.DECODE, error_class, message)
