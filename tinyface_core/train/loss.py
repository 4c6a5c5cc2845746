"""The loss of a batch: focal on the labels, smooth L1 on the offsets of the positives.

Focal instead of the paper's hard mining: measured better here for short runs. It needs the prior bias that
`start_heads` sets, mining would need zero bias.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyface_core.model.network import HeatMaps, HRNetwork
from tinyface_core.train.targets import IGNORED, POSITIVE


@dataclass(frozen=True)
class LossSettings:
    """alpha, gamma: of the focal loss. beta: where smooth L1 turns linear. label_weight: of focal against boxes."""

    alpha: float = 0.25
    gamma: float = 2.0
    beta: float = 0.1
    label_weight: float = 4.0
    prior: float = 0.01


@dataclass(frozen=True)
class Loss:
    """labels, boxes: weighted, per positive; their sum is what is minimised."""

    labels: Tensor
    boxes: Tensor

    @property
    def total(self) -> Tensor:
        return self.labels + self.boxes


def loss_of(maps: HeatMaps, labels_NTHW: Tensor, cells_P4: Tensor, offsets_P4: Tensor, settings: LossSettings) -> Loss:
    """Loss in fp32, whatever the precision of the maps.

    Args:
        labels_NTHW: int8, POSITIVE, NEGATIVE or IGNORED. cells_P4: (n, t, y, x) of the positives, offsets_P4 theirs.
    """
    positives = max(1, len(cells_P4))
    logits_NTHW = maps.logits_NTHW.float()
    sign_NTHW = torch.where(labels_NTHW == POSITIVE, 1.0, -1.0)
    wrong_NTHW = torch.sigmoid(-sign_NTHW * logits_NTHW)  # 1 - probability of the right answer
    weight_NTHW = torch.where(labels_NTHW == POSITIVE, settings.alpha, 1 - settings.alpha)
    weight_NTHW = weight_NTHW * (labels_NTHW != IGNORED)
    focal_NTHW = weight_NTHW * wrong_NTHW**settings.gamma * F.softplus(-sign_NTHW * logits_NTHW)
    n, t, y, x = cells_P4.unbind(1)
    found_P4 = maps.offsets_NT4HW[n, t, :, y, x].float()
    boxes = F.smooth_l1_loss(found_P4, offsets_P4, beta=settings.beta, reduction="sum")
    return Loss(settings.label_weight * focal_NTHW.sum() / positives, boxes / positives)


def start_heads(network: HRNetwork, prior: float) -> None:
    """Zero heads that say `prior` as the score everywhere; the bias sits in the finest head, as their sum counts."""
    for head in network.heads.values():
        nn.init.zeros_(cast(nn.Conv2d, head).weight)
        nn.init.zeros_(cast(Tensor, head.bias))
    finest = cast(Tensor, network.heads[str(network.strides[0])].bias)
    with torch.no_grad():
        finest[: network.config.outputs] = math.log(prior / (1 - prior))
