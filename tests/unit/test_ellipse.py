"""The inscribed ellipse of a box."""

from __future__ import annotations

import numpy as np
import pytest

from tinyface_core.detect.ellipse import inscribed


@pytest.mark.parametrize(
    ("box", "cx", "cy", "major", "minor", "angle"),
    [
        ((10, 20, 20, 40), 15, 30, 10, 5, np.pi / 2),  # higher than wide: upright
        ((10, 20, 40, 30), 25, 25, 15, 5, 0),  # wider than high: axes swapped, lying
        ((1, 1, 5, 5), 3, 3, 2, 2, np.pi / 2),  # a square counts as upright
        ((0.25, 0.5, 1.25, 3.5), 0.75, 2, 1.5, 0.5, np.pi / 2),
    ],
)
def test_known_boxes(box: tuple[float, ...], cx: float, cy: float, major: float, minor: float, angle: float) -> None:
    found = inscribed(np.array([box], np.float32))
    values = [found.cx_K[0], found.cy_K[0], found.major_K[0], found.minor_K[0], found.angle_K[0]]
    assert values == pytest.approx([cx, cy, major, minor, angle])
    assert all(value.dtype == np.float32 for value in values)


def test_ellipse_touches_the_four_sides() -> None:
    """Points of the ellipse, turned by its angle, have the box as their bounding box; and the angle is in [0, pi)."""
    random = np.random.default_rng(3)
    corner_K2, size_K2 = random.uniform(0, 50, (40, 2)), random.uniform(0.5, 30, (40, 2))
    boxes_K4 = np.concatenate([corner_K2, corner_K2 + size_K2], axis=1).astype(np.float32)
    found = inscribed(boxes_K4)
    turn = np.linspace(0, 2 * np.pi, 20001)
    for k, box in enumerate(boxes_K4):
        along, across = found.major_K[k] * np.cos(turn), found.minor_K[k] * np.sin(turn)
        x = found.cx_K[k] + along * np.cos(found.angle_K[k]) - across * np.sin(found.angle_K[k])
        y = found.cy_K[k] + along * np.sin(found.angle_K[k]) + across * np.cos(found.angle_K[k])
        np.testing.assert_allclose([x.min(), y.min(), x.max(), y.max()], box, atol=1e-4)
    assert (found.major_K >= found.minor_K).all()
    assert ((found.angle_K >= 0) & (found.angle_K < np.pi)).all()


def test_no_boxes_give_no_ellipses() -> None:
    assert inscribed(np.empty((0, 4), np.float32)).major_K.shape == (0,)
