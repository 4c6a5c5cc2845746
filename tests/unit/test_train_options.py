"""Options of jobs/train.py that change the preset."""

from __future__ import annotations

from typing import Any

import pytest

from ray_start import Cluster
from tinyface_core.errors import ResourceError, SettingsError
from tinyface_core.train.presets import preset
from train_options import TrainingFlags, TrainJob
from train_run import _workers

PLACES: dict[str, Any] = {"data": ("d",), "validate": ("v",), "output": "runs"}


def test_the_rate_is_a_factor_on_all_learning_rates_and_on_nothing_else() -> None:
    plain, half = (TrainJob(**PLACES, training=TrainingFlags(rate=rate)).settings() for rate in (1.0, 0.5))
    assert plain == preset("fast")
    assert half.optimiser.head_rate == plain.optimiser.head_rate / 2
    assert half.optimiser.trunk_rate == plain.optimiser.trunk_rate / 2
    assert half.optimiser.warm_up == plain.optimiser.warm_up
    assert half.loss == plain.loss


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(SettingsError, match="--rate"):
        TrainingFlags(rate=rate)


@pytest.mark.parametrize(
    ("cpus", "gpus", "asked", "expected"),
    [
        (7, 0, {}, (4, False)),  # 16 crops are not shared evenly by 7, 6 or 5
        (16, 0, {"cpus_per_worker": 4}, (4, False)),
        (8, 2, {}, (2, True)),
        (8, 2, {"gpu": False}, (8, False)),
        (0, 0, {"workers": 8, "gpu": True}, (8, True)),
        (0, 0, {}, (1, False)),
    ],
)
def test_workers_fill_the_cluster_and_share_a_batch_evenly(
    cpus: int, gpus: int, asked: dict[str, Any], expected: tuple[int, bool]
) -> None:
    assert _workers(TrainingFlags(**asked), Cluster(cpus, gpus, grows=True), 16) == expected


def test_workers_that_cannot_share_a_batch_or_find_no_room_are_refused() -> None:
    for asked, kind, why in (
        ({"workers": 3}, SettingsError, "--workers 3: a batch of 16 crops"),
        ({"workers": 4}, ResourceError, "--workers 4 of 1 CPUs do not fit"),
        ({"workers": 1, "gpu": True}, ResourceError, "and a GPU do not fit"),
    ):
        with pytest.raises(kind, match=why):
            _workers(TrainingFlags(**asked), Cluster(2, 0, grows=False), 16)
