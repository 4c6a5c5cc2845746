"""Trains a detector with Ray Train: annotated pictures in, checkpoints, curves and the best model out.

Example: python jobs/train.py --data wider/train --validate wider/val --output runs --hours 8

The same command with the same --name goes on where it was. Exit codes: 0 done, 1 stopped, 2 refused.
"""

from __future__ import annotations

import logging
import shlex
import sys
import uuid
from contextlib import ExitStack

import tinyface_core
from options import Texts, before_first_write, job_app, run_job
from ray_start import RaySession
from ray_train import TrainingRun
from tinyface_core.errors import InputError, OutputError, StorageError
from tinyface_core.storage import ObjectError, Storage
from tinyface_core.train.data import AnnotatedPicture, read_annotated
from train_options import TrainJob
from train_record import BEST, go_on
from train_run import cache_folder, start_uri, train_to_the_end

log = logging.getLogger(__name__)
app = job_app("train.py", __doc__ or "")


@app.default
def main(job: TrainJob) -> int:
    """Checks the data, trains, and leaves best.safetensors, curves.png and TensorBoard's events beside the run."""
    settings, storage = job.settings(), Storage(job.storage.options())
    output, name = storage.canonical(job.output).rstrip("/"), job.name or f"{job.model}-{job.training.preset}"
    with before_first_write():
        pictures = _annotated("--data", job.data, job.pictures, storage)
        held_out = _annotated("--validate", job.validate, job.pictures, storage)
        if shared := {picture.name for picture in pictures} & {picture.name for picture in held_out}:
            raise InputError(
                f"--validate: {len(shared)} pictures are in --data too, as {min(shared)}: keep them apart."
            )
        run = TrainingRun(
            settings=settings,
            budget=job.training.budget(len(pictures)),
            pictures=pictures,
            validation=held_out,
            start_from=start_uri(job.start_from, storage),
            cache=cache_folder(job.training.cache, output),
            storage=storage,
            threads=job.training.cpus_per_worker,
            validation_crops=job.training.validation_crops,
            provenance=(
                ("command", shlex.join(["python", "jobs/train.py", *sys.argv[1:]])),
                ("run", name),
                ("pictures", str(len(pictures))),
                ("tinyface", tinyface_core.__version__),
            ),
        )
        run.starting_network()  # refuses a file that does not fit, before anything starts
        run = run.with_defaults()
        _refuse_unwritable(output, storage)
        finished = go_on(run, f"{output}/{name}", storage)
    if not finished:
        with ExitStack() as stack:
            train_to_the_end(run, job.training, output, name, RaySession(job.ray_address, stack, dashboard=True))
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


def _refuse_unwritable(output: str, storage: Storage) -> None:
    """Raises: OutputError."""
    probe = f"{output}/.probe-{uuid.uuid4().hex}"
    try:
        storage.write(probe, b"")
        storage.delete(probe)
    except (ObjectError, StorageError) as error:
        raise OutputError(f"--output {output}: cannot be written to: {error}") from error


if __name__ == "__main__":
    sys.exit(run_job(app))
