"""The inscribed ellipse of a box, and the one that targets give."""

from __future__ import annotations

import numpy as np
import pytest

from tinyface_core.detect.ellipse import Ellipses, around, from_targets, inscribed, targets_of


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


UPRIGHT = np.array([[10, 20, 50, 80]], np.float32)  # 40 wide, 60 high


@pytest.mark.parametrize(
    ("targets", "cx", "cy", "major", "minor", "degrees"),
    [
        ((0, 0, 0, 0, 0), 30, 50, 30, 20, 90),
        ((0.25, -0.5, 0, 0, 0), 40, 20, 30, 20, 90),
        ((0, 0, np.log(1.2), np.log(0.5), 1), 30, 50, 36, 10, 45),  # cot 45 degrees: leans towards +x, +y
        ((0, 0, 0, 0, -1), 30, 50, 30, 20, 135),
        ((0, 0, np.log(0.5), 0, 1), 30, 50, 20, 15, 135),  # the other axis is longer: swapped, a quarter further
        ((0, 0, np.log(0.5), 0, -1), 30, 50, 20, 15, 45),
        ((0, 0, 40, -40, 0), 30, 50, 30 * np.e, 20 / np.e, 90),  # no axis is endless, none is nothing
        ((0, 0, 0, 0, 1e9), 30, 50, 30, 20, 0),
        ((0, 0, 0, 0, -1e9), 30, 50, 30, 20, 0),  # float32 would say pi, which is 0
    ],
)
def test_known_targets(
    targets: tuple[float, ...], cx: float, cy: float, major: float, minor: float, degrees: float
) -> None:
    found = from_targets(UPRIGHT, np.array([targets], np.float32))
    values = [found.cx_K[0], found.cy_K[0], found.major_K[0], found.minor_K[0], np.degrees(found.angle_K[0])]
    assert values == pytest.approx([cx, cy, major, minor, degrees], rel=1e-5, abs=1e-4)
    assert all(value.dtype == np.float32 for value in values[:4])
    assert 0 <= float(found.angle_K[0]) < np.pi


def test_whatever_is_regressed_major_is_the_longer_and_the_angle_in_half_a_turn() -> None:
    random = np.random.default_rng(4)
    boxes_K4 = np.tile(UPRIGHT, (5000, 1))
    found = from_targets(boxes_K4, (random.normal(size=(5000, 5)) * [1, 1, 5, 5, 1e5]).astype(np.float32))
    assert (found.major_K >= found.minor_K).all()
    assert (found.minor_K > 0).all()
    assert (found.angle_K >= 0).all()
    assert (found.angle_K.astype(np.float64) < np.pi).all()


def test_targets_of_the_inscribed_ellipse_are_nothing() -> None:
    np.testing.assert_allclose(targets_of(UPRIGHT, inscribed(UPRIGHT)), np.zeros((1, 5)), atol=1e-6)


def test_targets_and_back() -> None:
    """Any ellipse that stands more than it lies, against any box near it."""
    random = np.random.default_rng(2)
    angle_K, minor_K = np.pi / 2 + random.uniform(-1, 1, 500), random.uniform(5, 60, 500)
    centre_2K, major_K = random.uniform(0, 300, (2, 500)), minor_K * random.uniform(1.01, 2, 500)
    ellipses = Ellipses.of_axes(np.stack([*centre_2K, major_K, angle_K, minor_K]))
    boxes_K4 = (around(ellipses) + random.uniform(-2, 2, (500, 4))).astype(np.float32)
    back = from_targets(boxes_K4, targets_of(boxes_K4, ellipses).astype(np.float32))
    for name in ("cx_K", "cy_K", "major_K", "minor_K", "angle_K"):
        np.testing.assert_allclose(getattr(back, name), getattr(ellipses, name), rtol=1e-4, atol=1e-4)


def test_the_box_around_an_ellipse_touches_it() -> None:
    ellipses = Ellipses.of_axes(np.array([[30.0, 5.0], [50.0, 6.0], [30.0, 9.0], [1.2, 2.0], [20.0, 4.0]]))
    turn = np.linspace(0, 2 * np.pi, 20001)
    for k, box in enumerate(around(ellipses)):
        along, across = ellipses.major_K[k] * np.cos(turn), ellipses.minor_K[k] * np.sin(turn)
        x = ellipses.cx_K[k] + along * np.cos(ellipses.angle_K[k]) - across * np.sin(ellipses.angle_K[k])
        y = ellipses.cy_K[k] + along * np.sin(ellipses.angle_K[k]) + across * np.cos(ellipses.angle_K[k])
        np.testing.assert_allclose([x.min(), y.min(), x.max(), y.max()], box, atol=1e-4)
