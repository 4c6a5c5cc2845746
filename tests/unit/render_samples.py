"""Outputs of a few real pictures, that the tests of `render` share."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tests.report_sample import SamplePicture
from tinyface_core.render.marks import Marks

HEIGHT, WIDTH = 37, 53


def faces(*boxes: Sequence[float], score: float = 0.9) -> NDArray[np.float32]:
    """x1, y1, x2, y2 and this score, of each."""
    return np.array([[*box, score] for box in boxes], np.float32).reshape(-1, 5)


def marks(*boxes: Sequence[float], score: float = 0.9) -> Marks:
    """With inscribed, upright ellipses."""
    boxes_K4 = np.array(boxes, np.float32).reshape(-1, 4)
    middle_K2, half_K2 = (boxes_K4[:, :2] + boxes_K4[:, 2:]) / 2, (boxes_K4[:, 2:] - boxes_K4[:, :2]) / 2
    angle_K1 = np.full((len(boxes_K4), 1), np.pi / 2, np.float32)
    ellipses_K5 = np.concatenate([middle_K2, half_K2[:, 1:], half_K2[:, :1], angle_K1], axis=1)
    return Marks(boxes_K4, ellipses_K5, np.full(len(boxes_K4), score, np.float32))


def photo(path: Path, *boxes: Sequence[float], shade: int = 128, score: float = 0.9) -> SamplePicture:
    """A PNG of one grey on disk, and its row with made-up faces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    data = cv2.imencode(".png", np.full((HEIGHT, WIDTH, 3), shade, np.uint8))[1].tobytes()
    path.write_bytes(data)
    boxes_K5 = faces(*boxes, score=score)
    return SamplePicture(f"file://{path}", boxes_K5=boxes_K5, sha256=hashlib.sha256(data).hexdigest())


def failed(uri: str, message: str = "bad data") -> SamplePicture:
    return SamplePicture(uri, error=("decode", "corrupt", message))
