"""The one Ray Data chain of the detection job: units -> records -> rows. The driver commits what comes out."""

from __future__ import annotations

import logging
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import replace

import pyarrow as pa
import ray
from ray.data import ActorPoolStrategy, DataContext, Dataset, TaskPoolStrategy
from ray.data.exceptions import ExecutionTimeoutError
from ray.util.annotations import RayDeprecationWarning

import ray_metrics
import ray_stages
from ray_stages import DetectFaces, Detecting, Reading, read_units
from ray_start import READER_CPUS, Pool, computing_environment, run_as_detector
from tinyface_core.errors import ResourceError, StopRun

log = logging.getLogger(__name__)

# The workers of a submitted job find the core, but not the folder that this file is in: the stages travel themselves.
ray.cloudpickle.register_pickle_by_value(ray_stages)
ray.cloudpickle.register_pickle_by_value(ray_metrics)

GPU_BATCH, GPU_BLOCK_BYTES = 32, 8 << 20  # a block costs the driver 6 ms: much, where 4 pictures take a GPU no longer
STALLED_S = 3 * 3600  # a chain in which nothing moves for so long has failed: twice what 20,000 x 20,000 px may take


def faces_in(work: Sequence[dict[str, bytes]], reading: Reading, detecting: Detecting, pool: Pool) -> Dataset:
    """Rows of work -> one row a picture, in no order, some maybe twice, blocks of a dying actor maybe missing.

    work: of ray_stages.work_item; each is read by one task, and what it reads is spread over all detectors in
    blocks of reading.block_bytes, larger ones where detectors have GPUs.
    """
    reading = _in_blocks_for(pool, reading)
    configure_ray_data(reading.block_bytes)
    with warnings.catch_warnings():
        # Ray drops these arguments in 2.64 without another way to bound retries; pyproject.toml stays below it.
        warnings.simplefilter("ignore", RayDeprecationWarning)
        return _chain(work, reading, detecting, pool)


def _chain(work: Sequence[dict[str, bytes]], reading: Reading, detecting: Detecting, pool: Pool) -> Dataset:
    return (
        ray.data.from_items(list(work), override_num_blocks=len(work))
        .map_batches(
            read_units,
            batch_size=None,
            batch_format="pyarrow",
            fn_kwargs={"reading": reading},
            compute=TaskPoolStrategy(size=max(2, pool.largest)),
            num_cpus=READER_CPUS,  # differs from the actors', or Ray would fuse reading into them
            max_retries=2,
        )
        .map_batches(
            DetectFaces,
            batch_size=_batch_size(reading, pool),
            batch_format="pyarrow",
            fn_constructor_kwargs={"detecting": detecting},
            compute=ActorPoolStrategy(min_size=pool.smallest, max_size=pool.largest, initial_size=pool.smallest),
            num_cpus=pool.cpus,
            num_gpus=pool.gpus or None,
            max_restarts=20,
            max_task_retries=1,
            runtime_env=computing_environment(),
        )
    )


def _in_blocks_for(pool: Pool, reading: Reading) -> Reading:
    """A block of one picture stays one."""
    larger = pool.gpus and reading.block_bytes != 1
    return replace(reading, block_bytes=GPU_BLOCK_BYTES) if larger else reading


def _batch_size(reading: Reading, pool: Pool) -> int | None:
    """None: a whole block, not copied; refused with GPUs. Where a block is one picture, it must travel alone."""
    if not pool.gpus:
        return None
    return 1 if reading.block_bytes == 1 else GPU_BATCH


def rows_from(faces: Dataset, pool: Pool) -> Iterator[pa.Table]:
    """What the chain gives, as it comes. A chain that fails on its way ends here, with a warning: settling takes over.

    It begins with the first detector that finds its place; the others join as they find theirs.

    Raises:
        StopRun: no detector could start, so the cluster is at fault and no picture.
    """
    await_detector(pool)
    try:
        yield from faces.iter_batches(batch_size=None, batch_format="pyarrow", prefetch_batches=0)
    except ExecutionTimeoutError:
        log.warning("nothing moved for %d s, what is missing will be tried again", STALLED_S)
    except ray.exceptions.RayError as error:
        why = str(error).strip().splitlines()[-1]
        if "creation task" in str(error):
            raise StopRun(
                f"no detector could start: {why.rstrip('.')}. Are their CPUs and GPUs free, and does each node have "
                "the libraries and the model? What is committed stays; the same command resumes."
            ) from error
        log.warning("the chain failed, what is missing will be tried again: %s", why)


def await_detector(pool: Pool) -> None:
    """Returns when a detector finds a place. Raises StopRun: none was free for so long as new nodes may take."""
    try:
        run_as_detector(pool, lambda: None)
    except ResourceError as error:
        raise StopRun(f"{error} What is committed stays; the same command resumes.") from error


def configure_ray_data(block_bytes: int) -> None:
    """Settings of Ray Data that the job's guarantees rest on; they are taken when a chain is built."""
    for handler in logging.getLogger("ray.data").handlers:  # what a user needs to know, the job says itself
        if not isinstance(handler, logging.FileHandler):
            handler.setLevel(logging.CRITICAL)
    warnings.filterwarnings("ignore", category=UserWarning, module="ray.data")  # that small inputs fill no pool
    context = DataContext.get_current()
    context.enable_progress_bars = False
    context.print_on_execution_start = False
    context.target_max_block_size = block_bytes
    context.issue_detectors_config.detectors = []  # they advise memory for readers that need none
    context.max_errored_blocks = -1  # a block that dies with its actor is missed, and settled
    context.execution_no_progress_timeout_s = STALLED_S
    context.wait_for_min_actors_s = -1  # or it waits for all of them, and a node may be gone that still counts
