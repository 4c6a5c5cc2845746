"""The network that a training begins with: another checkpoint of ours, ImageNet's weights in its trunk, or noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from safetensors.torch import load_file

from tinyface_core.errors import CheckpointError
from tinyface_core.model.checkpoint import is_checkpoint, load_checkpoint
from tinyface_core.model.network import HRNetwork
from tinyface_core.model.trunks import load_imagenet
from tinyface_core.train.loss import start_heads
from tinyface_core.train.presets import TrainSettings


def starting_network(settings: TrainSettings, path: Path | None) -> HRNetwork:
    """The network to train.

    Args:
        path: a checkpoint of ours (all weights; its network and outputs must be those of the settings), or a
            torchvision state dict in .safetensors or .pth form (the trunk; heads begin at the loss's prior). None:
            noise, of the settings' seed.
    Raises:
        CheckpointError: a file that does not fit, or is neither.
    """
    if path is not None and is_checkpoint(path):
        network, spec = load_checkpoint(path)
        wanted = settings.spec
        if (spec.network, spec.templates) != (wanted.network, wanted.templates):
            raise CheckpointError(
                f"{path}: {spec.name} is another network than {wanted.name} of this preset (trunk, normalisation or "
                "templates): start from a checkpoint that the same preset made, or from ImageNet weights."
            )
        return network
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)  # all processes begin alike
        network = HRNetwork(settings.spec.network)
    if path is not None:
        load_imagenet(network.trunk, read_state_dict(path))
    start_heads(network, settings.loss.prior)
    return network


def read_state_dict(path: Path) -> dict[str, Any]:
    """A torchvision state dict, from .safetensors or .pth. Raises: CheckpointError when it is neither."""
    try:
        return load_file(path) if path.suffix == ".safetensors" else torch.load(path, weights_only=True)
    except Exception as error:  # each library has errors of its own for a bad file
        raise CheckpointError(f"{path}: not a state dict in .safetensors or .pth form ({error}).") from error
