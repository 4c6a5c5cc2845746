"""Whether a new model takes the place of the current one: both judged on the same pictures, and a rule stated before.

Average precision as in curves.py. The interval is that of the difference, of a bootstrap over pictures in which both
models get the same samples: what makes a sample hard is hard for both, so it is far narrower than the difference of two
intervals. Knows neither models nor where they lie.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from tinyface_core.evaluate.curves import counts, curve, drawn_anew, resampled
from tinyface_core.evaluate.matching import Found, match
from tinyface_core.evaluate.truth import ALL, HEIGHT_NAMES, Truth


@dataclass(frozen=True)
class Difference:
    """Average precision of both models on one group of faces. low, high: of 95 % of the samples' differences."""

    group: str
    faces: int
    current: float
    new: float
    low: float
    high: float

    @property
    def difference(self) -> float:
        return self.new - self.current


@dataclass(frozen=True)
class Rule:
    """When a model is promoted, all three:

    - over all valid faces it is better by `margin` (average precision, 0..1) or more;
    - the interval of that difference lies above 0;
    - at no range of face heights is it worse by more than `tolerance`.
    """

    margin: float
    tolerance: float


@dataclass(frozen=True)
class Verdict:
    """promote: what the rule says. reasons: a sentence for each part of it, in its order."""

    promote: bool
    reasons: tuple[str, ...]


def differences(
    truth: Truth,
    current: Mapping[str, Found],
    new: Mapping[str, Found],
    *,
    samples: int = 1000,
    seed: int = 0,
) -> list[Difference]:
    """Of all valid faces, then of each range of heights that has faces. Detections by picture name."""
    found, weights_SP = [], drawn_anew(len(truth.names), samples, seed)
    matches = {name: match(truth, of) for name, of in (("current", current), ("new", new))}
    groups = truth.groups()
    for group in (ALL, *HEIGHT_NAMES):
        faces_F = groups[group]
        if not faces_F.any():
            continue
        ap = {name: curve(truth, one, faces_F).average_precision for name, one in matches.items()}
        sampled = {name: resampled(counts(truth, one, faces_F), weights_SP) for name, one in matches.items()}
        low, high = np.percentile(sampled["new"] - sampled["current"], (2.5, 97.5))
        found.append(Difference(group, int(faces_F.sum()), ap["current"], ap["new"], float(low), float(high)))
    return found


def judge(found: Sequence[Difference], rule: Rule) -> Verdict:
    """What the rule says of these differences, the first of which is of all valid faces."""
    whole, *bands = found
    enough, sure = whole.difference >= rule.margin, whole.low > 0
    worse = [band for band in bands if band.difference < -rule.tolerance]
    heights = ", ".join(f"{band.group} {band.difference:+.4f}" for band in worse) or "nowhere"
    reached, above = "reaches" if enough else "does not reach", "above 0" if sure else "not above 0"
    reasons = (
        f"all valid faces: {whole.difference:+.4f}, {reached} the margin of {rule.margin:g}",
        f"95 % interval {whole.low:+.4f} to {whole.high:+.4f}: {above}",
        f"by height worse beyond the tolerance of {rule.tolerance:g}: {heights}",
    )
    return Verdict(enough and sure and not worse, reasons)


def as_json(found: Sequence[Difference]) -> list[dict[str, Any]]:
    """For metrics.json."""
    return [
        {name: round(value, 6) if isinstance(value, float) else value for name, value in asdict(one).items()}
        | {"difference": round(one.difference, 6)}
        for one in found
    ]


def table(found: Sequence[Mapping[str, Any]]) -> str:
    """Markdown, of `as_json`."""
    lines = ["| faces | count | current | new | difference | 95 % interval |", "|---|---:|---:|---:|---:|---:|"]
    lines += [
        f"| {one['group']} | {one['faces']:,} | {one['current']:.4f} | {one['new']:.4f} | {one['difference']:+.4f} | "
        f"{one['low']:+.4f} to {one['high']:+.4f} |"
        for one in found
    ]
    return "\n".join(lines)
