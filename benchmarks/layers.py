"""Where does a picture's time go, layer by layer, and which layers wait for memory?

    python benchmarks/layers.py [--models NAME ...] [--size 1920 1080] [--zooms 0.25 0.5 1 2] [--precision P] \
        [--rounds 3] [--json FILE]

One process of one thread for each model, in the memory that the job gives its detectors. The convolutions of all
levels are summed by the stride of what they give and by their kernel. A layer could take as long as its operations do
at the rate of a product of two matrices of 2,048 x 2,048, or as long as the bytes that it must read and write do at the
rate of a copy of 256 MB: whichever is longer binds it. `of limit` is that time over what it took. Prints Markdown.
"""

from __future__ import annotations

import json
import math
import os
import subprocess
import sys
import time
from collections import defaultdict
from collections.abc import Callable
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated, Any

import torch
from cyclopts import App, Parameter
from figures import finish
from model_loop import ROOT, SIDE, crowd, loaded
from torch import Tensor, nn

from tinyface_core import boxes
from tinyface_core.detect import detector as detector_module
from tinyface_core.detect.decode import CellDecoder
from tinyface_core.detect.options import Precision
from tinyface_core.detect.runtime import DTYPES, choose_runtime
from tinyface_core.model.cells import CellMeans
from tinyface_core.model.network import HRNetwork

COPIED_MB = 256
CONVOLUTION = "convolution"
app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


@dataclass
class Spent:
    """Of one picture. Work is known of convolutions only."""

    calls: int = 0
    cpu_s: float = 0.0
    gflop: float = 0.0
    gbytes: float = 0.0


@dataclass
class Stopwatch:
    """CPU time by part; what a part calls that is watched itself counts there alone."""

    spent: dict[str, Spent] = field(default_factory=lambda: defaultdict(Spent))
    _inner: list[float] = field(default_factory=list)

    def timed(self, part: str, function: Callable[..., Any], *arguments: Any, **named: Any) -> Any:
        self._inner.append(0.0)
        began = time.process_time()
        answer = function(*arguments, **named)
        took_s = time.process_time() - began
        self.spent[part].calls += 1
        self.spent[part].cpu_s += took_s - self._inner.pop()
        if self._inner:
            self._inner[-1] += took_s
        return answer

    def watch(self, holder: Any, name: str, part: str) -> None:
        """Puts itself around a function or method."""
        inner = getattr(holder, name)
        setattr(holder, name, lambda *arguments, **named: self.timed(part, inner, *arguments, **named))

    def watch_convolutions(self, network: HRNetwork) -> None:
        """By what each gives and its kernel, with its operations and the bytes it must move."""
        inner, heads, shown_hw = network.trunk.convolve, set(network.heads.modules()), [0]
        network.register_forward_pre_hook(lambda _, shown: shown_hw.__setitem__(0, shown[0].shape[2]))

        def convolve(x_NCHW: Tensor, convolution: nn.Conv2d, *rest: Any) -> Tensor:
            out_NCHW: Tensor = self.timed(CONVOLUTION, inner, x_NCHW, convolution, *rest)
            took = self.spent.pop(CONVOLUTION)
            kernel = " x ".join(map(str, convolution.kernel_size))
            kind = "heads" if convolution in heads else kernel + (" depthwise" if convolution.groups > 1 else "")
            spent = self.spent[f"stride {1 << round(math.log2(shown_hw[0] / out_NCHW.shape[2]))}, {kind}"]
            maps = [x_NCHW, out_NCHW, *(one for one in rest if isinstance(one, Tensor))]
            moved = sum(one.nbytes for one in maps) + convolution.weight.numel() * x_NCHW.element_size()
            spent.calls, spent.cpu_s = spent.calls + 1, spent.cpu_s + took.cpu_s
            spent.gflop += 2 * out_NCHW.numel() * convolution.weight[0].numel() / 1e9
            spent.gbytes += moved / 1e9
            return out_NCHW

        network.trunk.convolve = network.score = convolve


@dataclass(frozen=True)
class Rates:
    """What the processor can do: GFLOP/s of a product of matrices, GB/s of a copy (read and written)."""

    matmul: float
    copied: float

    @classmethod
    def measured(cls, precision: Precision) -> Rates:
        matrix = torch.randn(SIDE, SIDE).to(DTYPES[precision])
        bytes_ = torch.randint(-127, 128, (SIDE, SIDE), dtype=torch.int8)
        source = torch.ones(COPIED_MB << 20, dtype=torch.uint8)
        target = torch.zeros_like(source)
        product = (lambda: torch._int_mm(bytes_, bytes_)) if precision == "int8" else (lambda: torch.mm(matrix, matrix))
        return cls(
            2 * SIDE**3 / _fastest(product) / 1e9, 2 * source.nbytes / _fastest(lambda: target.copy_(source)) / 1e9
        )

    def limit_s(self, spent: Spent) -> tuple[float, str]:
        """The least that convolutions can take, and what binds them."""
        return max((spent.gflop / self.matmul, "computing"), (spent.gbytes / self.copied, "memory"))


def _fastest(call: Callable[[], object]) -> float:
    """CPU s of the fastest of five calls."""
    took = []
    for _ in range(5):
        began = time.process_time()
        call()
        took.append(time.process_time() - began)
    return min(took)


@app.command
def child(model: str, precision: Precision, width: int, height: int, zooms: list[float], *, rounds: int) -> None:
    """Prints precision, rates, and the parts of the picture of median time, as JSON."""
    torch.set_num_threads(1)
    runtime = choose_runtime("cpu", precision)
    detector, picture = loaded(model, tuple(zooms), runtime), crowd(width, height)
    detector(picture)  # not counted: oneDNN prepares
    watch = Stopwatch()
    watch.watch_convolutions(detector.network)
    watch.watch(detector_module, "resize_region", "resizing")
    watch.watch(detector, "_shown", "normalising")
    watch.watch(detector.network, "forward", "pooling, enlarging, adding")
    watch.watch(CellDecoder, "decode", "thresholding, decoding")
    watch.watch(CellMeans, "at", "ellipses")
    watch.watch(boxes, "nms", "NMS")
    watch.watch(boxes, "vote", "vote")
    seen = []
    for _ in range(rounds):
        watch.spent.clear()
        watch.timed("all else", detector, picture)
        seen.append(dict(watch.spent))
    seen.sort(key=lambda spent: sum(one.cpu_s for one in spent.values()))
    parts = {part: asdict(spent) for part, spent in seen[len(seen) // 2].items()}
    rates = asdict(Rates.measured(runtime.precision))
    print(json.dumps({"model": model, "precision": runtime.precision, "rates": rates, "parts": parts}))


def tell(found: dict[str, Any]) -> None:
    """A table of one model, most time first."""
    rates, parts = Rates(**found["rates"]), {part: Spent(**spent) for part, spent in found["parts"].items()}
    total_s = sum(spent.cpu_s for spent in parts.values())
    by_bound: dict[str, float] = defaultdict(float)
    print(
        f"\n{found['model']}, {found['precision']}: {total_s:.2f} CPU s; "
        f"matrices {rates.matmul:.0f} GFLOP/s, copy {rates.copied:.1f} GB/s\n"
    )
    print(
        "| part | calls | CPU s | share | GFLOP | GB | bound by | of limit |\n|---|---:|---:|---:|---:|---:|---|---:|"
    )
    for part, spent in sorted(parts.items(), key=lambda one: -one[1].cpu_s):
        told = f"| {part} | {spent.calls} | {spent.cpu_s:.3f} | {spent.cpu_s / total_s:.1%} |"
        if not spent.gflop:
            by_bound["no convolution"] += spent.cpu_s
            print(f"{told} | | | |")
            continue
        limit_s, bound = rates.limit_s(spent)
        by_bound[f"bound by {bound}"] += spent.cpu_s
        print(f"{told} {spent.gflop:.1f} | {spent.gbytes:.2f} | {bound} | {limit_s / spent.cpu_s:.2f} |")
    print("\n" + ", ".join(f"{bound} {cpu_s / total_s:.1%}" for bound, cpu_s in sorted(by_bound.items())), flush=True)


@app.default
def main(
    *,
    models: tuple[str, ...] = ("hr-resnet50", "hr-mobilenetv2"),
    size: tuple[int, int] = (1920, 1080),
    zooms: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0),
    precision: Precision = "auto",
    rounds: int = 3,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """Each model's layers; the median of some pictures after one that is not counted. precision: auto is the job's."""
    sys.path.insert(0, str(ROOT / "jobs"))
    from ray_start import computing_environment  # what the job gives its detectors

    print(f"{size[0]} x {size[1]} px, one thread, torch {torch.__version__}")
    found = []
    for model in models:
        arguments = [model, precision, *map(str, size), *map(str, zooms), "--rounds", str(rounds)]
        command = [sys.executable, str(Path(__file__)), "child", *arguments]
        env = os.environ | computing_environment()["env_vars"]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env).stdout
        found.append(json.loads(said.splitlines()[-1]))
        tell(found[-1])
    finish(found, json_file)


if __name__ == "__main__":
    app()
