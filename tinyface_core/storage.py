"""Objects by url: one front for local disk, S3 and whatever else fsspec knows.

Knows bytes, sizes, versions and what can be wrong with them; knows nothing of pictures, archives or tables. Its
backends are in `tinyface_core/stores/`. A `Storage` can be pickled: each process makes its own connections, when it
first needs them. It may be used from several threads.
"""

from __future__ import annotations

import os
from collections.abc import Callable, Iterable, Iterator
from dataclasses import replace
from pathlib import Path
from threading import RLock
from typing import BinaryIO

import fsspec
from fsspec import AbstractFileSystem

from tinyface_core.errors import InputError
from tinyface_core.stores.base import (
    ObjectChanged,
    ObjectDamaged,
    ObjectDenied,
    ObjectError,
    ObjectInfo,
    ObjectMissing,
    ObjectTooLarge,
    StorageOptions,
    Store,
    on_retry,
)
from tinyface_core.stores.local import LocalStore
from tinyface_core.stores.signed import unsigned

__all__ = [
    "ObjectChanged",
    "ObjectDamaged",
    "ObjectDenied",
    "ObjectError",
    "ObjectInfo",
    "ObjectMissing",
    "ObjectTooLarge",
    "Storage",
    "StorageOptions",
    "on_retry",
    "unsigned",
]

_S3 = ("s3", "s3a", "s3n")


class Storage:
    """Reads and writes objects by their canonical uri.

    What is wrong with one object is an ObjectError (ObjectMissing, ObjectChanged, ObjectDenied, ObjectDamaged,
    ObjectTooLarge). Everything else that lasts longer than the retries is errors.StorageError and names the url:
    network, credentials, a full disk. An option that makes no sense is errors.SettingsError, at the first use of its
    protocol.
    """

    def __init__(self, options: StorageOptions | None = None) -> None:
        options = options or StorageOptions()
        if options.endpoint_url is None:  # taken here, so that it travels to workers, which may not have it
            endpoint = os.environ.get("AWS_ENDPOINT_URL_S3") or os.environ.get("AWS_ENDPOINT_URL")
            options = replace(options, endpoint_url=endpoint or None)
        self.options = options
        self._stores: dict[tuple[int, str], Store] = {}
        self._making = RLock()

    def __reduce__(self) -> tuple[type[Storage], tuple[StorageOptions]]:
        return Storage, (self.options,)

    def canonical(self, url: str) -> str:
        """The url that the store takes: `dir/a b` -> `file:///abs/dir/a b`; `s3://bucket/key` stays.

        It is the uri of tables and hashes too, but for signed urls, of which that is `unsigned(url)`.
        Nothing is percent-encoded or decoded, links are not resolved, no network is used.
        Raises: InputError for a url with a user name or password in it: it would end up in tables and logs.
        """
        protocol = _protocol(url)
        if protocol != "file" and "@" in (authority := url.split("://", 1)[1].split("/", 1)[0]):
            raise InputError(
                f"{protocol}://***@{authority.rpartition('@')[2]}/...: credentials in a url would end up in tables and "
                "logs: give them by environment, --profile or --storage-option."
            )
        if protocol == "file":
            return LocalStore().canonical(url)
        if not url.split("://", 1)[1].strip("/"):
            raise InputError(f"{url}: names no bucket or server: write it behind the //")
        return "s3://" + url.split("://", 1)[1] if protocol in _S3 else url

    def stat(self, uri: str) -> ObjectInfo | None:
        """The object, or None when there is none (or a folder). Raises: ObjectDenied, StorageError."""
        return self._store(uri).stat(uri)

    def list(
        self, prefix: str, *, starts_with: str = "", enter: Callable[[str], bool] = lambda folder: True
    ) -> Iterator[ObjectInfo]:
        """Objects below the folder `prefix`, recursively, streamed; none when there is no such folder.

        `s3://b/a` lists keys that start with `a/`, never `ab`. S3 gives UTF-8 binary key order, other stores the order
        that they have; memory is bounded by one page (S3), the folders still to visit (disk) or one folder (others).
        Folder keys (zero bytes, ending in `/`) are left out. starts_with, enter: hints that spare work where the store
        can use them: how a name directly below `prefix` starts; whether a folder (its uri) may hold what is sought.
        Raises: ObjectDenied for a folder, StorageError.
        """
        return self._store(prefix).list(prefix, starts_with, enter)

    def has_folder(self, uri: str) -> bool:
        """Whether there is such a folder, maybe empty; on object stores, anything below it.

        Raises as `list`; InputError for a bucket that is not there.
        """
        return self._store(uri).has_folder(uri)

    def read(self, uri: str, version: str | None = None, size_bytes: int | None = None) -> bytes:
        """The whole object, all of one version: `version` if given. Raises: ObjectError, StorageError.

        size_bytes: as it was listed; an answer of another size is asked for again. What else tells damage on the
        way is used where it is there: the checksum stored with the object, an ETag that is its MD5.
        """
        return self._store(uri).read(uri, version, size_bytes)

    def open(self, uri: str, version: str | None = None) -> BinaryIO:
        """A seekable file that reads ranges, for zip, Parquet and split tars; `read` too may raise as in `read`."""
        return self._store(uri).open(uri, version)

    def open_stream(self, uri: str, version: str | None = None) -> BinaryIO:
        """A file to be read once from its start, for tars; a cut connection goes on where it was."""
        return self._store(uri).open_stream(uri, version)

    def write(self, uri: str, data: bytes) -> None:
        """Make or replace the object, whole or not at all, within 20 s. Raises: StorageError.

        One PUT; on disk a temporary file beside it (hidden, ending in `.tmp`), fsync of file and folder, rename.
        Missing folders are made.
        """
        self._store(uri).write(uri, data)

    def delete(self, uri: str) -> None:
        """Remove the object; one that is not there is fine. Raises: StorageError."""
        self._store(uri).delete(uri)

    def copy_here(self, uris: Iterable[str], below: str, folder: Path) -> None:
        """Copies of objects below a uri, under the same names in a folder on this disk.

        Raises: InputError for a key that leads out of the folder; ObjectError, StorageError.
        """
        for uri in uris:
            name = uri.removeprefix(below).removeprefix("/")
            if ".." in name.split("/"):
                raise InputError(f"{uri}: a key with .. in it is not copied.")
            file = folder / name
            file.parent.mkdir(parents=True, exist_ok=True)
            file.write_bytes(self.read(uri))

    def make_folder(self, uri: str) -> None:
        """Make a folder and those above it; does nothing on object stores. Raises: StorageError."""
        self._store(uri).make_folder(uri)

    def file_system(self, uri: str) -> AbstractFileSystem:
        """The store of this uri as fsspec has it, with bounded retries of its own: for libraries that take one."""
        protocol = _protocol(uri)
        if protocol in _S3:
            from tinyface_core.stores.s3_client import file_system

            return file_system(self.options, tries=5)
        return fsspec.filesystem(protocol, **self.options.for_fsspec())

    def _store(self, uri: str) -> Store:
        protocol = _protocol(uri)
        place = (os.getpid(), protocol)  # connections do not survive a fork
        store = self._stores.get(place)
        if store is None:
            with self._making:
                store = self._stores.get(place) or self._make(protocol)
                self._stores[place] = store
        return store

    def _make(self, protocol: str) -> Store:
        if protocol == "file":
            return LocalStore()
        if protocol in _S3:  # imported when needed: s3fs and botocore take half a second
            from tinyface_core.stores.s3 import S3Store

            return S3Store(self.options)
        from tinyface_core.stores.generic import GenericStore

        return GenericStore(protocol, self.options)


def _protocol(url: str) -> str:
    head, separator, _ = url.partition("://")
    return head.lower() if separator and head.isalnum() else "file"
