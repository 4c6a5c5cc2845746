"""Does a picture of any size need no more memory than a 1080p one, apart from the picture itself?

    python benchmarks/memory.py [--model NAME|PATH] [--side 20000] [--zooms 0.25 0.5 1 2] [--precision P] [--json FILE]

Each picture is a crowd repeated over its size and has a process to itself; compared is the process's peak of
resident memory. The 1080p picture is shown at 0.25x, 0.5x, 1x and 2x. Prints a Markdown table.
"""

from __future__ import annotations

import json
import resource
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

import numpy as np
import torch
from cyclopts import App, Parameter
from figures import finish
from numpy.typing import NDArray
from PIL import Image

from tinyface_core.detect.detector import Detector
from tinyface_core.detect.options import DetectOptions, Precision
from tinyface_core.detect.runtime import choose_runtime

ROOT = Path(__file__).resolve().parents[1]
CROWD = ROOT / "demo" / "archive" / "fellows" / "fellows_white_house_2015.jpg"
FULL = (0.25, 0.5, 1.0, 2.0)
app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


@dataclass(frozen=True)
class Peak:
    """One process. peak: largest resident memory; start: before the detector saw the picture."""

    height: int
    width: int
    zooms: tuple[float, ...]
    precision: str
    faces: int
    picture_mb: float
    start_mb: float
    peak_mb: float
    cpu_s: float

    @property
    def beside_mb(self) -> float:
        """The peak less the picture."""
        return self.peak_mb - self.picture_mb


def crowd(height: int, width: int) -> NDArray[np.uint8]:
    """The crowd repeated, made without a second copy."""
    piece = np.asarray(Image.open(CROWD).convert("RGB"))
    picture = np.empty((height, width, 3), np.uint8)
    for top in range(0, height, piece.shape[0]):
        for left in range(0, width, piece.shape[1]):
            place = picture[top : top + piece.shape[0], left : left + piece.shape[1]]
            place[:] = piece[: place.shape[0], : place.shape[1]]
    return picture


def resident_mb() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024


@app.command
def child(model: str, height: int, width: int, precision: Precision, zooms: list[float]) -> None:
    """One picture in this process; prints the peak as JSON."""
    torch.set_num_threads(1)
    runtime = choose_runtime("cpu", precision)
    picture = crowd(height, width)
    detector = Detector.load(model, DetectOptions(zooms=tuple(zooms)), runtime)
    start_mb, start_s = resident_mb(), time.process_time()
    found = detector(picture)
    peak = Peak(
        height,
        width,
        found.zooms,
        runtime.precision,
        len(found),
        round(picture.nbytes / 2**20),
        round(start_mb),
        round(resident_mb()),
        round(time.process_time() - start_s, 1),
    )
    print(json.dumps(asdict(peak)))


def measured(model: str, height: int, width: int, precision: Precision, zooms: tuple[float, ...]) -> Peak:
    """The peak of a child process."""
    numbers = [str(zoom) for zoom in zooms]
    command = [sys.executable, str(Path(__file__)), "child", model, str(height), str(width), precision, *numbers]
    result = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True, cwd=ROOT)
    values = json.loads(result.stdout)
    return Peak(**{**values, "zooms": tuple(values["zooms"])})


@app.default
def compare(
    *,
    model: str = "hr-mobilenetv2",
    side: int = 20_000,
    zooms: tuple[float, ...] = FULL,
    precision: Precision = "auto",
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """Measures the 1080p picture and the large one."""
    print(f"{model}, one thread\n")
    print("| picture | zooms | precision | faces | picture MB | peak MB | peak less picture MB | CPU s |")
    print("|---|---|---|---:|---:|---:|---:|---:|", flush=True)
    peaks = []
    for height, width, levels in ((1080, 1920, FULL), (side, side, zooms)):
        peak = measured(model, height, width, precision, levels)
        peaks.append(peak)
        shown = " ".join(f"{zoom:g}" for zoom in peak.zooms)
        print(
            f"| {peak.width} x {peak.height} | {shown} | {peak.precision} | {peak.faces} | {peak.picture_mb:.0f} "
            f"| {peak.peak_mb:.0f} | {peak.beside_mb:.0f} | {peak.cpu_s:.1f} |",
            flush=True,
        )
    print(f"\nthe large picture needs {peaks[1].beside_mb / peaks[0].beside_mb:.2f} of the 1080p one, beside itself")
    finish([asdict(peak) for peak in peaks], json_file)


if __name__ == "__main__":
    app()
