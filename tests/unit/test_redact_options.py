"""What jobs/redact.py refuses of its options, and which settings they make."""

from __future__ import annotations

from typing import Any

import pytest

from redact_options import RedactCopies, settings_of
from tinyface_core.errors import SettingsError
from tinyface_core.redact.faces import Redaction


@pytest.mark.parametrize(
    ("options", "named"),
    [
        ({"margin": -0.1}, "--margin"),
        ({"margin": float("nan")}, "--margin"),
        ({"quality": 0}, "--quality"),
        ({"min_score": 1.5}, "--min-score"),
        ({"check": -1}, "--check"),
        ({"max_residual": 0.1, "check": 0}, "--max-residual with --check 0"),
        ({"actors": "0"}, "--actors"),
        ({"to": " "}, "--output"),
    ],
)
def test_what_makes_no_sense_is_refused(options: dict[str, Any], named: str) -> None:
    with pytest.raises(SettingsError, match=named):
        RedactCopies(**{"to": "copies"} | options)


def test_settings_are_what_was_asked_for_and_defaults() -> None:
    job = RedactCopies(to="copies", how="blur", margin=0.0)
    assert job.asked_for() == {"how": "blur", "margin": 0.0}
    settings = settings_of(job.asked_for(), {"encoder": 1})
    assert Redaction.of_settings(settings) == Redaction(how="blur", margin=0.0)
    assert settings["encoder"] == 1
