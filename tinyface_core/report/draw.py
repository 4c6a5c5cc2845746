"""Confidence as a colour, and boxes drawn on pictures.

The colour map is viridis: its lightness rises evenly from 0 to 1, so that equal steps of score look equal, the
order survives a grey print and the common forms of colour blindness, and the faces that one can trust are the
brightest. (Rainbow maps, the paper's figure among them, have false edges and turn dark at both ends.) OpenCV
carries its table, equal to matplotlib's to the bit, and needs no import of matplotlib. A dark casing under every
line keeps the bright end visible on a white wall and the dark end on a black coat.

Knows pixels, boxes and scores; knows no table, file or page.
"""

from __future__ import annotations

from functools import cache

import cv2
import numpy as np
from numpy.typing import NDArray

_CASING_RGB = np.zeros(3, np.uint8)


@cache
def _viridis_256_3() -> NDArray[np.uint8]:
    ramp = np.arange(256, dtype=np.uint8)[:, None]
    return np.ascontiguousarray(cv2.applyColorMap(ramp, cv2.COLORMAP_VIRIDIS)[:, 0, ::-1])


def colours_of(scores_K: NDArray[np.floating]) -> NDArray[np.uint8]:
    """RGB of each score, (K, 3) uint8; scores outside 0..1 take the end's colour, NaN the colour of 0."""
    steps = np.rint(np.clip(np.nan_to_num(scores_K, nan=0.0), 0.0, 1.0) * 255).astype(np.intp)
    return _viridis_256_3()[steps]


def hex_colour(score: float) -> str:
    """`#rrggbb` of one score."""
    red, green, blue = colours_of(np.array([score]))[0]
    return f"#{red:02x}{green:02x}{blue:02x}"


def fit(rgb_HW3: NDArray[np.uint8], longest_px: int) -> NDArray[np.uint8]:
    """The picture with its longest side at most `longest_px`, each area averaged; a small one comes back as it is."""
    height, width = rgb_HW3.shape[:2]
    if max(height, width) <= longest_px:
        return rgb_HW3
    factor = longest_px / max(height, width)
    size_wh = (max(1, round(width * factor)), max(1, round(height * factor)))
    return np.asarray(cv2.resize(rgb_HW3, size_wh, interpolation=cv2.INTER_AREA), np.uint8)


def draw_boxes(
    rgb_HW3: NDArray[np.uint8],
    boxes_K4: NDArray[np.floating],
    scores_K: NDArray[np.floating],
    *,
    line_px: int | None = None,
) -> NDArray[np.uint8]:
    """A copy of the picture with each box outlined in its score's colour, the most confident on top.

    Args:
        rgb_HW3: uint8.
        boxes_K4: xyxy, continuous pixels of this picture. The line lies just inside the box: a box from 2 to 6
            colours the pixels 2 and 5. What falls outside the picture is not drawn.
        scores_K: in 0..1.
        line_px: width of the line; by default 1 px for every 800 of the longest side, at least 1. A casing of
            one dark pixel surrounds it.
    """
    out_HW3 = np.ascontiguousarray(rgb_HW3).copy()
    line_px = line_px or max(1, round(max(rgb_HW3.shape[:2]) / 800))
    colours_K3 = colours_of(scores_K)
    first_K2 = np.floor(boxes_K4[:, :2]).astype(np.int64)
    last_K2 = np.maximum(np.ceil(boxes_K4[:, 2:]).astype(np.int64) - 1, first_K2)
    for k in np.argsort(scores_K, kind="stable"):
        _frame(out_HW3, first_K2[k] - 1, last_K2[k] + 1, _CASING_RGB)
    for k in np.argsort(scores_K, kind="stable"):
        for inset in range(line_px):
            if (last_K2[k] - first_K2[k] < 2 * inset).any():
                break
            _frame(out_HW3, first_K2[k] + inset, last_K2[k] - inset, colours_K3[k])
    return out_HW3


def _frame(
    out_HW3: NDArray[np.uint8], first_xy: NDArray[np.int64], last_xy: NDArray[np.int64], rgb: NDArray[np.uint8]
) -> None:
    """One pixel wide, corners inclusive. cv2 clips it to the picture."""
    first, last = (int(first_xy[0]), int(first_xy[1])), (int(last_xy[0]), int(last_xy[1]))
    cv2.rectangle(out_HW3, first, last, tuple(map(int, rgb)), thickness=1, lineType=cv2.LINE_8)
