"""Pictures in which the ellipse of each face is known: FDDB's own, or training pictures turned by known angles.

Without FDDB's pictures the angle comes from a line through the eyes, found by YuNet on annotated faces that are large
enough for it; size and centre from the annotated box; the ratio of the axes from FDDB's annotation. Angles and
coordinates are those of detect/ellipse.py. Knows no detector of ours and no regressor. METHOD, section 6.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import cv2
import numpy as np
import torch
from numpy.typing import NDArray

from tinyface_core import boxes
from tinyface_core.detect.ellipse import Ellipses, around
from tinyface_core.errors import CheckpointError, InputError, PictureError
from tinyface_core.evaluate.fddb_files import read_truth
from tinyface_core.picture.decode import decode
from tinyface_core.picture.picture import Limits
from tinyface_core.train.data import AnnotatedPicture

FOLDS = 10
ENDINGS = (".jpg", ".jpeg", ".png")  # of pictures, which the annotation names without
# Of FDDB's 5,171 ellipses, the median ratio of the axes. Their centre is that of the box around them: no offset.
AXIS_RATIO = 1.51
LEAST_FACE_PX = 40  # high: below, the eyes are too few pixels for a line
LEAST_EYES = 0.25  # apart, in widths of the box: below, the head is turned away and the line says little
SURE_SCORE, SAME_IOU = 0.7, 0.5  # of YuNet's face, and with the annotated one
MOST_TURN = math.radians(45)
VIEW_PX = 320  # side of a turned view, as its level shows it
# Levels of the views, and the heights of faces that their templates find there. What a level below 1x shows is a
# picture that was shrunk, and so is a view.
SHOWN_PX = {1.0: (35.0, 160.0), 2.0: (20.0, 140.0)}


@dataclass(frozen=True)
class Truth:
    """One picture and all ellipses that are known in it; there may be more faces.

    fold: in 0..9, of its source. zoom: the level to be run; None: all of the model's.
    """

    rgb_HW3: NDArray[np.uint8]
    ellipses: Ellipses
    fold: int
    zoom: float | None = None


def annotated_ellipses(source: Path, pictures: Path, most: int | None = None) -> Iterator[Truth]:
    """FDDB's pictures with its ellipses, in the order of the annotation; those that are not there are left out.

    Args:
        source: as evaluate/fddb_files.py reads it. pictures: the folder that the names begin at. most: pictures that
            are taken; they are then spread over the whole annotation.
    Raises:
        InputError: not such an annotation, or none of its pictures is there.
    """
    there = []
    for place, (name, faces) in enumerate(read_truth(source).items()):
        path = next((path for end in ENDINGS if (path := pictures / f"{name}{end}").is_file()), None)
        if path is not None:
            there.append((path, (faces.fold or place) % FOLDS, faces.ellipses_F5))
    if not there:
        raise InputError(f"{pictures}: none of the pictures that {source} names is below it.")
    for place in np.linspace(0, len(there) - 1, min(most or len(there), len(there))).astype(int):
        path, fold, ellipses_F5 = there[place]
        major_F, minor_F, angle_F, x_F, y_F = ellipses_F5.T
        yield Truth(_pixels(path), Ellipses.of_axes(np.stack([x_F, y_F, major_F, angle_F, minor_F])), fold)


class EyeLines:
    """Finds how faces are turned, by YuNet's eyes."""

    def __init__(self, model: Path) -> None:
        """Raises: CheckpointError: OpenCV cannot load the model as YuNet."""
        try:
            self._yunet = cv2.FaceDetectorYN.create(str(model), "", (320, 320), SURE_SCORE)
        except cv2.error as error:
            raise CheckpointError(f"{model}: OpenCV cannot load it as YuNet ({error.err}).") from error

    def ellipses(self, rgb_HW3: NDArray[np.uint8], faces_F4: NDArray[np.float32]) -> Ellipses:
        """Of those annotated faces (xyxy, px) that are high enough, that YuNet finds too, with both eyes apart.

        The box around an ellipse has the middle and the area of the annotated box.
        """
        self._yunet.setInputSize((rgb_HW3.shape[1], rgb_HW3.shape[0]))
        _, rows_K15 = self._yunet.detect(np.ascontiguousarray(rgb_HW3[..., ::-1]))
        found_K15 = np.array([] if rows_K15 is None else rows_K15, np.float64).reshape(-1, 15)
        eyes_K2 = found_K15[:, 6:8] - found_K15[:, 4:6]  # from the one on the left in the picture to the right
        apart_K = np.hypot(*eyes_K2.T) >= LEAST_EYES * found_K15[:, 2]
        found_K15, eyes_K2 = found_K15[apart_K], eyes_K2[apart_K]
        faces_F4 = faces_F4[faces_F4[:, 3] - faces_F4[:, 1] >= LEAST_FACE_PX]
        if not len(found_K15) or not len(faces_F4):
            return Ellipses.joined([])
        found_K4 = np.concatenate([found_K15[:, :2], found_K15[:, :2] + found_K15[:, 2:4]], axis=1)
        iou_FK = boxes.iou(torch.from_numpy(faces_F4.astype(np.float64)), torch.from_numpy(found_K4)).numpy()
        best_F = iou_FK.argmax(axis=1)
        tilt_F = np.arctan2(eyes_K2[best_F, 1], eyes_K2[best_F, 0])
        kept_F = (iou_FK.max(axis=1) >= SAME_IOU) & (np.abs(tilt_F) <= MOST_TURN)
        return tilted(faces_F4[kept_F], tilt_F[kept_F])


def tilted(faces_F4: NDArray[np.float32], tilt_F: NDArray[np.float64]) -> Ellipses:
    """Ellipses of FDDB's shape, turned from upright by tilt_F (radians, clockwise as seen), as large as their boxes."""
    x1_F, y1_F, x2_F, y2_F = faces_F4.astype(np.float64).T
    nothing_F, ones_F = np.zeros(len(faces_F4)), np.ones(len(faces_F4))
    unit_F = Ellipses.of_axes(np.stack([nothing_F, nothing_F, AXIS_RATIO * ones_F, tilt_F + math.pi / 2, ones_F]))
    unit_F4 = around(unit_F)
    size_F = np.sqrt((x2_F - x1_F) * (y2_F - y1_F) / np.prod(unit_F4[:, 2:] - unit_F4[:, :2], axis=1))
    axes_5F = [(x1_F + x2_F) / 2, (y1_F + y2_F) / 2, AXIS_RATIO * size_F, tilt_F + math.pi / 2, size_F]
    return Ellipses.of_axes(np.stack(axes_5F))


def turned_views(pictures: Sequence[AnnotatedPicture], eyes: EyeLines, views: int, seed: int) -> Iterator[Truth]:
    """Views of training pictures, turned by up to MOST_TURN and shrunk, around one face each; the seed decides all.

    Each picture with a face whose angle is known gives one view in each round over all of them, until there are
    enough. Its fold stays with it.
    """
    rng = np.random.default_rng(seed)
    queue = [(int(number), place % FOLDS) for place, number in enumerate(rng.permutation(len(pictures)))]
    known: dict[int, Ellipses] = {}
    made = 0
    while queue:
        for number, fold in queue:
            rgb_HW3 = _pixels(pictures[number].path)
            if number not in known:
                known[number] = eyes.ellipses(rgb_HW3, pictures[number].faces_K4)
            if len(known[number].cx_K):
                yield _view(rgb_HW3, known[number], fold, rng)
                made += 1
            if made == views:
                return
        queue = [(number, fold) for number, fold in queue if len(known[number].cx_K)]
    raise InputError(f"no face of {LEAST_FACE_PX} px in these {len(pictures)} pictures shows both eyes.")


def _view(rgb_HW3: NDArray[np.uint8], ellipses: Ellipses, fold: int, rng: np.random.Generator) -> Truth:
    """One face of the picture, at a height that a level's templates find, and what is around it."""
    chosen = int(rng.integers(len(ellipses.cx_K)))
    zoom = float(rng.choice(list(SHOWN_PX)))
    low, high = (math.log(px / zoom) for px in SHOWN_PX[zoom])
    smaller = min(1.0, math.exp(rng.uniform(low, high)) / (2 * float(ellipses.major_K[chosen])))
    turn, middle_2 = rng.uniform(-MOST_TURN, MOST_TURN), rng.uniform(0.3, 0.7, 2) * VIEW_PX / zoom

    height, width = (max(1, round(side * smaller)) for side in rgb_HW3.shape[:2])
    shrunk_HW3 = np.asarray(cv2.resize(rgb_HW3, (width, height), interpolation=cv2.INTER_AREA), np.uint8)
    shrunk = moved(ellipses, np.eye(2) * smaller, np.zeros(2))
    turn_22 = np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
    shift_2 = middle_2 - turn_22 @ np.array([shrunk.cx_K[chosen], shrunk.cy_K[chosen]])
    side = round(VIEW_PX / zoom)
    seen = moved(shrunk, turn_22, shift_2)
    box_K4 = around(seen)
    inside_K = (box_K4[:, :2] >= 0).all(axis=1) & (box_K4[:, 2:] <= side).all(axis=1)
    return Truth(turned_picture(shrunk_HW3, turn_22, shift_2, (side, side)), seen.at(inside_K), fold, zoom)


def turned_picture(
    rgb_HW3: NDArray[np.uint8], turn_22: NDArray[np.float64], shift_2: NDArray[np.float64], size_hw: tuple[int, int]
) -> NDArray[np.uint8]:
    """The picture with each point p, continuous px, at turn_22 @ p + shift_2; grey where nothing is."""
    shift_2 = shift_2 + turn_22 @ np.full(2, 0.5) - 0.5  # OpenCV counts from the middle of a pixel
    matrix_23 = np.concatenate([turn_22, shift_2[:, None]], axis=1)
    grey = (119, 111, 102)  # WIDER's mean
    return np.asarray(cv2.warpAffine(rgb_HW3, matrix_23, size_hw[::-1], flags=cv2.INTER_LINEAR, borderValue=grey))


def moved(ellipses: Ellipses, turn_22: NDArray[np.float64], shift_2: NDArray[np.float64]) -> Ellipses:
    """Ellipses after turn_22 @ p + shift_2: a turn and one zoom for both axes."""
    zoom = math.sqrt(float(np.linalg.det(turn_22)))
    x_K, y_K = turn_22 @ np.stack([ellipses.cx_K, ellipses.cy_K]).astype(np.float64) + shift_2[:, None]
    angle_K = ellipses.angle_K.astype(np.float64) + math.atan2(turn_22[1, 0], turn_22[0, 0])
    return Ellipses.of_axes(np.stack([x_K, y_K, zoom * ellipses.major_K, angle_K, zoom * ellipses.minor_K]))


def _pixels(path: Path) -> NDArray[np.uint8]:
    try:
        picture = decode(path.read_bytes(), Limits())
    except OSError as error:
        raise InputError(f"{path}: cannot be read ({error.strerror}).") from error
    if isinstance(picture, PictureError):
        raise InputError(f"{path}: cannot be decoded ({picture.message}). Take it out of the annotation.")
    return picture.rgb_HW3
