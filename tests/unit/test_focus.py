"""What is computed of finer levels holds all that is hot, once, and gives the boxes of the whole."""

from __future__ import annotations

from dataclasses import replace
from itertools import combinations

import numpy as np
import pytest
import torch

from tests.toy_network import FP32, calibrated, cloudy_picture
from tinyface_core.detect.detector import Detector
from tinyface_core.detect.focus import Focus
from tinyface_core.detect.options import DetectOptions
from tinyface_core.detect.pyramid import Level, levels_for
from tinyface_core.detect.resize import Region
from tinyface_core.geometry import LevelSize
from tinyface_core.model.network import HeatMaps

PICTURE_HW = (451, 1267)


def level(zoom: float) -> Level:
    return Level(LevelSize(PICTURE_HW, zoom), (4,))


def hot(cells: list[tuple[int, int]], score: float = 0.2) -> Focus:
    """Of a picture whose cells are at 0.01, but for these."""
    focus = Focus(level(1), 8, 0.1)
    logits_NTHW = torch.full((1, 3, 57, 159), 0.01).logit()
    for row, column in cells:
        logits_NTHW[0, 1, row, column] = torch.tensor(score).logit()
    for first in (0, 80):  # in two tiles
        part = logits_NTHW[..., first : first + 80]
        focus.note(HeatMaps(part, part[:, :, None].expand(-1, -1, 4, -1, -1)), (0, first))
    return focus


@pytest.mark.parametrize("zoom", [2**0.5, 2.0, 4.0])
def test_regions_hold_every_hot_cell_and_its_neighbours_once(zoom: float) -> None:
    rng = np.random.default_rng(3)
    for count in (1, 2, 7, 40):
        cells = [(int(rng.integers(57)), int(rng.integers(159))) for _ in range(count)]
        regions = hot(cells).regions(level(zoom), 16, 64)
        height, width = level(zoom).size.image_hw
        for region in regions:
            assert region.top % 16 == region.left % 16 == 0
            assert region.bottom == height or region.bottom % 16 == 0
            assert region.right == width or region.right % 16 == 0
            assert 0 <= region.top < region.bottom <= height
            assert 0 <= region.left < region.right <= width
        for one, other in combinations(regions, 2):
            apart = one.bottom <= other.top or other.bottom <= one.top
            assert apart or one.right <= other.left or other.right <= one.left
        for row, column in cells:
            for near_row in range(max(0, row - 1), min(57, row + 2)):
                for near_column in range(max(0, column - 1), min(159, column + 2)):
                    y, x = (min(side - 1, (8 * cell + 4) * zoom) for side, cell in
                            ((height, near_row), (width, near_column)))  # fmt: skip
                    assert any(r.top <= y < r.bottom and r.left <= x < r.right for r in regions)


def test_cells_that_lie_apart_are_computed_apart_where_the_halo_lets_that_pay() -> None:
    far = hot([(3, 3), (50, 150)])
    (first, second) = sorted(far.regions(level(2), 16, 64), key=lambda region: region.top)
    assert first == Region(16, 16, 96, 96)  # cells 1 to 5
    assert second.top == 16 * 48
    assert len(far.regions(level(2), 16, 2048)) == 1
    assert len(hot([(3, 3), (3, 9)]).regions(level(2), 16, 64)) == 1


def test_nothing_hot_needs_nothing_and_the_border_counts_as_cold() -> None:
    assert hot([]).regions(level(2), 16, 64) == []
    assert hot([(20, 20)], score=0.1).regions(level(2), 16, 64) == []


def boxes_of(focus: float | None, tile_px: int = 1 << 23) -> tuple[np.ndarray, np.ndarray]:  # type: ignore[type-arg]
    """Cells and boxes of the 2x level, before NMS."""
    options = DetectOptions(min_score=0.2, zooms=(1.0, 2.0), focus=focus, tile_px=tile_px)
    network, spec = calibrated("mobilenet_v2")
    detector, picture = Detector(network, spec, FP32, options), cloudy_picture(331, 453, seed=4)
    levels = levels_for((331, 453), (1.0, 2.0), spec.templates)
    with torch.inference_mode():
        found = detector.candidates(torch.from_numpy(picture), levels)
    fine_K = found.zoom_K == 2
    return found.cell_K[fine_K].numpy(), found.boxes_K4[fine_K].numpy()


def test_a_focused_detector_finds_the_same_boxes_in_its_regions_and_none_elsewhere() -> None:
    cell_K, boxes_K4 = boxes_of(None)
    assert len(cell_K) > 100
    everywhere = boxes_of(0.0)
    np.testing.assert_array_equal(everywhere[0], cell_K)
    np.testing.assert_allclose(everywhere[1], boxes_K4, atol=1e-4)
    assert len(boxes_of(0.999)[0]) == 0
    some_K, some_K4 = boxes_of(0.985)
    assert 0 < len(some_K) < len(cell_K)
    np.testing.assert_allclose(some_K4, boxes_K4[np.isin(cell_K, some_K)], atol=1e-4)
    assert set(some_K) <= set(cell_K)
    tiled_K, tiled_K4 = boxes_of(0.985, 420 * 420)
    np.testing.assert_array_equal(tiled_K, some_K)
    np.testing.assert_allclose(tiled_K4, some_K4, atol=1e-4)


def test_levels_up_to_one_are_never_left_out() -> None:
    picture = cloudy_picture(331, 453, seed=4)
    plain = DetectOptions(min_score=0.2, zooms=(0.5, 1.0))
    whole, focused = (
        Detector(*calibrated("mobilenet_v2"), FP32, one)(picture) for one in (plain, replace(plain, focus=0.9))
    )
    assert len(whole) > 20
    np.testing.assert_array_equal(whole.boxes_K4, focused.boxes_K4)
