"""The loss of a batch: `mined` as the paper has it, or `focal`; with it the offsets of the positives.

Focal needs the prior bias that `start_heads` sets; mining needs zero bias, or the prior puts every negative under the
rule of 0.03. Sums are divided by `share`, this process's part of what all processes count, so that the mean of their
gradients is the gradient of one process with all the crops. Paper: section 5, "Training"; METHOD, section 3.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyface_core.model.network import HeatMaps, HRNetwork
from tinyface_core.train.targets import IGNORED, NEGATIVE, POSITIVE

_LOG_SIDE = 4.0  # of a box against its template, at most, so that a bad start does not overflow


@dataclass(frozen=True)
class LossSettings:
    """prior: score that the heads start with; None: zero bias, so 0.5.

    boxes: "huber" on each offset, linear from beta on, or "giou" (Rezatofighi et al. 2019) on the box as a whole;
    box_weight against the labels.

    focal: alpha, gamma; label_weight against the boxes; divided by the positives. mined: cells with a loss under
    easy_under are left out, of the others at most mined_each positives and negatives a crop, drawn at random;
    divided by the crops.
    """

    kind: Literal["focal", "mined"] = "focal"
    prior: float | None = 0.01
    boxes: Literal["huber", "giou"] = "huber"
    box_weight: float = 1.0
    beta: float = 0.1
    alpha: float = 0.25
    gamma: float = 2.0
    label_weight: float = 4.0
    easy_under: float = 0.03
    mined_each: int = 128


@dataclass(frozen=True)
class Loss:
    """labels, boxes: weighted, divided; their sum is what is minimised."""

    labels: Tensor
    boxes: Tensor

    @property
    def total(self) -> Tensor:
        return self.labels + self.boxes


def divided_by(settings: LossSettings, crops: int, weight: float) -> float:
    """What the sums of one process are divided by, before all processes agree on its mean. weight: of all positives."""
    return float(crops) if settings.kind == "mined" else weight


def loss_of(
    maps: HeatMaps,
    targets: tuple[Tensor, Tensor, Tensor, Tensor],
    settings: LossSettings,
    *,
    share: float,
    generator: torch.Generator | None = None,
) -> Loss:
    """Loss in fp32, whatever the precision of the maps.

    Args:
        targets: labels_NTHW int8, POSITIVE, NEGATIVE or IGNORED; cells_P4 (n, t, y, x) of the positives; offsets_P4;
            weights_P, which the focal loss uses.
        share: what the sums are divided by, see `divided_by`. generator: draws what is mined.
    """
    labels_NTHW, cells_P4, offsets_P4, weights_P = targets
    logits_NTHW, share = maps.logits_NTHW.float(), max(1.0, share)
    n, t, y, x = cells_P4.unbind(1)
    found_P4 = maps.offsets_NT4HW[n, t, :, y, x].float()
    if settings.boxes == "giou":
        boxes_P = 1 - _giou(found_P4, offsets_P4)
    else:
        boxes_P = F.smooth_l1_loss(found_P4, offsets_P4, beta=settings.beta, reduction="none").sum(dim=1)
    boxes_P = settings.box_weight * boxes_P
    if settings.kind == "focal":
        focal_NTHW = _focal(logits_NTHW, labels_NTHW, settings)
        labels = focal_NTHW.sum() + ((weights_P - 1) * focal_NTHW[n, t, y, x]).sum()  # negatives count 1 each
        return Loss(settings.label_weight * labels / share, (weights_P * boxes_P).sum() / share)
    logistic_NTHW, mined_NTHW = _mined(logits_NTHW, labels_NTHW, settings, generator)
    boxes = (boxes_P * mined_NTHW[n, t, y, x]).sum()
    return Loss((logistic_NTHW * mined_NTHW).sum() / share, boxes / share)


def _giou(found_P4: Tensor, offsets_P4: Tensor) -> Tensor:
    """Generalised IoU of the boxes that two sets of offsets mean, (P,), in -1..1.

    In units of the template's sides: all areas of a pair shrink alike, so their ratios are those of pixels.
    """
    (low_P2, high_P2), (low_to_P2, high_to_P2) = _corners(found_P4), _corners(offsets_P4)
    inter_P = (torch.minimum(high_P2, high_to_P2) - torch.maximum(low_P2, low_to_P2)).clamp(min=0).prod(dim=1)
    union_P = (high_P2 - low_P2).prod(dim=1) + (high_to_P2 - low_to_P2).prod(dim=1) - inter_P
    around_P = (torch.maximum(high_P2, high_to_P2) - torch.minimum(low_P2, low_to_P2)).prod(dim=1)
    return inter_P / union_P - (around_P - union_P) / around_P


def _corners(offsets_P4: Tensor) -> tuple[Tensor, Tensor]:
    """Left top and right bottom, seen from the cell, in units of the template's sides."""
    half_P2 = offsets_P4[:, 2:].clamp(max=_LOG_SIDE).exp() / 2
    return offsets_P4[:, :2] - half_P2, offsets_P4[:, :2] + half_P2


def _focal(logits_NTHW: Tensor, labels_NTHW: Tensor, settings: LossSettings) -> Tensor:
    sign_NTHW = torch.where(labels_NTHW == POSITIVE, 1.0, -1.0)
    wrong_NTHW = torch.sigmoid(-sign_NTHW * logits_NTHW)  # 1 - probability of the right answer
    weight_NTHW = torch.where(labels_NTHW == POSITIVE, settings.alpha, 1 - settings.alpha)
    weight_NTHW = weight_NTHW * (labels_NTHW != IGNORED)
    return weight_NTHW * wrong_NTHW**settings.gamma * F.softplus(-sign_NTHW * logits_NTHW)


def _mined(
    logits_NTHW: Tensor, labels_NTHW: Tensor, settings: LossSettings, generator: torch.Generator | None
) -> tuple[Tensor, Tensor]:
    """(logistic loss, which cells count)."""
    sign_NTHW = torch.where(labels_NTHW == POSITIVE, 1.0, -1.0)
    logistic_NTHW = F.softplus(-sign_NTHW * logits_NTHW)
    hard_NTHW = logistic_NTHW.detach() >= settings.easy_under
    mined_NTHW = torch.zeros_like(hard_NTHW)
    for label in (POSITIVE, NEGATIVE):
        for crop, hard_THW in enumerate(hard_NTHW & (labels_NTHW == label)):
            places = hard_THW.flatten().nonzero()[:, 0]
            drawn = torch.randperm(len(places), generator=generator)[: settings.mined_each].to(places.device)
            mined_NTHW[crop].view(-1)[places[drawn]] = True
    return logistic_NTHW, mined_NTHW


def start_heads(network: HRNetwork, prior: float | None) -> None:
    """Zero heads that say `prior` as the score everywhere; the bias sits in the finest head, as their sum counts."""
    for head in network.heads.values():
        nn.init.zeros_(cast(nn.Conv2d, head).weight)
        nn.init.zeros_(cast(Tensor, head.bias))
    if prior is not None:
        finest = cast(Tensor, network.heads[str(network.strides[0])].bias)
        with torch.no_grad():
            finest[: network.config.outputs] = math.log(prior / (1 - prior))
