"""TIFF -> RGB: Pillow; OpenCV for what Pillow cannot open. Both turn it by its orientation."""

from __future__ import annotations

import io
import warnings
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image, TiffImagePlugin

from tinyface_core.errors import ErrorClass
from tinyface_core.picture.header import Header
from tinyface_core.picture.refusal import PILLOW_ERRORS, RGB, Refused, opencv, refusal


def decode_tiff(data: bytes, header: Header) -> RGB:
    """The upright pixels. Raises Refused."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow tells of odd tags so
        try:
            opened = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
        except PILLOW_ERRORS:
            return _tiff_by_opencv(data, header)
        try:
            opened.load()  # turns it by its orientation
            return _rgb_of(opened)
        except PILLOW_ERRORS as why:
            raise refusal(data, header, why) from why


def _tiff_by_opencv(data: bytes, header: Header) -> RGB:
    """Three channels of floating point, which Pillow cannot hold, and whatever else libtiff makes RGB of.

    OpenCV turns a TIFF by its orientation whatever it is told.
    """
    raw = opencv(data, header, cv2.IMREAD_UNCHANGED)
    if raw.dtype == np.uint8:
        return np.ascontiguousarray(opencv(data, header))
    grey_or_rgb = raw if raw.ndim == 2 else np.ascontiguousarray(raw[..., 2::-1])
    return _to_8_bits(grey_or_rgb)


def _rgb_of(opened: Image.Image) -> RGB:
    if opened.mode.startswith(("I", "F")):  # Pillow's own conversion saturates: a 16-bit picture would be white
        return _to_8_bits(np.asarray(opened))
    return np.array(opened.convert("RGB"), np.uint8)


def _to_8_bits(values: NDArray[Any]) -> RGB:
    """Grey (H, W) or RGB (H, W, 3) of any number type -> RGB uint8, by the range of the values found.

    Floating point in 0..1 is stretched, in 0..255 taken as it is; integers up to 65535 keep their upper 8 bits.
    Anything else is a measurement, not a photograph, and is refused rather than guessed.
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if np.issubdtype(values.dtype, np.integer) and low >= 0 and high <= 65535:
        wide = values.dtype.itemsize == 2 or high > 255
        grey_or_rgb = (values >> 8 if wide else values).astype(np.uint8)
    elif 0 <= low <= high <= 255:
        grey_or_rgb = np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)
    else:
        message = f"its values run from {low:g} to {high:g}: convert it to 8 bits by a scale of your choice"
        raise Refused(ErrorClass.UNSUPPORTED, message)
    if grey_or_rgb.ndim == 2:
        return np.repeat(grey_or_rgb[..., np.newaxis], 3, axis=2)
    return grey_or_rgb
