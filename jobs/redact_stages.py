"""The stages of the redaction job as Ray Data calls them: callables around the core, and nothing else.

No exception and no crash may leave them for one picture's sake. What concerns one picture is a value in its row; what
must end the run is a row of kind "stop". Copies are written here, beside where they are made; rows go to the driver.
"""

from __future__ import annotations

import time
from collections.abc import Iterator
from dataclasses import dataclass, field, replace
from typing import Any

import cv2
import pyarrow as pa

from ray_metrics import StageSeconds
from ray_stages import BLOCK_BYTES, begin_stage, unpacked, work_item
from tinyface_core.archive.record import Unit
from tinyface_core.errors import StopRun, StorageError
from tinyface_core.logs import Logs, about, current
from tinyface_core.picture.guard import DecodePool
from tinyface_core.picture.picture import Limits
from tinyface_core.redact.copies import Copy, copy_of, row_of, write_copy
from tinyface_core.redact.faces import Faces, Redaction
from tinyface_core.redact.pictures import Examined, examined, read_again
from tinyface_core.redact.results import ROW_SCHEMA, end_row, rows_table, stop_row
from tinyface_core.storage import ObjectError, Storage
from tinyface_core.tables.footer import CommitRecord
from tinyface_core.tables.unit_tables import UnitTotals

CLAIM_LOOKS_S = 1.0  # how often at most a worker asks whether its driver still holds the destination
_TRAVELLING = [
    pa.field("data", pa.large_binary()),
    pa.field("faces", pa.large_binary()),
    pa.field("height", pa.int32()),
    pa.field("width", pa.int32()),
]
ASKED_SCHEMA = pa.schema([*ROW_SCHEMA, *_TRAVELLING])
_OF_PICTURE = ("index", "image_id", "uri", "member", "sha256")


@dataclass(frozen=True)
class Redacting:
    """What the stages need to know. to_uri, claim_uri: of the copies."""

    storage: Storage
    to_uri: str
    claim_uri: str
    redaction: Redaction
    limits: Limits
    decoders: int = 1
    block_bytes: int = BLOCK_BYTES
    logs: Logs = field(default_factory=current)


def item_of(unit: Unit, record: CommitRecord, only: frozenset[int] | None = None) -> dict[str, bytes | str]:
    """One item of work: a committed unit, or some of its pictures (`only`: their rows in its images file)."""
    return work_item(unit, (), only) | {"uri": record.uri, "commit": record.commit}


def read_pictures(work: pa.Table, redacting: Redacting) -> Iterator[pa.Table]:
    """Items of work -> pictures with their faces, in tables of about block_bytes; each unit ends with its marker."""
    seconds = begin_stage(redacting.logs)
    for item in work.to_pylist():
        unit, only = unpacked(item["work"])
        record = CommitRecord(item["uri"], unit.name, item["commit"], "", "", "", UnitTotals())
        try:
            for table in _pictures_of(unit, only, record, redacting, seconds):
                seconds.tell()
                yield table
        except (StopRun, ObjectError) as error:
            told = error.told() if isinstance(error, StorageError) else str(error)
            yield _asked_table([stop_row(unit.name, told)])


def _pictures_of(
    unit: Unit, only: frozenset[int] | None, record: CommitRecord, redacting: Redacting, seconds: StageSeconds
) -> Iterator[pa.Table]:
    storage, name = redacting.storage, unit.name
    pictures = examined(storage, record, redacting.redaction.min_score)
    held: list[dict[str, Any]] = []
    held_bytes = 0
    for picture in seconds.timed("read", read_again(unit, pictures, storage, only)):
        held.append(_asked_row(name, record.commit, picture))
        held_bytes += len(picture.data or b"") + 1
        if held_bytes >= redacting.block_bytes:
            yield _asked_table(held)
            held, held_bytes = [], 0
    yield _asked_table([*held, end_row(name, len(pictures))])


def _asked_row(unit: str, commit: str, picture: Examined) -> dict[str, Any]:
    if picture.error is not None:
        return row_of(unit, commit, picture, picture.error)
    height, width = picture.size_hw or (None, None)
    asked = {"unit": unit, "kind": "record", "commit": commit, "faces": picture.faces.packed(), "data": picture.data}
    return asked | {name: getattr(picture, name) for name in _OF_PICTURE} | {"height": height, "width": width}


def _asked_table(rows: list[dict[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(rows, schema=ASKED_SCHEMA)


class RedactPictures:
    """The actor: decodes ahead in children, hides faces, writes copies. Pictures -> rows."""

    def __init__(self, redacting: Redacting) -> None:
        cv2.setNumThreads(1)
        self.seconds = begin_stage(redacting.logs)
        self.redacting = redacting
        self.decoders = DecodePool(redacting.decoders, redacting.limits).__enter__()
        self.looked_s = -CLAIM_LOOKS_S

    def __call__(self, asked: pa.Table) -> pa.Table:
        rows = asked.drop_columns(["data"]).to_pylist()
        waiting = [number for number, valid in enumerate(asked["data"].is_valid().to_pylist()) if valid]
        encoded = ((number, asked["data"][number].as_py()) for number in waiting)
        decoded_s = self.decoders.decode_s
        try:
            for number, picture in self.decoders.decode_ahead(encoded):
                row, wanted = rows[number], _picture_of(rows[number])
                began = time.perf_counter()
                with about(unit=row["unit"], index=row["index"]):
                    outcome = copy_of(wanted, picture, self.redacting.redaction)
                    if isinstance(outcome, Copy):
                        self._write(outcome)
                self.seconds.add("redact", time.perf_counter() - began)
                rows[number] = row_of(row["unit"], row["commit"], wanted, outcome)
        except StopRun as error:
            return rows_table([stop_row(rows[0]["unit"], str(error))])
        self.seconds.add("decode", self.decoders.decode_s - decoded_s)
        self.seconds.tell()
        return rows_table([{name: row.get(name) for name in ROW_SCHEMA.names} for row in rows])

    def _write(self, copy: Copy) -> None:
        """Not once the driver is gone: another one may be at work, on other detections. Raises StopRun."""
        redacting = self.redacting
        if time.monotonic() - self.looked_s > CLAIM_LOOKS_S:
            if redacting.storage.stat(redacting.claim_uri) is None:
                raise StopRun(
                    f"--output {redacting.to_uri}: the claim of this run on it is gone: no more copies are written."
                )
            self.looked_s = time.monotonic()
        write_copy(redacting.storage, redacting.to_uri, copy)


def _picture_of(row: dict[str, Any]) -> Examined:
    size_hw = None if row["height"] is None else (row["height"], row["width"])
    return Examined(**{name: row[name] for name in _OF_PICTURE}, size_hw=size_hw, faces=Faces.unpacked(row["faces"]))


def one_a_block(redacting: Redacting) -> Redacting:
    """For what took a worker down: it then takes no neighbour along."""
    return replace(redacting, block_bytes=1)
