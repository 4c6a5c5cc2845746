"""Column charts as geometry, which the page's template draws as inline SVG.

Drawn by hand instead of by matplotlib: a chart costs 2 kB instead of 30, its text is text, its colours follow the
page's light and dark mode, and no second of import is spent. Each tells in a sentence what it shows, for those who
hear it. Knows numbers and labels; knows no table or page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import UTC, datetime

from tinyface_core.report.draw import hex_colour
from tinyface_core.report.text import counted, duration, rate
from tinyface_core.report.throughput import Spell, Throughput

WIDTH, HEIGHT = 360, 190  # SVG units; about one CSS pixel each on a desktop and on a phone
_TOP, _BASE = 22, 160  # room for the counts above, for the labels below
_GAP = 0.22  # of a column's share
_BREAK = 8  # between two spells of work
_LABEL = 76  # a date with its time is so wide


@dataclass(frozen=True)
class Column:
    """x, y, width, height: SVG units. above: the count as a short text, empty where columns are too narrow.

    tip: what it says when it is pointed at.
    """

    x: float
    y: float
    width: float
    height: float
    label: str
    tip: str
    above: str = ""
    colour: str | None = None

    @property
    def middle(self) -> float:
        return round(self.x + self.width / 2, 1)


@dataclass(frozen=True)
class Chart:
    """ticks: (x, text) where the columns carry no labels of their own. levels: (y, text) of lines across."""

    title: str
    axis: str
    description: str
    columns: tuple[Column, ...]
    ticks: tuple[tuple[float, str], ...] = ()
    levels: tuple[tuple[float, str], ...] = ()


def labelled_chart(title: str, axis: str, unit: str, bins: Sequence[tuple[str, int]]) -> Chart:
    """One column a bin, its label below and its count above."""
    bins = [(label.replace("-", "\u2013"), count) for label, count in bins]
    columns = _columns(bins, unit, gap=_GAP)
    above = [short_number(count) if count else "" for _, count in bins]
    with_counts = [replace(column, above=text) for column, text in zip(columns, above, strict=True)]
    return Chart(title, axis, _told(axis, columns), tuple(with_counts))


def score_chart(title: str, axis: str, unit: str, counts: Sequence[int]) -> Chart:
    """Equal bins of 0..1, each in its score's colour, ticks at the quarters."""
    bins = [(f"{b / len(counts):.2f}\u2013{(b + 1) / len(counts):.2f}", count) for b, count in enumerate(counts)]
    columns = _columns(bins, unit, gap=0.06)
    coloured = [replace(column, colour=hex_colour((b + 0.5) / len(counts))) for b, column in enumerate(columns)]
    ticks = tuple((WIDTH * quarter / 4, f"{quarter / 4:g}") for quarter in range(5))
    return Chart(title, axis, _told(axis, columns), tuple(coloured), ticks)


def throughput_chart(throughput: Throughput) -> Chart:
    """Pictures/s over the time of work; where a run ended and another went on later, the axis is broken."""
    spells = throughput.spells
    most = max(float(spell.rates_B.max()) for spell in spells) or 1.0
    gap = min(_BREAK, WIDTH / 2 / len(spells))
    scale = (WIDTH - gap * (len(spells) - 1)) / throughput.seconds
    columns: list[Column] = []
    ticks: list[tuple[float, str]] = []
    left = 0.0
    for spell in spells:
        if not ticks or ticks[-1][0] + _LABEL <= left <= WIDTH - 1.5 * _LABEL:
            ticks.append((round(left, 1), _moment(spell.start_s)))
        columns += _rates(spell, left, scale, most)
        left += spell.seconds * scale + gap
    ticks.append((WIDTH, _moment(spells[-1].end_s)))
    mean, worked = rate(throughput.mean), duration(throughput.seconds)
    told = f"{mean} pictures/s on average in {worked} of work"
    told += f", with {counted(len(spells) - 1, 'stop')} in between" if len(spells) > 1 else ""
    levels = [(_height_at(throughput.mean, most), f"{mean} on average")]
    if levels[0][0] > _TOP + 16:
        levels.append((_TOP, f"{rate(most)} pictures/s"))
    return Chart("Pictures committed a second", "time, UTC", told, tuple(columns), tuple(ticks), tuple(levels))


def short_number(number: float) -> str:
    """At most four characters: 873, 1.2k, 45k, 3.1M."""
    for factor, letter in ((1e9, "G"), (1e6, "M"), (1e3, "k")):
        if number >= factor * 0.9995:
            value = number / factor
            return f"{value:.1f}{letter}" if value < 9.95 else f"{value:.0f}{letter}"
    return f"{number:.0f}"


def _columns(bins: Sequence[tuple[str, int]], unit: str, *, gap: float) -> list[Column]:
    """Heights from zero, linear; a bin with anything in it is at least a hair high."""
    most = max((count for _, count in bins), default=0) or 1
    share = WIDTH / max(1, len(bins))
    columns = []
    for place, (label, count) in enumerate(bins):
        top = min(_BASE - 1.0, _height_at(count, most)) if count else _BASE
        x, width = round(share * (place + gap / 2), 1), round(share * (1 - gap), 1)
        columns.append(Column(x, top, width, round(_BASE - top, 1), label, f"{label}: {count:,} {unit}"))
    return columns


def _rates(spell: Spell, left: float, scale: float, most: float) -> list[Column]:
    bin_s = spell.seconds / len(spell.rates_B)
    columns = []
    for place, pictures_per_s in enumerate(spell.rates_B.tolist()):
        y = _height_at(pictures_per_s, most)
        x, start_s = left + place * bin_s * scale, spell.start_s + place * bin_s
        width = round(max(0.1, bin_s * scale - 0.5), 2)
        label = f"{_moment(start_s)}, {duration(bin_s)}"
        tip = f"{label}: {rate(pictures_per_s) or 0} pictures/s"
        columns.append(Column(round(x, 2), y, width, round(_BASE - y, 1), label, tip))
    return columns


def _height_at(value: float, most: float) -> float:
    return round(_BASE - (_BASE - _TOP) * value / most, 1)


def _told(axis: str, columns: Sequence[Column]) -> str:
    """For those who cannot see the columns."""
    return f"{axis}: " + "; ".join(column.tip for column in columns)


def _moment(seconds: float) -> str:
    when = datetime.fromtimestamp(seconds, UTC)
    return f"{when.day} {when:%b, %H:%M}"
