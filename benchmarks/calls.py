"""How many kernels must a host start for one picture on a GPU, and how often must it wait for one?

    python benchmarks/calls.py [--models NAME ...] [--size 1920 1080] [--scores 0.1 0.5] [--json FILE]

Needs no GPU: the demo's crowd goes through the code that a GPU would run (torch's own convolutions, NMS and vote in
large groups) on a CPU in fp32, and the operators that torch is asked for are counted, views left out. Waits are
operators whose answer decides what comes next: how many cells fire, whether NMS is done. Copies of pictures and results
are not among them. Prints a Markdown table.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from cyclopts import App, Parameter
from figures import finish
from model_loop import CROWD
from PIL import Image
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from tinyface_core import boxes
from tinyface_core.detect.detector import Detector
from tinyface_core.detect.options import DetectOptions, Runtime
from tinyface_core.detect.pyramid import levels_for
from tinyface_core.model.convolve import plain

WAITS = {"nonzero", "nonzero_numpy", "equal", "_local_scalar_dense", "masked_select"}
app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


@dataclass(frozen=True)
class Counted:
    """Of one part of a picture's way: operators that are no views, and those that are waited for."""

    model: str
    score: float
    part: str
    boxes: int
    calls: int
    waits: int


class Counter(TorchDispatchMode):
    """Counts while it is entered."""

    def __init__(self) -> None:
        super().__init__()
        self.calls = self.waits = 0

    def __torch_dispatch__(
        self, operator: Any, types: Any, args: tuple[Any, ...] = (), kwargs: Mapping[str, Any] | None = None
    ) -> Any:
        name = operator.name().removeprefix("aten::").partition(".")[0]
        made = operator(*args, **(kwargs or {}))
        self.calls += name.endswith("_") or not _shares(made, args)
        self.waits += name in WAITS or (name == "index" and any(_is_mask(index) for index in args[1]))
        return made


def _shares(made: Any, args: tuple[Any, ...]) -> bool:
    """Whether an operator made no numbers: its answer, or the first of several, lies in an argument's memory."""
    first = made[0] if isinstance(made, tuple | list) and made else made
    if not isinstance(first, Tensor):
        return False
    taken = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, Tensor)}
    return first.untyped_storage().data_ptr() in taken


def _is_mask(index: Tensor | None) -> bool:
    return index is not None and index.dtype == torch.bool


def counted(model: str, score: float, size_hw: tuple[int, int]) -> list[Counted]:
    """Levels with their decoding, NMS, and vote, of one picture."""
    detector = Detector.load(model, DetectOptions(min_score=score), Runtime("cpu", "fp32", "counted as on a GPU"))
    detector.network.trunk.convolve = detector.network.score = plain
    picture = cv2.resize(np.asarray(Image.open(CROWD).convert("RGB")), size_hw[::-1], interpolation=cv2.INTER_AREA)
    levels = levels_for(size_hw, detector.zooms, detector.spec.templates, detector.spec.defaults.level_heights)
    rows = []

    def count(part: str, call: Callable[[], Any], before: int = 0) -> Any:
        with Counter() as counter:
            found = call()
        rows.append(Counted(model, score, part, before, counter.calls, counter.waits))
        return found

    found = count("levels", lambda: detector.candidates(torch.from_numpy(picture), levels))
    boxes_K4, scores_K = found.boxes_K4, found.scores_K
    kept = count("NMS", lambda: boxes.nms(boxes_K4, scores_K, detector.nms_iou), len(scores_K))
    vote_iou = detector.spec.defaults.vote_iou
    if vote_iou is not None:
        count("vote", lambda: boxes.vote(boxes_K4, scores_K, kept, vote_iou), len(kept))
    return rows


@app.default
def run(
    *,
    models: tuple[str, ...] = ("hr-resnet50", "hr-mobilenetv2"),
    size: tuple[int, int] = (1920, 1080),
    scores: tuple[float, ...] = (0.1, 0.5),
    json: Path | None = None,
) -> None:
    """scores: from which boxes are looked at."""
    boxes._on_cpu = lambda boxes_K4: False
    with torch.inference_mode():
        rows = [row for model in models for score in scores for row in counted(model, score, (size[1], size[0]))]
    print("| model | scores above | part | boxes | calls | waits |\n|---|---:|---|---:|---:|---:|")
    for row in rows:
        print(f"| {row.model} | {row.score} | {row.part} | {row.boxes or ''} | {row.calls:,} | {row.waits} |")
    finish([asdict(row) for row in rows], json)


if __name__ == "__main__":
    app()
