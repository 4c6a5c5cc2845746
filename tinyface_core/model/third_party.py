"""Checkpoints of other programs -> our network and spec: the PyTorch port's .pth, ImageNet weights, and (by
matconvnet.py) the authors' .mat.

An imported detector keeps its own geometry, which travels in the spec: where batch-norm's epsilon, strides and
padding lie (TrunkConfig), the 4-tap enlargement and its crop (NetworkConfig), and how a cell becomes a box
(DecodingRule). ImageNet weights have no heads: theirs are zero, ready to train, in our own geometry.

**Decoding, and half a pixel.** Both programs take WIDER's numbers as they are, x1 = x and x2 = x + w - 1, multiply
them by the zoom, and put cell i at 8 i - 1 among them (VGG16: 8 i + 4.5). The tables say x1 = x too, so such a number
*is* a continuous pixel of ours, and first_centre_px = -1 is the cell's place (it is 1 above the pixel-centred centre
that the paddings give, 8 i - 2, because the authors count from 1). Two differences remain and are not mended here,
because they belong to the weights. (1) Their faces are centred on (x1 + x2) / 2 = x + (w - 1) / 2, ours on x + w / 2:
boxes lie half a pixel *of the picture*, at any zoom, up and to the left. (2) Their width is zoom (w - 1) + 1 in the
level, so w - 1 + 1 / zoom in the picture. Both programs divide by the zoom, whatever size the level's image got by
rounding: `back="zoom"`. That is exact where zoom x size is whole; elsewhere the last pixel of a level lies up to half
a level's pixel off, as in the port and in the authors' benchmark (their demo resizes by exactly the zoom).
Layouts: the names and shapes below; tests/unit/test_third_party.py writes files of them.
"""

from __future__ import annotations

import pickle
import warnings
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import torch
from safetensors import SafetensorError, safe_open
from torch import Tensor

from tinyface_core.errors import CheckpointError
from tinyface_core.model.inventory import Inventory
from tinyface_core.model.matconvnet import read_matconvnet
from tinyface_core.model.network import HRNetwork, enlarging_kernel
from tinyface_core.model.spec import DecodingRule, ModelSpec, NetworkConfig, TrunkConfig, TrunkName, file_hash

IMAGENET_MEAN = (0.485 * 255, 0.456 * 255, 0.406 * 255)
IMAGENET_STD = (0.229 * 255, 0.224 * 255, 0.225 * 255)

FormName = Literal["torchvision", "keras"]


@dataclass(frozen=True)
class Form:
    """What the names of an ImageNet checkpoint do not tell: where a ResNet's block has its stride, and the input."""

    stride_in_1x1: bool
    bn_eps: float
    mean: tuple[float, float, float]
    std: tuple[float, float, float]


FORMS: dict[FormName, Form] = {
    "torchvision": Form(False, 1e-5, IMAGENET_MEAN, IMAGENET_STD),
    "keras": Form(True, 1e-3, (123.68, 116.779, 103.939), (1.0, 1.0, 1.0)),
}

# A tensor that only this trunk has, the deepest first.
_TELLING: tuple[tuple[str, TrunkName], ...] = (
    ("layer3.22.conv1.weight", "resnet101"),
    ("layer3.5.conv1.weight", "resnet50"),
    ("features.28.weight", "vgg16"),
    ("features.14.conv.0.0.weight", "mobilenet_v2"),
)
# Beginnings of names that lie behind our deepest feature.
_BEHIND = ("fc.", "layer4.", "classifier.", "features.14.conv.", *(f"features.{i}." for i in (15, 16, 17, 18)))


def convert(
    source: Path, *, trunk: TrunkName | None = None, name: str | None = None, form: FormName = "torchvision"
) -> tuple[HRNetwork, ModelSpec]:
    """The network, in fp32 and eval mode, and its spec, from a foreign file; what it is, its first bytes tell.

    Args:
        source: .mat of MatConvNet (v5 to v7), .pth of PyTorch, or safetensors with torchvision's names.
        trunk: needed only where the names do not tell. name: of the model, else the file's stem.
        form: for ImageNet weights under PyTorch names; the other files say it themselves.
    Raises:
        CheckpointError: not such a file, or tensors that are missing, of a wrong shape, or without a place: names them.
    """
    kind = _kind(source)
    if kind == "mat":
        network, spec = read_matconvnet(source, trunk)
    else:
        state = _read_safetensors(source) if kind == "safetensors" else _read_pth(source)
        network, spec = _from_state(source, state, trunk, FORMS[form])
    provenance = {"file": source.name, "sha256": file_hash(source), **spec.provenance}
    return network.eval(), replace(spec, name=name or source.stem, provenance=provenance)


def _kind(path: Path) -> Literal["mat", "pth", "safetensors"]:
    try:
        with path.open("rb") as file:
            head = file.read(520)
    except OSError as error:
        raise CheckpointError(f"{path}: cannot be read ({error.strerror}).") from error
    if head.startswith(b"MATLAB 7.3") or b"\x89HDF\r\n\x1a\n" in (head[:8], head[512:520]):
        raise CheckpointError(
            f"{path}: a MATLAB v7.3 file (HDF5), which is not read. In MATLAB: load it, then save(..., '-v7')."
        )
    if head.startswith(b"MATLAB 5.0"):
        return "mat"
    if head.startswith((b"PK\x03\x04", b"\x80")):
        return "pth"
    if head[8:9] == b"{":
        return "safetensors"
    what = "an empty file" if not head else "neither a MatConvNet .mat, a PyTorch .pth nor a safetensors file"
    raise CheckpointError(f"{path}: {what}. If it was cut on the way, fetch it again.")


def _read_safetensors(path: Path) -> dict[str, Tensor]:
    try:
        with safe_open(path, framework="pt") as file:
            if "tinyface" in (file.metadata() or {}):
                raise CheckpointError(f"{path}: is a tinyface checkpoint already; give it to --model as it is.")
            return {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except (SafetensorError, OSError) as error:
        raise CheckpointError(f"{path}: a broken safetensors file ({error}).") from error


def _read_pth(path: Path) -> dict[str, Tensor]:
    """The state dict of a .pth: that under "model", or the file's own. Only weights are ever unpickled."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # of old pickle protocols
            content: Any = torch.load(path, map_location="cpu", weights_only=True)
    except pickle.UnpicklingError as error:
        raise CheckpointError(
            f"{path}: holds more than weights, or is no PyTorch file; nothing in it was run. Save its state dict "
            "alone, with torch.save(model.state_dict(), ...)."
        ) from error
    except Exception as error:  # a torn archive shows as one of many types, which torch does not list
        raise CheckpointError(f"{path}: a broken PyTorch file ({str(error).splitlines()[0]}).") from error
    state = content.get("model", content) if isinstance(content, Mapping) else content
    if not isinstance(state, Mapping) or not state:
        what = "nothing" if isinstance(state, Mapping) else f"a {type(state).__name__}, not a dict of tensors"
        raise CheckpointError(f"{path}: holds {what}; needed: a state dict.")
    strange = [str(name) for name, value in state.items() if not isinstance(value, Tensor)]
    if strange:
        raise CheckpointError(
            f"{path}: {strange[0]} is not a tensor ({len(strange)} such entries); needed: a state dict."
        )
    return dict(state)


def _from_state(
    path: Path, state: Mapping[str, Tensor], trunk: TrunkName | None, form: Form
) -> tuple[HRNetwork, ModelSpec]:
    """Of torchvision's names, with or without `model.` before them; with the port's heads, or with none."""
    prefix = "model." if any(name.startswith("model.") for name in state) else ""
    trunk = trunk or next((known for telling, known in _TELLING if prefix + telling in state), None)
    if trunk is None:
        known = ", ".join(telling for telling, _ in _TELLING)
        raise CheckpointError(f"{path}: of no trunk that is known: it has none of {known}. Name it with --trunk.")
    inventory = Inventory(path, state)
    heads = any(name.startswith("score_") for name in state)
    if heads:
        form = FORMS["torchvision"]
    config = NetworkConfig(TrunkConfig(trunk, form.stride_in_1x1, form.bn_eps), mean=form.mean, std=form.std)
    if heads:
        config = replace(config, enlargement="transposed", crop=(1, 1))
    network = HRNetwork(config)
    for name, own in network.trunk.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            own.copy_(inventory.take(prefix + name, tuple(own.shape)))
    if heads:
        _take_heads(inventory, network)
    inventory.leave_out(lambda name: name.endswith("num_batches_tracked"))
    left_out = inventory.leave_out(lambda name: name.removeprefix(prefix).startswith(_BEHIND))
    inventory.finish()
    what = "tiny-faces-pytorch" if heads else "ImageNet weights, heads zero"
    decoding = DecodingRule(first_centre_px=-1.0, back="zoom") if heads else DecodingRule()
    return network, ModelSpec(
        "", network=config, decoding=decoding, provenance={"format": what, "left_out": list(left_out)}
    )


def _take_heads(inventory: Inventory, network: HRNetwork) -> None:
    for stride, name in (("8", "score_res3"), ("16", "score_res4")):
        for kind, own in network.heads[stride].state_dict().items():
            own.copy_(inventory.take(f"{name}.{kind}", tuple(own.shape)))
    channels = 5 * network.config.outputs
    fixed = torch.eye(channels)[:, :, None, None] * enlarging_kernel()
    inventory.take_fixed("score4_upsample.weight", fixed)
