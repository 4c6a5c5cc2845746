"""What a score means, worked by hand; and a checkpoint that carries it."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evaluate import app
from options import run_job
from tests.report_sample import SamplePicture, write_unit
from tests.toy_network import calibrated
from tinyface_core.evaluate.advise import advise, default_score
from tinyface_core.evaluate.matching import Found, Matches, match
from tinyface_core.evaluate.truth import Truth, joined
from tinyface_core.labels.forms import attributes_of
from tinyface_core.model.checkpoint import save_checkpoint
from tinyface_core.model.spec import file_hash, read_spec

FACES = [[0, 0, 10, 10], [20, 0, 10, 12], [40, 0, 50, 50], [0, 20, 8, 8]]
INVALID = [0, 0, 0, 1]
FOUND = (
    (0.9, [0, 0, 10, 10]),
    (0.8, [0, 20, 8, 8]),  # on the invalid face: counts neither way
    (0.7, [0, 1, 10, 9]),  # the first face again: wrong, but no alarm
    (0.6, [60, 20, 10, 10]),  # a false alarm inside a large face
    (0.5, [20, 0, 10, 10]),
    (0.4, [20, 30, 10, 6]),  # a false alarm
)


@pytest.fixture
def truth() -> Truth:
    return joined({"p": (np.array(FACES, float), attributes_of(np.array(INVALID)))})


def matched(truth: Truth, *found: tuple[float, list[int]]) -> Matches:
    boxes_K4 = np.array([box for _, box in found], float).reshape(-1, 4)
    return match(truth, {"p": Found(boxes_K4, np.array([score for score, _ in found]))})


def test_the_default_score_leaves_one_alarm_a_picture(truth: Truth) -> None:
    assert default_score(matched(truth, *FOUND)) == pytest.approx(0.4)
    assert default_score(matched(truth, *FOUND), 0.0) == pytest.approx(0.6)
    assert default_score(matched(truth, *FOUND), 2.0) == 0.0
    assert default_score(matched(truth)) == 0.0


def test_precision_and_recall_at_each_score_and_height(truth: Truth) -> None:
    advice = advise(truth, matched(truth, *FOUND), least_score=0.3, zooms="1")
    assert (advice.pictures, advice.scores[0], advice.scores[-1]) == (1, 0.3, 0.95)
    by_name = {one.name: one for one in advice.heights}
    at = {score: advice.scores.index(score) for score in (0.3, 0.45, 0.5, 0.65, 0.75, 0.9)}
    everything, small = by_name["all"], by_name["10-20 px"]
    assert (everything.faces, small.faces, by_name["40-140 px"].faces, by_name["under 10 px"].faces) == (3, 2, 1, 0)
    # Of 5 that count (0.8 does not): right, repeat, alarm, right, alarm.
    assert [everything.precision[at[s]] for s in (0.3, 0.45, 0.5, 0.65, 0.75)] == pytest.approx(
        [2 / 5, 2 / 4, 1 / 3, 1 / 2, 1], abs=1e-4
    )
    assert [everything.recall[at[s]] for s in (0.3, 0.45, 0.5, 0.9)] == pytest.approx(
        [2 / 3, 2 / 3, 1 / 3, 0], abs=1e-4
    )
    # By the detection's own height: the repeat is 9 px high, the last alarm 6.
    assert [small.precision[at[s]] for s in (0.3, 0.5, 0.65)] == pytest.approx([2 / 3, 1 / 2, 1], abs=1e-4)
    assert by_name["under 10 px"].precision[at[0.3]] == 0
    assert by_name["under 10 px"].precision[at[0.75]] is None
    assert by_name["40-140 px"].recall[at[0.3]] == 0


def test_the_table_shows_the_score_that_was_asked_for(truth: Truth) -> None:
    table = advise(truth, matched(truth, *FOUND), least_score=0.3, zooms="1").table(0.47)
    head, everything, *_ = table.splitlines()
    assert [word for word in head.split() if word[0] == "0"] == ["0.40", "0.45*", "0.60", "0.80"]
    assert "67 % / 50 %" in everything


def test_below_what_was_measured_nothing_is_claimed(truth: Truth) -> None:
    advice = advise(truth, matched(truth, *FOUND), least_score=0.3, zooms="1")
    assert advice.place(0.2) is None
    assert "*" not in advice.table(0.2)


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "model.safetensors", *calibrated("mobilenet_v2"))
    return tmp_path / "model.safetensors"


@pytest.fixture
def asked(tmp_path: Path, model: Path) -> list[str]:
    """An output of this model, its truth, and the command that judges it."""
    boxes_K5 = np.array([[x, y, x + w, y + h, score] for score, (x, y, w, h) in FOUND], np.float32)
    write_unit(tmp_path / "out", "a" * 32, [SamplePicture("file:///d/p.jpg", boxes_K5=boxes_K5)])
    settings = {"model": "toy", "model_hash": file_hash(model), "min_score": 0.3, "zooms": [0.5, 1]}
    (tmp_path / "out" / "_run").mkdir()
    (tmp_path / "out" / "_run" / "settings.json").write_text(json.dumps({"settings": settings, "hash": ""}))
    attrs = [[0, 0, 0, invalid, 0, 0] for invalid in INVALID]
    line = {"image": "p.jpg", "width": 100, "height": 90, "boxes": FACES, "attrs": attrs}
    (tmp_path / "truth").mkdir()
    (tmp_path / "truth" / "annotations.jsonl").write_text(json.dumps(line))
    return [str(tmp_path / "out"), "--truth", str(tmp_path / "truth"), "--samples", "10"]


def test_a_checkpoint_takes_the_advice_with_it(
    asked: list[str], model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.safetensors"
    new.touch()
    assert run_job(app, [*asked, "--advise", str(model), str(new)]) == 2
    assert new.stat().st_size == 0
    assert run_job(app, [*asked, "--advise", str(model), str(new), "--overwrite"]) == 0
    told, spec = capsys.readouterr().out, read_spec(new)
    assert "default score 0.4, one false alarm a picture" in told
    assert spec.defaults.score == pytest.approx(0.4, abs=1e-4)
    assert spec.advice is not None
    assert spec.advice.table(spec.defaults.score) in told
    assert (spec.advice.zooms, spec.advice.scores[0]) == ("0.5 1", 0.3)
    assert read_spec(model).advice is None


def test_another_models_results_give_no_advice(
    asked: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    other = tmp_path / "other.safetensors"
    save_checkpoint(other, *calibrated("mobilenet_v2", seed=1))
    assert run_job(app, [*asked, "--advise", str(other), str(tmp_path / "new.safetensors")]) == 2
    assert "were made with another model, toy" in capsys.readouterr().err
    assert not (tmp_path / "new.safetensors").exists()
