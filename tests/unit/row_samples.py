"""Made-up records, detections and unit rows that the tests of `tables` share."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import numpy as np
import pyarrow as pa

from tinyface_core.archive.record import Kind, Record, Source, Unit, UnitEnd, image_id_of
from tinyface_core.detect.detections import Detections
from tinyface_core.errors import ErrorClass, PictureError, Stage
from tinyface_core.picture.picture import Picture
from tinyface_core.tables.rows import RowBuilder, records_table

HEIGHT, WIDTH = 37, 53
MODIFIED = datetime(2026, 11, 24, 12, 30, 15, 123456, tzinfo=UTC)
RGB = np.zeros((HEIGHT, WIDTH, 3), np.uint8)


def make_unit(pictures: int, name: str = "a") -> Unit:
    """A unit of loose pictures."""
    uris = [f"file:///archive/{name}/{i:05d}.jpg" for i in range(pictures)]
    return Unit(tuple(Source(uri, Kind.PICTURE, 1000, "v1", MODIFIED) for uri in uris))


def make_record(
    unit: Unit, index: int, error: PictureError | None = None, carried: dict[str, Any] | None = None
) -> Record:
    uri = unit.sources[index].uri
    read = error is None
    return Record(
        index=index,
        uri=uri,
        member=None,
        image_id=image_id_of(uri),
        data=b"\xff\xd8\xff encoded %d" % index if read else None,
        size_bytes=1000 + index if read else None,
        sha256=f"{index:064x}" if read else None,
        source_version="v1",
        source_modified=MODIFIED,
        carried=carried or {},
        error=error,
    )


def make_detections(faces: int, seed: int = 0) -> Detections:
    """`faces` boxes inside 37 x 53, best score first."""
    random = np.random.default_rng(seed)
    x1_K, y1_K = random.uniform(0, WIDTH - 12, faces), random.uniform(0, HEIGHT - 14, faces)
    boxes_K4 = np.stack([x1_K, y1_K, x1_K + random.uniform(2, 11, faces), y1_K + random.uniform(2, 13, faces)], axis=1)
    return Detections(
        boxes_K4=boxes_K4.astype(np.float32),
        scores_K=np.sort(random.uniform(0.1, 1, faces).astype(np.float32))[::-1].copy(),
        template_K=random.integers(0, 25, faces).astype(np.int8),
        zoom_K=random.choice(np.array([0.5, 1, 2], np.float32), faces),
        zooms=(0.5, 1.0, 2.0),
        min_face_px=6.0,
    )


UNREADABLE = PictureError(Stage.READ, ErrorClass.UNREADABLE, "no such object")
CORRUPT = PictureError(Stage.DECODE, ErrorClass.CORRUPT, "bad Huffman code")


def make_rows(
    unit: Unit,
    *,
    faces: int = 2,
    failing: dict[int, PictureError] | None = None,
    seed: int = 0,
    skipped: dict[str, int] | None = None,
    carried: tuple[pa.Field, ...] = (),
    carried_values: dict[str, Any] | None = None,
) -> pa.Table:
    """All rows of `unit`, its end marker last. Errors of stage `read` have no data, others fail in decoding."""
    failing = failing or {}
    values: list[Record | UnitEnd] = []
    for index in range(len(unit.present)):
        error = failing.get(index)
        values.append(make_record(unit, index, error if error and error.stage == Stage.READ else None, carried_values))
    values.append(UnitEnd(len(unit.present), skipped or {}))
    builder = RowBuilder(records_table(unit.name, values, carried), carried)
    for row, _ in builder.encoded():
        if row in failing:
            builder.add(row, failing[row])
        else:
            builder.add(row, Picture(RGB, "jpeg"), make_detections(faces, seed + row))
    return builder.table()
