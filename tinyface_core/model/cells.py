"""The mean of a map over the cells around chosen ones: around faces that were found."""

from __future__ import annotations

from dataclasses import dataclass, replace

import torch
from torch import Tensor
from torch.nn import functional as F

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
        steps_A = torch.arange(-AROUND, AROUND + 1, device=row_K.device)
        row_KA = (row_K[:, None] + (self.first_cell[0] + steps_A)).clamp(0, bottom)
        column_KA = (column_K[:, None] + (self.first_cell[1] + steps_A)).clamp(0, right)
        around_KA = (row_KA[:, :, None] * (right + 1) + column_KA[:, None, :]).flatten(1)
        of_cell_MC = self.map_CHW.permute(1, 2, 0).flatten(0, 1).float()
        return F.embedding_bag(around_KA, of_cell_MC, mode="mean")

    def moved(self, rows: int, columns: int) -> CellMeans:
        """The same for heat maps that lack their first rows and columns."""
        return replace(self, first_cell=(self.first_cell[0] + rows, self.first_cell[1] + columns))
