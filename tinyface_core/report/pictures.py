"""Reads again the pictures that somebody looks at, from where they lay when the run saw them.

A picture is shown only if its bytes are those that were examined (their SHA-256 is in the images table): boxes never
lie on another picture, and one that was only copied or touched since is as good. Where no hash is known, the version of
the object decides. Whatever prevents it is a reason to tell, never an exception. Knows archives and decoding; knows no
page.
"""

from __future__ import annotations

import math
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol, TypeVar

from tinyface_core.archive.candidates import CandidateFilter, kind_of
from tinyface_core.archive.read import read_unit
from tinyface_core.archive.record import Kind, Record, Source, Unit
from tinyface_core.archive.units import whole_unit
from tinyface_core.errors import PictureError, TinyfaceError
from tinyface_core.picture.guard import DecodePool
from tinyface_core.picture.picture import Limits, Picture
from tinyface_core.storage import ObjectError, Storage

_OTHER_BYTES = "it has changed since: these are not the bytes in which faces were sought"


class Asked(Protocol):
    """A picture as the images table has it. sha256, source_version: None where the table does not tell."""

    @property
    def image_id(self) -> str: ...
    @property
    def uri(self) -> str: ...
    @property
    def member(self) -> str | None: ...
    @property
    def source_version(self) -> str | None: ...
    @property
    def sha256(self) -> str | None: ...


P = TypeVar("P", bound=Asked)


@dataclass(frozen=True)
class Patience:
    """seconds: nothing is begun after them. search_bytes: of an archive without a directory (not a zip)."""

    seconds: float = 60.0  # a report must not take longer than it is worth
    search_bytes: float = 1 << 30


ENDLESS = Patience(math.inf, math.inf)


def read_pictures(
    storage: Storage,
    pictures: Sequence[P],
    limits: Limits = Limits(),
    patience: Patience = Patience(),
    *,
    children: int = 1,
) -> Iterator[tuple[P, Picture | str]]:
    """Each picture once, decoded, or one sentence that says why not; in no special order, one at a time.

    Decoding runs ahead in `children` processes under `limits`, as it did in the job: a picture costs no more than one.
    """
    unread: list[tuple[P, str]] = []

    def readable() -> Iterator[tuple[P, bytes]]:
        for asked, outcome in _encoded(storage, pictures, patience):
            if isinstance(outcome, bytes):
                yield asked, outcome
            else:
                unread.append((asked, outcome))

    with DecodePool(min(children, len(pictures)), limits, children) as pool:
        for asked, picture in pool.decode_ahead(readable()):
            yield asked, picture.message if isinstance(picture, PictureError) else picture
            yield from unread
            unread.clear()
    yield from unread


def _encoded(storage: Storage, pictures: Sequence[P], patience: Patience) -> Iterator[tuple[P, bytes | str]]:
    """Archive by archive, so that one that holds several of them is read once; loose ones of a store together."""
    deadline = time.monotonic() + patience.seconds
    by_object: dict[tuple[str, str | None], dict[str, P]] = {}
    for asked in pictures:
        by_object.setdefault(_object_of(asked), {})[asked.image_id] = asked
    for missing in by_object.values():
        reason = "it is not there any more"
        try:
            for record in _in_time(_records(storage, list(missing.values()), patience), deadline, patience):
                if record.image_id in missing:
                    asked = missing.pop(record.image_id)
                    yield asked, _bytes_or_reason(record, asked.sha256)
                elif record.error is not None:  # the archive broke: this row has no member
                    reason = record.error.message
                if not missing:
                    break
        except (TinyfaceError, ObjectError, _NotTried) as error:
            reason = str(error)
        yield from ((asked, reason) for asked in missing.values())


def _object_of(asked: Asked) -> tuple[str, str | None]:
    """An archive, at its version; the bucket or server of a loose picture."""
    if asked.member is not None:
        return asked.uri, _version(asked)
    return "/".join(asked.uri.split("/", 3)[:3]), None


def _in_time(records: Iterator[Record], deadline: float, patience: Patience) -> Iterator[Record]:
    while True:
        if time.monotonic() > deadline:
            raise _NotTried(f"reading the others took over {patience.seconds:.0f} s")
        if (record := next(records, None)) is None:
            return
        yield record


def _records(storage: Storage, asked: Sequence[Asked], patience: Patience) -> Iterator[Record]:
    """Of loose pictures, or of members of one archive; a name may stand in that more than once."""
    uri = asked[0].uri
    if asked[0].member is None:
        unit = Unit(tuple(Source(each.uri, Kind.PICTURE, None, _version(each)) for each in asked))
    else:
        kind, info = kind_of(uri), storage.stat(uri)
        if info is not None and kind not in (Kind.PICTURE, Kind.ZIP) and info.size_bytes > patience.search_bytes:
            raise _NotTried(f"the archive of {info.size_bytes / 1e9:.1f} GB would have to be read from its start")
        size_bytes, now = (None, None) if info is None else (info.size_bytes, info.version)
        unit = whole_unit(Source(uri, kind, size_bytes, _version(asked[0]) or now))
    wanted = _These(names=frozenset(each.member for each in asked if each.member is not None))
    return (record for record in read_unit(unit, storage, wanted) if isinstance(record, Record))


def _version(asked: Asked) -> str | None:
    """The one that the object must have; None where the hash of what is read decides."""
    return asked.source_version if asked.sha256 is None else None


@dataclass(frozen=True)
class _These(CandidateFilter):
    """Members of these names, as the tables show them; the others are not even read where the archive allows that."""

    names: frozenset[str] = frozenset()

    def member_skipped_as(self, name: str) -> str | None:
        return None if name in self.names else "not asked for"

    row_skipped_as = member_skipped_as


def _bytes_or_reason(record: Record, sha256: str | None) -> bytes | str:
    if record.data is None:
        return record.error.message if record.error else "it is empty"
    return record.data if sha256 in (None, record.sha256) else _OTHER_BYTES


class _NotTried(Exception):
    """Reading would cost more than it is worth; the message says what."""
