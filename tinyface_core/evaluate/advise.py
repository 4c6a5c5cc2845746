"""What a score means: precision and recall at each threshold by height, and the score of one false alarm a picture.

From labelled pictures, by the matching of matching.py. What lies on a face marked invalid counts neither way. A false
alarm is a detection that overlaps no face, valid or not; a second detection of a face is wrong, but no alarm.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from tinyface_core.errors import InputError
from tinyface_core.evaluate.matching import Matches
from tinyface_core.evaluate.truth import ALL, HEIGHTS_PX, Truth, height_name
from tinyface_core.model.advice import Advice, HeightAdvice
from tinyface_core.model.checkpoint import load_checkpoint, save_checkpoint
from tinyface_core.model.spec import ModelSpec, file_hash

STEP = 0.05


def default_score(matches: Matches, alarms_a_picture: float = 1.0) -> float:
    """The lowest threshold (exclusive) with at most so many false alarms; 0 where there are fewer without any."""
    alarms = np.sort(matches.scores_D[matches.face_D < 0])[::-1]
    allowed = int(alarms_a_picture * matches.pictures)
    return float(alarms[allowed]) if len(alarms) > allowed else 0.0


def advise(truth: Truth, matches: Matches, *, least_score: float, zooms: str) -> Advice:
    """Precision and recall at every STEP of score from least_score on, for all faces and for each range of heights.

    least_score: up to which detections were not written. zooms: the levels that were run, for a reader.
    """
    scores_S = np.round(np.arange(np.ceil(least_score / STEP - 1e-9), 1 / STEP) * STEP, 2)
    scores_S = scores_S[scores_S >= least_score - 1e-9]
    valid_F, groups = np.append(truth.valid_F, False), truth.groups()
    counts_D = (matches.face_D < 0) | valid_F[matches.face_D]
    right_D = matches.first_D & valid_F[matches.face_D]
    found_F = np.zeros(len(truth.faces_F4))
    found_F[matches.face_D[matches.first_D]] = matches.scores_D[matches.first_D]

    def of(name: str, shown: str, in_range_D: NDArray[np.bool_]) -> HeightAdvice:
        faces_F = groups[name]
        kept_S, right_S = (
            _above(matches.scores_D[chosen_D], scores_S)
            for chosen_D in (
                in_range_D & counts_D,
                in_range_D & right_D,
            )
        )
        faces = int(faces_F.sum())
        recall_S = _above(found_F[faces_F], scores_S) / max(1, faces)
        return HeightAdvice(
            shown,
            faces,
            tuple(round(float(share), 4) for share in recall_S),
            tuple(round(int(r) / int(k), 4) if k else None for r, k in zip(right_S, kept_S, strict=True)),
        )

    heights = [of(ALL, "all", np.ones(len(matches.scores_D), bool))]
    for low, high in pairwise(HEIGHTS_PX):
        name = height_name(low, high)
        heights.append(of(name, name, (matches.height_D >= low) & (matches.height_D < high)))
    return Advice(matches.pictures, zooms, tuple(float(score) for score in scores_S), tuple(heights))


def _above(scores_D: NDArray[np.float64], thresholds_S: NDArray[np.float64]) -> NDArray[np.int64]:
    """How many scores lie above each threshold."""
    return len(scores_D) - np.searchsorted(np.sort(scores_D), thresholds_S, side="right")


def write_advised(model: Path, new: Path, truth: Truth, matches: Matches, settings: Mapping[str, Any]) -> str:
    """Writes the checkpoint `model` as `new`: with its advice, and the score of one false alarm a picture as default.

    settings: of the output that the matches are of; it must have been made with this model.
    Returns:
        the advice as a table.
    Raises:
        InputError: the output is another model's.
        CheckpointError: `model` is no checkpoint.
    """
    if settings["model_hash"] != file_hash(model):
        raise InputError(
            f"--advise {model}: the results were made with another model, {settings['model']} of sha256 "
            f"{settings['model_hash'][:12]}...: detect with this one first."
        )
    network, spec = load_checkpoint(model)
    spec = advised(spec, truth, matches, settings)
    assert spec.advice is not None
    save_checkpoint(new, network, spec)
    score = spec.defaults.score
    return f"{new}: default score {score:g}, one false alarm a picture\n{spec.advice.table(score)}"


def advised(spec: ModelSpec, truth: Truth, matches: Matches, settings: Mapping[str, Any]) -> ModelSpec:
    """The spec with its advice, and the score of one false alarm a picture as default. settings: of the matches."""
    least, zooms = float(settings["min_score"]), settings["zooms"]
    zooms_told = zooms if isinstance(zooms, str) else " ".join(f"{zoom:g}" for zoom in zooms)
    advice = advise(truth, matches, least_score=least, zooms=zooms_told)
    score = round(max(default_score(matches), least), 4)
    return replace(spec, defaults=replace(spec.defaults, score=score), advice=advice)
