"""What a detector that fails on a picture becomes, and what the driver does without."""

from __future__ import annotations

import subprocess
import sys
from typing import Any, cast

import numpy as np
import pytest
import torch

from tests.layout.source import ROOT
from tinyface_core.detect.guarded import GuardedDetector
from tinyface_core.errors import ErrorClass, PictureError, Stage
from tinyface_core.picture.picture import Picture


@pytest.mark.parametrize(
    ("error", "wanted", "said"),
    [
        (MemoryError(), ErrorClass.OUT_OF_MEMORY, "40 x 30 px, in the smallest tiles: MemoryError"),
        (
            torch.OutOfMemoryError("CUDA out of memory. Tried\nmore"),
            ErrorClass.OUT_OF_MEMORY,
            "tiles: CUDA out of memo",
        ),
        (
            RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED"),
            ErrorClass.OUT_OF_MEMORY,
            "CUBLAS_STATUS_ALLOC_FAILED",
        ),
        (RuntimeError("shapes cannot be multiplied"), ErrorClass.INTERNAL, "RuntimeError: shapes cannot"),
    ],
)
def test_a_picture_that_the_detector_fails_on_is_an_error_row(error: Exception, wanted: ErrorClass, said: str) -> None:
    def fails(rgb_HW3: object, **shown: object) -> None:
        raise error

    guarded = GuardedDetector.__new__(GuardedDetector)
    guarded.detector = cast(Any, fails)
    result = guarded(Picture(np.zeros((30, 40, 3), np.uint8), "png"))
    assert isinstance(result, PictureError)
    assert (result.stage, result.error_class) == (Stage.DETECT, wanted)
    assert said in result.message


def test_the_driver_does_without_torch() -> None:
    """It takes a second and more to import, and 120 MB; only detectors need it."""
    script = "import sys, detect_archive; sys.exit('torch' in sys.modules)"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT / "jobs", check=True)
