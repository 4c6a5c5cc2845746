"""Checks the two files of one unit: each row by itself, the order of rows, and how the two tables fit together.

Works in batches of rows: a unit may be larger than memory. Knows nothing of other units, nor of the folder.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinyface_core.tables.digest import commit_of
from tinyface_core.tables.rules import FACE_IN_PICTURE_RULES, FACE_RULES, IMAGE_RULES, Finding, broken, out_of_order
from tinyface_core.tables.unit_tables import UnitTotals

BATCH_PICTURES = 8192
BATCH_FACES = 250_000

WRONG_HASH = "commit is not the hash of the rows"
WRONG_IMAGE_ORDER = "rows are not sorted by (uri, member)"
WRONG_FACE_ORDER = "rows of one picture are not together, in the order of the images file"
WRONG_SCORE_ORDER = "the best score of a picture is not first"
WRONG_COUNT = "num_faces is not the number of detections"
NO_PICTURE = "a detection has no picture"


class UnitCheck:
    """One pair of files under check; `run` fills `images`, `detections` (what is wrong in each) and `totals`."""

    def __init__(
        self,
        cursor: duckdb.DuckDBPyConnection,
        images_file: pq.ParquetFile,
        detections_file: pq.ParquetFile | None,
        identity: dict[str, str],
        on_ids: Callable[[pa.ChunkedArray], None],
    ) -> None:
        """Both files have the right schema.

        detections_file: None when it is missing. identity: what `$unit` and `$commit` of the rules stand for.
        on_ids: given the image_id of each batch of pictures.
        """
        self.images: dict[str, Finding] = {}
        self.detections: dict[str, Finding] = {}
        self.totals = UnitTotals()
        self._cursor = cursor
        self._images_file = images_file
        self._detections_file = detections_file
        self._identity = identity
        self._on_ids = on_ids
        self._faces = _FaceRows(detections_file)
        self._fits = detections_file is not None  # so far each face stood where its picture says

    def run(self) -> None:
        errors: Counter[str] = Counter()
        above: pa.Table | None = None
        for pictures in _batches(self._images_file):
            self._on_ids(pictures["image_id"])
            _add(self.images, broken(self._cursor, pictures, IMAGE_RULES, self._identity))
            self._check_order(above, pictures)
            above = pictures.slice(len(pictures) - 1)
            errors.update(pc.drop_null(pictures["error_class"].cast(pa.string())).to_pylist())
            for piece in _by_faces(pictures):
                self._check_faces_of(piece)
        while len(rest := self._faces.take(BATCH_FACES)):
            self._fits = False
            _add(self.detections, broken(self._cursor, rest, FACE_RULES, self._identity))
        faces = self._detections_file.metadata.num_rows if self._detections_file else 0
        self.totals = UnitTotals(self._images_file.metadata.num_rows, faces, dict(errors))
        if self._detections_file and not self._fits:
            self._explain(self._detections_file)
        if self._detections_file and commit_of(self._columns()) != self._identity["commit"]:
            _add(self.images, [Finding(WRONG_HASH, 1, f"commit {self._identity['commit']}")])

    def _check_order(self, above: pa.Table | None, pictures: pa.Table) -> None:
        rows = pictures if above is None else pa.concat_tables([above, pictures])
        wrong = out_of_order(rows.select(["uri", "member"]))
        if wrong:
            example = rows.slice(wrong[0], 1).to_pylist()[0]
            _add(self.images, [Finding(WRONG_IMAGE_ORDER, len(wrong), f"{example['uri']} {example['member'] or ''}")])

    def _check_faces_of(self, pictures: pa.Table) -> None:
        faces_N = np.maximum(pictures["num_faces"].to_numpy(), 0)
        if self._detections_file and faces_N.sum() > self._detections_file.metadata.num_rows:
            self._fits = False  # a number out of the air must not cost memory
            return
        picture_K = pa.array(np.repeat(np.arange(len(faces_N)), faces_N))
        faces = self._faces.take(len(picture_K))
        _add(self.detections, broken(self._cursor, faces, FACE_RULES, self._identity))
        self._fits = self._fits and faces["image_id"].to_pylist() == pictures["image_id"].take(picture_K).to_pylist()
        if not self._fits:
            return
        for name in ("width", "height", "zooms"):
            faces = faces.append_column(f"picture_{name}", pictures[name].take(picture_K))
        _add(self.detections, broken(self._cursor, faces, FACE_IN_PICTURE_RULES, self._identity))
        rises = (np.diff(faces["score"].to_numpy()) > 0) & (np.diff(picture_K.to_numpy()) == 0)
        if rises.any():
            example = faces["image_id"][int(np.argmax(rises))].as_py()
            _add(self.detections, [Finding(WRONG_SCORE_ORDER, int(rises.sum()), example)])

    def _explain(self, detections_file: pq.ParquetFile) -> None:
        """Why the faces do not stand where the pictures say."""
        pictures = self._images_file.read(columns=["image_id", "num_faces"])
        faces = detections_file.read(columns=["image_id"])
        self._cursor.register("pictures", pictures)
        self._cursor.register("faces", faces)
        lost = self._query(
            "SELECT count(*), min(image_id) FROM faces WHERE image_id NOT IN (SELECT image_id FROM pictures)"
        )
        miscounted = self._query(
            "SELECT count(*), min(concat(image_id, ': num_faces ', num_faces, ', detections ', coalesce(n, 0))) "
            "FROM pictures LEFT JOIN (SELECT image_id, count(*) AS n FROM faces GROUP BY image_id) USING (image_id) "
            "WHERE num_faces <> coalesce(n, 0)"
        )
        if lost[0]:
            _add(self.detections, [Finding(NO_PICTURE, *lost)])
        if miscounted[0]:
            _add(self.images, [Finding(WRONG_COUNT, *miscounted)])
        if not lost[0] and not miscounted[0]:
            expected = pictures["image_id"].take(pa.array(np.repeat(np.arange(len(pictures)), pictures["num_faces"])))
            wrong = pc.filter(faces["image_id"], pc.not_equal(faces["image_id"], expected))
            _add(self.detections, [Finding(WRONG_FACE_ORDER, len(wrong), wrong[0].as_py())])

    def _query(self, sql: str) -> tuple[int, str]:
        [(count, example)] = self._cursor.execute(sql).fetchall()
        return count, example

    def _columns(self) -> Iterator[tuple[str, pa.ChunkedArray]]:
        for file in filter(None, (self._images_file, self._detections_file)):
            for name in file.schema_arrow.names:
                if name != "commit":
                    yield name, file.read(columns=[name])[name]


class _FaceRows:
    """The detections, front to back."""

    def __init__(self, file: pq.ParquetFile | None) -> None:
        self._batches = _batches(file) if file else iter(())
        self._rest = file.schema_arrow.empty_table() if file else pa.table({"image_id": pa.array([], pa.string())})

    def take(self, count: int) -> pa.Table:
        """The next `count` rows; fewer at the end."""
        while len(self._rest) < count and (batch := next(self._batches, None)) is not None:
            self._rest = pa.concat_tables([self._rest, batch])
        taken, self._rest = self._rest.slice(0, count), self._rest.slice(count)
        return taken


def _batches(file: pq.ParquetFile) -> Iterator[pa.Table]:
    for batch in file.iter_batches(BATCH_PICTURES, use_threads=False):
        yield pa.Table.from_batches([batch])


def _by_faces(pictures: pa.Table) -> Iterator[pa.Table]:
    """`pictures` in pieces of which none has much over BATCH_FACES faces, unless one picture has."""
    ends_N = np.cumsum(np.maximum(pictures["num_faces"].to_numpy(), 0).astype(np.int64))
    start = 0
    while start < len(pictures):
        before = ends_N[start - 1] if start else 0
        stop = max(start + 1, int(np.searchsorted(ends_N, before + BATCH_FACES, side="right")))
        yield pictures.slice(start, stop - start)
        start = stop


def _add(found: dict[str, Finding], findings: list[Finding]) -> None:
    for finding in findings:
        before = found.get(finding.check)
        found[finding.check] = replace(before, count=before.count + finding.count) if before else finding
