"""Trains a detector with Ray Train: annotated pictures in, checkpoints, curves and the best model out.

Example: python jobs/train.py --data wider/train --validate wider/val --output runs --hours 8

The same command with the same --name goes on where it was. Exit codes: 0 done, 1 stopped, 2 refused.
"""

from __future__ import annotations

import importlib.metadata
import logging
import shlex
import sys
import tempfile
import uuid
from contextlib import ExitStack
from pathlib import Path

import ray

import ray_metrics
import ray_train
from options import Texts, before_first_write, job_app, run_job
from ray_start import Cluster, RaySession, computing_environment
from ray_train import TrainingRun, fit
from run_metrics import RunMetrics
from tinyface_core.errors import InputError, OutputError, ResourceError, StorageError
from tinyface_core.model.spec import find_bundled
from tinyface_core.storage import ObjectError, Storage
from tinyface_core.train.curves import draw_curves, write_tensorboard
from tinyface_core.train.data import AnnotatedPicture, read_annotated
from tinyface_core.train.loop import Budget
from train_options import TrainJob
from train_record import BEST, go_on

log = logging.getLogger(__name__)
KEPT = 3  # checkpoints: the best ones and the latest

app = job_app("train.py", __doc__ or "")
# The workers of a submitted job find the core, but not the folder that this file is in.
ray.cloudpickle.register_pickle_by_value(ray_train)
ray.cloudpickle.register_pickle_by_value(ray_metrics)


@app.default
def main(job: TrainJob) -> int:
    """Checks the data, trains, and leaves best.safetensors, curves.png and TensorBoard's events beside the run."""
    settings, storage = job.settings(), Storage(job.storage.options())
    output, name = storage.canonical(job.output).rstrip("/"), job.name or f"{job.model}-{job.preset}"
    with before_first_write():
        pictures = _annotated("--data", job.data, job.pictures, storage)
        held_out = _annotated("--validate", job.validate, job.pictures, storage)
        if shared := {picture.name for picture in pictures} & {picture.name for picture in held_out}:
            raise InputError(
                f"--validate: {len(shared)} pictures are in --data too, as {min(shared)}: keep them apart."
            )
        run = TrainingRun(
            settings=settings,
            budget=Budget(crops=round(job.epochs * len(pictures)) if job.epochs else job.crops, hours=job.hours),
            pictures=pictures,
            validation=held_out,
            start_from=_start(job.start_from, storage),
            cache=_cache(job.cache, output),
            storage=storage,
            threads=job.cpus_per_worker,
            validation_crops=job.validation_crops,
            provenance=(
                ("command", shlex.join(["python", "jobs/train.py", *sys.argv[1:]])),
                ("run", name),
                ("pictures", str(len(pictures))),
                ("tinyface", importlib.metadata.version("tinyface")),
            ),
        )
        run.starting_network()  # refuses a file that does not fit, before anything starts
        _refuse_unwritable(output, storage)
        finished = go_on(run, f"{output}/{name}", storage)
    if not finished:
        with ExitStack() as stack:
            workers, gpu = _workers(job, RaySession(job.ray_address, stack).cluster)
            RunMetrics("train", stack).start(
                model=job.model, precision=settings.precision, device="cuda" if gpu else "cpu"
            )
            best, epochs = fit(
                run,
                name=name,
                output=output,
                workers=workers,
                gpu=gpu,
                restarts=job.restarts,
                kept=KEPT,
                environment=computing_environment(),
            )
        _leave(best, epochs, f"{output}/{name}", storage)
    print(f"model   {output}/{name}/{BEST}\ncurves  {output}/{name}/curves.png, {output}/{name}/tensorboard")
    return 0


def _annotated(option: str, sources: Texts, pictures: str | None, storage: Storage) -> tuple[AnnotatedPicture, ...]:
    """All pictures of the sources, and says of each what it holds. Raises: InputError."""
    found = list[AnnotatedPicture]()
    for source in sources:
        here, check = read_annotated(source, pictures, storage)
        log.info("%s %s: %s", option, source, check)
        found += here
    return tuple(found)


def _start(start_from: str | None, storage: Storage) -> str | None:
    """The uri of a bundled model, a path or a url."""
    return storage.canonical(str(find_bundled(start_from) or start_from)) if start_from else None


def _cache(asked: Path | None, output: str) -> Path:
    """Where decoded pictures lie on each node."""
    if asked is not None:
        return asked.expanduser().absolute()
    on_disk = output.startswith("file://")
    return Path(output.removeprefix("file://"), "cache") if on_disk else Path(tempfile.gettempdir(), "tinyface-cache")


def _refuse_unwritable(output: str, storage: Storage) -> None:
    """Raises: OutputError."""
    probe = f"{output}/.probe-{uuid.uuid4().hex}"
    try:
        storage.write(probe, b"")
        storage.delete(probe)
    except (ObjectError, StorageError) as error:
        raise OutputError(f"--output {output}: cannot be written to: {error}") from error


def _leave(best: bytes, epochs: list[dict[str, float]], run: str, storage: Storage) -> None:
    """The best model and the curves, beside the checkpoints of the run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_curves(epochs, folder / "curves.png")
        write_tensorboard(epochs, folder / "tensorboard")
        for file in (path for path in folder.rglob("*") if path.is_file()):
            storage.write(f"{run}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    storage.write(f"{run}/{BEST}", best)  # last: it says that the run is finished


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
