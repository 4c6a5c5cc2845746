"""Which detections find which faces, by the rule of WIDER FACE's own evaluation. METHOD, section 5.

Each detection is held against the face that it overlaps most, whatever group of faces is judged: so one matching
serves every group. Overlap is IoU with inclusive pixels (a box of width w covers w + 1), as the official code has it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyface_core.evaluate.truth import Truth

MATCH_IOU = 0.5
_BLOCK = 4096  # detections held against a picture's faces at once


@dataclass(frozen=True)
class Found:
    """Detections of one picture: boxes_K4 float (x, y, width, height) px, scores_K; in any order."""

    boxes_K4: NDArray[np.float64]
    scores_K: NDArray[np.float64]


@dataclass(frozen=True)
class Matches:
    """All detections of all pictures, best first within a picture.

    scores_D. picture_D: place in the truth. face_D: the face that it overlaps most, by IoU of at least MATCH_IOU, as
    a place among all faces, else -1. first_D: no better detection of the picture takes the same face. iou_D: with it.
    height_D: of the detection, px.
    """

    scores_D: NDArray[np.float64]
    picture_D: NDArray[np.int64]
    face_D: NDArray[np.int64]
    first_D: NDArray[np.bool_]
    iou_D: NDArray[np.float64]
    height_D: NDArray[np.float64]
    pictures: int


def match(truth: Truth, found: Mapping[str, Found]) -> Matches:
    """Detections by picture name; a picture that is not in `found` has none, one that is not annotated is left out."""
    scores, pictures, faces, firsts, ious, heights = [], [], [], [], [], []
    for place, name in enumerate(truth.names):
        if name not in found:
            continue
        here = found[name]
        order = np.argsort(-here.scores_K, kind="stable")
        begin, end = truth.starts_P1[place : place + 2]
        face_K, iou_K = _most_overlapped(here.boxes_K4[order], truth.faces_F4[begin:end])
        first_K = np.zeros(len(order), bool)
        first_K[np.unique(face_K, return_index=True)[1]] = True
        scores.append(here.scores_K[order])
        pictures.append(np.full(len(order), place))
        faces.append(np.where(face_K >= 0, face_K + begin, -1))
        firsts.append(first_K & (face_K >= 0))
        ious.append(iou_K)
        heights.append(here.boxes_K4[order, 3])
    return Matches(
        np.concatenate([np.zeros(0), *scores]),
        np.concatenate([np.zeros(0, np.int64), *pictures]),
        np.concatenate([np.zeros(0, np.int64), *faces]),
        np.concatenate([np.zeros(0, bool), *firsts]),
        np.concatenate([np.zeros(0), *ious]),
        np.concatenate([np.zeros(0), *heights]),
        len(truth.names),
    )


def _most_overlapped(
    boxes_K4: NDArray[np.float64], faces_F4: NDArray[np.float64]
) -> tuple[NDArray[np.int64], NDArray[np.float64]]:
    """(place of the face or -1, IoU), (K,) each. Of equal overlaps the first face, as argmax gives it."""
    face_K, iou_K = np.full(len(boxes_K4), -1), np.zeros(len(boxes_K4))
    if not len(faces_F4):
        return face_K, iou_K
    for begin in range(0, len(boxes_K4), _BLOCK):
        block = slice(begin, begin + _BLOCK)
        iou_KF = inclusive_iou(boxes_K4[block], faces_F4)
        best_K = iou_KF.argmax(axis=1)
        iou_K[block] = iou_KF[np.arange(len(best_K)), best_K]
        face_K[block] = np.where(iou_K[block] >= MATCH_IOU, best_K, -1)
    return face_K, iou_K


def inclusive_iou(boxes_K4: NDArray[np.float64], faces_F4: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU (K, F) of boxes (x, y, width, height) whose last pixel is x + width."""
    low_KF2 = np.maximum(boxes_K4[:, None, :2], faces_F4[None, :, :2])
    high_KF2 = np.minimum((boxes_K4[:, :2] + boxes_K4[:, 2:])[:, None], (faces_F4[:, :2] + faces_F4[:, 2:])[None])
    inter_KF = np.prod(np.maximum(0, high_KF2 - low_KF2 + 1), axis=2)
    area_K, area_F = (np.prod(sides[:, 2:] + 1, axis=1) for sides in (boxes_K4, faces_F4))
    return np.asarray(inter_KF / (area_K[:, None] + area_F[None] - inter_KF))
