"""Column charts as geometry, which the page's template draws as inline SVG.

Drawn by hand instead of by matplotlib: a chart costs 2 kB instead of 30, its text is text, its colours follow the
page's light and dark mode, and no second of import is spent. Knows numbers and labels; knows no table or page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinyface_core.report.draw import hex_colour

WIDTH, HEIGHT = 360, 190  # SVG units; about one CSS pixel each on a desktop and on a phone
_TOP, _BASE = 22, 160  # room for the counts above, for the labels below
_GAP = 0.22  # of a column's share


@dataclass(frozen=True)
class Column:
    """x, y, width, height: SVG units. above: the count as a short text, empty where columns are too narrow."""

    x: float
    y: float
    width: float
    height: float
    label: str
    count: int
    above: str = ""
    colour: str | None = None

    @property
    def middle(self) -> float:
        return round(self.x + self.width / 2, 1)


@dataclass(frozen=True)
class Chart:
    title: str
    axis: str
    unit: str
    columns: tuple[Column, ...]
    ticks: tuple[tuple[float, str], ...] = ()  # (x, text) where the columns carry no labels of their own

    @property
    def total(self) -> int:
        return sum(column.count for column in self.columns)


def labelled_chart(title: str, axis: str, unit: str, bins: Sequence[tuple[str, int]]) -> Chart:
    """One column a bin, its label below and its count above."""
    columns = _columns([label.replace("-", "\u2013") for label, _ in bins], [count for _, count in bins], gap=_GAP)
    with_counts = [Column(**{**vars(c), "above": short_number(c.count) if c.count else ""}) for c in columns]
    return Chart(title, axis, unit, tuple(with_counts))


def score_chart(title: str, axis: str, unit: str, counts: Sequence[int]) -> Chart:
    """Equal bins of 0..1, each in its score's colour, ticks at the quarters."""
    bins = len(counts)
    labels = [f"{b / bins:.2f}\u2013{(b + 1) / bins:.2f}" for b in range(bins)]
    columns = _columns(labels, list(counts), gap=0.06)
    coloured = [Column(**{**vars(c), "colour": hex_colour((b + 0.5) / bins)}) for b, c in enumerate(columns)]
    ticks = tuple((WIDTH * quarter / 4, f"{quarter / 4:g}") for quarter in range(5))
    return Chart(title, axis, unit, tuple(coloured), ticks)


def short_number(number: float) -> str:
    """At most four characters: 873, 1.2k, 45k, 3.1M."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor * 0.9995:
            value = number / factor
            return f"{value:.1f}{letter}" if value < 9.95 else f"{value:.0f}{letter}"
    return f"{number:.0f}"


def _columns(labels: Sequence[str], counts: Sequence[int], *, gap: float) -> list[Column]:
    """Heights from zero, linear; a bin with anything in it is at least a hair high."""
    most = max(counts, default=0) or 1
    share = WIDTH / max(1, len(counts))
    columns = []
    for place, (label, count) in enumerate(zip(labels, counts, strict=True)):
        height = max(1.0, (_BASE - _TOP) * count / most) if count else 0.0
        left = share * (place + gap / 2)
        columns.append(
            Column(
                round(left, 1), round(_BASE - height, 1), round(share * (1 - gap), 1), round(height, 1), label, count
            )
        )
    return columns
