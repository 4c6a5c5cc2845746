"""compare.html: two outputs beside each other, as one page that needs no network, no script and no other file."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from tinyface_core.compare.counts import Comparison, PictureDiff
from tinyface_core.compare.outputs import Output
from tinyface_core.compare.tables import Table
from tinyface_core.report import text
from tinyface_core.report.gallery import Mark, Shown, show
from tinyface_core.report.html import MAX_GALLERY_BYTES, style, template
from tinyface_core.report.pictures import read_pictures
from tinyface_core.storage import Storage

NAME = "compare.html"
# Of Okabe and Ito's palette: told apart by the colour blind too.
_COLOURS = {"lost": "#d55e00", "gained": "#56b4e9", "moved": "#f0e442", "kept": "#c8c8c8"}
_MARKS = {kind: Mark(colour, f"{kind}, ") for kind, colour in _COLOURS.items()}


@dataclass(frozen=True)
class _Figure:
    diff: PictureDiff
    where: text.Place
    shown: Shown


@dataclass(frozen=True)
class Told:
    """settings, tables: as `tables.py` gives them. broken: why the new output is not accepted."""

    settings: Sequence[tuple[str, str, str]]
    tables: Sequence[Table]
    broken: Sequence[str]


def page(found: Comparison, old: Output, new: Output, told: Told, *, storage: Storage, pictures: int) -> str:
    """The page as text.

    Args:
        storage, pictures: from where so many of the pictures that differ most are read and drawn; 0: none are.
    """
    figures, unread = _figures(storage, found.most_different[:pictures])
    faces = found.faces
    return template("compare.html.jinja").render(
        css=style(),
        old=text.place_of(old.uri, None),
        new=text.place_of(new.uri, None),
        compared=found.pictures["compared"],
        lost=int(faces.lost_HS.sum()),
        gained=int(faces.gained_HS.sum()),
        moved=int(faces.moved_HS.sum()),
        broken=told.broken,
        settings=told.settings,
        tables=told.tables,
        marks=[Mark(colour, kind) for kind, colour in _COLOURS.items()],
        figures=figures,
        unread=unread,
        most_different=[(diff, text.place_of(diff.uri, diff.member)) for diff in found.most_different],
    )


def _figures(storage: Storage, chosen: Sequence[PictureDiff]) -> tuple[list[_Figure], list[tuple[text.Place, str]]]:
    """(drawn, those that could not be read with the reason), in the order of `chosen`."""
    figures: dict[str, _Figure] = {}
    unread: list[tuple[text.Place, str]] = []
    left_bytes = MAX_GALLERY_BYTES
    for done, (diff, picture) in enumerate(read_pictures(storage, chosen) if chosen else ()):
        where = text.place_of(diff.uri, diff.member)
        if isinstance(picture, str):
            unread.append((where, text.shown(picture)))
            continue
        marks = [_MARKS[kind] for kind in diff.kinds_K]
        shown = show(picture.rgb_HW3, diff.boxes_K5, left_bytes // (len(chosen) - done), marks)
        left_bytes = max(0, left_bytes - shown.size_bytes)
        figures[diff.image_id] = _Figure(diff, where, shown)
    return [figures[diff.image_id] for diff in chosen if diff.image_id in figures], unread
