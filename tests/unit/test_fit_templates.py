"""Templates are medoids of the boxes; the same seed gives the same, and rules give resolutions and sets."""

from __future__ import annotations

import json
from itertools import combinations
from pathlib import Path

import numpy as np
import pytest

from fit_templates import app
from options import run_job
from tinyface_core.errors import InputError
from tinyface_core.templates import TemplateSet, read_templates
from tinyface_core.train.fit_templates import (
    centred_iou,
    face_sizes,
    fit,
    kept_sizes,
    mean_best_iou,
    resolution_of,
    template_set,
)
from tinyface_core.train.presets import preset


def test_iou_of_centred_boxes() -> None:
    found = centred_iou(np.array([[10.0, 20]]), np.array([[20.0, 10], [10, 20], [5, 20]]))
    assert found[0].tolist() == pytest.approx([100 / 300, 1, 0.5])


def test_clear_clusters_are_found_and_each_template_is_a_box_that_occurs() -> None:
    rng = np.random.default_rng(0)
    centres = np.array([[12, 15], [40, 60], [150, 200]], float)
    boxes = np.rint(np.concatenate([centre * rng.uniform(0.9, 1.1, (200, 2)) for centre in centres]))
    fitted = fit(boxes, 3)
    assert centred_iou(fitted.sizes_K2, centres[::-1]).diagonal().min() > 0.85  # largest first
    assert {tuple(size) for size in fitted.sizes_K2.tolist()} <= {tuple(box) for box in boxes.tolist()}
    assert fitted.boxes == 600


def test_equals_the_best_of_all_choices_where_all_can_be_tried() -> None:
    rng = np.random.default_rng(3)
    boxes = np.rint(rng.uniform(10, 90, (14, 2)))
    points = np.unique(boxes, axis=0)
    best = max(mean_best_iou(boxes, points[list(chosen)]) for chosen in combinations(range(len(points)), 3))
    assert fit(boxes, 3, restarts=60).mean_iou == pytest.approx(best)


def test_the_seed_decides() -> None:
    boxes = np.rint(np.random.default_rng(1).uniform(10, 200, (500, 2)))
    assert np.array_equal(fit(boxes, 5, seed=4, restarts=1).sizes_K2, fit(boxes, 5, seed=4, restarts=1).sizes_K2)
    assert not np.array_equal(fit(boxes, 5, seed=4, restarts=1).sizes_K2, fit(boxes, 5, seed=5, restarts=1).sizes_K2)


def test_small_boxes_are_left_out_and_too_few_sizes_are_named() -> None:
    boxes = np.array([[9, 30], [30, 9], [10, 10], [20, 30]], float)
    assert kept_sizes(boxes, np.random.default_rng(0)).tolist() == [[10, 10], [20, 30]]
    with pytest.raises(InputError, match="2 different sizes"):
        fit(boxes, 3)


def test_the_rule_of_resolutions_and_sets() -> None:
    assert [resolution_of(height) for height in (141, 140, 40, 39)] == [0.5, 1, 1, 2]
    templates = template_set(np.array([[120, 160], [100, 139], [30, 40], [20, 30], [12, 19], [9, 10]], float))
    assert [template.resolution for template in templates.templates] == [0.5, 1, 1, 2, 2, 2]
    assert (templates.a, templates.b) == ((1, 2), (4, 5))
    assert (templates.templates[0].width, templates.templates[4].height) == (0.5 * 119 + 1, 2 * 18 + 1)
    assert face_sizes(templates)[4].tolist() == [12, 19]


def test_the_published_templates_are_for_the_faces_that_the_paper_names() -> None:
    heights = face_sizes(TemplateSet())[:, 1]
    assert heights[0] == pytest.approx(454.8, abs=0.1)
    assert 10 < heights[18:].min() < heights[18:].max() < 21


def test_the_command_prints_both_and_writes_a_set(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    rng = np.random.default_rng(0)
    rows = [f"1 1 {width} {height} 0 0 0 0 0 0" for width, height in rng.integers(10, 200, (60, 2))]
    (tmp_path / "boxes.txt").write_text("\n".join(["a.jpg", "60", *rows]))
    assert run_job(app, [str(tmp_path / "boxes.txt"), "-k", "4", "--output", str(tmp_path / "t.json")]) == 0
    told = capsys.readouterr().out
    assert "60 boxes" in told
    assert "with the published 25" in told
    assert len(json.loads((tmp_path / "t.json").read_text())["templates"]) == 4
    templates = read_templates(tmp_path / "t.json")
    trained = preset("fast", "hr-mobilenetv2", templates).spec
    assert trained.templates.templates == templates.templates
    assert trained.network.outputs == len(trained.templates.outputs) == len({*templates.a, *templates.b}) > 0
    again = [str(tmp_path / "boxes.txt"), "-k", "3", "--output", str(tmp_path / "t.json")]
    assert run_job(app, again) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert read_templates(tmp_path / "t.json").templates == templates.templates
    assert run_job(app, [*again, "--overwrite"]) == 0
    assert len(read_templates(tmp_path / "t.json").templates) == 3
    assert run_job(app, [str(tmp_path / "boxes.txt"), "--count", "0"]) == 2
    assert run_job(app, [str(tmp_path / "none.txt")]) == 2
    assert "none.txt" in capsys.readouterr().err
