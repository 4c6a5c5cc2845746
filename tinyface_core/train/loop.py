"""Training of one process: steps, the moving average of the weights, and a state that resumes exactly.

This file knows no Ray, no files but the ones it is told to write, and no clock but the one it is given. Where several
processes train together, `World` says which crops are this one's and how gradients are averaged.
Paper: section 5, "Training"; optimiser and schedule are ours.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyface_core.errors import CheckpointError, SettingsError
from tinyface_core.model.network import HeatMaps, HRNetwork
from tinyface_core.train.batches import Batch, batches
from tinyface_core.train.data import PictureCache
from tinyface_core.train.folded import folded, freeze
from tinyface_core.train.loss import Loss, loss_of, start_heads
from tinyface_core.train.presets import TrainSettings

REPORT_STEPS = 50


@dataclass(frozen=True)
class World:
    """This process among all: `average` replaces each tensor by its mean over them; None when there is but one.

    Every process gives the same tensors in the same order, each step. A process's loss is per its own positives.
    """

    rank: int = 0
    size: int = 1
    average: Callable[[Sequence[Tensor]], None] | None = None


@dataclass(frozen=True)
class Budget:
    """When the run ends: after so many crops of all processes, or so many hours at work (pauses do not count).

    The learning rate follows the share of it that is spent. Only a budget of crops makes two runs equal.
    """

    crops: int | None = None
    hours: float | None = None

    def __post_init__(self) -> None:
        given = [amount for amount in (self.crops, self.hours) if amount is not None]
        if not given or min(given) <= 0:
            raise SettingsError(f"a budget of {self.crops} crops, {self.hours} hours: give one of them, above 0.")

    def spent(self, crops: int, seconds: float) -> float:
        """Share in 0..1."""
        shares = [crops / self.crops] if self.crops else []
        shares += [seconds / 3600 / self.hours] if self.hours else []
        return min(1.0, max(shares))


@dataclass(frozen=True)
class Report:
    """Means since the last report; `rate` is the heads'. crops, hours: at work since the run's first start."""

    step: int
    crops: int
    hours: float
    spent: float
    rate: float
    labels_loss: float
    boxes_loss: float
    gradient_norm: float
    positives_a_crop: float
    crops_a_second: float


class Trainer:
    """A network on its way: weights, optimiser, moving average, and how far it is."""

    def __init__(self, network: HRNetwork, settings: TrainSettings, budget: Budget, world: World | None = None) -> None:
        self.network, self.settings, self.budget, self.world = network, settings, budget, world or World()
        freeze(network, settings.frozen_stride)
        start_heads(network, settings.loss.prior)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._fast = folded(network)
        rates = settings.optimiser
        heads, trunk = ([p for p in part.parameters() if p.requires_grad] for part in (network.heads, network.trunk))
        self._trained = heads + trunk
        self._average = [parameter.detach().clone() for parameter in self._trained]
        self._peaks = (rates.head_rate, rates.trunk_rate)
        groups = [{"params": heads, "lr": rates.head_rate}, {"params": trunk, "lr": rates.trunk_rate}]
        self._optimiser = torch.optim.AdamW(groups, betas=rates.betas, weight_decay=rates.weight_decay, fused=True)
        self.step_number, self.seconds = 0, 0.0
        pixels_13 = (1, 3, 1, 1)
        self._mean = torch.tensor(settings.spec.network.mean).reshape(pixels_13)
        self._std = torch.tensor(settings.spec.network.std).reshape(pixels_13)

    @property
    def crops(self) -> int:
        """Crops seen by all processes."""
        return self.step_number * self.settings.batch * self.world.size

    @property
    def rate(self) -> float:
        """The heads' learning rate of the last step."""
        return float(self._optimiser.param_groups[0]["lr"])

    @property
    def spent(self) -> float:
        return self.budget.spent(self.crops, self.seconds)

    def batches(self, cache: PictureCache) -> Iterator[Batch]:
        """This process's batches from here on."""
        step_crops = self.settings.batch * self.world.size
        first = self.crops + self.world.rank * self.settings.batch
        return batches(cache, self.settings, self.network.grid, first, step_crops)

    def maps(self, batch: Batch) -> HeatMaps:
        """What the network says of a batch, in its training form."""
        device = self._trained[0].device
        image_N3HW = batch.pixels_NHW3.to(device).permute(0, 3, 1, 2).float()
        image_N3HW = (image_N3HW - self._mean.to(device)) / self._std.to(device)
        if not self.settings.bf16:
            return self._fast(image_N3HW)
        with torch.autocast(device.type, torch.bfloat16):
            return self._fast(image_N3HW.bfloat16())

    def step(self, batch: Batch) -> tuple[Loss, float]:
        """One update; gives the loss and the norm of its gradient."""
        rates = self.settings.optimiser
        for group, peak in zip(self._optimiser.param_groups, self._peaks, strict=True):
            group["lr"] = peak * _share_of_rate(self.spent, rates.warm_up, rates.last)
        labels_NTHW, cells_P4, offsets_P4 = batch.targets(self._trained[0].device)
        loss = loss_of(self.maps(batch), labels_NTHW, cells_P4, offsets_P4, self.settings.loss)
        self._optimiser.zero_grad()
        loss.total.backward()
        if self.world.average is not None:
            self.world.average([p.grad for p in self._trained if p.grad is not None])
        norm = torch.nn.utils.clip_grad_norm_(self._trained, rates.max_gradient_norm)
        self._optimiser.step()
        self.step_number += 1
        decay = min(rates.average_decay, self.step_number / (self.step_number + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self._average, list(self._trained), 1 - decay)
        return loss, float(norm)

    @contextmanager
    def averaged(self) -> Iterator[HRNetwork]:
        """The network with the moving average of its weights: what to save and to measure."""
        own = [parameter.detach().clone() for parameter in self._trained]
        try:
            self._put(self._average)
            yield self.network
        finally:
            self._put(own)

    def _put(self, values: Sequence[Tensor]) -> None:
        with torch.no_grad():
            torch._foreach_copy_(list(self._trained), list(values))

    def state(self) -> dict[str, Any]:
        """Everything that an exact resume needs, tensors and plain values."""
        return {
            "settings": repr(self.settings),
            "network": self.network.state_dict(),
            "average": self._average,
            "optimiser": self._optimiser.state_dict(),
            "step_number": self.step_number,
            "seconds": self.seconds,
        }

    def load_state(self, state: dict[str, Any]) -> None:
        """Goes on from a state.

        Raises:
            CheckpointError: it was made with other settings.
        """
        if state["settings"] != repr(self.settings):
            raise CheckpointError("the run to resume was made with other settings: give them, or another --out.")
        self.network.load_state_dict(state["network"])
        self._average = [tensor.clone() for tensor in state["average"]]
        self._optimiser.load_state_dict(state["optimiser"])
        self.step_number, self.seconds = int(state["step_number"]), float(state["seconds"])


def _share_of_rate(spent: float, warm_up: float, last: float) -> float:
    if spent < warm_up:
        return max(spent / warm_up, 0.01)
    falling = (spent - warm_up) / (1 - warm_up)
    return last + (1 - last) * (1 + math.cos(math.pi * falling)) / 2


class _Meter:
    """Collects what happens between two reports."""

    def __init__(self, trainer: Trainer) -> None:
        self.trainer, self.steps, self.sums, self.since = trainer, 0, [0.0] * 4, trainer.seconds

    def add(self, loss: Loss, norm: float, positives: int) -> None:
        self.steps += 1
        values = (
            float(loss.labels.detach()),
            float(loss.boxes.detach()),
            norm,
            positives / self.trainer.settings.batch,
        )
        self.sums = [total + value for total, value in zip(self.sums, values, strict=True)]

    def report(self) -> Report:
        trainer = self.trainer
        means = [total / self.steps for total in self.sums]
        report = Report(
            step=trainer.step_number,
            crops=trainer.crops,
            hours=trainer.seconds / 3600,
            spent=trainer.spent,
            rate=trainer.rate,
            labels_loss=means[0],
            boxes_loss=means[1],
            gradient_norm=means[2],
            positives_a_crop=means[3],
            crops_a_second=trainer.settings.batch * self.steps / max(trainer.seconds - self.since, 1e-9),
        )
        self.steps, self.sums, self.since = 0, [0.0] * 4, trainer.seconds
        return report


def train(
    trainer: Trainer,
    cache: PictureCache,
    *,
    on_report: Callable[[Report], None],
    on_save: Callable[[], None],
    save_seconds: float = 240.0,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Steps until the budget is spent; reports every REPORT_STEPS, saves every save_seconds and at the end."""
    last = saved = clock()
    meter = _Meter(trainer)
    for batch in trainer.batches(cache):
        if trainer.spent >= 1:
            break
        meter.add(*trainer.step(batch), len(batch.cells_P4))
        now = clock()
        trainer.seconds, last = trainer.seconds + now - last, now
        if meter.steps == REPORT_STEPS:
            on_report(meter.report())
        if now - saved >= save_seconds:
            on_save()
            saved = clock()
    on_save()


def save_state(path: Path, trainer: Trainer) -> None:
    """Writes the state, whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix(".part")
    torch.save(trainer.state(), unfinished)
    unfinished.replace(path)


def resume(path: Path, trainer: Trainer) -> bool:
    """Goes on from the state saved at path, if there is one; says whether there was."""
    if not path.is_file():
        return False
    trainer.load_state(torch.load(path, weights_only=True))
    return True


def as_metrics(report: Report) -> dict[str, float]:
    return {name: round(value, 6) for name, value in asdict(report).items()}
