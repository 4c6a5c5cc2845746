"""What does a GPU give? Pictures a second for each trunk and size, with and without each lever, beside the limit.

    python3 benchmarks/gpu.py [--trunks resnet101 resnet50 mobilenet_v2 vgg16] [--sizes 1280x720 1920x1080] \
        [--zooms 0.5 1 2] [--seconds 4] [--budget 420] [--json FILE]

Runs on a bare machine with torch, numpy, safetensors and pydantic, in `--budget` seconds: what comes too late is left
out by name. Weights are made up and find nothing: speed does not follow from them. Counted is the whole call, from
uint8 on the host to boxes on the host. `limit` is the pictures a second if all convolutions ran at the rate of a
bf16 matrix product (8,192 x 8,192) measured in the same run; `duty` is the share of time in which a kernel runs. The
paper's own figures (ResNet-101, one GPU of 2016): 3.1 at 1280 x 720, 1.4 at 1920 x 1080. `--device cpu` only checks the
script.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tinyface_core.detect.detector import Detector  # noqa: E402
from tinyface_core.detect.options import DetectOptions, Runtime  # noqa: E402
from tinyface_core.model.network import HRNetwork  # noqa: E402
from tinyface_core.model.spec import ModelSpec, NetworkConfig, TrunkConfig  # noqa: E402
from tinyface_core.templates import WITH_TINY, TemplateSet  # noqa: E402

PAPER = {("resnet101", 1280): 3.1, ("resnet101", 1920): 1.4}
USED = tuple(sorted({*WITH_TINY.a, *WITH_TINY.b}))


@dataclass(frozen=True)
class Way:
    """One combination of levers. compiled: torch.compile's mode; None: as it is."""

    name: str
    precision: str
    compiled: str | None = None
    tf32: bool = False


WAYS = (
    Way("bf16", "bf16"),
    Way("fp32", "fp32"),
    Way("fp32 as tf32", "fp32", tf32=True),
    Way("bf16 compiled", "bf16", compiled="default"),
    Way("bf16 in CUDA graphs", "bf16", compiled="reduce-overhead"),
)


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
        duty = "-" if self.duty is None else f"{self.duty:.2f}"
        share = f"{self.rate:.1f} | {self.limit:.0f} | {self.rate / self.limit:.2f}"
        rest = f"{duty} | {self.peak_mb or 0:.0f} | {self.first_s:.1f}"
        return f"| {self.trunk} | {self.size} | {self.way} | {share} | {rest} |"


def detector(trunk: Any, way: Way, device: str, zooms: tuple[float, ...]) -> Detector:
    """Made-up weights under which no cell fires."""
    torch.manual_seed(0)
    templates = replace(TemplateSet(WITH_TINY.templates, b=WITH_TINY.b), outputs=USED)
    config = NetworkConfig(TrunkConfig(trunk), outputs=len(USED))
    network = HRNetwork(config)
    for head in network.heads.values():
        nn.init.constant_(head.bias[: len(USED)], -9.0)  # type: ignore[index]
    runtime = Runtime(device, way.precision, "asked for")  # type: ignore[arg-type]
    spec = ModelSpec(trunk, network=config, templates=templates)
    made = Detector(network, spec, runtime, DetectOptions(zooms=zooms))
    if way.compiled is not None:
        made.network.forward = torch.compile(made.network.forward, mode=way.compiled)  # type: ignore[method-assign]
    return made


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


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()


def convolved_gflop(network: HRNetwork, call: Callable[[], object]) -> float:
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


def measured(
    trunk: str,
    size: tuple[int, int],
    way: Way,
    device: str,
    zooms: tuple[float, ...],
    seconds: float,
    limit_gflops: float,
) -> Measured:
    """Times calls for so many seconds after two that are not counted."""
    named = f"{size[0]} x {size[1]}"
    torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = way.tf32
    picture: NDArray[np.uint8] = np.random.default_rng(0).integers(0, 255, (size[1], size[0], 3), np.uint8)
    try:
        plain = detector(trunk, replace(way, compiled=None), device, zooms)
        gflop = convolved_gflop(plain.network, lambda: plain(picture)) if device == "cuda" else 1.0
        found = plain if way.compiled is None else detector(trunk, way, device, zooms)
        if device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        began = time.perf_counter()
        found(picture)
        first_s = time.perf_counter() - began
        found(picture)
        times = []
        while sum(times) < seconds or len(times) < 3:
            began = time.perf_counter()
            found(picture)
            synchronise(device)
            times.append(time.perf_counter() - began)
        duty = duty_of(lambda: found(picture)) if device == "cuda" else None
        peak_mb = torch.cuda.max_memory_allocated() / 2**20 if device == "cuda" else 0.0
    except Exception as error:
        return Measured(trunk, named, way.name, problem=f"failed: {str(error).splitlines()[0][:80]}")
    rate = 1 / statistics.median(times)
    return Measured(trunk, named, way.name, rate, first_s, gflop, limit_gflops / gflop, duty, peak_mb)


def asked(arguments: Sequence[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", default="cuda", choices=("cuda", "cpu"))
    parser.add_argument("--trunks", nargs="+", default=["resnet101", "resnet50", "mobilenet_v2", "vgg16"])
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
                elif way.compiled and (trunk != "resnet50" or size != sizes[-1]):
                    continue  # compiling takes minutes
                else:
                    found = measured(trunk, size, way, device, tuple(options.zooms), options.seconds, limit)
                results.append(found)
                print(found.row(), flush=True)
                if device == "cuda":
                    torch.cuda.empty_cache()
    print("\nthe paper, ResNet-101: " + ", ".join(f"{rate} at {width} px wide" for (_, width), rate in PAPER.items()))
    if options.json is not None:
        told = {
            "device": name,
            "torch": torch.__version__,
            "matmul_gflops": limit,
            "rows": [asdict(r) for r in results],
        }
        options.json.write_text(json.dumps(told, indent=1) + "\n")


if __name__ == "__main__":
    main()
