"""What a detector still finds in the copies: how many of the masked faces, and how many others.

A masked face counts as found again if any box that the detector gives shares a quarter of the smaller one's area with
its own. Found again is not recognised: a detector that looks at what is around a face may find a head where all of the
face is gone. It is an upper bound for what a mask missed. Knows boxes; not how they came.
"""

from __future__ import annotations

import hashlib
import heapq
import math
from collections.abc import Iterable
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

SHARED = 0.25  # of the smaller box's area
_Z95 = 1.959964
_AT_ONCE = 1 << 22  # pairs of boxes


@dataclass(frozen=True)
class Residual:
    """Of one copy, or of many together. masked: faces; again: those found again; others: faces found elsewhere."""

    pictures: int = 0
    masked: int = 0
    again: int = 0
    others: int = 0

    def __add__(self, other: Residual) -> Residual:
        mine, theirs = asdict(self), asdict(other)
        return Residual(**{name: mine[name] + theirs[name] for name in mine})

    @property
    def rate(self) -> float | None:
        """The share of masked faces that are found again; None where none was masked."""
        return self.again / self.masked if self.masked else None

    @property
    def interval(self) -> tuple[float, float] | None:
        """Wilson's, of 95 %. Faces count as independent, which those of one picture are not quite."""
        return wilson(self.again, self.masked) if self.masked else None


def residual_of(masked_K4: NDArray[np.float32], found_L4: NDArray[np.float32]) -> Residual:
    """Of one copy: boxes that were masked, and boxes that the detector gives now."""
    again_K, over_L = np.zeros(len(masked_K4), bool), np.zeros(len(found_L4), bool)
    step = max(1, _AT_ONCE // max(1, len(found_L4)))
    for start in range(0, len(masked_K4), step):
        shares_KL = _shares(masked_K4[start : start + step].astype(np.float64), found_L4.astype(np.float64))
        again_K[start : start + step] = (shares_KL >= SHARED).any(axis=1)
        over_L |= (shares_KL >= SHARED).any(axis=0)
    return Residual(1, len(masked_K4), int(again_K.sum()), int((~over_L).sum()))


def _shares(boxes_K4: NDArray[np.float64], others_L4: NDArray[np.float64]) -> NDArray[np.float64]:
    """(K, L): the area that both share, of the smaller one."""
    low_KL2 = np.maximum(boxes_K4[:, None, :2], others_L4[None, :, :2])
    high_KL2 = np.minimum(boxes_K4[:, None, 2:], others_L4[None, :, 2:])
    shared_KL = np.prod(np.maximum(0, high_KL2 - low_KL2), axis=2)
    area_K, area_L = (np.prod(each[:, 2:] - each[:, :2], axis=1) for each in (boxes_K4, others_L4))
    return np.asarray(shared_KL / np.maximum(1e-9, np.minimum(area_K[:, None], area_L[None])))


def wilson(hits: int, of: int) -> tuple[float, float]:
    """The 95 % score interval of a share."""
    share, z2 = hits / of, _Z95**2 / of
    middle = (share + z2 / 2) / (1 + z2)
    half = _Z95 * math.sqrt(share * (1 - share) / of + z2 / (4 * of)) / (1 + z2)
    low, high = (middle - half if hits else 0.0), (middle + half if hits < of else 1.0)
    return max(0.0, low), min(1.0, high)


def drawn(rows: Iterable[dict[str, Any]], count: int, seed: int) -> list[dict[str, Any]]:
    """`count` of these rows (with an `image_id`), by chance: the same ones whatever order they come in."""

    def lot(row: dict[str, Any]) -> bytes:
        return hashlib.blake2b(f"{seed}\0{row['image_id']}".encode(), digest_size=16).digest()

    return heapq.nsmallest(count, rows, key=lot)
