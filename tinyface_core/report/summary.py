"""What an output holds, counted: pictures by status, faces by height and score, the extremes, the errors.

Reads the two tables, unit by unit (`tables/unit_files.py`): 10^5 units cost no more memory than a few. A query engine
would have to join 10^9 faces by hash, and would need a plug-in from the network for s3://.
Knows the tables' names and columns; knows no run.json, picture or page.
"""

from __future__ import annotations

import heapq
from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tinyface_core.storage import ObjectInfo, Storage
from tinyface_core.tables.unit_files import images_objects, in_threads, read_table, read_unit

HEIGHT_EDGES_PX = (10, 20, 40, 80, 140, 300)  # the paper's "tiny" ends at 20 px; a template's own size is 140
FACES_EDGES = (1, 2, 5, 10, 20, 50, 100)
SCORE_BINS = 20
ERROR_ROWS = 200
_TALLEST_PX = 1 << 12  # heights are counted to the pixel up to here
_FEW_FACES = 3  # one lone small box is more often a false alarm than a crowd of them is
_FACTS = ["image_id", "uri", "member", "source_version", "sha256", "width", "height"]
_IMAGE_COLUMNS = [*_FACTS, "format", "status"]
_IMAGE_COLUMNS += ["error_stage", "error_class", "error_message", "num_faces", "commit"]


@dataclass(frozen=True)
class PictureFacts:
    """One picture that stands out. Heights in pixels of the upright picture; `detections_uri` holds its boxes."""

    image_id: str
    uri: str
    member: str | None
    source_version: str | None
    sha256: str | None
    width: int
    height: int
    num_faces: int
    smallest_px: float
    median_px: float
    detections_uri: str

    def crowded_first(self) -> tuple[float | str | bool, ...]:
        return (-self.num_faces, self.median_px, self.uri, self.member or "")

    def tiniest_first(self) -> tuple[float | str | bool, ...]:
        """By median height, pictures with very few faces last."""
        return (self.num_faces < _FEW_FACES, self.median_px, -self.num_faces, self.uri, self.member or "")


@dataclass(frozen=True)
class ErrorRow:
    """One picture without a result; fields as in the images table."""

    uri: str
    member: str | None
    stage: str
    error_class: str
    message: str

    def in_order(self) -> tuple[str, str]:
        return (self.uri, self.member or "")


@dataclass(frozen=True)
class Summary:
    """Counts over a whole output.

    height_px_H: faces whose height is h <= height < h + 1 px, the last bin open. score_B: faces in SCORE_BINS
    equal bins of 0..1. crowded and tiniest: the pictures that lead each order, best first. error_rows: the first
    ERROR_ROWS by (uri, member). incomplete_units: images files whose detections were not there, left out of
    every count; they are being redone, or the output is damaged. commits: (when, pictures) of each unit, in seconds
    since 1970 by the store's clock; nothing for a unit whose store tells no time.
    """

    by_status: Counter[str] = field(default_factory=Counter)
    by_format: Counter[str] = field(default_factory=Counter)
    errors: Counter[tuple[str, str]] = field(default_factory=Counter)  # (stage, class)
    faces_a_picture: Counter[str] = field(default_factory=Counter)
    height_px_H: NDArray[np.int64] = field(default_factory=lambda: np.zeros(_TALLEST_PX + 1, np.int64))
    score_B: NDArray[np.int64] = field(default_factory=lambda: np.zeros(SCORE_BINS, np.int64))
    crowded: tuple[PictureFacts, ...] = ()
    tiniest: tuple[PictureFacts, ...] = ()
    error_rows: tuple[ErrorRow, ...] = ()
    units: int = 0
    incomplete_units: int = 0
    commits: tuple[tuple[float, int], ...] = ()

    @property
    def pictures(self) -> int:
        return self.by_status.total()

    @property
    def faces(self) -> int:
        return int(self.score_B.sum())

    @property
    def median_height_px(self) -> int | None:
        """Of all faces, rounded down to the pixel; None without faces."""
        if not self.faces:
            return None
        return int(np.searchsorted(np.cumsum(self.height_px_H), (self.faces + 1) // 2))

    def faces_by_height(self) -> list[tuple[str, int]]:
        """(label, faces) of each bin of HEIGHT_EDGES_PX, the smallest first."""
        counts = np.add.reduceat(self.height_px_H, (0, *HEIGHT_EDGES_PX))
        return list(zip(_labels(HEIGHT_EDGES_PX), map(int, counts), strict=True))

    def pictures_by_faces(self) -> list[tuple[str, int]]:
        """(label, pictures without error) of each bin of FACES_EDGES."""
        return [(label, self.faces_a_picture[label]) for label in _labels(FACES_EDGES, whole=True)]


def summarise(storage: Storage, output_uri: str, *, top: int = 24) -> Summary:
    """Counts of everything committed in an output; an output without tables gives zeros.

    Args:
        top: pictures kept in each of `crowded` and `tiniest`.
    Raises:
        StorageError: a table cannot be read, or is not Parquet with the columns of tables/schema.py.
    """
    folder = storage.canonical(output_uri).rstrip("/")
    total = Summary()
    commits: list[tuple[float, int]] = []
    for unit in in_threads(lambda info: _unit_summary(storage, folder, info, top), images_objects(storage, folder)):
        commits += unit.commits
        total = _joined(total, unit, top)
    return replace(total, commits=tuple(sorted(commits)))


def read_boxes(storage: Storage, pictures: Iterable[PictureFacts]) -> dict[str, NDArray[np.float32]]:
    """image_id -> boxes_K5: x1, y1, x2, y2, score, float32, pixels of the upright picture."""
    wanted: dict[str, list[str]] = {}
    for picture in pictures:
        wanted.setdefault(picture.detections_uri, []).append(picture.image_id)
    found: dict[str, NDArray[np.float32]] = {}
    for uri, ids in wanted.items():
        faces = read_table(storage, uri, ["image_id", "x1", "y1", "x2", "y2", "score"])
        for image_id in ids:
            rows = faces.filter(pc.field("image_id") == image_id)
            found[image_id] = np.stack([rows[n].to_numpy() for n in ("x1", "y1", "x2", "y2", "score")], axis=1)
    return found


def _unit_summary(storage: Storage, folder: str, info: ObjectInfo, top: int) -> Summary:
    tables = read_unit(storage, folder, info.uri, _IMAGE_COLUMNS, ["image_id", "y1", "y2", "score"])
    if tables is None:
        return Summary(incomplete_units=1)
    images, faces, detections_uri = tables
    if not images.num_rows:
        return Summary(units=1)
    score_K = faces["score"].to_numpy()
    height_K = faces["y2"].to_numpy() - faces["y1"].to_numpy()
    pictures = _facts(images, faces["image_id"], height_K, detections_uri, top)
    failed = images.filter(pc.field("status") == "error")
    return Summary(
        by_status=_counted(images, "status"),
        by_format=_counted(images, "format"),
        errors=Counter(zip(_strings(failed, "error_stage"), _strings(failed, "error_class"), strict=True)),
        faces_a_picture=_faces_a_picture(images.filter(pc.field("status") == "ok")),
        height_px_H=np.bincount(np.clip(height_K, 0, _TALLEST_PX).astype(np.intp), minlength=_TALLEST_PX + 1),
        score_B=np.histogram(score_K, SCORE_BINS, (0.0, 1.0))[0].astype(np.int64),
        crowded=tuple(heapq.nsmallest(top, pictures, key=PictureFacts.crowded_first)),
        tiniest=tuple(heapq.nsmallest(top, pictures, key=PictureFacts.tiniest_first)),
        error_rows=_error_rows(failed),
        units=1,
        commits=((info.modified.timestamp(), images.num_rows),) if info.modified else (),
    )


def _joined(a: Summary, b: Summary, top: int) -> Summary:
    return Summary(
        by_status=a.by_status + b.by_status,
        by_format=a.by_format + b.by_format,
        errors=a.errors + b.errors,
        faces_a_picture=a.faces_a_picture + b.faces_a_picture,
        height_px_H=a.height_px_H + b.height_px_H,
        score_B=a.score_B + b.score_B,
        crowded=tuple(heapq.nsmallest(top, a.crowded + b.crowded, key=PictureFacts.crowded_first)),
        tiniest=tuple(heapq.nsmallest(top, a.tiniest + b.tiniest, key=PictureFacts.tiniest_first)),
        error_rows=tuple(heapq.nsmallest(ERROR_ROWS, a.error_rows + b.error_rows, key=ErrorRow.in_order)),
        units=a.units + b.units,
        incomplete_units=a.incomplete_units + b.incomplete_units,
    )


def _facts(
    images: pa.Table, face_ids: pa.ChunkedArray, height_K: NDArray[np.float32], detections_uri: str, top: int
) -> list[PictureFacts]:
    """Pictures of one unit that may lead in one of the two orders: at most 2 x top."""
    ids = images["image_id"].combine_chunks()
    picture_K = pc.index_in(face_ids, value_set=ids)
    known_K = pc.is_valid(picture_K).to_numpy()
    picture_K = pc.fill_null(picture_K, 0).to_numpy()[known_K]
    by_picture_K = np.lexsort((height_K[known_K], picture_K))
    sorted_K = height_K[known_K][by_picture_K]
    row_P, first_P, count_P = np.unique(picture_K[by_picture_K], return_index=True, return_counts=True)
    median_P = (sorted_K[first_P + (count_P - 1) // 2] + sorted_K[first_P + count_P // 2]) / 2
    # Both sorts are stable, and rows lie sorted by (uri, member): equal pictures stay in order of name.
    crowded_P = np.lexsort((median_P, -count_P))[:top]
    tiniest_P = np.lexsort((-count_P, median_P, count_P < _FEW_FACES))[:top]
    leading_P = np.union1d(crowded_P, tiniest_P)
    rows = images.take(row_P[leading_P]).select(_FACTS)
    return [
        PictureFacts(
            **row,
            num_faces=int(count_P[p]),
            smallest_px=float(sorted_K[first_P[p]]),
            median_px=float(median_P[p]),
            detections_uri=detections_uri,
        )
        for p, row in zip(leading_P, rows.to_pylist(), strict=True)
    ]


def _faces_a_picture(images: pa.Table) -> Counter[str]:
    bins = np.searchsorted(FACES_EDGES, images["num_faces"].to_numpy(), side="right")
    labels = _labels(FACES_EDGES, whole=True)
    return Counter({labels[b]: int(n) for b, n in enumerate(np.bincount(bins, minlength=len(labels)))})


def _counted(table: pa.Table, column: str) -> Counter[str]:
    return Counter(value for value in _strings(table, column) if value)


def _strings(table: pa.Table, column: str) -> list[str]:
    return [value or "" for value in table[column].to_pylist()]


def _error_rows(failed: pa.Table) -> tuple[ErrorRow, ...]:
    rows = [
        ErrorRow(row["uri"], row["member"], row["error_stage"], row["error_class"], row["error_message"] or "")
        for row in failed.to_pylist()
    ]
    return tuple(heapq.nsmallest(ERROR_ROWS, rows, key=ErrorRow.in_order))


def _labels(edges: tuple[int, ...], *, whole: bool = False) -> list[str]:
    """Of the len(edges) + 1 bins: `<10`, `10-20`, ..., `300+`; of whole numbers: `0`, `1`, `2-4`, ..., `100+`."""
    if whole:
        inner = [f"{a}" if b - a == 1 else f"{a}-{b - 1}" for a, b in pairwise(edges)]
        return ["0", *inner, f"{edges[-1]}+"]
    inner = [f"{a}-{b}" for a, b in pairwise(edges)]
    return [f"<{edges[0]}", *inner, f"{edges[-1]}+"]
