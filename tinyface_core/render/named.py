"""Which pictures are meant by name: patterns of --uri, and the lines of --list.

A pattern with a `/` is matched with the whole uri, for a member of an archive with `archive/member`; one without with
the last part. It may be a uri as it stands, or a folder, which ends in `/`. A line of a list is an image_id, or the uri
of a picture or of an archive. Knows names alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from functools import cached_property

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.errors import SettingsError
from tinyface_core.storage import Storage

_HEADERS = frozenset({"image_id", "uri"})


@dataclass(frozen=True)
class Named:
    """patterns: canonical where they have a `/`. listed: None where no list was given."""

    patterns: tuple[str, ...] = ()
    listed: frozenset[str] | None = None
    _plain: frozenset[str] = field(init=False)

    def __post_init__(self) -> None:
        object.__setattr__(self, "_plain", frozenset(self.patterns))
        for pattern in self.patterns:
            try:
                CandidateFilter(all_files=True, include=(pattern,)).member_skipped_as("x")
            except SettingsError as error:
                raise SettingsError(f"--uri {pattern}: is not a pattern: {error.__cause__}. Quote it?") from error

    @classmethod
    def of(cls, storage: Storage, patterns: Iterable[str], lines: Sequence[str] | None) -> Named:
        """From what a user gave. Raises: SettingsError, InputError."""
        listed = None if lines is None else frozenset(_entries(storage, lines))
        return cls(tuple(_canonical(storage, pattern) for pattern in patterns), listed)

    def holds(self, images: pa.Table) -> NDArray[np.bool_]:
        """(P,): which rows (with image_id, uri, member) are meant by the patterns and by the list."""
        kept_P = np.ones(images.num_rows, np.bool_)
        if self.listed is not None:
            values = pa.array(sorted(self.listed), pa.string())
            kept_P &= pc.or_(
                pc.is_in(images["image_id"], value_set=values), pc.is_in(images["uri"], value_set=values)
            ).to_numpy()
        if self.patterns:
            rows = np.flatnonzero(kept_P)
            places = images.select(["uri", "member"]).take(rows)
            uris, members = places["uri"].to_pylist(), places["member"].to_pylist()
            kept_P[rows] = [self._matches(uri, member) for uri, member in zip(uris, members, strict=True)]
        return kept_P

    def present(self, images: pa.Table) -> set[str]:
        """The lines of the list that these rows answer."""
        if not self.listed:
            return set()
        values = pa.array(sorted(self.listed), pa.string())
        found = (images[name].filter(pc.is_in(images[name], value_set=values)) for name in ("image_id", "uri"))
        return {value for column in found for value in pc.unique(column).to_pylist()}

    def _matches(self, uri: str, member: str | None) -> bool:
        name = uri if member is None else f"{uri}/{member}"
        if not self._plain.isdisjoint((name, uri, name.rpartition("/")[2])) or (
            self._folders and name.startswith(self._folders)
        ):
            return True
        return self._globs.member_skipped_as(name) is None

    @cached_property
    def _folders(self) -> tuple[str, ...]:
        return tuple(pattern for pattern in self.patterns if pattern.endswith("/"))

    @cached_property
    def _globs(self) -> CandidateFilter:
        return CandidateFilter(all_files=True, include=self.patterns)


def _canonical(storage: Storage, pattern: str) -> str:
    """A local path becomes its uri; `**/x.jpg` and `x.jpg` stay as they are."""
    if not pattern.strip():
        raise SettingsError("--uri: is empty. An unset variable?")
    if "/" not in pattern or pattern.startswith("*"):
        return pattern
    return storage.canonical(pattern).rstrip("/") + ("/" if pattern.endswith("/") else "")


def _entries(storage: Storage, lines: Sequence[str]) -> Iterable[str]:
    """What a CSV of one column holds: quotes and a header are left out, and so are empty lines."""
    for line in lines:
        text = line.strip().removeprefix("\ufeff")
        if len(text) > 1 and text.startswith('"') and text.endswith('"'):
            text = text[1:-1].replace('""', '"')
        if text and text not in _HEADERS:
            yield text if len(text) == 32 and not set(text) - set("0123456789abcdef") else storage.canonical(text)
