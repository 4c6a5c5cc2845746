"""Which face heights a pyramid level is good at: average precision of each height by each level alone, and the search
for limits of its boxes.

False alarms count against a height only where their own boxes have it, as COCO judges sizes: a level that is limited
to that height would have no others.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

from tinyface_core.evaluate.curves import curve
from tinyface_core.evaluate.matching import Matches
from tinyface_core.evaluate.truth import Truth, height_name
from tinyface_core.studies.level_choices import ANY, Heights

EDGES_PX = (0, 6, 8, 10, 12, 16, 20, 28, 40, 70, 140, 280, 10**6)
CAPS_PX = (40.0, 48.0, 56.0, 64.0, 72.0, 80.0, 96.0, 128.0)  # of the level, tried as the highest box that it may give


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


def best_limits(zooms: Sequence[float], judge: Callable[[Mapping[float, Heights]], float]) -> dict[float, Heights]:
    """Up to which height each level's boxes are let through: what judges best, level by level, the finest first.

    The coarsest level has no limit. CAPS_PX are tried; judge: limits of all levels -> how good they are, higher is
    better. Found on the very pictures that the table judges by, so its row is on the bright side.
    """
    limits = dict.fromkeys(zooms, ANY)
    best = judge(limits)
    for zoom in sorted(zooms, reverse=True)[:-1]:
        for cap_px in CAPS_PX:
            tried = {**limits, zoom: (0.0, cap_px / zoom)}
            if (value := judge(tried)) > best:
                best, limits = value, tried
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
