"""Small outputs with boxes of the test's choice, committed as the job commits them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from tests.unit.row_samples import make_detections, make_record
from tinyface_core.archive.record import Kind, Source, Unit, UnitEnd
from tinyface_core.errors import PictureError
from tinyface_core.picture.picture import Picture
from tinyface_core.storage import Storage
from tinyface_core.tables.commit import Committer
from tinyface_core.tables.format_version import FORMAT_VERSION
from tinyface_core.tables.output import OutputFolder
from tinyface_core.tables.redo import UnitWork
from tinyface_core.tables.rows import RowBuilder, records_table

RGB = np.zeros((600, 900, 3), np.uint8)  # no box of a test reaches out of it
SETTINGS = {"model": "light", "model_hash": "1", "min_score": 0.3, "format_version": FORMAT_VERSION}

Box = tuple[float, float, float, float, float]  # x1, y1, x2, y2, score


@dataclass(frozen=True)
class Sample:
    """One loose picture. content: pictures of the same content have the same SHA-256. sha256: of a real one."""

    name: str
    boxes: Sequence[Box] = ()
    content: str = "as it was"
    error: PictureError | None = None
    folder: str = "file:///archive"
    version: str | None = "v1"
    sha256: str | None = None

    @property
    def uri(self) -> str:
        return f"{self.folder}/{self.name}"


@dataclass(frozen=True)
class SampleOutput:
    """units: which samples are committed together."""

    units: Sequence[Sequence[Sample]]
    settings: Mapping[str, Any] = field(default_factory=lambda: SETTINGS)
    finished: bool = True

    def write(self, folder: Path | str) -> str:
        """Its canonical uri."""
        storage = Storage()
        uri = storage.canonical(str(folder))
        OutputFolder(storage, uri).write_settings(self.settings)
        committer = Committer(storage, uri, "settings", "model")
        for samples in self.units:
            unit = Unit(tuple(Source(sample.uri, Kind.PICTURE, 1000, "v1") for sample in samples))
            committer.write(UnitWork.whole(unit), "sources", _rows(unit, samples))
        if self.finished:
            storage.write(f"{uri}/_SUCCESS", b"")
        return uri


def _rows(unit: Unit, samples: Sequence[Sample]) -> Any:
    records = [
        replace(
            make_record(unit, index),
            sha256=sample.sha256 or sample.content.encode().hex().ljust(64, "0"),
            source_version=sample.version,
        )
        for index, sample in enumerate(samples)
    ]
    builder = RowBuilder(records_table(unit.name, [*records, UnitEnd(len(samples))]))
    for row, _ in builder.encoded():
        sample = samples[row]
        boxes_K5 = np.array(sorted(sample.boxes, key=lambda box: -box[4]), np.float32).reshape(-1, 5)
        detections = replace(
            make_detections(len(boxes_K5)), boxes_K4=boxes_K5[:, :4].copy(), scores_K=boxes_K5[:, 4].copy()
        )
        builder.add(row, sample.error or Picture(RGB, "jpeg"), detections)
    return builder.table()
