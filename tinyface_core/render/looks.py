"""Chosen pictures read again, each with its faces, or why it cannot be shown. Knows no form that they are shown in."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass

from tinyface_core.picture.picture import Limits, Picture
from tinyface_core.render.choose import Chosen
from tinyface_core.render.marks import NO_MARKS, Marks
from tinyface_core.report.pictures import ENDLESS, read_pictures
from tinyface_core.report.text import counted, px
from tinyface_core.storage import Storage

NOT_SHOWN = "cannot be shown"
_REDONE = "its faces are not there any more: it is being worked anew. Render it again"


@dataclass(frozen=True)
class Look:
    """One chosen picture. place: its number in the choice. picture: None where `why` (class, sentence) says why."""

    place: int
    chosen: Chosen
    marks: Marks
    picture: Picture | None = None
    why: tuple[str, str] | None = None

    @property
    def facts(self) -> str:
        """`23 faces, smallest 7 px`; the class of an error."""
        if self.why is not None:
            return self.why[0]
        if not len(self.marks):
            return "no face"
        return f"{counted(len(self.marks), 'face')}, smallest {px(float(self.marks.heights_px_K.min()))}"


def looks(
    storage: Storage, chosen: Sequence[Chosen], marks: Mapping[str, Marks], limits: Limits, children: int
) -> Iterator[Look]:
    """Each picture once, in no special order, one at a time; decoded ahead in so many guarded processes."""
    places = {picture.image_id: place for place, picture in enumerate(chosen)}
    readable = []
    for place, picture in enumerate(chosen):
        if picture.error is not None:
            yield Look(place, picture, NO_MARKS, why=picture.error)
        elif picture.image_id not in marks:
            yield Look(place, picture, NO_MARKS, why=(NOT_SHOWN, _REDONE))
        else:
            readable.append(picture)
    for picture, found in read_pictures(storage, readable, limits, ENDLESS, children=children):
        yield _look(places[picture.image_id], picture, marks[picture.image_id], found)


def _look(place: int, chosen: Chosen, marks: Marks, found: Picture | str) -> Look:
    if isinstance(found, str):
        return Look(place, chosen, marks, why=(NOT_SHOWN, found))
    if (found.width, found.height) != (chosen.width, chosen.height):
        sizes = f"{found.width} x {found.height} px now, {chosen.width} x {chosen.height} px then"
        return Look(place, chosen, marks, why=(NOT_SHOWN, f"it decodes to another size: {sizes}"))
    return Look(place, chosen, marks, found)
