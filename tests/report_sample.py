"""Small outputs for the report's tests: tables with the real schema, faces made up, files written by pyarrow."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from tinyface_core.archive.record import image_id_of
from tinyface_core.tables.schema import DETECTIONS_SCHEMA, images_schema


@dataclass
class SamplePicture:
    """boxes_K5: x1, y1, x2, y2, score. error: (stage, class, message)."""

    uri: str
    member: str | None = None
    boxes_K5: np.ndarray = field(default_factory=lambda: np.zeros((0, 5), np.float32))
    size_hw: tuple[int, int] = (37, 53)
    error: tuple[str, str, str] | None = None
    source_version: str | None = None
    occurrence: int = 0
    sha256: str | None = None

    @property
    def image_id(self) -> str:
        member = self.member.encode() if self.member is not None else None
        return image_id_of(self.uri, member, self.occurrence)


def write_unit(folder: Path, unit: str, pictures: Sequence[SamplePicture], below: str = "") -> tuple[Path, Path]:
    """(images file, detections file) of one unit, as the commit protocol names them; `below`: a partition folder."""
    commit = f"c0ffee{unit}"
    images = folder / "images" / below / f"part-{unit}.parquet"
    faces = folder / "detections" / below / f"part-{unit}-{commit}.parquet"
    for path in (images, faces):
        path.parent.mkdir(parents=True, exist_ok=True)
    image_rows = [_image_row(picture, unit, commit) for picture in pictures]
    face_rows = [row for picture in pictures for row in _face_rows(picture, commit)]
    pq.write_table(pa.Table.from_pylist(face_rows, DETECTIONS_SCHEMA), faces, compression="zstd")
    pq.write_table(pa.Table.from_pylist(image_rows, images_schema()), images, compression="zstd")
    return images, faces


def _image_row(picture: SamplePicture, unit: str, commit: str) -> dict[str, object]:
    stage, error_class, message = picture.error or (None, None, None)
    known = picture.error is None
    return {
        "image_id": picture.image_id,
        "uri": picture.uri,
        "member": picture.member,
        "size_bytes": 1000,
        "sha256": picture.sha256,
        "source_version": picture.source_version,
        "format": "jpeg" if known else None,
        "width": picture.size_hw[1] if known else None,
        "height": picture.size_hw[0] if known else None,
        "status": "ok" if known else "error",
        "error_stage": stage,
        "error_class": error_class,
        "error_message": message,
        "num_faces": len(picture.boxes_K5) if known else 0,
        "unit": unit,
        "commit": commit,
    }


def _face_rows(picture: SamplePicture, commit: str) -> list[dict[str, object]]:
    return [
        {
            "image_id": picture.image_id,
            "commit": commit,
            **dict(zip(("x1", "y1", "x2", "y2", "score"), map(float, box), strict=True)),
            "template": 0,
            "zoom": 1.0,
            "ellipse_cx": 0.0,
            "ellipse_cy": 0.0,
            "ellipse_major": 2.0,
            "ellipse_minor": 1.0,
            "ellipse_angle": 1.57,
            "ellipse_source": "inscribed",
        }
        for box in picture.boxes_K5
    ]
