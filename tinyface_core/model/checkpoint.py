"""Checkpoints: one safetensors file holds the weights, and in its metadata all that is needed to use them.

The metadata key "tinyface" is the JSON of a `ModelSpec`. No pickle is involved. A file that does not fit is refused
with the tensor's name and the reason. Other people's formats: third_party.py.
"""

from __future__ import annotations

import os
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save
from torch import Tensor

from tinyface_core.errors import CheckpointError
from tinyface_core.model.network import HRNetwork
from tinyface_core.model.spec import ModelSpec, read_spec, spec_json


def save_checkpoint(path: Path, network: HRNetwork, spec: ModelSpec, *, half: bool = True) -> None:
    """Writes weights and spec as one safetensors file, whole or not at all.

    A regressor of ellipses that the spec does not name is left out: training has moved the features that it was for.
    half: filters in fp16; all else stays fp32: variances of ImageNet's ResNet-50 pass fp16's 65,504.
    """
    state = {
        name: tensor.detach().to("cpu", torch.float16 if half and tensor.ndim == 4 else torch.float32).contiguous()
        for name, tensor in _as_stored(network).items()
        if spec.ellipses or not name.startswith("ellipse.")
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    whole = path.with_name(f".{path.name}.{os.getpid()}.tmp")  # `network` may be the file's own memory
    try:
        whole.write_bytes(save(state, {"tinyface": spec_json.dump_json(spec).decode()}))
        whole.replace(path)
    finally:
        whole.unlink(missing_ok=True)


def load_checkpoint(path: Path) -> tuple[HRNetwork, ModelSpec]:
    """The network with its weights in fp32, in eval mode, on the CPU; and its spec.

    Raises:
        CheckpointError: not such a file, made by a newer version, or a tensor that does not fit; names it.
    """
    spec = read_spec(path)
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name).to(torch.float32) for name in file.keys()}  # noqa: SIM118
    network = HRNetwork(spec.network, ellipses=spec.ellipses)
    _check_fit(path, _as_stored(network), state)
    network.load_state_dict({name: t for name, t in state.items() if not name.startswith("ellipse.")}, strict=False)
    if spec.ellipses:
        network.regress(state["ellipse.weight"], state["ellipse.bias"])
    return network.eval(), spec


def _as_stored(network: HRNetwork) -> dict[str, Tensor]:
    """Weights by their names in the file: the regressor is one matrix there, ellipse.weight (5, C)."""
    state = {name: tensor for name, tensor in network.state_dict().items() if not name.endswith("num_batches_tracked")}
    if network.ellipse is not None:
        parts = [(state.pop(f"ellipse.{s}.weight"), state.pop(f"ellipse.{s}.bias")) for s in network.strides]
        state["ellipse.weight"] = torch.cat([weight[..., 0, 0] for weight, _ in parts], dim=1)
        state["ellipse.bias"] = parts[0][1]
    return state


def is_untrained(network: HRNetwork) -> bool:
    """Whether all heads are zero, as they are right after a conversion of ImageNet weights."""
    return not any(bool(head.get_parameter("weight").any()) for head in network.heads.values())


def refuse_unusable(path: Path, named: str) -> None:
    """Raises: CheckpointError: the weights do not fit the network, or would find nothing. named: for the message."""
    network, _ = load_checkpoint(path)
    if is_untrained(network):
        raise CheckpointError(
            f"{named}: its heads are zero, it would find nothing: it has ImageNet weights and was not trained for "
            "faces. Train it: jobs/train.py --start-from."
        )


def is_half(network: HRNetwork) -> bool:
    """Whether all filters are what fp16 can hold: then saving by half changes nothing."""
    return all(torch.equal(p, p.half().float()) for p in network.parameters() if p.ndim == 4)


def _check_fit(path: Path, needed: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    for name in needed:
        if name not in found:
            raise CheckpointError(f"{path}: {name} is missing; the file says it holds this network, so it is damaged.")
        have, want = tuple(found[name].shape), tuple(needed[name].shape)
        if have != want:
            raise CheckpointError(f"{path}: {name} is {have}, the network needs {want}: the file was made for another.")
        if not bool(torch.isfinite(found[name]).all()):
            raise CheckpointError(f"{path}: {name} holds values that are not finite: the training diverged.")
    unused = sorted(set(found) - set(needed))
    if unused:
        raise CheckpointError(f"{path}: {unused[0]} has no place in the network ({len(unused)} such tensors).")
