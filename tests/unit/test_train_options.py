"""Options of jobs/train.py that change the preset."""

from __future__ import annotations

import pytest

from tinyface_core.errors import SettingsError
from tinyface_core.train.presets import preset
from train_options import TrainJob

PLACES = {"data": ("d",), "validate": ("v",), "output": "runs"}


def test_the_rate_is_a_factor_on_all_learning_rates_and_on_nothing_else() -> None:
    plain, half = (TrainJob(**PLACES, rate=rate).settings() for rate in (1.0, 0.5))  # type: ignore[arg-type]
    assert plain == preset("fast")
    assert half.optimiser.head_rate == plain.optimiser.head_rate / 2
    assert half.optimiser.trunk_rate == plain.optimiser.trunk_rate / 2
    assert half.optimiser.warm_up == plain.optimiser.warm_up
    assert half.loss == plain.loss


@pytest.mark.parametrize("rate", [0.0, -1.0, float("nan"), float("inf")])
def test_a_rate_that_is_none_is_refused(rate: float) -> None:
    with pytest.raises(SettingsError, match="--rate"):
        TrainJob(**PLACES, rate=rate)  # type: ignore[arg-type]
