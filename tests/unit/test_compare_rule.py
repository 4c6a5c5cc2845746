"""When a new output may take an old one's place: each limit, at it and beyond it."""

from __future__ import annotations

from collections import Counter
from dataclasses import replace

import numpy as np
import pytest

from tinyface_core.compare.counts import Comparison, FaceCounts
from tinyface_core.compare.rule import ALL, Rule, limits_of
from tinyface_core.errors import SettingsError


def faces(**kinds: int) -> FaceCounts:
    """All in the band of 20-40 px."""
    counts = FaceCounts()
    for name, number in kinds.items():
        counts = replace(counts, **{f"{name}_HS": np.zeros((5, 10), np.int64)})
        getattr(counts, f"{name}_HS")[2, 4] = number
    return counts


FACES = faces(old=1000, new=1000, lost=10, gained=10, kept=990, moved=99)
FOUND = Comparison(Counter({"compared": 1000}), faces=FACES)


@pytest.mark.parametrize(
    ("rule", "told"),
    [
        (Rule(), []),
        (Rule({ALL: 0.0099}), ["10 of 1,000 old faces are lost, above --max-lost 0.0099"]),
        (Rule({"20-40": 0.009}), ["10 of 1,000 old faces of 20-40 px are lost, above --max-lost 20-40=0.009"]),
        (Rule({"10-20": 0.0, "20-40": 0.01}), []),
        (Rule(gained={ALL: 0.0}), ["10 of 1,000 new faces are gained, above --max-gained 0"]),
        (Rule(moved={ALL: 0.1}), []),
        (Rule(moved={ALL: 0.09}), ["99 of 990 kept faces are moved, above --max-moved 0.09"]),
    ],
)
def test_faces(rule: Rule, told: list[str]) -> None:
    assert rule.broken(FOUND) == told


@pytest.mark.parametrize(
    ("pictures", "rule", "told"),
    [
        ({"only in new": 9, "error in old": 9, "error in both": 9}, Rule(), []),
        ({"error in new": 1}, Rule(), ["1 of 1,001 pictures have no result in the new one, above --max-missing 0"]),
        ({"error in new": 10}, Rule(missing=0.01), []),
        ({"other bytes": 1}, Rule(), ["1 of 1,001 pictures are other bytes, not compared, above --max-changed 0"]),
        ({"other bytes": 111}, Rule(changed=0.1), []),
        ({"only in old": 2}, Rule(), ["1 of 1,001 pictures have no result in the new one, above --max-missing 0"]),
    ],
)
def test_pictures(pictures: dict[str, int], rule: Rule, told: list[str]) -> None:
    """Of those that only the old output has, one has no result there either."""
    lost = 1 if "only in old" in pictures else 0
    assert rule.broken(replace(FOUND, pictures=FOUND.pictures + Counter(pictures), lost_results=lost)) == told


def test_what_is_not_whole_is_never_accepted() -> None:
    lenient = Rule({}, missing=1, changed=1)
    assert lenient.broken(FOUND, finished=False) == ["the new output is not finished (no _SUCCESS)"]
    assert "2 units of the new output" in lenient.broken(replace(FOUND, torn_new=2))[0]
    assert "1 units of the old output" in lenient.broken(replace(FOUND, torn_old=1))[0]
    assert lenient.broken(Comparison()) == ["no picture could be compared"]


def test_limits_are_shares_of_all_or_of_a_band() -> None:
    assert limits_of("--max-lost", ["0.01", "40-140=0.002", "140-=0", "0-10=1"]) == {
        ALL: 0.01, "40-140": 0.002, "140-": 0, "0-10": 1,
    }  # fmt: skip
    assert limits_of("--max-lost", []) == {}


@pytest.mark.parametrize("text", ["1.5", "-0.1", "much", "nan", "20-41=0.1", "20-40=", "=0.1", "20-40"])
def test_what_is_no_limit_is_refused_with_the_bands(text: str) -> None:
    with pytest.raises(SettingsError, match=r"--max-lost .*bands are 0-10, 10-20, 20-40, 40-140, 140-"):
        limits_of("--max-lost", [text])


@pytest.mark.parametrize("shares", [{"missing": 1.1}, {"changed": -1.0}, {"missing": float("nan")}])
def test_shares_of_pictures_are_shares(shares: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="needs a number from 0 to 1"):
        Rule(**shares)
