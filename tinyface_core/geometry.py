"""THE page on coordinates: pixels, cells, strides, levels. Everything else derives from here.

Two ways to count pixels are in use, and they differ by one half:

- *continuous*: the picture spans 0..width; pixel i covers i..i+1, its centre is at i + 0.5. All boxes of this
  project, in memory and in the tables. Width = x2 - x1.
- *pixel-centred*: pixel i has its centre at i. Convolution arithmetic and the paper's templates are written so.
  continuous = pixel-centred + 0.5.

A feature map is a grid of cells. Cell i looks at a stretch of `receptive_field` input pixels whose middle is
`centre + stride * i` (pixel-centred); all three follow from the kernels, strides and paddings on the way. A pyramid
level shows the picture at `zoom`, as an image of round(size * zoom) pixels; the way back divides by the true ratio
of the sizes, which differs from zoom by the rounding and per axis.

This file knows no torch and no other file but `errors`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from tinyface_core.errors import GeometryError


@dataclass(frozen=True)
class Window:
    """One sliding operation along one axis: convolution or pooling. before: pixels of padding at the low end."""

    kernel: int
    stride: int = 1
    before: int = 0


@dataclass(frozen=True)
class CellGrid:
    """Where the cells of a feature map look, along one axis (both axes are alike in every trunk).

    stride: input pixels from cell to cell. centre: of cell 0, pixel-centred. receptive_field: pixels.
    """

    stride: int = 1
    centre: float = 0.0
    receptive_field: int = 1

    @classmethod
    def through(cls, windows: Iterable[Window]) -> CellGrid:
        """The grid after these operations, first one first."""
        stride, centre, field = 1, 0.0, 1
        for window in windows:
            centre += stride * ((window.kernel - 1) / 2 - window.before)
            field += stride * (window.kernel - 1)
            stride *= window.stride
        return cls(stride, centre, field)

    def position_on(self, finer: CellGrid, index: int) -> float:
        """Index of this grid's cell, fractional, that looks where cell `index` of the finer grid looks."""
        return (finer.stride * index + finer.centre - self.centre) / self.stride

    @property
    def reach(self) -> float:
        """Pixels from a cell's centre to the far edge of what it sees."""
        return self.receptive_field / 2


@dataclass(frozen=True)
class LevelSize:
    """A picture and its image at one pyramid level, in pixels (height, width)."""

    picture_hw: tuple[int, int]
    zoom: float

    @property
    def image_hw(self) -> tuple[int, int]:
        height, width = self.picture_hw
        return max(1, round(height * self.zoom)), max(1, round(width * self.zoom))

    @property
    def ratio_yx(self) -> tuple[float, float]:
        """True ratio of sizes, image over picture, per axis."""
        (height, width), (image_height, image_width) = self.picture_hw, self.image_hw
        return image_height / height, image_width / width


def multiple_above(value: float, step: int) -> int:
    """The smallest multiple of step that is at least value."""
    if step < 1:
        raise GeometryError(f"step {step}: needs to be at least 1")
    return int(-(-value // step)) * step
