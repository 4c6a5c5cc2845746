"""What every store shares: its options, what it tells about an object, what can be wrong with one, and retries.

Knows no protocol. An error about one object (`ObjectError`) is for the readers, which turn it into a row; all
other failures are `StorageError` and stop the run. Messages never hold credentials.
"""

from __future__ import annotations

import errno
import io
import json
import re
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any, BinaryIO, Protocol, TypeVar

from tenacity import (
    RetryCallState,
    RetryError,
    Retrying,
    retry_if_exception_type,
    stop_any,
    stop_before_delay,
    wait_random_exponential,
)
from tenacity.stop import stop_base

from tinyface_core.errors import StorageError
from tinyface_core.stores.signed import HASHED_NAMES, unsigned

READ_PATIENCE_S = 30.0  # since the last byte that came; s3fs by itself goes on for up to 222 s
WRITE_PATIENCE_S = 18.0  # one write with its retries must end within 20 s: a lease rests on it
_AHEAD_MIN_BYTES, _AHEAD_START_BYTES, _AHEAD_MAX_BYTES = 64 << 10, 256 << 10, 8 << 20

T = TypeVar("T")
_listener: Callable[[str], None] | None = None  # of retries: one a process, as metrics are


@dataclass(frozen=True)
class StorageOptions:
    """How to reach the stores; small and picklable, so that it goes to workers.

    endpoint_url: of an S3 store other than AWS; None takes AWS_ENDPOINT_URL_S3 or AWS_ENDPOINT_URL.
    extra: (key, value) pairs of `--storage-option`, given to fsspec; a dot nests (`client_kwargs.region_name`).
    """

    endpoint_url: str | None = None
    anonymous: bool = False
    profile: str | None = None
    extra: tuple[tuple[str, str], ...] = ()

    def for_fsspec(self) -> dict[str, Any]:
        """`extra` as keyword arguments: JSON values are parsed (`true`, `3`), secrets stay as they are."""
        result: dict[str, Any] = {}
        for key, text in self.extra:
            *path, last = key.split(".")
            place = result
            for part in path:
                place = place.setdefault(part, {})
            place[last] = text if _SECRET_NAME.search(key) else _parsed(text)
        return result

    def hide(self, text: str) -> str:
        """`text` without credentials: those of `extra`, of urls, and of signed query strings."""
        for key, secret in self.extra:
            if _SECRET_NAME.search(key) and secret:
                text = text.replace(secret, "***")
        text = re.sub(r"://[^/@\s]+@", "://***@", text)
        text = re.sub(r"(?i)https?://[^\s'\"<>]+", lambda url: unsigned(url[0]), text)
        return _SIGNED_QUERY.sub(r"\1***", text)


_SECRET_NAME = re.compile(r"(?i)(^|[._])(key|secret|token|password|username|aws_\w*key\w*|account_key|sas\w*)$")
_SIGNED_QUERY = re.compile(rf"(?i)([?&](?:[xq]-\w+-?[\w-]*|awsaccesskeyid|{HASHED_NAMES})=)(?!~)[^&\s]+")


def _parsed(text: str) -> Any:
    try:
        return json.loads(text.lower() if text in ("True", "False") else text)
    except ValueError:
        return text


@dataclass(frozen=True)
class ObjectInfo:
    """What a store tells about one object.

    version: ETag without quotes on S3, `<mtime ns>-<size>` on disk; None where the store tells none.
    modified: timezone UTC, by the store's clock. signed_url: what to ask the store for where that is not the uri; it is
    never shown.
    """

    uri: str
    size_bytes: int
    version: str | None
    modified: datetime | None
    signed_url: str = field(default="", repr=False, compare=False)

    @property
    def url(self) -> str:
        """What to ask the store for."""
        return self.signed_url or self.uri


class ObjectError(Exception):
    """Something is wrong with one object while the store works; the readers turn it into a PictureError."""


class ObjectMissing(ObjectError):
    """There is no such object, or no longer."""


class ObjectChanged(ObjectError):
    """The object exists in another version than the one asked for."""


class ObjectDenied(ObjectError):
    """This object may not be read (403, permissions, a bad sector); `code` is the store's, where it gave one."""

    def __init__(self, message: str, code: str = "") -> None:
        super().__init__(message)
        self.code = code


class ObjectDamaged(ObjectDenied):
    """This object came with other bytes than the store says it holds, three times: a bad sector, in a bucket."""


class ObjectTooLarge(ObjectError):
    """More bytes came than are read at once of an object whose size is not told beforehand."""


class Transient(Exception):
    """Inside the stores only: worth another try."""


class Damaged(Transient):
    """The bytes do not match the size or the sum that the store holds: on the way, or for good."""


class Store(Protocol):
    """One backend. Errors as in `Storage`; no method keeps more than one object or one page in memory."""

    def canonical(self, url: str) -> str: ...
    def stat(self, uri: str) -> ObjectInfo | None: ...
    def list(self, folder: str, starts_with: str, enter: Callable[[str], bool]) -> Iterator[ObjectInfo]: ...
    def has_folder(self, uri: str) -> bool: ...
    def read(self, uri: str, version: str | None, size_bytes: int | None = None) -> bytes: ...
    def open(self, uri: str, version: str | None) -> BinaryIO: ...
    def open_stream(self, uri: str, version: str | None) -> BinaryIO: ...
    def write(self, uri: str, data: bytes) -> None: ...
    def delete(self, uri: str) -> None: ...
    def make_folder(self, uri: str) -> None: ...


def with_retries(attempt: Callable[[], T], what: str, patience_s: float = READ_PATIENCE_S) -> T:
    """What `attempt` returns; `Transient` is tried again, with jitter, for `patience_s` seconds, then StorageError.

    An object that is `Damaged` three times is so for good, and raises ObjectDamaged: others may be sound.
    what: names the action and the url in the message, as `reading s3://bucket/key`.
    """
    started = time.monotonic()
    retrying = Retrying(
        stop=stop_any(stop_before_delay(patience_s), _DamagedForGood()),
        wait=wait_random_exponential(multiplier=0.2, max=5),
        retry=retry_if_exception_type(Transient),
        before_sleep=lambda state: _tell_retry(what),
    )
    try:
        return retrying(attempt)
    except RetryError as error:
        last = error.last_attempt.exception()
        tries = error.last_attempt.attempt_number
        if isinstance(last, Damaged):
            raise ObjectDamaged(f"{what}: {last}") from last
        raise StorageError(
            f"{what}: given up after {tries} tries in {time.monotonic() - started:.0f} s: {last}. "
            "Is the store reachable?"
        ) from last


def on_retry(listener: Callable[[str], None]) -> None:
    """From now on the listener hears of each try that this process repeats: what was done, as `reading`.

    It takes the place of the one before; it is called from any thread, and raises nothing.
    """
    global _listener
    _listener = listener


def _tell_retry(what: str) -> None:
    if _listener is not None:
        _listener(what.partition(" ")[0])


class _DamagedForGood(stop_base):
    def __call__(self, retry_state: RetryCallState) -> bool:
        last = retry_state.outcome.exception() if retry_state.outcome is not None else None
        return isinstance(last, Damaged) and retry_state.attempt_number >= 3


class RangeFile(io.RawIOBase):
    """A seekable, read-only file over range reads, with one window of read-ahead.

    The window grows while reads go on where they were, and shrinks when they jump: reading a zip costs few requests,
    walking the headers of a tar of large members few bytes. fetch(start, stop): exactly these bytes, of one version.
    """

    def __init__(self, fetch: Callable[[int, int], bytes], size_bytes: int) -> None:
        super().__init__()
        self._fetch = fetch
        self._size = size_bytes
        self._position = 0
        self._window, self._window_start = b"", 0
        self._ahead_bytes = _AHEAD_START_BYTES

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        base = {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: self._size}[whence]
        if base + offset < 0:
            raise OSError(errno.EINVAL, f"seek to {base + offset}: before the start of the file")
        self._position = base + offset
        return self._position

    def read(self, size: int = -1) -> bytes:
        stop = self._size if size is None or size < 0 else min(self._size, self._position + size)
        data = self._between(self._position, stop) if stop > self._position else b""
        self._position += len(data)
        return data

    def _between(self, start: int, stop: int) -> bytes:
        window_stop = self._window_start + len(self._window)
        head = b""
        if self._window_start <= start < window_stop:
            if stop <= window_stop:
                return self._window[start - self._window_start : stop - self._window_start]
            head, start = self._window[start - self._window_start :], window_stop
        if 0 <= start - window_stop <= self._ahead_bytes:
            self._ahead_bytes = min(2 * self._ahead_bytes, _AHEAD_MAX_BYTES)
        else:
            self._ahead_bytes = max(self._ahead_bytes // 2, _AHEAD_MIN_BYTES)
        self._window = self._fetch(start, min(self._size, max(stop, start + self._ahead_bytes)))
        self._window_start = start
        return head + self._window[: stop - start]

    def readall(self) -> bytes:
        return self.read()

    def readinto(self, buffer: Any) -> int:
        data = self.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)
