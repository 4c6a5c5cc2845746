"""Two lists of boxes of the same picture: how far they differ."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray
from scipy.spatial import cKDTree
from torch import Tensor

from tinyface_core.detect.decode import Candidates
from tinyface_core.detect.detections import Detections
from tinyface_core.detect.detector import Detector
from tinyface_core.detect.pyramid import Level


class Kept:
    """In place of a detector's `candidates`: the same, and remembers what it gave."""

    def __init__(self, detector: Detector) -> None:
        self.original = detector.candidates

    def __call__(self, rgb_HW3: Tensor, levels: list[Level]) -> Candidates:
        self.given: Candidates = self.original(rgb_HW3, levels)
        return self.given


def before_and_after_nms(detector: Detector, picture: NDArray[np.uint8]) -> tuple[Candidates, Detections]:
    """All boxes above the threshold, and the faces that come of them."""
    kept = detector.candidates = Kept(detector)  # type: ignore[method-assign]
    found = detector(picture)
    detector.candidates = kept.original  # type: ignore[method-assign]
    return kept.given, found


def largest_difference(one: Candidates | Detections, other: Candidates | Detections, zoom: float) -> float:
    """Of each box from its likest in the other, both ways: the largest of px of the level's image and score.

    Likest: of the same template, with the smallest such difference. Infinite when only one has boxes.
    """
    places = []
    for found in (one, other):
        boxes_K4 = np.asarray(found.boxes_K4, np.float64) * zoom
        score_K, template_K = np.asarray(found.scores_K, np.float64), np.asarray(found.template_K, np.float64)
        places.append(np.column_stack([boxes_K4, score_K, 1e6 * template_K]))
    if not len(places[0]) or not len(places[1]):
        return 0.0 if len(places[0]) == len(places[1]) else np.inf
    return max(float(cKDTree(there).query(here, p=np.inf)[0].max()) for here, there in (places, places[::-1]))
