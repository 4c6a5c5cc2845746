"""What training has moved is fitted anew to the model before it, or left out and said so."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tests.toy_network import cloudy_picture
from tinyface_core.model.locate import ModelAddress, locate
from tinyface_core.storage import Storage
from tinyface_core.train.data import AnnotatedPicture
from tinyface_core.train.refit import refit

pytestmark = pytest.mark.slow

DEMO = Path(__file__).resolve().parents[2] / "demo" / "archive"
LONGEST_PX = 400


@pytest.fixture(scope="module")
def light() -> ModelAddress:
    return locate("hr-mobilenetv2", Storage())


def saved(folder: Path, name: str, picture: Image.Image) -> AnnotatedPicture:
    picture.thumbnail((LONGEST_PX, LONGEST_PX))
    picture.save(folder / f"{name}.png")
    nothing_K4 = np.zeros((0, 4), np.float32)
    return AnnotatedPicture(f"file://{folder}/{name}.png", (picture.height, picture.width), nothing_K4, nothing_K4)


def test_a_model_learns_the_ellipses_of_its_teacher_back(light: ModelAddress, tmp_path: Path) -> None:
    """It being its own teacher: features are there from which the teacher's angles follow, and better than a guess."""
    files = sorted((DEMO / "office").glob("*.jpg")) + sorted((DEMO / "fellows").glob("*.jpg"))
    pictures = [saved(tmp_path, str(n), Image.open(path).convert("RGB")) for n, path in enumerate(files[:4])]
    found = refit(light, light, pictures, Storage())
    assert found.ellipses is not None
    assert found.ellipses.samples > 20
    assert found.ellipses.angle_deg < found.ellipses.constant_angle_deg
    assert found.told["ellipses"].startswith("refitted")
    assert found.told["int8"] == f"refitted: ranges on {len(pictures)} training pictures"
    assert "trunk" in " ".join(found.ranges)


def test_pictures_without_faces_leave_the_ellipses_out(light: ModelAddress, tmp_path: Path) -> None:
    empty = saved(tmp_path, "empty", Image.fromarray(cloudy_picture(60, 90) // 8))
    found = refit(light, light, [empty], Storage())
    assert found.ellipses is None
    assert found.told["ellipses"].startswith("left out: no detection matches")
    assert found.ranges


def test_without_pictures_everything_is_left_out(light: ModelAddress) -> None:
    found = refit(light, light, [], Storage())
    assert (found.ellipses, found.ranges) == (None, {})
    assert set(found.told) == {"int8", "ellipses"}
