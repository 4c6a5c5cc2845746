"""Which pixels belong to a face: every pixel that its shape, with its margin, touches anywhere.

A face's shape is its box, or its stored ellipse together with the ellipse that touches the sides of its box: a
regression that went wrong must not uncover what the box calls a face. Knows geometry; no picture.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from tinyface_core.detect.ellipse import Ellipses, inscribed
from tinyface_core.redact.faces import Faces, Shape

HALF_DIAGONAL = 0.7072  # of a pixel, rounded up: no point of it lies farther from its centre
_LEAST_HALF_AXIS = 0.5  # px


@dataclass(frozen=True)
class Mask:
    """One face's pixels: those of the rectangle (rows, columns) where `inside_HW` is set.

    face_px: the longer side of the shape with its margin, also of one that reaches past the picture.
    """

    rows: slice
    columns: slice
    inside_HW: NDArray[np.bool_]
    face_px: float


@dataclass(frozen=True)
class _Bounds:
    """Continuous pixels."""

    x1: float
    y1: float
    x2: float
    y2: float

    @property
    def longer(self) -> float:
        return max(self.x2 - self.x1, self.y2 - self.y1)

    def within(self, size_hw: tuple[int, int]) -> tuple[slice, slice]:
        """Rows and columns of the pixels that it touches; maybe none."""
        height, width = size_hw
        top, left = (int(np.clip(np.floor(at), 0, limit)) for at, limit in ((self.y1, height), (self.x1, width)))
        bottom, right = (int(np.clip(np.ceil(at), 0, limit)) for at, limit in ((self.y2, height), (self.x2, width)))
        return slice(top, bottom), slice(left, right)


def masks(faces: Faces, shape: Shape, margin: float, size_hw: tuple[int, int]) -> Iterator[Mask]:
    """A mask for each face that touches the picture, the smallest first."""
    bounds_of = _box_masks if shape == "box" else _ellipse_masks
    found = list(bounds_of(faces, 1 + margin))
    for bounds, ellipses in sorted(found, key=lambda each: each[0].longer):
        rows, columns = bounds.within(size_hw)
        if rows.start < rows.stop and columns.start < columns.stop:
            yield Mask(rows, columns, _inside(rows, columns, ellipses), bounds.longer)


def _box_masks(faces: Faces, growth: float) -> Iterator[tuple[_Bounds, tuple[_Ellipse, ...]]]:
    for x1, y1, x2, y2 in faces.boxes_K4.astype(np.float64).tolist():
        cx, cy, half_width, half_height = (x1 + x2) / 2, (y1 + y2) / 2, growth * (x2 - x1) / 2, growth * (y2 - y1) / 2
        yield _Bounds(cx - half_width, cy - half_height, cx + half_width, cy + half_height), ()


def _ellipse_masks(faces: Faces, growth: float) -> Iterator[tuple[_Bounds, tuple[_Ellipse, ...]]]:
    stored, of_boxes = _touching(faces.ellipses, growth), _touching(inscribed(faces.boxes_K4), growth)
    for pair in zip(stored, of_boxes, strict=True):
        all_bounds = [ellipse.bounds() for ellipse in pair]
        low = (min(each.x1 for each in all_bounds), min(each.y1 for each in all_bounds))
        high = (max(each.x2 for each in all_bounds), max(each.y2 for each in all_bounds))
        yield _Bounds(*low, *high), pair


@dataclass(frozen=True)
class _Ellipse:
    """A pixel belongs to it if its centre lies inside."""

    cx: float
    cy: float
    major: float
    minor: float
    cos: float
    sin: float

    def bounds(self) -> _Bounds:
        half_width = float(np.hypot(self.major * self.cos, self.minor * self.sin))
        half_height = float(np.hypot(self.major * self.sin, self.minor * self.cos))
        return _Bounds(self.cx - half_width, self.cy - half_height, self.cx + half_width, self.cy + half_height)

    def holds(self, x_1W: NDArray[np.float32], y_H1: NDArray[np.float32]) -> NDArray[np.bool_]:
        x_1W, y_H1 = x_1W - self.cx, y_H1 - self.cy
        along_HW = (self.cos * x_1W + self.sin * y_H1) / self.major
        across_HW = (self.cos * y_H1 - self.sin * x_1W) / self.minor
        inside_HW: NDArray[np.bool_] = np.square(along_HW) + np.square(across_HW) <= 1
        return inside_HW


def _touching(ellipses: Ellipses, growth: float) -> Iterator[_Ellipse]:
    """Ellipses that hold the centre of each pixel that the given ones, grown, touch.

    A disc around the origin of radius r lies within the ellipse scaled by r / minor, so the ellipse scaled by
    1 + r / minor holds whatever is nearer to it than r.
    """
    columns = (ellipses.cx_K, ellipses.cy_K, ellipses.major_K, ellipses.minor_K, ellipses.angle_K)
    for cx, cy, major, minor, angle in zip(*(column.astype(np.float64).tolist() for column in columns), strict=True):
        minor = max(_LEAST_HALF_AXIS, growth * minor)
        major = max(minor, growth * major)
        wider = 1 + HALF_DIAGONAL / minor
        yield _Ellipse(cx, cy, major * wider, minor * wider, float(np.cos(angle)), float(np.sin(angle)))


def _inside(rows: slice, columns: slice, ellipses: tuple[_Ellipse, ...]) -> NDArray[np.bool_]:
    """A box's rectangle is all inside."""
    inside_HW = np.full((rows.stop - rows.start, columns.stop - columns.start), not ellipses)
    x_1W = np.arange(columns.start, columns.stop, dtype=np.float32)[None] + np.float32(0.5)
    y_H1 = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] + np.float32(0.5)
    for ellipse in ellipses:
        inside_HW |= ellipse.holds(x_1W, y_H1)
    return inside_HW
