"""Numbers of cells and levels, by hand. That each trunk looks where its grid says is proved by impulse in
test_trunks.py, and for the whole network in test_network.py."""

from __future__ import annotations

import pytest

from tinyface_core.errors import GeometryError
from tinyface_core.geometry import CellGrid, LevelSize, Window, multiple_above


def brute_force(windows: list[Window], index: int) -> tuple[int, int]:
    """First and last pixel that cell `index` sees, walked back through the windows one by one."""
    first = last = index
    for window in reversed(windows):
        first = first * window.stride - window.before
        last = last * window.stride - window.before + window.kernel - 1
    return first, last


@pytest.mark.parametrize(
    "windows",
    [
        [],
        [Window(7, 2, 3)],
        [Window(7, 2, 3), Window(3, 2, 1)],
        [Window(7, 2, 3), Window(3, 2, 0)],
        [Window(3, 1, 1), Window(3, 1, 1), Window(2, 2), Window(3, 1, 1), Window(2, 2)],
        [Window(1, 2), Window(3, 1, 1), Window(5, 3, 0), Window(4, 2, 1)],
    ],
)
def test_a_grid_sees_what_a_walk_back_through_its_windows_finds(windows: list[Window]) -> None:
    grid = CellGrid.through(windows)
    for index in (0, 1, 7):
        first, last = brute_force(windows, index)
        assert last - first + 1 == grid.receptive_field
        assert (first + last) / 2 == grid.centre + grid.stride * index


def test_position_on_a_finer_grid_is_where_both_look_at_the_same_pixel() -> None:
    fine, coarse = CellGrid(8, 3.5, 92), CellGrid(16, 7.5, 196)
    for index in range(5):
        place = coarse.position_on(fine, index)
        assert coarse.centre + coarse.stride * place == fine.centre + fine.stride * index
    assert CellGrid(16, 0).position_on(CellGrid(8, 0), 6) == 3


def test_reach_goes_from_a_cells_centre_to_the_far_edge_of_its_last_pixel() -> None:
    """A field of 3 pixels around pixel 5 covers 4.0 to 7.0 continuous, and its centre is at 5.5."""
    assert CellGrid(1, 5, 3).reach == 1.5


def test_a_level_rounds_each_side_and_keeps_the_true_ratio() -> None:
    level = LevelSize((37, 53), 0.25)
    assert level.image_hw == (9, 13)
    assert level.ratio_yx == (9 / 37, 13 / 53)
    assert LevelSize((37, 53), 2).ratio_yx == (2, 2)


def test_a_level_is_never_empty() -> None:
    assert LevelSize((1, 900), 0.25).image_hw == (1, 225)


def test_multiple_above() -> None:
    assert [multiple_above(value, 16) for value in (0, 1, 16, 16.5, 163.5)] == [0, 16, 16, 32, 176]
    with pytest.raises(GeometryError, match="step 0"):
        multiple_above(3, 0)
