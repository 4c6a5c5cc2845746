"""The local disk as a store. The version of a file is `<mtime ns>-<size>`.

Uris are `file://` and the absolute path, not percent-encoded, links not resolved. A file name that is not UTF-8
is shown with `\\xNN` for its bad bytes, as no table can hold the raw bytes, and a name in which `\\xNN` is written,
with `\\x5c` for that backslash: each uri opens the file that it came from.
"""

from __future__ import annotations

import errno
import io
import os
import re
import stat as modes
import uuid
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from typing import Any, BinaryIO, cast

from tinyface_core.errors import StorageError
from tinyface_core.stores.base import ObjectChanged, ObjectDenied, ObjectInfo, ObjectMissing

_ESCAPE = re.compile(r"\\(?=x[0-9a-f]{2})")
_STREAM_BUFFER_BYTES = 1 << 20
_MISSING = (errno.ENOENT, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP, errno.EISDIR)


class LocalStore:
    """Files; see `Storage` for what each method promises."""

    def canonical(self, url: str) -> str:
        if url.startswith("file://"):  # shown already
            return "file://" + _readable(os.path.abspath(url.removeprefix("file://")))
        return "file://" + _shown(os.path.abspath(os.path.expanduser(url)))

    def stat(self, uri: str) -> ObjectInfo | None:
        try:
            found = os.stat(_path(uri))
        except (OSError, ValueError) as error:
            if isinstance(mapped := _about(error, uri), ObjectMissing):
                return None
            raise mapped from error
        return _info(uri, found) if modes.S_ISREG(found.st_mode) else None

    def list(self, folder: str, starts_with: str, enter: Callable[[str], bool]) -> Iterator[ObjectInfo]:
        """Files below `folder`, links followed (never into a loop), in the order that the disk gives."""
        root = _path(folder.rstrip("/") if folder != "file:///" else folder)
        pending: list[tuple[str, tuple[tuple[int, int], ...]]] = [(root, ())]
        while pending:
            path, above = pending.pop()
            try:
                place = os.stat(path)
                identity = (place.st_dev, place.st_ino)
                if identity in above or not modes.S_ISDIR(place.st_mode):
                    continue
                with os.scandir(path) as entries:
                    for entry in entries:
                        if not above and not entry.name.startswith(starts_with):
                            continue
                        if _is_folder(entry):
                            if enter("file://" + _shown(entry.path)):
                                pending.append((entry.path, (*above, identity)))
                        elif (info := _listed(entry)) is not None:
                            yield info
            except OSError as error:
                if isinstance(mapped := _about(error, "file://" + _shown(path)), ObjectMissing):
                    continue  # vanished since its parent was read
                raise mapped from error

    def has_folder(self, uri: str) -> bool:
        return os.path.isdir(_path(uri))

    def read(self, uri: str, version: str | None, size_bytes: int | None = None) -> bytes:
        with self.open(uri, version) as file:
            return file.read()

    def open(self, uri: str, version: str | None) -> BinaryIO:
        try:
            raw = _CheckedFile(uri, version)
        except (OSError, ValueError) as error:
            raise _about(error, uri) from error
        return cast(BinaryIO, io.BufferedReader(raw, _STREAM_BUFFER_BYTES))

    open_stream = open

    def write(self, uri: str, data: bytes) -> None:
        path = _path(uri)
        folder, name = os.path.split(path)
        temporary = os.path.join(folder, f".{name[:100]}.{uuid.uuid4().hex}.tmp")
        try:
            os.makedirs(folder, exist_ok=True)
            try:
                handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
                with os.fdopen(handle, "wb") as file:
                    file.write(data)
                    file.flush()
                    os.fsync(file.fileno())
                os.replace(temporary, path)
                _sync_folder(folder)
            except BaseException:
                if os.path.lexists(temporary):
                    os.unlink(temporary)
                raise
        except OSError as error:
            raise _cannot("write", uri, error) from error

    def delete(self, uri: str) -> None:
        try:
            os.unlink(_path(uri))
        except (FileNotFoundError, NotADirectoryError):
            pass
        except OSError as error:
            raise _cannot("delete", uri, error) from error

    def make_folder(self, uri: str) -> None:
        try:
            os.makedirs(_path(uri), exist_ok=True)
        except OSError as error:
            raise _cannot("make the folder", uri, error) from error


class _CheckedFile(io.FileIO):
    """A file that is still the asked version after each read, or ObjectChanged."""

    def __init__(self, uri: str, version: str | None) -> None:
        super().__init__(_path(uri), "rb")
        self._uri = uri
        self._wanted = version
        try:
            self._check()
        except BaseException:
            self.close()
            raise

    def _check(self) -> None:
        found = os.fstat(self.fileno())
        if not modes.S_ISREG(found.st_mode):
            raise ObjectMissing(f"{self._uri}: not a regular file")
        if self._wanted is None:
            self._wanted = _version(found)
        if _version(found) != self._wanted:
            raise ObjectChanged(f"{self._uri}: listed as {self._wanted}, now {_version(found)} (mtime, size)")

    def readinto(self, buffer: Any) -> int | None:
        return cast("int | None", self._checked(super().readinto, buffer))

    def readall(self) -> bytes:
        return cast(bytes, self._checked(super().readall))

    def _checked(self, action: Any, *args: Any) -> Any:
        try:
            result = action(*args)
        except OSError as error:
            raise _about(error, self._uri) from error
        self._check()
        return result


def _path(uri: str) -> str:
    path = uri.removeprefix("file://")
    if "\\x" in path:
        raw = re.sub(rb"\\x([0-9a-f]{2})", lambda match: bytes.fromhex(match[1].decode()), path.encode())
        if os.path.lexists(raw) or not os.path.lexists(path):  # else it was written by hand, as it stands
            return os.fsdecode(raw)
    return path


def _shown(path: str) -> str:
    return _readable(_ESCAPE.sub(r"\\x5c", path))


def _readable(path: str) -> str:
    return os.fsencode(path).decode("utf-8", "backslashreplace")


def _version(found: os.stat_result) -> str:
    return f"{found.st_mtime_ns}-{found.st_size}"


def _info(uri: str, found: os.stat_result) -> ObjectInfo:
    return ObjectInfo(uri, found.st_size, _version(found), datetime.fromtimestamp(found.st_mtime, UTC))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:
        return False


def _listed(entry: os.DirEntry[str]) -> ObjectInfo | None:
    uri = "file://" + _shown(entry.path)
    try:
        found = entry.stat()
    except OSError:
        # A link that leads nowhere is listed: reading it then gives the error row. What vanished is not.
        return ObjectInfo(uri, 0, None, None) if entry.is_symlink() and os.path.lexists(entry.path) else None
    return _info(uri, found) if modes.S_ISREG(found.st_mode) else None


def _sync_folder(folder: str) -> None:
    handle = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)


def _about(error: Exception, uri: str) -> Exception:
    """The error of reading as one about this object, except where no other object would fare better."""
    if isinstance(error, ValueError) or (isinstance(error, OSError) and error.errno in _MISSING):
        return ObjectMissing(f"{uri}: no such file")
    if isinstance(error, OSError) and error.errno in (errno.EMFILE, errno.ENFILE, errno.ENOMEM):
        return StorageError(f"{uri}: {error.strerror}: raise `ulimit -n`, or run fewer readers at a time")
    return ObjectDenied(f"{uri}: {getattr(error, 'strerror', None) or error}")


def _cannot(action: str, uri: str, error: OSError) -> StorageError:
    mend = {
        errno.ENOSPC: "free some space",
        errno.EDQUOT: "the quota is used up: free some space",
        errno.EACCES: "give this user the right to write there",
        errno.EROFS: "it is mounted read-only: choose another folder",
    }.get(error.errno or 0, "check the path")
    return StorageError(f"cannot {action} {uri}: {error.strerror or error}: {mend}")
