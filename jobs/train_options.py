"""Options of whatever trains, as frozen values: those of jobs/train.py, and what jobs/retrain.py shares with it."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any, Literal

from cyclopts import Group, Parameter

from options import StorageFlags, Texts, many, refuse_lost
from tinyface_core.errors import SettingsError
from tinyface_core.templates import TemplateSet, read_templates
from tinyface_core.train.loop import Budget
from tinyface_core.train.presets import TrainSettings, preset
from tinyface_core.train.validate import CROPS

_WHAT, _HOW, _RUN = Group("What to train", sort_key=1), Group("How long", sort_key=2), Group("How to run", sort_key=3)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainingFlags:
    """How a training goes, whatever it is of."""

    preset: Annotated[str, Parameter(group=_WHAT)] = "fast"
    "Recipe: fast, or paper."
    hours: Annotated[float | None, Parameter(group=_HOW)] = None
    "Time at work that the schedule is fitted to; pauses do not count."
    crops: Annotated[int | None, Parameter(group=_HOW)] = None
    "Training crops in all."
    epochs: Annotated[float | None, Parameter(group=_HOW)] = None
    "Times that there are as many crops as pictures."
    epoch_crops: Annotated[int | None, Parameter(group=_HOW)] = None
    "Training crops from one validation to the next, with a checkpoint each; None: the preset's."
    validation_crops: Annotated[int, Parameter(group=_HOW)] = CROPS
    "Fixed crops of held-out pictures that each validation looks at."
    batch: Annotated[int | None, Parameter(group=_HOW)] = None
    "Crops a step, shared by all workers; None: the preset's."
    rate: Annotated[float, Parameter(group=_HOW)] = 1.0
    "Factor on the preset's learning rates; less than 1 where the start is well trained already."
    precision: Annotated[Literal["auto", "fp32", "bf16"] | None, Parameter(group=_HOW)] = None
    "Of features; auto: bf16 where the machine has units for it; None: the preset's."
    workers: Annotated[int | None, Parameter(group=_RUN)] = None
    "Processes, a divisor of the batch; None: as many as there are GPUs, or --cpus-per-worker CPUs, for."
    cpus_per_worker: Annotated[int, Parameter(group=_RUN)] = 1
    "CPUs, and so threads, of each worker."
    gpu: Annotated[bool | None, Parameter(group=_RUN)] = None
    "One GPU for each worker; None: where Ray shows GPUs now. A cluster that grows from nothing shows none: say --gpu."
    cache: Annotated[Path | None, Parameter(group=_RUN)] = None
    "Folder for decoded pictures on each node (3 bytes a pixel); None: below the runs, on S3 the temporary folder."
    restarts: Annotated[int, Parameter(group=_RUN)] = 5
    "How often workers that died are started again."

    def __post_init__(self) -> None:
        for name in ("epoch_crops", "validation_crops", "batch", "workers", "cpus_per_worker"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"--{name.replace('_', '-')} {value}: needs a number from 1 on.")
        if not 0 < self.rate < math.inf:
            raise SettingsError(f"--rate {self.rate:g}: needs a number above 0.")

    def settings_for(self, model: str, templates: TemplateSet | None) -> TrainSettings:
        """The preset, with what was asked for otherwise. Raises: SettingsError."""
        asked: dict[str, Any] = {"batch": self.batch, "epoch_crops": self.epoch_crops, "precision": self.precision}
        given = {name: value for name, value in asked.items() if value is not None}
        settings = replace(preset(self.preset, model, templates), **given)
        rates = settings.optimiser
        scaled = replace(rates, head_rate=rates.head_rate * self.rate, trunk_rate=rates.trunk_rate * self.rate)
        return replace(settings, optimiser=scaled)

    def budget(self, pictures: int) -> Budget:
        """How long it goes on; pictures: that it learns from. Raises: SettingsError."""
        return Budget(crops=round(self.epochs * pictures) if self.epochs else self.crops, hours=self.hours)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """All options of jobs/train.py."""

    data: Annotated[Texts, many(_WHAT)]
    "What to learn from: a folder with annotations.jsonl, WIDER's .txt or .mat, COCO .json, an output; may be repeated."
    validate: Annotated[Texts, many(_WHAT)]
    "The same, to choose the best epoch by; nothing is learned from them."
    pictures: Annotated[str | None, Parameter(group=_WHAT)] = None
    "Folder or url that the paths in annotations begin at; None: that of the annotations."
    output: Annotated[str, Parameter(group=_RUN)]
    "Folder or url of runs; on a cluster one that all nodes reach."
    name: Annotated[str | None, Parameter(group=_RUN)] = None
    "The run's name below --output; a run of this name goes on. None: model and preset."
    model: Annotated[str, Parameter(group=_WHAT)] = "hr-resnet50"
    "hr-resnet50, hr-mobilenetv2, hr-resnet101 or hr-vgg16."
    start_from: Annotated[str | None, Parameter(group=_WHAT)] = None
    "A bundled model, or path or url: a checkpoint of ours, or ImageNet weights for the trunk."
    templates: Annotated[Path | None, Parameter(group=_WHAT)] = None
    "JSON file of jobs/fit_templates.py; None: the published 25, of which `fast` has three replaced by smaller ones."
    training: TrainingFlags = TrainingFlags()
    ray_address: Annotated[str | None, Parameter(group=_RUN)] = None
    "Cluster to join (else RAY_ADDRESS, else one that runs here); `local` always starts one."
    storage: StorageFlags = StorageFlags()

    def __post_init__(self) -> None:
        refuse_lost("--output", self.output)

    def settings(self) -> TrainSettings:
        """As asked for. Raises: SettingsError."""
        return self.training.settings_for(self.model, read_templates(self.templates) if self.templates else None)
