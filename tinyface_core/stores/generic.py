"""Any other protocol that fsspec knows (`memory://`, `gs://`, `http://`), by fsspec's common calls alone.

The version is the ETag, the generation or the time and size that the file system tells; reads compare it before and
after. Retries beyond those of the file system itself are ours. Listing holds one folder in memory at a time.
"""

from __future__ import annotations

import inspect
import io
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from functools import partial
from typing import Any, BinaryIO, TypeVar, cast

import fsspec

from tinyface_core.errors import SettingsError, StorageError
from tinyface_core.stores.base import (
    READ_PATIENCE_S,
    WRITE_PATIENCE_S,
    ObjectChanged,
    ObjectDenied,
    ObjectInfo,
    ObjectMissing,
    StorageOptions,
    Transient,
    with_retries,
)

T = TypeVar("T")
_BUFFER_BYTES = 1 << 20
_VERSION_KEYS = ("ETag", "etag", "generation", "versionId", "version")
_TIME_KEYS = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


class GenericStore:
    """One fsspec file system; see `Storage` for what each method promises."""

    def __init__(self, protocol: str, options: StorageOptions) -> None:
        self._options = options
        self._protocol = protocol
        try:
            if missing := _missing_options(protocol, options):
                raise ValueError(f"they need --storage-option {missing[0]}=...")
            self._fs = fsspec.filesystem(protocol, skip_instance_cache=True, **options.for_fsspec())
        except Exception as error:  # some connect here, and each raises its own kinds
            raise SettingsError(
                options.hide(
                    f"cannot open {protocol}:// urls: {' '.join(str(error).split()) or type(error).__name__}: "
                )
                + "check the url and --storage-option"
            ) from error

    def canonical(self, url: str) -> str:
        return url

    def stat(self, uri: str) -> ObjectInfo | None:
        try:
            found = self._try(lambda: self._fs.info(uri), "asking for", uri)
        except ObjectMissing:
            return None
        return self._info(uri, found) if found.get("type", "file") == "file" else None

    def list(self, folder: str, starts_with: str, enter: Callable[[str], bool]) -> Iterator[ObjectInfo]:
        pending = [folder]
        while pending:
            place = pending.pop()
            try:
                entries = self._try(partial(self._fs.ls, place, detail=True), "listing", place)
            except ObjectMissing:
                continue
            for entry in entries:
                name = str(entry["name"])
                uri = name if "://" in name else f"{self._protocol}://{name.lstrip('/')}"
                if entry.get("type") == "directory":
                    if enter(uri):
                        pending.append(uri)
                elif uri.rstrip("/") != place.rstrip("/"):  # `ls` of a file gives the file itself
                    yield self._info(uri, entry)

    def has_folder(self, uri: str) -> bool:
        try:
            return bool(self._try(lambda: self._fs.isdir(uri), "asking for", uri))
        except ObjectMissing:
            return False

    def read(self, uri: str, version: str | None) -> bytes:
        self._check(uri, version)
        data = self._try(lambda: self._fs.cat_file(uri), "reading", uri)
        self._check(uri, version)
        return cast(bytes, data)

    def open(self, uri: str, version: str | None) -> BinaryIO:
        self._check(uri, version)
        file = self._try(lambda: self._fs.open(uri, "rb"), "opening", uri)
        return cast(BinaryIO, io.BufferedReader(_NamedFaults(file, uri, self._options.hide), _BUFFER_BYTES))

    open_stream = open

    def write(self, uri: str, data: bytes) -> None:
        try:
            self._try(lambda: self._fs.pipe_file(uri, data), "writing", uri, WRITE_PATIENCE_S)
        except (ObjectMissing, ObjectDenied) as error:
            raise StorageError(f"cannot write {error}") from error

    def delete(self, uri: str) -> None:
        try:
            self._try(lambda: self._fs.rm_file(uri), "deleting", uri, WRITE_PATIENCE_S)
        except ObjectMissing:
            pass
        except ObjectDenied as error:
            raise StorageError(f"cannot delete {error}") from error

    def make_folder(self, uri: str) -> None:
        pass

    def _check(self, uri: str, version: str | None) -> None:
        found = self.stat(uri) if version is not None else None
        if version is not None and found is None:
            raise ObjectMissing(f"{uri}: no such object")
        if found is not None and found.version != version:
            raise ObjectChanged(f"{uri}: listed as {version}, now {found.version}")

    def _try(self, call: Callable[[], T], doing: str, uri: str, patience_s: float = READ_PATIENCE_S) -> T:
        def attempt() -> T:
            try:
                return call()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                raise ObjectMissing(f"{uri}: no such object") from error
            except PermissionError as error:
                raise ObjectDenied(self._options.hide(f"{uri}: {error}")) from error
            except NotImplementedError as error:
                raise StorageError(f"{doing} {uri}: {self._protocol}:// urls cannot do that") from error
            except Exception as error:  # each file system raises its own kinds; all that is left is worth a retry
                raise Transient(self._options.hide(f"{type(error).__name__}: {error}")) from error

        return with_retries(attempt, f"{doing} {uri}", patience_s)

    def _info(self, uri: str, found: dict[str, Any]) -> ObjectInfo:
        size = int(found.get("size") or 0)
        modified = _instant(next((found[key] for key in _TIME_KEYS if found.get(key)), None))
        version = next((str(found[key]).strip('"') for key in _VERSION_KEYS if found.get(key)), None)
        if version is None and modified is not None:
            version = f"{int(modified.timestamp() * 1e6) * 1000}-{size}"
        return ObjectInfo(uri, size, version, modified)


def _missing_options(protocol: str, options: StorageOptions) -> list[str]:
    """Arguments that the file system cannot do without, such as ftp's host."""
    _, *arguments = inspect.signature(fsspec.get_filesystem_class(protocol).__init__).parameters.values()
    needed = [a.name for a in arguments if a.default is a.empty and a.kind is a.POSITIONAL_OR_KEYWORD]
    return [name for name in needed if name not in options.for_fsspec()]


class _NamedFaults(io.RawIOBase):
    """A file whose failures are those of reading an object, and never look like damage in it."""

    def __init__(self, file: Any, uri: str, hide: Callable[[str], str]) -> None:
        super().__init__()
        self._file, self._uri, self._hide = file, uri, hide

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file.seekable())

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        return int(self._named(lambda: self._file.seek(offset, whence)))

    def tell(self) -> int:
        return int(self._file.tell())

    def readinto(self, buffer: Any) -> int:
        data: bytes = self._named(lambda: self._file.read(len(buffer)))
        buffer[: len(data)] = data
        return len(data)

    def close(self) -> None:
        self._file.close()
        super().close()

    def _named(self, call: Callable[[], Any]) -> Any:
        try:
            return call()
        except Exception as error:  # each file system raises its own kinds
            told = " ".join(str(error).split()) or type(error).__name__
            if "range requests" in told:  # fsspec's words, which speak of its own arguments
                told = "the server cannot send a part of it, which zip and Parquet need: copy it to disk or to S3"
            raise ObjectDenied(self._hide(f"{self._uri}: cannot be read: {told}")) from error


def _instant(value: Any) -> datetime | None:
    if isinstance(value, int | float):
        return datetime.fromtimestamp(value, UTC)
    if isinstance(value, str):
        try:
            value = datetime.fromisoformat(value)
        except ValueError:
            return None
    if not isinstance(value, datetime):
        return None
    return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)
