"""What does a GPU give? Pictures a second for each trunk and size, with and without each lever, beside the limit.

    python3 benchmarks/gpu.py [--trunks resnet101 vgg16 mobilenet_v2 resnet50] [--sizes 1280x720 1920x1080] \
        [--zooms 0.5 1 2] [--seconds 4] [--budget 420] [--json FILE]

Runs on a bare machine with torch, numpy, safetensors and pydantic, in `--budget` seconds: what comes too late is left
out by name. Weights are made up: speed does not follow from them. Counted is the whole call, from
uint8 on the host to boxes on the host, but for the ways that say "network": levels that are on the device already, of 1
or 4 pictures at once. "Boxes" are those before NMS that a made-up network fires; "detectors" are processes that share
the GPU, as `--gpus-per-actor` below 1 has it, and their rates are added. `limit` is the pictures a second if all
convolutions ran at the rate of a bf16 matrix product (8,192 x 8,192) measured in the same run; `duty` is the share of
time in which a kernel runs. The paper's own figures (ResNet-101, one GPU of 2016): 3.1 at 1280 x 720, 1.4 at 1920 x
1080. `--device cpu` only checks the script.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import torch
from figures import finish
from gpu_ways import WAYS, Task, call_of, synchronise
from torch import Tensor, nn

PAPER = {("resnet101", 1280): 3.1, ("resnet101", 1920): 1.4}


@dataclass(frozen=True)
class Measured:
    """rate, limit: pictures/s. gflop: of a picture's convolutions. problem: why there is no rate."""

    trunk: str
    size: str
    way: str
    rate: float | None = None
    first_s: float | None = None
    gflop: float | None = None
    limit: float | None = None
    duty: float | None = None
    peak_mb: float | None = None
    problem: str = ""

    def row(self) -> str:
        if self.rate is None or self.limit is None:
            return f"| {self.trunk} | {self.size} | {self.way} | {self.problem} | | | | | |"
        share = f"{self.rate:.1f} | {self.limit:.0f} | {self.rate / self.limit:.2f}"
        figures = zip((".2f", ".0f", ".1f"), (self.duty, self.peak_mb, self.first_s), strict=True)
        rest = " | ".join("-" if value is None else format(value, form) for form, value in figures)
        return f"| {self.trunk} | {self.size} | {self.way} | {share} | {rest} |"


def matmul_rate(device: str, precision: str) -> float:
    """GFLOP/s of a large product, random numbers."""
    side = 8192 if device == "cuda" else 1024
    left, right = (torch.randn(side, side, device=device, dtype=getattr(torch, precision)) for _ in range(2))
    times = []
    for _ in range(8):
        synchronise(device)
        began = time.perf_counter()
        torch.mm(left, right)
        synchronise(device)
        times.append(time.perf_counter() - began)
    return 2 * side**3 / statistics.median(times[2:]) / 1e9


def convolved_gflop(network: nn.Module, call: Callable[[], object]) -> float:
    """GFLOP of all convolutions of one call; a multiplication and an addition are two."""
    flop = 0

    def count(convolution: nn.Module, _: Any, out_NCHW: Tensor) -> None:
        nonlocal flop
        flop += 2 * out_NCHW.numel() * convolution.weight[0].numel()  # type: ignore[operator, index, union-attr]

    hooks = [module.register_forward_hook(count) for module in network.modules() if isinstance(module, nn.Conv2d)]
    call()
    for hook in hooks:
        hook.remove()
    return flop / 1e9


def duty_of(call: Callable[[], object]) -> float:
    """Share of a call's time in which a kernel runs on the GPU."""
    activities = [torch.profiler.ProfilerActivity.CUDA]
    with torch.profiler.profile(activities=activities) as profile:
        began = time.perf_counter()
        call()
        torch.cuda.synchronize()
        took_s = time.perf_counter() - began
    busy_us = sum(event.self_device_time_total for event in profile.key_averages())
    return min(1.0, busy_us / 1e6 / took_s)


def measured(task: Task, limit_gflops: float) -> Measured:
    """Times calls for so many seconds after two that are not counted."""
    way, on_gpu = task.way, task.device == "cuda"
    named = f"{task.size[0]} x {task.size[1]}"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = way.tf32
    try:
        plain, of_plain = call_of(task, replace(way, compiled=None, batch=0, boxes=0))
        gflop = convolved_gflop(plain.network, of_plain)
        del plain, of_plain
        if way.detectors > 1:
            return Measured(task.trunk, named, way.name, together(task), None, gflop, limit_gflops / gflop)
        _, call = call_of(task, way)
        if on_gpu:
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        call()
        first_s = time.perf_counter() - began
        rate = max(1, way.batch) / statistics.median(times_of(call, task))
        duty = duty_of(call) if on_gpu else None
        peak_mb = torch.cuda.max_memory_allocated() / 2**20 if on_gpu else None
    except Exception as error:
        return Measured(task.trunk, named, way.name, problem=f"failed: {str(error).splitlines()[0][:80]}")
    return Measured(task.trunk, named, way.name, rate, first_s, gflop, limit_gflops / gflop, duty, peak_mb)


def times_of(call: Callable[[], object], task: Task) -> list[float]:
    """Seconds of each call, three or more, after one that is not counted."""
    call()
    times: list[float] = []
    while sum(times) < task.seconds or len(times) < 3:
        began = time.perf_counter()
        call()
        synchronise(task.device)
        times.append(time.perf_counter() - began)
    return times


def together(task: Task) -> float:
    """Pictures a second of several processes on one GPU that begin at the same time."""
    context = multiprocessing.get_context("spawn")
    barrier, rates = context.Barrier(task.way.detectors), context.SimpleQueue()
    processes = [context.Process(target=_beside, args=(task, barrier, rates)) for _ in range(task.way.detectors)]
    for process in processes:
        process.start()
    for process in processes:
        process.join()
        if process.exitcode:
            raise RuntimeError(f"a detector ended with {process.exitcode}")
    return sum(rates.get() for _ in processes)


def _beside(task: Task, barrier: Any, rates: Any) -> None:
    try:
        _, call = call_of(task, task.way)
        call()
    except Exception:
        barrier.abort()  # the others need not wait for this one
        raise
    barrier.wait()
    times = times_of(call, task)
    rates.put(len(times) / sum(times))


def asked(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--trunks", nargs="+", default=["resnet101", "vgg16", "mobilenet_v2", "resnet50"])
    parser.add_argument("--sizes", nargs="+", default=["1280x720", "1920x1080"])
    parser.add_argument("--zooms", nargs="+", type=float, default=[0.5, 1.0, 2.0])
    parser.add_argument("--seconds", type=float, default=4.0)
    parser.add_argument("--budget", type=float, default=420.0)
    parser.add_argument("--json", type=Path)
    return parser.parse_args(arguments)


def main() -> None:
    options = asked()
    began, results = time.monotonic(), list[Measured]()
    device: str = options.device
    name = torch.cuda.get_device_name() if device == "cuda" else "CPU"
    limit = matmul_rate(device, "bfloat16")
    print(f"{name}, torch {torch.__version__}, zooms {' '.join(map(str, options.zooms))}; ", end="")
    print(f"a bf16 product runs at {limit / 1000:.0f} TFLOP/s\n")
    print("| trunk | picture | way | pictures/s | limit | share | duty | peak MB | first call, s |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|", flush=True)
    sizes = [tuple(map(int, size.split("x"))) for size in options.sizes]
    for way in WAYS:  # what matters first, first
        for trunk in options.trunks:
            for size in sizes:
                if time.monotonic() - began > options.budget:
                    found = Measured(trunk, f"{size[0]} x {size[1]}", way.name, problem="left out: no time")
                elif way not in WAYS[:2] and (trunk != options.trunks[-1] or size != sizes[-1]):
                    continue  # one trunk shows what a lever is worth; compiling takes minutes
                else:
                    found = measured(Task(trunk, size, way, device, tuple(options.zooms), options.seconds), limit)
                results.append(found)
                print(found.row(), flush=True)
                if device == "cuda":
                    torch.cuda.empty_cache()
    print("\nthe paper, ResNet-101: " + ", ".join(f"{rate} at {width} px wide" for (_, width), rate in PAPER.items()))
    finish({"matmul_gflops": limit, "rows": [asdict(result) for result in results]}, options.json, device=name)


if __name__ == "__main__":
    main()
