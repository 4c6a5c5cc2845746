"""FDDB's protocol: both its scores as curves over false alarms, for several detectors. METHOD, section 5.

At each threshold, detections of that score and more are matched one to one with the picture's faces, so that the
overlap (fddb_overlap.py) of all pairs is greatest in total. FDDB's code does the matching anew at each threshold, and
so is it here: a detection more may give other faces to those before it. Only where a detection enters that touches a
face can the matching change, so it is done there alone. Of several matchings with the same total one is taken.

Discrete score: a pair counts 1 if its IoU is over 0.5. Continuous score: a pair counts its IoU, whatever it is. Both
are divided by all annotated faces. False positives, for both: the detections that are no pair over 0.5, of all
pictures of all folds. Detections of equal score come in together, within a picture and between pictures. What lies
wholly outside the picture is a false positive. Knows no pictures and no network.

Axes: K detections and F faces of a picture, S its own thresholds, T those of all pictures; highest first.
"""

from __future__ import annotations

import csv
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
from matplotlib.figure import Figure
from numpy.typing import NDArray
from scipy.optimize import linear_sum_assignment

from tinyface_core.errors import InputError
from tinyface_core.evaluate.fddb_files import Faces, Found, annotated_name, read_results, read_truth, write_text
from tinyface_core.evaluate.fddb_overlap import iou, regions

MATCH_IOU = 0.5  # exclusive
SCORES = ("discrete", "continuous")
SHOWN = (100, 500, 1000, 2000)  # false positives that others name their rates at
_MOST_WRITTEN = 10_000  # false positives in roc.csv

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Roc:
    """One detector: scores_T, the thresholds; false_positives_T int64; rates_T: name of a score -> rate, 0..1."""

    scores_T: Floats
    false_positives_T: NDArray[np.int64]
    rates_T: Mapping[str, Floats]
    faces: int

    def rate_at(self, score: str, false_positives: int) -> float:
        """The highest rate that is reached with so many false positives or fewer; 0 where even the first is beyond."""
        return float(self.rates_T[score][self.false_positives_T <= false_positives].max(initial=0))


@dataclass(frozen=True)
class Judged:
    """text: what to print, Markdown. numbers: the same for JSON, by detector. rocs: every point, by detector."""

    text: str
    numbers: dict[str, dict[str, object]]
    rocs: Mapping[str, Roc]


def judge_fddb(
    truth: Path, results: Mapping[str, Path], *, report: Path | None = None, text: Path | None = None
) -> Judged:
    """Judges several detectors on the annotated pictures that all of them have.

    Args:
        truth: FDDB's annotation, see `read_truth`. results: name of a detector -> its detections, see `read_results`.
            report: folder for roc.csv and roc.png. text: folder for the first detector's results as FDDB's code reads
            them (fddb.txt).
    Raises:
        InputError: a file that is not of its form, no picture in common, or sizes of a picture that do not agree.
    """
    annotated = read_truth(truth)
    found = {detector: on_annotated(annotated, read_results(source), source) for detector, source in results.items()}
    names = [name for name in annotated if all(name in of for of in found.values())]
    if not names:
        raise InputError(f"no picture of {truth} is in all results.")
    faces = {name: _sized(name, annotated[name], [of[name] for of in found.values()]) for name in names}
    rocs = {detector: roc(faces, of) for detector, of in found.items()}
    if report is not None:
        write_curves(rocs, report)
    if text is not None:
        write_text(next(iter(found.values())), list(annotated), text / "fddb.txt")
    count = sum(len(of.ellipses_F5) for of in faces.values())
    unsized = sum(of.picture_hw is None for of in faces.values())
    head = (
        f"{len(names):,} of {len(annotated):,} annotated pictures, {count:,} faces; true-positive rate at so many "
        "false positives in all pictures, or at all that there are"
    )
    if unsized:
        head += f"\npictures of unknown size: {unsized:,} (regions are not cut at their right and lower edge)"
    return Judged(f"{head}\n\n{table(rocs)}", as_json(rocs, len(names)), rocs)


def on_annotated(annotated: Mapping[str, Faces], found: Mapping[str, Found], source: Path) -> dict[str, Found]:
    """Detections by the annotation's names; other pictures are left out. source: for messages. Raises: InputError."""
    named: dict[str, Found] = {}
    for path, here in found.items():
        name = annotated_name(path, annotated)
        if name in named:
            raise InputError(f"{source}: two pictures are {name} of the annotation, the second is {path}.")
        if name is not None:
            named[name] = here
    if not named:
        wanted, path = next(iter(annotated), "nothing"), next(iter(found), "nothing")
        raise InputError(f"{source}: none of its pictures is annotated: {path} should end in a name like {wanted}.")
    return named


def _sized(name: str, faces: Faces, found: list[Found]) -> Faces:
    """With the picture's size from where it is told."""
    told = [faces.picture_hw, *(of.picture_hw for of in found)]
    sizes = {size for size in told if size is not None}
    if len(sizes) > 1:
        raise InputError(f"{name}: results are of pictures of several sizes (height, width): {sorted(sizes)}.")
    return replace(faces, picture_hw=next(iter(sizes), None))


def roc(faces: Mapping[str, Faces], found: Mapping[str, Found]) -> Roc:
    """Both scores at each threshold; an annotated picture that is not in `found` has no detections."""
    steps: list[tuple[Floats, ...]] = [(np.zeros(0),) * 4]
    for name, annotated in faces.items():
        here = found.get(name)
        if here is not None and len(here.scores_K):
            iou_KF = iou(regions(here.regions_KR), regions(annotated.ellipses_F5), annotated.picture_hw)
            scores_S, *totals = at_each_threshold(iou_KF, here.scores_K)
            steps.append((scores_S, *(np.diff(total_S, prepend=0) for total_S in totals)))
    scores, *gains = (np.concatenate(column) for column in zip(*steps, strict=True))
    order = np.argsort(-scores, kind="stable")
    scores = scores[order]
    last_T = np.flatnonzero(np.append(scores[1:] != scores[:-1], True)[: len(scores)])
    count_T, discrete_T, continuous_T = (np.cumsum(gain[order])[last_T] for gain in gains)
    total = sum(len(of.ellipses_F5) for of in faces.values())
    rates_T = {"discrete": discrete_T / max(1, total), "continuous": continuous_T / max(1, total)}
    return Roc(scores[last_T], np.rint(count_T - discrete_T).astype(np.int64), rates_T, total)


def at_each_threshold(iou_KF: Floats, scores_K: Floats) -> tuple[Floats, Floats, Floats, Floats]:
    """One picture, (S,) each: its scores, highest first; detections of so much or more; pairs over 0.5; their IoU."""
    order = np.argsort(-scores_K, kind="stable")
    iou_KF, scores_K = iou_KF[order], scores_K[order]
    ends_S = np.flatnonzero(np.append(scores_K[1:] != scores_K[:-1], True)) + 1
    discrete_S, continuous_S = np.zeros(len(ends_S)), np.zeros(len(ends_S))
    touching = np.flatnonzero(iou_KF.any(axis=1))
    step_of = np.searchsorted(ends_S, touching, side="right")
    for step in np.unique(step_of):
        overlaps = iou_KF[touching[step_of <= step]]
        matched = overlaps[linear_sum_assignment(overlaps, maximize=True)]
        discrete_S[step:], continuous_S[step:] = (matched > MATCH_IOU).sum(), matched.sum()
    return scores_K[ends_S - 1], ends_S.astype(np.float64), discrete_S, continuous_S


def table(rocs: Mapping[str, Roc]) -> str:
    """Markdown: a line a figure, a column a detector."""
    lines = ["| score | false positives | " + " | ".join(rocs) + " |", "|---|---:|" + "---:|" * len(rocs)]
    for score in SCORES:
        for shown in SHOWN:
            cells = [f"{of.rate_at(score, shown):.4f}" for of in rocs.values()]
            lines.append(f"| {score} | {shown:,} | " + " | ".join(cells) + " |")
    ends = [f"{of.false_positives_T[-1]:,}" if len(of.scores_T) else "0" for of in rocs.values()]
    return "\n".join([*lines, "| all that there are | | " + " | ".join(ends) + " |"])


def as_json(rocs: Mapping[str, Roc], pictures: int) -> dict[str, dict[str, object]]:
    """detector -> pictures, faces, false positives in all, and each score's rates by false positives."""
    return {
        detector: {
            "pictures": pictures,
            "faces": of.faces,
            "false_positives": int(of.false_positives_T[-1]) if len(of.scores_T) else 0,
            **{score: {str(shown): round(of.rate_at(score, shown), 5) for shown in SHOWN} for score in SCORES},
        }
        for detector, of in rocs.items()
    }


def write_curves(rocs: Mapping[str, Roc], folder: Path) -> None:
    """`roc.csv`: every point up to 10,000 false positives; `roc.png`: both scores up to 2,000, as FDDB shows them."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "roc.csv").open("w", newline="") as file:
        rows = csv.writer(file)
        rows.writerow(["detector", "score", "false_positives", *SCORES])
        for detector, of in rocs.items():
            columns = (of.scores_T, of.false_positives_T, *(of.rates_T[score] for score in SCORES))
            for threshold, count, *rates in zip(*columns, strict=True):
                if count <= _MOST_WRITTEN:
                    rows.writerow([detector, f"{threshold:.9g}", count, *(f"{rate:.6g}" for rate in rates)])
    figure = Figure(figsize=(13, 5.5), layout="constrained")
    for axes, score in zip(figure.subplots(1, 2), SCORES, strict=True):
        for detector, of in rocs.items():
            shown_T = of.false_positives_T <= SHOWN[-1]
            label = f"{detector} {of.rate_at(score, 1000):.3f}"
            axes.plot(of.false_positives_T[shown_T], of.rates_T[score][shown_T], label=label)
        axes.set(title=f"{score} score (rate at 1,000)", xlim=(0, SHOWN[-1]), ylim=(0, 1.02))
        axes.set(xlabel="false positives", ylabel="true-positive rate")
        axes.grid(alpha=0.3)
        axes.legend(fontsize="small", loc="lower right")
    figure.savefig(folder / "roc.png", dpi=110)
