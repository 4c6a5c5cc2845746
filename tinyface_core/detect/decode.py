"""Heat maps of one level -> boxes, scores, templates. Only cells above the threshold are ever decoded.

Paper: section 4. Where imported checkpoints decode otherwise: model/checkpoint.py, DecodingRule.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from tinyface_core.detect.pyramid import Level
from tinyface_core.geometry import CellGrid
from tinyface_core.model.network import HeatMaps
from tinyface_core.model.spec import DecodingRule
from tinyface_core.templates import TemplateSet


@dataclass(frozen=True)
class Candidates:
    """Boxes before NMS. boxes_K4 float32 xyxy, continuous px of the picture; scores_K 0..1; ids int64; zooms.

    cell_K: int64, the cell's place in the (template, row, column) order of its level's whole image. ellipse_K5:
    float32, the targets of `ellipse.py` against the box; None when the checkpoint has no regressor.
    """

    boxes_K4: Tensor
    scores_K: Tensor
    template_K: Tensor
    zoom_K: Tensor
    cell_K: Tensor
    ellipse_K5: Tensor | None = None

    @classmethod
    def joined(cls, parts: list[Candidates]) -> Candidates:
        """All parts, in order."""
        ellipses = [part.ellipse_K5 for part in parts if part.ellipse_K5 is not None]
        return cls(
            torch.cat([part.boxes_K4 for part in parts]),
            torch.cat([part.scores_K for part in parts]),
            torch.cat([part.template_K for part in parts]),
            torch.cat([part.zoom_K for part in parts]),
            torch.cat([part.cell_K for part in parts]),
            torch.cat(ellipses) if ellipses else None,
        )

    def at(self, index: Tensor) -> Candidates:
        """Some of them: by a mask (K,) or by indices, in their order."""
        if index.dtype == torch.bool:
            index = index.nonzero()[:, 0]  # once: a GPU is waited for to tell how many
        return Candidates(
            self.boxes_K4[index],
            self.scores_K[index],
            self.template_K[index],
            self.zoom_K[index],
            self.cell_K[index],
            None if self.ellipse_K5 is None else self.ellipse_K5[index],
        )

    def in_cell_order(self) -> Candidates:
        """Those of one level in an order that its tiles do not change: NMS takes equal scores as they come."""
        return self.at(self.cell_K.argsort())


@dataclass(frozen=True)
class CellDecoder:
    """Turns cells into boxes for one network: its output grid, its templates, its rule."""

    grid: CellGrid
    templates: TemplateSet
    rule: DecodingRule

    def decode(self, maps: HeatMaps, first_cell: tuple[int, int], level: Level, min_score: float) -> Candidates:
        """Boxes of the cells whose score is above min_score, row-major in (template, row, column).

        Args:
            maps: of one picture, (1, T, h, w); any float dtype. first_cell: (row, column) of its first cell in the
                level's whole image. min_score: in 0..1, exclusive, compared as a logit.
        """
        outputs = [self.templates.outputs.index(i) for i in level.templates]
        logits_THW = maps.logits_NTHW[0, outputs].float()
        channel_K, row_K, column_K = (logits_THW > logit(min_score)).nonzero(as_tuple=True)
        scores_K = logits_THW[channel_K, row_K, column_K].sigmoid()
        output_K = logits_THW.new_tensor(outputs, dtype=torch.long)[channel_K]
        tx_K, ty_K, tw_K, th_K = maps.offsets_NT4HW[0][output_K, :, row_K, column_K].float().unbind(1)
        template_K = logits_THW.new_tensor(level.templates, dtype=torch.long)[channel_K]
        width_K, height_K = self._sizes(logits_THW)[template_K].unbind(1)
        ellipse_K5 = None if maps.ellipses is None else maps.ellipses.at(row_K, column_K)

        first = self.grid.centre + 0.5 if self.rule.first_centre_px is None else self.rule.first_centre_px
        row_K, column_K = row_K + first_cell[0], column_K + first_cell[1]
        x_K = first + self.grid.stride * column_K + width_K * tx_K
        y_K = first + self.grid.stride * row_K + height_K * ty_K
        half_x_K, half_y_K = width_K * tw_K.exp() / 2, height_K * th_K.exp() / 2
        boxes_K4 = torch.stack([x_K - half_x_K, y_K - half_y_K, x_K + half_x_K, y_K + half_y_K], dim=1)
        ratio_y, ratio_x = level.size.ratio_yx if self.rule.back == "size_ratio" else (level.zoom, level.zoom)
        boxes_K4 = boxes_K4 / boxes_K4.new_tensor([ratio_x, ratio_y, ratio_x, ratio_y])
        height, width = level.size.image_hw  # more than there are rows and columns of cells
        cell_K = (template_K * height + row_K) * width + column_K
        zoom_K = torch.full_like(scores_K, level.zoom)
        found = Candidates(boxes_K4, scores_K, template_K, zoom_K, cell_K, ellipse_K5)
        height_K, (least, below) = boxes_K4[:, 3] - boxes_K4[:, 1], level.heights
        return found.at((height_K >= least) & (height_K < below)) if level.heights != (0, math.inf) else found

    def _sizes(self, like: Tensor) -> Tensor:
        """(width, height) of each template in px of the level's image, (25, 2)."""
        return like.new_tensor([[template.width, template.height] for template in self.templates.templates])


def logit(score: float) -> float:
    if score <= 0:
        return -math.inf
    return math.inf if score >= 1 else math.log(score / (1 - score))
