"""Which levels of the pyramid run, which box heights each may give, with or without regression: the table's rows.

A limit is on the height of a level's boxes in px of the picture, before NMS: what a level may not give suppresses
nothing. Without regression the height is the template's.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import torch

from tinyface_core import boxes
from tinyface_core.errors import SettingsError
from tinyface_core.evaluate.matching import Found
from tinyface_core.model.spec import Defaults, LevelHeights
from tinyface_core.studies.level_boxes import Looked

Heights = tuple[float, float]  # px: from, up to below
ANY: Heights = (0.0, math.inf)
CAPS_PX = (12, 16, 20)  # of a level beyond the model's own, e.g. 4x


@dataclass(frozen=True)
class Choice:
    """One row. levels: zoom -> heights of the boxes that it may give. vote: as the checkpoint has it, or not."""

    name: str
    levels: Mapping[float, Heights]
    regression: bool = True
    vote: bool = True


def chosen(looked: Looked, choice: Choice, defaults: Defaults) -> Found:
    """The faces of one picture, by the detector's own rule: one NMS over all levels, a vote on boxes, then clipped."""
    found_boxes, found_scores = [np.zeros((0, 4), np.float32)], [np.zeros(0, np.float32)]
    for zoom, (least, below) in choice.levels.items():
        level = looked.levels[zoom]
        given_K4 = level.boxes_K4 if choice.regression else level.still_K4
        height_K = given_K4[:, 3] - given_K4[:, 1]
        allowed_K = (height_K >= least) & (height_K < below)
        found_boxes.append(given_K4[allowed_K])
        found_scores.append(level.scores_K[allowed_K])
    boxes_K4, scores_K = torch.from_numpy(np.concatenate(found_boxes)), torch.from_numpy(np.concatenate(found_scores))
    inside_K = boxes.area(boxes.clip(boxes_K4, looked.picture_hw)) > 0
    boxes_K4, scores_K = boxes_K4[inside_K], scores_K[inside_K]
    kept = boxes.nms(boxes_K4, scores_K, defaults.nms_iou)
    vote_iou = defaults.vote_iou if choice.vote and choice.regression else None
    best_K4 = boxes_K4[kept] if vote_iou is None else boxes.vote(boxes_K4, scores_K, kept, vote_iou)
    corners_K4 = boxes.clip(best_K4, looked.picture_hw).numpy().astype(np.float64)
    corners_K4[:, 2:] -= corners_K4[:, :2]  # to x, y, width, height
    return Found(corners_K4, scores_K[kept].numpy().astype(np.float64))


def as_limits(choice: Choice) -> tuple[LevelHeights, ...]:
    """As a checkpoint keeps them."""
    return tuple(
        LevelHeights(zoom, least, None if below == math.inf else below)
        for zoom, (least, below) in choice.levels.items()
        if (least, below) != ANY
    )


def alone(zoom: float) -> Choice:
    """One level by itself."""
    return Choice(f"{zoom:g} alone", {zoom: ANY})


def rows(zooms: Sequence[float], own: Sequence[float], asked: Sequence[str] = ()) -> list[Choice]:
    """The table's rows, each with and without regression; the first one with regression and no vote, too.

    Args:
        zooms: all levels that were computed. own: the model's usual ones: all of them, then without each; the others
            are added one by one, bare and under CAPS_PX. asked: limits as read by `limited`, over all zooms.
    """
    base = [zoom for zoom in zooms if zoom in own] or list(zooms)
    levels = {_names(base): dict.fromkeys(base, ANY)}
    for gone in base if len(base) > 1 else ():
        levels[f"without {gone:g}"] = {zoom: ANY for zoom in base if zoom != gone}
    for more in (zoom for zoom in zooms if zoom not in base):
        levels[f"with {more:g}"] = {**dict.fromkeys(base, ANY), more: ANY}
        for cap in CAPS_PX:
            levels[f"with {more:g} under {cap} px"] = {**dict.fromkeys(base, ANY), more: (0.0, float(cap))}
    levels |= {text: limited(text, zooms) for text in asked}
    first, *more_rows = [choice for name, these in levels.items() for choice in both(name, these)]
    return [first, replace(first, name=f"{first.name}, no vote on boxes", vote=False), *more_rows]


def both(name: str, levels: Mapping[float, Heights]) -> list[Choice]:
    """With and without regression."""
    return [Choice(name, levels, regression) for regression in (True, False)]


def limited(text: str, zooms: Sequence[float]) -> dict[float, Heights]:
    """`4=0-12,2=0-60`: all levels, those named with a limit of heights in px; `0.25=80-` has no upper end.

    Raises:
        SettingsError: not of this form, or a level that is not there.
    """
    levels = dict.fromkeys(zooms, ANY)
    for part in text.split(","):
        zoom, equals, heights = part.partition("=")
        least, dash, below = heights.partition("-")
        try:
            limits = (float(least or 0), float(below or math.inf))
            known = float(zoom) in levels
        except ValueError as error:
            raise SettingsError(
                f"--level-heights {text}: give it as ZOOM=FROM-TO in px, e.g. 4=0-12,0.25=80-."
            ) from error
        if not (equals and dash and known and limits[0] < limits[1]):
            raise SettingsError(f"--level-heights {text}: {part}: give ZOOM=FROM-TO, of the zooms {_names(zooms)}.")
        levels[float(zoom)] = limits
    return levels


def told(levels: Mapping[float, Heights]) -> str:
    """The limits as a person reads them."""
    return ", ".join(f"{zoom:g}: {_heights(*limits)}" for zoom, limits in levels.items())


def _heights(least: float, below: float) -> str:
    if below == math.inf:
        return f"{least:.0f} px and more" if least else "all"
    return f"{least:.0f}-{below:.0f} px"


def _names(zooms: Sequence[float]) -> str:
    return " ".join(f"{zoom:g}" for zoom in zooms)
