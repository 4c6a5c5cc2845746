"""How long does jobs/evaluate.py take over the whole of WIDER FACE's validation set and a million detections?

    python benchmarks/judging.py --truth eval_gt [--detections 1000000] [--samples 1 1000] [--rounds 3] [--json FILE]

Made-up detections of all 3,226 pictures: each face with its corners moved a little, and boxes anywhere, equally many
a picture, in WIDER's text form. The whole command is timed, with its start and the reading of the files, and with so
many bootstrap samples. Prints a Markdown table; medians.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import numpy as np
from cyclopts import App, Parameter
from figures import finish

from tinyface_core.evaluate.matching import Found
from tinyface_core.evaluate.results import write_text
from tinyface_core.evaluate.truth import Truth, read_truth

ROOT = Path(__file__).resolve().parents[1]
app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


def made_up(truth: Truth, detections: int) -> dict[str, Found]:
    """Of every picture, (x, y, width, height); faces score higher than boxes anywhere, with much overlap."""
    draw = np.random.default_rng(0)
    each = -(-max(0, detections - len(truth.faces_F4)) // len(truth.names))
    found = {}
    for name, begin, end in zip(truth.names, truth.starts_P1[:-1], truth.starts_P1[1:], strict=True):
        faces_K4 = truth.faces_F4[begin:end]
        moved_K4 = faces_K4 + draw.normal(0, 0.08, faces_K4.shape) * np.maximum(faces_K4[:, 2:3], 1)
        others_K4 = np.column_stack([draw.uniform(0, 1000, (each, 2)), draw.uniform(4, 120, (each, 2))])
        boxes_K4 = np.concatenate([moved_K4, others_K4])
        boxes_K4[:, 2:] = np.maximum(boxes_K4[:, 2:], 1)
        scores_K = np.concatenate([draw.beta(4, 2, len(moved_K4)), draw.beta(1, 6, each)])
        found[name] = Found(boxes_K4, scores_K)
    return found


@app.default
def main(
    *,
    truth: Path,
    detections: int = 1_000_000,
    samples: tuple[int, ...] = (1, 1000),
    rounds: int = 3,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """Makes the detections, then times the command in turns."""
    known = read_truth(truth)
    found = made_up(known, detections)
    count = sum(len(one.scores_K) for one in found.values())
    took: dict[int, list[float]] = {each: [] for each in samples}
    with tempfile.TemporaryDirectory() as folder:
        write_text(found, Path(folder) / "results")
        command = [sys.executable, str(ROOT / "jobs" / "evaluate.py"), f"{folder}/results", "--truth", str(truth)]
        for _ in range(rounds):
            for each in samples:
                began = time.perf_counter()
                subprocess.run(
                    [*command, "--samples", str(each)], check=True, stdout=subprocess.DEVNULL, env=os.environ
                )
                took[each].append(time.perf_counter() - began)
    print("| pictures | detections | bootstrap samples | seconds |\n|---:|---:|---:|---:|")
    for each, seconds in took.items():
        print(f"| {len(known.names):,} | {count:,} | {each:,} | {statistics.median(seconds):.1f} |")
    finish({"pictures": len(known.names), "detections": count, "seconds": took}, json_file)


if __name__ == "__main__":
    app()
