"""S3 and what speaks its protocol. The version of an object is its ETag, and every read asks for it by If-Match.

s3fs makes the client (profiles, endpoint, anonymous, `--storage-option`); the calls are S3's own, each tried once by
the client, so that one place bounds the retries. Keys are taken as they are: `a//b`, spaces and `%` mean themselves.
"""

from __future__ import annotations

import asyncio
import io
import threading
import time
from collections.abc import Awaitable, Callable, Iterator
from datetime import UTC
from typing import Any, BinaryIO, TypeVar, cast

import fsspec.asyn
import s3fs

from tinyface_core.errors import InputError, SettingsError, StorageError
from tinyface_core.stores.base import (
    READ_PATIENCE_S,
    WRITE_PATIENCE_S,
    ObjectChanged,
    ObjectError,
    ObjectInfo,
    ObjectMissing,
    RangeFile,
    StorageOptions,
    with_retries,
)
from tinyface_core.stores.s3_errors import needs_a_body, translate

T = TypeVar("T")
_CONNECT_S, _SILENCE_S = 5, 15
# A body up to this size is read in one go, which checks its sum; a larger one in pieces, which a cut does not lose.
_AT_ONCE_BYTES = 16 << 20
_PIECE_BYTES = 1 << 20
_SMALL_BYTES = 4 << 20


class S3Store:
    """Objects in buckets; see `Storage` for what each method promises."""

    def __init__(self, options: StorageOptions) -> None:
        self._options = options
        self._fs = file_system(options)
        self._connecting = threading.Lock()

    def canonical(self, url: str) -> str:
        return "s3://" + url.split("://", 1)[1]

    def stat(self, uri: str) -> ObjectInfo | None:
        bucket, key = _split(uri)
        if not key:
            return None
        try:
            head = self._call("asking for", uri, "head_object", Bucket=bucket, Key=key)
        except ObjectMissing:
            return None
        return ObjectInfo(uri, int(head["ContentLength"]), _etag(head), head["LastModified"].astimezone(UTC))

    def list(self, folder: str, starts_with: str, enter: Callable[[str], bool]) -> Iterator[ObjectInfo]:
        """Objects below `folder`, by key in UTF-8 binary order, a page of 1,000 at a time; folder keys left out.

        `enter` is not asked: to skip a folder would cost as many requests as to list it.
        """
        bucket, prefix = _prefix(folder)
        prefix += starts_with
        token: dict[str, Any] = {}
        while True:
            try:
                page = self._call("listing", folder, "list_objects_v2", Bucket=bucket, Prefix=prefix, **token)
            except ObjectMissing:
                return  # no such bucket
            for entry in page.get("Contents", ()):
                if not (entry["Key"].endswith("/") and entry["Size"] == 0):
                    uri = f"s3://{bucket}/{entry['Key']}"
                    yield ObjectInfo(uri, entry["Size"], _etag(entry), entry["LastModified"].astimezone(UTC))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def has_folder(self, uri: str) -> bool:
        bucket, prefix = _prefix(uri)
        try:
            page = self._call("listing", uri, "list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except ObjectMissing as error:
            raise InputError(f"{uri}: no such bucket: {bucket}: check its name and --endpoint-url") from error
        return bool(page.get("Contents")) or not prefix  # an empty bucket is an empty folder

    def read(self, uri: str, version: str | None) -> bytes:
        with _Body(self, uri, version) as body:
            return body.readall()

    def open(self, uri: str, version: str | None) -> BinaryIO:
        found = self.stat(uri)
        if found is None:
            raise ObjectMissing(f"{uri}: no such object")
        if version is not None and found.version != version:
            raise ObjectChanged(f"{uri}: listed as {version}, now {found.version} (ETag)")

        def fetch(start: int, stop: int) -> bytes:
            with _Body(self, uri, found.version, start, stop) as body:
                data = body.readall()
            if len(data) != stop - start:
                raise StorageError(f"{uri}: bytes {start} to {stop} came as {len(data)} bytes: the store is at fault")
            return data

        return cast(BinaryIO, RangeFile(fetch, found.size_bytes))

    def open_stream(self, uri: str, version: str | None) -> BinaryIO:
        body = _Body(self, uri, version)
        body.connect()
        return cast(BinaryIO, io.BufferedReader(body, _PIECE_BYTES))

    def write(self, uri: str, data: bytes) -> None:
        bucket, key = _split(uri)
        try:
            self._call("writing", uri, "put_object", WRITE_PATIENCE_S, Bucket=bucket, Key=key, Body=data)
        except ObjectError as error:
            raise StorageError(f"cannot write {error}") from error

    def delete(self, uri: str) -> None:
        bucket, key = _split(uri)
        try:
            self._call("deleting", uri, "delete_object", WRITE_PATIENCE_S, Bucket=bucket, Key=key)
        except ObjectMissing:
            pass
        except ObjectError as error:
            raise StorageError(f"cannot delete {error}") from error

    def make_folder(self, uri: str) -> None:
        pass

    def once(self, uri: str, make: Callable[[], Awaitable[T]], patience_s: float | None = None) -> T:
        """What the coroutine gives, run in s3fs's loop; any exception as `translate` maps it (maybe Transient)."""

        async def bounded() -> T:
            return await asyncio.wait_for(make(), patience_s)

        try:
            return cast(T, fsspec.asyn.sync(self._fs.loop, bounded))
        except Exception as error:
            raise translate(error, uri, self._options.hide) from error

    def request(self, method: str, **arguments: Any) -> Callable[[], Awaitable[Any]]:
        return lambda: self._fs._call_s3(method, **arguments)

    def _call(self, doing: str, uri: str, method: str, patience_s: float = READ_PATIENCE_S, **arguments: Any) -> Any:
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

        return with_retries(attempt, f"{doing} {self._options.hide(uri)}", patience_s)


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
    except Exception as error:
        for name in options.for_fsspec():
            if isinstance(error, TypeError) and f"'{name}'" in str(error):
                raise SettingsError(f"--storage-option {name}: s3:// urls have no such option") from error
        raise SettingsError(
            options.hide(f"cannot open s3:// urls: {type(error).__name__}: {error}: ")
            + "check --profile, --endpoint-url and --storage-option"
        ) from error
    return fs


class _Body(io.RawIOBase):
    """The bytes of one version of an object from `start` on, in order; goes on by range after a cut."""

    def __init__(self, store: S3Store, uri: str, version: str | None, start: int = 0, stop: int | None = None) -> None:
        super().__init__()
        self._store, self._uri, self._version = store, uri, version
        self._position, self._stop = start, stop
        self._response: Any = None
        self._length: int | None = None  # of the response that is open

    def readable(self) -> bool:
        return True

    def connect(self) -> None:
        """Ask for the first bytes, so that a missing or changed object is known before reading."""
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
            loop = self._store._fs.loop
            if loop.is_running():
                loop.call_soon_threadsafe(response["Body"].close)

    def _connect_once(self) -> None:
        if self._response is not None:
            return
        bucket, key = _split(self._uri)
        arguments: dict[str, Any] = {"Bucket": bucket, "Key": key}
        if self._version is not None:
            arguments["IfMatch"] = f'"{self._version}"'
        if self._position or self._stop is not None:
            arguments["Range"] = f"bytes={self._position}-{'' if self._stop is None else self._stop - 1}"
        response = self._store.once(self._uri, self._store.request("get_object", **arguments), READ_PATIENCE_S)
        self._response, self._length = response, int(response["ContentLength"])
        found = _etag(response)
        if self._version is None:
            self._version = found
        elif found != self._version:  # a store that does not know If-Match
            self._drop()
            raise ObjectChanged(f"{self._uri}: listed as {self._version}, now {found} (ETag)")
        if self._stop is None:
            self._stop = self._position + self._length

    def _next(self, size: int | None = None) -> bytes:
        """The next bytes, at most `size`; empty at the end. After a failure the next call asks by range."""
        if self._stop is not None and self._position >= self._stop:
            return b""
        self._connect_once()
        if size is None and self._length is not None and self._length > _AT_ONCE_BYTES:
            size = _PIECE_BYTES
        try:
            piece: bytes = self._store.once(self._uri, lambda: self._response["Body"].read(size))
            if not piece:
                raise translate(EOFError("the body ended early"), self._uri, str)
        except BaseException:
            self._drop()
            raise
        self._position += len(piece)
        return piece


def _split(uri: str) -> tuple[str, str]:
    bucket, _, key = uri.split("://", 1)[1].partition("/")
    return bucket, key


def _prefix(folder: str) -> tuple[str, str]:
    bucket, key = _split(folder)
    return bucket, key if not key or key.endswith("/") else key + "/"


def _etag(response: dict[str, Any]) -> str | None:
    etag = response.get("ETag")
    return etag.strip('"') if etag else None
