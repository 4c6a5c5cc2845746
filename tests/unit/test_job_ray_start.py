"""Ray that does not come up is told in a sentence, with where to look: not by a traceback out of Ray."""

from __future__ import annotations

import pytest

import ray_start
from tinyface_core.errors import ResourceError, StopRun

TIMED_OUT = "The current node timed out during startup. This could happen because the GCS has become overloaded."


@pytest.mark.parametrize(
    ("fault", "told", "what"),
    [
        (Exception(TIMED_OUT), StopRun, "overloaded. Is the machine busy"),
        (ConnectionError("no answer"), ResourceError, "no Ray cluster answers at 10.0.0.1:6379"),
    ],
)
def test_it_is_named(fault: Exception, told: type[Exception], what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def init(**_: object) -> None:
        raise fault

    monkeypatch.setattr(ray_start, "_init", init)
    monkeypatch.setattr(ray_start, "_joinable", lambda address: address)
    with pytest.raises(told, match=what) as raised, ray_start.ray_cluster("10.0.0.1:6379"):
        pass
    assert raised.value.__cause__ is fault
