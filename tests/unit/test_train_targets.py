"""Targets against plain loops over every cell, template and face."""

from __future__ import annotations

import math

import numpy as np
import pytest

from tinyface_core.geometry import CellGrid
from tinyface_core.templates import Template, TemplateSet
from tinyface_core.train.targets import IGNORED, NEGATIVE, POSITIVE, Anchors, TargetSettings, assign

SHAPES = TemplateSet(
    templates=(Template(9, 9, 1), Template(12, 17, 2), Template(40, 50, 1), Template(20, 26, 1), Template(16, 16, 2)),
    outputs=(1, 3, 4),
)
GRID = CellGrid(stride=8, centre=3.5)
CELLS_HW = (5, 7)
SHOWN = (0.0, 4.0, 53.0, 37.0)
SETTINGS = TargetSettings()


def overlap(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    width = min(a[2], b[2]) - max(a[0], b[0])
    height = min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    inter = width * height
    return inter / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inter)


def placed(t: int, y: int, x: int) -> tuple[float, float, float, float]:
    template = SHAPES.templates[SHAPES.outputs[t]]
    cx, cy = GRID.centre + 0.5 + GRID.stride * x, GRID.centre + 0.5 + GRID.stride * y
    return cx - template.width / 2, cy - template.height / 2, cx + template.width / 2, cy + template.height / 2


def every_cell() -> list[tuple[int, int, int]]:
    return [(t, y, x) for t in range(3) for y in range(CELLS_HW[0]) for x in range(CELLS_HW[1])]


def sticks_out(box: tuple[float, ...]) -> bool:
    return box[0] < SHOWN[0] or box[1] < SHOWN[1] or box[2] > SHOWN[2] or box[3] > SHOWN[3]


def best_cells(face: np.ndarray) -> list[tuple[int, int, int]]:
    """The cells that overlap this face most, all that are equal; none when that is too little."""
    ious = {cell: overlap(placed(*cell), tuple(face.tolist())) for cell in every_cell()}
    top = max(ious.values())
    return [cell for cell, iou in ious.items() if iou > top - 1e-9] if top > SETTINGS.ignored_iou else []


def random_boxes(rng: np.random.Generator, count: int, step: int) -> np.ndarray:
    """Boxes on a grid of `step` px, so that many overlaps are equal."""
    corner = rng.integers(-1, 50 // step, (count, 2)) * step
    side = rng.integers(1, 40 // step + 1, (count, 2)) * step
    return np.concatenate([corner, corner + side], axis=1).astype(np.float32)


@pytest.mark.parametrize("edge", ["code", "paper"])
@pytest.mark.parametrize("seed", range(25))
def test_agrees_with_plain_loops(seed: int, edge: str) -> None:
    rng = np.random.default_rng(seed)
    faces, unclear = random_boxes(rng, seed % 6, 4), random_boxes(rng, seed % 3, 1)
    settings = TargetSettings(edge=edge)  # type: ignore[arg-type]
    found = assign(Anchors.of(SHAPES, GRID, CELLS_HW), faces, unclear, SHOWN, settings, np.random.default_rng(1))

    best = [best_cells(face) for face in faces]
    may_win = {cell for cells in best for cell in cells}
    must_win = {cells[0] for cells in best if len(cells) == 1}
    offsets = {tuple(cell): offset for cell, offset in zip(found.cells_P3, found.offsets_P4, strict=True)}
    for cell in every_cell():
        box = placed(*cell)
        ious = [overlap(box, tuple(face)) for face in faces.tolist()]
        label = found.labels_THW[cell]
        top = max(ious, default=0.0)
        top_unclear = max((overlap(box, tuple(other)) for other in unclear.tolist()), default=0.0)
        wanted = NEGATIVE
        if top > settings.positive_iou - 1e-9 or cell in must_win:
            wanted = POSITIVE
        elif top > settings.ignored_iou - 1e-9 or top_unclear > settings.ignored_iou - 1e-9:
            wanted = IGNORED
        if sticks_out(box) and (wanted == POSITIVE or edge == "paper"):
            wanted = IGNORED
        drawn = cell in may_win and cell not in must_win and not sticks_out(box)
        assert label == wanted or (drawn and label == POSITIVE), (cell, label, wanted, ious)
        assert (cell in offsets) == (label == POSITIVE)
        if label == POSITIVE:
            face = faces[next(i for i, iou in enumerate(ious) if iou > top - 1e-9)]
            width, height = box[2] - box[0], box[3] - box[1]
            x, y = (face[0] + face[2] - box[0] - box[2]) / 2, (face[1] + face[3] - box[1] - box[3]) / 2
            sides = math.log((face[2] - face[0]) / width), math.log((face[3] - face[1]) / height)
            assert np.allclose(offsets[cell], [x / width, y / height, *sides], atol=1e-5)
    for cells in best:
        inside = [cell for cell in cells if not sticks_out(placed(*cell))]
        if len(inside) == len(cells) and cells:
            assert any(found.labels_THW[cell] == POSITIVE for cell in cells)


def test_a_tie_is_broken_at_random_and_has_one_winner() -> None:
    # A 12 x 12 face halfway between four cells overlaps the 16 x 16 template at each by the same, about 0.34.
    settings = TargetSettings(positive_iou=0.5, ignored_iou=0.2)
    anchors = Anchors.of(TemplateSet(templates=(Template(16, 16, 1),), outputs=(0,)), CellGrid(8, 3.5), (5, 7))
    face = np.array([[18.0, 10.0, 30.0, 22.0]], np.float32)
    winners = set()
    for seed in range(40):
        found = assign(anchors, face, face[:0], (0, 0, 56, 40), settings, np.random.default_rng(seed))
        assert len(found.cells_P3) == 1
        winners.add(tuple(found.cells_P3[0]))
    assert winners == {(0, 1, 2), (0, 1, 3), (0, 2, 2), (0, 2, 3)}


def test_positives_of_a_face_count_by_how_many_it_has() -> None:
    """A large face and a small one: at 0 all positives alike, at 1 all faces alike."""
    large, small = np.array([2.0, 4, 42, 36]), np.array([44.0, 20, 54, 36])
    faces = np.stack([large, small]).astype(np.float32)
    anchors = Anchors.of(SHAPES, GRID, CELLS_HW)

    def weights(balance: float) -> tuple[np.ndarray, np.ndarray]:
        settings = TargetSettings(balance=balance)
        found = assign(anchors, faces, faces[:0], SHOWN, settings, np.random.default_rng(0))
        of_small_P = np.array([overlap(placed(*cell), tuple(small)) > 0.3 for cell in found.cells_P3])
        return found.weights_P[~of_small_P], found.weights_P[of_small_P]

    of_large, of_small = weights(0.0)
    assert len(of_large) > len(of_small) > 0
    assert {*of_large, *of_small} == {1.0}
    for balance in (0.5, 1.0):
        for found, count in zip(weights(balance), (len(of_large), len(of_small)), strict=True):
            np.testing.assert_allclose(found, (count / 16) ** -balance, rtol=1e-6)


def test_no_faces_is_all_negative() -> None:
    nothing = np.zeros((0, 4), np.float32)
    found = assign(Anchors.of(SHAPES, GRID, CELLS_HW), nothing, nothing, SHOWN, SETTINGS, np.random.default_rng(0))
    assert (found.labels_THW == NEGATIVE).all()
    assert found.cells_P3.shape == (0, 3)
    assert found.offsets_P4.shape == (0, 4)


def test_anchors_stand_where_the_network_looks() -> None:
    anchors = Anchors.of(SHAPES, GRID, CELLS_HW)
    assert anchors.shape == (3, 5, 7)
    assert list(anchors.x_W[:3]) == [4.0, 12.0, 20.0]
    assert [tuple(side) for side in anchors.sides_T2] == [(12, 17), (20, 26), (16, 16)]
