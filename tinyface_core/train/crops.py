"""Random training crops: a square piece of one pyramid level, with the faces that lie in it.

Crop `index` of a seed is always the same, so a resumed or a distributed run draws what an unbroken one would. A crop
is cut out of the level image (geometry.py) without making the whole of it. Boxes are continuous px of the crop.
Recipe: the zoom first, then mostly a face that has a good size there. This file knows no templates and no network.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from tinyface_core.geometry import LevelSize
from tinyface_core.train.data import PictureCache

_PICTURES_TRIED = 50  # in search of a face of the wanted size, before a uniform crop is taken instead


@dataclass(frozen=True)
class CropSettings:
    """How crops are drawn.

    zooms, shares: levels and how often each is drawn. zoom_jitter: octaves, uniform to both sides of the zoom.
    face_share: of crops around a face; the others lie anywhere. crowding: a picture is drawn for them as often as
    its number of faces to this power; 0: all alike. face_px: longer side, at the zoom, of such a face.
    middle: its centre falls into this share of the crop. colour: strength of gain, shift and gamma; 0 leaves the
    picture. grey: share of crops without colour. rgb_shift: the paper's instead, standard deviation of a shift of each
    channel, of 0..255. min_left: faces of which the crop shows less (area) are dropped.
    """

    side_px: int = 320
    zooms: tuple[float, ...] = (0.25, 0.5, 1.0, 2.0, 4.0)
    shares: tuple[float, ...] = (0.07, 0.16, 0.24, 0.38, 0.15)
    zoom_jitter: float = 0.2
    face_share: float = 0.85
    crowding: float = 0.0
    face_px: tuple[float, float] = (10.0, 140.0)
    middle: float = 0.8
    flip: float = 0.5
    colour: float = 0.2
    grey: float = 0.1
    rgb_shift: float = 0.0
    min_left: float = 0.3


@dataclass(frozen=True)
class Crop:
    """pixels_HW3 uint8. shown: the part that shows the picture, xyxy; the rest is padding. Boxes are clipped to it."""

    pixels_HW3: NDArray[np.uint8]
    faces_K4: NDArray[np.float32]
    unclear_M4: NDArray[np.float32]
    shown: tuple[int, int, int, int]


def draw_crop(
    cache: PictureCache, settings: CropSettings, padding: tuple[int, int, int], rng: np.random.Generator
) -> Crop:
    """One crop; everything random comes from rng. padding: RGB beyond the picture, the network's mean colour."""
    zoom = float(rng.choice(settings.zooms, p=settings.shares))
    zoom *= 2.0 ** rng.uniform(-settings.zoom_jitter, settings.zoom_jitter)
    picture, face_4 = _choose(cache, settings, zoom, rng)
    level = LevelSize(cache.pictures[picture].picture_hw, zoom)
    origin_yx = _place(level, settings, face_4, rng)
    crop = cut(cache, picture, level, origin_yx, settings, padding)
    return _varied(crop, settings, rng)


def _choose(
    cache: PictureCache, settings: CropSettings, zoom: float, rng: np.random.Generator
) -> tuple[int, NDArray[np.float32] | None]:
    """A picture, and the face that the crop is put around; None for a crop anywhere."""
    weight_P = cache.faces_P**settings.crowding
    if rng.random() < settings.face_share and weight_P.any():
        low, high = settings.face_px
        for picture in rng.choice(len(cache), _PICTURES_TRIED, p=weight_P / weight_P.sum()).tolist():
            faces_K4 = cache.pictures[picture].faces_K4
            longer_K = (faces_K4[:, 2:] - faces_K4[:, :2]).max(axis=1) * zoom
            fitting = np.flatnonzero((longer_K >= low) & (longer_K <= high))
            if len(fitting):
                return picture, faces_K4[rng.choice(fitting)]
    return int(rng.integers(len(cache))), None


def _place(
    level: LevelSize, settings: CropSettings, face_4: NDArray[np.float32] | None, rng: np.random.Generator
) -> tuple[int, int]:
    """Where the crop begins in the level image (y, x); below 0 where the level is smaller than the crop."""
    origin = []
    for axis in (0, 1):
        spare = level.image_hw[axis] - settings.side_px
        if spare <= 0:
            begin = int(rng.integers(spare, 1))
        elif face_4 is None:
            begin = int(rng.integers(0, spare + 1))
        else:
            centre = (face_4[1 - axis] + face_4[3 - axis]) / 2 * level.ratio_yx[axis]
            within = settings.side_px * (0.5 + settings.middle * rng.uniform(-0.5, 0.5))
            begin = min(max(round(float(centre - within)), 0), spare)
        origin.append(begin)
    return origin[0], origin[1]


def cut(
    cache: PictureCache,
    picture: int,
    level: LevelSize,
    origin_yx: tuple[int, int],
    settings: CropSettings,
    padding: tuple[int, int, int],
) -> Crop:
    """The crop that begins at this px of the level image; equal to resizing the whole picture and cutting then."""
    side = settings.side_px
    top, left = (max(0, -begin) for begin in origin_yx)
    bottom, right = (min(side, level.image_hw[axis] - origin_yx[axis]) for axis in (0, 1))
    pixels_HW3 = np.empty((side, side, 3), np.uint8)
    pixels_HW3[:] = padding
    y, x = origin_yx
    pixels_HW3[top:bottom, left:right] = _resized(
        cache.pixels_HW3(picture), level, (y + top, y + bottom), (x + left, x + right)
    )
    shown = (left, top, right, bottom)
    annotated = cache.pictures[picture]
    ratio_y, ratio_x = level.ratio_yx
    to_crop = np.array([ratio_x, ratio_y, ratio_x, ratio_y], np.float32), np.array([x, y, x, y], np.float32)
    faces_K4 = _clipped(annotated.faces_K4 * to_crop[0] - to_crop[1], shown, settings.min_left)
    unclear_M4 = _clipped(annotated.unclear_M4 * to_crop[0] - to_crop[1], shown, 0.0)
    return Crop(pixels_HW3, faces_K4, unclear_M4, shown)


def _resized(
    picture_HW3: NDArray[np.uint8], level: LevelSize, rows: tuple[int, int], columns: tuple[int, int]
) -> NDArray[np.uint8]:
    """These rows and columns of the level image: half-pixel centres, bilinear, antialiased when shrinking."""
    spans, boxes = [], []
    for axis, (begin, end) in enumerate((rows, columns)):
        ratio = level.ratio_yx[axis]
        margin = math.ceil(max(1.0, 1 / ratio)) + 1  # what the resampling filter reads beyond the box
        low = max(0, math.floor(begin / ratio) - margin)
        high = min(level.picture_hw[axis], math.ceil(end / ratio) + margin)
        spans.append(slice(low, high))
        boxes.append((max(0.0, begin / ratio - low), min(float(high - low), end / ratio - low)))
    source = Image.fromarray(np.ascontiguousarray(picture_HW3[spans[0], spans[1]]))
    (y1, y2), (x1, x2) = boxes
    size = (columns[1] - columns[0], rows[1] - rows[0])
    return np.asarray(source.resize(size, Image.Resampling.BILINEAR, box=(x1, y1, x2, y2)))


def _clipped(boxes_K4: NDArray[np.float32], shown: tuple[int, int, int, int], min_left: float) -> NDArray[np.float32]:
    """Boxes cut to what is shown, without those that have nothing or less than min_left of their area in it."""
    left, top, right, bottom = shown
    inside_K4 = np.clip(boxes_K4, (left, top, left, top), (right, bottom, right, bottom)).astype(np.float32)
    area_K, whole_K = (np.prod(boxes[:, 2:] - boxes[:, :2], axis=1) for boxes in (inside_K4, boxes_K4))
    return inside_K4[(area_K > 0) & (area_K >= min_left * whole_K)]


def _varied(crop: Crop, settings: CropSettings, rng: np.random.Generator) -> Crop:
    """Mirrored at random, in other colours; padding keeps its colour."""
    left, top, right, bottom = crop.shown
    part_HW3 = crop.pixels_HW3[top:bottom, left:right]
    crop.pixels_HW3[top:bottom, left:right] = _recoloured(part_HW3, settings, rng)
    if rng.random() >= settings.flip:
        return crop
    side = settings.side_px
    faces_K4, unclear_M4 = (_mirrored(boxes_K4, side) for boxes_K4 in (crop.faces_K4, crop.unclear_M4))
    return Crop(crop.pixels_HW3[:, ::-1], faces_K4, unclear_M4, (side - right, top, side - left, bottom))


def _mirrored(boxes_K4: NDArray[np.float32], side_px: int) -> NDArray[np.float32]:
    mirrored_K4 = boxes_K4.copy()
    mirrored_K4[:, 0], mirrored_K4[:, 2] = side_px - boxes_K4[:, 2], side_px - boxes_K4[:, 0]
    return mirrored_K4


def _recoloured(part_HW3: NDArray[np.uint8], settings: CropSettings, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Gain, gamma and shift of all channels together and, weaker, of each; sometimes grey."""
    image = Image.fromarray(part_HW3)
    if rng.random() < settings.grey:
        image = image.convert("L").convert("RGB")
    if settings.rgb_shift:
        shifted_HW3 = np.asarray(image, np.float32) + rng.normal(0, settings.rgb_shift, 3)
        return np.rint(shifted_HW3.clip(0, 255)).astype(np.uint8)
    if settings.colour == 0:
        return np.asarray(image)
    strength = settings.colour
    ramp_256 = np.arange(256)[:, None] / 255
    gamma = 2.0 ** rng.uniform(-2 * strength, 2 * strength)
    gains = (1 + rng.uniform(-strength, strength)) * (1 + rng.uniform(-strength / 3, strength / 3, 3))
    shifts = rng.uniform(-strength / 2, strength / 2) + rng.uniform(-strength / 6, strength / 6, 3)
    table_256C = np.rint(255 * np.clip((ramp_256**gamma - 0.5) * gains + 0.5 + shifts, 0, 1)).astype(int)
    return np.asarray(image.point(table_256C.T.ravel().tolist()))
