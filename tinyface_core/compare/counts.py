"""What two outputs have in common and what not, as counts that add up over units.

Legend: H height band, S score band, B bin of IoU. Knows numbers; reads nothing.
"""

from __future__ import annotations

import heapq
from collections import Counter
from dataclasses import dataclass, field, fields

import numpy as np
from numpy.typing import NDArray

HEIGHT_EDGES_PX = (10, 20, 40, 140)
HEIGHT_BANDS = ("0-10", "10-20", "20-40", "40-140", "140-")  # px, the upper end left out
SCORE_BANDS = tuple(f"0.{tenth}" for tenth in range(10))
MOVED_IOU = 0.9  # a pair that overlaps less is told as moved
IOU_BINS = 50  # of 0.5..1, a hundredth each
LISTED = 100  # pictures that differ most

Counts = NDArray[np.int64]


def _counts() -> Counts:
    return np.zeros((len(HEIGHT_BANDS), len(SCORE_BANDS)), np.int64)


@dataclass(frozen=True)
class FaceCounts:
    """Faces of the pictures that were compared, by height and score.

    old, new: all that count. lost: of the old output without a counterpart in the new one. gained: the reverse. kept:
    of the old one with a counterpart; moved: of these, those whose boxes overlap by less than MOVED_IOU. old, lost,
    kept and moved by the old face, new and gained by the new one. iou_HB: of the kept ones, by height.
    """

    old_HS: Counts = field(default_factory=_counts)
    new_HS: Counts = field(default_factory=_counts)
    lost_HS: Counts = field(default_factory=_counts)
    gained_HS: Counts = field(default_factory=_counts)
    kept_HS: Counts = field(default_factory=_counts)
    moved_HS: Counts = field(default_factory=_counts)
    iou_HB: Counts = field(default_factory=lambda: np.zeros((len(HEIGHT_BANDS), IOU_BINS), np.int64))

    def __add__(self, other: FaceCounts) -> FaceCounts:
        return FaceCounts(*(getattr(self, each.name) + getattr(other, each.name) for each in fields(self)))

    def iou_above(self, share: float) -> float | None:
        """The overlap that this share of all kept faces reaches, to a hundredth, rounded down; None without any."""
        bins_B = self.iou_HB.sum(axis=0)[::-1]
        if not bins_B.sum():
            return None
        place = int(np.searchsorted(np.cumsum(bins_B), share * bins_B.sum()))
        return 1 - (place + 1) / (2 * IOU_BINS)


@dataclass(frozen=True)
class PictureDiff:
    """A picture that is not the same in both outputs; facts as in the new one.

    old_faces, new_faces: all. lost, gained, moved: those that count. boxes_K5: of the old face where lost, else of the
    new one: x1, y1, x2, y2, score. kinds_K: `lost`, `gained`, `moved`, `kept`.
    """

    image_id: str
    uri: str
    member: str | None
    source_version: str | None
    sha256: str | None
    width: int
    height: int
    old_faces: int
    new_faces: int
    lost: int
    gained: int
    moved: int
    boxes_K5: NDArray[np.float32]
    kinds_K: tuple[str, ...]

    def most_different_first(self) -> tuple[int | str, ...]:
        return (-self.lost - self.gained, -self.moved, self.uri, self.member or "", self.image_id)


@dataclass(frozen=True)
class Comparison:
    """Two outputs beside each other.

    pictures: by what became of them: `compared` (in both, the same bytes, a result in both), `other bytes`,
    `error in old`, `error in new`, `error in both`, `only in old`, `only in new`. lost_results: those of `only in old`
    that have a result there. new_errors: class -> pictures, of `error in new`. torn_old, torn_new: units whose faces
    are not there: read as if they held no picture. most_different: at most LISTED, the most different first.
    """

    pictures: Counter[str] = field(default_factory=Counter)
    lost_results: int = 0
    new_errors: Counter[str] = field(default_factory=Counter)
    faces: FaceCounts = field(default_factory=FaceCounts)
    torn_old: int = 0
    torn_new: int = 0
    most_different: tuple[PictureDiff, ...] = ()

    def __add__(self, other: Comparison) -> Comparison:
        most = heapq.nsmallest(LISTED, self.most_different + other.most_different, key=PictureDiff.most_different_first)
        return Comparison(
            self.pictures + other.pictures,
            self.lost_results + other.lost_results,
            self.new_errors + other.new_errors,
            self.faces + other.faces,
            self.torn_old + other.torn_old,
            self.torn_new + other.torn_new,
            tuple(most),
        )


def bands(height_D: NDArray[np.float32], score_D: NDArray[np.float32]) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """(height band, score band) of each face."""
    score_band_D = np.clip((score_D.astype(np.float64) * len(SCORE_BANDS)).astype(np.int64), 0, len(SCORE_BANDS) - 1)
    return np.searchsorted(HEIGHT_EDGES_PX, height_D, side="right"), score_band_D


def counted(height_band_D: NDArray[np.int64], score_band_D: NDArray[np.int64]) -> Counts:
    """How many faces are in each pair of bands, (H, S)."""
    flat = np.bincount(height_band_D * len(SCORE_BANDS) + score_band_D, minlength=_counts().size)
    return flat.reshape(_counts().shape).astype(np.int64)


def iou_counted(height_band_D: NDArray[np.int64], iou_D: NDArray[np.float64]) -> Counts:
    """How many pairs are in each bin of IoU, (H, B)."""
    bin_D = np.clip(((iou_D - 0.5) * 2 * IOU_BINS).astype(np.int64), 0, IOU_BINS - 1)
    flat = np.bincount(height_band_D * IOU_BINS + bin_D, minlength=len(HEIGHT_BANDS) * IOU_BINS)
    return flat.reshape(len(HEIGHT_BANDS), IOU_BINS).astype(np.int64)
