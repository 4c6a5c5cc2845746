"""What each Ray Train worker runs: the core's training loop, with gradients averaged by gloo or nccl.

All workers report at the same steps, which follow from crops counted alike. A checkpoint holds the state that resumes
exactly (state.pt) and the model as detection reads it (model.safetensors). Ray takes a report in with a delay: a run
may go on from the checkpoint before the last one, and then does the same steps again.
"""

from __future__ import annotations

import hashlib
import json
import logging
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import ray.train
import torch
from pyarrow.fs import FSSpecHandler, PyFileSystem
from ray.train.torch import TorchTrainer
from torch import Tensor
from torch import distributed as dist

from ray_metrics import KeptGauges, made
from tinyface_core.errors import InputError, StopRun
from tinyface_core.evaluate.matching import Found
from tinyface_core.logs import Logs, current
from tinyface_core.model.checkpoint import save_checkpoint
from tinyface_core.model.network import HRNetwork
from tinyface_core.storage import Storage
from tinyface_core.train.data import AnnotatedPicture, PictureCache
from tinyface_core.train.loop import Budget, Trainer, World, resume, save_state, train
from tinyface_core.train.meter import Report
from tinyface_core.train.presets import TrainSettings
from tinyface_core.train.start import starting_network, with_defaults_of
from tinyface_core.train.validate import FixedCrops

log = logging.getLogger(__name__)
MODEL, EPOCHS = "model.safetensors", "epochs.json"  # in a checkpoint, beside state.pt


@dataclass(frozen=True)
class TrainingRun:
    """What every worker needs to know. cache: folder of decoded pictures and of the file to start from, on each node's
    disk; start_from: its uri."""

    settings: TrainSettings
    budget: Budget
    pictures: tuple[AnnotatedPicture, ...]
    validation: tuple[AnnotatedPicture, ...]
    start_from: str | None
    cache: Path
    storage: Storage
    threads: int
    validation_crops: int
    provenance: tuple[tuple[str, str], ...]
    logs: Logs = field(default_factory=current)

    def starting_network(self) -> HRNetwork:
        """Raises: CheckpointError, InputError, StorageError."""
        return starting_network(self.settings, self._start())

    def with_defaults(self) -> TrainingRun:
        """As `with_defaults_of` has it. Raises: CheckpointError, InputError, StorageError."""
        return replace(self, settings=with_defaults_of(self.settings, self._start()))

    def _start(self) -> Path | None:
        return on_disk(self.start_from, self.cache, self.storage) if self.start_from else None


def train_worker(given: dict[str, TrainingRun]) -> None:
    """One worker from start or resume to the end of the budget."""
    run = given["run"]
    run.logs.take_over("ray", "ray.train")
    torch.set_num_threads(run.threads)
    context = ray.train.get_context()
    rank, size = context.get_world_rank(), context.get_world_size()
    network = run.starting_network().to(ray.train.torch.get_device())
    trainer = Trainer(network, run.settings, run.budget, World(rank, size, average if size > 1 else None))
    pictures, held_out = _caches(run, first=context.get_local_rank() == 0)
    fixed = FixedCrops(held_out, run.settings, network.grid, run.validation_crops)
    latest, epochs = dict[str, float](), list[dict[str, float]]()
    if (checkpoint := ray.train.get_checkpoint()) is not None:
        with checkpoint.as_directory() as folder:
            resume(Path(folder) / "state.pt", trainer)
            epochs = epochs_of(Path(folder))
    metrics = TrainMetrics(rank, trainer.crops)

    def on_report(report: Report) -> None:
        latest.update(report.metrics())
        metrics.report(report)
        if rank == 0:
            log.info("%s", report)

    def on_epoch() -> None:
        found = _together(fixed.found(trainer, range(rank, run.validation_crops, size)), size)
        epoch = {**latest, **trainer.standing(), **fixed.score(found)}
        epochs.append(epoch)
        if rank:
            ray.train.report(epoch)
            return
        metrics.epoch(epoch)
        with tempfile.TemporaryDirectory() as folder:
            save_state(Path(folder) / "state.pt", trainer)
            (Path(folder) / EPOCHS).write_text(json.dumps(epochs))
            _save_model(Path(folder) / MODEL, trainer, run, epoch)
            ray.train.report(epoch, checkpoint=ray.train.Checkpoint.from_directory(folder))

    epoch_crops = run.settings.epoch_crops or len(run.pictures)
    train(trainer, pictures, on_report=on_report, on_epoch=on_epoch, epoch_crops=epoch_crops)


class TrainMetrics:
    """What one worker tells of its reports: how long it waited; the first one its loss too, and what all share.

    crops: that an earlier process, from whose checkpoint this one goes on, has told.
    """

    def __init__(self, rank: int, crops: int) -> None:
        self._rank, self._crops = rank, crops
        self._gauges, self._counter = KeptGauges(), made("tinyface_train_crops_total")

    def report(self, report: Report) -> None:
        self._gauges.set("tinyface_train_waiting_ratio", report.waiting)
        if self._rank == 0:
            for part, loss in (("labels", report.labels_loss), ("boxes", report.boxes_loss)):
                self._gauges.set("tinyface_train_loss", loss, part=part)
            if report.crops > self._crops:
                self._counter.inc(report.crops - self._crops)
            self._crops = report.crops

    def epoch(self, metrics: dict[str, float]) -> None:
        self._gauges.set("tinyface_train_validation_ratio", metrics["val_ap"])


def fit(
    run: TrainingRun,
    *,
    name: str,
    output: str,
    workers: int,
    gpu: bool,
    restarts: int,
    kept: int,
    environment: dict[str, Any],
) -> tuple[bytes, list[dict[str, float]]]:
    """Trains, or goes on with the run of this name below the uri `output`; gives its best model's file, and all epochs.

    environment: the runtime_env of the workers.
    Raises:
        StopRun: the workers died more often than `restarts`.
    """
    trainer = TorchTrainer(
        train_worker,
        train_loop_config={"run": run},
        scaling_config=ray.train.ScalingConfig(
            num_workers=workers, use_gpu=gpu, resources_per_worker={"CPU": run.threads, **({"GPU": 1} if gpu else {})}
        ),
        run_config=ray.train.RunConfig(
            name=name,
            **_storage_of(run.storage, output),
            worker_runtime_env=environment,
            failure_config=ray.train.FailureConfig(max_failures=restarts),
            checkpoint_config=ray.train.CheckpointConfig(
                num_to_keep=kept, checkpoint_score_attribute="val_ap", checkpoint_score_order="max"
            ),
        ),
    )
    try:
        result = trainer.fit()
    except ray.train.TrainingFailedError as error:
        raise StopRun(f"the training failed: {error}. The same command goes on from its last epoch.") from error
    best = result.get_best_checkpoint("val_ap", "max")
    if best is None or result.checkpoint is None:
        raise StopRun("the run ended without an epoch: give it more crops or hours.")
    with best.as_directory() as best_folder, result.checkpoint.as_directory() as last_folder:
        return (Path(best_folder) / MODEL).read_bytes(), epochs_of(Path(last_folder))


def _storage_of(storage: Storage, output: str) -> dict[str, Any]:
    """Where Ray Train keeps its checkpoints, as RunConfig takes it."""
    protocol, path = output.split("://", 1)
    if protocol == "file":
        return {"storage_path": path}
    return {"storage_path": path, "storage_filesystem": PyFileSystem(FSSpecHandler(storage.file_system(output)))}


def on_disk(uri: str, folder: Path, storage: Storage) -> Path:
    """The file itself, or a copy of this version of it in the folder."""
    if uri.startswith("file://"):
        return Path(uri.removeprefix("file://"))
    info = storage.stat(uri)
    if info is None:
        raise InputError(f"{uri}: no such object.")
    copy = folder / hashlib.sha256(f"{uri}\0{info.version}".encode()).hexdigest() / PurePosixPath(uri).name
    if not copy.is_file():
        storage.write(f"file://{copy}", storage.read(uri, info.version))  # whole or not at all, whoever else does it
    return copy


def epochs_of(checkpoint: Path) -> list[dict[str, float]]:
    """The epochs up to a checkpoint, in order."""
    return list(json.loads((checkpoint / EPOCHS).read_text()))


def average(tensors: Sequence[Tensor]) -> None:
    """Each tensor becomes its mean over all workers; one call of the network for all of them."""
    flat = torch.cat([tensor.reshape(-1) for tensor in tensors])
    dist.all_reduce(flat)
    flat /= dist.get_world_size()
    begin = 0
    for tensor in tensors:
        tensor.copy_(flat[begin : begin + tensor.numel()].view_as(tensor))
        begin += tensor.numel()


def _caches(run: TrainingRun, *, first: bool) -> tuple[PictureCache, PictureCache]:
    """The decoded pictures; the first worker of a node decodes what is missing, the others wait for it."""
    if not first:
        dist.barrier()
    caches = PictureCache(run.pictures, run.cache, run.storage), PictureCache(run.validation, run.cache, run.storage)
    if first and dist.is_initialized():
        dist.barrier()
    return caches


def _together(found: dict[str, Found], size: int) -> dict[str, Found]:
    """What all workers found."""
    if size == 1:
        return found
    parts: list[Any] = [None] * size
    dist.all_gather_object(parts, found)
    return {name: faces for part in parts for name, faces in part.items()}


def _save_model(path: Path, trainer: Trainer, run: TrainingRun, metrics: dict[str, float]) -> None:
    facts = {"crops": trainer.crops, "hours": round(trainer.seconds / 3600, 3), "val_ap": round(metrics["val_ap"], 4)}
    spec = replace(run.settings.spec, provenance={**dict(run.provenance), **facts})
    with trainer.averaged() as network:
        save_checkpoint(path, network, spec)
