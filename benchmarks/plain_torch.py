"""The baseline of against.py: the same pyramid as a straightforward PyTorch program has it.

fp32, batch-norm as it is, NCHW, heads on enlarged features, the picture resized as floats, every cell decoded in
numpy, NMS and vote as loops over boxes. Same weights, same templates, same thresholds as ours.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tinyface_core.detect.pyramid import Level, levels_for
from tinyface_core.model.checkpoint import load_checkpoint
from tinyface_core.model.spec import find_bundled

Array = NDArray[np.float32]


class PlainDetector:
    """Finds faces as ours does, without any of its levers."""

    def __init__(self, model: str) -> None:
        network, self.spec = load_checkpoint(find_bundled(model) or Path(model))
        self.network = network.eval()
        network.trunk.to(memory_format=torch.contiguous_format)
        self.mean, self.std = (torch.tensor(v)[:, None, None] for v in (self.spec.network.mean, self.spec.network.std))

    @torch.no_grad()
    def __call__(self, rgb_HW3: NDArray[np.uint8]) -> tuple[Array, Array]:
        """Boxes (K, 4) xyxy px and scores (K,), best first."""
        picture_hw, defaults = (rgb_HW3.shape[0], rgb_HW3.shape[1]), self.spec.defaults
        image_13HW = torch.from_numpy(rgb_HW3.copy()).permute(2, 0, 1)[None].float()
        found = [
            self._level(image_13HW, level)
            for level in levels_for(picture_hw, defaults.zooms, self.spec.templates, defaults.level_heights)
        ]
        boxes_K4, scores_K = (np.concatenate(parts) for parts in zip(*found, strict=True))
        kept = nms(boxes_K4, scores_K, defaults.nms_iou)
        best_K4 = boxes_K4[kept]
        if defaults.vote_iou is not None:
            best_K4 = np.array([voted(boxes_K4, scores_K, i, defaults.vote_iou) for i in kept]).reshape(-1, 4)
        limit = [picture_hw[1], picture_hw[0], picture_hw[1], picture_hw[0]]
        return np.clip(best_K4, 0, limit).astype(np.float32), scores_K[kept]

    def _level(self, image_13HW: Tensor, level: Level) -> tuple[Array, Array]:
        shown = F.interpolate(image_13HW, level.size.image_hw, mode="bilinear", antialias=True, align_corners=False)
        scores_CHW = self._scores((shown - self.mean) / self.std)[0].numpy()
        count = len(self.spec.templates.outputs)
        score_THW = 1 / (1 + np.exp(-np.maximum(scores_CHW[:count], -80)))
        offsets = scores_CHW[count:].reshape(4, count, *score_THW.shape[1:])
        sizes = [(t.width, t.height) for t in (self.spec.templates.templates[i] for i in self.spec.templates.outputs)]
        width_T11, height_T11 = (np.array(side, np.float32)[:, None, None] for side in zip(*sizes, strict=True))
        grid = self.network.grid
        rows, columns = np.mgrid[: score_THW.shape[1], : score_THW.shape[2]].astype(np.float32)
        x = grid.centre + 0.5 + grid.stride * columns + width_T11 * offsets[0]
        y = grid.centre + 0.5 + grid.stride * rows + height_T11 * offsets[1]
        half_x, half_y = width_T11 * np.exp(offsets[2]) / 2, height_T11 * np.exp(offsets[3]) / 2
        boxes_THW4 = np.stack([x - half_x, y - half_y, x + half_x, y + half_y], axis=-1)
        ratio_y, ratio_x = level.size.ratio_yx
        boxes_THW4 /= np.array([ratio_x, ratio_y, ratio_x, ratio_y], np.float32)
        fires = np.isin(np.array(self.spec.templates.outputs), level.templates)[:, None, None]
        height_THW, (least, below) = boxes_THW4[..., 3] - boxes_THW4[..., 1], level.heights
        chosen = fires & (score_THW > self.spec.defaults.score) & (height_THW >= least) & (height_THW < below)
        return boxes_THW4[chosen], score_THW[chosen]

    def _scores(self, image_13HW: Tensor) -> Tensor:
        """Each head on its features, enlarged to the finest grid before."""
        features = self.network.trunk(image_13HW)
        finest = self.network.strides[0]
        height, width = features[finest].shape[2:]
        total = torch.zeros(())
        for stride, head in self.network.heads.items():
            maps = features[int(stride)]
            if int(stride) != finest:
                maps = _enlarged(maps, int(stride) // finest, height, width)
            total = total + head(maps)
        return total


def _enlarged(maps_NCHW: Tensor, times: int, height: int, width: int) -> Tensor:
    """Cell i lies on cell times * i of the finest grid, linear in between; the last one is repeated."""
    _, _, rows, columns = maps_NCHW.shape
    padded = nn.functional.pad(maps_NCHW, (0, 1, 0, 1), mode="replicate")
    sides = (times * rows + 1, times * columns + 1)
    return F.interpolate(padded, sides, mode="bilinear", align_corners=True)[:, :, :height, :width]


def iou(box_4: Array, boxes_K4: Array) -> Array:
    low, high = np.maximum(box_4[:2], boxes_K4[:, :2]), np.minimum(box_4[2:], boxes_K4[:, 2:])
    inter = np.prod(np.clip(high - low, 0, None), axis=1)
    area, areas = np.prod(box_4[2:] - box_4[:2]), np.prod(boxes_K4[:, 2:] - boxes_K4[:, :2], axis=1)
    return np.asarray(inter / np.maximum(area + areas - inter, 1e-9), np.float32)


def nms(boxes_K4: Array, scores_K: Array, max_iou: float) -> list[int]:
    order, kept = np.argsort(-scores_K, kind="stable"), []
    while len(order):
        best, order = order[0], order[1:]
        kept.append(int(best))
        order = order[iou(boxes_K4[best], boxes_K4[order]) <= max_iou]
    return kept


def voted(boxes_K4: Array, scores_K: Array, index: int, min_iou: float) -> Array:
    iou_K = iou(boxes_K4[index], boxes_K4)
    weight_K = np.where(iou_K >= min_iou, (iou_K * scores_K) ** 2, 0)
    return np.asarray(weight_K @ boxes_K4 / weight_K.sum(), np.float32)
