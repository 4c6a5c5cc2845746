"""Where does decoding limit, and where the network? And what does decoding a JPEG smaller save?

    python benchmarks/stages.py [--models NAME ...] [--size 4000 3000] [--levels "0.25 0.5 1 2" 1 "0.25 0.5" 0.25] \
        [--rounds 5] [--json FILE]

The demo's crowd at this size as a JPEG (quality 90). One process of one thread, in the precision and the memory of the
job's detectors; decoding and detecting in turn. Prints a Markdown table: CPU time of decoding the whole picture, of
decoding it as small as the levels allow, as the job does, and of detecting; then what one core does of each in a
second, of both together, and how many detectors as fast as this one a core that only decodes would keep at work.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

import cv2
import torch
from cyclopts import App, Parameter
from figures import finish
from model_loop import CROWD, ROOT

from tinyface_core.detect.guarded import GuardedDetector
from tinyface_core.detect.options import DetectOptions, suited
from tinyface_core.detect.pyramid import most_reduced
from tinyface_core.detect.runtime import choose_runtime
from tinyface_core.model.spec import find_bundled, read_spec
from tinyface_core.picture.decode import decode
from tinyface_core.picture.picture import Limits, Picture

app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


def crowd_jpeg(width: int, height: int) -> bytes:
    large = cv2.resize(cv2.imread(str(CROWD)), (width, height), interpolation=cv2.INTER_CUBIC)
    return cv2.imencode(".jpg", large, [cv2.IMWRITE_JPEG_QUALITY, 90])[1].tobytes()


def cpu_s(work: Callable[[], object]) -> float:
    began = time.process_time()
    work()
    return time.process_time() - began


@app.command
def child(model: str, width: int, height: int, levels: list[str], *, rounds: int) -> None:
    """Prints for each of the levels: times smaller, CPU s of decoding whole, of decoding smaller, of detecting."""
    path = find_bundled(model)
    if path is None:
        raise SystemExit(f"{model} is not bundled")
    data, lines = crowd_jpeg(width, height), []
    for text in levels:
        zooms = tuple(map(float, text.split()))
        reduced = most_reduced(zooms)
        runtime = suited(choose_runtime(), read_spec(path))
        detect = GuardedDetector(path, DetectOptions(zooms=zooms), runtime, threads=1)
        picture = decode(data, Limits(reduced=reduced))
        if not isinstance(picture, Picture):
            raise SystemExit(str(picture))
        detect(picture)  # not counted
        took = [
            (
                cpu_s(lambda: decode(data)),
                cpu_s(lambda reduced=reduced: decode(data, Limits(reduced=reduced))),
                cpu_s(lambda detect=detect, picture=picture: detect(picture)),
            )
            for _ in range(rounds)
        ]
        lines.append([reduced, *(statistics.median(times) for times in zip(*took, strict=True))])
    print(json.dumps({"precision": runtime.precision, "lines": lines}))


@app.default
def main(
    *,
    models: tuple[str, ...] = ("hr-resnet50", "hr-mobilenetv2"),
    size: tuple[int, int] = (4000, 3000),
    levels: tuple[str, ...] = ("0.25 0.5 1 2", "1", "0.25 0.5", "0.25"),
    rounds: int = 5,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """size: width and height, px."""
    sys.path.insert(0, str(ROOT / "jobs"))
    from ray_start import computing_environment  # what the job gives its detectors

    print(f"{size[0]} x {size[1]} px, torch {torch.__version__}, median of {rounds} rounds\n")
    times, rates = "whole ms | times smaller | ms | detecting ms", "decoding | detecting | both | detectors a decoder"
    print(f"| model | levels | {times} | {rates} | limits |\n|---|---|{'---:|' * 8}---|")
    results = []
    for model in models:
        arguments = [model, *map(str, size), *levels, "--rounds", str(rounds)]
        command = [sys.executable, str(Path(__file__)), "child", *arguments]
        env = os.environ | computing_environment()["env_vars"]
        said = subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=env).stdout
        told = json.loads(said.splitlines()[-1])
        for text, (reduced, whole_s, small_s, detect_s) in zip(levels, told["lines"], strict=True):
            limits = "network" if detect_s > small_s else "decoding"
            shown = f"{1000 * whole_s:.0f} | {reduced} | {1000 * small_s:.0f} | {1000 * detect_s:.0f}"
            a_second = f"{1 / small_s:.1f} | {1 / detect_s:.2f} | {1 / (small_s + detect_s):.2f}"
            line = f"{model}, {told['precision']} | {text} | {shown} | {a_second} | {detect_s / small_s:.1f} | {limits}"
            print(f"| {line} |", flush=True)
            results.append(
                {"model": model, "levels": text, "reduced": reduced, "whole_s": whole_s, "small_s": small_s}
                | {"detect_s": detect_s, "precision": told["precision"]}
            )
    finish(results, json_file)


if __name__ == "__main__":
    app()
