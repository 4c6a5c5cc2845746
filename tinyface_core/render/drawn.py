"""One picture with its faces drawn, and its tiniest faces cut out and enlarged. Knows pixels and marks; no file."""

from __future__ import annotations

from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyface_core.render.marks import Marks
from tinyface_core.report.draw import draw_boxes, draw_ellipses, fit

TINY_PX = 20.0  # the paper's "tiny"; taller faces are seen without help
CUT_PX = 96  # side of one cut as it is shown
_AROUND = 3.0  # of a face's longer side
_GAP_PX = 4

RGB = NDArray[np.uint8]


@dataclass(frozen=True)
class Style:
    """ellipses: instead of boxes. longest_px: of a picture as it is drawn; None: what suits the form.

    cuts: so many of the tiniest faces are shown enlarged.
    """

    ellipses: bool = False
    longest_px: int | None = None
    cuts: int = 8


def drawn(rgb_HW3: RGB, marks: Marks, longest_px: int, *, ellipses: bool) -> RGB:
    """The picture at this size at most, with its faces; marks: px of rgb_HW3."""
    small_HW3 = fit(rgb_HW3, longest_px)
    return outlined(small_HW3, marks.at(zoom_of(rgb_HW3, small_HW3)), ellipses=ellipses)


def outlined(rgb_HW3: RGB, marks: Marks, *, ellipses: bool, line_px: int | None = None) -> RGB:
    if ellipses:
        return draw_ellipses(rgb_HW3, marks.ellipses_K5, marks.scores_K, line_px=line_px)
    return draw_boxes(rgb_HW3, marks.boxes_K4, marks.scores_K, line_px=line_px)


def zoom_of(whole_HW3: RGB, small_HW3: RGB) -> tuple[float, float]:
    """(x, y): what a length in the whole picture becomes in the small one."""
    return small_HW3.shape[1] / whole_HW3.shape[1], small_HW3.shape[0] / whole_HW3.shape[0]


def tiny_cuts(rgb_HW3: RGB, marks: Marks, style: Style) -> RGB | None:
    """The tiniest faces with what is around them, side by side, smallest first; None where none is tiny.

    Each is shown as CUT_PX x CUT_PX, outlined; one at the border shows less of what is around it.
    """
    tiny = np.flatnonzero(marks.heights_px_K < TINY_PX)
    tiny = tiny[np.argsort(marks.heights_px_K[tiny], kind="stable")][: style.cuts]
    if not len(tiny):
        return None
    cuts = [_cut(rgb_HW3, marks, int(k), ellipses=style.ellipses) for k in tiny]
    gap = np.zeros((CUT_PX, _GAP_PX, 3), np.uint8)
    return np.concatenate([part for cut in cuts for part in (cut, gap)][:-1], axis=1)


def _cut(rgb_HW3: RGB, marks: Marks, k: int, *, ellipses: bool) -> RGB:
    """A square window, moved into the picture where that is large enough; its pixels stay visible as such."""
    height, width = rgb_HW3.shape[:2]
    x1, y1, x2, y2 = marks.boxes_K4[k].tolist()
    side = int(np.clip(np.ceil(_AROUND * max(x2 - x1, y2 - y1)), 8, max(8, min(height, width))))
    left = int(np.clip(round((x1 + x2 - side) / 2), 0, max(0, width - side)))
    top = int(np.clip(round((y1 + y2 - side) / 2), 0, max(0, height - side)))
    window_HW3 = np.zeros((side, side, 3), np.uint8)
    seen_HW3 = rgb_HW3[top : top + side, left : left + side]
    window_HW3[: seen_HW3.shape[0], : seen_HW3.shape[1]] = seen_HW3
    large_HW3 = np.asarray(cv2.resize(window_HW3, (CUT_PX, CUT_PX), interpolation=cv2.INTER_NEAREST), np.uint8)
    zoom = CUT_PX / side
    one = Marks(marks.boxes_K4[k : k + 1], marks.ellipses_K5[k : k + 1], marks.scores_K[k : k + 1])
    moved = one.moved(-left, -top).at((zoom, zoom))
    return outlined(large_HW3, moved, ellipses=ellipses, line_px=2)


def jpeg(rgb_HW3: RGB, quality: int, *, thin_lines: bool = True) -> bytes:
    """thin_lines: they are coloured, and would fade were colours kept at half resolution as photographs are."""
    flags = [cv2.IMWRITE_JPEG_QUALITY, quality]
    if thin_lines:
        flags += [cv2.IMWRITE_JPEG_SAMPLING_FACTOR, cv2.IMWRITE_JPEG_SAMPLING_FACTOR_444]
    return bytes(cv2.imencode(".jpg", cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2BGR), flags)[1].tobytes())
