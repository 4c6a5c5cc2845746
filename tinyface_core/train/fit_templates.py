"""Templates out of annotated boxes: k-medoids under the Jaccard distance, then the resolution of each.

Boxes are compared centred on each other, so only width and height count: equal sizes are one point with a weight.
A medoid is a size that occurs. Paper: section 3.2, "Clustering"; METHOD, sections 1 and 7.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from tinyface_core.errors import InputError
from tinyface_core.labels.forms import read_lines
from tinyface_core.templates import Template, TemplateSet

LEAST_PX, MOST_BOXES = 10, 100_000
TALL_PX, SHORT_PX = 140, 40  # above: found at half size; below: at twice the size
A_PX, B_PX = (40, 140), (10, 20)  # heights of the faces that the sets A and B are for
_ROUNDS = 100


@dataclass(frozen=True)
class Fitted:
    """sizes_K2: width, height of the faces, px, largest area first. mean_iou: of all boxes with their best size."""

    sizes_K2: NDArray[np.float64]
    mean_iou: float
    boxes: int


def annotated_sizes(source: Path) -> NDArray[np.float64]:
    """Width, height of every box of annotations that is not marked invalid, (N, 2) px; no pictures are needed.

    Raises: InputError as `labels.forms.read_lines`; no picture is named.
    """
    lines = list(read_lines(source))
    if not lines:
        raise InputError(f"{source}: names no picture.")
    return np.concatenate([line.boxes_K4[~line.invalid_K, 2:] for line in lines])


def kept_sizes(sizes_N2: NDArray[np.float64], rng: np.random.Generator) -> NDArray[np.float64]:
    """Sizes (width, height) of at least LEAST_PX both ways, at most MOST_BOXES of them, drawn at random."""
    kept_N2 = sizes_N2[(sizes_N2 >= LEAST_PX).all(axis=1)]
    if len(kept_N2) > MOST_BOXES:
        kept_N2 = kept_N2[rng.choice(len(kept_N2), MOST_BOXES, replace=False)]
    return kept_N2


def centred_iou(sizes_N2: NDArray[np.float64], sizes_M2: NDArray[np.float64]) -> NDArray[np.float64]:
    """IoU (N, M) of boxes with one centre."""
    inter_NM = np.prod(np.minimum(sizes_N2[:, None], sizes_M2[None]), axis=2)
    return np.asarray(inter_NM / (sizes_N2.prod(axis=1)[:, None] + sizes_M2.prod(axis=1) - inter_NM))


def mean_best_iou(sizes_N2: NDArray[np.float64], templates_K2: NDArray[np.float64]) -> float:
    """How well the templates cover the boxes: the mean of each box's best IoU."""
    parts = np.array_split(sizes_N2, 1 + len(sizes_N2) // 10_000)
    return sum(float(centred_iou(part, templates_K2).max(axis=1).sum()) for part in parts) / len(sizes_N2)


def fit(sizes_N2: NDArray[np.float64], count: int = 25, *, restarts: int = 10, seed: int = 0) -> Fitted:
    """The best of some k-medoids runs; the same seed gives the same.

    Args:
        sizes_N2: width, height of faces, px, of any number; `kept_sizes` chooses among them.
    Raises:
        InputError: fewer different sizes than templates.
    """
    rng = np.random.default_rng(seed)
    kept_N2 = kept_sizes(np.asarray(sizes_N2, np.float64), rng)
    points_P2, weight_P = np.unique(kept_N2, axis=0, return_counts=True)
    if len(points_P2) < count:
        raise InputError(f"{len(points_P2)} different sizes of {LEAST_PX} px or more: too few for {count} templates.")
    best: tuple[float, NDArray[np.int64]] | None = None
    for _ in range(restarts):
        medoids_K, loss = _alternate(points_P2, weight_P, _spread(points_P2, weight_P, count, rng))
        if best is None or loss < best[0]:
            best = (loss, medoids_K)
    assert best is not None
    sizes_K2 = points_P2[best[1]]
    sizes_K2 = sizes_K2[np.lexsort((-sizes_K2[:, 1], -sizes_K2.prod(axis=1)))]
    return Fitted(sizes_K2, mean_best_iou(kept_N2, sizes_K2), len(kept_N2))


def _spread(
    points_P2: NDArray[np.float64], weight_P: NDArray[np.int64], count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """First medoids as k-means++ draws them: far ones are likelier."""
    chosen = [int(rng.choice(len(points_P2), p=weight_P / weight_P.sum()))]
    distance_P = 1 - centred_iou(points_P2, points_P2[chosen])[:, 0]
    while len(chosen) < count:
        share_P = weight_P * distance_P
        chosen.append(int(rng.choice(len(points_P2), p=share_P / share_P.sum())))
        distance_P = np.minimum(distance_P, 1 - centred_iou(points_P2, points_P2[chosen[-1:]])[:, 0])
    return np.array(chosen)


def _alternate(
    points_P2: NDArray[np.float64], weight_P: NDArray[np.int64], medoids_K: NDArray[np.int64]
) -> tuple[NDArray[np.int64], float]:
    """Points go to their nearest medoid, then each cluster takes its most central point, until nothing moves."""
    for _ in range(_ROUNDS):
        nearest_P = centred_iou(points_P2, points_P2[medoids_K]).argmax(axis=1)
        moved_K = medoids_K.copy()
        for cluster in range(len(medoids_K)):
            members = np.flatnonzero(nearest_P == cluster)
            if len(members):
                near_MM = centred_iou(points_P2[members], points_P2[members])
                moved_K[cluster] = members[(near_MM @ weight_P[members]).argmax()]
        if np.array_equal(moved_K, medoids_K):
            break
        medoids_K = moved_K
    best_P = centred_iou(points_P2, points_P2[medoids_K]).max(axis=1)
    return medoids_K, float((weight_P * (1 - best_P)).sum())


def resolution_of(height_px: float) -> float:
    """At which zoom faces of this height are looked for: large ones shrunk, small ones enlarged."""
    return 0.5 if height_px > TALL_PX else 2.0 if height_px < SHORT_PX else 1.0


def template_set(sizes_K2: NDArray[np.float64]) -> TemplateSet:
    """Templates with their resolutions and the sets A (40-140 px, every level) and B (10-20 px, above 1x)."""
    templates = []
    for width, height in sizes_K2.tolist():
        zoom = resolution_of(height)
        templates.append(Template(zoom * (width - 1) + 1, zoom * (height - 1) + 1, zoom))
    heights_K = sizes_K2[:, 1]
    a, b = (tuple(np.flatnonzero((heights_K >= low) & (heights_K < high)).tolist()) for low, high in (A_PX, B_PX))
    return TemplateSet(tuple(templates), outputs=tuple(range(len(templates))), a=a, b=b)


def face_sizes(templates: TemplateSet) -> NDArray[np.float64]:
    """Width, height of the faces, in px of a picture at its own size, that a set of templates is for, (K, 2)."""
    return np.array(
        [((t.width - 1) / t.resolution + 1, (t.height - 1) / t.resolution + 1) for t in templates.templates]
    )
