from __future__ import annotations

from itertools import pairwise

import pytest

from tinyface_core.report.plots import HEIGHT, WIDTH, labelled_chart, score_chart, short_number


def test_columns_stand_on_one_line_and_their_heights_are_in_proportion() -> None:
    columns = labelled_chart("t", "x", "faces", [("a", 10), ("b", 40), ("c", 20)]).columns
    assert {round(c.y + c.height, 1) for c in columns} == {160.0}
    assert columns[1].height == pytest.approx(4 * columns[0].height, abs=0.2)
    assert columns[1].height == pytest.approx(2 * columns[2].height, abs=0.2)


def test_columns_do_not_touch_and_stay_inside() -> None:
    columns = labelled_chart("t", "x", "faces", [(str(n), 10**n) for n in range(8)]).columns
    assert all(a.x + a.width < b.x for a, b in pairwise(columns))
    assert min(c.x for c in columns) >= 0
    assert max(c.x + c.width for c in columns) <= WIDTH
    assert all(c.y - 12 >= 0 and c.y + c.height <= HEIGHT for c in columns)


def test_one_among_millions_can_still_be_seen_and_none_cannot() -> None:
    columns = labelled_chart("t", "x", "faces", [("a", 1), ("b", 10**7), ("c", 0)]).columns
    assert [c.height > 0 for c in columns] == [True, True, False]
    assert [c.above for c in columns] == ["1", "10M", ""]


def test_all_zero_bins_give_empty_columns() -> None:
    assert [c.height for c in labelled_chart("t", "x", "faces", [("a", 0), ("b", 0)]).columns] == [0, 0]


def test_scores_are_in_their_colours() -> None:
    chart = score_chart("t", "score", "faces", [1] * 20)
    assert chart.columns[0].label == "0.00\u20130.05"
    assert len({c.colour for c in chart.columns}) == 20
    assert chart.ticks == ((0, "0"), (90, "0.25"), (180, "0.5"), (270, "0.75"), (360, "1"))


@pytest.mark.parametrize(
    ("number", "text"),
    [(0, "0"), (873, "873"), (1000, "1.0k"), (9949, "9.9k"), (45_123, "45k"), (999_900, "1.0M"), (3.1e9, "3.1G")],
)
def test_short_number(number: float, text: str) -> None:
    assert short_number(number) == text
