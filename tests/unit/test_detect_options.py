"""Options that do not go together, or make no sense, are refused by name."""

from __future__ import annotations

from typing import Any

import pytest

from detect_options import DetectArchive
from tinyface_core.errors import SettingsError


@pytest.mark.parametrize(
    ("options", "told"),
    [
        ({"dry_run": True, "forecast": True}, "--dry-run with --forecast"),
        ({"price_per_hour": 1.0}, "--price-per-hour without --forecast"),
        ({"price_per_hour": -1.0, "forecast": True}, "--price-per-hour -1.0: needs a number from 0 on"),
        ({"expect_hours": 0.0}, "--expect-hours 0.0: needs a number above 0"),
        ({"expect_hours": float("nan")}, "--expect-hours nan"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], told: str) -> None:
    with pytest.raises(SettingsError, match=told):
        DetectArchive(input=("in",), output="out", **options)


def test_a_forecast_of_costs_is_fine() -> None:
    assert DetectArchive(input=("in",), output="out", forecast=True, price_per_hour=0.0).forecast
