"""Faces of one output beside those of another, one to one: which face of the new one is which of the old one.

A pair overlaps by an IoU of at least MATCH_IOU. Where a face could be paired with several, the pair that overlaps most
goes first: boxes that stayed where they were find each other, and no output is the judge of the other.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyface_core.compare.rows import Faces

MATCH_IOU = 0.5
_CANDIDATES = 1 << 20  # whose overlap is computed at once: some 200 MB
_SPAN_PX = 1 << 20  # wider than any picture: left edges of all pictures in one sorted line
_SLACK_PX = 0.01  # for the rounding of that line


@dataclass(frozen=True)
class Pairs:
    """M pairs. old_M, new_M: places among the faces of each. iou_M: MATCH_IOU..1."""

    old_M: NDArray[np.int64]
    new_M: NDArray[np.int64]
    iou_M: NDArray[np.float64]


def matched(old: Faces, new: Faces) -> Pairs:
    """Of the same pictures in the same order."""
    found = list(_overlapping(old, new))
    if not found:
        return Pairs(np.zeros(0, np.int64), np.zeros(0, np.int64), np.zeros(0))
    old_M, new_M, iou_M = (np.concatenate(parts) for parts in zip(*found, strict=True))
    taken = _best_first(old_M, new_M, iou_M)
    return Pairs(old_M[taken], new_M[taken], iou_M[taken])


def _best_first(old_M: NDArray[np.int64], new_M: NDArray[np.int64], iou_M: NDArray[np.float64]) -> NDArray[np.int64]:
    """Which candidates become pairs. Ties go by place."""
    alone = (np.bincount(old_M)[old_M] == 1) & (np.bincount(new_M)[new_M] == 1)  # nearly all: nothing to choose
    contested = np.flatnonzero(~alone)
    order = contested[np.lexsort((new_M[contested], old_M[contested], -iou_M[contested]))]
    taken, old_gone, new_gone = [], set[int](), set[int]()
    for candidate, old, new in zip(order.tolist(), old_M[order].tolist(), new_M[order].tolist(), strict=True):
        if old not in old_gone and new not in new_gone:
            taken.append(candidate)
            old_gone.add(old)
            new_gone.add(new)
    return np.sort(np.concatenate([np.flatnonzero(alone), np.array(taken, np.int64)]))


def _overlapping(old: Faces, new: Faces) -> Iterator[tuple[NDArray[np.int64], NDArray[np.int64], NDArray[np.float64]]]:
    """Candidates, block after block of old faces, each with the new faces that begin near enough in its picture.

    IoU >= 1/2 asks for an overlap of at least half of either box, so of half its width: the new box begins left of the
    old one's middle, and, at most twice as wide, not more than one and a half widths left of its edge.
    """
    order_N = np.lexsort((new.boxes_D5[:, 0], new.picture_D))
    key_N = new.picture_D[order_N] * _SPAN_PX + new.boxes_D5[order_N, 0].astype(np.float64)
    left_D, right_D = old.boxes_D5[:, 0].astype(np.float64), old.boxes_D5[:, 2].astype(np.float64)
    begins_D = old.picture_D * _SPAN_PX
    low_D = begins_D + np.maximum(left_D - 1.5 * (right_D - left_D), 0) - _SLACK_PX
    first_D = np.searchsorted(key_N, low_D)
    count_D = np.searchsorted(key_N, begins_D + (left_D + right_D) / 2 + _SLACK_PX) - first_D
    ends_D = np.cumsum(count_D)
    begin = 0
    while begin < len(count_D):
        before = ends_D[begin - 1] if begin else 0
        end = max(begin + 1, int(np.searchsorted(ends_D, before + _CANDIDATES, side="right")))
        counts = count_D[begin:end]
        old_C = np.repeat(np.arange(begin, end), counts)
        within_C = np.arange(len(old_C)) - np.repeat(np.cumsum(counts) - counts, counts)
        new_C = order_N[np.repeat(first_D[begin:end], counts) + within_C]
        iou_C = _iou(old.boxes_D5[old_C, :4], new.boxes_D5[new_C, :4])
        near = iou_C >= MATCH_IOU
        yield old_C[near], new_C[near], iou_C[near]
        begin = end


def _iou(a_C4: NDArray[np.float32], b_C4: NDArray[np.float32]) -> NDArray[np.float64]:
    """Of a's boxes with b's, one by one, (C,)."""
    a_C4, b_C4 = a_C4.astype(np.float64), b_C4.astype(np.float64)
    sides_C2 = np.minimum(a_C4[:, 2:], b_C4[:, 2:]) - np.maximum(a_C4[:, :2], b_C4[:, :2])
    inter_C = np.prod(np.maximum(sides_C2, 0), axis=1)
    area_a_C, area_b_C = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (a_C4, b_C4))
    return np.asarray(inter_C / np.maximum(area_a_C + area_b_C - inter_C, np.finfo(np.float64).tiny))
