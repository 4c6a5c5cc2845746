"""How fast pictures were committed: from the times of the units alone."""

from __future__ import annotations

import numpy as np
import pytest

from tinyface_core.report.plots import WIDTH, throughput_chart
from tinyface_core.report.throughput import FEWEST_COMMITS, MOST_BINS, Throughput, throughput_of

START_S = 1_790_000_000.0


def run_of(*minutes: float, pictures: int = 60) -> list[tuple[float, int]]:
    return [(START_S + 60 * minute, pictures) for minute in minutes]


def throughput(commits: list[tuple[float, int]], finished_s: float | None = None) -> Throughput:
    found = throughput_of(commits, finished_s)
    assert found is not None
    return found


def test_an_even_run_has_one_rate() -> None:
    """A unit of 60 pictures each minute; how long the first took nobody knows."""
    found = throughput(run_of(*range(11)))
    (spell,) = found.spells
    assert (spell.seconds, spell.pictures, found.mean) == (600, 600, 1)
    np.testing.assert_allclose(spell.rates_B, 1)


def test_the_rates_over_all_bins_make_the_pictures() -> None:
    draw = np.random.default_rng(0)
    commits = [
        (START_S + float(second), int(n)) for second, n in zip(np.cumsum(draw.random(300)), range(300), strict=True)
    ]
    (spell,) = throughput(commits).spells
    assert len(spell.rates_B) == MOST_BINS
    assert spell.rates_B.sum() * spell.seconds / MOST_BINS == pytest.approx(sum(range(300)))


def test_a_stop_is_no_time_of_work() -> None:
    """Killed after ten minutes, resumed a day later."""
    found = throughput([*run_of(*range(11)), *run_of(*range(1440, 1446), pictures=120)])
    assert [(spell.seconds, spell.pictures) for spell in found.spells] == [(600, 600), (300, 600)]
    assert found.mean == pytest.approx(1200 / 900)
    np.testing.assert_allclose(found.spells[1].rates_B, 2)


def test_a_slow_run_is_not_taken_for_stops() -> None:
    assert len(throughput(run_of(*range(0, 600, 50))).spells) == 1


def test_commits_of_one_moment_count_together() -> None:
    """S3 tells whole seconds."""
    commits = [(START_S + second, 10) for second in (0, 0, 0, 1, 1, 2, 4, 4, 4, 4)]
    (spell,) = throughput(commits).spells
    assert (spell.seconds, spell.pictures) == (4, 70)
    assert (spell.rates_B >= 0).all()


@pytest.mark.parametrize(
    "commits",
    [[], run_of(*range(FEWEST_COMMITS - 1)), run_of(*([7] * 20))],
    ids=["nothing", "too few", "one moment"],
)
def test_times_that_tell_no_rate_give_none(commits: list[tuple[float, int]]) -> None:
    assert throughput_of(commits, None) is None


def test_a_copy_of_an_output_tells_no_rate() -> None:
    commits = run_of(*range(11))
    assert throughput_of(commits, START_S - 3600) is None
    assert throughput_of(commits, START_S + 599) is not None, "clocks differ by seconds"


def test_the_chart_stays_inside_and_tells_what_it_shows() -> None:
    chart = throughput_chart(throughput([*run_of(*range(11)), *run_of(*range(1440, 1446), pictures=120)]))
    assert chart.description == "1.3 pictures/s on average in 15 min 0 s of work, with 1 stop in between"
    assert all(column.x >= 0 and column.x + column.width <= WIDTH + 0.1 for column in chart.columns)
    assert max(column.height for column in chart.columns) == 138
    assert chart.columns[0].height == pytest.approx(69, abs=0.2)
    assert chart.columns[0].tip.endswith("1 min 0 s: 1 pictures/s")
    assert [text for _, text in chart.ticks] == ["21 Sep, 14:13", "22 Sep, 14:13", "22 Sep, 14:18"]
    gap = [b.x - a.x - a.width for a, b in zip(chart.columns, chart.columns[1:], strict=False)]
    assert sum(space > 4 for space in gap) == 1, "the axis is broken where the run was"


def test_very_many_stops_still_give_a_chart() -> None:
    commits = [commit for day in range(200) for commit in run_of(1440 * day, 1440 * day + 1)]
    chart = throughput_chart(throughput(commits))
    assert all(column.width > 0 for column in chart.columns)
    assert max(column.x for column in chart.columns) <= WIDTH
