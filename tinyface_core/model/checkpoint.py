"""Checkpoints: one safetensors file holds the weights, and in its metadata all that is needed to use them.

The metadata key "tinyface" is the JSON of a `ModelSpec`. No pickle is involved. A file that does not fit is refused
with the tensor's name and the reason. Other people's formats: third_party.py.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pydantic
import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save
from torch import Tensor

from tinyface_core.errors import CheckpointError
from tinyface_core.model.advice import Advice
from tinyface_core.model.network import HRNetwork, NetworkConfig
from tinyface_core.templates import TemplateSet

FORMAT_VERSION = 1
BUNDLED = Path(__file__).parent.parent / "weights"


@dataclass(frozen=True)
class DecodingRule:
    """How a cell becomes a box.

    first_centre_px: centre of cell 0 in the level's image, continuous pixels; None: the network's own grid + 0.5.
    back: boxes return to the picture by the true ratio of sizes, or, as imported checkpoints do, by the zoom.
    """

    first_centre_px: float | None = None
    back: Literal["size_ratio", "zoom"] = "size_ratio"


@dataclass(frozen=True)
class LevelHeights:
    """Heights of boxes, px of the picture, that a level may give where others run beside it: from, up to below."""

    zoom: float
    least: float = 0.0
    below: float | None = None


@dataclass(frozen=True)
class Defaults:
    """What a run uses when nothing else is asked for. score: one false alarm a picture on the validation set.

    level_heights: of levels that are good at some heights only, chosen on validation (jobs/study.py levels).
    vote_iou: a face's box is the mean of all that overlap it so much (boxes.vote); None: the best one as it is.
    """

    score: float = 0.5
    nms_iou: float = 0.3
    zooms: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0)
    level_heights: tuple[LevelHeights, ...] = ()
    vote_iou: float | None = None


@dataclass(frozen=True)
class ModelSpec:
    """Everything about a model but its weights; frozen, JSON in the checkpoint's metadata.

    ellipses: whether the file holds a regressor of ellipses, the tensors ellipse.weight (5, C) and ellipse.bias (5,);
    C: the channels of all strides that have a head, finest first (1,536 of ResNet's strides 8 and 16).
    """

    name: str
    version: str = "0"
    format_version: int = FORMAT_VERSION
    network: NetworkConfig = NetworkConfig()
    templates: TemplateSet = TemplateSet()
    decoding: DecodingRule = DecodingRule()
    defaults: Defaults = Defaults()
    advice: Advice | None = None
    ellipses: bool = False
    provenance: dict[str, Any] = field(default_factory=dict)


_spec_json = pydantic.TypeAdapter(ModelSpec)


def save_checkpoint(path: Path, network: HRNetwork, spec: ModelSpec, *, half: bool = True) -> None:
    """Writes weights and spec as one safetensors file.

    A regressor of ellipses that the spec does not name is left out: training has moved the features that it was for.
    half: filters in fp16; all else stays fp32: variances of ImageNet's ResNet-50 pass fp16's 65,504.
    """
    state = {
        name: tensor.detach().to("cpu", torch.float16 if half and tensor.ndim == 4 else torch.float32).contiguous()
        for name, tensor in network.state_dict().items()
        if not name.endswith("num_batches_tracked") and (spec.ellipses or not name.startswith("ellipse."))
    }
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(save(state, {"tinyface": _spec_json.dump_json(spec).decode()}))


def load_checkpoint(path: Path) -> tuple[HRNetwork, ModelSpec]:
    """The network with its weights in fp32, in eval mode, on the CPU; and its spec.

    Raises:
        CheckpointError: not such a file, made by a newer version, or a tensor that does not fit; names it.
    """
    spec = read_spec(path)
    with safe_open(path, framework="pt") as file:
        state = {name: file.get_tensor(name).to(torch.float32) for name in file.keys()}  # noqa: SIM118
    network = HRNetwork(spec.network, ellipses=spec.ellipses)
    _check_fit(path, network.state_dict(), state)
    network.load_state_dict(state, strict=False)
    return network.eval(), spec


def is_checkpoint(path: Path) -> bool:
    """Whether the file says that it is one of ours; False for what cannot be read."""
    try:
        with safe_open(path, framework="pt") as file:
            return "tinyface" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def is_untrained(network: HRNetwork) -> bool:
    """Whether all heads are zero, as they are right after a conversion of ImageNet weights."""
    return not any(bool(head.get_parameter("weight").any()) for head in network.heads.values())


def is_half(network: HRNetwork) -> bool:
    """Whether all filters are what fp16 can hold: then saving by half changes nothing."""
    return all(torch.equal(p, p.half().float()) for p in network.parameters() if p.ndim == 4)


def read_spec(path: Path) -> ModelSpec:
    """The spec alone, without reading weights. Raises CheckpointError as load_checkpoint does."""
    try:
        with safe_open(path, framework="pt") as file:
            metadata = file.metadata() or {}
    except FileNotFoundError as error:
        raise CheckpointError(f"{path}: no such file. Known model names: {', '.join(bundled_names())}.") from error
    except (SafetensorError, OSError) as error:
        raise CheckpointError(
            f"{path}: a damaged safetensors file, or none ({error}). Fetch it again; another program's weights are "
            "converted by jobs/convert_checkpoint.py."
        ) from error
    if "tinyface" not in metadata:
        raise CheckpointError(
            f"{path}: a safetensors file, but not a tinyface checkpoint: its metadata has no 'tinyface'."
        )
    try:
        spec = _spec_json.validate_json(metadata["tinyface"])
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"])
        raise CheckpointError(f"{path}: its metadata is wrong at {where or 'the top'}: {first['msg']}.") from error
    if spec.format_version > FORMAT_VERSION:
        raise CheckpointError(
            f"{path}: made in format {spec.format_version}, this version reads up to {FORMAT_VERSION}. Update tinyface."
        )
    if len(spec.templates.outputs) != spec.network.outputs:
        raise CheckpointError(
            f"{path}: {spec.network.outputs} outputs a head, but templates are named for {len(spec.templates.outputs)}."
        )
    return spec


def _check_fit(path: Path, needed: dict[str, Tensor], found: dict[str, Tensor]) -> None:
    names = [name for name in needed if not name.endswith("num_batches_tracked")]
    for name in names:
        if name not in found:
            raise CheckpointError(f"{path}: {name} is missing; the file says it holds this network, so it is damaged.")
        have, want = tuple(found[name].shape), tuple(needed[name].shape)
        if have != want:
            raise CheckpointError(f"{path}: {name} is {have}, the network needs {want}: the file was made for another.")
        if not bool(torch.isfinite(found[name]).all()):
            raise CheckpointError(f"{path}: {name} holds values that are not finite: the training diverged.")
    unused = sorted(set(found) - set(names))
    if unused:
        raise CheckpointError(f"{path}: {unused[0]} has no place in the network ({len(unused)} such tensors).")


def bundled_names() -> list[str]:
    """Names of the models that come with the package."""
    return sorted(path.stem for path in BUNDLED.glob("*.safetensors"))


def find_bundled(name: str) -> Path | None:
    """Path of a bundled model; None when there is none of this name."""
    path = BUNDLED / f"{name}.safetensors"
    return path if path.is_file() else None


@cache
def file_hash(path: Path) -> str:
    """Hex sha256 of a file: what names a model in settings and footers."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
