"""A comparison as tables of text, for the screen and the page; and as JSON."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from tinyface_core.compare.counts import HEIGHT_BANDS, MOVED_IOU, SCORE_BANDS, Comparison, Counts, FaceCounts
from tinyface_core.compare.match import MATCH_IOU
from tinyface_core.compare.outputs import Output
from tinyface_core.report.text import grouped, shown

_Pick = Callable[[Counts], Any]
_HEAD = ("old", "new", "lost", "of the old", "gained", "of the new", "moved", "of the kept")


@dataclass(frozen=True)
class Table:
    """said: one sentence. rows: a label, then cells, as text."""

    title: str
    said: str
    head: tuple[str, ...]
    rows: list[tuple[str, ...]]

    def __str__(self) -> str:
        """Labels to the left, numbers to the right."""
        lines = [self.head, *self.rows]
        widths = [max(map(len, column)) for column in zip(*lines, strict=True)]
        return "\n".join(
            "  ".join([line[0].ljust(widths[0]), *map(str.rjust, line[1:], widths[1:])]).rstrip() for line in lines
        )


def tables_of(found: Comparison, min_score: float) -> list[Table]:
    """Pictures, faces by height, faces by score."""
    faces = found.faces
    said = f"Faces of a score from {min_score:g}; a counterpart has an IoU of {MATCH_IOU:g} or more, and any score."
    heights = [(f"{band} px", partial(_of_height, place)) for place, band in enumerate(HEIGHT_BANDS)]
    scores = [(f"{band}+", partial(_of_score, place)) for place, band in enumerate(SCORE_BANDS)]
    return [
        Table("Pictures", _told_of_pictures(found), ("", "pictures"), _pictures(found)),
        Table("Faces by height", said, ("height", *_HEAD), [*_rows(faces, [*heights, ("all", np.sum)])]),
        Table("Faces by score", _told_of_moves(faces), ("score", *_HEAD), [*_rows(faces, scores)]),
    ]


def _of_height(place: int, counts_HS: Counts) -> Any:
    return counts_HS[place].sum()


def _of_score(place: int, counts_HS: Counts) -> Any:
    return counts_HS[:, place].sum()


def settings_as_text(differing: Sequence[tuple[str, Any, Any]]) -> list[tuple[str, str, str]]:
    return [(shown(name), _value(old), _value(new)) for name, old, new in differing]


def as_json(
    found: Comparison, old: Output, new: Output, min_score: float, differing: Sequence[tuple[str, Any, Any]]
) -> dict[str, Any]:
    """All numbers, as JSON values; heights in px."""
    faces = found.faces
    kinds = {name.removesuffix("_HS"): getattr(faces, name) for name in vars(faces) if name.endswith("_HS")}
    return {
        "old": old.uri,
        "new": new.uri,
        "settings": {name: {"old": was, "new": is_now} for name, was, is_now in differing},
        "pictures": dict(sorted(found.pictures.items())),
        "new_errors": dict(sorted(found.new_errors.items())),
        "torn_units": {"old": found.torn_old, "new": found.torn_new},
        "faces": {
            "min_score": min_score,
            "match_iou": MATCH_IOU,
            "moved_iou": MOVED_IOU,
            **{name: int(counts_HS.sum()) for name, counts_HS in kinds.items()},
            "by_height_px": _by_band(kinds, HEIGHT_BANDS, 1),
            "by_score": _by_band(kinds, SCORE_BANDS, 0),
            "iou_of_kept": {f"{name} % reach": faces.iou_above(name / 100) for name in (50, 90, 99)},
        },
        "most_different": [
            {
                name: getattr(diff, name)
                for name in ("image_id", "uri", "member", "old_faces", "new_faces", "lost", "gained", "moved")
            }
            for diff in found.most_different
        ],
    }


def _by_band(kinds: dict[str, Counts], bands: Sequence[str], axis: int) -> dict[str, dict[str, int]]:
    """axis: the other one, which is summed over."""
    sums = {name: counts_HS.sum(axis=axis) for name, counts_HS in kinds.items()}
    return {band: {name: int(counts[place]) for name, counts in sums.items()} for place, band in enumerate(bands)}


def _rows(faces: FaceCounts, labelled: Sequence[tuple[str, _Pick]]) -> Iterator[tuple[str, ...]]:
    """One for each label; a score band without any face is left out."""
    for label, pick in labelled:
        old, new, lost, gained, kept, moved = (
            int(pick(counts))
            for counts in (faces.old_HS, faces.new_HS, faces.lost_HS, faces.gained_HS, faces.kept_HS, faces.moved_HS)
        )
        if not old and not new and label.endswith("+"):
            continue
        shares = [(grouped(part), _share(part, whole)) for part, whole in ((lost, old), (gained, new), (moved, kept))]
        yield label, grouped(old), grouped(new), *(cell for pair in shares for cell in pair)


def _pictures(found: Comparison) -> list[tuple[str, ...]]:
    order = ("compared", "other bytes", "error in new", "error in old", "error in both", "only in old", "only in new")
    rows: list[tuple[str, ...]] = [
        (name, grouped(found.pictures[name])) for name in order if found.pictures[name] or name == "compared"
    ]
    for side, torn in (("old", found.torn_old), ("new", found.torn_new)):
        if torn:
            rows.append((f"units of the {side} without their faces", grouped(torn)))
    return rows


def _told_of_pictures(found: Comparison) -> str:
    said = "Compared are those of the same id and the same bytes, with a result in both."
    if found.new_errors:
        errors = ", ".join(f"{shown(name)} {count:,}" for name, count in sorted(found.new_errors.items()))
        said += f" Errors in the new one alone: {errors}."
    return said


def _told_of_moves(faces: FaceCounts) -> str:
    half, most = faces.iou_above(0.5), faces.iou_above(0.99)
    if half is None or most is None:
        return "No face was kept."
    return f"Moved: an IoU below {MOVED_IOU:g}. Half of the kept faces reach {half:.2f}, 99 in 100 reach {most:.2f}."


def _share(part: int, whole: int) -> str:
    """To a hundredth of a percent: limits are often of that size."""
    return f"{100 * part / whole:.2f} %" if whole else ""


def _value(value: Any) -> str:
    if value is None:
        return "none"
    return shown(" ".join(map(str, value)) if isinstance(value, list | tuple) else value)
