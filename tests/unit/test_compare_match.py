"""Faces of two outputs, one to one: against the rule followed pair by pair."""

from __future__ import annotations

import numpy as np
import pytest

from tinyface_core.compare import match
from tinyface_core.compare.match import MATCH_IOU, matched
from tinyface_core.compare.rows import Faces


def faces(*pictures: list[tuple[float, float, float, float]]) -> Faces:
    boxes = [(*box, 0.5) for picture in pictures for box in picture]
    starts = np.cumsum([0, *map(len, pictures)])
    return Faces(starts, np.array(boxes, np.float32).reshape(-1, 5))


def random_faces(random: np.random.Generator, pictures: int) -> Faces:
    """Small pictures that are full: nearly every face overlaps several."""
    counts = random.integers(0, 30, pictures)
    low_D2 = random.integers(0, 40, (counts.sum(), 2)).astype(np.float32)
    boxes_D5 = np.column_stack([low_D2, low_D2 + random.integers(4, 20, low_D2.shape), np.full(len(low_D2), 0.5)])
    return Faces(np.cumsum([0, *counts]), boxes_D5.astype(np.float32))


def iou(a: np.ndarray, b: np.ndarray) -> float:
    sides = np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2])
    inter = float(np.prod(sides)) if (sides > 0).all() else 0.0
    return inter / (float(np.prod(a[2:] - a[:2])) + float(np.prod(b[2:] - b[:2])) - inter)


def slowly(old: Faces, new: Faces) -> set[tuple[int, int]]:
    """All pairs of a picture by falling overlap; each face once."""
    pairs = set()
    for picture in range(len(old.starts_P1) - 1):
        of_old, of_new = (range(*side.starts_P1[picture : picture + 2]) for side in (old, new))
        overlaps = [(-iou(old.boxes_D5[o, :4], new.boxes_D5[n, :4]), o, n) for o in of_old for n in of_new]
        gone: set[tuple[str, int]] = set()
        for overlap, o, n in sorted(overlaps):
            if -overlap >= MATCH_IOU and ("o", o) not in gone and ("n", n) not in gone:
                pairs.add((o, n))
                gone |= {("o", o), ("n", n)}
    return pairs


@pytest.mark.parametrize("seed", range(5))
@pytest.mark.parametrize("candidates", [1, 7, 1 << 20])
def test_pairs_are_those_of_the_rule(seed: int, candidates: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """However many candidates are looked at together; with ties, as sizes are whole numbers."""
    monkeypatch.setattr(match, "_CANDIDATES", candidates)
    random = np.random.default_rng(seed)
    old, new = random_faces(random, 6), random_faces(random, 6)
    pairs = matched(old, new)
    assert set(zip(pairs.old_M.tolist(), pairs.new_M.tolist(), strict=True)) == slowly(old, new)
    expected = [iou(old.boxes_D5[o, :4], new.boxes_D5[n, :4]) for o, n in zip(pairs.old_M, pairs.new_M, strict=True)]
    assert pairs.iou_M == pytest.approx(expected)


def test_a_box_that_stayed_finds_itself_whatever_overlaps_it() -> None:
    stays, near = (10, 10, 30, 30), (12, 10, 32, 30)
    pairs = matched(faces([near, stays]), faces([stays]))
    assert (pairs.old_M.tolist(), pairs.new_M.tolist(), pairs.iou_M.tolist()) == ([1], [0], [1.0])


def test_half_is_enough_and_less_is_not() -> None:
    assert matched(faces([(0, 0, 10, 10)]), faces([(0, 0, 10, 20)])).iou_M.tolist() == [0.5]
    assert len(matched(faces([(0, 0, 10, 10)]), faces([(0, 0, 10, 20.1)])).iou_M) == 0


def test_faces_of_different_pictures_never_meet() -> None:
    box = (0, 0, 9, 7)
    assert matched(faces([box], [], [box]), faces([], [box], [box])).old_M.tolist() == [1]


def test_the_largest_picture_keeps_its_pictures_apart() -> None:
    """Sides of 1,000,000 px are the limit of decoding."""
    edge = (999_990, 0, 1_000_000, 13)
    pairs = matched(faces([edge], [(0, 0, 9, 7)]), faces([edge], [(0, 0, 9, 7)]))
    assert (pairs.old_M.tolist(), pairs.new_M.tolist()) == ([0, 1], [0, 1])


@pytest.mark.parametrize("sides", [([], []), ([[]], [[]]), ([[(0, 0, 9, 9)]], [[]]), ([[]], [[(0, 0, 9, 9)]])])
def test_no_faces_give_no_pairs(sides: tuple[list, list]) -> None:
    assert len(matched(faces(*sides[0]), faces(*sides[1])).iou_M) == 0
