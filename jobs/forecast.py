"""What a run would take: lists the input, times a sample of it where the detectors will run. Writes nothing."""

from __future__ import annotations

import logging
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import Any

import ray
from rich.console import Console
from rich.table import Table

from ray_chain import GPU_BLOCK_BYTES
from ray_stages import BLOCK_BYTES, Detecting, Reading, time_sample
from ray_start import Pool, run_as_detector
from tinyface_core.archive.record import Source, Unit
from tinyface_core.errors import ResourceError, StopRun, StorageError
from tinyface_core.forecast.forecast import Forecast, Workers, forecast
from tinyface_core.forecast.sample import InputSample
from tinyface_core.forecast.timing import PictureTimes
from tinyface_core.report.text import counted, duration

log = logging.getLogger(__name__)
MORE = (1, 2, 4, 8)  # times the detectors that there are


def show_forecast(
    listed: Iterable[Source],
    skipped: Counter[str],
    reading: Reading,
    detecting: Detecting,
    pool: Pool,
    *,
    price: float | None,
) -> None:
    """Prints what a run on this pool would take; price: of one detector, an hour. Raises: StopRun, ResourceError."""
    sample = InputSample.of(listed)
    log.info("listed: %s, %s", counted(sample.pictures, "picture"), counted(sample.archives, "archive"))
    times = timed(sample.units(), reading, detecting, pool)
    workers = workers_of(pool)
    console = Console(highlight=False, markup=False, soft_wrap=True)
    found = forecast(sample, times, workers)
    if found is None or not any(one.pixels for one in times):
        console.print(f"no forecast: none of {counted(len(times), 'sampled picture')} could be decoded")
        return
    console.print(_steps(found, workers, times))
    console.print(_choices(sample, times, workers, price))
    left_out = ", ".join(f"{name} {count:,}" for name, count in skipped.most_common(12))
    console.print(
        f"{_about(found, sample)}; what limits: {found.bottleneck}. Start-up is apart (half a minute, more where nodes "
        "must come), and what is done already is not left out. Nothing was written."
        + (f"\nskipped, no pictures: {left_out}" if left_out else "")
        + f"\nTo compare later, give the run --expect-hours {found.hours:.3g}"
    )


def timed(units: Sequence[Unit], reading: Reading, detecting: Detecting, pool: Pool) -> list[PictureTimes]:
    """The times of these units in one process that has what a detector has. Raises: StopRun, ResourceError."""
    try:
        return run_as_detector(pool, time_sample, units, reading, detecting)
    except ray.exceptions.RayTaskError as error:
        if isinstance(error.cause, StorageError | ResourceError):
            raise error.cause from error
        raise StopRun(f"the sample could not be timed: {str(error).strip().splitlines()[-1]}") from error


def workers_of(pool: Pool) -> Workers:
    """The largest that this pool may become."""
    block_bytes = GPU_BLOCK_BYTES if pool.gpus else BLOCK_BYTES
    return Workers(pool.largest, pool.decoders, max(2, pool.largest), not pool.gpus, block_bytes)


def _steps(found: Forecast, workers: Workers, times: Sequence[PictureTimes]) -> Table:
    table = Table(title=f"Of a sample of {counted(len(times), 'picture')}", title_justify="left")
    for heading in ("step", "ms a picture", "at once", "pictures/s if alone"):
        table.add_column(heading, justify="left" if heading == "step" else "right")
    at_once = {"read": workers.readers, "decode": workers.detectors * workers.decoders, "model": workers.detectors}
    at_once["driver"] = 1  # of a typical machine, not of the sample: it reads no picture
    for step, seconds in found.seconds.items():
        table.add_row(step, f"{1000 * seconds:,.1f}", f"{at_once[step]:,}", f"{found.rates[step]:,.2f}")
    return table


def _choices(sample: InputSample, times: Sequence[PictureTimes], workers: Workers, price: float | None) -> Table:
    table = Table(title="Forecast", title_justify="left")
    for heading in ("detectors", "pictures/s", "time", "from", "to", *(("cost",) if price is not None else ())):
        table.add_column(heading, justify="right")
    for more in MORE:
        these = replace(workers, detectors=more * workers.detectors, readers=max(2, more * workers.detectors))
        found = forecast(sample, times, these)
        assert found is not None
        cost = [f"{found.hours * these.detectors * price:,.2f}"] if price is not None else []
        spans = (duration(3600 * hours) for hours in (found.hours, found.hours_low, found.hours_high))
        table.add_row(f"{these.detectors:,}", f"{found.rate:,.2f}", *spans, *cost)
    return table


def _about(found: Forecast, sample: InputSample) -> str:
    about = "about " if sample.archives else ""
    return f"{about}{counted(found.pictures, 'picture')}" + (" (of archives by size)" if sample.archives else "")


def against(expected_h: float | None, seconds: float) -> dict[str, Any] | None:
    """What was expected and what came, for run.json; None where nothing was expected."""
    return None if expected_h is None else {"hours": expected_h, "took_hours": round(seconds / 3600, 4)}
