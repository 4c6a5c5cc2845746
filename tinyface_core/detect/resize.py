"""Bilinear resizing of any window of a level's image, without making the rest of it.

Half-pixel centres; when shrinking, the triangle filter is widened by the factor (antialiased, as MATLAB's imresize
and Pillow do). Each output pixel is the same weighted sum whichever window it is part of, which is what lets tiles
equal the whole (detect/tiling.py). The picture stays bytes: only a piece of it at a time is made float.
"""

from __future__ import annotations

from collections.abc import Iterator
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
    """Pixels `region` of the picture shown at image_hw: (3, h, w) float32 in 0..255, channels last, on its device.

    Args:
        rgb_HW3: the whole picture, uint8.
        image_hw: size of the level's whole image. region: the part wanted, in its pixels.
    """
    if tuple(rgb_HW3.shape[:2]) == image_hw:
        return rgb_HW3[region.top : region.bottom, region.left : region.right].float().permute(2, 0, 1)
    factor = image_hw[0] // rgb_HW3.shape[0]
    multiple = image_hw == (factor * rgb_HW3.shape[0], factor * rgb_HW3.shape[1]) and factor.bit_count() == 1
    if multiple and rgb_HW3.device.type == "cpu":
        return _multiplied(rgb_HW3, factor, region).permute(2, 0, 1)
    image_hw3 = torch.empty((*region.hw, 3), device=rgb_HW3.device)
    for piece in _pieces((rgb_HW3.shape[0], rgb_HW3.shape[1]), image_hw, region):
        rows = taps(rgb_HW3.shape[0], image_hw[0], piece.top, piece.bottom)
        columns = taps(rgb_HW3.shape[1], image_hw[1], piece.left, piece.right)
        made_HW3 = rgb_HW3[rows.first : rows.stop, columns.first : columns.stop].float()
        if image_hw[0] < rgb_HW3.shape[0]:  # the smaller map is the one to turn
            made_hw3 = _across(_down(made_HW3, rows), columns)
        else:
            made_hw3 = _down(_across(made_HW3, columns), rows)
        top, left = piece.top - region.top, piece.left - region.left
        image_hw3[top : top + piece.hw[0], left : left + piece.hw[1]] = made_hw3
    return image_hw3.permute(2, 0, 1)


def _multiplied(rgb_HW3: Tensor, factor: int, region: Region) -> Tensor:
    """The same sums, bit by bit, where a level is 2, 4, 8... times the picture; OpenCV takes a fifth of the time.

    In every window weights are the same few then, and have no rounding (2x: 1/4 and 3/4).
    """
    import cv2  # on CPUs alone: benchmarks/gpu.py runs where there is torch and little else

    (top, bottom), (left, right) = (
        (max(0, begin // factor - 1), min(side, -(-end // factor) + 1))
        for begin, end, side in (
            (region.top, region.bottom, rgb_HW3.shape[0]),
            (region.left, region.right, rgb_HW3.shape[1]),
        )
    )
    source_HW3 = rgb_HW3[top:bottom, left:right].float().numpy()
    shown = cv2.resize(source_HW3, None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    row, column = region.top - factor * top, region.left - factor * left
    return torch.from_numpy(shown)[row : row + region.hw[0], column : column + region.hw[1]]


def _pieces(source_hw: tuple[int, int], image_hw: tuple[int, int], region: Region) -> Iterator[Region]:
    """The region cut so that each piece is made of about PIECE_PX source pixels at most."""
    ratio_y, ratio_x = (source / shown for source, shown in zip(source_hw, image_hw, strict=True))
    rows_of_one = 2 * max(1.0, ratio_y) + 1
    across = max(1, min(region.hw[1], int(PIECE_PX / rows_of_one / ratio_x)))
    down = max(1, int(PIECE_PX / (across * ratio_x * ratio_y)))
    for top in range(region.top, region.bottom, down):
        for left in range(region.left, region.right, across):
            yield Region(top, left, min(top + down, region.bottom), min(left + across, region.right))


def _down(map_HW3: Tensor, rows: Taps) -> Tensor:
    """Along the height, (h, W, 3)."""
    return _weighted(map_HW3.reshape(map_HW3.shape[0], -1), rows).reshape(-1, *map_HW3.shape[1:])


def _across(map_HW3: Tensor, columns: Taps) -> Tensor:
    """Along the width, (H, w, 3)."""
    return _down(map_HW3.transpose(0, 1), columns).transpose(0, 1)


def _weighted(table: Tensor, along: Taps) -> Tensor:
    """Weighted sums of the table's rows, one a tap row: (N, columns)."""
    index = torch.from_numpy(along.index_NK).to(table.device)
    weight = torch.from_numpy(along.weight_NK).to(table.device)
    return F.embedding_bag(index, table, per_sample_weights=weight, mode="sum")
