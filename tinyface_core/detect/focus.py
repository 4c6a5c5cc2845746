"""Where finer levels are computed, when not everywhere: around cells that the picture at its own size makes hot.

A face too small for 1x raises the scores of its templates there all the same, far below the threshold
(docs/performance.md: how far, and what is lost). The idea is AutoFocus's (Najibi, Singh and Davis, 2019); no network is
trained for it here.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch.nn import functional as F

from tinyface_core.detect.decode import logit
from tinyface_core.detect.pyramid import Level
from tinyface_core.detect.resize import Region
from tinyface_core.model.network import HeatMaps

MARGIN_CELLS = 2  # around a hot one, at 1x: a face's cells, and those that vote with them
MOST_CUTS = 8  # one in another: 256 regions
WINDOW_PX = 1 << 18  # what a window costs beside its pixels: oneDNN prepares for each new size


class Focus:
    """Which cells of the 1x level are hot: those where any template, whatever its level, scores above `least`."""

    def __init__(self, level: Level, stride: int, least: float) -> None:
        self._stride, self._least = stride, logit(least)
        self._hot_HW = torch.zeros([side // stride + 1 for side in level.size.image_hw], dtype=torch.bool)

    def note(self, maps: HeatMaps, first_cell: tuple[int, int]) -> None:
        """Takes cells in, as a tile keeps them."""
        hot_HW = (maps.logits_NTHW[0].amax(dim=0) > self._least).cpu()
        rows, columns = (slice(begin, begin + count) for begin, count in zip(first_cell, hot_HW.shape, strict=True))
        self._hot_HW[rows, columns] = hot_HW

    def regions(self, level: Level, align: int, halo_px: int) -> list[Region]:
        """What of a finer level to compute; no two overlap, and all begin at multiples of `align`.

        halo_px: what each costs around it.
        """
        near_HW = F.max_pool2d(self._hot_HW[None].float(), 2 * MARGIN_CELLS + 1, 1, MARGIN_CELLS)[0].numpy() > 0
        rows, columns = (
            ((np.arange(0, side, align) + align / 2) / level.zoom / self._stride).astype(np.intp)
            for side in level.size.image_hw
        )
        hot_HW = near_HW[np.ix_(rows.clip(max=near_HW.shape[0] - 1), columns.clip(max=near_HW.shape[1] - 1))]
        height, width = level.size.image_hw
        cuts = _Cuts(hot_HW, halo_px / align, WINDOW_PX / align**2)
        return [
            Region(align * top, align * left, min(align * bottom, height), min(align * right, width))
            for top, left, bottom, right in cuts.within((0, 0, *hot_HW.shape), MOST_CUTS)[1]
        ]


Block = tuple[int, int, int, int]  # top, left, bottom, right


@dataclass(frozen=True)
class _Cuts:
    """Rectangles that hold all that is hot, in blocks of `align` px, cut in two as long as that makes them cheaper."""

    hot_HW: NDArray[np.bool_]
    halo: float
    window: float

    def within(self, block: Block, cuts: int) -> tuple[float, list[Block]]:
        """What they cost, and they; `cuts`: one in another, at most."""
        top, left, bottom, right = block
        hot_HW = self.hot_HW[top:bottom, left:right]
        rows, columns = (np.flatnonzero(hot_HW.any(axis=axis)) for axis in (1, 0))
        if not len(rows):
            return 0.0, []
        bottom, right = top + int(rows[-1]) + 1, left + int(columns[-1]) + 1
        top, left = top + int(rows[0]), left + int(columns[0])
        whole = self._cost(top, left, bottom, right), [(top, left, bottom, right)]
        if not cuts:
            return whole
        (gap, middle), axis = max((_widest_gap(places), axis) for axis, places in ((0, rows), (1, columns)))
        middle += block[axis]
        if not gap:
            axis = int(right - left > bottom - top)
            middle = (top + bottom + 1) // 2 if axis == 0 else (left + right + 1) // 2
        first, second = (
            ((top, left, middle, right), (middle, left, bottom, right))
            if axis == 0
            else ((top, left, bottom, middle), (top, middle, bottom, right))
        )
        (cost, blocks), (cost_behind, behind) = self.within(first, cuts - 1), self.within(second, cuts - 1)
        return min(whole, (cost + cost_behind, blocks + behind))

    def _cost(self, top: int, left: int, bottom: int, right: int) -> float:
        height, width = self.hot_HW.shape
        rows = min(height, bottom + self.halo) - max(0, top - self.halo)
        return self.window + rows * (min(width, right + self.halo) - max(0, left - self.halo))


def _widest_gap(places_N: NDArray[np.intp]) -> tuple[int, int]:
    """Length and middle of the longest stretch between places that follow each other; length 0 where there is none."""
    if len(places_N) < 2:
        return 0, 0
    gaps = np.diff(places_N) - 1
    widest = int(gaps.argmax())
    return int(gaps[widest]), int(places_N[widest] + 1 + gaps[widest] // 2)
