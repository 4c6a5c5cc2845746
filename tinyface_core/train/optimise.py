"""The optimiser of a training: rates by part of the network, and how they change over the run."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any, Literal

import torch
from torch import nn

from tinyface_core.model.network import HRNetwork


@dataclass(frozen=True)
class OptimiserSettings:
    """Rates are peaks: a linear warm-up over this share of the run, then a cosine down to `last` of them.

    head_rate: of all heads; head_factors multiplies it for some, as (stride, factor). betas: of AdamW. momentum: of
    SGD. max_gradient_norm: None leaves gradients as they are. average_decay: of the moving average of the weights, a
    step; the average is what is saved; 0 saves the weights themselves.
    """

    kind: Literal["adamw", "sgd"] = "adamw"
    head_rate: float = 1e-3
    head_factors: tuple[tuple[int, float], ...] = ()
    trunk_rate: float = 3e-4
    betas: tuple[float, float] = (0.9, 0.99)
    momentum: float = 0.9
    weight_decay: float = 1e-4
    warm_up: float = 0.02
    last: float = 0.02
    max_gradient_norm: float | None = 10.0
    average_decay: float = 0.998


def optimiser_of(network: HRNetwork, settings: OptimiserSettings) -> torch.optim.Optimizer:
    """Of all parameters that are to be trained; each group remembers its peak rate as `peak`."""
    factors = dict(settings.head_factors)
    parts: list[tuple[nn.Module, float]] = [
        (head, settings.head_rate * factors.get(int(stride), 1.0)) for stride, head in network.heads.items()
    ]
    parts.append((network.trunk, settings.trunk_rate))
    groups: list[dict[str, Any]] = [
        {"params": [p for p in part.parameters() if p.requires_grad], "lr": rate, "peak": rate} for part, rate in parts
    ]
    if settings.kind == "sgd":
        return torch.optim.SGD(groups, momentum=settings.momentum, weight_decay=settings.weight_decay, fused=True)
    return torch.optim.AdamW(groups, betas=settings.betas, weight_decay=settings.weight_decay, fused=True)


def share_of_rate(spent: float, settings: OptimiserSettings) -> float:
    """Of the peak, when this share of the run is spent (0..1)."""
    if spent < settings.warm_up:
        return max(spent / settings.warm_up, 0.01)
    falling = (spent - settings.warm_up) / (1 - settings.warm_up)
    return settings.last + (1 - settings.last) * (1 + math.cos(math.pi * falling)) / 2
