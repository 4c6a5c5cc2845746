"""An output as a stream of pictures with their faces, unit by unit, in an order that does not change; and what was met.

Only what is committed is given: an images file, and the detections file that its `commit` names. Knows the two tables;
knows no form that they are written in.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
from numpy.typing import NDArray

from tinyface_core.errors import SettingsError
from tinyface_core.storage import Storage
from tinyface_core.tables.unit_files import check_faces, images_files, in_threads, read_unit

_IMAGE_COLUMNS = ["image_id", "uri", "member", "format", "width", "height", "exif_orientation", "status"]
_IMAGE_COLUMNS += ["error_class", "num_faces", "commit"]
_BOX = ("x1", "y1", "x2", "y2")
_ELLIPSE = ("ellipse_major", "ellipse_minor", "ellipse_angle", "ellipse_cx", "ellipse_cy")
_FACE_COLUMNS = ["image_id", "score", *_BOX, *_ELLIPSE]

Floats = NDArray[np.float64]


@dataclass(frozen=True)
class Picture:
    """One row of images with its faces, best first. Fields as in the table; error_class: None where there is none.

    boxes_K4: xyxy, px of the upright picture. ellipses_K5: major, minor, angle, cx, cy. scores_K float32.
    """

    image_id: str
    uri: str
    member: str | None
    format: str | None
    width: int | None
    height: int | None
    exif_orientation: int | None
    error_class: str | None
    boxes_K4: Floats
    ellipses_K5: Floats
    scores_K: NDArray[np.float32]


@dataclass(frozen=True)
class Wanted:
    """Which faces are taken: those of at least this score and height (px); None takes all."""

    min_score: float | None = None
    min_height_px: float | None = None

    def __post_init__(self) -> None:
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise SettingsError(f"--min-score {self.min_score:g}: needs a number from 0 to 1.")
        if self.min_height_px is not None and not 0 <= self.min_height_px < float("inf"):
            raise SettingsError(f"--min-height {self.min_height_px:g}: needs a height in pixels from 0 on.")

    def of(self, boxes_K4: Floats, scores_K: NDArray[np.float32]) -> NDArray[np.bool_]:
        """Scores are compared as float32, as they are stored: 0.9 keeps a face of score 0.9."""
        kept_K = np.ones(len(scores_K), np.bool_)
        if self.min_score is not None:
            kept_K &= scores_K >= np.float32(self.min_score)
        if self.min_height_px is not None:
            kept_K &= boxes_K4[:, 3] - boxes_K4[:, 1] >= self.min_height_px
        return kept_K


@dataclass
class Tally:
    """What an export met; filled while its pictures are taken.

    errors: error rows by class. unwanted: faces below what was asked for. left_out: pictures by why they are not in
    the form. notes: sentences about what is in it. torn_units: images files whose detections are not there.
    """

    pictures: int = 0
    faces: int = 0
    unwanted: int = 0
    torn_units: int = 0
    errors: Counter[str] = field(default_factory=Counter)
    left_out: Counter[str] = field(default_factory=Counter)
    notes: dict[str, None] = field(default_factory=dict)

    def took(self, picture: Picture) -> None:
        self.pictures += 1
        self.faces += len(picture.scores_K)

    def leaves_out(self, why: str) -> None:
        self.left_out[why] += 1

    def note(self, sentence: str) -> None:
        """Once, however often it is said."""
        self.notes[sentence] = None


def pictures_of(storage: Storage, output_uri: str, wanted: Wanted, tally: Tally) -> Iterator[Picture]:
    """All pictures of an output, those with an error row too: by the name of their unit, then by uri and member.

    A unit whose detections are not there is counted in `tally`, and left out.

    Raises:
        StorageError: a table cannot be read, or the two of a unit do not fit; ObjectError.
    """
    folder = storage.canonical(output_uri).rstrip("/")

    def read(uri: str) -> tuple[pa.Table, pa.Table, str] | None:
        return read_unit(storage, folder, uri, _IMAGE_COLUMNS, _FACE_COLUMNS)

    by_unit = sorted(images_files(storage, folder), key=lambda uri: uri.rpartition("/")[2])  # whatever its partition
    for tables in in_threads(read, by_unit):
        if tables is None:
            tally.torn_units += 1
            continue
        for picture, unwanted in _pictures(*tables, wanted):
            if picture.error_class is not None:
                tally.errors[picture.error_class] += 1
            tally.unwanted += unwanted
            yield picture


def _pictures(images: pa.Table, faces: pa.Table, faces_uri: str, wanted: Wanted) -> Iterator[tuple[Picture, int]]:
    """Each with the number of its faces that are not wanted."""
    if not images.num_rows:
        return
    check_faces(images, faces, faces_uri)
    num_faces_P = images["num_faces"].to_numpy()
    boxes_D4, ellipses_D5 = _columns(faces, _BOX), _columns(faces, _ELLIPSE)
    scores_D = faces["score"].to_numpy()
    kept_D = wanted.of(boxes_D4, scores_D)
    ends = np.cumsum(num_faces_P).tolist()
    for row, begin, end in zip(images.to_pylist(), [0, *ends], ends, strict=False):
        kept = np.flatnonzero(kept_D[begin:end]) + begin
        yield _picture(row, boxes_D4[kept], ellipses_D5[kept], scores_D[kept]), end - begin - len(kept)


def _columns(faces: pa.Table, names: tuple[str, ...]) -> Floats:
    return np.stack([faces[name].to_numpy() for name in names], axis=1).astype(np.float64)


def _picture(row: dict[str, Any], boxes_K4: Floats, ellipses_K5: Floats, scores_K: NDArray[np.float32]) -> Picture:
    facts = {name: row[name] for name in _IMAGE_COLUMNS[:7]}
    failed = row["status"] == "error"
    return Picture(
        **facts,
        error_class=(row["error_class"] or "unknown") if failed else None,
        boxes_K4=boxes_K4,
        ellipses_K5=ellipses_K5,
        scores_K=scores_K,
    )
