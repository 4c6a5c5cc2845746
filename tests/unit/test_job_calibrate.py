"""jobs/calibrate.py: a checkpoint and some pictures in, the same checkpoint with ranges out."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from PIL import Image

from calibrate import app
from options import run_job
from tests.toy_network import calibrated, cloudy_picture
from tinyface_core.model.checkpoint import load_checkpoint, save_checkpoint


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    """Three loose ones, one of them cut short, and two in a tar."""
    folder = tmp_path / "shots" / "in"
    folder.mkdir(parents=True)
    for number in range(5):
        Image.fromarray(cloudy_picture(64 + 16 * number, 96, number)).save(folder / f"{number}.jpg")
    cut = folder / "0.jpg"
    cut.write_bytes(cut.read_bytes()[:900])
    with tarfile.open(folder / "a.tar", "w") as tar:
        for name in ("3.jpg", "4.jpg"):
            tar.add(folder / name, name)
            (folder / name).unlink()
    return folder


@pytest.fixture
def model(tmp_path: Path) -> Path:
    save_checkpoint(tmp_path / "toy.safetensors", *calibrated("mobilenet_v2"))
    return tmp_path / "toy.safetensors"


def test_the_same_weights_with_the_ranges_that_the_pictures_show(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    new = tmp_path / "new.safetensors"
    assert run_job(app, [str(model), "--input", str(pictures), "--output", str(new)]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said == {"pictures": 4, "from": ["shots/in"], "convolutions": 42}  # no path of this machine
    (before, old), (after, spec) = load_checkpoint(model), load_checkpoint(new)
    assert spec.provenance["int8"] == {"pictures": 4, "from": ["shots/in"]}
    assert (old.ranges, len(spec.ranges)) == ({}, 42)
    state = after.state_dict()
    assert all(torch.equal(tensor, state[name]) for name, tensor in before.state_dict().items())
    relu6 = [ranges.gives for name, ranges in spec.ranges.items() if name.endswith("conv.1.0")]
    assert relu6
    assert all(gives is not None and gives[0] == 0 and 0 < gives[1] <= 6 for gives in relu6)


def test_fewer_pictures_where_fewer_are_asked_for(
    model: Path, pictures: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    to = ["--output", str(tmp_path / "new.safetensors"), "--count", "1"]
    assert run_job(app, [str(model), "--input", str(pictures / "2.jpg"), str(pictures / "a.tar"), *to]) == 0
    assert json.loads(capsys.readouterr().out)["pictures"] == 1


@pytest.mark.parametrize(
    ("change", "why"),
    [
        (lambda given: [*given[:-1], "nowhere/new.safetensors"], "--output nowhere"),
        (lambda given: [*given[:-1], given[2]], "is a folder"),
        (lambda given: [*given[:-1], given[0]], "toy.safetensors: is there already. Give another name, or --overwrite"),
        (lambda given: [*given, "--count", "0"], "--count 0"),
        (lambda given: ["no-such-model", *given[1:]], "no such file"),
        (lambda given: ["memory://nowhere/model.safetensors", *given[1:]], "cannot be read"),
        (lambda given: [given[0], "--input", f"{given[2]}/0.jpg", *given[3:]], "none of the pictures"),
        (lambda given: [given[0], "--input", f"{given[2]}/nothing", *given[3:]], "nothing"),
    ],
    ids=["output", "a folder", "there already", "count", "model", "model's url", "no good picture", "no input"],
)
def test_what_cannot_be_is_refused_by_name(
    change: Callable[[list[str]], list[str]],
    why: str,
    model: Path,
    pictures: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    given, before = [str(model), "--input", str(pictures), "--output", str(tmp_path / "new.safetensors")], model.stat()
    assert run_job(app, change(given)) == 2
    assert why in " ".join(capsys.readouterr().err.split())
    assert model.stat().st_mtime_ns == before.st_mtime_ns
    assert not (tmp_path / "new.safetensors").exists()


def test_a_model_may_take_its_own_place_where_that_is_asked_for(model: Path, pictures: Path) -> None:
    given = [str(model), "--input", str(pictures / "2.jpg"), "--output", str(model), "--overwrite"]
    assert run_job(app, given) == 0
    assert len(load_checkpoint(model)[1].ranges) == 42
    assert not [path for path in model.parent.iterdir() if path.name.endswith(".tmp")]
