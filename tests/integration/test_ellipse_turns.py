"""With both bundled models: the demo's faces turn by 20 degrees, and so do their ellipses."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.toy_network import FP32
from tinyface_core.detect.detections import Detections
from tinyface_core.detect.detector import Detector
from tinyface_core.detect.options import DetectOptions
from tinyface_core.model.spec import BUNDLED
from tinyface_core.train.fit_ellipses_truth import moved, turned_picture

DEMO = Path(__file__).resolve().parents[2] / "demo" / "archive" / "fellows"
PICTURES = ("fellows_group_bw.jpg", "fellows_steps_2019.jpg", "fellows_white_house_2015.jpg")
MIDDLE_HW = (700, 1000)  # of each picture, at its own size: some twenty faces of 40 to 100 px
LEAST_PX = 40
TURN = math.radians(20)

pytestmark = pytest.mark.slow


@pytest.fixture(scope="module", params=["hr-resnet50", "hr-mobilenetv2"])
def model(request: pytest.FixtureRequest) -> Path:
    return BUNDLED / f"{request.param}.safetensors"


def middle_of(path: Path) -> NDArray[np.uint8]:
    with Image.open(path) as picture:
        rgb_HW3 = np.asarray(picture.convert("RGB"))
    top, left = (max(0, (have - want) // 2) for have, want in zip(rgb_HW3.shape[:2], MIDDLE_HW, strict=True))
    return rgb_HW3[top : top + MIDDLE_HW[0], left : left + MIDDLE_HW[1]].copy()


def heights(found: Detections) -> NDArray[np.float32]:
    return found.boxes_K4[:, 3] - found.boxes_K4[:, 1]


def change_deg(
    upright: Detections, turned: Detections, turn_22: NDArray[np.float64], shift_2: NDArray[np.float64]
) -> list[float]:
    """How far the ellipse of each face of at least LEAST_PX turned, degrees; a face is known again by its place."""
    assert upright.ellipses is not None
    assert turned.ellipses is not None
    expected = moved(upright.ellipses, turn_22, shift_2)
    height_K = heights(upright)
    changes = []
    for k in np.flatnonzero(height_K >= LEAST_PX):
        away_K = np.hypot(turned.ellipses.cx_K - expected.cx_K[k], turned.ellipses.cy_K - expected.cy_K[k])
        if len(away_K) and away_K.min() < height_K[k] / 3:
            by = float(turned.ellipses.angle_K[away_K.argmin()] - upright.ellipses.angle_K[k])
            changes.append(math.degrees((by + math.pi / 2) % math.pi - math.pi / 2))
    return changes


@pytest.mark.timeout(600)
def test_the_demos_faces_turn_and_their_ellipses_follow_to_seven_degrees(model: Path) -> None:
    detector = Detector.load(
        model, DetectOptions(zooms=(0.5, 1.0)), FP32
    )  # without 2x: these faces are large, it is quick
    changes: dict[float, list[float]] = {TURN: [], -TURN: []}
    tilts: list[float] = []
    for name in PICTURES:
        rgb_HW3 = middle_of(DEMO / name)
        upright = detector(rgb_HW3)
        assert upright.ellipses is not None
        tilts += np.degrees(upright.ellipses.angle_K[heights(upright) >= LEAST_PX] - math.pi / 2).tolist()
        middle_2 = np.array([rgb_HW3.shape[1], rgb_HW3.shape[0]]) / 2
        for turn, found in changes.items():
            turn_22 = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
            shift_2 = middle_2 - turn_22 @ middle_2
            turned_HW3 = turned_picture(rgb_HW3, turn_22, shift_2, (rgb_HW3.shape[0], rgb_HW3.shape[1]))
            found += change_deg(upright, detector(turned_HW3), turn_22, shift_2)
    for turn, found in changes.items():
        low, middle, high = np.percentile(found, [25, 50, 75])
        print(f"by {math.degrees(turn):.0f}: {middle:.1f} degrees, quartiles {low:.1f} {high:.1f}, {len(found)} faces")
        assert len(found) >= 20
        assert middle == pytest.approx(math.degrees(turn), abs=7)
    print(f"not turned: median {np.median(tilts):.1f}, of the size {np.median(np.abs(tilts)):.1f}, {len(tilts)} faces")
    assert abs(float(np.median(tilts))) < 7
