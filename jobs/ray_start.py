"""Connects to a Ray cluster or starts a local one, and decides how many detectors it carries.

Never waits for resources that cannot come: on a Ray of our own that is known at once; on a cluster that may grow,
waiting is bounded and says what for.
"""

from __future__ import annotations

import json
import logging
import os
import re
import signal
import socket
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, ParamSpec, Protocol, TypeVar

os.environ.setdefault("RAY_DATA_DISABLE_PROGRESS_BARS", "1")  # the job prints its own, from the commit loop
os.environ.setdefault("RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO", "0")
# Of a local Ray, which else ends idle workers after a second where detectors fill the CPUs: each read starts a process.
os.environ.setdefault("RAY_idle_worker_killing_time_threshold_ms", "60000")
# It would mark lines of workers that look alike as repeated, which are no JSON then.
os.environ.setdefault("RAY_DEDUP_LOGS_ALLOW_REGEX", r'^\{"')

import ray
from ray.experimental.internal_kv import _internal_kv_get

from tinyface_core.detect.options import Device, Precision, Runtime
from tinyface_core.errors import ResourceError, StopRun
from tinyface_core.logs import current
from tinyface_core.report.text import counted

log = logging.getLogger(__name__)
P = ParamSpec("P")
T = TypeVar("T")

READER_CPUS = 0.1  # a reader waits for the network most of the time; actors take the rest of each CPU
ACTOR_SHARE = 1 - READER_CPUS
ANSWER_S = 10.0  # within which a cluster takes a connection
DETECTOR_BYTES = 2.5e9  # what one takes at its peak, measured: a 1080p picture at 2x in fp32, ResNet-50
GROW_S = 600.0  # how long an autoscaler may take to bring what is missing
KERNELS = "ONEDNN_PRIMITIVE_CACHE_CAPACITY"
JEMALLOC = Path(ray.__file__).parent / "core" / "libjemalloc.so"  # comes with Ray, which starts its own servers with it


@dataclass(frozen=True)
class Cluster:
    """What there is to work with. grows: more nodes may come by themselves. nodes: resources of each."""

    cpus: float
    gpus: float
    grows: bool
    nodes: tuple[Mapping[str, float], ...] = ()


@dataclass(frozen=True)
class Pool:
    """The detectors: how many, and what each asks Ray for. threads: of torch; decoders: child processes."""

    smallest: int
    largest: int
    cpus: float
    gpus: float
    threads: int
    decoders: int

    def at_most(self, detectors: int) -> Pool:
        """This pool with no more detectors than there are pictures."""
        most = max(1, detectors)
        return replace(self, smallest=min(self.smallest, most), largest=min(self.largest, most))


class PoolOptions(Protocol):
    """What a job's options say of its actors."""

    @property
    def cpus_per_actor(self) -> int: ...

    @property
    def gpus_per_actor(self) -> float | None: ...

    def actor_range(self) -> tuple[int, int] | None: ...


@contextmanager
def ray_cluster(address: str | None, dashboard: bool = False) -> Iterator[Cluster]:
    """Joins the cluster at `address`, or that of RAY_ADDRESS, or one that runs on this machine; else starts one.

    dashboard: whether the one that is started has it. Ray Train asks it each second whether its controller lives, and
    warns each time that nothing answers.

    Raises:
        ResourceError: no cluster at the address that was asked for. StopRun: Ray does not come up.
    """
    where = _joinable(address)
    try:
        only_local = {"include_dashboard": dashboard} if where == "local" else {}
        context = _init(address=where, logging_level=logging.WARNING, **only_local, **_logging())
    except ConnectionError as error:
        raise ResourceError(f"no Ray cluster answers at {where}: {error}") from error
    except Exception as error:  # Ray has no class of its own for most of what may go wrong here
        raise StopRun(
            f"Ray does not come up: {' '.join(str(error).split())} Is the machine busy, its memory or /tmp full? See "
            "the logs in /tmp/ray/session_latest/logs; the same command tries again."
        ) from error
    try:
        found = ray.cluster_resources()
        own = ray._private.worker._global_node is not None and ray._private.worker._global_node.head
        nodes = tuple(node["Resources"] for node in ray.nodes() if node["Alive"])
        cluster = Cluster(found.get("CPU", 0.0), found.get("GPU", 0.0), not own and _grows(), nodes)
        told = "a local Ray" if own else f"the Ray cluster at {context.address_info['gcs_address']}"
        log.info("%s: %g CPUs, %g GPUs", told, cluster.cpus, cluster.gpus)
        yield cluster
    finally:
        ray.shutdown()


def _init(**options: Any) -> Any:
    """What ray.init gives; SIGTERM goes on to end the run as it did before.

    Ray would set handlers that end the process without a word, with codes of their own, and below them, in C++, one
    that first prints the stack.
    """
    set_by_ray = ray._private.utils.set_sigterm_handler
    ray._private.utils.set_sigterm_handler = lambda handler: None
    try:
        with _keeping_the_log():
            return ray.init(**options)
    finally:
        ray._private.utils.set_sigterm_handler = set_by_ray
        signal.signal(signal.SIGTERM, signal.getsignal(signal.SIGTERM))


def _logging() -> dict[str, Any]:
    """Where the run logs JSON: what makes Ray's workers do so, and Ray pass their lines on as they are, unmarked."""
    wanted = current().form == "json"
    return {"logging_config": ray.LoggingConfig(encoding="JSON", log_level="WARNING")} if wanted else {}


@contextmanager
def _keeping_the_log() -> Iterator[None]:
    """Ray would set up the driver as its workers: a second handler beside ours, which says everything twice."""
    root, of_ray = logging.getLogger(), logging.getLogger("ray")
    handlers, level = root.handlers[:], root.level
    try:
        yield
    finally:
        if current().form == "json":
            root.handlers[:], of_ray.handlers[:], of_ray.propagate = handlers, [], True
            root.setLevel(level)


def _grows() -> bool:
    """Whether an autoscaler may bring nodes; not where nodes were started by hand.

    There Ray's monitor only watches, and gives each node a type of its own, named by the node. Unknown counts as yes.
    """
    told = _internal_kv_get("__autoscaling_status")
    types = json.loads(told).get("autoscaler_report", {}).get("active_nodes", {}) if told else {}
    return not types or not all(re.fullmatch(r"node_[0-9a-f]{40,}", name) for name in types)


def _joinable(address: str | None) -> str:
    """Where a Ray is to join, else `local`. As ray.init decides, which would then try for minutes what is gone."""
    asked = address or os.environ.get("RAY_ADDRESS") or None
    if asked == "local" or "://" in (asked or ""):
        return str(asked)
    try:
        found = ray._private.services.canonicalize_bootstrap_address(asked)
        if found is None:
            return "local"
        host, _, port = found.rpartition(":")
        socket.create_connection((host.strip("[]"), int(port)), ANSWER_S).close()
        return str(found)
    except (OSError, ValueError) as error:
        if asked is None:  # a Ray that was started on this machine, and did not end well
            return "local"
        raise ResourceError(
            f"no Ray cluster answers at {asked} ({error}). Check --ray-address or RAY_ADDRESS, "
            "or give --ray-address local."
        ) from error


def choose_pool(cluster: Cluster, job: PoolOptions, device: str) -> Pool:
    """The detector pool: as asked for, or one detector a GPU, or one a CPU where there is none.

    device: "auto", "cpu" or "cuda", as asked for or recorded.
    Raises:
        ResourceError: more than a Ray of our own can ever give.
    """
    gpus = job.gpus_per_actor if job.gpus_per_actor is not None else float(cluster.gpus > 0 and device != "cpu")
    if device == "cuda" and gpus == 0:
        raise ResourceError("--device cuda, but no node has a GPU (or --gpus-per-actor is 0). Use --device cpu.")
    threads = job.cpus_per_actor
    room = sum(_room(node, threads, gpus) for node in cluster.nodes)
    smallest, largest = job.actor_range() or (max(1, room), max(1, room))
    if smallest > room:
        have = f"Ray has {cluster.cpus:g} CPUs and {cluster.gpus:g} GPUs"
        need = f"{counted(smallest, 'detector')} of {gpus:g} GPUs and {threads} CPUs each"
        if not cluster.grows:
            raise ResourceError(
                f"{need} do not fit: {have}. Ask for less with --actors, --cpus-per-actor or --gpus-per-actor."
            )
        log.warning("%s are asked for, %s now: those that find no place begin when nodes have come", need, have)
    if not gpus:
        if cluster.gpus:
            log.warning("%g GPUs are present but unused: this run computes on CPUs (--device)", cluster.gpus)
        return Pool(smallest, largest, ACTOR_SHARE * threads, 0.0, threads, 1)
    share = max(1.0, cluster.cpus / max(1, room))
    decoders = max(1, min(8, int(share) - 1))
    return Pool(smallest, largest, ACTOR_SHARE * min(share, decoders + 1), gpus, threads, decoders)


def _room(node: Mapping[str, float], threads: int, gpus: float) -> int:
    """Detectors that one node carries: by CPUs, GPUs and memory; a detector does not span nodes."""
    by_cpu = int(node.get("CPU", 0.0)) if gpus else int(node.get("CPU", 0.0) // threads)
    by_gpu = by_cpu
    if gpus:
        there = node.get("GPU", 0.0)
        by_gpu = int(there) * int(1 / gpus) if gpus < 1 else int(there / gpus)
    by_memory = max(1, int(node.get("memory", 0.0) // DETECTOR_BYTES))
    return min(by_cpu, by_gpu, by_memory)


def computing_environment() -> dict[str, dict[str, str]]:
    """The runtime_env of processes that compute: what was made for one picture is kept for the next.

    oneDNN makes its kernels for each size of map, some 200 for a picture at four levels, and by itself keeps 1,024,
    those of five sizes. Memory is never given back: glibc gives the pages of each large tensor back, and takes them
    again from the system, cleared, fault by fault: a third of the light model's time. jemalloc keeps them, apart from
    what is small and lives long, so they stay whole. What the driver was started with stays: kernels kept, allocator.
    """
    variables = {KERNELS: os.environ.get(KERNELS, "8192")}
    if JEMALLOC.is_file() and "LD_PRELOAD" not in os.environ:
        keep = "dirty_decay_ms:-1,muzzy_decay_ms:-1,oversize_threshold:0"
        variables |= {"LD_PRELOAD": str(JEMALLOC), "MALLOC_CONF": keep}
    return {"env_vars": variables}


def run_as_detector(pool: Pool, function: Callable[P, T], *args: P.args, **kwargs: P.kwargs) -> T:
    """What the function gives in a process that has what one detector has, its memory too.

    Raises:
        ResourceError: no node offered that within GROW_S.
    """
    task = ray.remote(num_cpus=pool.cpus, num_gpus=pool.gpus, runtime_env=computing_environment())(function)
    try:
        result: T = ray.get(task.remote(*args, **kwargs), timeout=GROW_S)
        return result
    except ray.exceptions.GetTimeoutError as error:
        has = ray.cluster_resources()
        raise ResourceError(
            f"no node offered {pool.threads} CPUs and {pool.gpus:g} GPUs for a detector within {GROW_S:g} s; Ray has "
            f"{has.get('CPU', 0):g} CPUs and {has.get('GPU', 0):g} GPUs. Are they free? Add such nodes, or ask for "
            "less with --cpus-per-actor or --gpus-per-actor."
        ) from error


class RaySession:
    """Ray when it is first needed: a finished run that is run again needs none, and takes seconds."""

    def __init__(
        self,
        address: str | None,
        stack: ExitStack,
        passed: Callable[[str], None] = lambda step: None,
        dashboard: bool = False,
    ) -> None:
        """passed: told when a step of the start-up is done. dashboard: as ray_cluster has it."""
        self._address, self._stack, self._passed, self._dashboard = address, stack, passed, dashboard
        self._cluster: Cluster | None = None

    @property
    def cluster(self) -> Cluster:
        if self._cluster is None:
            self._cluster = self._stack.enter_context(ray_cluster(self._address, self._dashboard))
            self._passed("Ray")
        return self._cluster

    def runtime(self, pool: Pool, device: Device, precision: Precision) -> Runtime:
        """What a detector would choose where it runs. Raises ResourceError: CUDA asked for and not there."""

        def choose() -> Runtime:
            from tinyface_core.detect.runtime import choose_runtime  # with torch, which the driver does without

            return choose_runtime(device, precision)

        try:
            runtime = run_as_detector(pool, choose)
        except ray.exceptions.RayTaskError as error:
            if isinstance(error.cause, ResourceError):
                raise error.cause from error
            raise
        log.info("computing on %s in %s: %s", runtime.device, runtime.precision, runtime.reason)
        self._passed("device")
        return runtime
