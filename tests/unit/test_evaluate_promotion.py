"""When a new model is promoted: differences worked by hand, and each part of the rule by itself."""

from __future__ import annotations

import json

import numpy as np
import pytest

from tinyface_core.evaluate.curves import curve, interval
from tinyface_core.evaluate.matching import Found, match
from tinyface_core.evaluate.promotion import Difference, Rule, as_json, differences, judge, table
from tinyface_core.evaluate.truth import ALL, HEIGHT_NAMES, Truth, joined
from tinyface_core.labels.forms import attributes_of

RULE = Rule(margin=0.01, tolerance=0.02)


def truth_of(**pictures: list[list[float]]) -> Truth:
    return joined(
        {
            name: (np.array(faces, float).reshape(-1, 4), attributes_of(np.zeros(len(faces))))
            for name, faces in pictures.items()
        }
    )


def found(*boxes: tuple[list[float], float]) -> Found:
    return Found(np.array([box for box, _ in boxes], float).reshape(-1, 4), np.array([score for _, score in boxes]))


def difference(group: str, by: float, low: float = 0.001) -> Difference:
    return Difference(group, 100, 0.5, 0.5 + by, low, by + 0.1)


def test_differences_by_hand() -> None:
    """Two faces of 12 px and one of 30. Current: the first at .9, an alarm at .8, the second at .7; new: all three.

    Over all: current 1/3 at precision 1, another third at 2/3; new 1. Of 10-20 px: current 1/2 + 1/2 * 2/3, new 1.
    """
    faces = {"a": [[0, 0, 10, 12], [50, 0, 10, 12]], "b": [[0, 0, 25, 30]]}
    current = {"a": found((faces["a"][0], 0.9), ([200, 0, 10, 12], 0.8), (faces["a"][1], 0.7)), "b": found()}
    new = {"a": found((faces["a"][0], 0.9), (faces["a"][1], 0.8)), "b": found((faces["b"][0], 0.7))}
    whole, small, large = differences(truth_of(**faces), current, new, samples=200)
    assert (whole.group, small.group, large.group) == (ALL, "10-20 px", "20-40 px")
    assert (whole.faces, small.faces, large.faces) == (3, 2, 1)
    assert (whole.current, whole.new) == (pytest.approx(1 / 3 + 2 / 9), pytest.approx(1))
    assert (small.current, small.new) == (pytest.approx(0.5 + 1 / 3), pytest.approx(1))
    assert (large.current, large.new, large.difference) == (0, 1, 1)


def test_two_equal_models_differ_by_nothing_in_every_sample() -> None:
    """As both get the same samples: intervals of each alone would be wide."""
    rng = np.random.default_rng(3)
    truth = truth_of(**{f"{number}": [[0, 0, 10, 12]] for number in range(30)})
    of = {name: found(([0 if rng.random() < 0.5 else 40, 0, 10, 12], float(rng.random()))) for name in truth.names}
    whole, *_ = differences(truth, of, of, samples=200)
    assert (whole.low, whole.high, whole.difference) == (0, 0, 0)
    low, high = interval(truth, match(truth, of), truth.valid_F, samples=200)
    assert high - low > 0.1


def test_a_model_that_is_better_on_each_picture_has_an_interval_above_0_and_a_lucky_one_has_not() -> None:
    rng = np.random.default_rng(4)
    truth = truth_of(**{f"{number}": [[0, 0, 10, 12], [50, 0, 10, 12]] for number in range(40)})
    half = {name: found(([0, 0, 10, 12], 0.5 + 0.4 * float(rng.random()))) for name in truth.names}
    whole = {name: found(([0, 0, 10, 12], 0.9), ([50, 0, 10, 12], 0.8)) for name in truth.names}
    better, *_ = differences(truth, half, whole, samples=300)
    assert 0 < better.low <= better.difference <= better.high
    lucky = dict(half) | {"0": whole["0"]}
    once, *_ = differences(truth, half, lucky, samples=300)
    assert once.difference > 0
    assert once.low <= 0


def test_samples_are_those_of_the_seed() -> None:
    rng = np.random.default_rng(5)
    truth = truth_of(**{f"{number}": [[0, 0, 10, 12]] for number in range(20)})
    one, two = (
        {name: found(([int(rng.integers(0, 9)), 0, 10, 12], float(rng.random()))) for name in truth.names}
        for _ in range(2)
    )
    first, again, other = (differences(truth, one, two, samples=200, seed=seed)[0] for seed in (1, 1, 2))
    assert first == again
    assert (first.low, first.high) != (other.low, other.high)


@pytest.mark.parametrize(
    ("by", "low", "band", "promote"),
    [
        (0.02, 0.001, 0.0, True),
        (0.01, 0.001, 0.0, True),  # the margin itself is enough
        (0.0099, 0.001, 0.0, False),
        (0.02, 0.0, 0.0, False),  # an interval that touches 0
        (0.02, -0.001, 0.0, False),
        (0.02, 0.001, -0.02, True),  # the tolerance itself is borne
        (0.02, 0.001, -0.0201, False),
        (-0.02, -0.03, 0.0, False),
    ],
)
def test_each_part_of_the_rule(by: float, low: float, band: float, promote: bool) -> None:
    here = [Difference(ALL, 200, 0.0, by, low, 0.1), Difference("10-20 px", 100, 0.0, band, -1.0, 1.0)]
    assert judge(here, RULE).promote is promote


def test_reasons_name_what_failed() -> None:
    here = [difference(ALL, 0.005, -0.01), difference("under 10 px", -0.03), difference("20-40 px", 0.2)]
    margin, sure, heights = judge(here, RULE).reasons
    assert "does not reach the margin of 0.01" in margin
    assert "not above 0" in sure
    assert "under 10 px -0.0300" in heights
    assert "20-40" not in heights
    assert "nowhere" in judge([difference(ALL, 0.2)], RULE).reasons[2]


def test_numbers_come_back_from_json_and_into_the_table() -> None:
    rows = json.loads(json.dumps(as_json([difference(ALL, 0.25, 0.125)])))
    assert rows[0]["difference"] == 0.25
    assert "| all valid | 100 | 0.5000 | 0.7500 | +0.2500 | +0.1250 to +0.3500 |" in table(rows)


def test_the_ranges_of_heights_are_all_there_and_agree_with_the_groups() -> None:
    truth = truth_of(a=[[0, 0, 20, height] for height in (5, 12, 30, 100, 200)])
    every = {"a": found(*((box.tolist(), 0.9) for box in truth.faces_F4))}
    names = [one.group for one in differences(truth, every, every, samples=100)]
    assert names == [ALL, *HEIGHT_NAMES]
    for name in names:
        assert curve(truth, match(truth, every), truth.groups()[name]).average_precision == 1
