"""What to expect of a model at each score: how many faces it finds, and how often it is right. Values in a checkpoint.

Made by evaluate/advise.py from labelled pictures; printed with a run, so that --min-score is an informed choice.
"""

from __future__ import annotations

from bisect import bisect_right
from dataclasses import dataclass

SHOWN_SCORES = (0.2, 0.4, 0.6, 0.8)


@dataclass(frozen=True)
class HeightAdvice:
    """Faces of one range of heights. recall, precision: at each score of the advice, in 0..1.

    faces: annotated ones of these heights, px of the picture; recall is of them. precision: of the detections whose
    own height is in the range; None where there are none.
    """

    name: str
    faces: int
    recall: tuple[float, ...]
    precision: tuple[float | None, ...]


@dataclass(frozen=True)
class Advice:
    """scores: rising, exclusive thresholds. pictures: how many were labelled. zooms: the levels that were run."""

    pictures: int
    zooms: str
    scores: tuple[float, ...]
    heights: tuple[HeightAdvice, ...]

    def place(self, score: float) -> int | None:
        """Of the highest measured threshold up to this score; None below the lowest."""
        place = bisect_right(self.scores, score + 1e-9) - 1
        return place if place >= 0 else None

    def table(self, score: float) -> str:
        """For a log: what is found and what is right at this score, beside some others, by height."""
        asked = {self.scores[place] for place in [self.place(score)] if place is not None}
        shown = sorted(asked | {near for near in SHOWN_SCORES if self.scores[0] <= near <= self.scores[-1]})
        places = [self.scores.index(self.scores[self.place(each) or 0]) for each in shown]
        heads = [f"> {self.scores[place]:.2f}{'*' if self.scores[place] in asked else ' '}" for place in places]
        lines = [f"{'found / right':<16}" + "".join(f"{head:>14}" for head in heads) + f"{'faces':>9}"]
        for height in self.heights:
            cells = [f"{_percent(height.recall[place])} / {_percent(height.precision[place])}" for place in places]
            lines.append(f"{height.name:<16}" + "".join(f"{cell:>14}" for cell in cells) + f"{height.faces:>9,}")
        return "\n".join(lines)


def _percent(share: float | None) -> str:
    return "  -" if share is None else f"{100 * share:.0f} %"
