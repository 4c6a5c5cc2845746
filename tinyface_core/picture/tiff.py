"""TIFF -> RGB: Pillow; OpenCV for numbers that Pillow cannot hold. Both turn it by its orientation.

TIFF is a box for many kinds of picture, and each library shows some of them with wrong pixels and no word: which
kinds go which way was measured with Pillow 13 and OpenCV 5.0 on files whose pixels are known. What neither gets
right is refused as `unsupported`, and so is a kind of which a lost part would not be noticed, except fax.
"""

from __future__ import annotations

import io
import struct
import warnings
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from tinyface_core.errors import ErrorClass
from tinyface_core.picture.header import Header
from tinyface_core.picture.refusal import PILLOW_ERRORS, RGB, Refused, opencv, refusal
from tinyface_core.picture.tiff_parts import LAB, SIGNED, WHITE_IS_0, TiffKind, check_whole

# Pillow's own reader of uncompressed data does not ask whether strips are missing, and mixes up planes of 16 bits
TiffImagePlugin.READ_LIBTIFF = True

_MEND = "convert it to 8 bits by a scale of your choice"


class _TiffOfAnySize(TiffImagePlugin.TiffImageFile):
    """Without Pillow's own limit of 179 megapixels: `header.too_large` was asked."""

    def load_prepare(self) -> None:
        if self._im is None:
            self.im = Image.core.new(self.mode, self._tile_size)  # type: ignore[attr-defined]
        super().load_prepare()


def decode_tiff(data: bytes, header: Header) -> RGB:
    """The upright pixels. Raises Refused."""
    try:
        kind = TiffKind.of(data)
        check_whole(data, header, kind)
    except (struct.error, ArithmeticError, ValueError, TypeError) as why:  # TypeError: a place that is no whole number
        raise refusal(data, header, why) from why
    if kind.number_format == SIGNED and kind.bits < 32:  # of its range half is not for light: where is white?
        raise refusal(data, header, f"unsupported signed numbers of {kind.bits} bits: {_MEND}")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow tells of odd tags so
        try:
            opened = _TiffOfAnySize(io.BytesIO(data))
        except PILLOW_ERRORS:
            return _by_opencv(data, header, kind)
        if opened.width * opened.height != header.width * header.height:  # a tag told twice
            raise refusal(data, header, f"it tells two sizes, another is {opened.width} x {opened.height}")
        if opened.mode in ("I", "F"):  # Pillow gives them a wrong sign, or the wrong byte first
            return _by_opencv(data, header, kind)
        if kind.in_planes and (kind.colours == LAB or opened.mode == "La"):  # Pillow mixes them up
            raise refusal(data, header, f"unsupported together: {kind}")
        try:
            opened.load()  # turns it by its orientation
            return _rgb_of(opened, kind)
        except PILLOW_ERRORS as why:
            raise refusal(data, header, why) from why


def _rgb_of(opened: Image.Image, kind: TiffKind) -> RGB:
    if opened.mode.startswith("I;16"):  # Pillow's own conversion saturates: it would be white
        values = np.asarray(opened) >> (kind.bits - 8)
        return _three_channels(values.astype(np.uint8), kind)
    straight = opened.convert("LA") if opened.mode == "La" else opened  # colours that are not multiplied by alpha
    return np.array(straight.convert("RGB"), np.uint8)


def _by_opencv(data: bytes, header: Header, kind: TiffKind) -> RGB:
    """Floating point, 32 bits, and 10 to 14 bits, which OpenCV stretches to 16.

    OpenCV turns a TIFF by its orientation whatever it is told.
    """
    if not kind.is_right_by_opencv:
        raise refusal(data, header, f"unsupported together: {kind}")
    raw = opencv(data, header, cv2.IMREAD_UNCHANGED)
    if raw.dtype == np.uint8:
        return np.ascontiguousarray(opencv(data, header))
    return _three_channels(_to_8_bits(raw if raw.ndim == 2 else raw[..., 2::-1]), kind)


def _to_8_bits(values: NDArray[Any]) -> NDArray[np.uint8]:
    """Grey (H, W) or RGB (H, W, 3) of any number type -> the same in uint8, by the range of the values found.

    Floating point in 0..1 is stretched, in 0..255 taken as it is; integers up to 65535 keep their upper 8 bits.
    Anything else is a measurement, not a photograph, and is refused rather than guessed.
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if np.issubdtype(values.dtype, np.integer) and low >= 0 and high <= 65535:
        wide = values.dtype.itemsize == 2 or high > 255
        return (values >> 8 if wide else values).astype(np.uint8)
    if 0 <= low <= high <= 255:
        return np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)
    raise Refused(ErrorClass.UNSUPPORTED, f"its values run from {low:g} to {high:g}: {_MEND}")


def _three_channels(grey_or_rgb: NDArray[np.uint8], kind: TiffKind) -> RGB:
    if kind.colours == WHITE_IS_0:
        grey_or_rgb = 255 - grey_or_rgb
    if grey_or_rgb.ndim == 2:
        return np.repeat(grey_or_rgb[..., np.newaxis], 3, axis=2)
    return np.ascontiguousarray(grey_or_rgb)
