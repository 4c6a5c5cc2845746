"""From a face's box to an ellipse.

Knows boxes in continuous pixels (xyxy, y points down) and nothing of pictures, networks or tables. An angle is
that of the major axis, in radians in [0, pi), from +x towards +y; an upright ellipse has pi/2.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Ellipses:
    """One ellipse a face, all float32 (K,): centre and half axes in px, major >= minor, angle in [0, pi)."""

    cx_K: NDArray[np.float32]
    cy_K: NDArray[np.float32]
    major_K: NDArray[np.float32]
    minor_K: NDArray[np.float32]
    angle_K: NDArray[np.float32]


def inscribed(boxes_K4: NDArray[np.float32]) -> Ellipses:
    """The ellipse that touches the middle of each side of each box.

    Args:
        boxes_K4: float32 xyxy, px.
    Returns:
        major along the longer side: angle pi/2 when the box is at least as high as wide, else 0.
    """
    boxes_K4 = np.asarray(boxes_K4, dtype=np.float32).reshape(-1, 4)
    x1_K, y1_K, x2_K, y2_K = boxes_K4.astype(np.float64).T
    half_width_K, half_height_K = (x2_K - x1_K) / 2, (y2_K - y1_K) / 2
    upright_K = half_height_K >= half_width_K
    return Ellipses(
        cx_K=((x1_K + x2_K) / 2).astype(np.float32),
        cy_K=((y1_K + y2_K) / 2).astype(np.float32),
        major_K=np.maximum(half_width_K, half_height_K).astype(np.float32),
        minor_K=np.minimum(half_width_K, half_height_K).astype(np.float32),
        angle_K=np.where(upright_K, np.float32(np.pi / 2), np.float32(0)).astype(np.float32),
    )
