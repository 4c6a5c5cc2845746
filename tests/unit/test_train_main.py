"""The command: a folder of pictures in, a checkpoint that loads out; the same command again goes on."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from tinyface_core.errors import CheckpointError, SettingsError
from tinyface_core.model.checkpoint import load_checkpoint
from tinyface_core.model.network import HRNetwork
from tinyface_core.train.__main__ import main
from tinyface_core.train.presets import light


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """One picture of 37 x 53 with a box."""
    pixels = np.random.default_rng(0).integers(0, 256, (37, 53, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(tmp_path / "a.png")
    line = {"image": "a.png", "width": 53, "height": 37, "boxes": [[5, 6, 20, 25]], "attrs": [[0] * 6]}
    (tmp_path / "annotations.jsonl").write_text(json.dumps(line))
    return tmp_path


def test_trains_saves_and_goes_on(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyface_core.train.loop.REPORT_STEPS", 1)
    torch.manual_seed(0)
    trunk = HRNetwork(light().spec.network).trunk.state_dict()
    torch.save(trunk, folder / "imagenet.pth")
    out, cache = folder / "run", folder / "cache"
    main(
        preset_name="light", data=[folder], out=out, crops=8, imagenet=folder / "imagenet.pth", cache=cache, name="mine"
    )
    network, spec = load_checkpoint(out / "model.safetensors")
    assert (spec.name, spec.provenance["crops"]) == ("mine", 8)
    frozen = "features.0.0.weight"
    assert torch.equal(network.trunk.state_dict()[frozen].half(), trunk[frozen].half())
    main(preset_name="light", data=[folder], out=out, crops=16, cache=cache)
    _, spec = load_checkpoint(out / "model.safetensors")
    assert spec.provenance["crops"] == 16
    reports = [json.loads(line) for line in (out / "metrics.jsonl").read_text().splitlines()]
    assert [report["crops"] for report in reports] == [8, 16]


def test_what_cannot_work_is_refused_first(folder: Path) -> None:
    out = folder / "run"
    (folder / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(SettingsError, match="light, accurate"):
        main(preset_name="huge", data=[folder], out=out, crops=8)
    with pytest.raises(SettingsError, match="budget"):
        main(preset_name="light", data=[folder], out=out)
    with pytest.raises(CheckpointError, match=r"bad\.pth"):
        main(preset_name="light", data=[folder], out=out, crops=8, imagenet=folder / "bad.pth")
    assert not out.exists()
