"""Which pictures of an output are looked at: filters over both tables, and how many are taken of what passes.

Reads unit by unit: an output of any size costs the memory of what is chosen. Whatever units the pictures lie in, the
same question chooses the same pictures. Knows tables; reads no picture.
"""

from __future__ import annotations

import hashlib
import heapq
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tinyface_core.errors import InputError, SettingsError
from tinyface_core.render.named import Named
from tinyface_core.storage import Storage
from tinyface_core.tables.unit_files import detections_file, images_files, in_threads, read_table, read_unit

MOST_PICTURES = 100_000  # more than anybody looks at; some 2 kB of memory each
_FACTS = ["image_id", "uri", "member", "source_version", "sha256", "width", "height"]
_COLUMNS = [*_FACTS, "status", "error_stage", "error_class", "error_message", "num_faces", "commit"]


@dataclass(frozen=True)
class Wanted:
    """Filters, all of which a picture must pass, and at most one way to take some of what passes.

    errors: only error rows. tiny_px: only pictures with a face of less height. min_score: faces of a lower score do not
    count, and are not drawn. most_crowded: those with the most faces. sample: drawn by `seed`. limit: the first by
    name.
    """

    named: Named = field(default_factory=Named)
    errors: bool = False
    tiny_px: float | None = None
    min_score: float | None = None
    most_crowded: int | None = None
    sample: int | None = None
    seed: int = 0
    limit: int | None = None

    def __post_init__(self) -> None:
        counts = {"--most-crowded": self.most_crowded, "--sample": self.sample, "--limit": self.limit}
        given = {option: count for option, count in counts.items() if count is not None}
        if len(given) > 1:
            raise SettingsError(f"{' and '.join(given)}: each says which pictures to take. Give one of them.")
        for option, count in given.items():
            if not 1 <= count <= MOST_PICTURES:
                raise SettingsError(f"{option} {count}: needs a number from 1 to {MOST_PICTURES:,}.")
        if self.tiny_px is not None and not 0 < self.tiny_px < float("inf"):
            raise SettingsError(f"--tiny {self.tiny_px:g}: needs a height in pixels, as 20.")
        if self.min_score is not None and not 0 <= self.min_score <= 1:
            raise SettingsError(f"--min-score {self.min_score:g}: needs a number from 0 to 1.")
        of_faces = {"--tiny": self.tiny_px, "--min-score": self.min_score, "--most-crowded": self.most_crowded}
        if self.errors and (clash := [option for option, value in of_faces.items() if value is not None]):
            raise SettingsError(f"--errors and {clash[0]}: error rows have no faces. Leave one of the two out.")

    @property
    def filters_rows(self) -> bool:
        """Whether something else than a name decides what passes."""
        return self.errors or self.tiny_px is not None or self.most_crowded is not None or self.named.listed is not None

    @property
    def count(self) -> int | None:
        """How many at most; None: all that pass."""
        return self.most_crowded or self.sample or self.limit


@dataclass(frozen=True)
class Chosen:
    """One picture. width, height: upright px, None where unknown. faces: those that count. error: (class, sentence)."""

    image_id: str
    uri: str
    member: str | None
    source_version: str | None
    sha256: str | None
    width: int | None
    height: int | None
    faces: int
    detections_uri: str
    error: tuple[str, str] | None = None

    def by_name(self) -> tuple[str, str, str]:
        return self.uri, self.member or "", self.image_id


@dataclass(frozen=True)
class Choice:
    """pictures: the most crowded first where those were asked for, else by name. passed: how many passed the filters.

    torn_units: images files whose detections are not there, left out. absent: lines of the list that nothing answers.
    """

    pictures: tuple[Chosen, ...]
    passed: int
    torn_units: int = 0
    absent: tuple[str, ...] = ()


def choose(storage: Storage, output_uri: str, wanted: Wanted) -> Choice:
    """The pictures that are asked for.

    Raises:
        InputError: more than MOST_PICTURES. StorageError: a table cannot be read; ObjectError.
    """
    folder = storage.canonical(output_uri).rstrip("/")
    key = _key(wanted)
    best: list[Chosen] = []
    passed = torn = 0
    present: set[str] = set()
    for unit in in_threads(lambda uri: _of_unit(storage, folder, uri, wanted), images_files(storage, folder)):
        if unit is None:
            torn += 1
            continue
        best += unit.candidates
        passed += unit.passed
        present |= unit.present
        if wanted.count is not None and len(best) > 2 * wanted.count:
            best = heapq.nsmallest(wanted.count, best, key=key)
        if len(best) > 2 * MOST_PICTURES or (wanted.count is None and len(best) > MOST_PICTURES):
            raise InputError(
                f"more than {MOST_PICTURES:,} pictures are asked for. Nobody looks at so many: give --sample, --limit "
                "or --most-crowded."
            )
    best.sort(key=key)
    taken = best[: wanted.count]
    if not wanted.most_crowded:
        taken.sort(key=Chosen.by_name)
    return Choice(tuple(taken), passed, torn, tuple(sorted((wanted.named.listed or frozenset()) - present)))


def _key(wanted: Wanted) -> Callable[[Chosen], Any]:
    if wanted.most_crowded:
        return lambda picture: (-picture.faces, picture.by_name())
    if wanted.sample:
        return lambda picture: _lot(wanted.seed, picture.image_id)
    return Chosen.by_name


def _lot(seed: int, image_id: str) -> bytes:
    return hashlib.blake2b(f"{seed}\0{image_id}".encode(), digest_size=16).digest()


@dataclass(frozen=True)
class _Unit:
    candidates: list[Chosen]
    passed: int
    present: set[str]


def _of_unit(storage: Storage, folder: str, images_uri: str, wanted: Wanted) -> _Unit | None:
    """What of a unit may be taken: no more than are asked for in all. None where its faces are not there."""
    if wanted.tiny_px is None and wanted.min_score is None:
        images = read_table(storage, images_uri, _COLUMNS)
        faces_P = images["num_faces"].to_numpy()
        tiny_P = np.zeros(len(images), np.bool_)
        detections_uri = detections_file(folder, images_uri, images["commit"][0].as_py() if len(images) else "")
    else:
        tables = read_unit(storage, folder, images_uri, _COLUMNS, ["image_id", "y1", "y2", "score"])
        if tables is None:
            return None
        images, faces, detections_uri = tables
        faces_P, tiny_P = _counted(images, faces, wanted)
    if not len(images):
        return _Unit([], 0, set())
    passed_P = wanted.named.holds(images)
    if wanted.errors:
        passed_P &= pc.equal(images["status"], "error").to_numpy()
    if wanted.tiny_px is not None:
        passed_P &= tiny_P
    if wanted.most_crowded:
        passed_P &= faces_P > 0
    rows = np.flatnonzero(passed_P)
    leading = _leading(rows, faces_P, images, wanted)
    return _Unit(_chosen(images, leading, faces_P, detections_uri), len(rows), wanted.named.present(images))


def _counted(images: pa.Table, faces: pa.Table, wanted: Wanted) -> tuple[NDArray[np.int64], NDArray[np.bool_]]:
    """(P,): faces that count, and whether one of them is tiny."""
    if not len(images):
        return np.zeros(0, np.int64), np.zeros(0, np.bool_)
    score_K = faces["score"].to_numpy()
    counts_K = np.ones(len(faces), np.bool_) if wanted.min_score is None else score_K >= np.float32(wanted.min_score)
    row_K = pc.fill_null(pc.index_in(faces["image_id"], value_set=images["image_id"].combine_chunks()), -1).to_numpy()
    counts_K &= row_K >= 0
    height_K = faces["y2"].to_numpy() - faces["y1"].to_numpy()
    tiny_K = counts_K & (height_K < (wanted.tiny_px or 0.0))
    faces_P = np.bincount(row_K[counts_K], minlength=len(images))
    return faces_P, np.bincount(row_K[tiny_K], minlength=len(images)) > 0


def _leading(rows: NDArray[np.intp], faces_P: NDArray[np.int64], images: pa.Table, wanted: Wanted) -> NDArray[np.intp]:
    """The rows of one unit that may be taken; rows lie sorted by (uri, member), and the sort is stable."""
    if wanted.count is None or len(rows) <= wanted.count:
        return rows
    if wanted.most_crowded:
        rows = rows[np.argsort(-faces_P[rows], kind="stable")]
    elif wanted.sample:
        lots = [_lot(wanted.seed, image_id) for image_id in images["image_id"].take(rows).to_pylist()]
        rows = rows[sorted(range(len(rows)), key=lots.__getitem__)]
    return rows[: wanted.count]


def _chosen(images: pa.Table, rows: NDArray[np.intp], faces_P: NDArray[np.int64], detections_uri: str) -> list[Chosen]:
    chosen = []
    for place, row in zip(rows.tolist(), images.take(rows).to_pylist(), strict=True):
        error = None
        if row["status"] == "error":
            error = (row["error_class"] or "unknown", row["error_message"] or f"failed at {row['error_stage']}")
        facts = {name: row[name] for name in _FACTS}
        chosen.append(Chosen(**facts, faces=int(faces_P[place]), detections_uri=detections_uri, error=error))
    return chosen
