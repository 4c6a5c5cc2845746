"""Faces, and pictures to hide them in, that the tests of `redact` share."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from tinyface_core.detect.ellipse import Ellipses, inscribed
from tinyface_core.redact.faces import Faces

HEIGHT, WIDTH = 37, 53


def boxes_of(*boxes: Sequence[float]) -> NDArray[np.float32]:
    return np.array(boxes, np.float32).reshape(-1, 4)


def faces_of(*boxes: Sequence[float]) -> Faces:
    """With inscribed ellipses."""
    return Faces(boxes_of(*boxes), inscribed(boxes_of(*boxes)))


def tilted(cx: float, cy: float, major: float, minor: float, angle: float) -> Faces:
    """One face whose box is a pixel at the ellipse's centre, so that the ellipse alone tells what is masked."""
    box = boxes_of((cx - 0.1, cy - 0.1, cx + 0.1, cy + 0.1))
    return Faces(box, Ellipses.of_axes(np.array([[cx], [cy], [major], [angle], [minor]])))


def random_faces(count: int, size_hw: tuple[int, int], sides_px: tuple[float, float], seed: int) -> Faces:
    """Boxes within the picture, and ellipses that need not lie in them."""
    random = np.random.default_rng(seed)
    height, width = size_hw
    sides_K2 = random.uniform(*sides_px, (count, 2))
    corners_K2 = random.uniform(0, 1, (count, 2)) * ([width, height] - sides_K2)
    boxes_K4 = np.concatenate([corners_K2, corners_K2 + sides_K2], axis=1).astype(np.float32)
    middles_K2, halves_K2 = corners_K2 + sides_K2 / 2 + random.normal(0, 1, (count, 2)), sides_K2 / 2
    angle_K, stretch_K = random.uniform(0, np.pi, count), random.uniform(0.7, 1.4, count)
    axes_5K = np.stack([*middles_K2.T, halves_K2[:, 1] * stretch_K, angle_K, halves_K2[:, 0]])
    return Faces(boxes_K4, Ellipses.of_axes(axes_5K))


def noise(height: int = HEIGHT, width: int = WIDTH, seed: int = 0) -> NDArray[np.uint8]:
    """RGB in which no channel is ever 128, the grey that faces are filled with."""
    rgb_HW3 = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    return np.where(rgb_HW3 == 128, 200, rgb_HW3).astype(np.uint8)
