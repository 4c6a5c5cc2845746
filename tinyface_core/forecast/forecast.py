"""From the times of a sample to hours and costs of the whole input.

A chain is as fast as its slowest step: readers, decoders and detectors work side by side. Detectors on CPUs share
theirs with their decoder, so there the two follow each other.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyface_core.forecast.sample import InputSample
from tinyface_core.forecast.timing import PictureTimes

SAMPLES = 1000  # of the bootstrap
MEMBER_BYTES = 768  # that a tar adds to each member: a header, and half a block in the mean; others add less
STEPS = ("read", "decode", "model", "driver")
DRIVER_S, DRIVER_BLOCK_S = 0.0002, 0.006  # of its one core, a picture and a block; not timed: docs/performance.md


@dataclass(frozen=True)
class Workers:
    """What works side by side, and one driver. decoders: of each detector; shared: they have no CPU of their own.
    readers: of all. block_bytes: encoded bytes that a detector is handed at once."""

    detectors: int
    decoders: int
    readers: int
    shared: bool
    block_bytes: int = 1 << 20


@dataclass(frozen=True)
class Forecast:
    """pictures: known for loose ones, estimated by size for those in archives. seconds: of each step, a picture.

    rates: pictures/s that all workers of a step could do. hours: of work, start-up left out; low, high: 2.5 and 97.5 %
    points when the sample's pictures are drawn anew.
    """

    pictures: int
    seconds: dict[str, float]
    rates: dict[str, float]
    rate: float
    hours: float
    hours_low: float
    hours_high: float

    @property
    def bottleneck(self) -> str:
        """The step that limits."""
        return min(self.rates, key=lambda step: self.rates[step])


def forecast(sample: InputSample, times: Sequence[PictureTimes], workers: Workers, *, seed: int = 0) -> Forecast | None:
    """None: nothing was timed, so there is nothing to tell."""
    if not times:
        return None
    sizes_P = np.array([one.size_bytes for one in times], np.float64)
    driver_P = DRIVER_S + DRIVER_BLOCK_S * np.minimum(1, sizes_P / workers.block_bytes)
    seconds_P4 = np.column_stack([[(one.read_s, one.decode_s, one.detect_s) for one in times], driver_P])
    in_archive_P = np.array([one.in_archive for one in times])
    drawn = np.random.default_rng(seed).integers(len(times), size=(SAMPLES, len(times)))
    hours_S = [_hours(sample, seconds_P4[d], sizes_P[d], in_archive_P[d], workers) for d in drawn]
    low, high = np.percentile(hours_S, (2.5, 97.5))
    mean_4 = seconds_P4.mean(axis=0)
    pictures, rates = _pictures(sample, sizes_P, in_archive_P), _rates(mean_4, workers)
    rate = _rate(mean_4, workers)
    return Forecast(
        pictures=round(pictures),
        seconds=dict(zip(STEPS, map(float, mean_4), strict=True)),
        rates=rates,
        rate=rate,
        hours=pictures / rate / 3600,
        hours_low=float(low),
        hours_high=float(high),
    )


def _hours(
    sample: InputSample,
    seconds_P4: NDArray[np.float64],
    sizes_P: NDArray[np.float64],
    in_archive_P: NDArray[np.bool_],
    workers: Workers,
) -> float:
    return _pictures(sample, sizes_P, in_archive_P) / _rate(seconds_P4.mean(axis=0), workers) / 3600


def _pictures(sample: InputSample, sizes_P: NDArray[np.float64], in_archive_P: NDArray[np.bool_]) -> float:
    """Loose pictures, and those that archives hold by the mean size of the members that were read."""
    members = sizes_P[in_archive_P]
    typical = members.mean() + MEMBER_BYTES if members.any() else 0.0
    return sample.pictures + (sample.archive_bytes / typical if typical else sample.archives)


def _rates(mean_4: NDArray[np.float64], workers: Workers) -> dict[str, float]:
    """Pictures/s of each step if it were alone."""
    at_once = (workers.readers, workers.detectors * workers.decoders, workers.detectors, 1)
    rates = (count / max(1e-9, float(s)) for count, s in zip(at_once, mean_4, strict=True))
    return dict(zip(STEPS, rates, strict=True))


def _rate(mean_4: NDArray[np.float64], workers: Workers) -> float:
    """Pictures/s of the chain."""
    rates = _rates(mean_4, workers)
    if not workers.shared:
        return min(rates.values())
    _, decode_s, detect_s, _ = mean_4
    return min(rates["read"], rates["driver"], workers.detectors / max(1e-9, float(decode_s + detect_s)))
