"""A detector for a process that must go on: what one picture does to it is a value, never an exception."""

from __future__ import annotations

import logging
import os
from pathlib import Path

import cv2
import torch

from tinyface_core.detect.detections import Detections
from tinyface_core.detect.detector import Detector
from tinyface_core.detect.options import DetectOptions, Runtime
from tinyface_core.detect.runtime import is_out_of_memory
from tinyface_core.errors import ErrorClass, PictureError, Stage
from tinyface_core.picture.picture import Picture

log = logging.getLogger(__name__)


class GuardedDetector:
    """One detector, and the threads of this process. Ends the process where the accelerator is lost for it."""

    def __init__(self, model: Path, options: DetectOptions, runtime: Runtime, threads: int) -> None:
        """Raises CheckpointError: as Detector.load does."""
        torch.set_num_threads(threads)
        cv2.setNumThreads(threads)
        self.detector = Detector.load(model, options, runtime)

    def __call__(self, picture: Picture) -> Detections | PictureError:
        """The faces of one picture, or why there are none."""
        size = f"{picture.width} x {picture.height} px"
        try:
            return self.detector(picture.rgb_HW3, reduced=picture.reduced, size_hw=picture.size_hw)
        except torch.AcceleratorError:  # the device stays broken for this process: another one must take over
            log.exception("the accelerator failed on a picture of %s", size)
            os._exit(1)
        except Exception as error:
            if is_out_of_memory(error):
                why = f"{size}, in the smallest tiles: {_first_line(error)}"
                return PictureError(Stage.DETECT, ErrorClass.OUT_OF_MEMORY, why)
            log.exception("detection failed on a picture of %s", size)
            return PictureError(Stage.DETECT, ErrorClass.INTERNAL, f"{type(error).__name__}: {error}")


def _first_line(error: Exception) -> str:
    return (str(error) or type(error).__name__).splitlines()[0]
