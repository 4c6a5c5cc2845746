"""Presets of training: functions that return one frozen value with everything in it but places and hours.

`light` and `accurate` are the `fast` recipe: what an hour of one CPU core is spent on best, as measured when this
was written (docs/decisions.md). Which ImageNet file a preset's trunk starts from is the caller's to give.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from tinyface_core.errors import SettingsError
from tinyface_core.model.checkpoint import Defaults, ModelSpec
from tinyface_core.model.network import NetworkConfig
from tinyface_core.model.trunks import TrunkConfig
from tinyface_core.templates import TemplateSet
from tinyface_core.train.crops import CropSettings
from tinyface_core.train.loss import LossSettings
from tinyface_core.train.targets import TargetSettings

A_AND_B = TemplateSet(outputs=(*range(4, 12), *range(18, 25)))


@dataclass(frozen=True)
class OptimiserSettings:
    """AdamW. Rates are peaks: a linear warm-up over this share of the run, then a cosine down to `last` of them."""

    head_rate: float = 1e-3
    trunk_rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.99)
    weight_decay: float = 1e-4
    warm_up: float = 0.02
    last: float = 0.02
    max_gradient_norm: float = 10.0
    average_decay: float = 0.998  # of the moving average of the weights, a step: the average is what is saved


@dataclass(frozen=True)
class TrainSettings:
    """spec: the model that comes out. batch: crops a step and process. frozen_stride: layers up to it stay as given.

    bf16: features and their gradients in bfloat16; weights, heads' sum and loss stay in fp32.
    """

    spec: ModelSpec
    crops: CropSettings = field(default_factory=CropSettings)
    targets: TargetSettings = field(default_factory=TargetSettings)
    loss: LossSettings = field(default_factory=LossSettings)
    optimiser: OptimiserSettings = field(default_factory=OptimiserSettings)
    batch: int = 8
    frozen_stride: int = 4
    bf16: bool = True
    seed: int = 0


def light() -> TrainSettings:
    """python -m tinyface_core.train --preset light --hours 0.4: MobileNetV2, for CPUs; about 25,000 crops."""
    network = NetworkConfig(
        trunk=TrunkConfig("mobilenet_v2"),
        outputs=len(A_AND_B.outputs),
        mean=(123.675, 116.28, 103.53),
        std=(58.395, 57.12, 57.375),
    )
    defaults = Defaults(nms_iou=0.4)
    return TrainSettings(ModelSpec("hr-mobilenetv2", network=network, templates=A_AND_B, defaults=defaults))


def accurate() -> TrainSettings:
    """python -m tinyface_core.train --preset accurate --hours 1.2: ResNet-50 in the MSRA form; about 40,000 crops."""
    network = NetworkConfig(
        trunk=TrunkConfig("resnet50", stride_in_1x1=True, bn_eps=1e-3),
        outputs=len(A_AND_B.outputs),
        mean=(123.68, 116.779, 103.939),
    )
    defaults = Defaults(nms_iou=0.4)
    return TrainSettings(ModelSpec("hr-resnet50", network=network, templates=A_AND_B, defaults=defaults))


PRESETS: dict[str, Callable[[], TrainSettings]] = {"light": light, "accurate": accurate}


def preset(name: str) -> TrainSettings:
    """The preset of this name. Raises SettingsError when there is none."""
    if name not in PRESETS:
        raise SettingsError(f"preset {name!r} is not known; known are {', '.join(PRESETS)}.")
    return PRESETS[name]()
