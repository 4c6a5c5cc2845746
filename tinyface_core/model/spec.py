"""What a model is, without its weights: the JSON in a checkpoint's metadata. Knows nothing of torch.

Torch takes a second and more to import, and 120 MB; who only asks for a name, templates or defaults needs none of it.
A file that does not fit is refused with the reason. The weights: checkpoint.py.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from functools import cache
from pathlib import Path
from typing import Any, Literal

import pydantic
from safetensors import SafetensorError, safe_open

from tinyface_core.errors import CheckpointError
from tinyface_core.model.advice import Advice
from tinyface_core.templates import TemplateSet

FORMAT_VERSION = 1
BUNDLED = Path(__file__).parent.parent / "weights"
WIDER_MEAN = (119.30, 110.55, 101.84)
TrunkName = Literal["resnet50", "resnet101", "vgg16", "mobilenet_v2"]


@dataclass(frozen=True)
class TrunkConfig:
    """Which trunk, in which form.

    stride_in_1x1: ResNet's first 1x1 of a block carries the stride (MSRA/Caffe form); else its 3x3 (torchvision).
    bn_eps: epsilon of the ResNet's or MobileNet's batch-norm. pool_after: the ResNet's max pooling pads one pixel
    behind only, in ceil mode (MatConvNet form); else one on each side.
    """

    name: TrunkName = "resnet50"
    stride_in_1x1: bool = False
    bn_eps: float = 1e-5
    pool_after: bool = False


@dataclass(frozen=True)
class NetworkConfig:
    """mean, std: of RGB 0..255, taken off and divided. heads: strides of the features that have one.

    outputs: templates. enlargement: "aligned" puts a coarse score exactly where its cell looks; "transposed" is the
    fixed 4-tap transposed convolution of imported checkpoints, `crop` of it (before, after) cut off.
    """

    trunk: TrunkConfig = TrunkConfig()
    heads: tuple[int, ...] = (8, 16)
    outputs: int = 25
    mean: tuple[float, float, float] = WIDER_MEAN
    std: tuple[float, float, float] = (1.0, 1.0, 1.0)
    enlargement: Literal["aligned", "transposed"] = "aligned"
    crop: tuple[int, int] = (1, 1)


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


Range = tuple[float, float]  # lowest and highest value
NO_RANGES = "{} holds no ranges for int8. Add them by jobs/calibrate.py, or use --precision fp32."


@dataclass(frozen=True)
class Ranges:
    """Of what a convolution takes, gives, and adds (its shortcut): int8 codes maps by them. Heads give floats."""

    takes: Range
    gives: Range | None = None
    adds: Range | None = None


@dataclass(frozen=True)
class ModelSpec:
    """Everything about a model but its weights; frozen, JSON in the checkpoint's metadata.

    ellipses: whether the file holds a regressor of ellipses, the tensors ellipse.weight (5, C) and ellipse.bias (5,);
    C: the channels of all strides that have a head, finest first (1,536 of ResNet's strides 8 and 16).
    ranges: of each convolution by its name in the network, heads too; empty: the model cannot run in int8.
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
    ranges: dict[str, Ranges] = field(default_factory=dict)
    provenance: dict[str, Any] = field(default_factory=dict)


spec_json = pydantic.TypeAdapter(ModelSpec)


def is_checkpoint(path: Path) -> bool:
    """Whether the file says that it is one of ours; False for what cannot be read."""
    try:
        with safe_open(path, framework="np") as file:
            return "tinyface" in (file.metadata() or {})
    except (SafetensorError, OSError):
        return False


def read_spec(path: Path) -> ModelSpec:
    """The spec alone, without reading weights. Raises CheckpointError as load_checkpoint does."""
    try:
        with safe_open(path, framework="np") as file:
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
        spec = spec_json.validate_json(metadata["tinyface"])
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
