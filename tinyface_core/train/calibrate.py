"""A model's default score, chosen on pictures it has not seen, and what it finds there.

The default is the score that gives one false alarm a picture. A false alarm is a detection that no face, clear or
marked invalid, overlaps by IoU 0.5. This is no benchmark: the protocols of WIDER and FDDB have rules of their own.
`python -m tinyface_core.train.calibrate --help` measures a checkpoint and writes its default into it.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from typing import Any

import cyclopts
import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from tinyface_core import boxes
from tinyface_core.detect.detections import Detections
from tinyface_core.detect.detector import DetectOptions, Detector
from tinyface_core.errors import TinyfaceError
from tinyface_core.model.checkpoint import load_checkpoint, save_checkpoint
from tinyface_core.train.data import AnnotatedPicture, read_annotated

MATCH_IOU = 0.5
HEIGHTS_PX = (0, 10, 20, 40, 140, 10**6)
app = cyclopts.App(name="python -m tinyface_core.train.calibrate", help="Choose a checkpoint's default score.")


@dataclass(frozen=True)
class Judged:
    """The detections of one picture, best first, and its faces.

    scores_K. hit_K: takes a face that none before it took. alarm_K: overlaps nothing annotated. What is neither
    repeats a face or lies on an unclear one; unclear_K tells the latter. found_F: score that found each face, or 0.
    height_F: of the faces, px.
    """

    scores_K: NDArray[np.float32]
    hit_K: NDArray[np.bool_]
    alarm_K: NDArray[np.bool_]
    unclear_K: NDArray[np.bool_]
    found_F: NDArray[np.float32]
    height_F: NDArray[np.float32]


def judge(detections: Detections, picture: AnnotatedPicture) -> Judged:
    """Each detection, best first, takes the free face that it overlaps most, from MATCH_IOU on."""
    found_K4, faces_F4, unclear_M4 = (
        torch.from_numpy(array) for array in (detections.boxes_K4, picture.faces_K4, picture.unclear_M4)
    )
    iou_KF = boxes.iou(found_K4, faces_F4).numpy()
    on_face_K = np.any(iou_KF >= MATCH_IOU, axis=1)
    on_unclear_K = np.any(boxes.iou(found_K4, unclear_M4).numpy() >= MATCH_IOU, axis=1)
    hit_K = np.zeros(len(detections), bool)
    found_F = np.zeros(len(faces_F4), np.float32)
    for number in np.flatnonzero(on_face_K):
        free_F = np.where(found_F == 0, iou_KF[number], 0)
        if free_F.max() >= MATCH_IOU:
            hit_K[number] = True
            found_F[free_F.argmax()] = detections.scores_K[number]
    height_F = picture.faces_K4[:, 3] - picture.faces_K4[:, 1]
    alarm_K, unclear_K = ~np.logical_or(on_face_K, on_unclear_K), np.logical_and(on_unclear_K, ~on_face_K)
    return Judged(detections.scores_K, hit_K, alarm_K, unclear_K, found_F, height_F)


def default_score(judged: Sequence[Judged], alarms_a_picture: float = 1.0) -> float:
    """The lowest threshold (exclusive) with at most so many false alarms; 0 when there are fewer without any."""
    alarms = np.sort(np.concatenate([one.scores_K[one.alarm_K] for one in judged]))[::-1]
    allowed = int(alarms_a_picture * len(judged))
    return float(alarms[allowed]) if len(alarms) > allowed else 0.0


def average_precision(judged: Sequence[Judged]) -> float:
    """Area under the monotone envelope of precision over recall; repeats count as false, unclear faces do not count."""
    scores_K, hit_K, unclear_K = (
        np.concatenate([getattr(one, name) for one in judged]) for name in ("scores_K", "hit_K", "unclear_K")
    )
    order = np.argsort(-scores_K[~unclear_K], kind="stable")
    hits = np.cumsum(hit_K[~unclear_K][order])
    faces = sum(len(one.found_F) for one in judged)
    if not len(hits) or not faces:
        return 0.0
    envelope = np.maximum.accumulate((hits / np.arange(1, len(hits) + 1))[::-1])[::-1]
    return float(np.sum(np.diff(hits / faces, prepend=0.0) * envelope))


def summary(judged: Sequence[Judged], score: float) -> dict[str, Any]:
    """What was found at this threshold, and the average precision over all."""
    found_F, height_F = (np.concatenate([getattr(one, name) for one in judged]) for name in ("found_F", "height_F"))
    recall = {}
    for low, high in pairwise(HEIGHTS_PX):
        inside_F = (height_F >= low) & (height_F < high)
        if inside_F.any():
            recall[f"{low}..{high} px"] = f"{(found_F[inside_F] > score).mean():.3f} of {inside_F.sum()}"
    return {
        "pictures": len(judged),
        "faces": len(found_F),
        "ap_at_iou_0.5": round(average_precision(judged), 4),
        "score": round(score, 4),
        "alarms_a_picture": round(
            sum(int((one.scores_K[one.alarm_K] > score).sum()) for one in judged) / len(judged), 3
        ),
        "recall": round(float((found_F > score).mean()), 4),
        "recall_by_height": recall,
    }


def judge_all(
    detector: Callable[[NDArray[np.uint8]], Detections], pictures: Sequence[AnnotatedPicture]
) -> list[Judged]:
    """The detector on each picture."""
    judged = []
    for picture in pictures:
        with Image.open(picture.path) as image:
            judged.append(judge(detector(np.array(image.convert("RGB"))), picture))
    return judged


@app.default
def main(model: Path, *, data: list[Path], every: int = 1, least_score: float = 0.05, out: Path | None = None) -> None:
    """Measure a checkpoint on every n-th picture; with --out, write it there with its default score.

    Args:
        model: a checkpoint file.
        data: annotated folders that were not trained on.
        least_score: detections up to it are not looked at; the average precision lacks them.
    """
    pictures = [picture for folder in data for picture in read_annotated(folder)[0]][::every]
    judged = judge_all(Detector.load(model, DetectOptions(min_score=least_score)), pictures)
    score = max(default_score(judged), least_score)
    said = summary(judged, score)
    sys.stdout.write(json.dumps(said, indent=1) + "\n")
    if out is not None:
        network, spec = load_checkpoint(model)
        defaults = replace(spec.defaults, score=said["score"])
        save_checkpoint(
            out, network, replace(spec, defaults=defaults, provenance={**spec.provenance, "validation": said})
        )


if __name__ == "__main__":
    try:
        app()
    except TinyfaceError as error:
        sys.exit(f"{type(error).__name__}: {error}")
