"""S3 and what speaks its protocol. The version of an object is its ETag, and every read asks for it by If-Match.

s3fs makes the client (profiles, endpoint, anonymous, `--storage-option`); the calls are S3's own, each tried once by
the client, so that one place bounds the retries. Keys are taken as they are: `a//b`, spaces and `%` mean themselves.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Iterator
from datetime import UTC
from typing import Any, BinaryIO, cast

from tinyface_core.errors import InputError, StorageError
from tinyface_core.stores.base import (
    WRITE_PATIENCE_S,
    Damaged,
    ObjectChanged,
    ObjectError,
    ObjectInfo,
    ObjectMissing,
    RangeFile,
    StorageOptions,
    with_retries,
)
from tinyface_core.stores.s3_client import Body, S3Client, etag_of, md5_of, split

_BUFFER_BYTES = 1 << 20


class S3Store:
    """Objects in buckets; see `Storage` for what each method promises."""

    def __init__(self, options: StorageOptions) -> None:
        self._client = S3Client(options)
        self._etag_is_md5: bool | None = None  # of this store; unknown until an object was read

    def canonical(self, url: str) -> str:
        return "s3://" + url.split("://", 1)[1]

    def stat(self, uri: str) -> ObjectInfo | None:
        bucket, key = split(uri)
        if not key:
            return None
        try:
            head = self._client.call("asking for", uri, "head_object", Bucket=bucket, Key=key)
        except ObjectMissing:
            return None
        return ObjectInfo(uri, int(head["ContentLength"]), etag_of(head), head["LastModified"].astimezone(UTC))

    def list(self, folder: str, starts_with: str, enter: Callable[[str], bool]) -> Iterator[ObjectInfo]:
        """Objects below `folder`, by key in UTF-8 binary order, a page of 1,000 at a time; folder keys left out.

        `enter` is not asked: to skip a folder would cost as many requests as to list it.
        """
        bucket, prefix = _prefix(folder)
        prefix += starts_with
        token: dict[str, Any] = {}
        while True:
            try:
                page = self._client.call("listing", folder, "list_objects_v2", Bucket=bucket, Prefix=prefix, **token)
            except ObjectMissing:
                return  # no such bucket
            for entry in page.get("Contents", ()):
                if not (entry["Key"].endswith("/") and entry["Size"] == 0):
                    uri = f"s3://{bucket}/{entry['Key']}"
                    yield ObjectInfo(uri, entry["Size"], etag_of(entry), entry["LastModified"].astimezone(UTC))
            if not page.get("IsTruncated"):
                return
            token = {"ContinuationToken": page["NextContinuationToken"]}

    def has_folder(self, uri: str) -> bool:
        bucket, prefix = _prefix(uri)
        try:
            page = self._client.call("listing", uri, "list_objects_v2", Bucket=bucket, Prefix=prefix, MaxKeys=1)
        except ObjectMissing as error:
            raise InputError(f"{uri}: no such bucket: {bucket}: check its name and --endpoint-url") from error
        return bool(page.get("Contents")) or not prefix  # an empty bucket is an empty folder

    def read(self, uri: str, version: str | None, size_bytes: int | None = None) -> bytes:
        """Checked by size and by an ETag that is the MD5. Twice the same other bytes are believed: the ETag of some
        stores looks like an MD5 and is none."""
        needed, refused = size_bytes, set[str]()

        def attempt() -> bytes:
            nonlocal needed
            with Body(self._client, uri, version) as body:
                data = body.readall()
            told = None if self._etag_is_md5 is False else body.md5
            made = told and md5_of(data)
            if made != told and needed is None:
                needed = self._found(uri, version).size_bytes
            if needed not in (None, len(data)):
                raise Damaged(f"{len(data)} bytes came of {needed}")
            if made is not None and made != told and made not in refused:
                refused.add(made)
                raise Damaged(f"the bytes do not match the checksum in the ETag, {told}")
            if self._etag_is_md5 is None and told is not None:
                self._etag_is_md5 = made == told
            return data

        return with_retries(attempt, f"reading {uri}")

    def _found(self, uri: str, version: str | None) -> ObjectInfo:
        """The object as it is, in this version. Raises: ObjectMissing, ObjectChanged and as `stat`."""
        found = self.stat(uri)
        if found is None:
            raise ObjectMissing(f"{uri}: no such object")
        if version is not None and found.version != version:
            raise ObjectChanged(f"{uri}: listed as {version}, now {found.version} (ETag)")
        return found

    def open(self, uri: str, version: str | None) -> BinaryIO:
        found = self._found(uri, version)

        def fetch(start: int, stop: int) -> bytes:
            with Body(self._client, uri, found.version, start, stop) as body:
                data = body.readall()
            if len(data) != stop - start:
                raise StorageError(f"{uri}: bytes {start} to {stop} came as {len(data)} bytes: the store is at fault")
            return data

        return cast(BinaryIO, RangeFile(fetch, found.size_bytes))

    def open_stream(self, uri: str, version: str | None) -> BinaryIO:
        found = self._found(uri, version)  # its size: an answer that is shorter, and says so, is no end
        body = Body(self._client, uri, found.version, 0, found.size_bytes)
        body.connect()
        return cast(BinaryIO, io.BufferedReader(body, _BUFFER_BYTES))

    def write(self, uri: str, data: bytes) -> None:
        bucket, key = split(uri)
        try:
            self._client.call("writing", uri, "put_object", WRITE_PATIENCE_S, Bucket=bucket, Key=key, Body=data)
        except ObjectError as error:
            raise StorageError(f"cannot write {error}") from error

    def delete(self, uri: str) -> None:
        bucket, key = split(uri)
        try:
            self._client.call("deleting", uri, "delete_object", WRITE_PATIENCE_S, Bucket=bucket, Key=key)
        except ObjectMissing:
            pass
        except ObjectError as error:
            raise StorageError(f"cannot delete {error}") from error

    def make_folder(self, uri: str) -> None:
        pass


def _prefix(folder: str) -> tuple[str, str]:
    bucket, key = split(folder)
    return bucket, key if not key or key.endswith("/") else key + "/"
