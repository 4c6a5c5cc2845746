"""A detector that sleeps a fixed time a picture and finds three faces: no network, no torch, no CPU time.

Its orders lie in the folder of SLEEPING_FOLDER, in the file `orders.json`: how long to sleep, how many detectors there
will be, and the folder of their notes. None begins before all are there, as starting many processes on few cores takes
minutes. Each notes when every picture began and ended, as float64, in a file of its own.
"""

from __future__ import annotations

import json
import os
import struct
import time
from pathlib import Path
from typing import Any

import numpy as np

from tinyface_core.detect.detections import Detections
from tinyface_core.detect.options import DetectOptions
from tinyface_core.picture.picture import Picture

TOGETHER_S = 1200.0  # within which all detectors have to be there
FACES = 3


class GuardedDetector:
    """In the place of tinyface_core.detect.guarded.GuardedDetector."""

    def __init__(self, model: Path, options: DetectOptions, runtime: Any, threads: int) -> None:
        orders = json.loads(Path(os.environ["SLEEPING_FOLDER"], "orders.json").read_text())
        notes = Path(orders["notes"])
        self._sleep_s, self._zooms = float(orders["sleep_s"]), options.zooms
        self._notes = (notes / str(os.getpid())).open("ab", buffering=0)
        until = time.monotonic() + TOGETHER_S
        while len(os.listdir(notes)) < orders["actors"]:
            if time.monotonic() > until:
                raise RuntimeError(f"only {len(os.listdir(notes))} of {orders['actors']} detectors have started")
            time.sleep(0.5)

    def __call__(self, picture: Picture) -> Detections:
        began = time.time()
        time.sleep(self._sleep_s)
        height, width = picture.size_hw
        boxes_K4 = np.tile(np.array([[0, 0, width / 4, height / 3]], np.float32), (FACES, 1))
        boxes_K4[:, ::2] += np.arange(FACES, dtype=np.float32)[:, None] * width / 4
        scores_K, template_K = np.linspace(0.9, 0.7, FACES, dtype=np.float32), np.zeros(FACES, np.int8)
        zooms = self._zooms if isinstance(self._zooms, tuple) else (1.0,)
        found = Detections(boxes_K4, scores_K, template_K, np.ones(FACES, np.float32), zooms, 10.0)
        self._notes.write(struct.pack("dd", began, time.time()))
        return found
