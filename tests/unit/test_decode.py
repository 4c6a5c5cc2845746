"""A hot cell becomes the box that the geometry says, on a picture that is not square."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch

from tinyface_core.detect.decode import Candidates, CellDecoder
from tinyface_core.detect.pyramid import Level
from tinyface_core.geometry import CellGrid, LevelSize
from tinyface_core.model.cells import CellMeans
from tinyface_core.model.network import HeatMaps
from tinyface_core.model.spec import DecodingRule
from tinyface_core.templates import TemplateSet

TEMPLATES = TemplateSet()
OURS = CellDecoder(CellGrid(8, 0.0, 291), TEMPLATES, DecodingRule())


def maps(height: int, width: int, outputs: int = 25) -> HeatMaps:
    return HeatMaps(torch.full((1, outputs, height, width), -20.0), torch.zeros(1, outputs, 4, height, width))


def level(zoom: float, picture_hw: tuple[int, int] = (37, 53)) -> Level:
    return Level(LevelSize(picture_hw, zoom), TEMPLATES.at_zoom(zoom))


def test_a_cell_without_offsets_is_its_template_around_the_cells_centre() -> None:
    found_maps = maps(5, 7)
    found_maps.logits_NTHW[0, 5, 2, 3] = 3.0
    found = OURS.decode(found_maps, (0, 0), level(1.0), 0.5)
    template = TEMPLATES.templates[5]
    centre_x, centre_y = 8 * 3 + 0.5, 8 * 2 + 0.5
    half_w, half_h = template.width / 2, template.height / 2
    expected = [centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h]
    torch.testing.assert_close(found.boxes_K4, torch.tensor([expected]))
    assert found.scores_K.item() == pytest.approx(1 / (1 + math.exp(-3)))
    assert found.template_K.tolist() == [5]
    assert found.zoom_K.tolist() == [1.0]


def test_offsets_move_by_template_sides_and_stretch_by_exponents() -> None:
    found_maps = maps(5, 7)
    found_maps.logits_NTHW[0, 6, 1, 4] = 3.0
    found_maps.offsets_NT4HW[0, 6, :, 1, 4] = torch.tensor([0.5, -0.25, math.log(2), math.log(0.5)])
    (box,) = OURS.decode(found_maps, (0, 0), level(1.0), 0.5).boxes_K4.tolist()
    template = TEMPLATES.templates[6]
    centre_x, centre_y = 32.5 + 0.5 * template.width, 8.5 - 0.25 * template.height
    half_w, half_h = template.width, template.height / 4
    assert box == pytest.approx([centre_x - half_w, centre_y - half_h, centre_x + half_w, centre_y + half_h])


def test_boxes_return_to_the_picture_by_each_axis_own_ratio() -> None:
    """37 x 53 at 0.5 is shown as 18 x 26: the ratios are 18/37 and 26/53, not 1/2."""
    found_maps = maps(3, 4)
    found_maps.logits_NTHW[0, 4, 1, 2] = 3.0
    (box,) = OURS.decode(found_maps, (0, 0), level(0.5), 0.5).boxes_K4.tolist()
    template = TEMPLATES.templates[4]
    assert (box[0] + box[2]) / 2 == pytest.approx(16.5 * 53 / 26, rel=1e-5)
    assert (box[1] + box[3]) / 2 == pytest.approx(8.5 * 37 / 18, rel=1e-5)
    assert box[2] - box[0] == pytest.approx(template.width * 53 / 26, rel=1e-5)
    assert box[3] - box[1] == pytest.approx(template.height * 37 / 18, rel=1e-5)


def test_an_imported_rule_has_its_own_centre_and_divides_by_the_zoom() -> None:
    imported = CellDecoder(CellGrid(8, 2.0, 291), TEMPLATES, DecodingRule(first_centre_px=-1.0, back="zoom"))
    found_maps = maps(3, 4)
    found_maps.logits_NTHW[0, 4, 1, 2] = 3.0
    (box,) = imported.decode(found_maps, (0, 0), level(0.5), 0.5).boxes_K4.tolist()
    assert (box[0] + box[2]) / 2 == pytest.approx((16 - 1) / 0.5)
    assert (box[1] + box[3]) / 2 == pytest.approx((8 - 1) / 0.5)


def test_templates_that_may_not_fire_at_a_level_never_do() -> None:
    found_maps = maps(5, 7)
    found_maps.logits_NTHW[:] = 5.0
    at_one = OURS.decode(found_maps, (0, 0), level(1.0), 0.5)
    at_two = OURS.decode(found_maps, (0, 0), level(2.0), 0.5)
    assert set(at_one.template_K.tolist()) == set(range(4, 12))
    assert set(at_two.template_K.tolist()) == {*range(4, 12), *range(18, 25)}
    assert len(at_one.scores_K) == 8 * 5 * 7


def test_a_level_gives_boxes_of_its_heights_only_in_px_of_the_picture() -> None:
    found_maps = maps(5, 7)
    found_maps.logits_NTHW[0, 5, 2, 3] = found_maps.logits_NTHW[0, 11, 1, 1] = 3.0
    tall, low = (TEMPLATES.templates[i].height / 2 for i in (5, 11))
    at_2 = replace(level(2.0), heights=(0.0, (tall + low) / 2))
    assert OURS.decode(found_maps, (0, 0), at_2, 0.5).template_K.tolist() == [11]
    assert OURS.decode(found_maps, (0, 0), replace(at_2, heights=(low, tall)), 0.5).template_K.tolist() == [11]
    assert OURS.decode(found_maps, (0, 0), replace(at_2, heights=(low + 0.1, math.inf)), 0.5).template_K.tolist() == [5]


def test_a_checkpoint_with_fewer_outputs_reports_ids_among_the_25() -> None:
    some = TemplateSet(outputs=(20, 5))
    decoder = CellDecoder(CellGrid(8, 0.0, 291), some, DecodingRule())
    found_maps = maps(5, 7, outputs=2)
    found_maps.logits_NTHW[0, 0, 0, 1] = 4.0  # output 0 is template 20
    found_maps.logits_NTHW[0, 1, 2, 0] = 2.0  # output 1 is template 5
    shown = Level(LevelSize((37, 53), 2.0), some.at_zoom(2.0))
    found = decoder.decode(found_maps, (0, 0), shown, 0.5)
    scores = dict(zip(found.template_K.tolist(), found.scores_K.tolist(), strict=True))
    assert scores == {20: pytest.approx(1 / (1 + math.exp(-4))), 5: pytest.approx(1 / (1 + math.exp(-2)))}


def test_the_threshold_is_exclusive_and_zero_lets_all_pass() -> None:
    found_maps = maps(1, 1)
    found_maps.logits_NTHW[:] = 0.0
    assert len(OURS.decode(found_maps, (0, 0), level(1.0), 0.5).scores_K) == 0
    assert len(OURS.decode(found_maps, (0, 0), level(1.0), 0.499).scores_K) == 8
    assert len(OURS.decode(maps(1, 1), (0, 0), level(1.0), 0.0).scores_K) == 8
    assert len(OURS.decode(found_maps, (0, 0), level(1.0), 1.0).scores_K) == 0


def test_the_first_cell_of_a_tile_shifts_its_boxes() -> None:
    found_maps = maps(5, 7)
    found_maps.logits_NTHW[0, 5, 2, 3] = 3.0
    here = OURS.decode(found_maps, (0, 0), level(1.0), 0.5).boxes_K4
    there = OURS.decode(found_maps, (10, 20), level(1.0), 0.5).boxes_K4
    torch.testing.assert_close(there - here, torch.tensor([[160.0, 80.0, 160.0, 80.0]]))


def test_ellipses_are_those_around_each_kept_cell_and_go_to_all_its_boxes() -> None:
    """A map whose cells hold their own place."""
    features_2HW = torch.stack(torch.meshgrid(torch.arange(20.0), torch.arange(20.0), indexing="ij"))
    cells = CellMeans(features_2HW).moved(3, 4)
    found_maps = replace(maps(5, 7), ellipses=cells)
    for template, row, column in ((5, 2, 3), (6, 0, 1), (7, 2, 3)):
        found_maps.logits_NTHW[0, template, row, column] = 3.0
    found = OURS.decode(found_maps, (0, 0), level(1.0), 0.5)
    assert found.template_K.tolist() == [5, 6, 7]
    assert found.ellipse_K5 is not None
    assert found.ellipse_K5.tolist() == [[5, 7], [3, 5], [5, 7]]  # the mean of the cells around is the cell in a slope
    cut = replace(found_maps, ellipses=cells.moved(1, 2))
    moved = OURS.decode(cut, (10, 20), level(1.0), 0.5)
    assert moved.ellipse_K5 is not None
    assert moved.ellipse_K5.tolist() == [[6, 9], [4, 7], [6, 9]]
    joined = Candidates.joined([found, moved]).at(torch.tensor([4, 0]))
    assert joined.ellipse_K5 is not None
    assert joined.ellipse_K5.tolist() == [[4, 7], [5, 7]]
    nothing = OURS.decode(found_maps, (0, 0), level(1.0), 0.99)
    assert nothing.ellipse_K5 is not None
    assert tuple(nothing.ellipse_K5.shape) == (0, 2)
    assert OURS.decode(maps(5, 7), (0, 0), level(1.0), 0.0).ellipse_K5 is None
