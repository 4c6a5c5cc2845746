"""The values that the archive package deals in: sources, units of work, and the records read from them.

A source is one object of the input (a picture, a tar, a zip, a Parquet file). A unit is a run of
neighbouring pictures that are worked, committed and redone together. A record is one candidate's encoded
bytes, or why they could not be read. Nothing here opens a file.
"""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, field
from datetime import datetime
from enum import StrEnum
from functools import cached_property
from typing import Any

from tinyface_core.errors import PictureError

# How the message of a 403 begins: one such object is an error row, but where nothing can be read the run must stop.
DENIED = "permission denied: "
# How that of an object begins which is another one than was planned: the run plans it again.
CHANGED = "changed meanwhile: "


class Kind(StrEnum):
    """What a source is, decided by its name (and, for Parquet, by its schema).

    GONE: a loose picture that was taken out of a planned unit, where it keeps its place: the unit keeps its name.
    """

    PICTURE = "picture"
    TAR = "tar"
    TAR_GZ = "tar.gz"
    ZIP = "zip"
    PARQUET = "parquet"
    GONE = "gone"


@dataclass(frozen=True)
class Source:
    """One object of the input, at the version that the listing saw.

    uri: absolute, not percent-encoded (`s3://bucket/key`, `file:///path`).
    version: ETag, else `<mtime ns>-<size>`; None where the store tells neither.
    modified: of the object, timezone UTC.
    carried: values of the `--carry` columns that a manifest names for this source.
    signed_url: what to ask the store for where that is not the uri. No plan and no table ever holds it.
    """

    uri: str
    kind: Kind
    size_bytes: int | None = None
    version: str | None = None
    modified: datetime | None = None
    carried: dict[str, Any] = field(default_factory=dict)
    signed_url: str = field(default="", repr=False, compare=False)

    @property
    def url(self) -> str:
        """What to ask the store for."""
        return self.signed_url or self.uri


@dataclass(frozen=True)
class Part:
    """Some records of a unit, by index: `indexes`, and all from `onward` on (None: no others)."""

    indexes: frozenset[int] = frozenset()
    onward: int | None = None

    def __contains__(self, index: int) -> bool:
        return index in self.indexes or (self.onward is not None and index >= self.onward)

    @property
    def least(self) -> int:
        """How many records it has at least."""
        return len(self.indexes) if self.onward is None else sum(i < self.onward for i in self.indexes) + 1

    def first(self, count: int) -> list[int]:
        """The lowest indexes of this part, ascending; fewer where it has no more."""
        below = sorted(index for index in self.indexes if self.onward is None or index < self.onward)[:count]
        return below if self.onward is None else [*below, *range(self.onward, self.onward + count - len(below))]


@dataclass(frozen=True)
class Unit:
    """Pictures that are worked and committed together.

    Loose pictures: `sources` are the pictures in order, start and stop are None. An archive: one source, and
    members start <= i < stop in the archive's own order (stop None: to its end); for Parquet, i counts rows.
    byte_offset: where the range begins in a split tar, or in the directory of a split zip; 0 where that is unknown.
    occurrences: member index -> occurrence, for members of a split archive whose name stood earlier in it.
    part: the only records that are wanted of an archive's unit; they are numbered by themselves. A plan knows none.
    """

    sources: tuple[Source, ...]
    start: int | None = None
    stop: int | None = None
    byte_offset: int = 0
    occurrences: dict[int, int] = field(default_factory=dict)
    part: Part | None = None

    @property
    def is_loose(self) -> bool:
        """Whether it is loose pictures, and not (a range of) an archive."""
        return self.start is None

    @cached_property
    def present(self) -> tuple[Source, ...]:
        """The sources that give records: all but those that are gone."""
        return tuple(source for source in self.sources if source.kind is not Kind.GONE)

    @property
    def name(self) -> str:
        """Hex of blake2b-128 over the ordered (uri, member range) and the part; versions are left out on purpose."""
        digest = hashlib.blake2b(digest_size=16)
        for source in self.sources:
            digest.update(source.uri.encode("utf-8", "surrogateescape") + b"\0")
        if self.start is not None:
            digest.update(f"{self.start}:{'' if self.stop is None else self.stop}".encode())
        if self.part is not None:
            digest.update(f"\0{sorted(self.part.indexes)}{self.part.onward}".encode())
        return digest.hexdigest()


@dataclass(frozen=True)
class Record:
    """One candidate: its encoded bytes, or why they could not be read (exactly one of data and error is set).

    index: place in its unit, 0-based, without gaps. member: None for a loose object, and for the error row of
    an archive that breaks. source_version and source_modified are those of the object that holds it.
    """

    index: int
    uri: str
    member: str | None
    image_id: str
    data: bytes | None
    size_bytes: int | None = None
    sha256: str | None = None
    source_version: str | None = None
    source_modified: datetime | None = None
    carried: dict[str, Any] = field(default_factory=dict)
    error: PictureError | None = None


@dataclass(frozen=True)
class UnitEnd:
    """The last value that reading a unit gives: how many records came, and what was skipped, by extension."""

    count: int
    skipped: dict[str, int] = field(default_factory=dict)


def image_id_of(uri: str, member: bytes | None = None, occurrence: int = 0) -> str:
    """Hex of blake2b-128 over uri, NUL, raw member bytes, NUL, occurrence: the same on every run and cluster.

    occurrence counts equal names inside one archive, from 0.
    """
    digest = hashlib.blake2b(digest_size=16)
    digest.update(uri.encode("utf-8", "surrogateescape") + b"\0")
    digest.update((member or b"") + b"\0" + str(occurrence).encode())
    return digest.hexdigest()
