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


def tiles(image_hw: tuple[int, int], *, align: int, halo_px: int, max_px: int) -> Iterator[Tile]:
    """Tiles that cover the image, row by row, each window at most max_px pixels; one without halo if that is enough.

    Args:
        align: the coarsest stride; cores and windows begin at its multiples. halo_px: a multiple of align.
    Raises:
        GeometryError: max_px leaves no core beside the halo.
    """
    height, width = image_hw
    rows, columns = _counts(image_hw, align, halo_px, max_px)
    for top, bottom in _cores(height, rows, align):
        for left, right in _cores(width, columns, align):
            window = Region(
                max(0, top - halo_px),
                max(0, left - halo_px),
                min(height, bottom + halo_px),
                min(width, right + halo_px),
            )
            yield Tile(window, Region(top, left, bottom, right), image_hw)


def _counts(image_hw: tuple[int, int], align: int, halo_px: int, max_px: int) -> tuple[int, int]:
    """Numbers of tile rows and columns with the least pixels to compute in all."""
    height, width = image_hw
    best: tuple[int, int, int] | None = None
    for rows in range(1, -(-height // align) + 1):
        heights = _windows(height, rows, align, halo_px)
        columns = _fewest(width, max_px // max(heights), align, halo_px)
        if columns is None:
            continue
        total = sum(heights) * sum(_windows(width, columns, align, halo_px))
        if best is not None and total >= best[0] and rows > best[1] + 8:
            break
        if best is None or total < best[0]:
            best = (total, rows, columns)
    if best is None:
        raise GeometryError(f"tiles of {max_px} px leave nothing beside a halo of {halo_px} px on each side.")
    return best[1], best[2]


def _windows(length: int, count: int, align: int, halo_px: int) -> list[int]:
    """Lengths of the windows along one axis; those at the image's edge have a halo on one side only."""
    return [min(length, end + halo_px) - max(0, begin - halo_px) for begin, end in _cores(length, count, align)]


def _fewest(length: int, room: int, align: int, halo_px: int) -> int | None:
    """The fewest tiles along one axis whose windows are no longer than `room`; None when none are."""
    inner = (room - 2 * halo_px) // align * align
    counts = [1, 2] if inner < align else [1, 2, -(-length // inner)]
    return next((count for count in counts if max(_windows(length, count, align, halo_px)) <= room), None)


def _cores(length: int, count: int, align: int) -> list[tuple[int, int]]:
    """Cores along one axis: `count` runs of whole align units, as even as can be; the last ends at the edge."""
    units = -(-length // align)
    count = min(count, units)
    borders = [units * number // count * align for number in range(count)] + [length]
    return list(pairwise(borders))


def _cells(begin: int, end: int, window_begin: int, length: int, stride: int) -> slice:
    """Cells of the window's map that belong to the core; to the map's end where the core ends at the image's edge."""
    first = (begin - window_begin) // stride
    return slice(first, None if end == length else first + (end - begin) // stride)


def _cut(maps: Tensor, rows: slice, columns: slice) -> Tensor:
    return maps[..., rows, columns]
