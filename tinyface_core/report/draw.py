"""Confidence as a colour, and boxes and ellipses drawn on pictures.

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
_AROUND_PX = 8  # a smaller face is drawn around, a larger one has a line of an eighth of it at most


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


def line_for(longest_px: int) -> int:
    """Width of a line, px, that is seen at a glance on a picture of this size."""
    return max(1, round(longest_px / 800))


def draw_boxes(
    rgb_HW3: NDArray[np.uint8],
    boxes_K4: NDArray[np.floating],
    scores_K: NDArray[np.floating],
    *,
    line_px: int | None = None,
) -> NDArray[np.uint8]:
    """A copy of the picture with each box outlined in its score's colour, the most confident on top.

    The line lies just inside the box: a box from 2 to 12 colours the pixels 2 and 11. It is never wider than an eighth
    of the box, and around one of less than 8 px it lies just outside: the face stays visible. A casing of one dark
    pixel surrounds the line. What falls outside the picture is not drawn.

    Args:
        rgb_HW3: uint8.
        boxes_K4: xyxy, continuous pixels of this picture.
        scores_K: in 0..1.
        line_px: width of the line on a large face; by default of `line_for`.
    """
    out_HW3 = np.ascontiguousarray(rgb_HW3).copy()
    colours_K3 = colours_of(scores_K)
    first_K2 = np.floor(boxes_K4[:, :2]).astype(np.int64)
    last_K2 = np.maximum(np.ceil(boxes_K4[:, 2:]).astype(np.int64) - 1, first_K2)
    side_K = (last_K2 - first_K2).min(axis=1) + 1
    outside_K1 = (side_K < _AROUND_PX).astype(np.int64)[:, None]
    first_K2, last_K2 = first_K2 - outside_K1, last_K2 + outside_K1
    width_K = np.clip(side_K // _AROUND_PX, 1, line_px or line_for(max(rgb_HW3.shape[:2])))
    for k in np.argsort(scores_K, kind="stable"):
        _frame(out_HW3, first_K2[k] - 1, last_K2[k] + 1, _CASING_RGB)
    for k in np.argsort(scores_K, kind="stable"):
        for inset in range(width_K[k]):
            _frame(out_HW3, first_K2[k] + inset, last_K2[k] - inset, colours_K3[k])
    return out_HW3


def draw_ellipses(
    rgb_HW3: NDArray[np.uint8],
    ellipses_K5: NDArray[np.floating],
    scores_K: NDArray[np.floating],
    *,
    line_px: int | None = None,
) -> NDArray[np.uint8]:
    """As `draw_boxes`, with ellipses: cx, cy, half axes major and minor in px, angle of the major axis in radians.

    Lines are smooth, and lie astride the ellipse; around a tiny one they lie two pixels further out.
    """
    out_HW3 = np.ascontiguousarray(rgb_HW3).copy()
    colours_K3 = colours_of(scores_K)
    most_px = line_px or line_for(max(rgb_HW3.shape[:2]))
    order_K = np.argsort(scores_K, kind="stable")
    for is_casing in (True, False):
        for k in order_K:
            cx, cy, major, minor, angle = map(float, ellipses_K5[k])
            larger = 2.0 if minor < _AROUND_PX / 2 else 0.0
            width = int(np.clip(2 * minor // _AROUND_PX, 1, most_px)) + 2 * is_casing
            colour = _CASING_RGB if is_casing else colours_K3[k]
            # OpenCV's pixel centres are whole numbers, ours lie half a pixel further; 4 bits of fraction.
            centre = (round((cx - 0.5) * 16), round((cy - 0.5) * 16))
            axes = (max(8, round((major + larger) * 16)), max(8, round((minor + larger) * 16)))
            rgb = tuple(map(int, colour))
            cv2.ellipse(out_HW3, centre, axes, np.degrees(angle), 0, 360, rgb, width, cv2.LINE_AA, 4)
    return out_HW3


def _frame(
    out_HW3: NDArray[np.uint8], first_xy: NDArray[np.int64], last_xy: NDArray[np.int64], rgb: NDArray[np.uint8]
) -> None:
    """One pixel wide, corners inclusive. cv2 clips it to the picture."""
    first, last = (int(first_xy[0]), int(first_xy[1])), (int(last_xy[0]), int(last_xy[1]))
    cv2.rectangle(out_HW3, first, last, tuple(map(int, rgb)), thickness=1, lineType=cv2.LINE_8)
