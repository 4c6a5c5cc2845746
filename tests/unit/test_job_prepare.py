"""What a run decides before its first write, and says of it."""

from __future__ import annotations

import logging
from dataclasses import replace
from pathlib import Path

import pytest

from detect_options import DetectArchive
from prepare import asked_for, decide_anew
from tests.toy_network import FP32, calibrated
from tinyface_core.detect.options import Precision, Runtime
from tinyface_core.errors import CheckpointError, SettingsError
from tinyface_core.model.advice import Advice, HeightAdvice
from tinyface_core.model.checkpoint import load_checkpoint, save_checkpoint
from tinyface_core.model.spec import Ranges
from tinyface_core.storage import Storage

ADVICE = Advice(7, "0.5 1", (0.3, 0.35, 0.4), (HeightAdvice("all", 11, (0.9, 0.85, 0.8), (0.5, 0.55, None)),))


@pytest.fixture
def model(tmp_path: Path) -> Path:
    network, spec = calibrated("mobilenet_v2")
    save_checkpoint(tmp_path / "m.safetensors", network, replace(spec, advice=ADVICE))
    return tmp_path / "m.safetensors"


def test_a_new_run_says_what_to_expect_of_its_score(model: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)
    storage = Storage()
    job = DetectArchive(input=("in",), output="out", model=str(model), min_score=0.37, zooms=("1",))
    decided = decide_anew(job, asked_for(job, storage), FP32, storage)
    assert decided.settings["ellipses"] == "inscribed"
    told = caplog.text
    assert "what to expect of --min-score 0.37, by 7 labelled pictures at zooms 0.5 1 (this run: zooms 1)" in told
    head, line = told.splitlines()[-2:]
    assert "> 0.35*" in head
    assert "85 % / 55 %" in line
    assert line.endswith("11")


def test_focus_is_recorded_and_needs_the_level_that_decides(model: Path) -> None:
    storage = Storage()

    def decided(*zooms: str, focus: float | None = 0.1) -> object:
        job = DetectArchive(input=("in",), output="out", model=str(model), zooms=zooms, focus=focus)
        return decide_anew(job, asked_for(job, storage), FP32, storage).settings["focus"]

    assert decided("1", "2") == decided("adaptive") == 0.1
    assert decided("2", focus=None) is None
    with pytest.raises(SettingsError, match=r"--focus.*Add 1 to --zooms"):
        decided("0.5", "2")


def test_int8_is_for_models_with_ranges(model: Path, tmp_path: Path) -> None:
    storage, int8 = Storage(), Runtime("cpu", "int8", "this processor has VNNI")
    network, spec = load_checkpoint(model)
    save_checkpoint(tmp_path / "ranged.safetensors", network, replace(spec, ranges={"trunk.x": Ranges((0.0, 1.0))}))

    def decided(name: str, precision: Precision = "auto") -> tuple[str, str]:
        job = DetectArchive(input=("in",), output="out", model=str(tmp_path / name), precision=precision)
        made = decide_anew(job, asked_for(job, storage), int8, storage)
        return made.settings["precision"], made.runtime.precision

    assert decided("ranged.safetensors") == ("int8", "int8")
    assert decided("m.safetensors") == ("fp32", "fp32")
    assert decided("ranged.safetensors", "int8") == ("int8", "int8")
    with pytest.raises(CheckpointError, match=r"--precision int8: toy .*calibrate\.py.*--precision fp32"):
        decided("m.safetensors", "int8")


def test_the_light_model_is_the_default_where_floats_are_slow(tmp_path: Path) -> None:
    storage, job = Storage(), DetectArchive(input=("in",), output="out")
    chosen = {
        precision: decide_anew(job, {}, Runtime("cpu", precision, ""), storage).settings["model"]
        for precision in ("fp32", "int8", "bf16")
    }
    assert chosen == {"fp32": "hr-mobilenetv2", "int8": "hr-mobilenetv2", "bf16": "hr-resnet50"}
