"""The study of pyramid levels: boxes of each level as the detector's, with and without regression, and its rows."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from options import run_job
from study import app
from tests.toy_network import FP32, bright_detector, bright_picture, calibrated, cloudy_picture, toy_detector
from tinyface_core.detect.detector import Detector
from tinyface_core.detect.options import DetectOptions
from tinyface_core.errors import SettingsError
from tinyface_core.evaluate.matching import Found, match
from tinyface_core.evaluate.truth import joined
from tinyface_core.model.checkpoint import save_checkpoint
from tinyface_core.model.spec import Defaults, read_spec
from tinyface_core.studies import levels as levels_module
from tinyface_core.studies.level_boxes import LevelBoxes, Looked, load, look, save
from tinyface_core.studies.level_choices import ANY, Choice, alone, as_limits, chosen, limited, rows, told
from tinyface_core.studies.level_heights import EDGES_PX, best_limits, served, served_table
from tinyface_core.templates import Template, TemplateSet

NMS = Defaults(nms_iou=0.3)
SMALL = TemplateSet((Template(24, 32, 1),), outputs=(0,), a=(0,), b=())


def test_a_box_without_regression_is_its_template_at_its_cell() -> None:
    """The toy's regression moves a box by half a pixel of the level, from the cell's pixel to its corner."""
    detector = bright_detector(SMALL, DetectOptions(0.5, 0.3, (1.0,)))
    for zoom, face, shift in ((1.0, (20, 24, 44, 56), 0.5), (2.0, (98, 88, 110, 104), 0.25)):
        looked = look(detector, bright_picture(148, 212, face), (zoom,))
        assert looked.picture_hw == (148, 212)
        level = looked.levels[zoom]
        np.testing.assert_allclose(level.boxes_K4, [face], atol=1e-3)
        np.testing.assert_allclose(level.still_K4, level.boxes_K4 + shift, atol=1e-3)


@pytest.mark.parametrize("tile_px", [1 << 23, 400 * 400])
def test_boxes_with_and_without_regression_are_of_the_same_cells(tile_px: int) -> None:
    """Undone by hand: what regression added is an offset of the centre and a factor of the size, of this template."""
    zoom = 2.0
    detector = toy_detector(DetectOptions(0.5, 0.3, (zoom,), tile_px))
    (level,) = look(detector, cloudy_picture(231, 157, seed=3), (zoom,)).levels.values()
    assert len(level.scores_K) > 50
    centre_K2 = (level.still_K4[:, :2] + level.still_K4[:, 2:]) / 2 * zoom
    np.testing.assert_allclose((centre_K2 - 0.5) % 8, 0, atol=2e-3)
    sides_K2 = (level.still_K4[:, 2:] - level.still_K4[:, :2]) * zoom
    shapes_T2 = np.array([[each.width, each.height] for each in detector.spec.templates.templates])
    fit_KT = np.abs(sides_K2[:, None] - shapes_T2).max(axis=2)
    assert fit_KT.min(axis=1).max() < 2e-3
    assert set(fit_KT.argmin(axis=1)) <= set(detector.spec.templates.at_zoom(zoom))
    moved_K2 = (level.boxes_K4[:, :2] + level.boxes_K4[:, 2:]) / 2 * zoom - centre_K2
    assert np.abs(moved_K2 / sides_K2).max() < 2  # of a wrong cell it would be tens
    growth_K2 = (level.boxes_K4[:, 2:] - level.boxes_K4[:, :2]) * zoom / sides_K2
    assert 0.2 < growth_K2.min() < growth_K2.max() < 5


@pytest.mark.parametrize("heights", [{}, {0.5: (30.0, math.inf), 1.0: (0.0, 60.0)}])
def test_the_detector_gives_what_a_row_promises(heights: dict[float, tuple[float, float]]) -> None:
    """All levels with regression are the detector as it is; a row with limits is one whose checkpoint has them."""
    choice = Choice("both", {0.5: ANY, 1.0: ANY} | heights)
    network, spec = calibrated("mobilenet_v2")
    spec = replace(spec, defaults=replace(spec.defaults, level_heights=as_limits(choice)))
    detector = Detector(network, spec, FP32, DetectOptions(0.5, 0.3, (0.5, 1.0)))
    picture = cloudy_picture(231, 257, seed=4)
    expected = detector(picture)
    assert len(expected) > 5
    assert (len(expected) == len(toy_detector(DetectOptions(0.5, 0.3, (0.5, 1.0)))(picture))) == (not heights)
    ours = chosen(look(detector, picture, (0.5, 1.0)), choice, detector.spec.defaults)
    np.testing.assert_array_equal(ours.scores_K.astype(np.float32), expected.scores_K)
    corners_K4 = np.concatenate([ours.boxes_K4[:, :2], ours.boxes_K4[:, :2] + ours.boxes_K4[:, 2:]], axis=1)
    np.testing.assert_allclose(corners_K4, expected.boxes_K4, atol=1e-4)


def level_of(*boxes: tuple[list[float], float]) -> LevelBoxes:
    """Without regression every box lies 10 px further right."""
    boxes_K4 = np.array([box for box, _ in boxes], np.float32).reshape(-1, 4)
    scores_K = np.array([score for _, score in boxes], np.float32)
    return LevelBoxes(boxes_K4, boxes_K4 + np.array([10, 0, 10, 0], np.float32), scores_K)


LOOKED = Looked(
    (100, 200),
    {
        1.0: level_of(([0, 0, 20, 30], 0.8), ([50, 50, 60, 60], 0.3), ([-30, 0, -5, 30], 0.9)),
        2.0: level_of(([0, 0, 20, 26], 0.9), ([100, 0, 110, 10], 0.7)),
    },
)


def boxes_of(found: Found) -> list[list[float]]:
    return found.boxes_K4.tolist()


def test_what_a_level_may_not_give_suppresses_nothing() -> None:
    every = chosen(LOOKED, Choice("all", {1.0: ANY, 2.0: ANY}), NMS)
    assert boxes_of(every) == [[0, 0, 20, 26], [100, 0, 10, 10], [50, 50, 10, 10]]
    assert every.scores_K == pytest.approx([0.9, 0.7, 0.3])
    capped = chosen(LOOKED, Choice("capped", {1.0: ANY, 2.0: (0, 12)}), NMS)
    assert boxes_of(capped) == [[0, 0, 20, 30], [100, 0, 10, 10], [50, 50, 10, 10]]
    tall = chosen(LOOKED, Choice("tall", {1.0: (30, math.inf), 2.0: (10, 26)}), NMS)  # from, up to below
    assert boxes_of(tall) == [[0, 0, 20, 30], [100, 0, 10, 10]]


def test_without_regression_the_templates_boxes_are_taken_and_clipped() -> None:
    found = chosen(LOOKED, Choice("still", {1.0: ANY}, regression=False), NMS)
    assert boxes_of(found) == [[0, 0, 5, 30], [10, 0, 20, 30], [60, 50, 10, 10]]
    nothing = Looked((100, 200), {1.0: level_of()})
    assert boxes_of(chosen(nothing, Choice("none", {1.0: ANY}), NMS)) == []


def test_boxes_come_back_from_their_file_as_they_were(tmp_path: Path) -> None:
    save(LOOKED, tmp_path / "a.npz")
    assert [file.name for file in tmp_path.iterdir()] == ["a.npz"]
    back = load(tmp_path / "a.npz")
    assert back.picture_hw == LOOKED.picture_hw
    assert list(back.levels) == [1.0, 2.0]
    for zoom, level in LOOKED.levels.items():
        for name in ("boxes_K4", "still_K4", "scores_K"):
            np.testing.assert_array_equal(getattr(back.levels[zoom], name), getattr(level, name))


def test_the_boxes_that_are_kept_are_moved_by_the_others() -> None:
    voting = replace(NMS, vote_iou=0.6)
    (first, *_) = boxes_of(chosen(LOOKED, Choice("all", {1.0: ANY, 2.0: ANY}), voting))
    pull = (0.8 * 26 / 30) ** 2 / (0.9**2 + (0.8 * 26 / 30) ** 2)  # 1x has 30 px, at IoU 26/30
    assert first == pytest.approx([0, 0, 20, 26 + 4 * pull])
    for choice in (Choice("no", {1.0: ANY, 2.0: ANY}, vote=False), Choice("all", {1.0: ANY, 2.0: ANY}, False)):
        assert boxes_of(chosen(LOOKED, choice, voting)) == boxes_of(chosen(LOOKED, choice, NMS))


def test_the_rows() -> None:
    made = rows((0.5, 1, 2, 4), (0.25, 0.5, 1, 2), ("4=0-12,0.5=80-",))
    assert [choice.name for choice in made if choice.regression] == [
        "0.5 1 2",
        "0.5 1 2, no vote on boxes",
        "without 0.5",
        "without 1",
        "without 2",
        "with 4",
        "with 4 under 12 px",
        "with 4 under 16 px",
        "with 4 under 20 px",
        "4=0-12,0.5=80-",
    ]
    assert [c.name for c in made if not c.regression] == [c.name for c in made if c.regression and c.vote]
    by_name = {choice.name: choice.levels for choice in made}
    assert by_name["without 1"] == {0.5: ANY, 2: ANY}
    assert by_name["with 4 under 12 px"] == {0.5: ANY, 1: ANY, 2: ANY, 4: (0, 12)}
    assert by_name["4=0-12,0.5=80-"] == {0.5: (80, math.inf), 1: ANY, 2: ANY, 4: (0, 12)}
    assert [choice.name for choice in rows((1.0,), (1.0,))] == ["1", "1, no vote on boxes", "1"]
    assert alone(0.5) == Choice("0.5 alone", {0.5: ANY})


@pytest.mark.parametrize("text", ["4", "4=x-2", "3=0-12", "4=12-12", "4=20-12", ""])
def test_limits_that_make_no_sense_are_named(text: str) -> None:
    with pytest.raises(SettingsError, match="--level-heights"):
        limited(text, (1, 4))


def test_heights_that_a_level_serves() -> None:
    """Twelve faces of 11 px that only 2x finds, twelve of 50 px that only 1x finds; each with alarms of its own."""
    small = [[20.0 * place, 0, 11, 11] for place in range(12)]
    large = [[60.0 * place, 100, 50, 50] for place in range(12)]
    truth = joined({"a": (np.array(small + large), np.zeros((24, 6), np.int8))})

    def found(*boxes: list[float]) -> Found:
        return Found(np.array(boxes), np.linspace(0.9, 0.5, len(boxes)))

    by_level = {
        1.0: found([0, 300, 200, 200], *large),  # an alarm of 200 px before all
        2.0: found([0, 300, 11, 11], *small, [0, 320, 50, 50]),
    }
    by_height = served(truth, {zoom: match(truth, {"a": one}) for zoom, one in by_level.items()})
    place_11, place_50 = EDGES_PX.index(10), EDGES_PX.index(40)
    assert by_height.faces_H[[place_11, place_50]].tolist() == [12, 12]
    assert by_height.precision[1.0][[place_11, place_50]].tolist() == [0, 1]  # its alarm is of another height
    assert by_height.precision[2.0][place_11] == pytest.approx(12 / 13)
    assert by_height.precision[2.0][place_50] == 0
    assert math.isnan(by_height.precision[1.0][0])
    assert "| 40-70 px | 12 | **1.000** | 0.000 |" in served_table(by_height)


def test_the_best_limits_are_looked_for_from_the_finest_level_on() -> None:
    """2x is best up to 20 px (40 of its own), 1x up to 128 px whatever 2x does; 0.5x is the coarsest."""
    tried: list[dict[float, tuple[float, float]]] = []

    def judge(limits: Mapping[float, tuple[float, float]]) -> float:
        tried.append(dict(limits))
        return -abs(min(limits[2.0][1], 100) - 20) - abs(min(limits[1.0][1], 1000) - 128) / 1000

    assert best_limits((0.5, 1.0, 2.0), judge) == {0.5: ANY, 1.0: (0, 128), 2.0: (0, 20)}
    assert tried[0] == {0.5: ANY, 1.0: ANY, 2.0: ANY}
    assert all(limits[2.0] == (0, 20) for limits in tried if limits[1.0] != ANY)
    assert best_limits((1.0,), judge=lambda limits: 0.0) == {1.0: ANY}
    assert told({1.0: ANY, 2.0: (0, 20)}) == "1: all, 2: 0-20 px"


@pytest.fixture
def data(tmp_path: Path) -> Path:
    """A toy checkpoint, and four pictures with one face each."""
    network, spec = calibrated("mobilenet_v2")
    save_checkpoint(tmp_path / "toy.safetensors", network, spec, half=False)
    folder = tmp_path / "data"
    folder.mkdir()
    lines = []
    for number in range(4):
        Image.fromarray(cloudy_picture(61, 83, seed=number)).save(folder / f"p_{number}.png")
        face = {"boxes": [[20, 10, 30, 40]], "attrs": [[0] * 6], "width": 83, "height": 61}
        lines.append(json.dumps({"image": f"p_{number}.png", **face}))
    (folder / "annotations.jsonl").write_text("\n".join(lines))
    return folder


def test_the_job_prints_keeps_and_goes_on(
    data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    out = tmp_path / "out"
    asked = ["levels", "--data", str(data), "--model", str(tmp_path / "toy.safetensors"), "--output", str(out)]
    asked += ["--every", "2", "--min-score", "0.3", "--zooms", "1", "2", "4"]
    assert run_job(app, asked) == 0
    text = capsys.readouterr().out
    assert text.startswith("2 pictures")
    assert "| levels | regression | all valid (2) | 40-140 px (2) |" in text
    assert "| without 2 | without |" in text
    assert "| with 4 under 16 px | with |" in text
    assert sorted(file.name for file in (out / "boxes").iterdir()) == ["p_0.npz", "p_2.npz", "settings.json"]
    numbers = json.loads((out / "levels.json").read_text())
    assert numbers["pictures"] == 2
    assert numbers["rows"][0]["heights_px"] == {"1": [0, None], "2": [0, None]}
    (out / "boxes" / "p_2.npz").unlink()
    looked: list[str] = []
    real = levels_module._look_at
    monkeypatch.setattr(levels_module, "_look_at", lambda study, given: looked.append(given[0]) or real(study, given))
    assert run_job(app, asked) == 0
    assert looked == ["p_2"]
    assert capsys.readouterr().out == text
    assert run_job(app, [*asked, "--new", str(tmp_path / "new.safetensors")]) == 0
    best = max(
        (row for row in numbers["rows"] if row["regression"] and len(row["heights_px"]) == 3),
        key=lambda row: row["average_precision"]["all valid"],  # no official levels here
    )
    assert capsys.readouterr().out.endswith(f"new.safetensors: {best['levels']}\n")
    kept = {
        f"{one.zoom:g}": [one.least, one.below]
        for one in read_spec(tmp_path / "new.safetensors").defaults.level_heights
    }
    assert kept == {zoom: limits for zoom, limits in best["heights_px"].items() if limits != [0, None]}
    assert run_job(app, [*asked, "--new", str(tmp_path / "new.safetensors")]) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run_job(app, [*asked[:-4], "--zooms", "1", "2"]) == 2
    assert "another model, floor or zooms" in capsys.readouterr().err


def test_wrong_input_is_named(data: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    toy = ["--model", str(tmp_path / "toy.safetensors")]
    (data / "p_1.png").write_bytes(b"no picture")
    (data / "p_3.png").unlink()
    for tokens, message in (
        ([*toy, "--every", "0"], "--every"),
        ([*toy, "--level-heights", "7=0-9"], "--level-heights 7=0-9"),
        (["--model", "nobody"], "nobody: no such file"),
        ([*toy, "--zooms", "1"], "p_1.png: cannot be decoded"),
        ([*toy, "--zooms", "1", "--every", "3"], "p_3.png: cannot be read"),
    ):
        assert run_job(app, ["levels", "--data", str(data), "--output", str(tmp_path / "out"), *tokens]) == 2
        assert message in capsys.readouterr().err
