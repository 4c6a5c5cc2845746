"""Does bf16 find the faces that fp32 finds?

    python benchmarks/precision.py [--pictures DIR] [--model NAME|PATH ...] [--precision bf16] [--json FILE]

Runs each model on every picture of a folder (loose files and tar) in fp32 and in the other precision, and counts the
boxes of each that the other has too: IoU of at least 0.9 and a score within 0.02. Prints a Markdown table, with what
the others fail by:

- border: the other has it, but just not above the least score;
- score: it is there, its score is further off;
- box: a box of IoU 0.5 to 0.9 is there;
- gone: none of IoU 0.5 is.
"""

from __future__ import annotations

import sys
import tarfile
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from cyclopts import App, Parameter
from figures import finish
from numpy.typing import NDArray

from tinyface_core import boxes
from tinyface_core.detect.detections import Detections
from tinyface_core.detect.detector import Detector
from tinyface_core.detect.options import DetectOptions, Precision
from tinyface_core.detect.runtime import choose_runtime
from tinyface_core.model.spec import bundled_names
from tinyface_core.picture.decode import decode
from tinyface_core.picture.picture import Limits, Picture

ROOT = Path(__file__).resolve().parents[1]
LEAST = 0.1
SAME_IOU, NEAR_IOU, SAME_SCORE = 0.9, 0.5, 0.02
app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


@dataclass(frozen=True)
class Agreement:
    """Boxes of one precision above a score, and how many the other has not, by why."""

    model: str
    of: str
    min_score: float
    boxes: int
    same: int
    border: int
    score: int
    box: int
    gone: int

    def row(self) -> str:
        share = f"{self.same / self.boxes:.2%}" if self.boxes else "-"
        failed = f"{self.border} | {self.score} | {self.box} | {self.gone}"
        return f"| {self.model} | {self.of} | {self.min_score:g} | {self.boxes} | {share} | {failed} |"


def pictures_in(folder: Path) -> Iterator[NDArray[np.uint8]]:
    """Every picture that decodes, loose or in a tar."""
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        if path.suffix == ".tar":
            with tarfile.open(path) as tar:
                streams = [tar.extractfile(member) for member in tar if member.isfile()]
                datas = [stream.read() for stream in streams if stream]
        else:
            datas = [path.read_bytes()]
        for data in datas:
            picture = decode(data, Limits())
            if isinstance(picture, Picture):
                yield picture.rgb_HW3


def agreement(model: str, of: str, min_score: float, pairs: list[tuple[Detections, Detections]]) -> Agreement:
    """Of the first of each pair, above min_score, against the second."""
    counts = dict.fromkeys(("boxes", "same", "border", "score", "box", "gone"), 0)
    for ours, theirs in pairs:
        here_K = ours.scores_K > min_score
        counts["boxes"] += int(here_K.sum())
        if not len(theirs):
            counts["gone"] += int(here_K.sum())
            continue
        iou_KM = boxes.iou(torch.from_numpy(ours.boxes_K4[here_K]), torch.from_numpy(theirs.boxes_K4)).numpy()
        apart_KM = np.abs(ours.scores_K[here_K][:, None] - theirs.scores_K)
        alike_KM = (iou_KM >= SAME_IOU) & (apart_KM <= SAME_SCORE)
        same_K = (alike_KM & (theirs.scores_K > min_score)).any(axis=1)
        border_K = alike_KM.any(axis=1) & ~same_K
        score_K = (iou_KM >= SAME_IOU).any(axis=1) & ~same_K & ~border_K
        box_K = (iou_KM >= NEAR_IOU).any(axis=1) & ~same_K & ~border_K & ~score_K
        for name, of_K in (("same", same_K), ("border", border_K), ("score", score_K), ("box", box_K)):
            counts[name] += int(of_K.sum())
        counts["gone"] += int((~(same_K | border_K | score_K | box_K)).sum())
    return Agreement(model, of, min_score, **counts)


def compared(model: str, pictures: list[NDArray[np.uint8]], precision: Precision) -> list[Agreement]:
    """Both ways, at the model's default score and at LEAST."""
    # Below LEAST by as much as a score may differ, so that what fell just below it is told from what is gone. Greedy
    # NMS takes better boxes first, so the boxes above a score are the same whatever lies below it.
    options = DetectOptions(min_score=LEAST - SAME_SCORE)
    exact = Detector.load(model, options, choose_runtime("auto", "fp32"))
    other = Detector.load(model, options, choose_runtime("auto", precision))
    pairs = []
    for number, picture in enumerate(pictures, 1):
        begin = time.perf_counter()
        pairs.append((exact(picture), other(picture)))
        print(f"{model} {number}/{len(pictures)}: {time.perf_counter() - begin:.0f} s", file=sys.stderr)
    turned = [(second, first) for first, second in pairs]
    found = []
    for min_score in (exact.spec.defaults.score, LEAST):
        found.append(agreement(model, "fp32", min_score, pairs))
        found.append(agreement(model, precision, min_score, turned))
    return found


@app.default
def main(
    *,
    pictures: Path = ROOT / "demo" / "archive",
    model: list[str] | None = None,
    precision: Precision = "bf16",
    limit: int | None = None,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """Compares the two precisions. model: the bundled ones by default. limit: of the first pictures."""
    shown = list(pictures_in(pictures))[:limit]
    print(f"{len(shown)} pictures, {precision} against fp32\n")
    print("| model | boxes of | score above | boxes | the other has too | border | score | box | gone |")
    print("|---|---|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    found = []
    for name in model or bundled_names():
        for row in compared(name, shown, precision):
            print(row.row(), flush=True)
            found.append(row)
    finish([asdict(row) for row in found], json_file)


if __name__ == "__main__":
    app()
