"""A training from its start, or from where it was, to its best model: what jobs/train.py and jobs/retrain.py share."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import ray
from ray.train.v2._internal import constants as of_ray_train

import ray_metrics
import ray_train
from ray_start import GROW_S, Cluster, RaySession, computing_environment
from ray_train import TrainingRun, fit
from run_metrics import RunMetrics
from tinyface_core.errors import ResourceError, SettingsError
from tinyface_core.model.spec import find_bundled
from tinyface_core.storage import Storage
from tinyface_core.train.curves import draw_curves, write_tensorboard
from train_options import TrainingFlags
from train_record import BEST

KEPT = 3  # checkpoints: the best ones and the latest

# The workers of a submitted job find the core, but not the folder that this file is in.
ray.cloudpickle.register_pickle_by_value(ray_train)
ray.cloudpickle.register_pickle_by_value(ray_metrics)
# Ray Train's own patience with nodes that have yet to come is a minute; it hands this on to its controller.
os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", f"{GROW_S:g}")
getattr(of_ray_train, "ENV_VARS_TO_PROPAGATE", set[str]()).add("RAY_ADDRESS")  # see _address_known


def train_to_the_end(run: TrainingRun, flags: TrainingFlags, output: str, name: str, session: RaySession) -> None:
    """Leaves best.safetensors, curves.png and TensorBoard's events in output/name. output: uri.

    Raises:
        ResourceError: a Ray of our own cannot carry the workers. SettingsError: they cannot share a batch evenly.
        StopRun: they died more often than is allowed.
    """
    workers, gpu = _workers(flags, session.cluster, run.settings.batch)
    with ExitStack() as stack:
        device = "cuda" if gpu else "cpu"
        stack.enter_context(_address_known())
        RunMetrics("train", stack).start(model=name, precision=run.settings.precision, device=device)
        best, epochs = fit(
            run,
            name=name,
            output=output,
            workers=workers,
            gpu=gpu,
            restarts=flags.restarts,
            kept=KEPT,
            environment=computing_environment(),
        )
    _leave(best, epochs, f"{output}/{name}", run.storage)


def start_uri(start_from: str | None, storage: Storage) -> str | None:
    """The uri of a bundled model, a path or a url."""
    return storage.canonical(str(find_bundled(start_from) or start_from)) if start_from else None


def cache_folder(asked: Path | None, output: str) -> Path:
    """Where decoded pictures lie on each node."""
    if asked is not None:
        return asked.expanduser().absolute()
    on_disk = output.startswith("file://")
    return Path(output.removeprefix("file://"), "cache") if on_disk else Path(tempfile.gettempdir(), "tinyface-cache")


@contextmanager
def _address_known() -> Iterator[None]:
    """Ray Train's processes find their own Ray where the machine has several.

    One of them asks each second whether the training's controller lives: a Ray of somebody else's had not heard of it,
    and a run lost its workers.
    """
    before = os.environ.get("RAY_ADDRESS")
    os.environ["RAY_ADDRESS"] = ray.get_runtime_context().gcs_address
    try:
        yield
    finally:
        if before is None:
            del os.environ["RAY_ADDRESS"]
        else:
            os.environ["RAY_ADDRESS"] = before


def _leave(best: bytes, epochs: list[dict[str, float]], run: str, storage: Storage) -> None:
    """The best model and the curves, beside the checkpoints of the run."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        draw_curves(epochs, folder / "curves.png")
        write_tensorboard(epochs, folder / "tensorboard")
        for file in (path for path in folder.rglob("*") if path.is_file()):
            storage.write(f"{run}/{file.relative_to(folder).as_posix()}", file.read_bytes())
    storage.write(f"{run}/{BEST}", best)  # last: it says that the run is finished


def _workers(flags: TrainingFlags, cluster: Cluster, batch: int) -> tuple[int, bool]:
    """(processes, whether each has a GPU): as asked for, or as many as there is room for and share a batch evenly."""
    gpu = cluster.gpus > 0 if flags.gpu is None else flags.gpu
    room = int(cluster.gpus) if gpu else int(cluster.cpus // flags.cpus_per_worker)
    even = [count for count in range(1, max(1, room) + 1) if batch % count == 0]
    workers = flags.workers or even[-1]
    if batch % workers:
        raise SettingsError(
            f"--workers {workers}: a batch of {batch} crops is not shared evenly by them. Give a number that divides "
            "it, or another --batch."
        )
    if workers > room and not cluster.grows:
        raise ResourceError(
            f"--workers {workers} of {flags.cpus_per_worker} CPUs{' and a GPU' if gpu else ''} do not fit: Ray has "
            f"{cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs."
        )
    return workers, gpu
