"""Templates: the 25 face shapes that the network has one detector each for, and which of them fire at which level.

A template (width, height, resolution s) finds faces of width/s x height/s px in a picture shown at zoom s. The set
is data of a checkpoint (model/checkpoint.py); the numbers of the published 25 are in `PUBLISHED`.
Paper: sections 3.2 and 4.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pydantic

from tinyface_core.errors import SettingsError


@dataclass(frozen=True)
class Template:
    """width and height in pixels of the *resized* image; resolution: the zoom the shape was clustered for."""

    width: float
    height: float
    resolution: float

    @classmethod
    def from_corners(cls, x1: float, y1: float, x2: float, y2: float, resolution: float) -> Template:
        """From the published form: corners are pixel centres, so a side is one more than their distance."""
        return cls(x2 - x1 + 1, y2 - y1 + 1, resolution)


# Half width, half height, resolution of the authors' clusters (they are symmetric about 0).
_HALF_SIDES = (
    (86.3382352941177, 113.444117647059, 0.5),
    (48.75, 65.25, 0.5),
    (33.25, 43.75, 0.5),
    (25.75, 33.75, 0.5),
    (40.5, 54.5, 1),
    (34.5, 43.5, 1),
    (28.5, 38, 1),
    (25.658905, 31.32215, 1),
    (21.6137, 27.59767, 1),
    (20, 22.5, 1),
    (17.5, 25.5, 1),
    (16.3279854, 20.88555, 1),
    (29.4755, 34.4803, 2),
    (25.4202, 37.10609, 2),
    (24.2118, 30.21456, 2),
    (22.0129, 24.7059, 2),
    (19.3142, 28.0202, 2),
    (17.9677, 22.7849, 2),
    (15.6123, 19.5907, 2),
    (13.1842, 18.3421, 2),
    (13.50277, 15.0792, 2),
    (11.1091, 16.4909, 2),
    (10.97686, 14.0478, 2),
    (9.97219999999993, 12.4105, 2),
    (9.66129999999998, 10.6161, 2),
)
PUBLISHED = tuple(Template.from_corners(-w, -h, w, h, s) for w, h, s in _HALF_SIDES)


@dataclass(frozen=True)
class TemplateSet:
    """The templates of a checkpoint and the rule for levels. All ids are 0-based indices into `templates`.

    outputs: the template that each output channel of the network stands for (all of them, or fewer).
    a: fire at every level. b: fire above 1x only. levels: (zoom, ids) pairs that override the rule at those zooms.
    full: instead of a and b, every template fires at the zoom that equals its own resolution, and only there.
    """

    templates: tuple[Template, ...] = PUBLISHED
    outputs: tuple[int, ...] = tuple(range(25))
    a: tuple[int, ...] = tuple(range(4, 12))
    b: tuple[int, ...] = tuple(range(18, 25))
    levels: tuple[tuple[float, tuple[int, ...]], ...] = ()
    full: bool = False

    def at_zoom(self, zoom: float) -> tuple[int, ...]:
        """Ids that may fire at this level, ascending.

        Raises:
            SettingsError: none may: the level would cost its time and find nothing.
        Paper: section 4; the authors' benchmark runs B at 2x only.
        """
        table = dict(self.levels)
        if zoom in table:
            wanted: tuple[int, ...] = table[zoom]
        elif self.full:
            wanted = tuple(i for i, template in enumerate(self.templates) if template.resolution == zoom)
        else:
            wanted = self.a if zoom <= 1 else self.a + self.b
        ids = tuple(sorted(set(wanted) & set(self.outputs)))
        if not ids:
            raise SettingsError(
                f"zoom {zoom:g}: no template of this checkpoint may fire there. Leave it out of --zooms."
            )
        return ids

    def smallest_face_px(self, zoom: float) -> float:
        """Height in px of the original picture of the smallest template at this level."""
        return min(self.templates[i].height for i in self.at_zoom(zoom)) / zoom


# Ours: three of the published that neither A nor B uses give way to smaller ones, for faces of 9, 7.5 and 6 px.
_TINY = (Template(15.0, 18.5, 2), Template(12.0, 15.0, 2), Template(9.5, 12.0, 2))
WITH_TINY = TemplateSet((*PUBLISHED[:12], *_TINY, *PUBLISHED[15:]), b=(12, 13, 14, *range(18, 25)))


def read_templates(file: Path) -> TemplateSet:
    """The set of a JSON file, as jobs/fit_templates.py writes it. Raises: SettingsError."""
    try:
        found = pydantic.TypeAdapter(TemplateSet).validate_json(file.read_bytes())
    except OSError as error:
        raise SettingsError(f"{file}: cannot be read ({error.strerror}).") from error
    except pydantic.ValidationError as error:
        first = error.errors()[0]
        where = ".".join(str(part) for part in first["loc"]) or "the top"
        raise SettingsError(f"{file}: no templates of jobs/fit_templates.py: {where}: {first['msg']}.") from error
    if unknown := {*found.outputs, *found.a, *found.b} - set(range(len(found.templates))):
        raise SettingsError(f"{file}: names template {min(unknown)}, and has {len(found.templates)}.")
    return found
