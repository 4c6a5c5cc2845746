"""Detectors of others, run on the same pictures, so that one table has both: YuNet, through OpenCV."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import cv2
import numpy as np
from numpy.typing import NDArray

from tinyface_core.errors import CheckpointError
from tinyface_core.evaluate.matching import Found
from tinyface_core.evaluate.results import together
from tinyface_core.picture.decode import decode
from tinyface_core.picture.picture import Limits, Picture

LEAST_SCORE, NMS_IOU, MOST_FACES = 0.02, 0.45, 50_000


def yunet(model: Path) -> Callable[[NDArray[np.uint8], float], Found]:
    """(upright RGB (H, W, 3), zoom) -> faces in px of the picture. Raises: CheckpointError: OpenCV cannot load it."""
    try:
        detector = cv2.FaceDetectorYN.create(str(model), "", (320, 320), LEAST_SCORE, NMS_IOU, MOST_FACES)
    except cv2.error as error:
        raise CheckpointError(f"{model}: OpenCV cannot load it as YuNet ({error.err}).") from error

    def faces_in(rgb_HW3: NDArray[np.uint8], zoom: float) -> Found:
        height, width = rgb_HW3.shape[:2]
        size_wh = max(1, round(width * zoom)), max(1, round(height * zoom))
        shown_HW3 = cv2.resize(rgb_HW3, size_wh, interpolation=cv2.INTER_LINEAR) if zoom != 1 else rgb_HW3
        detector.setInputSize(size_wh)
        _, rows_K15 = detector.detect(np.ascontiguousarray(shown_HW3[..., ::-1]))
        found_K15 = np.array([] if rows_K15 is None else rows_K15, np.float64).reshape(-1, 15)
        ratio_2 = np.array([size_wh[0] / width, size_wh[1] / height])
        return Found(np.asarray(found_K15[:, :4] / np.tile(ratio_2, 2), np.float64), found_K15[:, 14])

    return faces_in


def run_yunet(model: Path, pictures: Mapping[str, Path], zooms: tuple[float, ...] = (1.0, 2.0)) -> dict[str, Found]:
    """YuNet at each zoom on each picture (name -> file), the boxes of all zooms under one NMS."""
    faces_in, found = yunet(model), dict[str, Found]()
    for name, path in pictures.items():
        picture = decode(path.read_bytes(), Limits())
        if isinstance(picture, Picture):
            parts = [{name: faces_in(picture.rgb_HW3, zoom)} for zoom in zooms]
            found |= together(parts, NMS_IOU)
        else:
            found[name] = Found(np.zeros((0, 4)), np.zeros(0))
    return found
