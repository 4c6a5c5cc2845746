"""The image pyramid: which levels a picture is shown at, and which templates may fire at each.

No level is ever left out in silence: pictures of any size run every level, in tiles where they are large
(detect/tiling.py). Paper: section 4, "Detection"; docs/decisions.md, "pyramid".
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from tinyface_core.errors import SettingsError
from tinyface_core.geometry import LevelSize
from tinyface_core.model.spec import LevelHeights
from tinyface_core.templates import TemplateSet

_REACH = 0.7  # a template finds faces down to this share of its height: IoU 0.5 in both sides
Zooms = tuple[float, ...] | Literal["adaptive"]


@dataclass(frozen=True)
class Level:
    """One showing of a picture. templates: 0-based ids that may fire here. heights: of its boxes, px of the picture,
    from, up to below."""

    size: LevelSize
    templates: tuple[int, ...]
    heights: tuple[float, float] = (0.0, math.inf)

    @property
    def zoom(self) -> float:
        return self.size.zoom


def levels_for(
    picture_hw: tuple[int, int], zooms: Zooms, templates: TemplateSet, heights: Sequence[LevelHeights] = ()
) -> list[Level]:
    """The levels of one picture, smallest zoom first; zooms as given, or the paper's adaptive ones.

    heights: limits, each kept only where a level runs that takes the faces beyond it: a finer one for those that are
    too low, for those that are too high a coarser one whose templates reach down to the limit.

    Raises:
        SettingsError: no zooms, one that is no size, or one at which no template may fire.
    """
    chosen = adaptive_zooms(picture_hw, templates) if zooms == "adaptive" else zooms
    if not chosen or not all(0 < zoom < math.inf for zoom in chosen):
        raise SettingsError(f"zooms {chosen}: needed is one or more above 0 (1 shows the picture at its own size).")
    limits = {one.zoom: one for one in heights}
    levels, reached_px = [], math.inf  # height of the smallest face that the next coarser level finds
    for zoom in sorted(set(chosen)):
        limit = limits.get(zoom, LevelHeights(zoom))
        least = limit.least if zoom < max(chosen) else 0.0
        below = limit.below if limit.below is not None and limit.below >= reached_px else math.inf
        levels.append(Level(LevelSize(picture_hw, zoom), templates.at_zoom(zoom), (least, below)))
        reached_px = _REACH * templates.smallest_face_px(zoom)
    return levels


def most_reduced(zooms: Zooms) -> int:
    """How many times smaller a picture may be decoded without a level that would need more: 1, 2, 4 or 8."""
    finest = math.inf if zooms == "adaptive" else max(zooms, default=math.inf)
    return max(times for times in (1, 2, 4, 8) if times == 1 or times * finest <= 1)


def adaptive_zooms(picture_hw: tuple[int, int], templates: TemplateSet) -> tuple[float, ...]:
    """2^k: whole steps from where the picture is no larger than the largest s = 1 template, half steps from 1x to 2x.

    The authors stop short of 2x on large pictures and lose 1x on tiny ones; both are kept here.
    """
    height, width = picture_hw
    at_one = [template for template in templates.templates if template.resolution == 1] or list(templates.templates)
    tallest, widest = max(t.height for t in at_one), max(t.width for t in at_one)
    lowest = min(0, math.floor(math.log2(tallest / height)), math.floor(math.log2(widest / width)))
    return (*(2.0**k for k in range(lowest, 1)), 2.0**0.5, 2.0)


def smallest_face_px(levels: list[Level], templates: TemplateSet) -> float:
    """Height in px of the smallest face that these levels can find."""
    return min(templates.smallest_face_px(level.zoom) for level in levels)
