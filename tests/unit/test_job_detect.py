"""What the detecting stage makes of a detector that fails on a picture."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
import pytest
import torch

from ray_stages import DetectFaces
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
    def fails(rgb_HW3: object) -> None:
        raise error

    stage = DetectFaces.__new__(DetectFaces)
    stage.detector = cast(Any, fails)
    result = stage.detect(Picture(np.zeros((30, 40, 3), np.uint8), "jpeg"))
    assert isinstance(result, PictureError)
    assert (result.stage, result.error_class) == (Stage.DETECT, wanted)
    assert said in result.message
