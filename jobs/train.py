"""Trains a detector with Ray Train: annotated pictures in, checkpoints, curves and the best model out.

Example: python jobs/train.py --data wider/train --validate wider/val --output runs --hours 8

The same command with the same --name goes on where it was. Exit codes: 0 done, 1 stopped, 2 refused.
"""

from __future__ import annotations

import importlib.metadata
import logging
import shlex
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

import ray

import ray_train
from options import Texts, job_app, run_job
from ray_start import Cluster, RaySession
from ray_train import MODEL, TrainingRun, fit
from tinyface_core.errors import InputError, OutputError, ResourceError
from tinyface_core.model.checkpoint import read_spec
from tinyface_core.train.curves import draw_curves, write_tensorboard
from tinyface_core.train.data import AnnotatedPicture, read_annotated
from tinyface_core.train.loop import Budget
from tinyface_core.train.start import starting_network
from train_options import TrainJob

log = logging.getLogger(__name__)
KEPT = 3  # checkpoints: the best ones and the latest

app = job_app("train.py", __doc__ or "")
# The workers of a submitted job find the core, but not the folder that this file is in.
ray.cloudpickle.register_pickle_by_value(ray_train)


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
    _make(job.output)
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


def _make(folder: Path) -> None:
    """The folder of runs. Raises: OutputError."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise OutputError(f"--output {folder}: cannot be made ({error.strerror}).") from error


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
