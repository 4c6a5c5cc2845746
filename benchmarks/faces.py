"""Does a picture's cost depend on how many faces it shows?

    python benchmarks/faces.py [--models NAME ...] [--size 1920 1080] [--counts 0 10 100 1000 10000] [--rounds 3] \
        [--json FILE]

Faces that the model finds in the demo's crowd are pasted on that crowd, blurred until it shows none, in rows, as large
as that many fit. One process of one thread, default scores and levels, the pictures in turn. Prints a Markdown table:
median CPU time, and of it what is outside the network.
"""

from __future__ import annotations

import json
import math
import os
import statistics
import subprocess
import sys
from pathlib import Path
from typing import Annotated

import cv2
import numpy as np
import torch
from cyclopts import App, Parameter
from figures import finish
from layers import Stopwatch
from model_loop import CROWD, ROOT
from numpy.typing import NDArray
from PIL import Image

from tinyface_core.detect.detector import Detector

TALLEST_PX, LEAST_PX = 80, 40  # pasted at most so large; cut from faces that are no smaller
AROUND = 0.35  # of a face's height, of its surroundings on each side
app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


def faces_of(picture: NDArray[np.uint8], detector: Detector) -> list[NDArray[np.uint8]]:
    """Square cuts around the surest faces."""
    found, cut = detector(picture), []
    for x0, y0, x1, y1 in found.boxes_K4.astype(float):
        half = (0.5 + AROUND) * (y1 - y0)
        top, left = round((y0 + y1) / 2 - half), round((x0 + x1) / 2 - half)
        bottom, right = round((y0 + y1) / 2 + half), round((x0 + x1) / 2 + half)
        inside = top >= 0 and left >= 0 and bottom <= picture.shape[0] and right <= picture.shape[1]
        if inside and y1 - y0 >= LEAST_PX:
            cut.append(picture[top:bottom, left:right])
    return cut[:20]


def shown(background: NDArray[np.uint8], faces: list[NDArray[np.uint8]], count: int) -> NDArray[np.uint8]:
    """The background with `count` faces in rows."""
    picture = background.copy()
    if not count:
        return picture
    height, width = picture.shape[:2]
    side = int(min(TALLEST_PX * (1 + 2 * AROUND), math.sqrt(height * width / count)))
    while (height // side) * (width // side) < count:
        side -= 1
    for number in range(count):
        row, column = divmod(number, width // side)
        face = cv2.resize(faces[number % len(faces)], (side, side), interpolation=cv2.INTER_AREA)
        picture[row * side : (row + 1) * side, column * side : (column + 1) * side] = face
    return picture


@app.command
def child(model: str, width: int, height: int, counts: list[int], *, rounds: int) -> None:
    """Prints a line for each count: faces shown, faces found, CPU s, of it outside the network."""
    torch.set_num_threads(1)
    detector = Detector.load(model)
    crowd = np.asarray(Image.open(CROWD).convert("RGB"))
    faces = faces_of(crowd, detector)
    background = cv2.GaussianBlur(cv2.resize(crowd, (width, height)), (0, 0), height / 20)
    pictures = [shown(np.asarray(background, np.uint8), faces, count) for count in counts]
    for picture in pictures:
        detector(picture)  # not counted
    watch = Stopwatch()
    watch.watch(detector.network, "forward", "network")
    took: list[list[tuple[float, float]]] = [[] for _ in counts]
    found = [0 for _ in counts]
    for _ in range(rounds):
        for index, picture in enumerate(pictures):
            watch.spent.clear()
            found[index] = len(watch.timed("rest", detector, picture))
            rest_s = watch.spent["rest"].cpu_s
            took[index].append((rest_s + watch.spent["network"].cpu_s, rest_s))
    medians = [[statistics.median(times) for times in zip(*one, strict=True)] for one in took]
    print(json.dumps([[*line] for line in zip(counts, found, *zip(*medians, strict=True), strict=True)]))


@app.default
def main(
    *,
    models: tuple[str, ...] = ("hr-resnet50", "hr-mobilenetv2"),
    size: tuple[int, int] = (1920, 1080),
    counts: tuple[int, ...] = (0, 10, 100, 1000, 10_000),
    rounds: int = 3,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """Each model in the precision and the memory of the job's detectors."""
    sys.path.insert(0, str(ROOT / "jobs"))
    from ray_start import computing_environment  # what the job gives its detectors

    print(f"{size[0]} x {size[1]} px, one thread, median of {rounds} rounds\n")
    print(
        "| model | faces shown | found | CPU s | of the first | outside the network s |\n|---|---:|---:|---:|---:|---:|"
    )
    results = []
    for model in models:
        arguments = [model, *map(str, size), *map(str, counts), "--rounds", str(rounds)]
        command = [sys.executable, str(Path(__file__)), "child", *arguments]
        env = os.environ | computing_environment()["env_vars"]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env).stdout
        lines = json.loads(said.splitlines()[-1])
        for count, found, cpu_s, rest_s in lines:
            print(
                f"| {model} | {count:,} | {found:,} | {cpu_s:.2f} | {cpu_s / lines[0][2]:.2f} | {rest_s:.2f} |",
                flush=True,
            )
            results.append({"model": model, "shown": count, "found": found, "cpu_s": cpu_s, "outside_s": rest_s})
    finish(results, json_file)


if __name__ == "__main__":
    app()
