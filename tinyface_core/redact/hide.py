"""Faces made unrecognisable in a picture's pixels. Knows pixels and masks; not files, nor where faces come from.

    fill       one grey, the same in every picture: nothing of the face is left, not even its colour.
    pixelate   PIXELATE_CELLS cells along the face's longer side, each its mean colour.
    blur       a Gaussian with a sigma of a quarter of the face's longer side. With the borders mirrored, a cosine of k
               half waves over the face keeps exp(-pi^2 k^2 / 32) of its height: one whole wave 29 %, two 0.7 %, which
               is 2 of 255 levels, three a hundredth of a level, which rounding to 8 bits loses for good. Some twenty
               numbers a colour are left of a face, about as many as of a pixelated one.

Where faces overlap the larger is hidden last, over what was made of the smaller: no pixel is hidden with less than
what the largest face that it belongs to asks for.
"""

from __future__ import annotations

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyface_core.redact.faces import Faces, How, Redaction
from tinyface_core.redact.masks import Mask, masks

GREY = 128
PIXELATE_CELLS = 4
BLUR_SHARE = 0.25  # sigma, of the face's longer side
_BLUR_CELLS = 32  # a larger face is blurred at this size: as smooth, and a hundred times as fast

RGB = NDArray[np.uint8]


def hide_faces(rgb_HW3: RGB, faces: Faces, redaction: Redaction) -> None:
    """Hides each of the faces, in place; no pixel outside of their masks changes."""
    for mask in masks(faces, redaction.mask, redaction.margin, (rgb_HW3.shape[0], rgb_HW3.shape[1])):
        patch_HW3 = rgb_HW3[mask.rows, mask.columns]
        patch_HW3[mask.inside_HW] = _hidden(patch_HW3, mask, redaction.how)


def _hidden(patch_HW3: RGB, mask: Mask, how: How) -> RGB | int:
    """What stands in the place of the mask's pixels."""
    match how:
        case "fill":
            return GREY
        case "pixelate":
            return _pixelated(patch_HW3, mask.face_px)[mask.inside_HW]
        case "blur":
            return _blurred(patch_HW3, mask.face_px)[mask.inside_HW]


def _pixelated(patch_HW3: RGB, face_px: float) -> RGB:
    few = _resized(patch_HW3, PIXELATE_CELLS / max(face_px, PIXELATE_CELLS), cv2.INTER_AREA)
    return _enlarged(few, patch_HW3, cv2.INTER_NEAREST)


def _blurred(patch_HW3: RGB, face_px: float) -> RGB:
    zoom = min(1.0, _BLUR_CELLS / face_px)
    small = _resized(patch_HW3, zoom, cv2.INTER_AREA).astype(np.float32)  # of bytes OpenCV would cut the Gaussian short
    sigma_px = max(1.0, BLUR_SHARE * face_px * zoom)
    smooth = cv2.GaussianBlur(small, (0, 0), sigma_px, borderType=cv2.BORDER_REFLECT)
    return _enlarged(smooth.round().astype(np.uint8), patch_HW3, cv2.INTER_LINEAR)


def _resized(patch_HW3: RGB, zoom: float, interpolation: int) -> RGB:
    height, width = (max(1, round(zoom * side)) for side in patch_HW3.shape[:2])
    return np.asarray(cv2.resize(patch_HW3, (width, height), interpolation=interpolation), np.uint8)


def _enlarged(small_HW3: RGB, like_HW3: RGB, interpolation: int) -> RGB:
    height, width = like_HW3.shape[:2]
    return np.asarray(cv2.resize(small_HW3, (width, height), interpolation=interpolation), np.uint8)
