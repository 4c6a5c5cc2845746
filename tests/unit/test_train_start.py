"""What a training begins with, and what is refused before it begins."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from tinyface_core.errors import CheckpointError
from tinyface_core.model.checkpoint import save_checkpoint
from tinyface_core.model.network import HRNetwork
from tinyface_core.model.spec import Defaults, LevelHeights, find_bundled
from tinyface_core.templates import PUBLISHED, Template, TemplateSet
from tinyface_core.train.presets import preset
from tinyface_core.train.start import starting_network, with_defaults_of

FAST = preset("fast", "hr-mobilenetv2")


def test_imagenet_weights_go_into_the_trunk_and_the_heads_say_the_prior(tmp_path: Path) -> None:
    torch.manual_seed(0)
    trunk = HRNetwork(FAST.spec.network).trunk.state_dict()
    torch.save(trunk, tmp_path / "imagenet.pth")
    network = starting_network(FAST, tmp_path / "imagenet.pth")
    assert all(torch.equal(tensor, trunk[name]) for name, tensor in network.trunk.state_dict().items())
    with torch.no_grad():
        scores = network.eval()(torch.randn(1, 3, 37, 53)).logits_NTHW.sigmoid()
    torch.testing.assert_close(scores, torch.full_like(scores, 0.01))


def test_without_a_file_all_processes_begin_with_the_same_noise() -> None:
    one, other = (starting_network(FAST, None).state_dict() for _ in range(2))
    assert all(torch.equal(tensor, other[name]) for name, tensor in one.items())


def test_a_checkpoint_of_the_same_preset_gives_all_its_weights() -> None:
    bundled = find_bundled("hr-mobilenetv2")
    assert bundled is not None
    assert starting_network(FAST, bundled).heads["8"].weight.abs().max() > 0  # type: ignore[union-attr, operator]


def test_what_was_chosen_for_a_checkpoint_stays_while_its_templates_do(tmp_path: Path) -> None:
    chosen = Defaults(score=0.61, nms_iou=0.35, zooms=(0.5, 1.0), level_heights=(LevelHeights(2.0, 0.0, 36.0),))
    spec = replace(FAST.spec, defaults=chosen)
    save_checkpoint(tmp_path / "start.safetensors", HRNetwork(spec.network), spec)
    assert with_defaults_of(FAST, tmp_path / "start.safetensors") == replace(FAST, spec=spec)
    others = preset("fast", "hr-mobilenetv2", TemplateSet())
    assert with_defaults_of(others, tmp_path / "start.safetensors") == others
    assert with_defaults_of(FAST, None) == FAST
    torch.save(HRNetwork(FAST.spec.network).trunk.state_dict(), tmp_path / "imagenet.pth")
    assert with_defaults_of(FAST, tmp_path / "imagenet.pth") == FAST


def test_a_template_that_a_checkpoint_lacks_begins_as_its_nearest() -> None:
    bundled = find_bundled("hr-mobilenetv2")
    assert bundled is not None
    smaller = Template(width=18.0, height=20.0, resolution=2)  # the nearest is the last of the published
    templates = TemplateSet(templates=(*PUBLISHED, smaller), outputs=tuple(range(26)), b=(*range(18, 26),))
    wanted = preset("fast", "hr-mobilenetv2", templates)
    published = preset("fast", "hr-mobilenetv2", TemplateSet())
    old, new = starting_network(published, bundled).eval(), starting_network(wanted, bundled).eval()
    with torch.no_grad():
        image_N3HW = torch.randn(1, 3, 64, 96)
        had, has = old(image_N3HW), new(image_N3HW)
    torch.testing.assert_close(has.logits_NTHW[:, :-1], had.logits_NTHW)
    torch.testing.assert_close(has.logits_NTHW[:, -1], had.logits_NTHW[:, -1])
    torch.testing.assert_close(has.offsets_NT4HW[:, :-1], had.offsets_NT4HW)
    torch.testing.assert_close(has.offsets_NT4HW[:, -1], had.offsets_NT4HW[:, -1])


def test_what_does_not_fit_is_refused_by_name(tmp_path: Path) -> None:
    (tmp_path / "bad.pth").write_bytes(b"no weights")
    with pytest.raises(CheckpointError, match=r"bad\.pth: not a state dict"):
        starting_network(FAST, tmp_path / "bad.pth")
    other = preset("fast", "hr-vgg16")
    save_checkpoint(tmp_path / "other.safetensors", HRNetwork(other.spec.network), other.spec)
    with pytest.raises(CheckpointError, match=r"other\.safetensors: .*another network"):
        starting_network(FAST, tmp_path / "other.safetensors")
    with pytest.raises(CheckpointError, match=r"none\.pth: no such file\. Known model names: .*hr-mobilenetv2"):
        starting_network(FAST, tmp_path / "none.pth")
