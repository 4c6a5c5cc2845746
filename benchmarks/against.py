"""How fast is the detector beside what a user would pick?

    python benchmarks/against.py --yunet yunet_n.onnx [--pictures DIR] [--models NAME ...] [--longest 1280] \
        [--rounds 3] [--json FILE]

Ours with the memory that the job gives it, a straightforward PyTorch program with the same weights
(benchmarks/plain_torch.py, fp32, glibc), and YuNet through OpenCV at 2x and at 1x and 2x. Each is a process of one
thread; they take turns, picture by picture, already decoded. Counted is CPU time; boxes of ours and of the plain
program are held against each other at IoU 0.9. Prints Markdown tables.
"""

from __future__ import annotations

import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import torch
from cyclopts import App, Parameter
from figures import finish
from numpy.typing import NDArray
from plain_torch import PlainDetector, iou
from precision import pictures_in

from tinyface_core.detect.detector import Detector
from tinyface_core.detect.runtime import best_float, choose_runtime
from tinyface_core.evaluate.peers import NMS_IOU, yunet
from tinyface_core.evaluate.results import together

ROOT = Path(__file__).resolve().parents[1]
SAME_IOU = 0.9
OURS = ("ours", "ours int8")  # the first in the fastest floats
app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


def finder(kind: str, model: str) -> Callable[[NDArray[np.uint8]], NDArray[np.float64]]:
    """Boxes (K, 4) xyxy of a picture, by one of the programs."""
    if kind in OURS:
        detector = Detector.load(
            model, runtime=choose_runtime("cpu", "int8" if kind == OURS[1] else best_float("cpu")[0])
        )
        return lambda rgb_HW3: detector(rgb_HW3).boxes_K4.astype(np.float64)
    if kind == "plain":
        plain = PlainDetector(model)
        return lambda rgb_HW3: plain(rgb_HW3)[0].astype(np.float64)
    faces_in, zooms = yunet(Path(model)), (2.0,) if kind == "yunet 2x" else (1.0, 2.0)

    def by_yunet(rgb_HW3: NDArray[np.uint8]) -> NDArray[np.float64]:
        return together([{"": faces_in(rgb_HW3, zoom)} for zoom in zooms], NMS_IOU)[""].boxes_K4

    return by_yunet


def shown(folder: Path, longest: int) -> list[NDArray[np.uint8]]:
    """The pictures, none with a side over `longest`."""
    pictures = []
    for rgb_HW3 in pictures_in(folder):
        ratio = min(1.0, longest / max(rgb_HW3.shape[:2]))
        size = (round(rgb_HW3.shape[1] * ratio), round(rgb_HW3.shape[0] * ratio))
        pictures.append(np.asarray(cv2.resize(rgb_HW3, size, interpolation=cv2.INTER_AREA), np.uint8))
    return pictures


@app.command
def child(kind: str, model: str, folder: Path, longest: int) -> None:
    """The number of a picture in; its seconds and boxes out."""
    torch.set_num_threads(1)
    cv2.setNumThreads(1)
    find, pictures = finder(kind, model), shown(folder, longest)
    print(len(pictures), flush=True)
    for line in sys.stdin:
        began = time.process_time()
        boxes_K4 = find(pictures[int(line)])
        print(json.dumps([time.process_time() - began, boxes_K4.round(3).tolist()]), flush=True)


@contextmanager
def running(kind: str, model: str, folder: Path, longest: int) -> Iterator[tuple[int, Callable[[int], Any]]]:
    """How many pictures there are, and what this program says to one of them."""
    sys.path.insert(0, str(ROOT / "jobs"))
    from ray_start import computing_environment  # what the job gives its detectors

    added = computing_environment().get("env_vars", {}) if kind in OURS else {}
    command = [sys.executable, str(Path(__file__)), "child", kind, model, str(folder), str(longest)]
    process = subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT, env=os.environ | added
    )
    with process:
        stdin, stdout = process.stdin, process.stdout
        assert stdin is not None
        assert stdout is not None
        count = int(stdout.readline())

        def ask(number: int) -> Any:
            stdin.write(f"{number}\n")
            stdin.flush()
            return json.loads(stdout.readline())

        yield count, ask
        stdin.close()


def also_there(boxes_K4: NDArray[np.float64], others_M4: NDArray[np.float64]) -> int:
    """How many of the boxes have one of IoU 0.9 among the others."""
    if not len(others_M4):
        return 0
    return sum(
        bool(iou(box_4.astype(np.float32), others_M4.astype(np.float32)).max() >= SAME_IOU) for box_4 in boxes_K4
    )


@app.default
def compare(
    *,
    pictures: Path = ROOT / "demo" / "archive",
    models: tuple[str, ...] = ("hr-resnet50", "hr-mobilenetv2"),
    yunet_model: Annotated[Path | None, Parameter("--yunet")] = None,
    longest: int = 1280,
    rounds: int = 3,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """Times all programs in turn; the first round is not counted."""
    ours = OURS if torch.cpu._is_vnni_supported() else OURS[:1]
    programs = [(kind, model) for model in models for kind in ("plain", *ours)]
    programs += [(kind, str(yunet_model)) for kind in ("yunet 2x", "yunet 1x 2x") if yunet_model is not None]
    seconds: dict[tuple[str, str], list[float]] = {program: [] for program in programs}
    boxes: dict[tuple[str, str], list[NDArray[np.float64]]] = {program: [] for program in programs}
    with ExitStack() as stack:
        asked = {program: stack.enter_context(running(*program, pictures, longest)) for program in programs}
        count = next(iter(asked.values()))[0]
        for turn in range(rounds + 1):
            for number in range(count):
                for program, (_, ask) in asked.items():
                    took_s, found = ask(number)
                    if turn:
                        seconds[program].append(took_s)
                    else:
                        boxes[program].append(np.array(found, np.float64).reshape(-1, 4))
    took = {
        program: sum(statistics.median(all_s[number::count]) for number in range(count))
        for program, all_s in seconds.items()
    }
    print(f"{count} pictures of up to {longest} px, one thread each; medians of {rounds} rounds, summed\n")
    print("| program | model | CPU s | plain takes | boxes | plain has too | has of plain's |")
    print("|---|---|---:|---:|---:|---:|---:|")
    results = []
    for (kind, model), total_s in took.items():
        mine, plain = boxes[kind, model], boxes.get(("plain", model))
        many, told = sum(map(len, mine)), "- | {:,} | - | -"
        row = {"program": kind, "model": Path(model).stem, "cpu_s": total_s, "boxes": many}
        if plain is not None and kind != "plain":
            row["plain_takes"] = took["plain", model] / total_s
            row["plain_has"] = sum(map(also_there, mine, plain)) / max(1, many)
            row["of_plains"] = sum(map(also_there, plain, mine)) / max(1, sum(map(len, plain)))
            told = f"{row['plain_takes']:.2f} | {{:,}} | {row['plain_has']:.2%} | {row['of_plains']:.2%}"
        print(f"| {kind} | {row['model']} | {total_s:.2f} | {told.format(many)} |")
        results.append(row)
    finish(results, json_file)


if __name__ == "__main__":
    app()
