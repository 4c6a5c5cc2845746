"""The network that a training begins with: another checkpoint of ours, ImageNet's weights in its trunk, or noise."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file
from torch import Tensor

from tinyface_core.errors import CheckpointError
from tinyface_core.model.checkpoint import load_checkpoint
from tinyface_core.model.network import HRNetwork
from tinyface_core.model.spec import ModelSpec, bundled_names, is_checkpoint, read_spec
from tinyface_core.model.trunks import load_imagenet
from tinyface_core.train.loss import start_heads
from tinyface_core.train.presets import TrainSettings


def starting_network(settings: TrainSettings, path: Path | None) -> HRNetwork:
    """The network to train.

    Args:
        path: a checkpoint of ours (all weights; its network must be that of the settings, but for the templates), or a
            torchvision state dict in .safetensors or .pth form (the trunk; heads begin at the loss's prior). None:
            noise, of the settings' seed.
    Raises:
        CheckpointError: a file that does not fit, or is neither.
    """
    if path is not None and is_checkpoint(path):
        network, spec = load_checkpoint(path)
        wanted = settings.spec
        if replace(spec.network, outputs=0) != replace(wanted.network, outputs=0):
            raise CheckpointError(
                f"{path}: {spec.name} is another network than {wanted.name} of this preset (trunk or normalisation): "
                "start from a checkpoint that the same preset made, or from ImageNet weights."
            )
        return network if spec.templates == wanted.templates else _other_templates(network, spec, wanted)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # all processes begin alike
        network = HRNetwork(settings.spec.network)
    if path is not None:
        load_imagenet(network.trunk, read_state_dict(path))
    start_heads(network, settings.loss.prior)
    return network


def with_defaults_of(settings: TrainSettings, path: Path | None) -> TrainSettings:
    """What a checkpoint of ours says of detection stays as it is when it is trained further with its own templates.

    Scores, zooms, limits of levels, NMS and vote were chosen for it on validation; an advised score is chosen anew.
    """
    if path is None or not is_checkpoint(path):
        return settings
    spec = read_spec(path)
    if spec.templates != settings.spec.templates:
        return settings
    return replace(settings, spec=replace(settings.spec, decoding=spec.decoding, defaults=spec.defaults))


def _other_templates(network: HRNetwork, had: ModelSpec, wanted: ModelSpec) -> HRNetwork:
    """The same trunk; each output's head begins as that of the output whose template has the nearest shape."""
    other = HRNetwork(wanted.network)
    other.trunk.load_state_dict(network.trunk.state_dict())
    shape_T2, wanted_T2 = (_shapes(spec) for spec in (had, wanted))
    nearest_T = torch.cdist(wanted_T2, shape_T2).argmin(dim=1)
    channels = torch.cat([nearest_T + part * len(shape_T2) for part in range(5)])  # score, tx, ty, tw, th
    for stride, head in other.heads.items():
        state = network.heads[stride].state_dict()
        head.load_state_dict({name: tensor[channels] for name, tensor in state.items()})
    return other


def _shapes(spec: ModelSpec) -> Tensor:
    """(T, 2): log width and height of each output's template."""
    templates = [spec.templates.templates[i] for i in spec.templates.outputs]
    return torch.tensor([(template.width, template.height) for template in templates]).log()


def read_state_dict(path: Path) -> dict[str, Any]:
    """A torchvision state dict, from .safetensors or .pth. Raises: CheckpointError when it is neither."""
    if not path.is_file():
        raise CheckpointError(f"{path}: no such file. Known model names: {', '.join(bundled_names())}.")
    try:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    except Exception as error:  # each library has errors of its own for a bad file
        raise CheckpointError(f"{path}: not a state dict in .safetensors or .pth form ({error}).") from error
