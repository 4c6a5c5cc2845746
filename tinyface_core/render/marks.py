"""The faces of chosen pictures, as they are drawn. Reads the detections table; knows no picture."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tinyface_core.render.choose import Chosen
from tinyface_core.storage import ObjectMissing, Storage
from tinyface_core.tables.unit_files import in_threads, read_table

_BOX = ("x1", "y1", "x2", "y2")
_ELLIPSE = ("ellipse_cx", "ellipse_cy", "ellipse_major", "ellipse_minor", "ellipse_angle")


@dataclass(frozen=True)
class Marks:
    """Faces of one picture. boxes_K4: xyxy, px of the upright picture. ellipses_K5: cx, cy, half axes, angle (radians).

    All float32; the most certain first.
    """

    boxes_K4: NDArray[np.float32]
    ellipses_K5: NDArray[np.float32]
    scores_K: NDArray[np.float32]

    def __len__(self) -> int:
        return len(self.scores_K)

    @property
    def heights_px_K(self) -> NDArray[np.float32]:
        return self.boxes_K4[:, 3] - self.boxes_K4[:, 1]

    def at(self, zoom_xy: tuple[float, float]) -> Marks:
        """The same faces on the picture at another size."""
        x, y = zoom_xy
        boxes_K4 = self.boxes_K4 * np.array([x, y, x, y], np.float32)
        ellipses_K5 = self.ellipses_K5 * np.array([x, y, (x + y) / 2, (x + y) / 2, 1], np.float32)
        return Marks(boxes_K4, ellipses_K5, self.scores_K)

    def moved(self, x: float, y: float) -> Marks:
        boxes_K4 = self.boxes_K4 + np.array([x, y, x, y], np.float32)
        return Marks(boxes_K4, self.ellipses_K5 + np.array([x, y, 0, 0, 0], np.float32), self.scores_K)

    def best(self, count: int) -> Marks:
        return Marks(self.boxes_K4[:count], self.ellipses_K5[:count], self.scores_K[:count])


NO_MARKS = Marks(np.zeros((0, 4), np.float32), np.zeros((0, 5), np.float32), np.zeros(0, np.float32))


def read_marks(storage: Storage, pictures: Sequence[Chosen], min_score: float | None) -> dict[str, Marks]:
    """image_id -> its faces from min_score on. One whose file went away (its unit is being redone) is not in it.

    Raises: StorageError: a table cannot be read; ObjectError.
    """
    by_file: dict[str, list[str]] = {}
    for picture in pictures:
        if picture.error is None:
            by_file.setdefault(picture.detections_uri, []).append(picture.image_id)
    found: dict[str, Marks] = {}
    for marks in in_threads(lambda item: _of_file(storage, *item, min_score), by_file.items()):
        found |= marks
    return found


def _of_file(storage: Storage, uri: str, image_ids: list[str], min_score: float | None) -> dict[str, Marks]:
    try:
        faces = read_table(storage, uri, ["image_id", *_BOX, *_ELLIPSE, "score"])
    except ObjectMissing:
        return {}
    picture_K = pc.fill_null(pc.index_in(faces["image_id"], value_set=pa.array(image_ids)), -1).to_numpy()
    score_K = faces["score"].to_numpy()
    wanted_K = picture_K >= 0
    if min_score is not None:
        wanted_K &= score_K >= np.float32(min_score)
    order_K = np.lexsort((-score_K, picture_K))
    order_K = order_K[wanted_K[order_K]]
    boxes_K4, ellipses_K5 = (
        np.stack([faces[name].to_numpy()[order_K] for name in names], axis=1) for names in (_BOX, _ELLIPSE)
    )
    starts = np.searchsorted(picture_K[order_K], np.arange(len(image_ids) + 1)).tolist()
    score_K = score_K[order_K]
    return {
        image_id: Marks(boxes_K4[a:b], ellipses_K5[a:b], score_K[a:b])
        for image_id, a, b in zip(image_ids, starts, starts[1:], strict=False)
    }
