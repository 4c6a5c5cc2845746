"""Pictures of two outputs beside each other: which may be compared, and how their faces differ.

A picture is compared where both outputs have a result of the very same bytes (SHA-256). Legend: P picture, D face of
any picture, M pair of faces.
"""

from __future__ import annotations

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tinyface_core.compare.counts import (
    LISTED,
    MOVED_IOU,
    Comparison,
    FaceCounts,
    PictureDiff,
    bands,
    counted,
    iou_counted,
)
from tinyface_core.compare.match import Pairs, matched
from tinyface_core.compare.rows import Faces, faces_of

Mask = NDArray[np.bool_]


def side_by_side(old: pa.Table, new: pa.Table, min_score: float) -> Comparison:
    """The same pictures, in the same order, of both outputs.

    Args:
        old, new: ROWS.
        min_score: faces that score less count neither as lost nor as gained, moved or kept, but may be a counterpart.
    """
    if not len(old):
        return Comparison()
    same_P = _equal(old["sha256"], new["sha256"])
    old_failed_P, new_failed_P = (table["error"].is_valid().to_numpy() for table in (old, new))
    compared_P = same_P & ~old_failed_P & ~new_failed_P
    kinds = {
        "compared": compared_P,
        "other bytes": ~same_P,
        "error in old": same_P & old_failed_P & ~new_failed_P,
        "error in new": same_P & new_failed_P & ~old_failed_P,
        "error in both": same_P & old_failed_P & new_failed_P,
    }
    broken = new["error"].filter(pa.array(kinds["error in new"])).to_pylist()
    old_rows, new_rows = (table.filter(pa.array(compared_P)) for table in (old, new))
    faces, most_different = _faces(old_rows, new_rows, min_score)
    pictures = Counter({name: int(mask_P.sum()) for name, mask_P in kinds.items() if mask_P.any()})
    return Comparison(pictures, new_errors=Counter(broken), faces=faces, most_different=most_different)


def alone(rows: pa.Table, side: str) -> Comparison:
    """Pictures that the other output does not have. side: `old` or `new`."""
    if not len(rows):
        return Comparison()
    with_result = rows["error"].null_count if side == "old" else 0
    return Comparison(Counter({f"only in {side}": len(rows)}), lost_results=with_result)


def _equal(old: pa.ChunkedArray, new: pa.ChunkedArray) -> Mask:
    """Unknown in one of them (nothing could be read) says nothing against the other."""
    return np.asarray(pc.fill_null(pc.equal(old, new), True).to_numpy(), bool)


def _faces(old_rows: pa.Table, new_rows: pa.Table, min_score: float) -> tuple[FaceCounts, tuple[PictureDiff, ...]]:
    old, new = faces_of(old_rows), faces_of(new_rows)
    pairs = matched(old, new)
    kind_old_D, kind_new_D = _kinds(old, new, pairs)
    counts_old_D, counts_new_D = (np.float32(min_score) <= faces.boxes_D5[:, 4] for faces in (old, new))
    bands_old_D, bands_new_D = (bands(faces.height_D, faces.boxes_D5[:, 4]) for faces in (old, new))
    lost_D, moved_D = counts_old_D & (kind_old_D == "lost"), counts_old_D & (kind_old_D == "moved")
    kept_D, gained_D = counts_old_D & (kind_old_D != "lost"), counts_new_D & (kind_new_D == "gained")
    shown = (np.where(counts_old_D & (kind_old_D == "lost"), kind_old_D, ""), _shown(kind_new_D, counts_new_D))

    def those(band_D: tuple[NDArray[np.int64], NDArray[np.int64]], mask_D: Mask) -> NDArray[np.int64]:
        return counted(band_D[0][mask_D], band_D[1][mask_D])

    kept_M = counts_old_D[pairs.old_M]
    faces = FaceCounts(
        old_HS=those(bands_old_D, counts_old_D),
        new_HS=those(bands_new_D, counts_new_D),
        lost_HS=those(bands_old_D, lost_D),
        gained_HS=those(bands_new_D, gained_D),
        kept_HS=those(bands_old_D, kept_D),
        moved_HS=those(bands_old_D, moved_D),
        iou_HB=iou_counted(bands_old_D[0][pairs.old_M[kept_M]], pairs.iou_M[kept_M]),
    )
    pictures = len(old_rows)
    by_kind_P3 = np.stack(
        [
            np.bincount(picture_D[mask_D], minlength=pictures)
            for picture_D, mask_D in ((old.picture_D, lost_D), (new.picture_D, gained_D), (old.picture_D, moved_D))
        ],
        axis=1,
    )
    return faces, _differing(new_rows, (old, new), shown, by_kind_P3)


def _kinds(old: Faces, new: Faces, pairs: Pairs) -> tuple[NDArray[np.str_], NDArray[np.str_]]:
    """What became of each old face: lost, moved, kept; of each new one: gained, moved, kept."""
    kind_old_D, kind_new_D = np.full(len(old.boxes_D5), "lost", "<U6"), np.full(len(new.boxes_D5), "gained", "<U6")
    kind_M = np.where(pairs.iou_M < MOVED_IOU, "moved", "kept")
    kind_old_D[pairs.old_M], kind_new_D[pairs.new_M] = kind_M, kind_M
    return kind_old_D, kind_new_D


def _shown(kind_new_D: NDArray[np.str_], counts_new_D: Mask) -> NDArray[np.str_]:
    """Kinds of the new faces as they are drawn: none for those that are only here and do not count."""
    return np.where((kind_new_D == "gained") & ~counts_new_D, "", kind_new_D)


def _differing(
    rows: pa.Table,
    faces: tuple[Faces, Faces],
    kinds: tuple[NDArray[np.str_], NDArray[np.str_]],
    by_kind_P3: NDArray[np.int64],
) -> tuple[PictureDiff, ...]:
    """At most LISTED pictures. kinds: of the faces that are drawn, else empty. by_kind_P3: lost, gained, moved."""
    order_P = np.lexsort((-by_kind_P3[:, 2], -by_kind_P3[:, 0] - by_kind_P3[:, 1]))[:LISTED]
    leading_P = order_P[by_kind_P3[order_P].any(axis=1)]
    names = ["image_id", "uri", "member", "source_version", "sha256", "width", "height"]
    found = []
    for place, row in zip(leading_P, rows.select(names).take(pa.array(leading_P)).to_pylist(), strict=True):
        spans = [slice(*side.starts_P1[place : place + 2]) for side in faces]
        kinds_K = np.concatenate([kind_D[span] for kind_D, span in zip(kinds, spans, strict=True)])
        boxes_K5 = np.concatenate([side.boxes_D5[span] for side, span in zip(faces, spans, strict=True)])
        old_faces, new_faces = (span.stop - span.start for span in spans)
        lost, gained, moved = map(int, by_kind_P3[place])
        found.append(
            PictureDiff(
                **row | {"width": row["width"] or 0, "height": row["height"] or 0},
                old_faces=int(old_faces),
                new_faces=int(new_faces),
                lost=lost,
                gained=gained,
                moved=moved,
                boxes_K5=boxes_K5[kinds_K != ""],
                kinds_K=tuple(kinds_K[kinds_K != ""].tolist()),
            )
        )
    return tuple(found)
