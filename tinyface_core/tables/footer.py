"""The files of an output, their names, and what their footers say: which units are committed, and as what.

A footer holds what a later run must know without opening the data. Knows files and their key-value metadata; does
not know how rows become tables, or who may write.
"""

from __future__ import annotations

import glob
import hashlib
import io
import json
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import islice
from typing import Any, BinaryIO, TypeVar

import pyarrow as pa
import pyarrow.parquet as pq

from tinyface_core.archive.record import Part
from tinyface_core.errors import StorageError
from tinyface_core.storage import ObjectChanged, ObjectDenied, ObjectInfo, ObjectMissing, Storage
from tinyface_core.tables.format_version import FORMAT_VERSION, check_format
from tinyface_core.tables.unit_tables import UnitTotals

THREADS = 32  # a footer is one small read: on an object store, waiting is all there is to it
_TAIL_BYTES = 16 << 10
_PREFIX = "tinyface."
_PARTITION = re.compile(r"(?:[a-z_][a-z0-9_]*=[^/]+/)?")  # as partition.py names folders
_IMAGES_NAME = re.compile(r"part-([0-9a-f]{32})\.parquet")
_DETECTIONS_NAME = re.compile(r"part-([0-9a-f]{32})-([0-9a-f]{32})\.parquet")
# What `Storage.write` leaves beside a local file when its process is killed.
_TEMPORARY_NAME = re.compile(r"\.part-([0-9a-f]{32})(?:-[0-9a-f]{32})?\.parquet\.[0-9a-f]{32}\.tmp")

T = TypeVar("T")


def images_uri(output_uri: str, unit: str, folder: str = "") -> str:
    """The unit's commit record. folder: `key=value/` of a partitioned output."""
    return f"{output_uri.rstrip('/')}/images/{folder}part-{unit}.parquet"


def detections_uri(output_uri: str, unit: str, commit: str, folder: str = "") -> str:
    return f"{output_uri.rstrip('/')}/detections/{folder}part-{unit}-{commit}.parquet"


def folder_of(output_uri: str, uri: str) -> str:
    """The `key=value/` that a file of a table lies in; empty where the output is not partitioned."""
    _, _, below = uri.removeprefix(f"{output_uri.rstrip('/')}/").partition("/")
    return below[: below.rfind("/") + 1]


def unit_of_images(uri: str) -> str | None:
    """The unit that an images file belongs to; None for a name that is not ours."""
    match = _IMAGES_NAME.fullmatch(uri.rpartition("/")[2])
    return match[1] if match else None


def unit_and_commit_of_detections(uri: str) -> tuple[str, str] | None:
    match = _DETECTIONS_NAME.fullmatch(uri.rpartition("/")[2])
    return (match[1], match[2]) if match else None


def unit_of_temporary(uri: str) -> str | None:
    match = _TEMPORARY_NAME.fullmatch(uri.rpartition("/")[2])
    return match[1] if match else None


def sql_glob(output_uri: str, table: str) -> str:
    """One table of an output as DuckDB's FROM takes it: quoted, and what looks like a pattern in the path escaped."""
    path = glob.escape(output_uri.removeprefix("file://").rstrip("/"))
    return "'" + f"{path}/{table}/**/*.parquet".replace("'", "''") + "'"


def is_part(name: str) -> bool:
    """Whether a name relative to the output, as `images/part-....parquet`, is one that `Committer` gives."""
    table, _, below = name.partition("/")
    pattern = {"images": _IMAGES_NAME, "detections": _DETECTIONS_NAME}.get(table)
    folder = _PARTITION.match(below)
    return pattern is not None and folder is not None and pattern.fullmatch(below, folder.end()) is not None


@dataclass(frozen=True, slots=True)
class Footer:
    """What is written into both files of a unit. Only the images footer has sources_hash, totals and failed.

    failed: which records of an archive's unit are error rows, by their index in the unit; None for loose pictures,
    whose rows tell.
    """

    unit: str
    commit: str
    settings_hash: str
    model_hash: str
    sources_hash: str | None = None
    totals: UnitTotals | None = None
    failed: Part | None = None
    format_version: int = FORMAT_VERSION

    def metadata(self) -> dict[str, str]:
        """As key-value metadata of a Parquet file; `parquet_kv_metadata` of DuckDB shows it."""
        plain = {
            "format_version": str(self.format_version),
            "unit": self.unit,
            "commit": self.commit,
            "settings_hash": self.settings_hash,
            "model_hash": self.model_hash,
        }
        if self.sources_hash is not None:
            plain["sources_hash"] = self.sources_hash
        if self.totals is not None:
            plain["pictures"] = str(self.totals.pictures)
            plain["faces"] = str(self.totals.faces)
            plain["errors"] = json.dumps(self.totals.errors, sort_keys=True)
            plain["skipped"] = json.dumps(self.totals.skipped, sort_keys=True)
        if self.failed is not None:
            plain["failed"] = json.dumps({"indexes": sorted(self.failed.indexes), "onward": self.failed.onward})
        plain["check"] = _check(plain)
        return {_PREFIX + key: value for key, value in plain.items()}

    @classmethod
    def from_metadata(cls, metadata: Mapping[bytes, bytes] | None) -> Footer | None:
        """None for a file that is not ours, or whose footer lacks something or is not what was written."""
        plain = {
            key.decode().removeprefix(_PREFIX): value.decode("utf-8", "replace")
            for key, value in (metadata or {}).items()
            if key.startswith(_PREFIX.encode())
        }
        if plain.pop("check", None) not in (None, _check(plain)):  # outputs of earlier versions have none
            return None
        try:
            totals = None
            if "pictures" in plain:
                totals = UnitTotals(
                    int(plain["pictures"]),
                    int(plain["faces"]),
                    json.loads(plain["errors"]),
                    json.loads(plain["skipped"]),
                )
            return cls(
                unit=plain["unit"],
                commit=plain["commit"],
                settings_hash=sys.intern(plain["settings_hash"]),
                model_hash=sys.intern(plain["model_hash"]),
                sources_hash=plain.get("sources_hash"),
                totals=totals,
                failed=_part(json.loads(plain["failed"])) if "failed" in plain else None,
                format_version=int(plain["format_version"]),
            )
        except (KeyError, ValueError):
            return None


def _part(value: dict[str, Any]) -> Part:
    return Part(frozenset(value["indexes"]), value["onward"])


@dataclass(frozen=True, slots=True)
class CommitRecord:
    """A unit that is committed: both its files are there."""

    uri: str
    unit: str
    commit: str
    settings_hash: str
    model_hash: str
    sources_hash: str
    totals: UnitTotals

    @property
    def detections_uri(self) -> str:
        """Beside the images file."""
        output_uri, _, below = self.uri.rpartition("/images/")
        return f"{output_uri}/detections/{below.removesuffix('.parquet')}-{self.commit}.parquet"

    def is_done(self, settings_hash: str, sources_hash: str) -> bool:
        """Both hashes are today's: nothing of this unit is to be worked again."""
        return self.settings_hash == settings_hash and self.sources_hash == sources_hash


def read_footer(storage: Storage, info: ObjectInfo) -> Footer | None:
    """The footer of one Parquet file, by a read of its tail; None when it is not ours or has gone meanwhile."""
    try:
        with denied_stops_the_run(), storage.open(info.uri) as file:
            size = file.seek(0, io.SEEK_END)
            tail = _tail(file, size, min(size, _TAIL_BYTES))
            needed = int.from_bytes(tail[-8:-4], "little") + 8
            if tail[-4:] != b"PAR1" or needed > size:
                return None
            if needed > len(tail):
                tail = _tail(file, size, needed)
    except (ObjectMissing, ObjectChanged):
        return None
    try:
        return Footer.from_metadata(pq.read_metadata(pa.BufferReader(tail)).metadata)
    except (pa.ArrowException, OSError):
        return None


def _check(plain: Mapping[str, str]) -> str:
    """A sum over a footer's values: Parquet has none there, and a store none for a range."""
    text = "\0".join(f"{key}={value}" for key, value in sorted(plain.items()))
    return hashlib.blake2b(text.encode(), digest_size=8).hexdigest()


@contextmanager
def denied_stops_the_run() -> Iterator[None]:
    """An input that may not be read is one error row; an output that may not be read is the end."""
    try:
        yield
    except ObjectDenied as error:
        raise StorageError(f"{error}: the output must be readable too: grant get and list on it") from error


def _tail(file: BinaryIO, size: int, wanted: int) -> bytes:
    file.seek(size - wanted)
    return file.read(wanted)


def committed(storage: Storage, output_uri: str) -> dict[str, CommitRecord]:
    """The units that are committed, by name: read from the footers of `images/` alone.

    A record whose detections file is missing is not in it, nor is a file that is not ours.
    Memory: a record a unit, and the names in `detections/`.

    Raises: FormatError; StorageError.
    """
    present = {info.uri.rpartition("/")[2] for info in list_files(storage, output_uri, "detections")}
    ours = (info for info in list_files(storage, output_uri, "images") if unit_of_images(info.uri))
    result = {}
    with ThreadPoolExecutor(THREADS) as pool:
        for batch in batches(ours, 512):
            for info, footer in zip(batch, pool.map(lambda info: read_footer(storage, info), batch), strict=True):
                record = _commit_record(info.uri, footer)
                if record is not None and record.detections_uri.rpartition("/")[2] in present:
                    result[record.unit] = record
    return result


def _commit_record(uri: str, footer: Footer | None) -> CommitRecord | None:
    if footer is None or footer.sources_hash is None or footer.totals is None:
        return None
    check_format(footer.format_version, uri)
    if footer.unit != unit_of_images(uri):
        return None
    return CommitRecord(
        uri=uri,
        unit=footer.unit,
        commit=footer.commit,
        settings_hash=footer.settings_hash,
        model_hash=footer.model_hash,
        sources_hash=footer.sources_hash,
        totals=footer.totals,
    )


def list_files(storage: Storage, output_uri: str, table: str) -> Iterator[ObjectInfo]:
    """All files under `images/` or `detections/`, streamed."""
    with denied_stops_the_run():
        yield from storage.list(f"{output_uri.rstrip('/')}/{table}/")


def batches(items: Iterable[T], size: int) -> Iterator[list[T]]:
    """Lists of up to `size` items: work for a thread pool that does not take a whole listing into memory."""
    iterator = iter(items)
    while batch := list(islice(iterator, size)):
        yield batch
