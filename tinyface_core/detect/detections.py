"""The value that the detector gives for one picture."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyface_core.detect.ellipse import Ellipses


@dataclass(frozen=True)
class Detections:
    """The faces of one picture, best score first.

    boxes_K4: float32 xyxy, continuous pixels of the upright picture (origin at the top-left corner of the
    top-left pixel), clipped, none empty. scores_K: float32 in 0..1. template_K: int8, 0-based index into the 25
    templates. zoom_K: float32, the pyramid level that found it. zooms: the levels that were run.
    min_face_px: height of the smallest face that these levels and templates can find. ellipses: regressed from the
    features, against the box before it was clipped, so they may reach past the picture's edge as faces do; None: the
    checkpoint has no regressor.
    """

    boxes_K4: NDArray[np.float32]
    scores_K: NDArray[np.float32]
    template_K: NDArray[np.int8]
    zoom_K: NDArray[np.float32]
    zooms: tuple[float, ...]
    min_face_px: float
    ellipses: Ellipses | None = None

    def __len__(self) -> int:
        return len(self.scores_K)
