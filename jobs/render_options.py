"""The options of jobs/render.py: which pictures, and how they are drawn."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated

from cyclopts import Group, Parameter

from options import Texts, many
from tinyface_core.errors import InputError, SettingsError, StorageError
from tinyface_core.render.choose import Wanted
from tinyface_core.render.drawn import Style
from tinyface_core.render.named import Named
from tinyface_core.storage import ObjectError, Storage

_WHICH, _HOW = Group("Which pictures", sort_key=1), Group("How they are drawn", sort_key=2)
MOST_CUTS = 64
LEAST_PX, MOST_PX = 64, 16_000


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class WhichFlags:
    """A picture must pass all of these; --most-crowded, --sample or --limit then says how many are taken."""

    errors: Annotated[bool, Parameter(group=_WHICH, negative=())] = False
    "Only pictures with an error row."
    tiny: Annotated[float | None, Parameter(group=_WHICH)] = None
    "Only pictures with a face under this height, in pixels."
    uri: Annotated[Texts, many(_WHICH)] = ()
    "Only what has this name: a uri, a folder with its last /, or a pattern; may be repeated."
    listed: Annotated[str | None, Parameter(name="--list", group=_WHICH)] = None
    "Only what this file names: a line each, image_ids or uris, as a query writes them."
    min_score: Annotated[float | None, Parameter(group=_WHICH)] = None
    "Faces of a lower score are not drawn, and do not count."
    most_crowded: Annotated[int | None, Parameter(group=_WHICH)] = None
    "Take so many: those with the most faces."
    sample: Annotated[int | None, Parameter(group=_WHICH)] = None
    "Take so many, by chance."
    seed: Annotated[int, Parameter(group=_WHICH)] = 0
    "The same seed takes the same pictures."
    limit: Annotated[int | None, Parameter(group=_WHICH)] = None
    "Take so many: the first by name."

    def wanted(self, store: Storage) -> Wanted:
        """Raises: SettingsError, InputError."""
        if self.listed is not None and not self.listed.strip():
            raise SettingsError("--list: is empty. An unset variable?")
        lines = None if self.listed is None else _lines(store, self.listed)
        return Wanted(
            Named.of(store, self.uri, lines),
            self.errors,
            self.tiny,
            self.min_score,
            self.most_crowded,
            self.sample,
            self.seed,
            self.limit,
        )


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class HowFlags:
    """How pictures are drawn."""

    ellipses: Annotated[bool, Parameter(group=_HOW, negative=())] = False
    "Draw ellipses instead of boxes."
    cuts: Annotated[int, Parameter(group=_HOW)] = 8
    "So many of a picture's faces under 20 px are cut out and shown enlarged, the smallest first."
    longest: Annotated[int | None, Parameter(group=_HOW)] = None
    "Pictures are made smaller until no side has more pixels; default: 1600 in a page, else as they are, to 16,000."

    def style(self) -> Style:
        """Raises: SettingsError."""
        if self.longest is not None and not LEAST_PX <= self.longest <= MOST_PX:
            raise SettingsError(f"--longest {self.longest}: needs a number of pixels from {LEAST_PX} to {MOST_PX:,}.")
        if not 0 <= self.cuts <= MOST_CUTS:
            raise SettingsError(f"--cuts {self.cuts}: needs a number from 0 to {MOST_CUTS}.")
        return Style(self.ellipses, self.longest, self.cuts)


def _lines(store: Storage, place: str) -> list[str]:
    """Raises: InputError."""
    try:
        return store.read(store.canonical(place)).decode("utf-8").splitlines()
    except (ObjectError, StorageError) as error:
        raise InputError(f"--list {place}: cannot be read: {error}.") from error
    except UnicodeDecodeError as error:
        raise InputError(f"--list {place}: is not text in UTF-8. Write image_ids or uris, a line each.") from error
