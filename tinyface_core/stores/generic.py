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
from tinyface_core.stores import web
from tinyface_core.stores.base import (
    READ_PATIENCE_S,
    WRITE_PATIENCE_S,
    Damaged,
    ObjectChanged,
    ObjectDenied,
    ObjectError,
    ObjectInfo,
    ObjectMissing,
    ObjectTooLarge,
    StorageOptions,
    Transient,
    with_retries,
)
from tinyface_core.stores.reopened import BUFFER_BYTES, ReopenedFile
from tinyface_core.stores.signed import unsigned

T = TypeVar("T")
_VERSION_KEYS = ("ETag", "etag", "generation", "versionId", "version")
_UNTOLD_MOST_BYTES = 128 << 20  # of an object whose size nobody tells: a reader has some of them in memory at once
_TIME_KEYS = ("LastModified", "last_modified", "mtime", "updated", "modified", "created")


class GenericStore:
    """One fsspec file system; see `Storage` for what each method promises."""

    def __init__(self, protocol: str, options: StorageOptions) -> None:
        self._options = options
        self._protocol = protocol
        try:
            if missing := _missing_options(protocol, options):
                raise ValueError(f"they need --storage-option {missing[0]}=...")
            arguments = options.for_fsspec()
            if protocol in web.PROTOCOLS:
                arguments = web.own_options(arguments)
            self._fs = fsspec.filesystem(protocol, skip_instance_cache=True, **arguments)
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
        return self._stat(uri, self._fs.info)

    def _stat(self, uri: str, info: Callable[[str], dict[str, Any]]) -> ObjectInfo | None:
        try:
            found = self._try(lambda: info(uri), "asking for", uri)
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

    def read(self, uri: str, version: str | None, size_bytes: int | None = None) -> bytes:
        def whole() -> bytes:
            told = self._size(uri, version) if size_bytes is None else size_bytes
            data = self._start_of(uri, told)
            if told and len(data) != told:
                self._check(uri, version)  # another version may have another size
                came = "more" if len(data) > told else str(len(data))
                raise Damaged(f"{came} bytes came of {told}")
            if len(data) > (told or _UNTOLD_MOST_BYTES):
                raise ObjectTooLarge(
                    f"{unsigned(uri)}: more than {_UNTOLD_MOST_BYTES} bytes came, the limit where the size is not told "
                    "beforehand: copy it to disk or to S3"
                )
            return data

        data = self._try(whole, "reading", uri)
        self._check(uri, version)
        return data

    def open(self, uri: str, version: str | None) -> BinaryIO:
        return self._reopened(uri, version, self._size(uri, version))

    def open_stream(self, uri: str, version: str | None) -> BinaryIO:
        in_one = {"block_size": 0} if self._protocol in web.PROTOCOLS else None
        return self._reopened(uri, version, self._size(uri, version), in_one)

    def _reopened(
        self, uri: str, version: str | None, size_bytes: int, in_one: dict[str, Any] | None = None
    ) -> BinaryIO:
        """in_one: arguments for reading all of it by one request, where the server sends no parts."""

        def unchanged(**arguments: Any) -> Any:
            self._check(uri, version)
            return self._fs.open(uri, "rb", **arguments)

        whole = None if in_one is None else partial(unchanged, **in_one)
        file = ReopenedFile(unchanged, lambda call: self._try(call, "reading", uri), size_bytes, whole)
        return cast(BinaryIO, io.BufferedReader(file, BUFFER_BYTES))

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

    def _start_of(self, uri: str, told_bytes: int) -> bytes:
        """The object, in one request where its size is told (else 0); of a larger one than may be not all, but more."""
        most_bytes = told_bytes or _UNTOLD_MOST_BYTES
        if self._protocol in web.PROTOCOLS:
            return web.body_of(self._fs, uri, most_bytes)
        if told_bytes:
            return cast(bytes, self._fs.cat_file(uri, end=told_bytes + 1))
        data = bytearray()
        with self._fs.open(uri, "rb") as file:
            while len(data) <= most_bytes and (piece := file.read(BUFFER_BYTES)):
                data += piece
        return bytes(data)

    def _size(self, uri: str, version: str | None) -> int:
        """0 where it is not told, or nothing is there. Raises: as `_check`."""
        if version is not None:
            return self._check(uri, version)
        found = self.stat(uri)
        return 0 if found is None else found.size_bytes

    def _check(self, uri: str, version: str | None) -> int:
        """The size of the object, 0 where it is not asked for or not told. Raises: ObjectMissing, ObjectChanged."""
        info = partial(web.info_of_known, self._fs) if self._protocol in web.PROTOCOLS else self._fs.info
        found = self._stat(uri, info) if version is not None else None
        if version is not None and found is None:
            raise ObjectMissing(f"{unsigned(uri)}: no such object")
        if found is not None and found.version != version:
            raise ObjectChanged(f"{found.uri}: listed as {version}, now {found.version}")
        return 0 if found is None else found.size_bytes

    def _try(self, call: Callable[[], T], doing: str, uri: str, patience_s: float = READ_PATIENCE_S) -> T:
        url, uri = uri, unsigned(uri)

        def shown(text: str) -> str:
            return self._options.hide(text.replace(url, uri))

        def attempt() -> T:
            try:
                return call()
            except (FileNotFoundError, IsADirectoryError, NotADirectoryError) as error:
                raise ObjectMissing(f"{uri}: no such object") from error
            except (ObjectError, StorageError, Damaged):
                raise
            except PermissionError as error:
                raise ObjectDenied(shown(f"{uri}: {error}")) from error
            except NotImplementedError as error:
                raise StorageError(f"{doing} {uri}: {self._protocol}:// urls cannot do that") from error
            except Exception as error:  # each file system raises its own kinds; all that is left is worth a retry
                if self._protocol in web.PROTOCOLS and (for_good := web.about_one_url(error, uri)) is not None:
                    raise for_good from error
                raise Transient(shown(f"{type(error).__name__}: {error}")) from error

        return with_retries(attempt, f"{doing} {uri}", patience_s)

    def _info(self, uri: str, found: dict[str, Any]) -> ObjectInfo:
        size = int(found.get("size") or 0)
        modified = _instant(next((found[key] for key in _TIME_KEYS if found.get(key)), None))
        version = next((str(found[key]).strip('"') for key in _VERSION_KEYS if found.get(key)), None)
        if version is None and modified is not None:
            version = f"{int(modified.timestamp() * 1e6) * 1000}-{size}"
        shown = unsigned(uri)
        return ObjectInfo(shown, size, version, modified, signed_url="" if shown == uri else uri)


def _missing_options(protocol: str, options: StorageOptions) -> list[str]:
    """Arguments that the file system cannot do without, such as ftp's host."""
    _, *arguments = inspect.signature(fsspec.get_filesystem_class(protocol).__init__).parameters.values()
    needed = [a.name for a in arguments if a.default is a.empty and a.kind is a.POSITIONAL_OR_KEYWORD]
    return [name for name in needed if name not in options.for_fsspec()]


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
