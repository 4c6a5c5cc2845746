"""A unit of an output as rows to compare: one a picture, its faces as bytes, so that a row may wait on disk.

Legend: P picture, D face of any picture, K face of one. Knows the two tables; not what is compared.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tinyface_core.storage import Storage
from tinyface_core.tables.unit_files import check_faces, read_unit

# faces: x1, y1, x2, y2, score of each, float32; empty in error rows. error: the class; null where there is none.
ROWS = pa.schema(
    [
        *((name, pa.string()) for name in ("image_id", "uri", "member", "source_version", "sha256")),
        ("width", pa.int32()),
        ("height", pa.int32()),
        ("error", pa.string()),
        ("faces", pa.binary()),
    ]
)
_IMAGE_COLUMNS = ["image_id", "uri", "member", "source_version", "sha256", "width", "height", "status", "error_class"]
_IMAGE_COLUMNS += ["num_faces", "commit"]
_FACE = ["x1", "y1", "x2", "y2", "score"]
_FACE_BYTES = 4 * len(_FACE)


@dataclass(frozen=True)
class Faces:
    """Faces of some pictures. starts_P1: where each picture's begin, and the end. boxes_D5 float32: xyxy px, score."""

    starts_P1: NDArray[np.int64]
    boxes_D5: NDArray[np.float32]

    @property
    def picture_D(self) -> NDArray[np.int64]:
        """The place of each face's picture."""
        return np.repeat(np.arange(len(self.starts_P1) - 1), np.diff(self.starts_P1))

    @property
    def height_D(self) -> NDArray[np.float32]:
        return self.boxes_D5[:, 3] - self.boxes_D5[:, 1]


def unit_rows(storage: Storage, folder: str, images_uri: str) -> pa.Table | None:
    """ROWS of a unit; None where its faces are not there.

    Raises: FormatError; StorageError: a table cannot be read, or the two do not fit.
    """
    tables = read_unit(storage, folder, images_uri, _IMAGE_COLUMNS, ["image_id", *_FACE])
    if tables is None:
        return None
    images, faces, faces_uri = tables
    check_faces(images, faces, faces_uri)
    boxes_D5 = np.stack([faces[name].to_numpy() for name in _FACE], axis=1).astype(np.float32)
    starts_P1 = np.concatenate([[0], np.cumsum(images["num_faces"].to_numpy())])
    failed = pc.equal(images["status"].cast(pa.string()), "error")
    error = pc.if_else(failed, pc.fill_null(images["error_class"].cast(pa.string()), "unknown"), None)
    columns = {name: images[name] for name in ROWS.names[:7]}
    return pa.table({**columns, "error": error, "faces": _as_bytes(starts_P1, boxes_D5)}, ROWS)


def faces_of(rows: pa.Table) -> Faces:
    """What `unit_rows` put into the column `faces`."""
    if not len(rows):
        return Faces(np.zeros(1, np.int64), np.zeros((0, len(_FACE)), np.float32))
    column = pa.concat_arrays(rows["faces"].chunks)
    _, offsets, data = column.buffers()
    ends_P1 = np.frombuffer(offsets, np.int32, len(column) + 1, 4 * column.offset).astype(np.int64)
    first, last = int(ends_P1[0]), int(ends_P1[-1])
    values = np.frombuffer(data, np.float32, (last - first) // 4, first) if last > first else np.zeros(0, np.float32)
    return Faces((ends_P1 - first) // _FACE_BYTES, values.reshape(-1, len(_FACE)))


def _as_bytes(starts_P1: NDArray[np.int64], boxes_D5: NDArray[np.float32]) -> pa.Array:
    """Without a copy. A unit's faces are far below the 2 GiB that its offsets reach."""
    offsets = pa.py_buffer((starts_P1 * _FACE_BYTES).astype(np.int32))
    return pa.Array.from_buffers(pa.binary(), len(starts_P1) - 1, [None, offsets, pa.py_buffer(boxes_D5)])
