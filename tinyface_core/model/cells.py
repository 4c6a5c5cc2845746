"""A linear map of the features that the heads see, worked out only at chosen cells: where a face was found.

A coarse map lies on the finest grid as `network.py` enlarges it. Both forms of that are linear interpolation, so the
features of single cells are found in place, and nothing is computed or copied for all the others.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor, nn

# A cell's value is the mean over 5 x 5 cells around it: part of what a checkpoint's regressor means. One cell alone
# says too little of how a face is turned (docs/decisions.md, "ellipses").
AROUND = 2
BLOCK_CELLS = 4096  # worked out at once: 25 MB of ResNet's 1,536 channels


@dataclass(frozen=True)
class Placed:
    """A feature map on the finest grid: that grid's cell i lies at begin + step * i of it, along both axes.

    features_1CHW: any float dtype. repeat: beyond the last cell its value is repeated, else there are zeros.
    """

    features_1CHW: Tensor
    begin: float = 0.0
    step: float = 1.0
    repeat: bool = True

    def at(self, row_K: Tensor, column_K: Tensor) -> Tensor:
        """Its value at cells of the finest grid, (K, C) float32."""
        features_HWC = self.features_1CHW[0].permute(1, 2, 0)
        y_K, x_K = (self.begin + self.step * cell_K.double() for cell_K in (row_K, column_K))
        bottom, right = (side - 1 for side in features_HWC.shape[:2])
        if self.repeat:
            y_K, x_K = y_K.clamp(0, bottom), x_K.clamp(0, right)
        if self.step == 1 and self.begin == 0:  # the finest grid itself
            return features_HWC[row_K, column_K].float()
        sum_KC = features_HWC.new_zeros(len(row_K), features_HWC.shape[2], dtype=torch.float32)
        for near_y_K in (y_K.floor(), y_K.floor() + 1):
            for near_x_K in (x_K.floor(), x_K.floor() + 1):
                inside_K = (near_y_K >= 0) & (near_y_K <= bottom) & (near_x_K >= 0) & (near_x_K <= right)
                share_K = inside_K * (1 - (y_K - near_y_K).abs()) * (1 - (x_K - near_x_K).abs())
                value_KC = features_HWC[near_y_K.clamp(0, bottom).long(), near_x_K.clamp(0, right).long()]
                sum_KC += share_K.float()[:, None] * value_KC.float()
        return sum_KC


@dataclass(frozen=True)
class CellMap:
    """The map and what it is applied to: features of one picture, those of the finest stride first.

    linear: (K, all channels) float32 -> (K, n). first_cell: (row, column), on the finest grid, of the heat maps' first
    cell: the cells that a tile keeps begin inside its window.
    """

    linear: nn.Module
    maps: tuple[Placed, ...]
    first_cell: tuple[int, int] = (0, 0)

    def at(self, row_K: Tensor, column_K: Tensor) -> Tensor:
        """The map's mean over the neighbourhood of each cell of the heat maps (int64), (K, n) float32.

        Each cell is worked out once. Where a neighbourhood passes the picture's edge, the cells there are repeated.
        """
        row_K, column_K = row_K + self.first_cell[0], column_K + self.first_cell[1]
        height, width = self.maps[0].features_1CHW.shape[2:]
        cell_U, inverse_K = (row_K * width + column_K).unique(return_inverse=True)
        near_A = torch.arange(-AROUND, AROUND + 1, device=cell_U.device)
        row_UA = (cell_U[:, None] // width + near_A).clamp(0, height - 1)
        column_UA = (cell_U[:, None] % width + near_A).clamp(0, width - 1)
        near_UAA = row_UA[:, :, None] * width + column_UA[:, None, :]
        near_V, inverse_UAA = near_UAA.unique(return_inverse=True)  # neighbours share most of their neighbours
        value_VN = torch.cat([self._values(near_B // width, near_B % width) for near_B in near_V.split(BLOCK_CELLS)])
        inverse_UA = inverse_UAA.flatten(1)
        sum_UN = torch.zeros_like(value_VN[inverse_UA[:, 0]])
        for inverse_U in inverse_UA.unbind(1):
            sum_UN += value_VN[inverse_U]
        return (sum_UN / inverse_UA.shape[1])[inverse_K]

    def _values(self, row_B: Tensor, column_B: Tensor) -> Tensor:
        values_BN: Tensor = self.linear(torch.cat([placed.at(row_B, column_B) for placed in self.maps], dim=1))
        return values_BN

    def moved(self, rows: int, columns: int) -> CellMap:
        """The same for heat maps that lack their first rows and columns."""
        return replace(self, first_cell=(self.first_cell[0] + rows, self.first_cell[1] + columns))
