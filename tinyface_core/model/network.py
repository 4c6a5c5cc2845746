"""The network: a trunk, one linear head a feature map, their sum on the finest grid.

Paper: section 4, "Architecture": 1x1 convolutions on res3 and res4, the res4 scores enlarged twice and added.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, reduce
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyface_core.geometry import CellGrid, multiple_above
from tinyface_core.model.cells import AROUND, CellMeans
from tinyface_core.model.convolve import Convolve, plain
from tinyface_core.model.spec import NetworkConfig
from tinyface_core.model.trunks import build_trunk

ELLIPSE_TARGETS = 5  # detect/ellipse.py says which


@dataclass(frozen=True)
class HeatMaps:
    """Scores of all templates at all cells.

    logits_NTHW: (N, T, h, w). offsets_NT4HW: (N, T, 4, h, w), order tx, ty, tw, th in units of the template.
    ellipses: the five targets of detect/ellipse.py around any cell of the first picture; None without a regressor.
    """

    logits_NTHW: Tensor
    offsets_NT4HW: Tensor
    ellipses: CellMeans | None = None

    @classmethod
    def split(cls, scores_NCHW: Tensor, ellipses: CellMeans | None = None) -> HeatMaps:
        """From head outputs: channels 0..T-1 are logits, then T each of tx, ty, tw, th."""
        count, channels, height, width = scores_NCHW.shape
        templates = channels // 5
        offsets = scores_NCHW[:, templates:].reshape(count, 4, templates, height, width).transpose(1, 2)
        return cls(scores_NCHW[:, :templates], offsets, ellipses)


class HRNetwork(nn.Module):
    """Finds faces at one resolution. `grid` says where its output cells look, `halo_px` how far they see.

    ellipse: the regressor, from the features of each head to the ellipse's targets; fitted offline, never trained.
    score: how it and the heads are computed.
    """

    def __init__(self, config: NetworkConfig, *, ellipses: bool = False) -> None:
        super().__init__()
        self.config = config
        self.score: Convolve = plain
        self.trunk = build_trunk(config.trunk)
        self.strides = tuple(sorted(config.heads))
        channels = {stride: self.trunk.channels[stride] for stride in self.strides}
        self.heads = _heads(channels, 5 * config.outputs)
        for head in self.heads.values():
            nn.init.zeros_(cast(nn.Conv2d, head).weight)
            nn.init.zeros_(cast(Tensor, head.bias))
        self.ellipse: nn.ModuleDict | None = None
        if ellipses:
            self.regress(torch.zeros(ELLIPSE_TARGETS, sum(channels.values())), torch.zeros(ELLIPSE_TARGETS))

    @property
    def grid(self) -> CellGrid:
        """Where the output's cells look: the finest head's grid."""
        return self.trunk.grids[self.strides[0]]

    @property
    def halo_px(self) -> int:
        """Pixels around a region that its cells may depend on, a multiple of the coarsest stride."""
        coarsest = self.strides[-1]
        reach = max(self.trunk.grids[s].reach + abs(self.trunk.grids[s].centre) for s in self.strides)
        around = 0 if self.ellipse is None else AROUND * self.strides[0]
        return multiple_above(reach + around + coarsest, coarsest)  # one more coarse cell: the enlargement's neighbour

    def regress(self, weight_5C: Tensor, bias_5: Tensor) -> None:
        """Takes a regressor; C: the features of all heads, the finest stride first."""
        channels = {stride: self.trunk.channels[stride] for stride in self.strides}
        self.ellipse = _heads(channels, ELLIPSE_TARGETS).requires_grad_(False)
        parts = weight_5C.split(list(channels.values()), dim=1)
        for (name, head), part_5C in zip(self.ellipse.items(), parts, strict=True):
            head.get_parameter("weight").copy_(part_5C[:, :, None, None])
            head.get_parameter("bias").copy_(bias_5 * (name == str(self.strides[0])))

    def forward(self, image_N3HW: Tensor) -> HeatMaps:
        """Heat maps at the finest head's stride.

        Args:
            image_N3HW: normalised RGB, (N, 3, H, W), any H and W from the coarsest stride on.
        Returns:
            (N, T, h, w) logits and (N, T, 4, h, w) offsets; h = ceil(H / stride) for ResNet and MobileNet,
            of imported networks less a last row or column that their pooling or enlargement does not reach.
        """
        features = self.trunk(image_N3HW, self.strides)
        scores_NCHW = self._sum(features, self.heads)
        if self.ellipse is None:
            return HeatMaps.split(scores_NCHW)
        first = {stride: features_NCHW[:1] for stride, features_NCHW in features.items()}
        return HeatMaps.split(scores_NCHW, CellMeans(self._sum(first, self.ellipse)[0]))

    def _sum(self, features: Mapping[int, Tensor], heads: nn.ModuleDict) -> Tensor:
        """What the heads say of their features, in all."""
        said = [self.score(features[s], cast(nn.Conv2d, heads[str(s)]), None, "none") for s in self.strides]
        return reduce(torch.add, self.on_finest(said))

    def on_finest(self, maps: Sequence[Tensor]) -> list[Tensor]:
        """One map a stride, finest first, each on the finest grid, (N, C, h, w), cut to what all of them cover."""
        fine_NCHW, *others = maps
        grids = [self.trunk.grids[stride] for stride in self.strides[1:]]
        if self.config.enlargement == "aligned":
            hw = fine_NCHW.shape[2:]
            return [fine_NCHW, *(_enlarged(m, grid, self.grid, hw) for m, grid in zip(others, grids, strict=True))]
        on_finest = [fine_NCHW, *(_transposed(coarse_NCHW, self.config.crop) for coarse_NCHW in others)]
        height, width = (min(one.shape[dim] for one in on_finest) for dim in (2, 3))
        return [one[..., :height, :width] for one in on_finest]


def _heads(channels: Mapping[int, int], outputs: int) -> nn.ModuleDict:
    """A 1x1 convolution for each stride."""
    return nn.ModuleDict({str(stride): nn.Conv2d(count, outputs, 1) for stride, count in channels.items()})


def _enlarged(coarse_NCHW: Tensor, grid: CellGrid, finer: CellGrid, fine_hw: Sequence[int]) -> Tensor:
    """Bilinear interpolation to the finer grid's cells; beyond the last cell its value is repeated."""
    count, channels, height, width = coarse_NCHW.shape
    (row_h2, of_row_h2), (column_w2, of_column_w2) = (
        _neighbours(grid, finer, cells, side, coarse_NCHW.dtype, coarse_NCHW.device)
        for cells, side in zip(fine_hw, (height, width), strict=True)
    )
    cell_hw4 = (row_h2[:, None, :, None] * width + column_w2[None, :, None, :]).reshape(-1, 4)
    weight_hw4 = (of_row_h2[:, None, :, None] * of_column_w2[None, :, None, :]).reshape(-1, 4)
    picture_N11 = torch.arange(count, device=coarse_NCHW.device)[:, None, None] * (height * width)
    fine_NC = F.embedding_bag(
        (picture_N11 + cell_hw4).reshape(-1, 4),
        coarse_NCHW.permute(0, 2, 3, 1).reshape(-1, channels),
        per_sample_weights=weight_hw4.repeat(count, 1),
        mode="sum",
    )
    return fine_NC.reshape(count, *fine_hw, channels).permute(0, 3, 1, 2)


@lru_cache(maxsize=256)  # of a few kB each: a level's maps are enlarged alike, and most pictures have a few sizes
@torch.inference_mode(False)
def _neighbours(
    grid: CellGrid, finer: CellGrid, count: int, cells: int, dtype: torch.dtype, device: torch.device
) -> tuple[Tensor, Tensor]:
    """The two cells around each of `count` finer ones on one axis, (n, 2) int64, and their weights, (n, 2)."""
    places = [grid.position_on(finer, index) for index in range(count)]
    place = torch.tensor(places, dtype=torch.float64).clamp(0, cells - 1)
    low = place.floor().long()
    share = (place - low).to(dtype)
    around, weights = torch.stack([low, (low + 1).clamp(max=cells - 1)], dim=1), torch.stack([1 - share, share], dim=1)
    return around.to(device), weights.to(device)


def enlarging_kernel() -> Tensor:
    """The fixed kernel of "transposed" enlargement for one channel, (4, 4)."""
    taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
    return torch.outer(taps, taps)


def _transposed(coarse_NCHW: Tensor, crop: tuple[int, int]) -> Tensor:
    """Fixed 4-tap bilinear transposed convolution, stride 2, with (before, after) rows and columns cut off."""
    channels = coarse_NCHW.shape[1]
    kernel = enlarging_kernel().to(coarse_NCHW).expand(channels, 1, 4, 4)
    full_NCHW = F.conv_transpose2d(coarse_NCHW, kernel, stride=2, groups=channels)
    before, after = crop
    return full_NCHW[..., before : full_NCHW.shape[2] - after, before : full_NCHW.shape[3] - after]
