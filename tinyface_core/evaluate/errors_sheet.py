"""The first false positives cut out of their pictures, as one sheet: the eye tells what no rule can.

Yellow: the detection. Green: annotated faces; grey: boxes marked invalid. Paper: appendix A, "top 20 scoring false
positives".
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.patheffects import Normal, Stroke
from numpy.typing import NDArray

from tinyface_core.evaluate.errors import Alarms
from tinyface_core.evaluate.truth import Truth
from tinyface_core.picture.decode import decode
from tinyface_core.picture.picture import Limits, Picture

SHOWN, COLUMNS = 20, 5
CONTEXT = 4.0  # sides of the window, in longest sides of the box
LEAST_PX = 80  # of the window: a tiny box needs more around it
_DETECTION, _FACE, _INVALID = "#ffd000", "#20c060", "#b0b0b0"
_LONGEST_NAME = 34


def window_around(box_4: NDArray[np.float64], picture_hw: tuple[int, int]) -> tuple[int, int, int, int]:
    """(left, top, right, bottom) px, end exclusive: a square around (x, y, width, height), moved into the picture and
    cut where the picture is smaller."""
    side = max(LEAST_PX, round(CONTEXT * float(max(box_4[2:]))))
    sides = []
    for centre, length in zip(box_4[:2] + box_4[2:] / 2, picture_hw[::-1], strict=True):
        low = min(max(0, round(float(centre) - side / 2)), max(0, length - side))
        sides.append((low, min(length, low + side)))
    (left, right), (top, bottom) = sides
    return left, top, right, bottom


def contact_sheet(alarms: Alarms, truth: Truth, pictures: Mapping[str, Path], file: Path) -> None:
    """PNG of the first SHOWN false positives with score, kind and picture. pictures: name -> file.

    A picture that is missing or cannot be decoded leaves its place grey, with its text.
    """
    count = min(SHOWN, len(alarms))
    rows = max(1, -(-count // COLUMNS))
    figure = Figure(figsize=(3.2 * COLUMNS, 3.6 * rows), layout="constrained")
    places = figure.subplots(rows, COLUMNS, squeeze=False).flat
    for number, axes in enumerate(places):
        axes.set_axis_off()
        if number >= count:
            continue
        name = truth.names[alarms.picture_A[number]]
        title = f"{number + 1}. {alarms.scores_A[number]:.3f} {alarms.kind_A[number]}"
        axes.set_title(f"{title}\n{short_name(name)}", fontsize=8)
        _show(axes, alarms, truth, number, _pixels(pictures.get(name)))
    figure.savefig(file, dpi=110)


def _pixels(path: Path | None) -> NDArray[np.uint8] | None:
    picture = decode(path.read_bytes(), Limits()) if path is not None else None
    return picture.rgb_HW3 if isinstance(picture, Picture) else None


def _show(axes: Axes, alarms: Alarms, truth: Truth, number: int, rgb_HW3: NDArray[np.uint8] | None) -> None:
    if rgb_HW3 is None:
        axes.text(0.5, 0.5, "picture not at hand", ha="center", transform=axes.transAxes, color="#777777")
        return
    box_4 = alarms.boxes_A4[number]
    left, top, right, bottom = window_around(box_4, (rgb_HW3.shape[0], rgb_HW3.shape[1]))
    axes.imshow(rgb_HW3[top:bottom, left:right], extent=(left, right, bottom, top), interpolation="nearest")
    faces = slice(*truth.starts_P1[alarms.picture_A[number] : alarms.picture_A[number] + 2])
    for face_4, is_valid in zip(truth.faces_F4[faces], truth.valid_F[faces], strict=True):
        outline(axes, face_4, _FACE if is_valid else _INVALID, 1.0)
    outline(axes, box_4, _DETECTION, 1.6)
    axes.set(xlim=(left, right), ylim=(bottom, top))


def outline(axes: Axes, box_4: NDArray[np.float64], colour: str, width: float, *, dotted: bool = False) -> None:
    """A box (x, y, width, height), px, seen on light and dark. width: of the line, points."""
    x, y, sides = float(box_4[0]), float(box_4[1]), (float(box_4[2]), float(box_4[3]))
    line = Rectangle((x, y), *sides, fill=False, edgecolor=colour, linewidth=width, linestyle=":" if dotted else "-")
    line.set_path_effects([Stroke(linewidth=width + 1.2, foreground="black"), Normal()])
    axes.add_patch(line)


def short_name(name: str) -> str:
    """The end of a name that is too long for a title."""
    return name if len(name) <= _LONGEST_NAME else f"...{name[3 - _LONGEST_NAME :]}"
