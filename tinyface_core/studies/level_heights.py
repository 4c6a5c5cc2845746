"""Which face heights a pyramid level is good at: average precision of each height by each level alone.

False alarms count against a height only where their own boxes have it, as COCO judges sizes: a level that is limited
to that height would have no others.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tinyface_core.evaluate.curves import curve
from tinyface_core.evaluate.matching import Matches
from tinyface_core.evaluate.truth import Truth, height_name
from tinyface_core.studies.level_choices import Heights

EDGES_PX = (0, 6, 8, 10, 12, 16, 20, 28, 40, 70, 140, 280, 10**6)
NEAR_BEST = 0.9  # a level serves a height where it comes this near to the best level
SLACK = 1.25  # boxes are up to this much higher or lower than the faces they find


@dataclass(frozen=True)
class Served:
    """precision: zoom -> average precision of each height, NaN where there are no faces. faces_H; heights: EDGES_PX."""

    precision: Mapping[float, NDArray[np.float64]]
    faces_H: NDArray[np.int64]

    @property
    def heights(self) -> Sequence[tuple[int, int]]:
        """px: from, up to below."""
        return list(pairwise(EDGES_PX))


def served(truth: Truth, alone: Mapping[float, Matches]) -> Served:
    """alone: zoom -> what that level finds by itself."""
    groups = [
        truth.valid_F & (truth.faces_F4[:, 3] >= least) & (truth.faces_F4[:, 3] < below)
        for least, below in pairwise(EDGES_PX)
    ]
    precision = {
        zoom: np.array([_precision(truth, matches, *each) for each in zip(groups, pairwise(EDGES_PX), strict=True)])
        for zoom, matches in alone.items()
    }
    return Served(precision, np.array([group_F.sum() for group_F in groups]))


def _precision(truth: Truth, matches: Matches, group_F: NDArray[np.bool_], heights: tuple[int, int]) -> float:
    if not group_F.any():
        return math.nan
    has_height_D = (matches.height_D >= heights[0]) & (matches.height_D < heights[1])
    kept_D = (matches.face_D >= 0) | has_height_D
    fields = ("scores_D", "picture_D", "face_D", "first_D", "iou_D", "height_D")
    few = replace(matches, **{name: getattr(matches, name)[kept_D] for name in fields})
    return curve(truth, few, group_F).average_precision


def fitting(by_height: Served) -> dict[float, Heights]:
    """Limits of box heights for each level, px: from the lowest to the highest height that it serves, with SLACK.

    A height of which nothing is known (no faces, or none found by any level) is left to the levels that serve its
    neighbour. Chosen on the very pictures that the table judges by, so its row is on the bright side, the more so the
    fewer faces there are; levels that serve nothing are left out.
    """
    zooms = list(by_height.precision)
    precision_LH = np.nan_to_num(np.array([by_height.precision[zoom] for zoom in zooms]))
    best_H = precision_LH.max(axis=0)
    limits = {}
    for zoom, precision_H in zip(zooms, precision_LH, strict=True):
        served = np.flatnonzero((best_H > 0) & (precision_H >= NEAR_BEST * best_H))
        if len(served):
            first, last = int(served[0]), int(served[-1])
            while first and best_H[first - 1] == 0:
                first -= 1
            while last + 1 < len(best_H) and best_H[last + 1] == 0:
                last += 1
            below = EDGES_PX[last + 1]
            limits[zoom] = (EDGES_PX[first] / SLACK, math.inf if below == EDGES_PX[-1] else below * SLACK)
    return limits


def served_table(by_height: Served) -> str:
    """Markdown: a line a height that has faces, a column a level, the best one bold."""
    zooms = list(by_height.precision)
    lines = ["| face height | faces | " + " | ".join(f"{zoom:g} alone" for zoom in zooms) + " |"]
    lines.append("|---|---:|" + "---:|" * len(zooms))
    for place, heights in enumerate(by_height.heights):
        if by_height.faces_H[place]:
            values = [float(by_height.precision[zoom][place]) for zoom in zooms]
            cells = [f"**{value:.3f}**" if value == max(values) > 0 else f"{value:.3f}" for value in values]
            lines.append(f"| {height_name(*heights)} | {by_height.faces_H[place]:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)
