"""Reads the pictures of a committed unit again, each with the faces that were found in it, or why it gets no copy.

A picture gets a copy only if it was examined, and only of the very bytes that were examined (their SHA-256 is in the
images table): what nobody looked at must not leave with its faces. One that was only copied or touched since is as
good. Knows archives and the two tables; no pixels.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.read import read_unit
from tinyface_core.archive.record import CHANGED as CHANGED_MESSAGE
from tinyface_core.archive.record import Record, Source, Unit, image_id_of
from tinyface_core.errors import ErrorClass, PictureError
from tinyface_core.redact.faces import Faces
from tinyface_core.redact.results import CHANGED, NOT_EXAMINED
from tinyface_core.storage import ObjectError, Storage
from tinyface_core.tables.footer import CommitRecord
from tinyface_core.tables.redo import committed_tables
from tinyface_core.tables.unit_files import in_threads

_GONE = (ErrorClass.UNREADABLE.value, "it is not where it was when its faces were found")
_ANOTHER_ARCHIVE = (CHANGED, "its archive is another one now, and does not hold it any more: detect again first")


@dataclass(frozen=True)
class Examined:
    """One picture of the images table. index: its row in its unit's file. size_hw: upright; None where unknown.

    Exactly one of data (encoded bytes, those that were examined) and error (class, sentence) is set, once it was read.
    """

    index: int
    image_id: str
    uri: str
    member: str | None
    sha256: str | None
    size_hw: tuple[int, int] | None
    faces: Faces
    data: bytes | None = None
    error: tuple[str, str] | None = None

    def refused(self, error_class: str, message: str) -> Examined:
        return replace(self, error=(error_class, message))


def examined(storage: Storage, record: CommitRecord, min_score: float | None) -> dict[str, Examined]:
    """image_id -> picture, of all of a unit, in the order of their rows; those with an error row have their error.

    Raises: StopRun, StorageError: the tables cannot be read as they were committed.
    """
    images, detections = committed_tables(storage, record)
    starts, rows = _rows_by_picture(images, detections)
    pictures = {}
    for index, row in enumerate(images.select(_COLUMNS).to_pylist()):
        faces = Faces.from_rows(rows.slice(starts[index], starts[index + 1] - starts[index]), min_score)
        pictures[row["image_id"]] = _examined(index, row, faces)
    return pictures


_COLUMNS = ["image_id", "uri", "member", "sha256", "width", "height", "status", "error_class", "error_message"]


def _examined(index: int, row: Mapping[str, Any], faces: Faces) -> Examined:
    size_hw = None if row["width"] is None else (row["height"], row["width"])
    picture = Examined(index, row["image_id"], row["uri"], row["member"], row["sha256"], size_hw, faces)
    if row["status"] != "ok":
        return picture.refused(NOT_EXAMINED, f"{row['error_class']}: {row['error_message']}")
    return picture


def _rows_by_picture(images: pa.Table, detections: pa.Table) -> tuple[list[int], pa.Table]:
    """detections in the order of images; where each picture's begin, and their end."""
    ids = images["image_id"].combine_chunks()
    picture_K = pc.index_in(detections["image_id"], value_set=ids).to_numpy()
    order_K = np.argsort(picture_K, kind="stable")
    starts = np.searchsorted(picture_K[order_K], np.arange(len(images) + 1))
    return starts.tolist(), detections.take(pa.array(order_K)).combine_chunks()


def read_again(
    unit: Unit, pictures: Mapping[str, Examined], storage: Storage, only: AbstractSet[int] | None = None
) -> Iterator[Examined]:
    """Each of `pictures` (those at the indexes `only`, where given) once, with its bytes or its error.

    Raises: StorageError: the store cannot be reached, or refuses the credentials.
    """
    wanted = {name: each for name, each in pictures.items() if only is None or each.index in only}
    for name in [name for name, each in wanted.items() if each.error is not None]:
        yield wanted.pop(name)
    if not wanted:
        return
    if unit.is_loose:
        unit = Unit(tuple(source for source in unit.present if image_id_of(source.uri) in wanted))
    why = _GONE
    for versions in ("planned", "present"):
        has_others = False
        # Whatever filter was asked for then: what has a row was a candidate, and what has none is passed over here.
        for record in read_unit(unit, storage, CandidateFilter(all_files=True)):
            if not isinstance(record, Record):
                continue
            if versions == "planned" and _is_of_another_version(record):
                has_others = True
            elif (picture := wanted.pop(record.image_id, None)) is not None:
                yield _with_bytes(picture, record)
            elif record.member is None and record.error is not None:  # the archive broke: what follows is lost
                why = _told(record) if versions == "planned" else _why_not_any_more(record.error)
            if not wanted:
                return
        if not has_others:
            break
        unit, why = _as_it_is_now(unit, wanted, storage), _ANOTHER_ARCHIVE
    yield from (picture.refused(*why) for picture in wanted.values())


def _as_it_is_now(unit: Unit, wanted: Mapping[str, Examined], storage: Storage) -> Unit:
    """Those objects that may still hold what is wanted, at the versions that they have now: its hash will tell."""
    sources = [source for source in unit.sources if not unit.is_loose or image_id_of(source.uri) in wanted]

    def now(source: Source) -> Source:
        try:
            found = storage.stat(source.uri)
        except ObjectError:
            return source  # reading it tells why
        if found is None or (unit.is_loose and source.size_bytes not in (None, found.size_bytes)):
            return source
        return replace(source, version=found.version, size_bytes=found.size_bytes)

    return replace(unit, sources=tuple(in_threads(now, sources)))


def _why_not_any_more(error: PictureError) -> tuple[str, str]:
    """Of members of an archive that is another one now; broken or not, it does not hold them where they were."""
    if error.error_class is ErrorClass.UNREADABLE:
        return error.error_class.value, error.message
    return _ANOTHER_ARCHIVE


def _with_bytes(picture: Examined, record: Record) -> Examined:
    if record.data is None:
        return picture.refused(*_told(record))
    if record.sha256 != picture.sha256:
        return picture.refused(CHANGED, "these are not the bytes in which faces were sought: detect again first")
    return replace(picture, data=record.data)


def _is_of_another_version(record: Record) -> bool:
    return record.error is not None and record.error.message.startswith(CHANGED_MESSAGE)


def _told(record: Record) -> tuple[str, str]:
    if record.error is None:
        return _GONE
    if _is_of_another_version(record):
        return CHANGED, record.error.message.removeprefix(CHANGED_MESSAGE)
    return record.error.error_class.value, record.error.message
