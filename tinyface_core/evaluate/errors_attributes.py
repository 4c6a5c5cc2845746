"""How much a detector depends on what a face is like: normalised average precision by attribute, lowest and highest.

Plain average precision cannot compare groups of different sizes: the same false alarms weigh more against few faces.
Hoiem et al. (2012) put one number of positives, N, in place of each group's own:

    P_N = R N / (R N + F),   AP_N = area under the monotone envelope of P_N over R

R: recall of the group, F: all false alarms of the detector up to the same score. Here N is the mean number of faces
over all values of all attributes that have any. METHOD, section 7; paper: appendix A, "sensitivity plot".
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import groupby, pairwise
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray

from tinyface_core.evaluate.curves import average_precision, counts
from tinyface_core.evaluate.matching import Matches
from tinyface_core.evaluate.truth import HEIGHTS_PX, VALUES, Truth, height_name

LEAST_FACES = 20  # a value of fewer is shown, but is neither lowest nor highest


@dataclass(frozen=True)
class Value:
    """One value of one attribute: its faces, and AP_N."""

    attribute: str
    name: str
    faces: int
    ap_n: float

    @property
    def is_told(self) -> bool:
        """Whether there are enough faces to compare."""
        return self.faces >= LEAST_FACES


@dataclass(frozen=True)
class Sensitivity:
    """positives: N. overall: AP_N of all valid faces. values: those that have faces, by attribute."""

    positives: float
    overall: float
    values: tuple[Value, ...]

    def ranges(self) -> dict[str, tuple[Value, Value]]:
        """attribute -> (lowest, highest) of the values with enough faces; attributes with two of these only."""
        told = (value for value in self.values if value.is_told)
        by_attribute = {name: list(values) for name, values in groupby(told, key=lambda value: value.attribute)}
        return {
            name: (min(values, key=lambda value: value.ap_n), max(values, key=lambda value: value.ap_n))
            for name, values in by_attribute.items()
            if len(values) > 1
        }


def sensitivity(truth: Truth, matches: Matches) -> Sensitivity:
    """AP_N of each value of each attribute, the height among them."""
    groups = {key: group_F for key, group_F in _groups(truth).items() if group_F.any()}
    positives = float(np.mean([group_F.sum() for group_F in groups.values()])) if groups else 0.0
    found = counts(truth, matches, truth.valid_F)
    hits_T = found.hits_PT.sum(axis=0)
    alarms_T = found.kept_PT.sum(axis=0) - hits_T

    def ap_n(group_F: NDArray[np.bool_]) -> float:
        recall_T = counts(truth, matches, group_F).hits_PT.sum(axis=0) / max(1, int(group_F.sum()))
        likely_T = recall_T * positives
        none_T = np.zeros_like(likely_T)
        precision_T = np.divide(likely_T, likely_T + alarms_T, out=none_T, where=likely_T + alarms_T > 0)
        return float(average_precision(precision_T[None], recall_T[None])[0])

    values = tuple(Value(*key, int(group_F.sum()), ap_n(group_F)) for key, group_F in groups.items())
    return Sensitivity(positives, ap_n(truth.valid_F), values)


def _groups(truth: Truth) -> dict[tuple[str, str], NDArray[np.bool_]]:
    """(attribute, value) -> valid faces that have it, (F,)."""
    of_truth = truth.groups()
    groups = {("height", name): of_truth[name] for name in (height_name(*pair) for pair in pairwise(HEIGHTS_PX))}
    return groups | {(name, value): of_truth[f"{name} {value}"] for name, values in VALUES.items() for value in values}


def sensitivity_table(found: Sensitivity) -> str:
    """Markdown: a line an attribute, the largest range first."""
    lines = [
        f"Normalised average precision (N = {found.positives:,.0f}); all valid faces {found.overall:.3f}.",
        "",
        "| attribute | lowest | highest | range |\n|---|---|---|---:|",
    ]
    for name, (low, high) in sorted(found.ranges().items(), key=lambda pair: pair[1][0].ap_n - pair[1][1].ap_n):
        lines.append(f"| {name} | {_told(low)} | {_told(high)} | {high.ap_n - low.ap_n:.3f} |")
    few = ", ".join(f"{value.attribute} {value.name} ({value.faces})" for value in found.values if not value.is_told)
    if not found.ranges():
        del lines[1:]  # a table without lines
    return "\n".join(lines) + (f"\n\nToo few faces to tell (under {LEAST_FACES}): {few}." if few else "")


def _told(value: Value) -> str:
    return f"{value.ap_n:.3f} {value.name} ({value.faces:,} faces)"


def sensitivity_json(found: Sensitivity) -> dict[str, object]:
    """N, the whole, and each value with its faces and AP_N; `lowest` and `highest` by attribute."""
    return {
        "positives": round(found.positives, 1),
        "overall": round(found.overall, 4),
        "values": [
            {"attribute": one.attribute, "value": one.name, "faces": one.faces, "ap_n": round(one.ap_n, 4)}
            for one in found.values
        ],
        "ranges": {
            name: {"lowest": round(low.ap_n, 4), "highest": round(high.ap_n, 4)}
            for name, (low, high) in found.ranges().items()
        },
    }


def plot_sensitivity(found: Sensitivity, file: Path) -> None:
    """PNG: a bar an attribute from the lowest to the highest AP_N, a point a value, the whole as a dashed line."""
    ranges = found.ranges()
    figure = Figure(figsize=(9, 5), layout="constrained")
    axes = figure.subplots()
    for place, (name, (low, high)) in enumerate(ranges.items()):
        axes.bar(place, high.ap_n - low.ap_n, bottom=low.ap_n, width=0.5, color="#9ecae1")
        for value in (one for one in found.values if one.attribute == name and one.is_told):
            axes.plot(place, value.ap_n, "o", color="#08519c", markersize=4)
            axes.annotate(value.name, (place, value.ap_n), (6, 0), textcoords="offset points", fontsize=7, va="center")
        for value, above in ((low, -12), (high, 6)):
            place_xy, text = (place, value.ap_n), f"{value.ap_n:.3f}"
            axes.annotate(text, place_xy, (0, above), textcoords="offset points", fontsize=8, ha="center")
    axes.axhline(found.overall, linestyle="--", color="#555555", linewidth=1)
    axes.set(xticks=range(len(ranges)), xticklabels=list(ranges), ylim=(-0.05, 1.05), xlim=(-0.6, len(ranges)))
    axes.set(ylabel="AP_N", title=f"AP_N by attribute, lowest and highest; all valid faces {found.overall:.3f}")
    figure.savefig(file, dpi=110)
