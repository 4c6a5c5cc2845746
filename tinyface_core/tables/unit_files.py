"""The two files of each unit, read as tables for those who read a whole output: report, exports, comparison.

An images file names its detections file by its `commit`, so that the join is one pair of small files, and a file that
no commit names is never read. Knows files and columns; does not know what is made of them.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from typing import TypeVar

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinyface_core.errors import StorageError
from tinyface_core.storage import ObjectInfo, ObjectMissing, Storage
from tinyface_core.tables.format_version import check_footer
from tinyface_core.tables.schema import DETECTIONS_SCHEMA

T = TypeVar("T")
R = TypeVar("R")

_THREADS = 8


def images_files(storage: Storage, folder: str) -> Iterator[str]:
    """Uris, streamed, in the order of the store. folder: the output's canonical uri without a last slash."""
    return (info.uri for info in images_objects(storage, folder))


def images_objects(storage: Storage, folder: str) -> Iterator[ObjectInfo]:
    """As `images_files`, with what the store tells of each: when it was written."""
    return (info for info in storage.list(f"{folder}/images/") if info.uri.endswith(".parquet"))


def detections_file(folder: str, images_uri: str, commit: str) -> str:
    """Beside the images file, partition folders included: detections/[key=value/]part-<unit>-<commit>.parquet."""
    below = images_uri.removeprefix(f"{folder}/images/").removesuffix(".parquet")
    return f"{folder}/detections/{below}-{commit}.parquet"


def read_table(storage: Storage, uri: str, columns: list[str] | None = None) -> pa.Table:
    """One request for the whole file: units are small, and column ranges would cost a round trip each.

    Raises:
        ObjectMissing; FormatError; StorageError: not Parquet with these columns, or the store's.
    """
    data = storage.read(uri)
    try:
        check_footer(pq.read_metadata(pa.BufferReader(data)).metadata, uri)
        return pq.read_table(pa.BufferReader(data), columns=columns, use_threads=False, partitioning=None)
    except (pa.ArrowException, OSError) as error:
        raise StorageError(
            f"{uri}: not a table of tinyface ({error}). Run the same job again: it redoes what is damaged."
        ) from error


def read_unit(
    storage: Storage,
    folder: str,
    images_uri: str,
    image_columns: list[str] | None = None,
    face_columns: list[str] | None = None,
) -> tuple[pa.Table, pa.Table, str] | None:
    """images and detections of a unit, and the uri of the latter; None where they are not whole.

    A unit that is committed anew between the two reads has another commit then: it is read once more.

    Args:
        folder: as in `images_files`. image_columns: with `commit` among them; None: all, as for face_columns.
    Raises: as `read_table`.
    """
    for _ in range(2):
        try:
            images = read_table(storage, images_uri, image_columns)
            commit = images["commit"][0].as_py() if images.num_rows else ""
            faces_uri = detections_file(folder, images_uri, commit)
            if not images.num_rows:
                faces = DETECTIONS_SCHEMA.empty_table()
                return images, faces.select(face_columns) if face_columns else faces, faces_uri
            return images, read_table(storage, faces_uri, face_columns), faces_uri
        except ObjectMissing:
            continue
    return None


def check_faces(images: pa.Table, faces: pa.Table, faces_uri: str) -> None:
    """That the faces are those that the pictures tell of, in the same order.

    Raises: StorageError.
    """
    expected = np.repeat(images["image_id"].to_numpy(), images["num_faces"].to_numpy())
    if not np.array_equal(expected, faces["image_id"].to_numpy()):
        raise StorageError(
            f"{faces_uri}: its rows are not those that its images file tells. Look with jobs/validate.py."
        )


def in_threads(work: Callable[[T], R], items: Iterable[T]) -> Iterator[R]:
    """In order; only a few items are taken ahead, so that 10^5 files do not lie in memory as futures."""
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="units") as pool:
        ahead: deque[Future[R]] = deque()
        for item in items:
            ahead.append(pool.submit(work, item))
            if len(ahead) >= 2 * _THREADS:
                yield ahead.popleft().result()
        while ahead:
            yield ahead.popleft().result()
