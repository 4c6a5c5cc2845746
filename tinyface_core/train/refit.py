"""What a model needs anew when training has moved its features: ranges for int8, and the regressor of ellipses.

The teacher is the model before it: its ellipses, on pictures that were trained on, are what the new regressor learns.
So no annotated ellipse is needed, and no ellipse gets better by it than the teacher's. Training itself: loop.py.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from tinyface_core.detect.detector import Detector
from tinyface_core.detect.runtime import choose_runtime
from tinyface_core.errors import InputError
from tinyface_core.model.locate import ModelAddress, fetch
from tinyface_core.model.spec import ModelSpec, Ranges, read_spec
from tinyface_core.storage import Storage
from tinyface_core.train.calibrate import ranges_of
from tinyface_core.train.data import AnnotatedPicture, decoded
from tinyface_core.train.fit_ellipses import SAMPLING, Fitted, fit, samples_of
from tinyface_core.train.fit_ellipses_truth import FOLDS, Truth

RANGE_PICTURES = 32  # of those given, at most: ranges settle early, and are taken in fp32


@dataclass(frozen=True)
class Refit:
    """ranges: empty, ellipses: None where the model is to do without. told: of each, what it rests on, or why not."""

    ranges: dict[str, Ranges] = field(default_factory=dict)
    ellipses: Fitted | None = None
    told: dict[str, str] = field(default_factory=dict)


def refit(
    student: ModelAddress,
    teacher: ModelAddress,
    pictures: Sequence[AnnotatedPicture],
    storage: Storage,
    threads: int = 1,
) -> Refit:
    """What the student needs to be what the teacher is: ranges and ellipses, each where the teacher has it.

    Raises:
        InputError: a picture cannot be read. CheckpointError: as fetch and Detector.load. StorageError.
    """
    torch.set_num_threads(threads)
    return _refit(fetch(student, storage), fetch(teacher, storage), pictures, storage)


def _refit(student: Path, teacher: Path, pictures: Sequence[AnnotatedPicture], storage: Storage) -> Refit:
    had = read_spec(teacher)
    if not pictures:
        return Refit(told=dict.fromkeys(_parts(had), "left out: no picture was to be used for it"))
    ranges, told = dict[str, Ranges](), dict[str, str]()
    if had.ranges:
        ranges, shown = ranges_of(student, islice(decoded(pictures, storage), RANGE_PICTURES))
        told["int8"] = f"refitted: ranges on {shown} training pictures"
    fitted = None
    if had.ellipses:
        try:
            truths = taught(Detector.load(teacher), decoded(pictures, storage))
            fitted = fit(samples_of(Detector.load(student, SAMPLING, choose_runtime(precision="fp32")), truths))
            told["ellipses"] = (
                f"refitted: to the ellipses of the model before it, {fitted.samples} detections on {len(pictures)} "
                f"training pictures; angle {fitted.angle_deg:.1f} degrees off them in the median of ten folds "
                f"(a constant: {fitted.constant_angle_deg:.1f})"
            )
        except InputError as error:  # too few faces in common: the boxes are as good, rows say `inscribed`
            told["ellipses"] = f"left out: {error}"
    return Refit(ranges, fitted, told)


def _parts(spec: ModelSpec) -> list[str]:
    return [*(["int8"] if spec.ranges else []), *(["ellipses"] if spec.ellipses else [])]


def taught(teacher: Detector, pictures: Iterable[NDArray[np.uint8]]) -> Iterator[Truth]:
    """Pictures with the ellipses of all faces that the teacher finds above its default score."""
    for number, rgb_HW3 in enumerate(pictures):
        found = teacher(rgb_HW3)
        if found.ellipses is not None and len(found.scores_K):
            yield Truth(rgb_HW3, found.ellipses, number % FOLDS)
