"""The false positives of one detector, best score first, each with what went wrong. METHOD, section 7.

Paper: appendix A; the kinds and "the top N" are those of Hoiem, Chodpathumwan and Dai, "Diagnosing error in object
detectors" (2012). A detection that takes no valid face is, by the box that it overlaps most (IoU as in matching.py):

    duplicate       a valid face, by 0.5 or more, that a better detection has taken
    localisation    a valid face, by 0.1 to 0.5
    background      nothing by 0.1 or more
    likely unlabelled   background, but an independent detector (the witness) also sees a face there, by IoU 0.5, with
                        a score from which on nine in ten of its own detections are annotated faces

A box marked invalid is neither face nor background: what overlaps one most, by 0.1 or more, is left out and counted
apart (WIDER's curves leave out only what overlaps it by 0.5, so they have a few false alarms more).

Limits of "likely unlabelled": both detectors may take the same poster, statue or round thing for a face, and what the
witness is blind to (YuNet: most faces under 10 px) stays background. Without a witness the class cannot be told. Only
eyes can tell for sure: that is what the contact sheet (errors_sheet.py) is for.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import StrEnum

import numpy as np
from numpy.typing import NDArray

from tinyface_core.evaluate.curves import curve
from tinyface_core.evaluate.matching import MATCH_IOU, Found, Matches, inclusive_iou
from tinyface_core.evaluate.truth import Truth

TOUCH_IOU = 0.1  # from here on a detection has to do with a face
SURE_PRECISION = 0.9  # of the witness, at the lowest score that is taken for its word
TOPS = (20, 100)


class Kind(StrEnum):
    """Of a false positive, see the head of this file."""

    BACKGROUND = "background"
    UNLABELLED = "likely unlabelled"
    LOCALISATION = "localisation"
    DUPLICATE = "duplicate"


@dataclass(frozen=True)
class Witness:
    """An independent detector: what it found on the same pictures, and the score from which on it is believed."""

    name: str
    found: Mapping[str, Found]
    least_score: float


@dataclass(frozen=True)
class Alarms:
    """False positives, best score first.

    scores_A. picture_A: place in the truth. boxes_A4 float64 (x, y, width, height), px. kind_A: a Kind each. iou_A:
    with the box that it overlaps most. on_invalid: how many detections were left out as they lie on boxes marked
    invalid. witness: whose word UNLABELLED rests on; None: nobody's, so the class is empty.
    """

    scores_A: NDArray[np.float64]
    picture_A: NDArray[np.int64]
    boxes_A4: NDArray[np.float64]
    kind_A: NDArray[np.object_]
    iou_A: NDArray[np.float64]
    on_invalid: int
    witness: Witness | None = None

    def __len__(self) -> int:
        return len(self.scores_A)


def believed(truth: Truth, name: str, found: Mapping[str, Found], matches: Matches) -> Witness | None:
    """The detector as a witness; None where no score makes SURE_PRECISION of its detections annotated faces.

    Its precision counts unlabelled faces as false alarms, so the score is on the safe side.
    """
    points = curve(truth, matches, truth.valid_F)
    sure_T = points.precision_T >= SURE_PRECISION
    return Witness(name, found, float(points.scores_T[sure_T].min())) if sure_T.any() else None


def false_positives(
    truth: Truth, matches: Matches, found: Mapping[str, Found], witness: Witness | None = None
) -> Alarms:
    """The detections that take no valid face, sorted into kinds.

    Args:
        matches: match(truth, found), of the same truth and detections.
    Raises:
        KeyError: the witness lacks a picture.
    """
    on_face_D = matches.face_D >= 0
    valid_D = np.append(truth.valid_F, False)[matches.face_D]  # place -1 is the False
    duplicate_D = on_face_D & valid_D & ~matches.first_D
    boxes_D4 = ranked_boxes(truth, found)
    near_valid_D, near_invalid_D = _beside_faces(truth, matches, boxes_D4, ~on_face_D & (matches.iou_D >= TOUCH_IOU))
    background_D = ~on_face_D & ~near_valid_D & ~near_invalid_D
    seen_D = _seen(truth, matches, boxes_D4, background_D, witness)
    kind_D = np.full(len(on_face_D), Kind.BACKGROUND, object)
    kind_D[duplicate_D], kind_D[near_valid_D], kind_D[seen_D] = Kind.DUPLICATE, Kind.LOCALISATION, Kind.UNLABELLED
    alarm = np.flatnonzero(duplicate_D | near_valid_D | background_D)
    alarm = alarm[np.argsort(-matches.scores_D[alarm], kind="stable")]
    return Alarms(
        matches.scores_D[alarm],
        matches.picture_D[alarm],
        boxes_D4[alarm],
        kind_D[alarm],
        matches.iou_D[alarm],
        int((near_invalid_D | (on_face_D & ~valid_D)).sum()),
        witness,
    )


def ranked_boxes(truth: Truth, found: Mapping[str, Found]) -> NDArray[np.float64]:
    """Boxes (D, 4) of all detections in the order of match(): by picture, best first."""
    here = (found[name] for name in truth.names if name in found)
    return np.concatenate([np.zeros((0, 4)), *(one.boxes_K4[np.argsort(-one.scores_K, kind="stable")] for one in here)])


def _spans(matches: Matches, wanted_D: NDArray[np.bool_]) -> list[tuple[int, NDArray[np.int64]]]:
    """(place of the picture, its wanted detections) of each picture that has some."""
    wanted = np.flatnonzero(wanted_D)  # by picture already
    places, begins = np.unique(matches.picture_D[wanted], return_index=True)
    return list(zip(places.tolist(), np.split(wanted, begins[1:]), strict=True)) if len(wanted) else []


def _beside_faces(
    truth: Truth, matches: Matches, boxes_D4: NDArray[np.float64], touching_D: NDArray[np.bool_]
) -> tuple[NDArray[np.bool_], NDArray[np.bool_]]:
    """Of those that touch a box: whether it is a valid face, and whether not, (D,) each."""
    near_valid_D, valid_F = np.zeros(len(touching_D), bool), truth.valid_F
    for place, here in _spans(matches, touching_D):
        faces = slice(*truth.starts_P1[place : place + 2])
        nearest_K = inclusive_iou(boxes_D4[here], truth.faces_F4[faces]).argmax(axis=1)
        near_valid_D[here] = valid_F[faces][nearest_K]
    return near_valid_D, touching_D & ~near_valid_D


def _seen(
    truth: Truth,
    matches: Matches,
    boxes_D4: NDArray[np.float64],
    background_D: NDArray[np.bool_],
    witness: Witness | None,
) -> NDArray[np.bool_]:
    """Where the witness sees a face too, (D,)."""
    seen_D = np.zeros(len(background_D), bool)
    if witness is None:
        return seen_D
    for place, here in _spans(matches, background_D):
        other = witness.found[truth.names[place]]
        sure_K4 = other.boxes_K4[other.scores_K >= witness.least_score]
        if len(sure_K4):
            seen_D[here] = (inclusive_iou(boxes_D4[here], sure_K4) >= MATCH_IOU).any(axis=1)
    return seen_D


def tops(alarms: Alarms, faces: int) -> dict[str, dict[Kind, int]]:
    """How many of each kind are among the first 20 and 100, the first as many as there are valid faces, and all."""
    named = {f"top {count}": count for count in TOPS} | {f"top {faces:,} (as many as faces)": faces}
    named |= {f"all {len(alarms):,}": len(alarms)}
    return {
        name: {kind: int((alarms.kind_A[:count] == kind).sum()) for kind in Kind}
        for name, count in named.items()
        if count <= len(alarms)
    }


def errors_table(alarms: Alarms, faces: int) -> str:
    """Markdown: a line for each of `tops`, a column a kind; below, what "likely unlabelled" rests on."""
    lines = ["| false positives | " + " | ".join(Kind) + " |", "|---|" + "---:|" * len(Kind)]
    for name, counts in tops(alarms, faces).items():
        whole = max(1, sum(counts.values()))
        cells = [
            "not told" if kind is Kind.UNLABELLED and alarms.witness is None else f"{count:,} ({count / whole:.0%})"
            for kind, count in counts.items()
        ]
        lines.append(f"| {name} | " + " | ".join(cells) + " |")
    return "\n".join([*lines, "", _basis(alarms)])


def _basis(alarms: Alarms) -> str:
    left_out = f"Left out, on boxes marked invalid: {alarms.on_invalid:,}."
    if alarms.witness is None:
        return f"{left_out} Likely unlabelled cannot be told: no second detector, or one that is never sure."
    return (
        f"{left_out} Likely unlabelled: {alarms.witness.name} sees a face there too, at its score "
        f"{alarms.witness.least_score:.3f} or more, where {SURE_PRECISION:.0%} of what it finds is annotated."
    )


def errors_json(alarms: Alarms, truth: Truth, listed: int = max(TOPS)) -> dict[str, object]:
    """`tops` as numbers, and the first `listed` false positives one by one."""
    witness = alarms.witness
    return {
        "counts": {
            name: {str(kind): count for kind, count in of_kind.items()}
            for name, of_kind in tops(alarms, int(truth.valid_F.sum())).items()
        },
        "on_invalid": alarms.on_invalid,
        "witness": None if witness is None else {"name": witness.name, "least_score": round(witness.least_score, 4)},
        "first": [_as_row(alarms, truth.names, place) for place in range(min(listed, len(alarms)))],
    }


def _as_row(alarms: Alarms, names: Sequence[str], place: int) -> dict[str, object]:
    return {
        "picture": names[alarms.picture_A[place]],
        "score": round(float(alarms.scores_A[place]), 4),
        "kind": str(alarms.kind_A[place]),
        "iou": round(float(alarms.iou_A[place]), 3),
        "box": [round(float(side), 1) for side in alarms.boxes_A4[place]],
    }
