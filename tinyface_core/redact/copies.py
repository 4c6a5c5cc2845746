"""One picture's copy: decoded pixels in, faces hidden, encoded, written; and the row that tells of it.

What goes wrong with one picture is in its row, which then names no copy. Knows one picture; not units.
"""

from __future__ import annotations

import hashlib
import logging
from dataclasses import dataclass
from typing import Any

from tinyface_core.errors import ErrorClass, PictureError
from tinyface_core.picture.picture import Picture
from tinyface_core.redact.encode import copy_format, encode
from tinyface_core.redact.faces import Redaction
from tinyface_core.redact.hide import hide_faces
from tinyface_core.redact.names import copy_name
from tinyface_core.redact.pictures import Examined
from tinyface_core.storage import Storage

log = logging.getLogger(__name__)
MESSAGE_CHARACTERS = 500


@dataclass(frozen=True)
class Copy:
    """path: below the destination."""

    path: str
    format: str
    data: bytes
    faces: int


def copy_of(asked: Examined, picture: Picture | PictureError, redaction: Redaction) -> Copy | tuple[str, str]:
    """The copy, not yet written, or why there is none (class, sentence). The picture's pixels are used up.

    Never raises: whatever this picture does, its neighbours get theirs.
    """
    if isinstance(picture, PictureError):
        return picture.error_class.value, picture.message
    if asked.size_hw != (picture.height, picture.width):
        found = f"{picture.width} x {picture.height} px"
        return ErrorClass.INTERNAL.value, f"decodes to {found} now, other than when its faces were found"
    try:
        hide_faces(picture.rgb_HW3, asked.faces, redaction)
        name = copy_format(picture.format)
        data = encode(picture.rgb_HW3, name, redaction.quality)
        path = copy_name(asked.uri, asked.member, asked.image_id, name)
    except MemoryError:
        return ErrorClass.OUT_OF_MEMORY.value, "the copy does not fit into this process's memory"
    except Exception as error:
        log.exception("no copy could be made of %s %s", asked.uri, asked.member or "")
        return ErrorClass.INTERNAL.value, f"{type(error).__name__}: {error}"
    return Copy(path, name, data, len(asked.faces))


def row_of(unit: str, commit: str, asked: Examined, outcome: Copy | tuple[str, str]) -> dict[str, Any]:
    """The picture's row, of `results.ROW_SCHEMA`."""
    row = {
        "unit": unit,
        "kind": "record",
        "index": asked.index,
        "image_id": asked.image_id,
        "uri": asked.uri,
        "member": asked.member,
        "commit": commit,
    }
    if isinstance(outcome, Copy):
        written = {
            "status": "written",
            "path": outcome.path,
            "format": outcome.format,
            "size_bytes": len(outcome.data),
            "sha256": hashlib.sha256(outcome.data).hexdigest(),
            "faces_masked": outcome.faces,
        }
        return row | written
    error_class, message = outcome
    error = {"status": "error", "error_class": error_class, "error_message": message[:MESSAGE_CHARACTERS]}
    return row | error | {"faces_masked": 0}


def write_copy(storage: Storage, destination_uri: str, copy: Copy) -> None:
    """Whole or not at all. Raises: StorageError."""
    storage.write(f"{destination_uri}/{copy.path}", copy.data)
