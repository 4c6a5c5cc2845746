"""What the user's input urls mean: single objects, folders, globs and manifests, each found to be there.

Looks at what is needed for an early answer, lists nothing yet.
"""

from __future__ import annotations

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from enum import Enum, auto
from itertools import islice

from tinyface_core.archive.candidates import SIDECARS, CandidateFilter, extension_of, kind_of
from tinyface_core.archive.globs import Glob, expand_braces, has_magic
from tinyface_core.archive.manifest import is_manifest, uri_column
from tinyface_core.archive.members import ArchiveBroken
from tinyface_core.archive.parquet import opened, picture_columns
from tinyface_core.archive.record import Kind, Source
from tinyface_core.errors import InputError
from tinyface_core.storage import ObjectDenied, ObjectError, ObjectInfo, Storage, unsigned

_THREADS = 16


class Form(Enum):
    """What an input is."""

    OBJECT = auto()
    FOLDER = auto()
    GLOB = auto()
    MANIFEST = auto()


@dataclass(frozen=True)
class Input:
    """One input, after braces. info: of the object or manifest, else None."""

    uri: str
    form: Form
    info: ObjectInfo | None = None


def resolve(inputs: Sequence[str], storage: Storage, candidates: CandidateFilter) -> list[Input]:
    """The inputs in order. Raises: InputError naming the first that is not there; StorageError."""
    if not inputs:
        raise InputError("no --input: name a folder, an archive, a manifest, or a pattern of them")
    urls: list[str] = []
    for given in inputs:
        urls += [given] if _is_there(storage.canonical(given), storage) else expand_braces(given)
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="inputs") as pool:
        return list(pool.map(lambda url: _resolve(url, storage, candidates), urls))


def _is_there(uri: str, storage: Storage) -> bool:
    """Whether a name with braces or wildcards in it is meant as it stands; others are not asked for twice."""
    if not (has_magic(uri) or "{" in uri):
        return True
    try:
        return storage.stat(uri) is not None or storage.has_folder(uri)
    except ObjectError:
        return False


def _resolve(url: str, storage: Storage, candidates: CandidateFilter) -> Input:
    url = storage.canonical(url)
    uri = unsigned(url)
    try:
        info = None if uri.endswith("/") else storage.stat(url)
        is_marker = info is not None and info.size_bytes == 0 and uri.startswith("s3://") and storage.has_folder(uri)
        if info is not None and not is_marker:
            return _named(info, storage, candidates)
        if storage.has_folder(uri):
            return Input(uri, Form.FOLDER)
        if has_magic(uri):
            Glob(uri)
            return Input(uri, Form.GLOB)
    except ObjectDenied as error:
        raise InputError(
            f"no permission to read {uri}: {error}: ask for the right to read and list, or use other credentials"
        ) from error
    mend = "check the spelling" if uri.startswith("file://") else "check the spelling and the endpoint"
    if "/runtime_resources/working_dir_files/" in uri:  # a relative path of a submitted job
        mend = "only what --working-dir sends is there, less what .rayignore names: give an absolute path or a url"
    raise InputError(f"no such input: {uri}: nothing is stored there: {mend}")


def _named(info: ObjectInfo, storage: Storage, candidates: CandidateFilter) -> Input:
    """An object that was named directly: a manifest, an archive or a picture."""
    if is_manifest(info.uri):
        return Input(info.uri, Form.MANIFEST, info)
    if kind_of(info.uri) is Kind.PARQUET:
        columns = parquet_columns(info, storage)
        if columns is not None and not columns.has_pictures:
            if uri_column(columns.names) is None:
                raise InputError(
                    f"{info.uri}: neither a binary column (pictures) nor a column of urls (a manifest); "
                    f"it has: {', '.join(columns.names[:30])}"
                )
            return Input(info.uri, Form.MANIFEST, info)
    elif (extension := extension_of(info.uri)) in SIDECARS and not candidates.all_files:
        raise InputError(
            f"{info.uri}: {extension} files hold no pictures: name a picture, an archive or a manifest "
            "(.txt, .csv, .parquet), or give --all-files"
        )
    return Input(info.uri, Form.OBJECT, info)


@dataclass(frozen=True)
class ParquetColumns:
    """What listing needs to know of a Parquet file."""

    names: list[str]
    has_pictures: bool


def source_of(info: ObjectInfo, kind: Kind | None = None) -> Source:
    """The object as a source; its kind is that of its name where none is given."""
    return Source(
        info.uri, kind or kind_of(info.uri), info.size_bytes, info.version, info.modified, signed_url=info.signed_url
    )


def parquet_columns(info: ObjectInfo, storage: Storage) -> ParquetColumns | None:
    """None where the file cannot be read: then it is a source, and reading it gives the error row."""
    try:
        with opened(source_of(info, Kind.PARQUET), storage) as file:
            return ParquetColumns(file.schema_arrow.names, picture_columns(file.schema_arrow) is not None)
    except (ArchiveBroken, ObjectError):
        return None


def is_empty(folder: str, storage: Storage) -> bool:
    """Whether nothing at all is stored below. Raises: ObjectDenied, StorageError."""
    return not list(islice(storage.list(folder), 1))
