"""Boxes as tensors: IoU, clipping, greedy NMS, vote. Boxes are (K, 4) xyxy in continuous pixels."""

from __future__ import annotations

import math
from collections.abc import Iterator

import torch
from torch import Tensor

# Boxes that are compared with each other at once: on a CPU so many that a table of all pairs, 256 kB, stays in its
# cache (a quarter of the time of 1024); on a GPU more, as each block is some calls.
NMS_BLOCK, NMS_BLOCK_GPU = 256, 1024
NMS_GROUP = 16  # neighbours among the winners of a block that meet the rest of the boxes together, on a CPU
PAIRS_GPU = 1 << 24  # of boxes that meet at once there: some 700 MB


def area(boxes_K4: Tensor) -> Tensor:
    """Area in px^2, (K,); 0 for an empty box."""
    sides_K2 = (boxes_K4[:, 2:] - boxes_K4[:, :2]).clamp(min=0)
    return sides_K2[:, 0] * sides_K2[:, 1]


def iou(boxes_N4: Tensor, boxes_M4: Tensor) -> Tensor:
    """Intersection over union, (N, M), in 0..1; 0 where both boxes are empty."""
    low_NM2 = torch.maximum(boxes_N4[:, None, :2], boxes_M4[None, :, :2])
    high_NM2 = torch.minimum(boxes_N4[:, None, 2:], boxes_M4[None, :, 2:])
    sides_NM2 = (high_NM2 - low_NM2).clamp_(min=0)
    inter_NM = sides_NM2[..., 0] * sides_NM2[..., 1]
    union_NM = area(boxes_N4)[:, None] + area(boxes_M4)[None, :] - inter_NM
    return torch.where(union_NM > 0, inter_NM / union_NM, torch.zeros_like(inter_NM))


def clip(boxes_K4: Tensor, picture_hw: tuple[int, int]) -> Tensor:
    """Boxes cut to the picture, (K, 4); one that lies outside becomes empty."""
    height, width = picture_hw
    limit = boxes_K4.new_tensor([width, height, width, height])
    return torch.minimum(boxes_K4.clamp(min=0), limit)


def nms(boxes_K4: Tensor, scores_K: Tensor, max_iou: float) -> Tensor:
    """Exact greedy NMS: indices kept, best score first; equal scores keep the lower index first.

    A box goes when its IoU with a kept, better one is strictly above max_iou (in 0..1). Works on the boxes' device,
    block after block of the best that are left, so memory is about 10 x NMS_GROUP x K floats (on a GPU 10 x PAIRS_GPU),
    whatever overlaps.
    """
    order_K = torch.argsort(scores_K, descending=True, stable=True)
    size = NMS_BLOCK if _on_cpu(boxes_K4) else NMS_BLOCK_GPU
    kept: list[Tensor] = []
    while len(order_K):
        block, order_K = order_K[:size], order_K[size:]
        winners = block[_greedy(iou(boxes_K4[block], boxes_K4[block]) > max_iou)]
        kept.append(winners)
        order_K = order_K[~_suppressed(boxes_K4[order_K], boxes_K4[winners], max_iou)]
    return torch.cat(kept) if kept else order_K


def vote(boxes_K4: Tensor, scores_K: Tensor, kept_M: Tensor, min_iou: float) -> Tensor:
    """Each kept box as the mean of all that overlap it by min_iou or more, itself among them, (M, 4).

    An empty box stays. A box counts by (score x IoU) squared. Those that are not kept are not wasted: they say where
    edges lie (Gidaris and Komodakis, "Object detection via a multi-region and semantic segmentation-aware CNN model").
    """
    voted_M4 = boxes_K4[kept_M].clone()
    for group_G, near in _meetings(boxes_K4[kept_M], boxes_K4):
        group_G4 = boxes_K4[kept_M[group_G]]
        iou_GN = iou(group_G4, boxes_K4[near])
        weight_GN = torch.where(iou_GN >= min_iou, (iou_GN * scores_K[near]) ** 2, 0.0)
        weight_GN = weight_GN.double()  # in fp32 the sum would depend, by its order, on what else is near
        total_G1 = weight_GN.sum(dim=1, keepdim=True)
        mean_G4 = (weight_GN @ boxes_K4[near].double() / total_G1).to(group_G4.dtype)
        voted_M4[group_G] = torch.where(total_G1 > 0, mean_G4, group_G4)
    return voted_M4


def _suppressed(boxes_N4: Tensor, winners_M4: Tensor, max_iou: float) -> Tensor:
    """Whether each of N boxes overlaps any winner by more than max_iou, (N,)."""
    gone_N = boxes_N4.new_zeros(len(boxes_N4), dtype=torch.bool)
    for group_G, near in _meetings(winners_M4, boxes_N4):
        gone_N[near] |= (iou(boxes_N4[near], winners_M4[group_G]) > max_iou).any(dim=1)
    return gone_N


def _meetings(boxes_M4: Tensor, boxes_N4: Tensor) -> Iterator[tuple[Tensor, Tensor | slice]]:
    """Groups of M boxes, each with those of N that may overlap one of it, as indices.

    On a CPU neighbours, and the boxes that touch the rectangle around them: faces lie all over a picture, so nearly all
    pairs are far apart (10^5 boxes apart: 5 s on one core instead of 290 s). On a GPU so many groups are thousands of
    calls, and each such rectangle is waited for: there few groups meet all.
    """
    if not len(boxes_M4) or not len(boxes_N4):
        return
    if not _on_cpu(boxes_N4):
        every_M = torch.arange(len(boxes_M4), device=boxes_M4.device)
        yield from ((group_G, slice(None)) for group_G in every_M.split(max(1, PAIRS_GPU // len(boxes_N4))))
        return
    left_N, top_N, right_N, bottom_N = boxes_N4.T.contiguous()
    for group_G in _neighbours(boxes_M4):
        left, top = boxes_M4[group_G, :2].amin(dim=0)
        right, bottom = boxes_M4[group_G, 2:].amax(dim=0)
        near_N = (left_N < right) & (right_N > left) & (top_N < bottom) & (bottom_N > top)
        yield group_G, near_N.nonzero()[:, 0]


def _on_cpu(boxes_K4: Tensor) -> bool:
    return boxes_K4.device.type == "cpu"


def _neighbours(boxes_M4: Tensor) -> Iterator[Tensor]:
    """Indices of M boxes in groups of up to NMS_GROUP that lie together: stripes by x, each cut by y."""
    centres_M2 = boxes_M4[:, :2] + boxes_M4[:, 2:]
    stripes = math.ceil(math.sqrt(len(boxes_M4) / NMS_GROUP))
    for stripe in centres_M2[:, 0].argsort().chunk(stripes):
        yield from stripe[centres_M2[stripe, 1].argsort()].split(NMS_GROUP)


def _greedy(overlap_BB: Tensor) -> Tensor:
    """Which of B boxes, best first, greedy suppression keeps, (B,) bool.

    A box stands when no *standing* better box overlaps it. Iterating that rule from "all stand" settles every box
    whose betters are settled, so it ends at the greedy answer after at most B rounds, in practice under ten.
    """
    better_BB = torch.triu(overlap_BB, diagonal=1).float()  # a product with a vector beats a comparison of all by 10
    standing = torch.ones(len(better_BB), dtype=torch.bool, device=better_BB.device)
    while True:
        now = standing.float() @ better_BB == 0
        if torch.equal(now, standing):
            return standing
        standing = now
