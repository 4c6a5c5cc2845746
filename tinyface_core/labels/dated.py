"""Labelled pictures that came in a span of time: a manifest whose rows have dates.

A row is a labelled picture (our annotations.jsonl with a `date` in each line), or a labelled source in any form of
forms.py (CSV, Parquet or JSONL with the columns `source`, `date` and, where its pictures lie elsewhere, `pictures`).
Knows no pixels.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import posixpath
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, date, datetime, time
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tinyface_core.errors import InputError
from tinyface_core.labels.forms import NOT_A_LINE, Line, line_of, read_lines
from tinyface_core.storage import ObjectMissing, Storage

TABLES = (".csv", ".parquet", ".jsonl")


@dataclass(frozen=True)
class Window:
    """From `since` up to, and without, `until`: windows side by side share no row and lose none. In UTC.

    since: None: from the first row on.
    """

    since: datetime | None
    until: datetime

    def __str__(self) -> str:
        since = "the first row" if self.since is None else f"{self.since:%Y-%m-%dT%H:%MZ}"
        return f"from {since} up to {self.until:%Y-%m-%dT%H:%MZ}"


@dataclass(frozen=True)
class Dated:
    """What a manifest holds of a window: each picture once, as its latest row has it.

    before, within, after: its rows. sha256: of the manifest's bytes.
    """

    lines: tuple[Line, ...]
    before: int
    within: int
    after: int
    sha256: str


def instant(value: str | date | datetime) -> datetime:
    """A point in time, in UTC: of ISO 8601 text, or as Parquet has it. Without a zone it is UTC, without a time 0:00.

    Raises: ValueError.
    """
    if isinstance(value, str):
        value = datetime.fromisoformat(value.strip())
    if not isinstance(value, datetime):
        value = datetime.combine(value, time())
    return value.astimezone(UTC) if value.tzinfo else value.replace(tzinfo=UTC)


def read_dated(manifest: str, window: Window, pictures: str | None, storage: Storage) -> Dated:
    """The labelled pictures of the rows that lie in the window.

    Args:
        manifest: path or url of a .csv, .parquet or .jsonl file, or of a folder with annotations.jsonl.
        pictures: the folder that paths of pictures begin at; None: the manifest's own, or that of each source.
    Raises:
        InputError: no such file, a row without date or source, labels that cannot be read. StorageError, ObjectError.
    """
    uri = storage.canonical(manifest).rstrip("/")
    file = uri if uri.lower().endswith(TABLES) else f"{uri}/annotations.jsonl"
    try:
        data = storage.read(file)
    except ObjectMissing as error:
        raise InputError(
            f"{manifest}: no manifest: needs a .csv, .parquet or .jsonl file, or a folder with annotations.jsonl."
        ) from error
    before, within, after, found = 0, list[tuple[datetime, str, dict[str, Any]]](), 0, dict[str, Line]()
    for where, row in _rows(file, data):
        when = _date_of(row, where)
        if window.since is not None and when < window.since:
            before += 1
        elif when >= window.until:
            after += 1
        else:
            within.append((when, where, row))
    for _, where, row in sorted(within, key=lambda each: each[0]):  # a stable sort: of one date, the later row wins
        for line in _lines_of(row, where, file.rpartition("/")[0], pictures, storage):
            found[line.uri] = line
    return Dated(tuple(found.values()), before, len(within), after, hashlib.sha256(data).hexdigest())


def _rows(file: str, data: bytes) -> Iterator[tuple[str, dict[str, Any]]]:
    """(place for messages, row) of each row."""
    try:
        if file.lower().endswith(".parquet"):
            table = pq.read_table(pa.BufferReader(data))
            yield from ((f"{file}, row {number}", row) for number, row in enumerate(table.to_pylist(), start=1))
            return
        text = data.decode("utf-8-sig")
        if file.lower().endswith(".csv"):
            rows = csv.DictReader(io.StringIO(text, newline=""))
            if not rows.fieldnames:
                raise InputError(f"{file}: is empty: a CSV begins with a line of its columns, as source,date.")
            yield from ((f"{file}:{rows.line_num}", row) for row in rows)
            return
    except (pa.ArrowException, UnicodeDecodeError, csv.Error) as error:
        raise InputError(f"{file}: the manifest cannot be read: {error}. Write it again.") from error
    for number, line in enumerate(text.splitlines(), start=1):
        if line.strip():
            yield f"{file}:{number}", _object(line, f"{file}:{number}")


def _object(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except ValueError as error:
        raise InputError(f"{where}: not JSON ({error}).") from error
    if not isinstance(row, dict):
        raise InputError(f"{where}: not a JSON object.")
    return row


def _date_of(row: dict[str, Any], where: str) -> datetime:
    try:
        return instant(row["date"])
    except (KeyError, ValueError, TypeError, AttributeError) as error:
        found = repr(row["date"]) if "date" in row else f"only {', '.join(map(repr, row))}"
        raise InputError(
            f"{where}: a row needs a date of ISO 8601, as 2026-11-29 or 2026-11-29T03:00Z; it has {found}."
        ) from error


def _lines_of(row: dict[str, Any], where: str, folder: str, pictures: str | None, storage: Storage) -> Iterator[Line]:
    """The labelled pictures of one row."""
    if "image" in row:
        base = folder if pictures is None else storage.canonical(pictures).rstrip("/")
        try:
            yield line_of(row, base)
        except NOT_A_LINE as error:
            raise InputError(f"{where}: not an annotation ({type(error).__name__}: {error}).") from error
        return
    if not row.get("source"):
        raise InputError(f"{where}: a row needs a source (labels of many pictures) or an image (of one, with boxes).")
    own = row.get("pictures")
    for value in (row["source"], own):
        if not isinstance(value, str | None):
            raise InputError(f"{where}: a source is a path or url, not {value!r}.")
    try:
        yield from read_lines(_beside(folder, row["source"]), _beside(folder, own) if own else pictures, storage)
    except InputError as error:
        raise InputError(f"{where}: {error}") from error


def _beside(folder: str, name: str) -> str:
    """A path or url of a manifest; a relative one begins at the manifest's folder."""
    if "://" in name or name.startswith(("/", "~")):
        return name
    scheme, _, path = folder.partition("://")
    return f"{scheme}://{posixpath.normpath(f'{path}/{name}')}"
