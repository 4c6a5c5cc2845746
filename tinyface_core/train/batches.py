"""Batches of crops with their targets, drawn ahead of the training step in one thread.

A crop is named by its number; the same number of a seed always gives the same crop.
"""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from itertools import count

import numpy as np
import torch
from torch import Tensor

from tinyface_core.geometry import CellGrid
from tinyface_core.train.crops import draw_crop
from tinyface_core.train.data import PictureCache
from tinyface_core.train.presets import TrainSettings
from tinyface_core.train.targets import Anchors, assign


@dataclass(frozen=True)
class Batch:
    """pixels_NHW3 uint8; labels_NTHW int8; cells_P4 int64 (n, t, y, x) of the positives; offsets_P4, weights_P float32
    theirs."""

    pixels_NHW3: Tensor
    labels_NTHW: Tensor
    cells_P4: Tensor
    offsets_P4: Tensor
    weights_P: Tensor

    @property
    def crops(self) -> int:
        return len(self.pixels_NHW3)

    @property
    def positives(self) -> int:
        return len(self.cells_P4)

    @property
    def weight(self) -> float:
        """Of all positives."""
        return float(self.weights_P.sum())

    def targets(self, device: torch.device) -> tuple[Tensor, Tensor, Tensor, Tensor]:
        """labels_NTHW, cells_P4, offsets_P4, weights_P there."""
        return (
            self.labels_NTHW.to(device),
            self.cells_P4.to(device),
            self.offsets_P4.to(device),
            self.weights_P.to(device),
        )


def make_batch(cache: PictureCache, settings: TrainSettings, grid: CellGrid, numbers: range) -> Batch:
    """The crops of these numbers, of the settings' seed. grid: of the network's output cells."""
    cells = -(-settings.crops.side_px // grid.stride)
    anchors = Anchors.of(settings.spec.templates, grid, (cells, cells))
    padding = tuple(round(value) for value in settings.spec.network.mean)
    pixels, labels, places, offsets, weights = [], [], [], [], []
    for place, number in enumerate(numbers):
        rng = np.random.default_rng((settings.seed, number))
        crop = draw_crop(cache, settings.crops, (padding[0], padding[1], padding[2]), rng)
        targets = assign(anchors, crop.faces_K4, crop.unclear_M4, crop.shown, settings.targets, rng)
        pixels.append(crop.pixels_HW3)
        labels.append(targets.labels_THW)
        places.append(np.insert(targets.cells_P3, 0, place, axis=1))
        offsets.append(targets.offsets_P4)
        weights.append(targets.weights_P)
    return Batch(
        torch.from_numpy(np.stack(pixels)),
        torch.from_numpy(np.stack(labels)),
        torch.from_numpy(np.concatenate(places)),
        torch.from_numpy(np.concatenate(offsets)),
        torch.from_numpy(np.concatenate(weights)),
    )


def batches(
    cache: PictureCache, settings: TrainSettings, grid: CellGrid, numbers: range, step_crops: int
) -> Iterator[Batch]:
    """Batches without end: the crops of these numbers, then those step_crops further on; two are made ahead."""

    def made(number: int) -> Batch:
        first = numbers.start + number * step_crops
        return make_batch(cache, settings, grid, range(first, first + len(numbers)))

    with ThreadPoolExecutor(1, "crops") as thread:
        ahead = [thread.submit(made, number) for number in range(2)]
        for number in count(2):
            ahead.append(thread.submit(made, number))
            yield ahead.pop(0).result()
