"""The faces of one picture as masks need them: a box and an ellipse each, and how a copy is to be redacted.

Knows the columns of the detections table; not where rows come from, nor pixels.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tinyface_core.detect.ellipse import Ellipses

How = Literal["fill", "blur", "pixelate"]
Shape = Literal["ellipse", "box"]

_COLUMNS = ("x1", "y1", "x2", "y2", "ellipse_cx", "ellipse_cy", "ellipse_major", "ellipse_minor", "ellipse_angle")


@dataclass(frozen=True)
class Redaction:
    """What becomes of a face.

    margin: by which share half axes (of a box: half sides) grow. min_score: exclusive; None: all that are stored.
    quality: of copies in a format that loses detail, 1..100.
    """

    how: How = "fill"
    mask: Shape = "ellipse"
    margin: float = 0.2
    min_score: float | None = None
    quality: int = 92

    @classmethod
    def of_settings(cls, settings: dict[str, Any]) -> Redaction:
        return cls(*(settings[name] for name in ("how", "mask", "margin", "min_score", "quality")))


@dataclass(frozen=True)
class Faces:
    """boxes_K4: float32 xyxy in continuous pixels of the upright picture; ellipses: one each."""

    boxes_K4: NDArray[np.float32]
    ellipses: Ellipses

    def __len__(self) -> int:
        return len(self.boxes_K4)

    @classmethod
    def from_rows(cls, rows: pa.Table, min_score: float | None) -> Faces:
        """Those of these rows of the detections table that score above min_score (None: all)."""
        columns_9K = np.stack([rows[name].to_numpy().astype(np.float32) for name in _COLUMNS])
        if min_score is not None:
            columns_9K = columns_9K[:, rows["score"].to_numpy() > min_score]
        return cls._of(columns_9K)

    @classmethod
    def unpacked(cls, data: bytes) -> Faces:
        """The inverse of `packed`."""
        return cls._of(np.frombuffer(data, np.float32).reshape(len(_COLUMNS), -1))

    def packed(self) -> bytes:
        """For a column of rows that travel."""
        e = self.ellipses
        return np.stack([*self.boxes_K4.T, e.cx_K, e.cy_K, e.major_K, e.minor_K, e.angle_K]).tobytes()

    @classmethod
    def _of(cls, columns_9K: NDArray[np.float32]) -> Faces:
        return cls(np.ascontiguousarray(columns_9K[:4].T), Ellipses(*columns_9K[4:]))
