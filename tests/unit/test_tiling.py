"""Tiles cover an image's cells once, keep to their size, and see what the whole image would show them."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from tinyface_core.detect.resize import Region
from tinyface_core.detect.tiling import tiles
from tinyface_core.errors import GeometryError
from tinyface_core.model.cells import CellMeans
from tinyface_core.model.network import HeatMaps

SIZES = [(37, 53), (16, 16), (1, 1), (160, 333), (500, 47), (1081, 1923), (4000, 90)]


@pytest.mark.parametrize("image_hw", SIZES)
@pytest.mark.parametrize(("halo", "limit"), [(16, 96 * 96), (32, 200 * 200), (176, 700 * 700)])
def test_cores_cover_the_image_once_and_windows_keep_to_the_limit(
    image_hw: tuple[int, int], halo: int, limit: int
) -> None:
    times_HW = np.zeros(image_hw, int)
    for tile in tiles(image_hw, align=16, halo_px=halo, max_px=limit):
        core, window = tile.core, tile.window
        times_HW[core.top : core.bottom, core.left : core.right] += 1
        height, width = window.hw
        assert height * width <= limit
        assert window.top % 16 == window.left % 16 == core.top % 16 == core.left % 16 == 0
        assert window.top == max(0, core.top - halo)
        assert window.bottom == min(image_hw[0], core.bottom + halo)
        assert window.left == max(0, core.left - halo)
        assert window.right == min(image_hw[1], core.right + halo)
    assert (times_HW == 1).all()


@pytest.mark.parametrize("within", [Region(32, 160, 96, 333), Region(0, 0, 16, 16), Region(48, 16, 160, 320)])
@pytest.mark.parametrize("limit", [96 * 96, 400 * 400])
def test_tiles_of_a_part_cover_it_and_see_the_halo_around_it(within: Region, limit: int) -> None:
    times_HW = np.zeros((160, 333), int)
    for tile in tiles((160, 333), align=16, halo_px=16, max_px=limit, within=within):
        core, window = tile.core, tile.window
        times_HW[core.top : core.bottom, core.left : core.right] += 1
        assert window.hw[0] * window.hw[1] <= limit
        assert (window.top, window.bottom) == (max(0, core.top - 16), min(160, core.bottom + 16))
        assert (window.left, window.right) == (max(0, core.left - 16), min(333, core.right + 16))
    assert (times_HW[within.top : within.bottom, within.left : within.right] == 1).all()
    assert times_HW.sum() == within.hw[0] * within.hw[1]


def test_an_image_within_the_limit_is_one_tile_without_halo() -> None:
    (tile,) = tiles((37, 53), align=16, halo_px=176, max_px=37 * 53)
    assert tile.window == tile.core == Region(0, 0, 37, 53)


def test_a_limit_that_leaves_no_core_is_an_error() -> None:
    with pytest.raises(GeometryError, match="halo of 448 px"):
        list(tiles((2000, 2000), align=16, halo_px=448, max_px=600 * 600))


@pytest.mark.parametrize("image_hw", [(37, 53), (160, 333), (501, 47)])
@pytest.mark.parametrize("stride", [4, 8, 16])
def test_kept_cells_are_the_whole_maps_cells_each_once(image_hw: tuple[int, int], stride: int) -> None:
    """Maps that hold each cell's own (row, column) must come together as the map of the whole image."""
    height, width = (-(-side // stride) for side in image_hw)
    seen_hw = np.zeros((height, width), int)
    for tile in tiles(image_hw, align=16, halo_px=16, max_px=80 * 80):
        rows = torch.arange(tile.window.top // stride, -(-tile.window.bottom // stride)).float()
        columns = torch.arange(tile.window.left // stride, -(-tile.window.right // stride)).float()
        place = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        kept, (first_row, first_column) = tile.keep(HeatMaps(place[None], place[None, None]), stride)
        for row in range(kept.logits_NTHW.shape[2]):
            for column in range(kept.logits_NTHW.shape[3]):
                place_of_cell = kept.logits_NTHW[0, :, row, column].int().tolist()
                assert place_of_cell == [first_row + row, first_column + column]
                seen_hw[first_row + row, first_column + column] += 1
    assert (seen_hw == 1).all()


def test_a_very_large_image_is_planned_at_once() -> None:
    found = list(tiles((80_000, 40_000), align=16, halo_px=176, max_px=3840 * 2160))
    assert sum((t.core.hw[0]) * t.core.hw[1] for t in found) == 80_000 * 40_000
    work = sum(t.window.hw[0] * t.window.hw[1] for t in found)
    assert work < 1.4 * 80_000 * 40_000  # what the halo costs


def test_an_image_a_little_too_large_is_cut_in_four_not_in_strips() -> None:
    """A window at the edge needs a halo on one side only: 2 x 2 windows of 400 px do, where each row has one."""
    found = list(tiles((467, 469), align=16, halo_px=160, max_px=400 * 400))
    assert len(found) == 4


def test_kept_cells_keep_their_place_in_the_windows_features() -> None:
    """A map that holds each cell's own (row, column) in the whole image.

    The mean over a neighbourhood within the image is then the cell's own.
    """
    image_hw = (160, 333)
    for tile in tiles(image_hw, align=16, halo_px=32, max_px=120 * 120):
        window = tile.window
        rows = torch.arange(window.top // 8, -(-window.bottom // 8)).float()
        columns = torch.arange(window.left // 8, -(-window.right // 8)).float()
        place_2HW = torch.stack(torch.meshgrid(rows, columns, indexing="ij"))
        shape = place_2HW.shape[1:]
        given = HeatMaps(torch.zeros(1, 1, *shape), torch.zeros(1, 1, 4, *shape), CellMeans(place_2HW))
        kept, (first_row, first_column) = tile.keep(given, 8)
        height, width = kept.logits_NTHW.shape[2:]
        row_K, column_K = torch.arange(height), torch.arange(height) % width
        inside_K = (row_K + first_row >= 2) & (row_K + first_row < 16) & (column_K + first_column >= 2)
        inside_K &= column_K + first_column < 37
        row_K, column_K = row_K[inside_K], column_K[inside_K]
        expected = torch.stack([row_K + first_row, column_K + first_column], dim=1).float()
        assert kept.ellipses is not None
        torch.testing.assert_close(kept.ellipses.at(row_K, column_K), expected)
