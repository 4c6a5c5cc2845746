"""What the readers of archives share: limits, numbering of records, names of members, and how an archive breaks.

Knows records and errors; opens nothing.
"""

from __future__ import annotations

import hashlib
from collections import Counter
from collections.abc import Mapping, Set
from dataclasses import dataclass, field
from typing import Any

from tinyface_core.archive.candidates import kind_of
from tinyface_core.archive.record import Kind, Part, Record, Source, UnitEnd, image_id_of
from tinyface_core.errors import ErrorClass, PictureError, Stage

# What a hostile or broken archive may cost. Real ones stay far below.
MAX_PICTURE_BYTES = 1 << 30  # encoded, of one picture; also what a size in a header may make us allocate
MAX_MEMBERS = 2_000_000  # of one archive; each costs about 100 bytes of memory in a reader
MAX_RATIO = 200  # unpacked : packed, where more than RATIO_FROM_BYTES comes out
RATIO_FROM_BYTES = 1 << 30


class ArchiveBroken(Exception):
    """The archive cannot be read on: its rows so far stand, and one error row says why. Caught in read.py."""

    def __init__(self, error_class: ErrorClass, message: str) -> None:
        super().__init__(message)
        self.error = PictureError(Stage.ARCHIVE, error_class, message)


@dataclass
class Numbering:
    """Numbers the records of one unit, 0-based and without gaps, and counts what is skipped.

    only: indexes that are wanted (None: all). The others are numbered, but need not be read.
    part: where only a part of the unit is numbered at all.
    """

    only: Set[int] | None = None
    part: Part | None = None
    count: int = 0
    _seen: int = 0
    skipped: Counter[str] = field(default_factory=Counter)

    def wants_next(self) -> bool:
        return self._is_numbered() and (self.only is None or self.count in self.only)

    def pass_over(self) -> None:
        """Number a candidate that is not wanted."""
        self.count += self._is_numbered()
        self._seen += 1

    def _is_numbered(self) -> bool:
        return self.part is None or self._seen in self.part

    def record(
        self,
        source: Source,
        name: tuple[bytes | None, int],
        outcome: bytes | PictureError,
        *,
        size_bytes: int | None = None,
        carried: Mapping[str, Any] | None = None,
    ) -> Record:
        """The next record. name: raw bytes of the member (None: no member) and its occurrence."""
        member, occurrence = name
        data = outcome if isinstance(outcome, bytes) else None
        record = Record(
            index=self.count,
            uri=source.uri,
            member=None if member is None else shown(member),
            image_id=image_id_of(source.uri, member, occurrence),
            data=data,
            size_bytes=size_bytes if data is None else len(data),
            sha256=None if data is None else hashlib.sha256(data).hexdigest(),
            source_version=source.version,
            source_modified=source.modified,
            carried={**source.carried, **(carried or {})},
            error=None if isinstance(outcome, bytes) else outcome,
        )
        self.pass_over()
        return record

    def end(self) -> UnitEnd:
        return UnitEnd(self.count, dict(self.skipped))


class Occurrences:
    """How often a name stood before in one archive. Keeps 8-byte hashes, as there may be millions of names.

    known: index in the archive -> occurrence, for a reader that starts in the middle.
    """

    def __init__(self, known: Mapping[int, int] | None = None) -> None:
        self._known = known or {}
        self._seen: set[bytes] = set()
        self._repeated: dict[bytes, int] = {}

    def of(self, name: bytes, index: int = -1) -> int:
        key = hashlib.blake2b(name, digest_size=8).digest()
        if key not in self._seen:
            self._seen.add(key)
            here = 0
        else:
            here = self._repeated.get(key, 0) + 1
        here = max(here, self._known.get(index, 0))
        if here:
            self._repeated[key] = here
        return here


def shown(name: bytes) -> str:
    """A member's name for tables: UTF-8, with bad bytes as `\\xNN`."""
    return name.decode("utf-8", "backslashreplace")


def refusal(name: str, size_bytes: int) -> PictureError | None:
    """Why a member is not even read, judged by its name and the size that the archive claims."""
    if (kind := kind_of(name)) is not Kind.PICTURE:
        return PictureError(
            Stage.ARCHIVE, ErrorClass.UNSUPPORTED, f"a {kind} inside an archive: unpack it and name it as an input"
        )
    if size_bytes > MAX_PICTURE_BYTES:
        return too_large(f"{size_bytes} bytes", f"{MAX_PICTURE_BYTES} bytes")
    return None


def too_large(found: str, allowed: str) -> PictureError:
    return PictureError(Stage.ARCHIVE, ErrorClass.TOO_LARGE, f"{found}, the limit is {allowed}")
