"""Presets of training: functions that return one frozen value with everything in it but places and hours.

`paper` is the paper's recipe value by value (METHOD, section 3); `fast` what was measured to give more for an hour of
CPU (docs/decisions.md). Which ImageNet file the trunk starts from is the caller's to give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Literal

from tinyface_core.errors import SettingsError
from tinyface_core.model.spec import Defaults, ModelSpec, NetworkConfig, TrunkConfig
from tinyface_core.templates import WITH_TINY, TemplateSet
from tinyface_core.train.crops import CropSettings
from tinyface_core.train.loss import LossSettings
from tinyface_core.train.optimise import OptimiserSettings
from tinyface_core.train.targets import TargetSettings

IMAGENET_MEAN, IMAGENET_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)
# Name -> network with all 25 templates; mean and std as the ImageNet weights in use were trained with.
MODELS: dict[str, NetworkConfig] = {
    "hr-resnet50": NetworkConfig(
        TrunkConfig("resnet50", stride_in_1x1=True, bn_eps=1e-3), mean=(123.68, 116.779, 103.939)
    ),
    "hr-mobilenetv2": NetworkConfig(TrunkConfig("mobilenet_v2"), mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "hr-resnet101": NetworkConfig(TrunkConfig("resnet101"), mean=IMAGENET_MEAN, std=IMAGENET_STD),
    "hr-vgg16": NetworkConfig(TrunkConfig("vgg16"), mean=IMAGENET_MEAN, std=IMAGENET_STD),
}


@dataclass(frozen=True)
class TrainSettings:
    """spec: the model that comes out. batch: crops a step, of all processes. frozen_stride: layers up to it stay.

    precision: of features and their gradients; auto: bf16 where the machine has units for it (without them it is four
    times slower than fp32). Weights, heads' sum and loss are in fp32 always. epoch_crops: how often
    the model is validated; None: as many crops as there are pictures.
    """

    spec: ModelSpec
    crops: CropSettings = field(default_factory=CropSettings)
    targets: TargetSettings = field(default_factory=TargetSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    batch: int = 16
    frozen_stride: int = 4
    precision: Literal["auto", "fp32", "bf16"] = "auto"
    epoch_crops: int | None = 8000
    seed: int = 0


def fast(spec: ModelSpec) -> TrainSettings:
    """jobs/train.py --preset fast --hours 8: face-centred crops, focal loss, AdamW, the A and B templates only."""
    used = tuple(sorted({*spec.templates.a, *spec.templates.b}))
    templates = replace(spec.templates, outputs=used)
    spec = replace(spec, network=replace(spec.network, outputs=len(used)), templates=templates)
    return TrainSettings(spec, CropSettings(crowding=0.4), loss=LossSettings(boxes="giou", box_weight=4.0))


def paper(spec: ModelSpec) -> TrainSettings:
    """jobs/train.py --preset paper --epochs 50: SGD on the summed loss of mined cells, uniform 500 px crops.

    The size of the colour shift is ours: the paper names none.
    """
    crops = CropSettings(
        side_px=500,
        zooms=(0.5, 1.0, 2.0),
        shares=(1 / 3, 1 / 3, 1 / 3),
        zoom_jitter=0.0,
        face_share=0.0,
        colour=0.0,
        grey=0.0,
        rgb_shift=6.0,
    )
    optimiser = OptimiserSettings(
        kind="sgd",
        head_rate=1e-4,
        head_factors=((8, 0.1), (4, 0.01)),
        trunk_rate=1e-4,
        momentum=0.9,
        weight_decay=5e-4,
        warm_up=0.0,
        last=1.0,
        max_gradient_norm=None,
        average_decay=0.0,
    )
    return TrainSettings(
        spec,
        crops,
        TargetSettings(positive_iou=0.7, ignored_iou=0.3),
        LossSettings(kind="mined", prior=None, beta=1.0),
        optimiser,
        batch=48,
        frozen_stride=0,
        precision="fp32",
        epoch_crops=None,
    )


PRESETS: dict[str, Callable[[ModelSpec], TrainSettings]] = {"fast": fast, "paper": paper}


TEMPLATES: dict[str, TemplateSet] = {"fast": WITH_TINY, "paper": TemplateSet()}  # where no others are asked for


def preset(name: str, model: str = "hr-resnet50", templates: TemplateSet | None = None) -> TrainSettings:
    """The preset of this name for a model of MODELS. Raises SettingsError when there is none."""
    for what, given, known in (("preset", name, PRESETS), ("model", model, MODELS)):
        if given not in known:
            raise SettingsError(f"{what} {given!r} is not known; known are {', '.join(known)}.")
    templates = templates or TEMPLATES[name]
    network = replace(MODELS[model], outputs=len(templates.outputs))
    spec = ModelSpec(model, network=network, templates=templates, defaults=Defaults(nms_iou=0.4, vote_iou=0.6))
    return PRESETS[name](spec)
