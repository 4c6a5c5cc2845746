"""The job: one file in, one checkpoint out, exit code 0 or 2 and one sentence."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from convert_checkpoint import app
from options import run_job
from tinyface_core.model.checkpoint import load_checkpoint
from tinyface_core.model.spec import TrunkConfig
from tinyface_core.model.trunks import build_trunk


@pytest.fixture
def source(tmp_path: Path) -> Path:
    torch.manual_seed(0)
    state = dict(build_trunk(TrunkConfig("mobilenet_v2")).state_dict()) | {"classifier.1.bias": torch.ones(1000)}
    torch.save(state, tmp_path / "mobilenet.pth")
    return tmp_path / "mobilenet.pth"


def test_a_checkpoint_is_written_in_fp32_and_said(source: Path, capsys: pytest.CaptureFixture[str]) -> None:
    target = source.parent / "light.safetensors"
    assert run_job(app, [str(source), str(target), "--name", "light"]) == 0
    assert capsys.readouterr().out == (
        f"{target}: light, mobilenet_v2, from ImageNet weights, heads zero. Left out: classifier.1.bias.\n"
        "It finds no faces before it is trained: jobs/train.py --start-from.\n"
    )
    network, spec = load_checkpoint(target)
    assert spec.name == "light"
    weight = torch.load(source, weights_only=True)["features.0.0.weight"]
    assert torch.equal(network.trunk.state_dict()["features.0.0.weight"], weight)


def test_the_form_of_imagenet_weights_can_be_told(source: Path) -> None:
    target = source.parent / "light.safetensors"
    assert run_job(app, [str(source), str(target), "--imagenet-form", "keras"]) == 0
    assert load_checkpoint(target)[1].network.std == (1, 1, 1)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["none.mat", "out.safetensors"], "none.mat: cannot be read"),
        (["mobilenet.pth", "out.pth"], "out.pth: the name of a checkpoint ends in .safetensors"),
        (["mobilenet.pth", "there.safetensors"], "there.safetensors: is there already"),
        (["mobilenet.pth", "mobilenet.pth/out.safetensors"], "its folder does not exist or cannot be written to"),
        (["mobilenet.pth", "out.safetensors", "--trunk", "resnet50"], "missing: conv1.weight"),
        (["mobilenet.pth", "out.safetensors", "--trunk", "vgg"], "--trunk"),
        (["mobilenet.pth"], "TARGET is missing"),
        (["mobilenet.pth", "out.safetensors", "--frob"], "--frob"),
    ],
)
def test_what_cannot_be_done_ends_with_2_and_a_sentence(
    source: Path,
    arguments: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.chdir(source.parent)
    Path("there.safetensors").touch()
    assert run_job(app, arguments) == 2
    errors = capsys.readouterr().err
    assert told in errors
    assert "Traceback" not in errors
    assert not Path("out.safetensors").exists()
    assert Path("there.safetensors").stat().st_size == 0


def test_a_file_that_is_there_is_replaced_where_that_is_asked_for(source: Path) -> None:
    target = source.parent / "there.safetensors"
    target.touch()
    assert run_job(app, [str(source), str(target), "--overwrite"]) == 0
    assert load_checkpoint(target)


def test_help_has_an_example(capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(app, ["--help"]) == 0
    assert "Example: python jobs/convert_checkpoint.py hr_res101.mat" in capsys.readouterr().out
