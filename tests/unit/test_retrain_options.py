"""Options of jobs/retrain.py: what is refused, and what a tick is."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from retrain_look import is_held_out
from retrain_options import RetrainJob
from tinyface_core.errors import SettingsError
from train_options import TrainingFlags

GIVEN: dict[str, Any] = {"data": ("d",), "frozen": ("f",), "registry": "r", "training": TrainingFlags(crops=8)}


def test_a_tick_is_to_the_minute_and_now_without_one() -> None:
    assert RetrainJob(**GIVEN, tick="2025-11-29T03:00:59+01:00").tick_time() == datetime(2025, 11, 29, 2, tzinfo=UTC)
    now = RetrainJob(**GIVEN).tick_time()
    assert (now.second, now.microsecond) == (0, 0)
    assert timedelta(0) <= datetime.now(UTC) - now < timedelta(minutes=2)


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"tick": "soon"}, "--tick soon"),
        ({"tick": "2999-01-01"}, "lies in the future"),
        ({"since": "2026-13-01"}, "--since 2026-13-01"),
        ({"since": "2025-02-01", "until": "2025-02-01"}, "nothing lies between"),
        ({"since": "2025-02-01", "tick": "2025-01-01"}, "nothing lies between"),
        ({"training": TrainingFlags()}, "--hours, --crops or --epochs"),
        ({"training": TrainingFlags(crops=-1)}, "above 0"),
        ({"hold_out": 0.9}, "--hold-out 0.9"),
        ({"margin": -0.1}, "--margin -0.1"),
        ({"tolerance": 2.0}, "--tolerance 2.0"),
        ({"least_pictures": 1}, "--least-pictures 1"),
        ({"samples": 5}, "--samples 5"),
        ({"actors": "none"}, "--actors none"),
        ({"registry": " "}, "--registry: which"),
    ],
)
def test_what_makes_no_sense_is_refused_by_name(wrong: dict[str, Any], why: str) -> None:
    with pytest.raises(SettingsError, match=why):
        RetrainJob(**GIVEN | wrong)


def test_the_registry_may_stand_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINYFACE_REGISTRY", raising=False)
    with pytest.raises(SettingsError, match="TINYFACE_REGISTRY"):
        RetrainJob(**GIVEN | {"registry": None})
    monkeypatch.setenv("TINYFACE_REGISTRY", "s3://b/registry")
    RetrainJob(**GIVEN | {"registry": None})


def test_a_picture_is_held_out_at_every_tick_or_never() -> None:
    """By its uri alone; with a larger share, those that were held out stay so."""
    uris = [f"s3://b/{number}.jpg" for number in range(4000)]
    few, more = ({uri for uri in uris if is_held_out(uri, share)} for share in (0.1, 0.3))
    assert 320 < len(few) < 480
    assert few < more
