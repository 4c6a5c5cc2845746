"""Trains a detector with Ray Train: annotated pictures in, checkpoints, curves and the best model out.

    python jobs/train.py --data wider/train --validate wider/val --output runs --hours 8

The same command with the same --name goes on where it was. Exit codes: 0 done, 1 stopped, 2 refused.
"""

from __future__ import annotations

import importlib.metadata
import logging
import shlex
import shutil
import sys
from contextlib import ExitStack
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Any

import ray
from cyclopts import Group, Parameter

import ray_train
from options import Texts, job_app, run_job
from ray_start import Cluster, RaySession
from ray_train import MODEL, TrainingRun, fit
from tinyface_core.errors import InputError, ResourceError, SettingsError
from tinyface_core.model.checkpoint import read_spec
from tinyface_core.train.curves import draw_curves, write_tensorboard
from tinyface_core.train.data import AnnotatedPicture, read_annotated
from tinyface_core.train.loop import Budget
from tinyface_core.train.presets import TrainSettings, preset
from tinyface_core.train.start import starting_network
from tinyface_core.train.validate import CROPS

log = logging.getLogger(__name__)
_WHAT, _HOW, _RUN = Group("What to train", sort_key=1), Group("How long", sort_key=2), Group("How to run", sort_key=3)
KEPT = 3  # checkpoints: the best ones and the latest

app = job_app("train.py", __doc__ or "")
# The workers of a submitted job find the core, but not the folder that this file is in.
ray.cloudpickle.register_pickle_by_value(ray_train)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class TrainJob:
    """All options of jobs/train.py."""

    data: Annotated[Texts, Parameter(group=_WHAT, negative=(), consume_multiple=1, show_default=False)]
    "What to learn from: a folder with annotations.jsonl, WIDER's .txt or .mat, COCO .json, an output; may be repeated."
    validate: Annotated[Texts, Parameter(group=_WHAT, negative=(), consume_multiple=1, show_default=False)]
    "The same, to choose the best epoch by; nothing is learned from them."
    pictures: Annotated[Path | None, Parameter(group=_WHAT)] = None
    "Folder that the paths in annotations begin at; None: that of the annotations."
    output: Annotated[Path, Parameter(group=_RUN)]
    "Folder of runs; on a cluster one that all nodes share."
    name: Annotated[str | None, Parameter(group=_RUN)] = None
    "The run's name below --output; a run of this name goes on. None: model and preset."
    preset: Annotated[str, Parameter(group=_WHAT)] = "fast"
    "Recipe: fast, or paper."
    model: Annotated[str, Parameter(group=_WHAT)] = "hr-resnet50"
    "hr-resnet50, hr-mobilenetv2, hr-resnet101 or hr-vgg16."
    start_from: Annotated[Path | None, Parameter(group=_WHAT)] = None
    "Checkpoint of ours, or ImageNet weights for the trunk."
    hours: Annotated[float | None, Parameter(group=_HOW)] = None
    "Time at work that the schedule is fitted to; pauses do not count."
    crops: Annotated[int | None, Parameter(group=_HOW)] = None
    "Training crops in all."
    epochs: Annotated[float | None, Parameter(group=_HOW)] = None
    "Times that there are as many crops as pictures."
    epoch_crops: Annotated[int | None, Parameter(group=_HOW)] = None
    "Training crops from one validation to the next, with a checkpoint each; None: the preset's."
    validation_crops: Annotated[int, Parameter(group=_HOW)] = CROPS
    "Fixed crops of --validate that each validation looks at."
    batch: Annotated[int | None, Parameter(group=_HOW)] = None
    "Crops a step, shared by all workers; None: the preset's."
    workers: Annotated[int | None, Parameter(group=_RUN)] = None
    "Processes; None: one a GPU, or one for each --cpus-per-worker CPUs."
    cpus_per_worker: Annotated[int, Parameter(group=_RUN)] = 1
    "CPUs, and so threads, of each worker."
    cache: Annotated[Path | None, Parameter(group=_RUN)] = None
    "Folder for decoded pictures on each node (3 bytes a pixel); None: below --output."
    restarts: Annotated[int, Parameter(group=_RUN)] = 5
    "How often workers that died are started again."
    ray_address: Annotated[str | None, Parameter(group=_RUN)] = None
    "Cluster to join (else RAY_ADDRESS, else one that runs here); `local` always starts one."

    def __post_init__(self) -> None:
        for name in ("epoch_crops", "validation_crops", "batch", "workers", "cpus_per_worker"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise SettingsError(f"--{name.replace('_', '-')} {value}: needs a number from 1 on.")

    def settings(self) -> TrainSettings:
        """The preset, with what was asked for otherwise. Raises: SettingsError."""
        asked: dict[str, Any] = {"batch": self.batch, "epoch_crops": self.epoch_crops}
        given = {name: value for name, value in asked.items() if value is not None}
        return replace(preset(self.preset, self.model), **given)


@app.default
def main(job: TrainJob) -> int:
    """Checks the data, trains, and leaves best.safetensors, curves.png and TensorBoard's events beside the run."""
    settings = job.settings()
    pictures, held_out = (
        _annotated("--data", job.data, job.pictures),
        _annotated("--validate", job.validate, job.pictures),
    )
    if shared := {picture.path.name for picture in pictures} & {picture.path.name for picture in held_out}:
        raise InputError(f"--validate: {len(shared)} pictures are in --data too, as {min(shared)}: keep them apart.")
    crops = round(job.epochs * len(pictures)) if job.epochs else job.crops
    budget = Budget(crops=crops, hours=job.hours)
    starting_network(settings, job.start_from)  # refuses a file that does not fit, before anything starts
    name = job.name or f"{job.model}-{job.preset}"
    run = TrainingRun(
        settings=settings,
        budget=budget,
        pictures=pictures,
        validation=held_out,
        start_from=job.start_from.absolute() if job.start_from else None,
        cache=(job.cache or job.output / "cache").absolute(),
        threads=job.cpus_per_worker,
        validation_crops=job.validation_crops,
        provenance=(
            ("command", shlex.join(["python", "jobs/train.py", *sys.argv[1:]])),
            ("run", name),
            ("pictures", str(len(pictures))),
            ("tinyface", importlib.metadata.version("tinyface")),
        ),
    )
    with ExitStack() as stack:
        workers, gpu = _workers(job, RaySession(job.ray_address, stack).cluster)
        best, epochs = fit(
            run, name=name, storage=job.output, workers=workers, gpu=gpu, restarts=job.restarts, kept=KEPT
        )
    folder = job.output / name
    shutil.copyfile(best / MODEL, folder / "best.safetensors")
    draw_curves(epochs, folder / "curves.png")
    write_tensorboard(epochs, folder / "tensorboard")
    log.info("best epoch: %s", read_spec(folder / "best.safetensors").provenance)
    print(f"model   {folder / 'best.safetensors'}\ncurves  {folder / 'curves.png'}, {folder / 'tensorboard'}")
    return 0


def _annotated(option: str, sources: Texts, pictures: Path | None) -> tuple[AnnotatedPicture, ...]:
    """All pictures of the sources, and says of each what it holds. Raises: InputError."""
    found = list[AnnotatedPicture]()
    for source in sources:
        here, check = read_annotated(Path(source), pictures)
        log.info("%s %s: %s", option, source, check)
        found += here
    return tuple(found)


def _workers(job: TrainJob, cluster: Cluster) -> tuple[int, bool]:
    """(processes, whether each has a GPU). Raises: ResourceError where a Ray of our own cannot carry them."""
    room = int(cluster.gpus) or int(cluster.cpus // job.cpus_per_worker)
    workers = job.workers or max(1, room)
    if workers > room and not cluster.grows:
        raise ResourceError(
            f"--workers {workers} of {job.cpus_per_worker} CPUs do not fit: Ray has {cluster.cpus:g} CPUs and "
            f"{cluster.gpus:g} GPUs."
        )
    return workers, cluster.gpus > 0


if __name__ == "__main__":
    sys.exit(run_job(app))
