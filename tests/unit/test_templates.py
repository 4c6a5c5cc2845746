"""The published 25 and the rule that says which of them fire at which level."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinyface_core.errors import SettingsError
from tinyface_core.templates import PUBLISHED, Template, TemplateSet, read_templates

PUBLISHED_FILE = Path(__file__).resolve().parents[3] / "shared" / "weights" / "templates_25.json"


@pytest.mark.skipif(not PUBLISHED_FILE.is_file(), reason="needs ../shared/weights/templates_25.json")
def test_the_25_are_the_published_ones() -> None:
    rows = json.loads(PUBLISHED_FILE.read_text())
    assert len(PUBLISHED) == len(rows) == 25
    for template, (x1, y1, x2, y2, resolution) in zip(PUBLISHED, rows, strict=True):
        assert (template.width, template.height) == pytest.approx((x2 - x1 + 1, y2 - y1 + 1), abs=1e-9)
        assert template.resolution == resolution


def test_sides_are_one_more_than_the_distance_of_the_corners() -> None:
    """Corners of the published form are pixel centres: -1 to 1 covers three pixels."""
    assert Template.from_corners(-1, -2, 1, 2, 0.5) == Template(width=3, height=5, resolution=0.5)


def test_a_file_of_templates_that_is_none_is_named(tmp_path: Path) -> None:
    file = tmp_path / "t.json"
    for text, message in (
        ("[]", "no templates of jobs/fit_templates.py"),
        ('{"templates": [{"width": 3}]}', r"templates\.0\.height"),
        (
            '{"templates": [{"width": 3, "height": 4, "resolution": 1}], "outputs": [0], "a": [2], "b": []}',
            "template 2",
        ),
    ):
        file.write_text(text)
        with pytest.raises(SettingsError, match=message):
            read_templates(file)
    with pytest.raises(SettingsError, match=r"none\.json"):
        read_templates(tmp_path / "none.json")


def test_a_fires_at_every_level_and_b_above_1x_only() -> None:
    """A = 5..12 and B = 19..25, counted from 1."""
    a, b = tuple(range(4, 12)), tuple(range(18, 25))
    published = TemplateSet()
    assert [published.at_zoom(zoom) for zoom in (0.25, 0.5, 1)] == [a, a, a]
    assert [published.at_zoom(zoom) for zoom in (2**0.5, 2, 4)] == [a + b] * 3
    assert {PUBLISHED[i].resolution for i in a} == {1}
    assert {PUBLISHED[i].resolution for i in b} == {2}


def test_full_fires_each_template_at_its_own_resolution_only() -> None:
    full = TemplateSet(full=True)
    assert [full.at_zoom(zoom) for zoom in (0.5, 1, 2)] == [(0, 1, 2, 3), tuple(range(4, 12)), tuple(range(12, 25))]


def test_a_checkpoints_table_of_levels_wins_at_its_zooms() -> None:
    table = TemplateSet(levels=((2.0, (24, 18, 18)),))
    assert table.at_zoom(2) == (18, 24), "ascending, each once"
    assert table.at_zoom(4) == TemplateSet().at_zoom(4)


def test_only_templates_with_an_output_fire() -> None:
    few = TemplateSet(outputs=(5, 20))
    assert few.at_zoom(1) == (5,)
    assert few.at_zoom(2) == (5, 20)


def test_a_level_at_which_nothing_fires_is_refused() -> None:
    with pytest.raises(SettingsError, match=r"zoom 0\.25: no template of this checkpoint may fire there"):
        TemplateSet(full=True).at_zoom(0.25)


def test_the_smallest_face_is_the_lowest_template_in_px_of_the_picture() -> None:
    published = TemplateSet()
    assert published.smallest_face_px(1) == pytest.approx(2 * 20.88555 + 1)
    assert published.smallest_face_px(4) == pytest.approx((2 * 10.6161 + 1) / 4)
    assert published.smallest_face_px(0.5) == pytest.approx(2 * (2 * 20.88555 + 1))
