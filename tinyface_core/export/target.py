"""Where an export goes: one file, or one folder of small files, on disk or in a store; there whole, or not at all.

Everything is made on a disk first, in a hidden folder beside the target, or in the temporary folder of this machine
where the target is a store's; then it is put in place: a file, or a folder that is new on this disk, in one step.
In a store, or over an earlier export, a folder comes file by file, and its `_export.json` says `"complete": false`
until all are there. Knows names and bytes, no form.
"""

from __future__ import annotations

import json
import os
import tempfile
import uuid
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import islice
from pathlib import Path

from tinyface_core.errors import OutputError, StorageError
from tinyface_core.storage import ObjectError, Storage
from tinyface_core.tables.footer import batches

MARK = "_export.json"
_PUT_AT_ONCE_BYTES = 8 << 20
_PART_BYTES = 16 << 20  # of what is put in parts; s3fs by itself holds ten of 50 MiB
_THREADS = 16
_NAMED_FILES = 3


class Target:
    """One --output.

    Args:
        out: as the user gave it. suffix: of the files of a folder, one or several; None for a target that is one file.
        overwrite: an earlier export may be replaced.
    """

    def __init__(
        self, storage: Storage, out: str, *, suffix: str | tuple[str, ...] | None = None, overwrite: bool = False
    ) -> None:
        self._storage = storage
        self._ends_as_folder = out.endswith("/")
        self._suffix = suffix
        self._overwrite = overwrite
        self.uri = storage.canonical(out).rstrip("/")

    @property
    def _on_disk(self) -> bool:
        return self.uri.startswith("file://")

    @property
    def _path(self) -> Path:
        return Path(self.uri.removeprefix("file://"))

    def check(self, output_uri: str) -> None:
        """Changes nothing.

        Args:
            output_uri: what is exported, canonical: an export may not lie inside it.
        Raises:
            OutputError: there is something that may not be replaced, or nothing can be written there.
            InputError, ObjectError, StorageError: of a store.
        """
        if f"{self.uri}/".startswith(f"{output_uri.rstrip('/')}/"):
            raise OutputError(
                f"--output {self.uri}: lies inside the output that it is made of. Give a place outside of it."
            )
        if self._suffix is None:
            self._check_file()
        else:
            self._check_folder()
        self._check_writable()

    def _check_file(self) -> None:
        is_bucket = not self._on_disk and "/" not in self.uri.partition("://")[2]
        if self._ends_as_folder or is_bucket or (self._on_disk and self._path.is_dir()):
            raise OutputError(f"--output {self.uri}: is a folder. This form is one file: give its name, too.")
        if not self._overwrite and self._storage.stat(self.uri) is not None:
            raise OutputError(
                f"--output {self.uri}: is there already. Give --overwrite to replace it, or another name."
            )

    def _check_folder(self) -> None:
        if self._storage.stat(self.uri) is not None:
            raise OutputError(f"--output {self.uri}: is a file. This form is a folder of files: give the name of one.")
        found = [
            info.uri.removeprefix(f"{self.uri}/") for info in islice(self._storage.list(f"{self.uri}/"), _NAMED_FILES)
        ]
        if not found:
            return
        if self._storage.stat(f"{self.uri}/{MARK}") is None:
            raise OutputError(
                f"--output {self.uri}: holds files that no export wrote ({', '.join(sorted(found))}). Give a folder "
                "that is empty or does not exist yet."
            )
        if not self._overwrite:
            raise OutputError(
                f"--output {self.uri}: holds an export already. Give --overwrite to replace it, or another folder."
            )

    def _check_writable(self) -> None:
        if self._on_disk:
            above = next(folder for folder in self._path.parents if folder.exists())
            if not (above.is_dir() and os.access(above, os.W_OK)):
                raise OutputError(
                    f"--output {self.uri}: {above} cannot be written to. Check the permissions, or go elsewhere."
                )
            return
        folder = self.uri if self._suffix is not None else self.uri.rpartition("/")[0]
        probe = f"{folder}/.tinyface-probe-{uuid.uuid4().hex}"
        try:
            self._storage.write(probe, b"probe")
            self._storage.delete(probe)
        except (ObjectError, StorageError) as error:
            raise OutputError(f"--output {self.uri}: cannot be written to: {error}") from error

    def stage(self) -> tempfile.TemporaryDirectory[str]:
        """A folder, deleted in the end, in which the export is to be made. Raises: StorageError."""
        try:
            if not self._on_disk:
                return tempfile.TemporaryDirectory(prefix="tinyface-export-")
            self._path.parent.mkdir(parents=True, exist_ok=True)
            return tempfile.TemporaryDirectory(
                prefix=f".{self._path.name[:100]}.", suffix=".tmp", dir=self._path.parent
            )
        except OSError as error:
            raise StorageError(f"--output {self.uri}: cannot be made: {error.strerror or error}.") from error

    def publish(self, staged: Path, describe: dict[str, object]) -> None:
        """Puts a staged file or folder in place.

        Args:
            describe: what `_export.json` of a folder tells.
        Raises:
            StorageError.
        """
        try:
            if self._suffix is None:
                self._put_file(staged)
                return
            (staged / MARK).write_bytes(_mark(describe, complete=True))
            if self._on_disk and not (self._path.is_dir() and any(self._path.iterdir())):
                os.replace(staged, self._path)
                _sync(self._path.parent)
                return
            self._put_folder(staged, describe)
        except OSError as error:
            raise StorageError(f"cannot write {self.uri}: {error.strerror or error}.") from error

    def _put_file(self, staged: Path) -> None:
        if self._on_disk:
            _sync(staged)
            os.replace(staged, self._path)
            _sync(self._path.parent)
        elif staged.stat().st_size <= _PUT_AT_ONCE_BYTES:
            self._storage.write(self.uri, staged.read_bytes())
        else:
            parts = {"chunksize": _PART_BYTES, "max_concurrency": 4} if self.uri.startswith("s3://") else {}
            try:
                self._storage.file_system(self.uri).put_file(str(staged), self.uri, **parts)
            except Exception as error:  # each store has kinds of its own
                hidden = self._storage.options.hide(f"{type(error).__name__}: {error}")
                raise StorageError(f"cannot write {self.uri}: {hidden}") from error

    def _put_folder(self, staged: Path, describe: dict[str, object]) -> None:
        """Over an earlier export, or into a store: what that one has too much goes first."""
        self._storage.write(f"{self.uri}/{MARK}", _mark(describe, complete=False))
        for info in self._storage.list(f"{self.uri}/"):
            name = info.uri.removeprefix(f"{self.uri}/")
            if name.endswith(self._suffix or "") and name != MARK and not (staged / name).exists():
                self._storage.delete(info.uri)
        names = (name for name in _names(staged) if name != MARK)

        def put(name: str) -> None:
            if self._on_disk:
                (self._path / name).parent.mkdir(parents=True, exist_ok=True)
                os.replace(staged / name, self._path / name)
            else:
                self._storage.write(f"{self.uri}/{name}", (staged / name).read_bytes())

        _in_batches(put, names)
        self._storage.write(f"{self.uri}/{MARK}", (staged / MARK).read_bytes())


def _mark(describe: dict[str, object], *, complete: bool) -> bytes:
    return json.dumps({**describe, "complete": complete}, indent=1, ensure_ascii=False).encode()


def _names(folder: Path) -> Iterator[str]:
    for above, _, files in os.walk(folder):
        for name in files:
            yield (Path(above) / name).relative_to(folder).as_posix()


def _in_batches(put: Callable[[str], None], names: Iterator[str]) -> None:
    with ThreadPoolExecutor(_THREADS) as pool:
        for batch in batches(names, 512):
            list(pool.map(put, batch))


def _sync(path: Path) -> None:
    handle = os.open(path, os.O_RDONLY)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
