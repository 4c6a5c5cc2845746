"""What does `--focus` save, and which faces does it lose?

    python benchmarks/focus.py --pictures DIR [--every 8] [--models NAME ...] [--focus 0.05 0.1 0.15 0.2] [--json FILE]

Each picture without it and with it at each score, in turn, in one process of one thread and the memory of the job's
detectors; default levels and scores. Lost is a face that was found without it, and overlaps none of IoU 0.5 now.
Heights are of the box. Prints a Markdown table: CPU time and faces of all pictures; time of those where no level above
1x has a face apart.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from cyclopts import App, Parameter
from figures import finish
from model_loop import ROOT
from precision import pictures_in

from tinyface_core import boxes
from tinyface_core.detect.detections import Detections
from tinyface_core.detect.detector import Detector
from tinyface_core.detect.options import DetectOptions

HEIGHTS_PX = (0, 20, 40, 1e9)
app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


def lost(before: Detections, after: Detections) -> np.ndarray:  # type: ignore[type-arg]
    """Faces of each height that were found, and those of them that are not found any more, (2, 3)."""
    heights_K = before.boxes_K4[:, 3] - before.boxes_K4[:, 1]
    gone_K = np.ones(len(heights_K), bool)
    if len(after):
        gone_K = boxes.iou(*(torch.from_numpy(one.boxes_K4) for one in (before, after))).numpy().max(axis=1) < 0.5
    return np.stack([np.histogram(heights, HEIGHTS_PX)[0] for heights in (heights_K, heights_K[gone_K])])


@app.command
def child(model: str, folder: Path, scores: list[float], *, every: int) -> None:
    """Prints a line for each score, the first without focus."""
    torch.set_num_threads(1)
    detector = Detector.load(model, DetectOptions())
    choices = (None, *scores)
    cpu_s, empty_s, counts = np.zeros(len(choices)), np.zeros(len(choices)), np.zeros((len(choices), 2, 3), int)
    for number, picture in enumerate(pictures_in(folder)):
        if number % every:
            continue
        found, took = [], []
        detector(picture)  # prepares for the size; not counted
        for choice in choices:
            detector.focus = choice
            began = time.process_time()
            found.append(detector(picture))
            took.append(time.process_time() - began)
        detector.focus = None
        cpu_s += took
        empty_s += 0 if (found[0].zoom_K > 1).any() else took
        counts += [lost(found[0], one) for one in found]
    print(
        json.dumps([[*line] for line in zip(choices, cpu_s.tolist(), empty_s.tolist(), counts.tolist(), strict=True)])
    )


@app.default
def main(
    *,
    pictures: Path = ROOT / "demo" / "archive",
    every: int = 1,
    models: tuple[str, ...] = ("hr-resnet50", "hr-mobilenetv2"),
    focus: tuple[float, ...] = (0.05, 0.1, 0.15, 0.2),
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """every: each n-th picture of the folder. focus: scores of 1x."""
    sys.path.insert(0, str(ROOT / "jobs"))
    from ray_start import computing_environment  # what the job gives its detectors

    print("| model | focus | CPU s | of all | where above 1x none is | lost under 20 px | 20-40 px | from 40 px |")
    print("|---|---:|---:|---:|---:|---:|---:|---:|", flush=True)
    results = []
    for model in models:
        command = [sys.executable, str(Path(__file__)), "child", model, str(pictures), *map(str, focus)]
        env = os.environ | computing_environment()["env_vars"]
        command += ["--every", str(every)]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env).stdout
        lines = json.loads(said.splitlines()[-1])
        _, all_s, all_empty_s, _ = lines[0]
        for choice, cpu_s, empty_s, (found, gone) in lines:
            told = " | ".join(f"{g:,} of {f:,}" for g, f in zip(gone, found, strict=True))
            of_empty = f"{empty_s / all_empty_s:.2f}" if all_empty_s else "-"
            print(
                f"| {model} | {choice or '-'} | {cpu_s:.1f} | {cpu_s / all_s:.2f} | {of_empty} | {told} |", flush=True
            )
            results.append(
                {"model": model, "focus": choice, "cpu_s": cpu_s, "empty_s": empty_s, "found": found, "lost": gone}
            )
    finish(results, json_file)


if __name__ == "__main__":
    app()
