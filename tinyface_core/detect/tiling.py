"""Tiles of a level's image, cut with a halo and joined cell by cell: the result equals the untiled run.

A cell depends on a bounded stretch of pixels (the network's halo_px). A tile is a core, whose cells are kept, and a
window around it that reaches a halo further but never past the image. Where a window ends at the image's edge, the
network sees the same zero padding as in the whole image; where it ends inside, what the padding spoils lies in the
halo and is thrown away. Windows begin at multiples of the coarsest stride, so all grids stay in step.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import pairwise

from torch import Tensor

from tinyface_core.detect.resize import Region
from tinyface_core.errors import GeometryError
from tinyface_core.model.network import HeatMaps


@dataclass(frozen=True)
class Tile:
    """window: what the network is shown. core: whose cells are kept; both in pixels of the level's image.

    core.bottom and core.right reach the image's edge in the last row and column of tiles.
    """

    window: Region
    core: Region
    image_hw: tuple[int, int]

    def keep(self, maps: HeatMaps, stride: int) -> tuple[HeatMaps, tuple[int, int]]:
        """The core's cells of the window's heat maps, and the (row, column) of the first one in the whole image."""
        rows = _cells(self.core.top, self.core.bottom, self.window.top, self.image_hw[0], stride)
        columns = _cells(self.core.left, self.core.right, self.window.left, self.image_hw[1], stride)
        ellipses = maps.ellipses and maps.ellipses.moved(rows.start, columns.start)
        kept = HeatMaps(_cut(maps.logits_NTHW, rows, columns), _cut(maps.offsets_NT4HW, rows, columns), ellipses)
        return kept, (self.core.top // stride, self.core.left // stride)


def tiles(
    image_hw: tuple[int, int], *, align: int, halo_px: int, max_px: int, within: Region | None = None
) -> Iterator[Tile]:
    """Tiles that cover the image, row by row, each window at most max_px pixels; one without halo if that is enough.

    Args:
        align: the coarsest stride; cores and windows begin at its multiples. halo_px: a multiple of align.
        within: cover only this; its borders are multiples of align, or the image's.
    Raises:
        GeometryError: max_px leaves no core beside the halo.
    """
    within = within or Region(0, 0, *image_hw)
    down = _Axis(within.top, within.bottom, image_hw[0], align, halo_px)
    across = _Axis(within.left, within.right, image_hw[1], align, halo_px)
    rows, columns = _counts(down, across, max_px)
    for (top, bottom), (first_row, last_row) in zip(down.cores(rows), down.windows(rows), strict=True):
        for (left, right), (first, last) in zip(across.cores(columns), across.windows(columns), strict=True):
            yield Tile(Region(first_row, first, last_row, last), Region(top, left, bottom, right), image_hw)


@dataclass(frozen=True)
class _Axis:
    """What is to be covered along one axis of an image of `length` px."""

    begin: int
    end: int
    length: int
    align: int
    halo_px: int

    def cores(self, count: int) -> list[tuple[int, int]]:
        """`count` runs of whole align units, as even as can be; the last ends where all ends."""
        units = -(-(self.end - self.begin) // self.align)
        count = min(count, units)
        borders = [self.begin + units * number // count * self.align for number in range(count)] + [self.end]
        return list(pairwise(borders))

    def windows(self, count: int) -> list[tuple[int, int]]:
        """Around each core; at the image's edge without a halo."""
        return [
            (max(0, begin - self.halo_px), min(self.length, end + self.halo_px)) for begin, end in self.cores(count)
        ]

    def lengths(self, count: int) -> list[int]:
        """Of the windows."""
        return [last - first for first, last in self.windows(count)]

    def fewest(self, room: int) -> int | None:
        """The fewest windows that are no longer than `room`; None when none are."""
        inner = (room - 2 * self.halo_px) // self.align * self.align
        counts = [1, 2] if inner < self.align else [1, 2, -(-(self.end - self.begin) // inner)]
        return next((count for count in counts if max(self.lengths(count)) <= room), None)


def _counts(down: _Axis, across: _Axis, max_px: int) -> tuple[int, int]:
    """Numbers of tile rows and columns with the least pixels to compute in all."""
    best: tuple[int, int, int] | None = None
    for rows in range(1, -(-(down.end - down.begin) // down.align) + 1):
        heights = down.lengths(rows)
        columns = across.fewest(max_px // max(heights))
        if columns is None:
            continue
        total = sum(heights) * sum(across.lengths(columns))
        if best is not None and total >= best[0] and rows > best[1] + 8:
            break
        if best is None or total < best[0]:
            best = (total, rows, columns)
    if best is None:
        raise GeometryError(f"tiles of {max_px} px leave nothing beside a halo of {down.halo_px} px on each side.")
    return best[1], best[2]


def _cells(begin: int, end: int, window_begin: int, length: int, stride: int) -> slice:
    """Cells of the window's map that belong to the core; to the map's end where the core ends at the image's edge."""
    first = (begin - window_begin) // stride
    return slice(first, None if end == length else first + (end - begin) // stride)


def _cut(maps: Tensor, rows: slice, columns: slice) -> Tensor:
    return maps[..., rows, columns]
