"""Where two models disagree: faces that one finds and the other does not, and the pictures with most of them, drawn.

Each model counts from its own default score on, as its users see it. Orange: only the current model. Blue: only the
new one. White: both. Green: annotated faces, dotted: of which the eye tells who is right.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tinyface_core.evaluate.errors_sheet import outline, short_name
from tinyface_core.evaluate.matching import MATCH_IOU, Found, inclusive_iou
from tinyface_core.evaluate.truth import Truth

SHOWN, COLUMNS = 12, 3
LONGEST_PX = 1200  # of a picture on the sheet
_CURRENT, _NEW, _BOTH, _FACE = "#ff8c00", "#2f7bff", "#ffffff", "#20c060"


@dataclass(frozen=True)
class Disagreement:
    """One picture. current_A4, new_B4, both_C4 float64 (x, y, width, height) px: boxes that only one has, or both."""

    name: str
    current_A4: NDArray[np.float64]
    new_B4: NDArray[np.float64]
    both_C4: NDArray[np.float64]

    @property
    def faces(self) -> int:
        """Faces that only one model has."""
        return len(self.current_A4) + len(self.new_B4)


def disagreements(
    current: Mapping[str, Found], new: Mapping[str, Found], least_current: float, least_new: float
) -> list[Disagreement]:
    """Of the pictures that both have, those with faces that only one model finds, most first.

    least_current, least_new: scores that count, exclusive. A box is found by both where a box of the other overlaps it
    by IoU MATCH_IOU.
    """
    found = []
    for name in sorted(current.keys() & new.keys()):
        ours_A4, theirs_B4 = _above(current[name], least_current), _above(new[name], least_new)
        iou_AB = inclusive_iou(ours_A4, theirs_B4)
        seen_A = (iou_AB >= MATCH_IOU).any(axis=1)
        seen_B = (iou_AB >= MATCH_IOU).any(axis=0)
        found.append(Disagreement(name, ours_A4[~seen_A], theirs_B4[~seen_B], theirs_B4[seen_B]))
    return sorted((one for one in found if one.faces), key=lambda one: -one.faces)


def _above(found: Found, least: float) -> NDArray[np.float64]:
    return found.boxes_K4[found.scores_K > least]


def sheet(
    found: Sequence[Disagreement], truth: Truth, pixels: Callable[[str], NDArray[np.uint8] | None]
) -> bytes | None:
    """PNG of the first SHOWN pictures; None where the models agree everywhere.

    pixels: RGB (H, W, 3) of a picture by name; None leaves its place grey.
    """
    if not found:
        return None
    shown = found[:SHOWN]
    rows = -(-len(shown) // COLUMNS)
    figure = Figure(figsize=(6 * COLUMNS, 4.6 * rows), layout="constrained")
    figure.suptitle("orange: only the current model; blue: only the new one; white: both; green: annotated")
    for number, axes in enumerate(figure.subplots(rows, COLUMNS, squeeze=False).flat):
        axes.set_axis_off()
        if number < len(shown):
            _draw(axes, shown[number], truth, pixels(shown[number].name))
    file = io.BytesIO()
    figure.savefig(file, dpi=90)
    return file.getvalue()


def _draw(axes: Axes, one: Disagreement, truth: Truth, rgb_HW3: NDArray[np.uint8] | None) -> None:
    counts = f"only current {len(one.current_A4)}, only new {len(one.new_B4)}, both {len(one.both_C4)}"
    axes.set_title(f"{short_name(one.name.rpartition('/')[2])}\n{counts}", fontsize=9)
    if rgb_HW3 is None:
        axes.text(0.5, 0.5, "picture not at hand", ha="center", transform=axes.transAxes, color="#777777")
        return
    height, width = rgb_HW3.shape[:2]
    step = max(1, max(height, width) // LONGEST_PX)
    axes.imshow(rgb_HW3[::step, ::step], extent=(0, width, height, 0), interpolation="nearest")
    place = truth.names.index(one.name)
    faces = slice(*truth.starts_P1[place : place + 2])
    for face_4 in truth.faces_F4[faces][truth.valid_F[faces]]:
        outline(axes, face_4, _FACE, 0.8, dotted=True)
    for boxes_K4, colour, line in (
        (one.both_C4, _BOTH, 0.8),
        (one.current_A4, _CURRENT, 1.6),
        (one.new_B4, _NEW, 1.6),
    ):
        for box_4 in boxes_K4:
            outline(axes, box_4, colour, line)
    axes.set(xlim=(0, width), ylim=(height, 0))
