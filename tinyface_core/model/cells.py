"""The mean of a map over the cells around chosen ones: around faces that were found."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor

# A cell's value is the mean over 5 x 5 cells around it: part of what a checkpoint's regressor means. One cell alone
# says too little of how a face is turned (docs/decisions.md, "ellipses").
AROUND = 2


@dataclass(frozen=True)
class CellMeans:
    """map_CHW: of one picture, any float dtype. first_cell: (row, column) in it of the heat maps' first cell, as the
    cells that a tile keeps begin inside its window."""

    map_CHW: Tensor
    first_cell: tuple[int, int] = (0, 0)

    def at(self, row_K: Tensor, column_K: Tensor) -> Tensor:
        """The mean around each cell of the heat maps (int64), (K, C) float32; edges are repeated beyond themselves."""
        bottom, right = (side - 1 for side in self.map_CHW.shape[1:])
        row_K, column_K = row_K + self.first_cell[0], column_K + self.first_cell[1]
        sum_CK = self.map_CHW.new_zeros(len(self.map_CHW), len(row_K), dtype=torch.float32)
        steps = range(-AROUND, AROUND + 1)
        for down, across in ((down, across) for down in steps for across in steps):
            sum_CK += self.map_CHW[:, (row_K + down).clamp(0, bottom), (column_K + across).clamp(0, right)]
        return sum_CK.T / len(steps) ** 2

    def moved(self, rows: int, columns: int) -> CellMeans:
        """The same for heat maps that lack their first rows and columns."""
        return replace(self, first_cell=(self.first_cell[0] + rows, self.first_cell[1] + columns))
