"""WIDER FACE's text of results for one picture: its name, how many faces, then `x y width height score` a line, px."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray


def result_text(name: str, boxes_K4: NDArray[np.float64], scores_K: NDArray[Any]) -> str:
    """The content of the picture's file, best face first. boxes_K4: x, y, width, height."""
    rows_K5 = np.column_stack([boxes_K4, scores_K])[np.argsort(-scores_K, kind="stable")]
    lines = [
        " ".join([*(f"{round(side, 3):.12g}" for side in box), f"{score:.6g}"]) for *box, score in rows_K5.tolist()
    ]
    return "\n".join([name, str(len(lines)), *lines]) + "\n"
