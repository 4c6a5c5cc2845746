"""Precision, recall and average precision of a group of faces, by WIDER FACE's protocol. METHOD, section 5.

1,000 thresholds on scores that are stretched to 0..1 over all pictures; a detection whose face is not in the group
counts neither for nor against. Intervals by bootstrap over pictures.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyface_core.evaluate.matching import Matches
from tinyface_core.evaluate.truth import Truth

THRESHOLDS = 1000


@dataclass(frozen=True)
class Curve:
    """precision_T, recall_T at each threshold, highest first; scores_T: the thresholds as scores of the model."""

    precision_T: NDArray[np.float64]
    recall_T: NDArray[np.float64]
    scores_T: NDArray[np.float64]
    faces: int

    @property
    def average_precision(self) -> float:
        return float(average_precision(self.precision_T[None], self.recall_T[None])[0])


@dataclass(frozen=True)
class Counts:
    """hits_PT, kept_PT: of each picture, detections up to each threshold that find a face of the group, and those that
    count at all; faces_P: faces of the group."""

    hits_PT: NDArray[np.int32]
    kept_PT: NDArray[np.int32]
    faces_P: NDArray[np.int64]


def stretched(scores_D: NDArray[np.float64]) -> NDArray[np.float64]:
    """Scores of all pictures together, the lowest at 0, the highest at 1."""
    if not len(scores_D):
        return scores_D
    low, high = scores_D.min(), scores_D.max()
    return np.asarray((scores_D - low) / (high - low)) if high > low else np.ones_like(scores_D)


def counts(truth: Truth, matches: Matches, group_F: NDArray[np.bool_]) -> Counts:
    """How the detections fare where only the faces of group_F count."""
    thresholds_T = 1 - np.arange(1, THRESHOLDS + 1) / THRESHOLDS
    # The first threshold that a score reaches: thresholds fall, so their negatives rise.
    reached_D = np.searchsorted(-thresholds_T, -stretched(matches.scores_D), side="left")
    reached_D = np.minimum(reached_D, THRESHOLDS - 1)
    in_group_D = np.where(matches.face_D >= 0, np.append(group_F, False)[matches.face_D], True)
    cell_D = matches.picture_D * THRESHOLDS + reached_D
    size = matches.pictures * THRESHOLDS
    hits = np.bincount(cell_D[in_group_D & matches.first_D], minlength=size)
    kept = np.bincount(cell_D[in_group_D], minlength=size)
    faces_P = np.add.reduceat(np.append(group_F, False), truth.starts_P1[:-1]) * (np.diff(truth.starts_P1) > 0)
    shape = (matches.pictures, THRESHOLDS)
    return Counts(
        np.cumsum(hits.reshape(shape), axis=1, dtype=np.int32),
        np.cumsum(kept.reshape(shape), axis=1, dtype=np.int32),
        faces_P.astype(np.int64),
    )


def curve(truth: Truth, matches: Matches, group_F: NDArray[np.bool_]) -> Curve:
    """Precision and recall of one group."""
    found = counts(truth, matches, group_F)
    hits_T, kept_T, faces = found.hits_PT.sum(axis=0), found.kept_PT.sum(axis=0), int(found.faces_P.sum())
    low, high = (matches.scores_D.min(), matches.scores_D.max()) if len(matches.scores_D) else (0.0, 0.0)
    thresholds_T = 1 - np.arange(1, THRESHOLDS + 1) / THRESHOLDS
    return Curve(_ratio(hits_T, kept_T), hits_T / max(1, faces), low + thresholds_T * (high - low), faces)


def interval(
    truth: Truth, matches: Matches, group_F: NDArray[np.bool_], *, samples: int = 1000, seed: int = 0
) -> tuple[float, float]:
    """The 2.5 % and 97.5 % points of the average precision when the pictures are drawn anew, with replacement."""
    weights_SP = drawn_anew(matches.pictures, samples, seed)
    low, high = np.percentile(resampled(counts(truth, matches, group_F), weights_SP), (2.5, 97.5))
    return float(low), float(high)


def drawn_anew(pictures: int, samples: int, seed: int) -> NDArray[np.float32]:
    """How often each sample has each picture, (S, P): as many as there are, with replacement."""
    drawn_SP = np.random.default_rng(seed).multinomial(pictures, np.full(pictures, 1 / pictures), size=samples)
    return drawn_SP.astype(np.float32)


def resampled(found: Counts, weights_SP: NDArray[np.float32]) -> NDArray[np.float64]:
    """Average precision (S,) of each sample of pictures."""
    hits_ST, kept_ST = weights_SP @ found.hits_PT.astype(np.float32), weights_SP @ found.kept_PT.astype(np.float32)
    faces_S1 = np.maximum(1, weights_SP @ found.faces_P.astype(np.float32))[:, None]
    return average_precision(_ratio(hits_ST, kept_ST), hits_ST / faces_S1)


def average_precision(precision_ST: NDArray[np.floating], recall_ST: NDArray[np.floating]) -> NDArray[np.float64]:
    """Area under the monotone envelope (PASCAL VOC from 2010 on), of S curves."""
    edges = ((0, 0), (1, 1))
    recall_SU = np.pad(np.asarray(recall_ST, np.float64), edges, constant_values=((0, 0), (0, 1)))
    precision_SU = np.pad(np.asarray(precision_ST, np.float64), edges)
    envelope_SU = np.maximum.accumulate(precision_SU[:, ::-1], axis=1)[:, ::-1]
    return np.asarray((np.diff(recall_SU, axis=1) * envelope_SU[:, 1:]).sum(axis=1))


def _ratio(hits: NDArray[np.generic], kept: NDArray[np.generic]) -> NDArray[np.float64]:
    """hits / kept; 0 where there are none."""
    return np.asarray(np.divide(hits, kept, out=np.zeros(hits.shape), where=np.asarray(kept) > 0))
