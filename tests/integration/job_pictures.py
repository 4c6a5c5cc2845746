"""Small pictures and a tiny model for the tests of the job: a run of it costs its start, hardly any work."""

from __future__ import annotations

from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
from PIL import Image

from tests.picture_samples import saved
from tests.toy_network import calibrated, cloudy_picture
from tinyface_core.model.checkpoint import save_checkpoint

DEMO = Path(__file__).resolve().parents[2] / "demo" / "archive"


def save_model(path: Path) -> Path:
    """A light network with made-up weights that fires on any picture; about 15 ms a picture."""
    network, spec = calibrated("mobilenet_v2")
    save_checkpoint(path, network, replace(spec, name="tiny"))
    return path


@cache
def photo(number: int, longest: int = 200) -> bytes:
    """A real photograph, small, as JPEG; each number another one."""
    files = sorted(path for path in DEMO.rglob("*.jpg") if path.parent.name != "broken")
    with Image.open(files[number % len(files)]) as picture:
        small = picture.convert("RGB").rotate(number // len(files))
    small.thumbnail((longest, longest))
    return saved(small, "JPEG", quality=90)


@cache
def cloud(number: int, height: int = 53, width: int = 37) -> bytes:
    """A made-up picture as JPEG; each number another one."""
    return saved(cloudy_picture(height, width, number), "JPEG", quality=90)


def deadly(pixel: tuple[int, int, int], height: int = 61, width: int = 43) -> bytes:
    """A good PNG whose first pixel is a fault of the detector (tests/faults)."""
    rgb_HW3 = np.full((height, width, 3), 90, np.uint8)
    rgb_HW3[0, 0] = pixel
    return saved(rgb_HW3, "PNG")


def faulty(fault: str, number: int = 0) -> bytes:
    """A good JPEG with a fault of the decoder in its comment (tests/faults): crash, hang, eat, reader, while:PATH."""
    return saved(cloudy_picture(59, 41, 1000 + number), "JPEG", comment=f"tinyface-fault:{fault} {number}")
