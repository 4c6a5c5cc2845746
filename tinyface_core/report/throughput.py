"""How fast pictures were committed, over the time in which a job was at work.

The times are those of the images files: nothing else tells of runs that were killed. A unit that was written again
counts at its latest time, with all its pictures. Between two commits the pictures of the later one count as evenly
worked, so that units of 1,000 pictures do not show as bursts. Knows times and counts; knows no table or page.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np
from numpy.typing import NDArray

FEWEST_COMMITS = 5  # a rate from less says little
MOST_BINS = 48
_STOP_S, _STOP_INTERVALS = 60.0, 20  # a longer wait than both is no work: a run ended, and another went on later
_CLOCKS_S = 120.0  # by how much the store's clock may differ from the run's


@dataclass(frozen=True)
class Spell:
    """A time of work without a stop. start_s, end_s: its first and last commit, seconds since 1970.

    How long the first unit took nobody knows, so pictures are those that came after it. rates_B: pictures/s in equal
    parts of the spell.
    """

    start_s: float
    end_s: float
    pictures: int
    rates_B: NDArray[np.float64]

    @property
    def seconds(self) -> float:
        return self.end_s - self.start_s


@dataclass(frozen=True)
class Throughput:
    """spells: in order of time; never empty."""

    spells: tuple[Spell, ...]

    @property
    def seconds(self) -> float:
        return sum(spell.seconds for spell in self.spells)

    @property
    def mean(self) -> float:
        return sum(spell.pictures for spell in self.spells) / self.seconds


def throughput_of(commits: Sequence[tuple[float, int]], finished_s: float | None) -> Throughput | None:
    """The rates, or None where the times do not tell them.

    Args:
        commits: (when, pictures) of each unit, by time; seconds since 1970.
        finished_s: when the latest run came to its end, where that is known. Files that are younger are a copy, whose
            times tell of the copying.
    """
    times_U = np.array([when for when, _ in commits], np.float64)
    pictures_U = np.array([count for _, count in commits], np.int64)
    if len(commits) < FEWEST_COMMITS or (finished_s is not None and times_U[-1] > finished_s + _CLOCKS_S):
        return None
    waits_U = np.diff(times_U)
    stop_s = max(_STOP_S, _STOP_INTERVALS * float(np.median(waits_U)))
    cuts = [0, *(np.flatnonzero(waits_U > stop_s) + 1).tolist(), len(times_U)]
    parts = [slice(a, b) for a, b in pairwise(cuts) if times_U[b - 1] > times_U[a]]
    seconds = sum(float(times_U[part.stop - 1] - times_U[part.start]) for part in parts)
    if not parts:
        return None
    return Throughput(tuple(_spell(times_U[part], pictures_U[part], seconds) for part in parts))


def _spell(times_U: NDArray[np.float64], pictures_U: NDArray[np.int64], of_seconds: float) -> Spell:
    """Bins as wide as in the other spells, but never more than there are waits between commits."""
    moments_M, first_M = np.unique(times_U, return_index=True)  # commits of one moment come together
    done_M = np.cumsum(np.add.reduceat(pictures_U, first_M))
    done_M -= done_M[0]
    bins = max(1, min(round(MOST_BINS * (moments_M[-1] - moments_M[0]) / of_seconds), len(moments_M) - 1))
    edges_B = np.linspace(moments_M[0], moments_M[-1], bins + 1)
    rates_B = np.diff(np.interp(edges_B, moments_M, done_M)) / np.diff(edges_B)
    return Spell(float(moments_M[0]), float(moments_M[-1]), int(done_M[-1]), rates_B)
