"""Bilinear resizing of any window of a level's image, without making the rest of it.

Half-pixel centres; when shrinking, the triangle filter is widened by the factor (antialiased, as MATLAB's imresize
and Pillow do). Each output pixel is the same weighted sum whichever window it is part of, which is what lets tiles
equal the whole (detect/tiling.py). The picture stays bytes: only a piece of it at a time is made float.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

PIECE_PX = 1 << 22  # pixels that are float at once, beside the result: 48 MB


@dataclass(frozen=True)
class Region:
    """A rectangle of whole pixels, end exclusive."""

    top: int
    left: int
    bottom: int
    right: int

    @property
    def hw(self) -> tuple[int, int]:
        return self.bottom - self.top, self.right - self.left


@dataclass(frozen=True)
class Taps:
    """The source pixels of a run of output pixels along one axis.

    first: the lowest source index used. index_NK: source indices less `first`. weight_NK: sums to 1 along K.
    """

    first: int
    stop: int
    index_NK: NDArray[np.int64]
    weight_NK: NDArray[np.float32]


def taps(source: int, target: int, begin: int, end: int) -> Taps:
    """Taps of output pixels begin..end when `source` pixels are shown as `target` pixels."""
    ratio = source / target
    support = max(1.0, ratio)
    centre_N1 = ((np.arange(begin, end) + 0.5) * ratio)[:, None]
    lowest_N1 = np.floor(centre_N1 - support + 0.5).astype(np.int64)
    index_NK = lowest_N1 + np.arange(int(np.ceil(2 * support)) + 1)
    weight_NK = np.clip(1 - np.abs(index_NK + 0.5 - centre_N1) / support, 0, None)
    weight_NK[(index_NK < 0) | (index_NK >= source)] = 0
    weight_NK /= weight_NK.sum(axis=1, keepdims=True)
    used = weight_NK.any(axis=0)
    index_NK = np.clip(index_NK[:, used], 0, source - 1)
    first, stop = int(index_NK.min()), int(index_NK.max()) + 1
    return Taps(first, stop, index_NK - first, weight_NK[:, used].astype(np.float32))


def resize_region(rgb_HW3: Tensor, image_hw: tuple[int, int], region: Region) -> Tensor:
    """Pixels `region` of the picture shown at image_hw: (3, h, w) float32 in 0..255, on the picture's device.

    Args:
        rgb_HW3: the whole picture, uint8.
        image_hw: size of the level's whole image. region: the part wanted, in its pixels.
    """
    if tuple(rgb_HW3.shape[:2]) == image_hw:
        return rgb_HW3[region.top : region.bottom, region.left : region.right].permute(2, 0, 1).float()
    columns = taps(rgb_HW3.shape[1], image_hw[1], region.left, region.right)
    source_HW3 = rgb_HW3[:, columns.first : columns.stop]
    width = source_HW3.shape[1]
    image_wh3 = torch.empty((region.hw[1], region.hw[0], 3), device=rgb_HW3.device)
    step = max(1, PIECE_PX // width)
    for top in range(region.top, region.bottom, step):
        rows = taps(rgb_HW3.shape[0], image_hw[0], top, min(top + step, region.bottom))
        made_Wh3 = _rows_made(source_HW3, rows).transpose(0, 1)
        across_wC = _weighted(made_Wh3.reshape(width, -1), columns)
        image_wh3[:, top - region.top : top - region.top + step] = across_wC.reshape(region.hw[1], -1, 3)
    return image_wh3.permute(2, 1, 0)


def _rows_made(source_HW3: Tensor, rows: Taps) -> Tensor:
    """Output rows with the source's columns, (N, W, 3) float32; only a piece of the source at a time is float."""
    height, width = rows.stop - rows.first, source_HW3.shape[1]
    step = max(1, PIECE_PX // height)
    parts = []
    for left in range(0, width, step):
        piece_HW3 = source_HW3[rows.first : rows.stop, left : left + step].float()
        parts.append(_weighted(piece_HW3.reshape(height, -1), rows).reshape(len(rows.index_NK), -1, 3))
    return torch.cat(parts, dim=1)


def _weighted(table: Tensor, along: Taps) -> Tensor:
    """Weighted sums of the table's rows, one a tap row: (N, columns)."""
    index = torch.from_numpy(along.index_NK).to(table.device)
    weight = torch.from_numpy(along.weight_NK).to(table.device)
    return F.embedding_bag(index, table, per_sample_weights=weight, mode="sum")
