"""From a face's box to an ellipse, and back to what a regressor has to learn.

Knows boxes in continuous pixels (xyxy, y points down) and nothing of pictures, networks or tables. An angle is
that of the major axis, in radians in [0, pi), from +x towards +y; an upright ellipse has pi/2.
Paper: appendix B; METHOD, section 6.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Any

import numpy as np
from numpy.typing import NDArray

MOST_STRETCH = 1.0  # of ta and tb: an axis is at most e times, and at least 1/e of, the box's half side


@dataclass(frozen=True)
class Ellipses:
    """One ellipse a face, all float32 (K,): centre and half axes in px, major >= minor, angle in [0, pi)."""

    cx_K: NDArray[np.float32]
    cy_K: NDArray[np.float32]
    major_K: NDArray[np.float32]
    minor_K: NDArray[np.float32]
    angle_K: NDArray[np.float32]

    @classmethod
    def joined(cls, parts: Sequence[Ellipses]) -> Ellipses:
        """All parts, in order."""
        names = [column.name for column in fields(cls)]
        return cls(*(np.concatenate([np.empty(0, np.float32), *(getattr(part, n) for part in parts)]) for n in names))

    def at(self, index: Any) -> Ellipses:
        """Some of them: by a mask (K,) or by indices, in their order."""
        return Ellipses(*(getattr(self, column.name)[index] for column in fields(self)))

    @classmethod
    def of_axes(cls, axes_5K: NDArray[np.float64]) -> Ellipses:
        """From rows cx, cy, one half axis, its angle by any turn, the other half axis; swapped where that is longer."""
        cx_K, cy_K, along_K, angle_K, across_K = np.asarray(axes_5K, np.float64)
        angle_K = np.where(along_K >= across_K, angle_K, angle_K + math.pi / 2) % math.pi
        angle_K = angle_K.astype(np.float32)
        angle_K[angle_K.astype(np.float64) >= math.pi] = 0  # float32 rounds what is just below pi to above it
        longer_K, shorter_K = np.maximum(along_K, across_K), np.minimum(along_K, across_K)
        x_K, y_K, major_K, minor_K = np.stack([cx_K, cy_K, longer_K, shorter_K]).astype(np.float32)
        return cls(x_K, y_K, major_K, minor_K, angle_K)


def inscribed(boxes_K4: NDArray[np.float32]) -> Ellipses:
    """The ellipse that touches the middle of each side of each box.

    Args:
        boxes_K4: float32 xyxy, px.
    Returns:
        major along the longer side: angle pi/2 when the box is at least as high as wide, else 0.
    """
    cx_K, cy_K, half_width_K, half_height_K = _middles(boxes_K4)
    upright_K = np.full(len(cx_K), math.pi / 2)
    return Ellipses.of_axes(np.stack([cx_K, cy_K, half_height_K, upright_K, half_width_K]))


def from_targets(boxes_K4: NDArray[np.float32], targets_K5: NDArray[np.float32]) -> Ellipses:
    """The inverse of `targets_of`: regressed targets against their boxes, which may reach past the picture.

    Args:
        boxes_K4: float32 xyxy, px. targets_K5: tx, ty, ta, tb, tth; ta and tb count up to MOST_STRETCH either way.
    """
    cx_K, cy_K, half_width_K, half_height_K = _middles(boxes_K4)
    tx_K, ty_K, ta_K, tb_K, cot_K = np.asarray(targets_K5, np.float64).reshape(-1, 5).T
    along_K = half_height_K * np.exp(np.clip(ta_K, -MOST_STRETCH, MOST_STRETCH))
    across_K = half_width_K * np.exp(np.clip(tb_K, -MOST_STRETCH, MOST_STRETCH))
    x_K, y_K = cx_K + 2 * half_width_K * tx_K, cy_K + 2 * half_height_K * ty_K
    return Ellipses.of_axes(np.stack([x_K, y_K, along_K, np.arctan2(1, cot_K), across_K]))


def targets_of(boxes_K4: NDArray[np.float32], ellipses: Ellipses) -> NDArray[np.float64]:
    """What a regressor says of each box when it is right, (K, 5): tx, ty, ta, tb, tth.

    tx, ty: the centres' distance in widths and heights of the box. ta, tb: log of the major half axis to half the
    height and of the minor to half the width. tth: cot of the angle, without bound towards 0 and pi, where the face
    lies on its side: leave such faces out of a fit.
    """
    cx_K, cy_K, half_width_K, half_height_K = _middles(boxes_K4)
    angle_K = ellipses.angle_K.astype(np.float64)
    columns = [
        (ellipses.cx_K - cx_K) / (2 * half_width_K),
        (ellipses.cy_K - cy_K) / (2 * half_height_K),
        np.log(ellipses.major_K / half_height_K),
        np.log(ellipses.minor_K / half_width_K),
        np.cos(angle_K) / np.sin(angle_K),
    ]
    return np.stack(columns, axis=1)


def around(ellipses: Ellipses) -> NDArray[np.float64]:
    """The smallest upright box that holds each ellipse, (K, 4) xyxy, px."""
    cos_K, sin_K = np.cos(ellipses.angle_K.astype(np.float64)), np.sin(ellipses.angle_K.astype(np.float64))
    half_width_K = np.hypot(ellipses.major_K * cos_K, ellipses.minor_K * sin_K)
    half_height_K = np.hypot(ellipses.major_K * sin_K, ellipses.minor_K * cos_K)
    cx_K, cy_K = ellipses.cx_K.astype(np.float64), ellipses.cy_K.astype(np.float64)
    return np.stack([cx_K - half_width_K, cy_K - half_height_K, cx_K + half_width_K, cy_K + half_height_K], axis=1)


def _middles(boxes_K4: NDArray[np.float32]) -> tuple[NDArray[np.float64], ...]:
    """Centre x and y, half width and half height, px."""
    x1_K, y1_K, x2_K, y2_K = np.asarray(boxes_K4, np.float32).reshape(-1, 4).astype(np.float64).T
    return (x1_K + x2_K) / 2, (y1_K + y2_K) / 2, (x2_K - x1_K) / 2, (y2_K - y1_K) / 2
