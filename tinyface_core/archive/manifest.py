"""Manifests: lists of urls in a text, CSV or Parquet file, each entry one picture or archive.

Relative entries are resolved against the manifest's folder. A line of a text that is `#` or starts with `# ` is a
comment, an empty cell of a CSV is null. An entry that is not there is a source all the same:
reading it gives the error row; an entry without a url can have no row, and is counted as `no url`. Entries were chosen
one by one, so hidden names and sidecars among them are rows too.
"""

from __future__ import annotations

import csv
import io
import posixpath
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq

from tinyface_core.archive.candidates import kind_of, without_query
from tinyface_core.archive.record import Source
from tinyface_core.errors import InputError
from tinyface_core.storage import ObjectError, ObjectInfo, Storage, unsigned

URI_NAMES = (
    "uri", "url", "path", "image", "image_url", "image_uri", "image_path", "file", "file_name", "filename", "file_path",
    "filepath", "location", "key",
)  # fmt: skip
NO_URL = "no url"
_ROWS = 1000
_THREADS = 16

Entry = tuple[str, dict[str, Any]]  # url or "", values of the carried columns


def is_manifest(uri: str) -> bool:
    """By its name; a Parquet file needs a look at its columns as well."""
    return _ends(uri, ".txt", ".csv")


def uri_column(names: Sequence[str]) -> str | None:
    """The column that holds urls: the first of the usual names, in any case."""
    lower = {name.strip().lower(): name for name in reversed(names)}
    return next((lower[name] for name in URI_NAMES if name in lower), None)


def manifest_sources(manifest: ObjectInfo, storage: Storage, carry: Sequence[str]) -> Iterator[Source | str]:
    """A source for each entry, in order, streamed; NO_URL for one that names none.

    Raises: InputError (no uri column, a carried column that is not there, bad CSV), StorageError.
    """
    entries = _entries(manifest, storage, carry)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="manifest") as pool:
        while batch := list(islice(entries, _ROWS)):
            found = pool.map(lambda entry: _stat(entry[0], storage) if entry[0] else None, batch)
            for (url, carried), info in zip(batch, found, strict=True):
                if not url:
                    yield NO_URL
                    continue
                size, version, modified = (info.size_bytes, info.version, info.modified) if info else (None,) * 3
                uri = unsigned(url)
                yield Source(uri, kind_of(uri), size, version, modified, carried, "" if url == uri else url)


def carried_types(manifest: ObjectInfo, storage: Storage, carry: Sequence[str]) -> dict[str, pa.DataType]:
    """Types of the carried columns; those of a CSV are strings. Raises: InputError, ObjectError, StorageError."""
    if _ends(manifest.uri, ".parquet"):
        with _parquet(manifest, storage) as parquet:
            schema = parquet.schema_arrow
        check_carried(manifest.uri, schema.names, carry)
        return {name: schema.field(name).type for name in carry}
    with _csv_rows(manifest, storage) as (names, _):
        check_carried(manifest.uri, names, carry)
    return {name: pa.string() for name in carry}


def check_carried(uri: str, names: Sequence[str], carry: Sequence[str]) -> None:
    """Raises: InputError, which names the columns that are there."""
    for name in carry:
        if name not in names:
            there = ", ".join(names[:30]) or "none"
            raise InputError(f"--carry {name}: {uri} has no such column; it has: {there}")


def _stat(url: str, storage: Storage) -> ObjectInfo | None:
    """What the store tells of an entry; None where it is missing or denied, which reading it will tell."""
    try:
        return storage.stat(url)
    except ObjectError:
        return None


def _entries(manifest: ObjectInfo, storage: Storage, carry: Sequence[str]) -> Iterator[Entry]:
    folder = without_query(manifest.uri).rsplit("/", 1)[0]
    rows = _parquet_entries if _ends(manifest.uri, ".parquet") else _csv_entries
    for url, carried in rows(manifest, storage, carry):
        url = url.strip() if _is_web(url) else url
        carried = {name: _without_signature(value) for name, value in carried.items()}
        yield _resolved(url, folder, storage) if url else "", carried


def _ends(uri: str, *endings: str) -> bool:
    return without_query(uri).lower().endswith(endings)


def _is_web(text: str) -> bool:
    return text.lstrip().lower().startswith(("http://", "https://"))


def _without_signature(value: Any) -> Any:
    """A carried value; a url, such as the entry's own, without what signs it."""
    if not isinstance(value, str) or not _is_web(value):
        return value
    url = value.strip()
    return value if (uri := unsigned(url)) == url else uri


def _resolved(url: str, folder: str, storage: Storage) -> str:
    if "://" in url or url.startswith(("/", "~/")):
        # A path in a table or text is shown already: the bytes that were not UTF-8 stand there as \xNN.
        return storage.canonical(f"file://{url}" if url.startswith("/") else url)
    scheme, _, path = folder.partition("://")
    if any(part in (".", "..") for part in url.split("/")):
        return f"{scheme}://{posixpath.normpath(f'{path}/{url}')}"
    return f"{folder}/{url}"


def _csv_entries(manifest: ObjectInfo, storage: Storage, carry: Sequence[str]) -> Iterator[Entry]:
    with _csv_rows(manifest, storage) as (names, rows):
        check_carried(manifest.uri, names, carry)
        if _ends(manifest.uri, ".txt"):
            lines = (row[0].strip() for row in rows)
            yield from ((line, {}) for line in lines if line not in ("", "#") and not line.startswith("# "))
            return
        column = names.index(_required_uri_column(manifest.uri, names))
        carried = {name: names.index(name) for name in carry}
        try:
            for row in filter(None, rows):  # an empty line is nothing
                values = {name: (row[place] or None) if place < len(row) else None for name, place in carried.items()}
                yield (row[column].strip() if column < len(row) else ""), values
        except csv.Error as error:
            raise InputError(f"{manifest.uri}: not a CSV: {error}") from error


@contextmanager
def _csv_rows(manifest: ObjectInfo, storage: Storage) -> Iterator[tuple[list[str], Iterator[list[str]]]]:
    """(column names, rows) of a CSV; of a text, no names and its lines as rows of one."""
    with storage.open_stream(manifest.url, manifest.version) as stream:
        # Bytes that are not UTF-8 become \xNN, which is how the local store shows the file names that hold them.
        text = io.TextIOWrapper(stream, "utf-8-sig", "backslashreplace", newline="")
        if _ends(manifest.uri, ".txt"):
            yield [], ([line] for line in text)
            return
        head = text.readline()
        separator = next((sign for sign in ",;\t|" if sign in head), ",")
        names = next(csv.reader([head], delimiter=separator), [])
        yield [name.strip() for name in names], csv.reader(text, delimiter=separator)


def _parquet_entries(manifest: ObjectInfo, storage: Storage, carry: Sequence[str]) -> Iterator[Entry]:
    with _parquet(manifest, storage) as parquet:
        names = parquet.schema_arrow.names
        column = _required_uri_column(manifest.uri, names)
        check_carried(manifest.uri, names, carry)
        for batch in parquet.iter_batches(_ROWS, columns=[column, *carry], use_threads=False):
            carried = [batch.column(name).to_pylist() for name in carry]
            for place, url in enumerate(batch.column(column).to_pylist()):
                yield str(url or ""), {name: values[place] for name, values in zip(carry, carried, strict=True)}


@contextmanager
def _parquet(manifest: ObjectInfo, storage: Storage) -> Iterator[pq.ParquetFile]:
    try:
        with (
            storage.open(manifest.url, manifest.version) as file,
            # What pyarrow reads ahead of the batches (`pre_buffer`) would stay in memory until the last one.
            pq.ParquetFile(file, buffer_size=1 << 20, pre_buffer=False) as parquet,
        ):
            yield parquet
    except (pa.ArrowException, OSError, UnicodeDecodeError) as error:
        raise InputError(f"{manifest.uri}: the manifest cannot be read: {error}: write it again") from error


def _required_uri_column(uri: str, names: Sequence[str]) -> str:
    found = uri_column(names)
    if found is None:
        there = ", ".join(names[:30]) or "none"
        raise InputError(
            f"{uri}: a manifest needs a column of urls (one of {', '.join(URI_NAMES[:5])}, ...); it has: {there}"
        )
    return found
