"""Which levels a picture is shown at, and which templates may fire there: none is ever left out in silence."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest

from tinyface_core.detect.pyramid import adaptive_zooms, levels_for, smallest_face_px
from tinyface_core.errors import SettingsError
from tinyface_core.model.spec import LevelHeights
from tinyface_core.templates import TemplateSet

TEMPLATES = TemplateSet()
A, B = tuple(range(4, 12)), tuple(range(18, 25))
ROOT_2 = 2**0.5


def paper_zooms(height: int, width: int) -> tuple[float, ...]:
    """METHOD.md 4 written out: down to where the 82 x 110 template covers the picture, 1x always, half steps to 2x."""
    lowest = min(math.floor(math.log2(82 / width)), math.floor(math.log2(110 / height)), 0)
    return tuple(2.0**k for k in [*range(lowest, 1), 0.5, 1.0])


@pytest.mark.parametrize("picture_hw", [(37, 53), (500, 47), (47, 500), (768, 1024), (1024, 768), (1080, 1920)])
def test_adaptive_levels_are_the_papers(picture_hw: tuple[int, int]) -> None:
    assert adaptive_zooms(picture_hw, TEMPLATES) == pytest.approx(paper_zooms(*picture_hw))


def test_adaptive_levels_of_some_pictures_by_hand() -> None:
    assert adaptive_zooms((768, 1024), TEMPLATES) == pytest.approx((1 / 16, 1 / 8, 1 / 4, 1 / 2, 1, ROOT_2, 2))
    assert adaptive_zooms((110, 82), TEMPLATES) == pytest.approx((1, ROOT_2, 2))
    assert adaptive_zooms((111, 82), TEMPLATES) == pytest.approx((0.5, 1, ROOT_2, 2))
    assert adaptive_zooms((110, 83), TEMPLATES) == pytest.approx((0.5, 1, ROOT_2, 2))


@pytest.mark.parametrize("picture_hw", [(1, 1), (3, 500), (37, 53), (2_501, 1_000), (5_001, 900), (20_000, 20_000)])
def test_no_size_loses_1x_or_2x(picture_hw: tuple[int, int]) -> None:
    """The authors lose 1x on pictures smaller than the largest template and 2x on pictures over 2,500 px."""
    zooms = adaptive_zooms(picture_hw, TEMPLATES)
    assert {1.0, 2.0} <= set(zooms)
    assert list(zooms) == sorted(zooms)
    height, width = levels_for(picture_hw, "adaptive", TEMPLATES)[0].size.image_hw
    assert height <= 110
    assert width <= 82


def test_the_largest_template_of_the_checkpoint_decides_how_far_down() -> None:
    """Only s = 1 templates count; a checkpoint without any goes by all that it has."""
    half = tuple(replace(t, width=t.width / 2, height=t.height / 2) for t in TEMPLATES.templates)
    assert adaptive_zooms((768, 1024), TemplateSet(half))[0] == 1 / 32
    twos = tuple(t for t in TEMPLATES.templates if t.resolution == 2)
    only_small = TemplateSet(twos, outputs=tuple(range(13)), a=tuple(range(13)), b=())
    assert adaptive_zooms((75, 53), only_small) == pytest.approx((1, ROOT_2, 2))
    assert adaptive_zooms((76, 53), only_small)[0] == 0.5  # its tallest is 75.2 px


@pytest.mark.parametrize("picture_hw", [(1, 1), (37, 53), (20_000, 20_000)])
def test_fixed_levels_are_run_as_given_on_every_size(picture_hw: tuple[int, int]) -> None:
    assert [level.zoom for level in levels_for(picture_hw, (0.25, 0.5, 1, 2), TEMPLATES)] == [0.25, 0.5, 1, 2]


def test_any_zooms_smallest_first_each_once() -> None:
    assert [level.zoom for level in levels_for((37, 53), (4, 0.77, 2, 4.0, 0.77), TEMPLATES)] == [0.77, 2, 4]


@pytest.mark.parametrize("zooms", [(), (0.0, 1.0), (-1.0,), (math.nan,), (math.inf,)])
def test_no_levels_and_no_zoom_are_errors(zooms: tuple[float, ...]) -> None:
    with pytest.raises(SettingsError, match="zooms"):
        levels_for((37, 53), zooms, TEMPLATES)


def test_a_level_shows_the_picture_at_the_nearest_whole_size_and_never_at_none() -> None:
    (level,) = levels_for((37, 53), (0.25,), TEMPLATES)
    assert level.size.image_hw == (9, 13)
    assert level.size.ratio_yx == (9 / 37, 13 / 53)
    (level,) = levels_for((1, 500), (0.25,), TEMPLATES)
    assert level.size.image_hw == (1, 125)
    assert level.size.ratio_yx == (1.0, 0.25)


def test_b_fires_above_1x_only() -> None:
    levels = levels_for((37, 53), (0.5, 1, 1.41, 2, 4), TEMPLATES)
    assert [level.templates for level in levels] == [A, A, A + B, A + B, A + B]


def test_in_full_mode_every_template_fires_at_its_own_resolution_only() -> None:
    full = TemplateSet(full=True)
    levels = levels_for((37, 53), (0.5, 1, 2), full)
    assert [level.templates for level in levels] == [tuple(range(4)), tuple(range(4, 12)), tuple(range(12, 25))]
    with pytest.raises(SettingsError, match=r"zoom 1\.41"):
        levels_for((37, 53), (0.5, 1, 1.41, 2), full)


def test_a_checkpoints_own_table_wins_at_its_zooms() -> None:
    own = TemplateSet(levels=((2.0, (20, 3)), (0.25, (0,))))
    levels = levels_for((37, 53), (0.25, 1, 2, 4), own)
    assert [level.templates for level in levels] == [(0,), A, (3, 20), A + B]


def test_the_smallest_face_is_that_of_the_smallest_template_of_all_levels() -> None:
    """Template 25 is 22.23 px high in its image: 11.1 px at 2x, 5.6 px at 4x; up to 1x template 10 of A is, 42.8 px."""
    smallest_b, smallest_a = 2 * 10.6161 + 1, 2 * 20.88555 + 1

    def smallest(*zooms: float) -> float:
        return smallest_face_px(levels_for((370, 530), zooms, TEMPLATES), TEMPLATES)

    assert smallest(0.25, 0.5, 1, 2) == pytest.approx(smallest_b / 2)
    assert smallest(0.5, 4) == pytest.approx(smallest_b / 4)
    assert smallest(0.5, 1) == pytest.approx(smallest_a)
    assert smallest(0.25, 0.5) == pytest.approx(2 * smallest_a)


def test_a_limit_of_heights_holds_where_another_level_takes_the_faces_beyond_it() -> None:
    limits = (LevelHeights(1, 30, 100), LevelHeights(4, below=12))

    def heights(*zooms: float) -> list[tuple[float, float]]:
        return [level.heights for level in levels_for((400, 300), zooms, TEMPLATES, limits)]

    everything = (0.0, math.inf)
    assert heights(0.5, 1, 2, 4) == [everything, (30, 100), everything, (0, 12)]
    assert heights(1, 4) == [(30, math.inf), everything]  # 1x reaches down to 30 px: 12 to 30 px would be lost
    assert heights(0.5, 1) == [everything, (0, 100)]
    assert heights(4) == [everything]
