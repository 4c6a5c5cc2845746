"""One evaluation as a table, as numbers to keep, and as a picture of its curves."""

from __future__ import annotations

import csv
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from matplotlib.figure import Figure

from tinyface_core.evaluate.curves import Curve, curve, interval
from tinyface_core.evaluate.matching import Matches
from tinyface_core.evaluate.truth import ALL, LEVELS, Truth

SHOWN = (*LEVELS, ALL)


@dataclass(frozen=True)
class Judged:
    """One group of faces, one detector: average precision, and where 95 % of bootstrap samples lie."""

    group: str
    faces: int
    average_precision: float
    low: float
    high: float
    curve: Curve


def judge(truth: Truth, matches: Matches, *, samples: int = 1000) -> list[Judged]:
    """Every group that has faces."""
    judged = []
    for name, group_F in truth.groups().items():
        if group_F.any():
            one = curve(truth, matches, group_F)
            low, high = interval(truth, matches, group_F, samples=samples)
            judged.append(Judged(name, one.faces, one.average_precision, low, high, one))
    return judged


def table(by_detector: Mapping[str, Sequence[Judged]]) -> str:
    """Markdown: a line a group, a column a detector, with its interval."""
    first = next(iter(by_detector.values()))
    lines = ["| faces | count | " + " | ".join(by_detector) + " |", "|---|---:|" + "---:|" * len(by_detector)]
    for place, judged in enumerate(first):
        cells = [
            f"{of[place].average_precision:.3f} ({of[place].low:.3f}-{of[place].high:.3f})"
            for of in by_detector.values()
        ]
        lines.append(f"| {judged.group} | {judged.faces:,} | " + " | ".join(cells) + " |")
    return "\n".join(lines)


def as_json(by_detector: Mapping[str, Sequence[Judged]]) -> dict[str, dict[str, dict[str, float]]]:
    """detector -> group -> faces, average precision and interval."""
    return {
        detector: {
            one.group: {
                "faces": one.faces,
                "average_precision": round(one.average_precision, 4),
                "low": round(one.low, 4),
                "high": round(one.high, 4),
            }
            for one in judged
        }
        for detector, judged in by_detector.items()
    }


def write_curves(by_detector: Mapping[str, Sequence[Judged]], folder: Path) -> None:
    """`curves.csv` with every point, and `curves.png` of the levels and all valid faces."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "curves.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["detector", "group", "score", "precision", "recall"])
        for detector, judged in by_detector.items():
            for one in judged:
                points = zip(one.curve.scores_T, one.curve.precision_T, one.curve.recall_T, strict=True)
                rows.writerows([detector, one.group, *(f"{value:.6g}" for value in point)] for point in points)
    figure = Figure(figsize=(11, 9), layout="constrained")
    groups = [name for name in SHOWN if any(one.group == name for one in next(iter(by_detector.values())))]
    for axes, name in zip(figure.subplots(2, 2).flat, groups, strict=False):
        for detector, judged in by_detector.items():
            one = next(one for one in judged if one.group == name)
            axes.plot(one.curve.recall_T, one.curve.precision_T, label=f"{detector} {one.average_precision:.3f}")
        axes.set(title=name, xlabel="recall", ylabel="precision", xlim=(0, 1), ylim=(0, 1.02))
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="lower left")
    figure.savefig(folder / "curves.png", dpi=110)
