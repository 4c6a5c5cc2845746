"""What benchmarks/gpu.py measures: a detector of made-up weights with one combination of levers, on one picture."""

from __future__ import annotations

import sys
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any
from unittest.mock import patch

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tinyface_core.detect import runtime as runtimes  # noqa: E402
from tinyface_core.detect.decode import logit  # noqa: E402
from tinyface_core.detect.detector import Detector  # noqa: E402
from tinyface_core.detect.options import DetectOptions, Runtime  # noqa: E402
from tinyface_core.detect.pyramid import levels_for  # noqa: E402
from tinyface_core.detect.resize import Region  # noqa: E402
from tinyface_core.detect.tiling import Tile  # noqa: E402
from tinyface_core.model.convolve import plain  # noqa: E402
from tinyface_core.model.network import HRNetwork  # noqa: E402
from tinyface_core.model.spec import ModelSpec, NetworkConfig, TrunkConfig  # noqa: E402
from tinyface_core.templates import WITH_TINY, TemplateSet  # noqa: E402

USED = tuple(sorted({*WITH_TINY.a, *WITH_TINY.b}))


@dataclass(frozen=True)
class Way:
    """One combination of levers; the first of WAYS is the job's. compiled: torch.compile's mode; None: as it is.

    boxes: that fire. batch: pictures at once through the network alone; 0: the whole call. detectors: processes.
    """

    name: str
    precision: str = "bf16"
    compiled: str | None = None
    tf32: bool = False
    folded: bool = True
    channels_last: bool = True
    boxes: int = 0
    batch: int = 0
    detectors: int = 1


WAYS = (
    Way("bf16"),
    Way("fp32", "fp32"),
    Way("bf16, 10,000 boxes", boxes=10_000),
    Way("bf16, 3 detectors", detectors=3),
    Way("bf16, network", batch=1),
    Way("bf16, network, 4 pictures at once", batch=4),
    Way("fp32 as tf32", "fp32", tf32=True),
    Way("bf16, norms not folded", folded=False),
    Way("bf16, channels first", channels_last=False),
    Way("bf16, compiled", compiled="default"),
    Way("bf16, in CUDA graphs", compiled="reduce-overhead"),
)


@dataclass(frozen=True)
class Task:
    """What is measured: a way on pictures of one size, for so many seconds."""

    trunk: str
    size: tuple[int, int]
    way: Way
    device: str
    zooms: tuple[float, ...]
    seconds: float

    @property
    def picture(self) -> NDArray[np.uint8]:
        width, height = self.size
        return np.random.default_rng(0).integers(0, 255, (height, width, 3), np.uint8)


def detector(trunk: Any, way: Way, device: str, zooms: tuple[float, ...]) -> Detector:
    """Made-up weights under which no cell fires yet."""
    torch.manual_seed(0)
    templates = replace(TemplateSet(WITH_TINY.templates, b=WITH_TINY.b), outputs=USED)
    config = NetworkConfig(TrunkConfig(trunk), outputs=len(USED))
    network = HRNetwork(config)
    for head in network.heads.values():
        nn.init.constant_(head.bias[: len(USED)], -9.0)  # type: ignore[index]
    runtime = Runtime(device, way.precision, "asked for")  # type: ignore[arg-type]
    spec = ModelSpec(trunk, network=config, templates=templates)
    with nullcontext() if way.folded else patch.object(runtimes, "_fold_batch_norm"):
        made = Detector(network, spec, runtime, DetectOptions(zooms=zooms))
    made.network.trunk.convolve = made.network.score = plain  # on a CPU too: hooks see it
    if not way.channels_last:
        made.network.to(memory_format=torch.contiguous_format)
        made.network.register_forward_pre_hook(lambda _, inputs: (inputs[0].contiguous(),))
    if way.compiled is not None:
        made.network.forward = torch.compile(made.network.forward, mode=way.compiled)  # type: ignore[method-assign]
    return made


@torch.inference_mode()
def fire(found: Detector, picture: NDArray[np.uint8], boxes: int) -> None:
    """Lifts all scores so that about so many cells of this picture are above the threshold."""
    levels = levels_for((picture.shape[0], picture.shape[1]), found.zooms, found.spec.templates)
    maps = [found.network(one_N3HW).logits_NTHW for one_N3HW in shown(found, picture)]
    logits = torch.cat(
        [
            one[0, [found.spec.templates.outputs.index(i) for i in level.templates]].flatten()
            for one, level in zip(maps, levels, strict=True)
        ]
    )
    lift = logit(found.min_score) - float(logits.float().cpu().sort(descending=True).values[boxes])
    finest = found.network.heads[str(found.network.strides[0])]
    finest.bias[: len(USED)] += lift  # type: ignore[index, operator]


def shown(found: Detector, picture: NDArray[np.uint8], count: int = 1) -> list[Tensor]:
    """Each level as the network takes it, of so many pictures at once."""
    levels = levels_for((picture.shape[0], picture.shape[1]), found.zooms, found.spec.templates)
    rgb_HW3 = torch.from_numpy(picture).to(found.runtime.device)
    regions = [Region(0, 0, *level.size.image_hw) for level in levels]
    ones = [
        found._shown(rgb_HW3, level, Tile(all_, all_, all_.hw)) for level, all_ in zip(levels, regions, strict=True)
    ]
    return [one.repeat(count, 1, 1, 1).contiguous(memory_format=torch.channels_last) for one in ones]


def call_of(task: Task, way: Way) -> tuple[Detector, Callable[[], object]]:
    """The detector of a way, and what is timed of it."""
    picture = task.picture
    found = detector(task.trunk, way, task.device, task.zooms)
    if way.boxes:
        fire(found, picture, way.boxes)
    if not way.batch:
        return found, lambda: found(picture)
    levels = shown(found, picture, way.batch)

    @torch.inference_mode()
    def network() -> None:
        for level_N3HW in levels:
            found.network(level_N3HW)
        synchronise(task.device)

    return found, network


def synchronise(device: str) -> None:
    if device == "cuda":
        torch.cuda.synchronize()
