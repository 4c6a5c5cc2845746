"""The client of S3: calls that are each tried once and bounded in time, and bodies that go on where they were cut.

s3fs makes the connection. Knows requests and answers; what they mean for a store is in `s3.py`.
"""

from __future__ import annotations

import asyncio
import hashlib
import io
import re
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from datetime import datetime
from typing import Any, TypeVar, cast

import fsspec.asyn
import s3fs
from botocore.utils import parse_timestamp

from tinyface_core.errors import SettingsError, StorageError
from tinyface_core.stores.base import READ_PATIENCE_S, ObjectChanged, ObjectError, StorageOptions, with_retries
from tinyface_core.stores.s3_errors import needs_a_body, translate

T = TypeVar("T")
_CONNECT_S, _SILENCE_S = 5, 15
# A body up to this size is read in one go, which checks its sum; a larger one in pieces, which a cut does not lose.
_AT_ONCE_BYTES = 16 << 20
_PIECE_BYTES = 1 << 20
_SMALL_BYTES = 4 << 20


class S3Client:
    """One connection pool. Safe to use from many threads."""

    def __init__(self, options: StorageOptions) -> None:
        self._hide = options.hide
        self.fs = file_system(options)

    def once(self, uri: str, make: Callable[[], Awaitable[T]], patience_s: float | None = None) -> T:
        """What the coroutine gives, run in s3fs's loop; any exception as `translate` maps it (maybe Transient)."""

        async def bounded() -> T:
            return await asyncio.wait_for(make(), patience_s)

        try:
            return cast(T, fsspec.asyn.sync(self.fs.loop, bounded))
        except Exception as error:
            raise translate(error, uri, self._hide) from error

    def request(self, method: str, **arguments: Any) -> Callable[[], Awaitable[Any]]:
        return lambda: self.fs._call_s3(method, **arguments)

    def call(self, doing: str, uri: str, method: str, patience_s: float = READ_PATIENCE_S, **arguments: Any) -> Any:
        """The answer, with retries. doing: the action in messages. Raises: ObjectError, StorageError."""
        deadline = time.monotonic() + patience_s
        # A small write that hangs gets a second try within its time; a large one may need all of it.
        most_s = patience_s / 2 if len(arguments.get("Body", b"")) <= _SMALL_BYTES else patience_s

        def attempt() -> Any:
            left = min(max(0.5, deadline - time.monotonic()), most_s)
            try:
                return self.once(uri, self.request(method, **arguments), left)
            except ObjectError as error:
                if method == "head_object" and needs_a_body(error):  # a HEAD does not say why: a GET of one byte does
                    self.once(uri, self.request("get_object", Range="bytes=0-0", **arguments), left)["Body"].close()
                raise

        return with_retries(attempt, f"{doing} {self._hide(uri)}", patience_s)


def file_system(options: StorageOptions, tries: int = 1) -> s3fs.S3FileSystem:
    """The client. tries: of each call; those of our own calls are counted in `with_retries` alone.

    Raises: SettingsError for options that it does not take.
    """
    extra = options.for_fsspec()
    config = {
        "retries": {"total_max_attempts": tries, "mode": "standard"},
        "connect_timeout": _CONNECT_S,
        "read_timeout": _SILENCE_S,
        "max_pool_connections": 32,
        **extra.pop("config_kwargs", {}),
    }
    if options.endpoint_url:
        extra.setdefault("endpoint_url", options.endpoint_url)
    if options.profile:
        extra.setdefault("profile", options.profile)
    if options.anonymous:
        extra["anon"] = True
    try:
        fs = s3fs.S3FileSystem(config_kwargs=config, skip_instance_cache=True, use_listings_cache=False, **extra)
        fs.retries = tries
        fs.connect()
        fs.session.get_component("response_parser_factory").set_parser_defaults(timestamp_parser=instant)
    except Exception as error:
        for name in options.for_fsspec():
            if isinstance(error, TypeError) and f"'{name}'" in str(error):
                raise SettingsError(f"--storage-option {name}: s3:// urls have no such option") from error
        raise SettingsError(
            options.hide(f"cannot open s3:// urls: {type(error).__name__}: {error}: ")
            + "check --profile, --endpoint-url and --storage-option"
        ) from error
    return fs


def instant(told: Any) -> datetime:
    """A time as botocore understands it. The form of listings goes a faster way: two thirds of their time, else."""
    if isinstance(told, str) and told[10:11] == "T":
        with suppress(ValueError):
            return datetime.fromisoformat(told)
    return cast(datetime, parse_timestamp(told))


class Body(io.RawIOBase):
    """The bytes of one version of an object from `start` on, in order; goes on by range after a cut."""

    def __init__(
        self, client: S3Client, uri: str, version: str | None, start: int = 0, stop: int | None = None
    ) -> None:
        super().__init__()
        self._client, self._uri, self._version = client, uri, version
        self._position, self._stop = start, stop
        self._is_part = stop is not None
        self._response: Any = None
        self._length: int | None = None  # of the response that is open
        self.md5: str | None = None  # of the whole object, where the store tells it

    def readable(self) -> bool:
        return True

    def connect(self) -> None:
        """Ask for the first bytes, so that an object that may not be read is known before reading."""
        if self._stop != self._position:
            with_retries(self._connect_once, f"reading {self._uri}")

    def readall(self) -> bytes:
        pieces = []
        while piece := with_retries(self._next, f"reading {self._uri}"):
            pieces.append(piece)
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def readinto(self, buffer: Any) -> int:
        piece = with_retries(lambda: self._next(len(buffer)), f"reading {self._uri}")
        buffer[: len(piece)] = piece
        return len(piece)

    def close(self) -> None:
        self._drop()
        super().close()

    def _drop(self) -> None:
        response, self._response = self._response, None
        if response is not None:
            loop = self._client.fs.loop
            if loop.is_running():
                loop.call_soon_threadsafe(response["Body"].close)

    def _connect_once(self) -> None:
        if self._response is not None:
            return
        bucket, key = split(self._uri)
        arguments: dict[str, Any] = {"Bucket": bucket, "Key": key}
        if self._version is not None:
            arguments["IfMatch"] = f'"{self._version}"'
        # From the start of the whole it is asked without a range: only then does the checksum come that is stored.
        if ranged := bool(self._position or self._is_part):
            arguments["Range"] = f"bytes={self._position}-{'' if self._stop is None else self._stop - 1}"
        response = self._client.once(self._uri, self._client.request("get_object", **arguments), READ_PATIENCE_S)
        self._response, self._length = response, int(response["ContentLength"])
        found = etag_of(response)
        if self._version is None:
            self._version = found
        elif found != self._version:  # a store that does not know If-Match
            self._drop()
            raise ObjectChanged(f"{self._uri}: listed as {self._version}, now {found} (ETag)")
        if ranged:
            self._check_place(response)
        else:
            self.md5, self._stop = _md5_told(response), self._length

    def _check_place(self, response: dict[str, Any]) -> None:
        """Raises StorageError for bytes from elsewhere: a store, or something before it, that ignores ranges."""
        told = str(response.get("ContentRange", ""))
        if self._position and not told.startswith(f"bytes {self._position}-"):
            self._drop()
            raise StorageError(
                f"{self._uri}: asked for its bytes from {self._position} on, came {told or 'the whole'}: the store is "
                "at fault, or a proxy before it"
            )

    def _next(self, size: int | None = None) -> bytes:
        """The next bytes, at most `size`; empty at the end. After a failure the next call asks by range."""
        if self._stop is not None and self._position >= self._stop:
            return b""
        self._connect_once()
        if size is None and self._length is not None and self._length > _AT_ONCE_BYTES:
            size = _PIECE_BYTES
        try:
            piece: bytes = self._client.once(self._uri, lambda: self._response["Body"].read(size))
            if not piece:
                raise translate(EOFError("the body ended early"), self._uri, str)
        except BaseException:
            self._drop()
            raise
        self._position += len(piece)
        return piece


def split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.split("://", 1)[1].partition("/")
    return bucket, key


def md5_of(data: bytes) -> str:
    return hashlib.md5(data, usedforsecurity=False).hexdigest()


def _md5_told(response: dict[str, Any]) -> str | None:
    """The ETag of an object that was put in one piece and is not encrypted with keys of a service or a customer."""
    plain = response.get("ServerSideEncryption") in (None, "AES256") and not response.get("SSECustomerAlgorithm")
    etag = etag_of(response)
    return etag if etag and plain and re.fullmatch("[0-9a-f]{32}", etag) else None


def etag_of(response: dict[str, Any]) -> str | None:
    etag = response.get("ETag")
    return etag.strip('"') if etag else None
