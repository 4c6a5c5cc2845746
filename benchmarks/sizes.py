"""What does a picture cost whose size was not seen before, and how many sizes does oneDNN remember?

    python benchmarks/sizes.py [--models NAME ...] [--sizes 2 8 24 60] [--capacities 1024 8192] [--rounds 3] \
        [--json FILE]

oneDNN makes a kernel for each size of map, and keeps as many as its capacity (1,024 by itself). The demo's crowd at so
many sizes, 640 px wide, in an order drawn anew each round; one process of one thread for each line, default levels and
score, memory as in the job. Prints a Markdown table: CPU time a picture in the first round and in the later ones, and
what the process holds then.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
from cyclopts import App, Parameter
from figures import finish
from model_loop import CROWD, ROOT
from PIL import Image

from tinyface_core.detect.detector import Detector

WIDTH, LEAST, STEP = 640, 400, 8  # px: of all pictures; height of the first, and what each is higher
app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


@app.command
def child(model: str, sizes: int, rounds: int) -> None:
    """Prints CPU s a picture of each round, and MB held."""
    torch.set_num_threads(1)
    detector = Detector.load(model)
    crowd = np.asarray(Image.open(CROWD).convert("RGB"))
    pictures = [cv2.resize(crowd, (WIDTH, LEAST + STEP * number)) for number in range(sizes)]
    drawn, taken = np.random.default_rng(1), []
    for _ in range(rounds):
        began = time.process_time()
        for number in drawn.permutation(sizes):
            detector(np.asarray(pictures[number], np.uint8))
        taken.append((time.process_time() - began) / sizes)
    lines = Path("/proc/self/smaps_rollup").read_text().splitlines()
    held_kb = next(int(line.split()[1]) for line in lines if line.startswith("Pss_Anon"))
    print(json.dumps([*taken, held_kb / 1024]))


@app.default
def run(
    *,
    models: tuple[str, ...] = ("hr-mobilenetv2", "hr-resnet50"),
    sizes: tuple[int, ...] = (2, 8, 24, 60),
    capacities: tuple[int, ...] = (1024, 8192),
    rounds: int = 3,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """sizes: of pictures. capacities: of oneDNN, in kernels."""
    sys.path.insert(0, str(ROOT / "jobs"))
    from ray_start import KERNELS, computing_environment  # what the job gives its detectors

    rows = []
    print("| model | sizes | kernels kept | first round, CPU s a picture | later | MB |")
    print("|---|---:|---:|---:|---:|---:|")
    for model in models:
        for count in sizes:
            for capacity in capacities:
                given = computing_environment()["env_vars"] | {KERNELS: str(capacity), "OMP_NUM_THREADS": "1"}
                command = [sys.executable, __file__, "child", model, str(count), str(rounds)]
                done = subprocess.run(command, env=os.environ | given, capture_output=True, text=True, check=True)
                first, *later, held = json.loads(done.stdout.splitlines()[-1])
                again = statistics.median(later) if later else None
                rows.append([model, count, capacity, first, again, held])
                told = "-" if again is None else f"{again:.3f}"
                print(f"| {model} | {count} | {capacity:,} | {first:.3f} | {told} | {held:,.0f} |", flush=True)
    finish(rows, json_file)


if __name__ == "__main__":
    app()
