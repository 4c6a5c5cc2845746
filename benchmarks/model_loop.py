"""How near is the model loop to what the processor can do, and what does each lever bring?

    python benchmarks/model_loop.py [--models NAME ...] [--size 1920 1080] [--zooms 0.25 0.5 1 2] [--precision P] \
        [--rounds 5] [--json FILE]

Ways to compute the same picture: convolutions step by step or in one call of oneDNN, memory from glibc or from the
jemalloc that the job gives its detectors. Each way is a process of one thread; they take turns, one picture each, and
each picture comes after a product of two matrices of 2,048 x 2,048, whose rate is what the processor can do. Where
the processor has VNNI, int8 is one more way, beside products of bytes. Compared is CPU time. Prints a Markdown table;
the share is the whole call's convolutions over that rate.
"""

from __future__ import annotations

import json
import os
import platform
import resource
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import torch
from cyclopts import App, Parameter
from figures import finish
from numpy.typing import NDArray
from PIL import Image
from torch import Tensor, nn

from tinyface_core.detect.detector import Detector
from tinyface_core.detect.options import DetectOptions, Precision, Runtime
from tinyface_core.detect.runtime import DTYPES, best_float, choose_runtime
from tinyface_core.model.convolve import plain
from tinyface_core.model.network import HRNetwork
from tinyface_core.model.spec import find_bundled
from tinyface_core.train.presets import MODELS, preset

ROOT = Path(__file__).resolve().parents[1]
CROWD = ROOT / "demo" / "archive" / "fellows" / "fellows_white_house_2015.jpg"
SIDE = 2048  # of the matrices
WAYS = (("step by step", "glibc"), ("one call", "glibc"), ("step by step", "jemalloc"), ("one call", "jemalloc"))
app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


@dataclass(frozen=True)
class Took:
    """One picture. network_s: of cpu_s, trunk and heads. gflop: of all convolutions. matmul: GFLOP/s, just before."""

    cpu_s: float
    network_s: float
    gflop: float
    matmul: float
    faces: int
    peak_mb: float

    @property
    def share(self) -> float:
        """Of the matmul rate, over the whole call."""
        return self.gflop / self.cpu_s / self.matmul


def crowd(width: int, height: int) -> NDArray[np.uint8]:
    return np.asarray(Image.open(CROWD).convert("RGB").resize((width, height), Image.Resampling.LANCZOS))


def loaded(model: str, zooms: tuple[float, ...], runtime: Runtime) -> Detector:
    """A bundled model or a file, or the architecture of this name with made-up weights."""
    options = DetectOptions(zooms=zooms)
    if find_bundled(model) or model not in MODELS:
        return Detector.load(model, options, runtime)
    spec = preset("fast", model).spec
    network = HRNetwork(spec.network)
    for head in network.heads.values():
        nn.init.constant_(head.bias[: spec.network.outputs], -9.0)  # type: ignore[index]  # finds nothing
    return Detector(network, spec, runtime, options)


@app.command
def child(model: str, form: str, precision: Precision, width: int, height: int, zooms: list[float]) -> None:
    """A line in, one picture and a line out."""
    torch.set_num_threads(1)
    runtime = choose_runtime("cpu", precision)
    detector, picture = loaded(model, tuple(zooms), runtime), crowd(width, height)
    network = detector.network
    assert network.score is network.trunk.convolve
    if form == "step by step":
        network.trunk.convolve = network.score = plain
    gflop = _counted(detector, picture)
    times: list[float] = []
    network.register_forward_pre_hook(lambda *_: times.append(-time.process_time()))
    network.register_forward_hook(lambda *_: times.append(time.process_time()))
    matrix = torch.randn(SIDE, SIDE).to(DTYPES[runtime.precision])
    bytes_ = torch.randint(-127, 128, (SIDE, SIDE), dtype=torch.int8)
    for _ in sys.stdin:
        began = time.process_time()
        if runtime.precision == "int8":
            torch._int_mm(bytes_, bytes_)
        else:
            torch.mm(matrix, matrix)
        matmul = 2 * SIDE**3 / (time.process_time() - began) / 1e9
        times.clear()
        began = time.process_time()
        found = detector(picture)
        cpu_s = time.process_time() - began
        peak_mb = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(asdict(Took(cpu_s, sum(times), gflop, matmul, len(found), peak_mb))), flush=True)


def _counted(detector: Detector, picture: NDArray[np.uint8]) -> float:
    """GFLOP of all convolutions that one picture takes; a multiplication and an addition are two."""
    network, flop = detector.network, 0
    inner: Callable[..., Tensor] = network.trunk.convolve

    def counting(x_NCHW: Tensor, convolution: nn.Conv2d, *rest: Any) -> Tensor:
        nonlocal flop
        out_NCHW = inner(x_NCHW, convolution, *rest)
        flop += 2 * out_NCHW.numel() * convolution.weight[0].numel()
        return out_NCHW

    network.trunk.convolve = network.score = counting
    detector(picture)
    network.trunk.convolve = network.score = inner
    return flop / 1e9


@contextmanager
def running(way: tuple[str, str], arguments: list[str]) -> Iterator[Callable[[], Took]]:
    """A process of this way, to be asked for one picture after the other."""
    sys.path.insert(0, str(ROOT / "jobs"))
    from ray_start import computing_environment  # what the job gives its detectors

    form, allocator = way
    model, precision, *rest = arguments
    added = computing_environment()["env_vars"] if allocator == "jemalloc" else {}
    process = subprocess.Popen(
        [sys.executable, str(Path(__file__)), "child", model, form, "int8" if form == "int8" else precision, *rest],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        env=os.environ | added,
    )
    with process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None

        def one() -> Took:
            stdin.write("\n")
            stdin.flush()
            return Took(**json.loads(stdout.readline()))

        yield one
        stdin.close()


@app.default
def compare(
    *,
    models: tuple[str, ...] = ("hr-resnet50", "hr-mobilenetv2"),
    size: tuple[int, int] = (1920, 1080),
    zooms: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0),
    precision: Precision | None = None,
    rounds: int = 5,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """Measures all ways of each model in turn. precision: of floats; None: the fastest here."""
    runtime = choose_runtime("cpu", precision or best_float("cpu")[0])
    levels = " ".join(f"{zoom:g}" for zoom in zooms)
    print(f"{size[0]} x {size[1]} px at {levels}, {runtime.precision}, one thread, torch {torch.__version__}, ", end="")
    print(f"{platform.processor() or platform.machine()}; median of {rounds} rounds\n")
    print("| model | convolutions | memory | CPU s | of the first | network s | GFLOP | matmul/s | share | peak MB |")
    print("|---|---|---|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    results = []
    for model in models:
        has_ranges = find_bundled(model) or model not in MODELS  # made-up weights have none
        int8 = torch.cpu._is_vnni_supported() and has_ranges
        ways = (*WAYS, ("int8", "jemalloc")) if int8 else WAYS
        arguments = [model, runtime.precision, *map(str, size), *map(str, zooms)]
        with ExitStack() as stack:
            asked = [stack.enter_context(running(way, arguments)) for way in ways]
            for one in asked:
                one()  # not counted: libraries load, oneDNN prepares
            rounds_RW = [[one() for one in asked] for _ in range(rounds)]
        first = statistics.median(took[0].cpu_s for took in rounds_RW)
        for way, took in zip(ways, zip(*rounds_RW, strict=True), strict=True):
            middle = Took(*(statistics.median(getattr(one, name) for one in took) for name in asdict(took[0])))
            results.append({"model": model, "convolutions": way[0], "memory": way[1], **asdict(middle)})
            print(
                f"| {model} | {way[0]} | {way[1]} | {middle.cpu_s:.2f} | {middle.cpu_s / first:.2f} "
                f"| {middle.network_s:.2f} | {middle.gflop:.0f} | {middle.matmul:.0f} | {middle.share:.2f} "
                f"| {middle.peak_mb:.0f} |",
                flush=True,
            )
    finish(results, json_file)


if __name__ == "__main__":
    app()
