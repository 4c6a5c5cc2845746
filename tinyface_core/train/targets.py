"""What the network should say at each cell and template of a crop.

All outputs compete for a face at every zoom, by their size in the crop, whatever their own resolution and whatever
may fire there at detection time (TemplateSet.at_zoom): the trunk sees pixels, not zooms, and a small template that
learns from natural small faces too is the better for it (METHOD, section 3; the paper does the same with all 25).
Paper: section 5, "Training"; the authors' code where the text is silent.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from tinyface_core.geometry import CellGrid
from tinyface_core.templates import TemplateSet

POSITIVE, NEGATIVE, IGNORED = 1, 0, -1
_USUAL_POSITIVES = 16  # of a face; so that weights are about 1
_TIE = 1e-9  # IoUs closer than this are equal


@dataclass(frozen=True)
class TargetSettings:
    """positive_iou: from here a face. ignored_iou: from here, up to it, neither; also what a face's best cell needs.

    edge: where a template sticks out of what the crop shows, "code" ignores positives and keeps negatives (as the
    authors' code does), "paper" ignores all. balance: a face with n positives gives each the weight (n / 16) to the
    power of minus this: at 0 all positives count alike, so a large face as much as many small ones; at 1 all faces do.
    """

    positive_iou: float = 0.4
    ignored_iou: float = 0.3
    edge: Literal["code", "paper"] = "code"
    balance: float = 0.0


@dataclass(frozen=True)
class Anchors:
    """The templates placed at every cell: sides_T2 (width, height), centres in continuous px."""

    sides_T2: NDArray[np.float64]
    x_W: NDArray[np.float64]
    y_H: NDArray[np.float64]

    @classmethod
    def of(cls, templates: TemplateSet, grid: CellGrid, cells_hw: tuple[int, int]) -> Anchors:
        """In the order of the network's outputs, at the cells of its heat maps."""
        outputs = [templates.templates[i] for i in templates.outputs]
        sides_T2 = np.array([(template.width, template.height) for template in outputs], np.float64)
        y_H, x_W = (grid.centre + 0.5 + grid.stride * np.arange(cells, dtype=np.float64) for cells in cells_hw)
        return cls(sides_T2, x_W, y_H)

    @property
    def shape(self) -> tuple[int, int, int]:
        return len(self.sides_T2), len(self.y_H), len(self.x_W)


@dataclass(frozen=True)
class Targets:
    """labels_THW int8: POSITIVE, NEGATIVE, IGNORED. cells_P3: (t, y, x) of the positives, offsets_P4 their targets.

    weights_P float32: how much each positive counts.
    """

    labels_THW: NDArray[np.int8]
    cells_P3: NDArray[np.int64]
    offsets_P4: NDArray[np.float32]
    weights_P: NDArray[np.float32]


def assign(
    anchors: Anchors,
    faces_K4: NDArray[np.float32],
    unclear_M4: NDArray[np.float32],
    shown: tuple[float, float, float, float],
    settings: TargetSettings,
    rng: np.random.Generator,
) -> Targets:
    """Labels and regression targets of one crop.

    A cell is positive when its template overlaps a face by positive_iou, or when it is the best cell of a face,
    drawn at random among equals. It learns the face that it overlaps most; of equals the first. A negative that
    overlaps an unclear box by ignored_iou is ignored.

    Args:
        faces_K4, unclear_M4: xyxy in continuous px of the crop. shown: xyxy, where the crop shows the picture.
    """
    best_THW = np.zeros(anchors.shape)
    face_THW = np.zeros(anchors.shape, np.int64)
    labels_THW = np.zeros(anchors.shape, np.int8)
    winners = []
    for number, face_4 in enumerate(faces_K4.astype(np.float64)):
        window, iou_THW = _overlaps(anchors, face_4, settings.ignored_iou)
        better_THW = iou_THW > best_THW[window] + _TIE
        face_THW[window] = np.where(better_THW, number, face_THW[window])
        best_THW[window] = np.where(better_THW, iou_THW, best_THW[window])
        top = iou_THW.max(initial=0.0)
        if top > settings.ignored_iou:
            cell = np.unravel_index(rng.choice(np.flatnonzero(iou_THW >= top - _TIE)), iou_THW.shape)
            winners.append([int(i) + (span.start or 0) for i, span in zip(cell, window, strict=True)])
    labels_THW[best_THW >= settings.ignored_iou] = IGNORED
    labels_THW[best_THW >= settings.positive_iou] = POSITIVE
    if winners:
        labels_THW[tuple(np.array(winners).T)] = POSITIVE
    for unclear_4 in unclear_M4.astype(np.float64):
        window, iou_THW = _overlaps(anchors, unclear_4, settings.ignored_iou)
        labels_THW[window][(iou_THW >= settings.ignored_iou) & (labels_THW[window] == NEGATIVE)] = IGNORED
    outside_THW = _sticking_out(anchors, shown)
    labels_THW[outside_THW if settings.edge == "paper" else outside_THW & (labels_THW == POSITIVE)] = IGNORED
    cells_P3 = np.argwhere(labels_THW == POSITIVE)
    face_P = face_THW[tuple(cells_P3.T)]
    weights_P = (np.bincount(face_P)[face_P] / _USUAL_POSITIVES) ** -settings.balance
    return Targets(labels_THW, cells_P3, _offsets(anchors, cells_P3, faces_K4[face_P]), weights_P.astype(np.float32))


def _overlaps(
    anchors: Anchors, box_4: NDArray[np.float64], least_iou: float
) -> tuple[tuple[slice, slice, slice], NDArray[np.float64]]:
    """IoU of the anchors with a box, in a window (t, y, x) outside of which it is below least_iou.

    With IoU >= u, the overlap along an axis is at least u times the longer of the two sides, which bounds both the
    distance of the centres and the sides themselves.
    """
    side_2 = box_4[2:] - box_4[:2]
    longer_T2, shorter_T2 = np.maximum(anchors.sides_T2, side_2), np.minimum(anchors.sides_T2, side_2)
    fits_T: NDArray[np.bool_] = np.all(shorter_T2 >= least_iou * longer_T2 - _TIE, axis=1)
    if not fits_T.any():
        return (slice(0, 0), slice(0, 0), slice(0, 0)), np.zeros((0, 0, 0))
    templates = slice(int(fits_T.argmax()), len(fits_T) - int(fits_T[::-1].argmax()))
    reach_2 = ((anchors.sides_T2 + side_2) / 2 - least_iou * longer_T2)[fits_T].max(axis=0) + _TIE
    middle_2 = (box_4[:2] + box_4[2:]) / 2
    spans, inside = [], []
    for axis, centres in ((1, anchors.y_H), (0, anchors.x_W)):
        begin, end = np.searchsorted(centres, (middle_2[axis] - reach_2[axis], middle_2[axis] + reach_2[axis]))
        spans.append(slice(int(begin), int(end)))
        half_T1 = anchors.sides_T2[templates, axis, None] / 2
        low, high = centres[begin:end] - half_T1, centres[begin:end] + half_T1
        inside.append(np.clip(np.minimum(high, box_4[axis + 2]) - np.maximum(low, box_4[axis]), 0, None))
    inter_THW = inside[0][:, :, None] * inside[1][:, None, :]
    areas_T11 = anchors.sides_T2[templates].prod(axis=1)[:, None, None]
    return (templates, spans[0], spans[1]), inter_THW / (areas_T11 + side_2.prod() - inter_THW)


def _sticking_out(anchors: Anchors, shown: tuple[float, float, float, float]) -> NDArray[np.bool_]:
    """Which anchors are not wholly within what is shown, (T, H, W)."""
    left, top, right, bottom = shown
    half_T2 = anchors.sides_T2 / 2
    x_TW = np.logical_or(anchors.x_W - half_T2[:, :1] < left, anchors.x_W + half_T2[:, :1] > right)
    y_TH = np.logical_or(anchors.y_H - half_T2[:, 1:] < top, anchors.y_H + half_T2[:, 1:] > bottom)
    return np.logical_or(y_TH[:, :, None], x_TW[:, None, :])


def _offsets(anchors: Anchors, cells_P3: NDArray[np.int64], faces_P4: NDArray[np.float32]) -> NDArray[np.float32]:
    """tx, ty, tw, th: the face's centre and log size, seen from the template at the cell."""
    sides_P2 = anchors.sides_T2[cells_P3[:, 0]]
    centres_P2 = np.stack([anchors.x_W[cells_P3[:, 2]], anchors.y_H[cells_P3[:, 1]]], axis=1)
    moved_P2 = ((faces_P4[:, :2] + faces_P4[:, 2:]) / 2 - centres_P2) / sides_P2
    return np.concatenate([moved_P2, np.log((faces_P4[:, 2:] - faces_P4[:, :2]) / sides_P2)], axis=1, dtype=np.float32)
