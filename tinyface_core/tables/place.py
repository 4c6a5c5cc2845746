"""Where an output may lie: in a folder that can be written to, and not inside another output."""

from __future__ import annotations

import os
import tempfile
import uuid
from collections.abc import Iterable
from contextlib import suppress

from tinyface_core.errors import OutputError, StorageError
from tinyface_core.storage import ObjectError, Storage

_OWN_FOLDERS = ("images", "detections", "_run")
_MOST_LOOKED_AT = 3  # folders; each costs a request


def output_around(storage: Storage, uri: str, mark: str) -> str | None:
    """The output among whose tables or own files this folder would lie. mark: a file that each output has."""
    parts = uri.split("/")
    inside = [place for place, part in enumerate(parts) if part in _OWN_FOLDERS and place > 2]  # 2 is the bucket
    for folder in ("/".join(parts[:place]) for place in inside[-_MOST_LOOKED_AT:]):
        with suppress(ObjectError, StorageError):  # not for us to look into, so hardly of our making
            if storage.stat(f"{folder}/{mark}") is not None:
                return folder
    return None


def refuse_among(uri: str, inputs: Iterable[str], option: str, what: str) -> None:
    """Raises OutputError for a place inside an input (canonical uris): `what` would be taken for new pictures there."""
    for each in inputs:
        if uri == each.rstrip("/") or uri.startswith(f"{each.rstrip('/')}/"):
            raise OutputError(
                f"{option} {uri}: lies in {each}, an input of this output: {what} would be taken for new pictures "
                "there. Give a folder outside of it."
            )


def check_writable(storage: Storage, uri: str, option: str = "--output") -> None:
    """Writes something, and leaves nothing behind: on disk not even a folder that was not there.

    Raises: OutputError.
    """
    try:
        if uri.startswith("file://"):
            for folder in {_nearest_folder(f"{uri}/{name}") for name in ("_run", "images", "detections")}:
                with tempfile.TemporaryFile(dir=folder) as file:
                    file.write(b"probe")
        else:
            _probe(storage, f"{uri}/_run/probe-{uuid.uuid4().hex}")
    except (OSError, ObjectError, StorageError) as error:
        raise OutputError(
            f"{option} {uri}: cannot be written to: {error}. Check the permissions and the free space, or give another "
            "folder."
        ) from error


def _probe(storage: Storage, uri: str) -> None:
    try:
        storage.write(uri, b"probe")
    except BaseException:
        with suppress(StorageError):  # what could not be written need not be deleted
            storage.delete(uri)
        raise
    storage.delete(uri)


def _nearest_folder(uri: str) -> str:
    """The deepest folder above or at `uri` that exists: the first one in which something would be made."""
    path = uri.removeprefix("file://")
    while not os.path.lexists(path) and path != os.path.dirname(path):
        path = os.path.dirname(path)
    return path
