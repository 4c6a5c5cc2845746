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
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from tinyface_core.detect.runtime import best_float
from tinyface_core.errors import CheckpointError, SettingsError
from tinyface_core.model.network import HeatMaps, HRNetwork
from tinyface_core.train.batches import Batch, batches
from tinyface_core.train.data import PictureCache
from tinyface_core.train.folded import folded, freeze
from tinyface_core.train.loss import Loss, divided_by, loss_of
from tinyface_core.train.meter import Meter, Report
from tinyface_core.train.optimise import optimiser_of, share_of_rate
from tinyface_core.train.presets import TrainSettings

REPORT_STEPS = 50


@dataclass(frozen=True)
class World:
    """This process among all: `average` replaces each tensor by its mean over them; None when there is but one.

    Every process gives the same tensors in the same order, each step.
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


class Trainer:
    """A network on its way: weights, optimiser, moving average, and how far it is."""

    def __init__(self, network: HRNetwork, settings: TrainSettings, budget: Budget, world: World | None = None) -> None:
        self.network, self.settings, self.budget, self.world = network, settings, budget, world or World()
        if settings.batch % self.world.size:
            raise SettingsError(
                f"a batch of {settings.batch} crops is not shared evenly by {self.world.size} processes."
            )
        freeze(network, settings.frozen_stride)
        network.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
        self._fast = folded(network)
        device = next(network.parameters()).device
        asked = settings.precision
        self._bf16 = asked == "bf16" or (asked == "auto" and best_float(device.type)[0] == "bf16")
        self._optimiser = optimiser_of(network, settings.optimiser)
        self._trained = [parameter for group in self._optimiser.param_groups for parameter in group["params"]]
        self._average = [parameter.detach().clone() for parameter in self._trained]
        self.step_number, self.seconds = 0, 0.0
        pixels_13 = (1, 3, 1, 1)
        self._mean = torch.tensor(settings.spec.network.mean).reshape(pixels_13)
        self._std = torch.tensor(settings.spec.network.std).reshape(pixels_13)

    @property
    def crops(self) -> int:
        """Crops seen by all processes."""
        return self.step_number * self.settings.batch

    @property
    def rate(self) -> float:
        """The learning rate of the finest head in the last step."""
        return float(self._optimiser.param_groups[0]["lr"])

    @property
    def spent(self) -> float:
        return self.budget.spent(self.crops, self.seconds)

    def batches(self, cache: PictureCache) -> Iterator[Batch]:
        """This process's batches from here on."""
        own = self.settings.batch // self.world.size
        first = self.crops + self.world.rank * own
        return batches(cache, self.settings, self.network.grid, range(first, first + own), self.settings.batch)

    def maps(self, pixels_NHW3: Tensor) -> HeatMaps:
        """What the network says of crops, uint8 RGB, in its training form."""
        device = self._trained[0].device
        image_N3HW = pixels_NHW3.to(device).permute(0, 3, 1, 2).float()
        image_N3HW = (image_N3HW - self._mean.to(device)) / self._std.to(device)
        if not self._bf16:
            return self._fast(image_N3HW)
        with torch.autocast(device.type, torch.bfloat16):
            return self._fast(image_N3HW.bfloat16())

    def step(self, batch: Batch) -> tuple[Loss, float]:
        """One update; gives the loss and the norm of its gradient."""
        rates, device = self.settings.optimiser, self._trained[0].device
        share = self._agreed(divided_by(self.settings.loss, batch.crops, batch.weight))
        for group in self._optimiser.param_groups:
            group["lr"] = group["peak"] * share_of_rate(self.spent, rates)
        generator = torch.Generator().manual_seed(
            (self.settings.seed * self.world.size + self.world.rank) << 32 | self.step_number
        )
        loss = loss_of(
            self.maps(batch.pixels_NHW3), batch.targets(device), self.settings.loss, share=share, generator=generator
        )
        self._optimiser.zero_grad()
        loss.total.backward()
        if self.world.average is not None:
            self.world.average([p.grad for p in self._trained if p.grad is not None])
        most = math.inf if rates.max_gradient_norm is None else rates.max_gradient_norm
        norm = torch.nn.utils.clip_grad_norm_(self._trained, most)
        self._optimiser.step()
        self.step_number += 1
        decay = min(rates.average_decay, self.step_number / (self.step_number + 10))
        with torch.no_grad():
            torch._foreach_lerp_(self._average, list(self._trained), 1 - decay)
        return loss, float(norm)

    def worked(self, seconds: float) -> None:
        """Adds to the time at work: the mean of all processes' seconds, so that all end at the same step."""
        self.seconds += self._agreed(seconds)

    def _agreed(self, value: float) -> float:
        """The mean of all processes' values."""
        if self.world.average is None:
            return value
        mean = torch.tensor([value], dtype=torch.float64)
        self.world.average([mean])
        return float(mean[0])

    def standing(self) -> dict[str, Any]:
        """Where the run is, as a report needs it."""
        return {
            "step": self.step_number,
            "crops": self.crops,
            "seconds": self.seconds,
            "spent": self.spent,
            "rate": self.rate,
        }

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
            raise CheckpointError("the run to resume was made with other settings: give them, or another --output.")
        self.network.load_state_dict(state["network"])
        self._average = [tensor.clone() for tensor in state["average"]]
        self._optimiser.load_state_dict(state["optimiser"])
        self.step_number, self.seconds = int(state["step_number"]), float(state["seconds"])


def train(
    trainer: Trainer,
    cache: PictureCache,
    *,
    on_report: Callable[[Report], None],
    on_epoch: Callable[[], None],
    epoch_crops: int,
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """Steps until the budget is spent; reports every REPORT_STEPS; an epoch ends every epoch_crops and at the end.

    What on_epoch takes is not counted as time at work.
    """
    meter = Meter(trainer.seconds, trainer.crops)
    last = clock()
    source = trainer.batches(cache)
    while trainer.spent < 1:
        batch = next(source)
        waited_s = clock() - last
        before = trainer.crops
        loss, norm = trainer.step(batch)
        now = clock()
        trainer.worked(now - last)
        last = now
        meter.add(loss, norm, batch.positives / batch.crops, waited_s)
        if meter.steps == REPORT_STEPS:
            on_report(meter.report(**trainer.standing()))
        if trainer.crops // epoch_crops > before // epoch_crops or trainer.spent >= 1:
            on_epoch()
            last = clock()


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
