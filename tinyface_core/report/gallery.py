"""One picture for the page: a bounded JPEG, and its boxes as an SVG layer that stays crisp at any size.

Knows pixels and boxes; knows no table, store or template. Everything made here is numbers and base64: no text of a
user enters the markup.
"""

from __future__ import annotations

import base64
from collections.abc import Sequence
from dataclasses import dataclass

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyface_core.report.draw import fit, hex_colour

LONGEST_PX = 1280
MOST_BOXES = 1500  # a layer of more is slow to hover over; the caption tells how many are left out
_QUALITIES = (82, 74, 66, 58)
_SMALLER = 0.8  # where no quality is enough
_LEAST_PX = 320


@dataclass(frozen=True)
class Shown:
    """A picture as it goes into the page.

    width, height: units of the SVG layer; px of the JPEG too, unless it had to be smaller. casing: path data of all
    boxes, drawn dark under the colours. boxes: SVG elements, the smallest box last, so that one inside another can be
    pointed at. left_out: boxes not drawn.
    """

    width: int
    height: int
    jpeg_base64: str
    casing: str
    boxes: str
    left_out: int

    @property
    def ratio(self) -> float:
        return round(self.width / self.height, 4)

    @property
    def size_bytes(self) -> int:
        return len(self.jpeg_base64) + len(self.casing) + len(self.boxes)


@dataclass(frozen=True)
class Mark:
    """How one box is drawn. colour: `#rrggbb`. what: begins its title; no markup."""

    colour: str
    what: str


def show(
    rgb_HW3: NDArray[np.uint8],
    boxes_K5: NDArray[np.float32],
    max_bytes: int,
    marks_K: Sequence[Mark] | None = None,
) -> Shown:
    """The picture, downsized, with its boxes.

    Args:
        boxes_K5: x1, y1, x2, y2, score in pixels of `rgb_HW3`.
        max_bytes: of the JPEG in base64 and the boxes together; kept by lower quality, then by a smaller copy. The
            boxes themselves are never dropped for it.
        marks_K: of each box; by default the colour is that of its score.
    """
    small_HW3 = fit(rgb_HW3, LONGEST_PX)
    left_out = max(0, len(boxes_K5) - MOST_BOXES)
    best = np.argsort(-boxes_K5[:, 4], kind="stable")[:MOST_BOXES]
    best_K5 = boxes_K5[best]
    marks = [marks_K[k] for k in best] if marks_K else [Mark(hex_colour(float(score)), "") for score in best_K5[:, 4]]
    height, width = small_HW3.shape[:2]
    factor_xyxy = np.array([width / rgb_HW3.shape[1], height / rgb_HW3.shape[0]] * 2)
    casing, boxes = _layer(best_K5[:, :4] * factor_xyxy, best_K5, marks)
    jpeg = _jpeg(small_HW3, max(0, max_bytes - len(casing) - len(boxes)) * 3 // 4)
    return Shown(
        width=width,
        height=height,
        jpeg_base64=base64.b64encode(jpeg).decode("ascii"),
        casing=casing,
        boxes=boxes,
        left_out=left_out,
    )


def _layer(shown_K4: NDArray[np.float64], original_K5: NDArray[np.float32], marks_K: Sequence[Mark]) -> tuple[str, str]:
    """(path data of the casing, elements of the boxes); titles tell the height in the original picture."""
    sizes_K2 = shown_K4[:, 2:] - shown_K4[:, :2]
    casing, boxes = [], []
    for k in np.argsort(-sizes_K2.prod(axis=1), kind="stable"):
        x, y = (f"{value:.1f}" for value in shown_K4[k, :2])
        width, height = (f"{value:.1f}" for value in sizes_K2[k])
        score, height_px = float(original_K5[k, 4]), float(original_K5[k, 3] - original_K5[k, 1])
        casing.append(f"M{x} {y}h{width}v{height}h-{width}z")
        boxes.append(
            f'<rect x="{x}" y="{y}" width="{width}" height="{height}" stroke="{marks_K[k].colour}">'
            f"<title>{marks_K[k].what}score {score:.2f}, {height_px:.0f} px high</title></rect>"
        )
    return "".join(casing), "\n".join(boxes)


def _jpeg(rgb_HW3: NDArray[np.uint8], max_bytes: int) -> bytes:
    """The best of a few qualities that fits; a smaller copy, stretched by the page, where none does."""
    while True:
        bgr_HW3 = cv2.cvtColor(rgb_HW3, cv2.COLOR_RGB2BGR)
        for quality in _QUALITIES:
            encoded = cv2.imencode(".jpg", bgr_HW3, [cv2.IMWRITE_JPEG_QUALITY, quality])[1].tobytes()
            if len(encoded) <= max_bytes:
                return encoded
        longest = max(rgb_HW3.shape[:2])
        if longest <= _LEAST_PX:
            return encoded
        rgb_HW3 = fit(rgb_HW3, int(longest * _SMALLER))
