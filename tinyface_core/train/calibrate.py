"""Ranges of feature maps for int8, as pictures show them (model/quantise.py). No annotation is needed."""

from __future__ import annotations

import logging
from collections.abc import Iterable
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyface_core.detect.detector import Detector
from tinyface_core.detect.options import Runtime
from tinyface_core.errors import InputError
from tinyface_core.model.quantise import Recorder
from tinyface_core.model.spec import Ranges

log = logging.getLogger(__name__)
_LOG_EVERY = 16


def ranges_of(model: Path, pictures: Iterable[NDArray[np.uint8]]) -> tuple[dict[str, Ranges], int]:
    """The ranges of a checkpoint at its own levels, in fp32, and how many pictures, RGB (H, W, 3), showed them.

    Raises:
        CheckpointError: as Detector.load does. InputError: no picture.
    """
    detector, count = Detector.load(model, runtime=Runtime("cpu", "fp32", "to see ranges")), 0
    recorder = Recorder(detector.network)
    for count, rgb_HW3 in enumerate(pictures, start=1):
        detector(rgb_HW3)
        if count % _LOG_EVERY == 0:
            log.info("%d pictures shown", count)
    if not count:
        raise InputError("none of the pictures could be decoded: there is nothing to take ranges from.")
    return recorder.ranges(), count
