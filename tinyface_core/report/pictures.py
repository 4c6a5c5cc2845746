"""Reads again the few pictures that the report shows, from where they lay when the run saw them.

A picture is asked for in the version that the tables name, so that boxes never lie on another picture. Whatever
prevents it is a reason to print, never an exception. Knows archives and decoding; knows no page.
"""

from __future__ import annotations

import glob
import time
from collections.abc import Iterator, Sequence
from typing import Protocol, TypeVar

from tinyface_core.archive.candidates import CandidateFilter, kind_of
from tinyface_core.archive.read import read_unit
from tinyface_core.archive.record import Kind, Record, Source
from tinyface_core.archive.units import whole_unit
from tinyface_core.errors import PictureError, TinyfaceError
from tinyface_core.picture.guard import DecodePool
from tinyface_core.picture.picture import Limits, Picture
from tinyface_core.storage import ObjectError, Storage

MAX_SEARCH_BYTES = 1 << 30  # of an archive that must be read from its start; a zip has a directory
PATIENCE_S = 60.0  # no archive or picture is begun after this; a report must not take longer than it is worth


class Placed(Protocol):
    """A picture by where it lies, as the images table has it."""

    @property
    def image_id(self) -> str: ...
    @property
    def uri(self) -> str: ...
    @property
    def member(self) -> str | None: ...
    @property
    def source_version(self) -> str | None: ...


P = TypeVar("P", bound=Placed)


def read_pictures(
    storage: Storage, pictures: Sequence[P], limits: Limits = Limits(), patience_s: float = PATIENCE_S
) -> Iterator[tuple[P, Picture | str]]:
    """Each picture once, decoded, or one sentence that says why not; in no special order, one at a time.

    Decoding runs in a child process under `limits`, as it did in the job: it costs no more than that child.
    """
    unread: list[tuple[P, str]] = []

    def readable() -> Iterator[tuple[P, bytes]]:
        for facts, outcome in _encoded(storage, pictures, patience_s):
            if isinstance(outcome, bytes):
                yield facts, outcome
            else:
                unread.append((facts, outcome))

    with DecodePool(min(1, len(pictures)), limits, 1) as pool:
        for facts, picture in pool.decode_ahead(readable()):
            yield facts, picture.message if isinstance(picture, PictureError) else picture
    yield from unread


def _encoded(storage: Storage, pictures: Sequence[P], patience_s: float) -> Iterator[tuple[P, bytes | str]]:
    """Object by object, so that an archive that holds several of the pictures is read once."""
    deadline = time.monotonic() + patience_s
    by_object: dict[tuple[str, str | None], dict[str, P]] = {}
    for facts in pictures:
        by_object.setdefault((facts.uri, facts.source_version), {})[facts.image_id] = facts
    for (uri, version), missing in by_object.items():
        reason = "it is not there any more"
        try:
            if time.monotonic() > deadline:
                raise _NotTried(f"reading the others took over {patience_s:.0f} s")
            for record in _records(storage, uri, version, [facts.member for facts in missing.values()]):
                if record.image_id in missing:
                    yield missing.pop(record.image_id), _bytes_or_reason(record)
                elif record.error is not None:  # the archive broke: this row has no member
                    reason = record.error.message
                if not missing:
                    break
        except (TinyfaceError, ObjectError, _NotTried) as error:
            reason = str(error)
        yield from ((facts, reason) for facts in missing.values())


def _records(storage: Storage, uri: str, version: str | None, members: Sequence[str | None]) -> Iterator[Record]:
    """The loose picture, or the members of these names; a name may stand in an archive more than once."""
    names = [member for member in members if member is not None]
    kind = kind_of(uri) if names else Kind.PICTURE
    info = storage.stat(uri)
    if info is not None and kind not in (Kind.PICTURE, Kind.ZIP) and info.size_bytes > MAX_SEARCH_BYTES:
        raise _NotTried(f"the archive of {info.size_bytes / 1e9:.1f} GB would have to be read from its start")
    source = Source(uri, kind, None if info is None else info.size_bytes, version)
    wanted = CandidateFilter(all_files=True, include=tuple(glob.escape(name) for name in names))
    return (record for record in read_unit(whole_unit(source), storage, wanted) if isinstance(record, Record))


def _bytes_or_reason(record: Record) -> bytes | str:
    if record.data is not None:
        return record.data
    return record.error.message if record.error else "it is empty"


class _NotTried(Exception):
    """Reading would cost more than a report is worth; the message says what."""
