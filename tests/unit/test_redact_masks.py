"""Which pixels a face's mask holds: all that its shape touches, and hardly any other."""

from __future__ import annotations

import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.redact_samples import HEIGHT, WIDTH, boxes_of, faces_of, random_faces, tilted
from tinyface_core.detect.ellipse import inscribed
from tinyface_core.redact.faces import Faces, Shape
from tinyface_core.redact.masks import masks

SIZE_HW = (HEIGHT, WIDTH)
STEPS = 17  # points across a pixel, its edges included
REACH_PX = 0.7072 + 0.01


def covered(faces: Faces, shape: Shape, margin: float, size_hw: tuple[int, int] = SIZE_HW) -> NDArray[np.bool_]:
    whole_HW = np.zeros(size_hw, bool)
    for mask in masks(faces, shape, margin, size_hw):
        whole_HW[mask.rows, mask.columns] |= mask.inside_HW
    return whole_HW


def touched(cx: float, cy: float, major: float, minor: float, angle: float) -> NDArray[np.bool_]:
    """The slow reference: pixels of which any of 17 x 17 points lies in the ellipse."""
    at = np.linspace(0, 1, STEPS)
    y_HS, x_WS = np.arange(HEIGHT)[:, None] + at, np.arange(WIDTH)[:, None] + at
    dx, dy = x_WS[None, None] - cx, y_HS[:, :, None, None] - cy
    along, across = dx * np.cos(angle) + dy * np.sin(angle), dy * np.cos(angle) - dx * np.sin(angle)
    inside = (along / major) ** 2 + (across / minor) ** 2 <= 1
    return np.asarray(inside.any(axis=(1, 3)))


def near(cx: float, cy: float, major: float, minor: float, angle: float) -> NDArray[np.bool_]:
    """Pixels that a mask may hold: those in the ellipse, or as near to it as a pixel reaches, stretched as it is."""
    turn = np.linspace(0, 2 * np.pi, 4001)
    along, across = major * np.cos(turn), minor * np.sin(turn)
    x, y = cx + along * np.cos(angle) - across * np.sin(angle), cy + along * np.sin(angle) + across * np.cos(angle)
    centre_x, centre_y = np.arange(WIDTH)[None, :, None] + 0.5, np.arange(HEIGHT)[:, None, None] + 0.5
    distance_HW = np.hypot(centre_x - x, centre_y - y).min(axis=2)
    return np.asarray((distance_HW <= REACH_PX * major / minor) | touched(cx, cy, major, minor, angle))


@pytest.mark.parametrize("margin", [0.0, 0.2, 1.0])
@pytest.mark.parametrize(
    "ellipse",
    [
        (26.3, 18.1, 11, 7, 0.0),
        (26.3, 18.1, 11, 7, np.pi / 2),
        (20.5, 17.5, 12.4, 5.1, 0.6),
        (30.2, 18.9, 13, 4.2, 2.5),
        (1.0, 2.0, 9, 6, 1.1),  # at a corner
        (52.9, 36.5, 6, 5, 2.0),
        (-3.0, 18.0, 8, 7, 0.3),  # its centre outside
        (10.4, 10.6, 1.5, 1.5, 0.0),  # 3 px
        (10.0, 10.0, 1.6, 1.2, 0.8),
    ],
)
def test_a_mask_holds_each_pixel_that_the_ellipse_touches(ellipse: tuple[float, ...], margin: float) -> None:
    cx, cy, major, minor, angle = ellipse
    grown = (cx, cy, major * (1 + margin), minor * (1 + margin), angle)
    found_HW = covered(tilted(*ellipse), "ellipse", margin)
    assert found_HW[touched(*grown)].all()
    assert not found_HW[~near(*grown)].any()


def test_the_box_bounds_what_a_wrong_ellipse_would_uncover() -> None:
    """An ellipse that was regressed far off leaves nothing of the box's own ellipse open."""
    box = (10, 8, 30, 32)
    wrong = Faces(boxes_of(box), inscribed(boxes_of((40, 20, 44, 26))))
    assert covered(wrong, "ellipse", 0.0)[covered(faces_of(box), "ellipse", 0.0)].all()
    assert covered(wrong, "ellipse", 0.0)[23, 42]


@pytest.mark.parametrize(
    ("box", "margin", "rows", "columns"),
    [
        ((10, 8, 30, 32), 0.0, (8, 32), (10, 30)),
        ((10.2, 8.9, 29.1, 31.5), 0.0, (8, 32), (10, 30)),
        ((10, 10, 20, 20), 0.2, (9, 21), (9, 21)),
        ((0, 0, 10, 10), 0.5, (0, 13), (0, 13)),
        ((45, 30, 53, 37), 1.0, (26, 37), (41, 53)),
    ],
)
def test_a_box_is_masked_to_the_pixel(
    box: tuple[float, ...], margin: float, rows: tuple[int, int], columns: tuple[int, int]
) -> None:
    expected_HW = np.zeros(SIZE_HW, bool)
    expected_HW[slice(*rows), slice(*columns)] = True
    np.testing.assert_array_equal(covered(faces_of(box), "box", margin), expected_HW)


@pytest.mark.parametrize("shape", ["ellipse", "box"])
def test_the_smallest_face_comes_first(shape: Shape) -> None:
    faces = random_faces(50, (300, 200), (3, 90), seed=5)
    sizes = [mask.face_px for mask in masks(faces, shape, 0.2, (300, 200))]
    assert len(sizes) == 50
    assert sizes == sorted(sizes)


def test_no_faces_no_masks() -> None:
    assert list(masks(faces_of(), "ellipse", 0.2, SIZE_HW)) == []
    assert list(masks(faces_of((60, 50, 70, 60)), "ellipse", 0.0, SIZE_HW)) == [], "outside of the picture"
