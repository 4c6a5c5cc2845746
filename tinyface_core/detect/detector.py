"""The detector: a picture -> its faces. Pyramid, tiles, network, decoding, one NMS over all levels, clipping.

    Detector.load("hr-resnet50")(rgb_HW3)

Knows nothing of files, archives or Ray. Paper: section 4.
"""

from __future__ import annotations

import logging
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from tinyface_core import boxes
from tinyface_core.detect.decode import Candidates, CellDecoder
from tinyface_core.detect.detections import Detections
from tinyface_core.detect.ellipse import from_targets
from tinyface_core.detect.focus import Focus
from tinyface_core.detect.options import DetectOptions, Runtime, suited
from tinyface_core.detect.pyramid import Level, Zooms, levels_for, smallest_face_px
from tinyface_core.detect.resize import resize_region
from tinyface_core.detect.runtime import (
    choose_runtime,
    give_device_memory_back,
    give_memory_back,
    is_out_of_memory,
    prepare,
)
from tinyface_core.detect.tiling import Tile, tiles
from tinyface_core.errors import GeometryError
from tinyface_core.model.checkpoint import load_checkpoint
from tinyface_core.model.network import HRNetwork
from tinyface_core.model.spec import ModelSpec, find_bundled

log = logging.getLogger(__name__)

LEAST_HALOS = 4  # in the side of a tile: in smaller ones more than three quarters would be computed in vain


class Detector:
    """Finds faces; one instance a process. Deterministic for one machine, precision and thread count."""

    def __init__(self, network: HRNetwork, spec: ModelSpec, runtime: Runtime, options: DetectOptions) -> None:
        """network: as load_checkpoint gives it; it is prepared for the runtime in place."""
        self.network = prepare(network, runtime, spec.ranges)
        self.spec = spec
        self.runtime = runtime
        self.min_score = spec.defaults.score if options.min_score is None else options.min_score
        self.nms_iou = spec.defaults.nms_iou if options.nms_iou is None else options.nms_iou
        self.zooms: Zooms = spec.defaults.zooms if options.zooms is None else options.zooms
        self.tile_px, self.focus = options.tile_px, options.focus
        self.decoder = CellDecoder(network.grid, spec.templates, spec.decoding)
        mean_3, std_3 = torch.tensor([spec.network.mean, spec.network.std], device=runtime.device)
        self._scale_3, self._shift_3 = 1 / std_3, -mean_3 / std_3

    @classmethod
    def load(cls, model: str | Path, options: DetectOptions | None = None, runtime: Runtime | None = None) -> Detector:
        """A bundled model by name, or a checkpoint file by path, on the best device there is.

        Raises:
            CheckpointError: no such model, or a file that does not fit.
        """
        path = find_bundled(str(model)) or Path(model)
        network, spec = load_checkpoint(path)
        return cls(network, spec, runtime or suited(choose_runtime(), spec), options or DetectOptions())

    @torch.inference_mode()
    def __call__(
        self, rgb_HW3: NDArray[np.uint8], *, reduced: int = 1, size_hw: tuple[int, int] | None = None
    ) -> Detections:
        """The faces of one upright RGB picture, uint8 (H, W, 3) of any size; best score first, none empty.

        Args:
            reduced, size_hw: of a picture that is shown so many times smaller, as `Picture` has it; zooms and boxes are
                of the whole one.
        Raises:
            GeometryError: not such an array.
        """
        if not isinstance(rgb_HW3, np.ndarray):
            raise GeometryError(f"a picture is an array, uint8 (H, W, 3), this is {type(rgb_HW3).__name__}.")
        if rgb_HW3.dtype != np.uint8 or rgb_HW3.ndim != 3 or rgb_HW3.shape[2] != 3 or 0 in rgb_HW3.shape:
            raise GeometryError(f"a picture is uint8 (H, W, 3), this is {rgb_HW3.dtype} {rgb_HW3.shape}.")
        shown_hw = (reduced * rgb_HW3.shape[0], reduced * rgb_HW3.shape[1])  # whole squares, past the picture's edge
        picture_hw = size_hw or shown_hw
        levels = levels_for(shown_hw, self.zooms, self.spec.templates, self.spec.defaults.level_heights)
        found = self._best_that_fits(_as_tensor(rgb_HW3), levels)
        regressed = None if found.ellipse_K5 is None else found.ellipse_K5.cpu().numpy()
        return Detections(
            boxes_K4=boxes.clip(found.boxes_K4, picture_hw).cpu().numpy(),
            scores_K=found.scores_K.cpu().numpy(),
            template_K=found.template_K.to(torch.int8).cpu().numpy(),
            zoom_K=found.zoom_K.cpu().numpy(),
            zooms=tuple(level.zoom for level in levels),
            min_face_px=smallest_face_px(levels, self.spec.templates),
            ellipses=None if regressed is None else from_targets(found.boxes_K4.cpu().numpy(), regressed),
        )

    def _best_that_fits(self, rgb_HW3: Tensor, levels: list[Level]) -> Candidates:
        """`best`; where memory runs out, with tiles of half the size, here and in all later pictures.

        They give the same boxes. Raises what torch raises when tiles cannot get any smaller.
        """
        while True:
            try:
                return self.best(rgb_HW3.to(self.runtime.device), levels)
            except (RuntimeError, MemoryError) as error:
                if not is_out_of_memory(error) or self.tile_px // 2 < (LEAST_HALOS * self.network.halo_px) ** 2:
                    raise
            give_device_memory_back()  # here, where no traceback holds the tensors any more
            self.tile_px //= 2
            log.warning("out of memory: tiles have %d px at most from here on", self.tile_px)

    def best(self, rgb_HW3: Tensor, levels: list[Level]) -> Candidates:
        """What one NMS over all levels leaves of the boxes that touch the picture, not clipped, best score first.

        Where the checkpoint says so, the boxes that it takes away have a vote on those that stay.
        """
        found = self.candidates(rgb_HW3, levels)
        picture_hw = levels[0].size.picture_hw
        found = found.at(boxes.area(boxes.clip(found.boxes_K4, picture_hw)) > 0)  # what lies outside suppresses nothing
        kept = boxes.nms(found.boxes_K4, found.scores_K, self.nms_iou)
        best, vote_iou = found.at(kept), self.spec.defaults.vote_iou
        if vote_iou is None:
            return best
        return replace(best, boxes_K4=boxes.vote(found.boxes_K4, found.scores_K, kept, vote_iou))

    def candidates(self, rgb_HW3: Tensor, levels: list[Level]) -> Candidates:
        """All boxes above the threshold before NMS, level by level, in an order that tiles do not change."""
        found, focus = [], None
        for level in levels:
            if level.zoom == 1 and self.focus is not None:
                focus = Focus(level, self.network.grid.stride, self.focus)
            parts = []
            for tile in self._tiles(level, focus if level.zoom > 1 else None):
                maps = self.network(self._shown(rgb_HW3, level, tile))
                kept, first_cell = tile.keep(maps, self.network.grid.stride)
                parts.append(self.decoder.decode(kept, first_cell, level, self.min_score))
                if level.zoom == 1 and focus is not None:
                    focus.note(kept, first_cell)
                del maps, kept
                if tile.window.hw != level.size.image_hw:
                    give_memory_back()
            if parts:
                found.append(Candidates.joined(parts).in_cell_order())
        return Candidates.joined(found)

    def _tiles(self, level: Level, focus: Focus | None) -> Iterator[Tile]:
        """Of the whole level, or of where its faces can be."""
        align, halo_px = self.network.strides[-1], self.network.halo_px
        for region in [None] if focus is None else focus.regions(level, align, halo_px):
            yield from tiles(level.size.image_hw, align=align, halo_px=halo_px, max_px=self.tile_px, within=region)

    def _shown(self, rgb_HW3: Tensor, level: Level, tile: Tile) -> Tensor:
        """The tile's window as the network takes it, (1, 3, h, w) float32; a sliver is filled up to one coarse cell."""
        image_3HW = resize_region(rgb_HW3, level.size.image_hw, tile.window)
        rows_HC = image_3HW.permute(1, 2, 0).flatten(1)  # three values at a time would take four times as long
        scale_C, shift_C = (of_3.repeat(tile.window.hw[1]) for of_3 in (self._scale_3, self._shift_3))
        torch.addcmul(shift_C, rows_HC, scale_C, out=rows_HC)  # its own memory: no window is shown twice
        short_y, short_x = (max(0, self.network.strides[-1] - side) for side in tile.window.hw)
        if short_y or short_x:
            image_3HW = F.pad(image_3HW, (0, short_x, 0, short_y))
        return image_3HW[None].contiguous(memory_format=torch.channels_last)


def _as_tensor(rgb_HW3: NDArray[np.uint8]) -> Tensor:
    """Shares memory where it can; read-only arrays (from Arrow) are copied, torch cannot hold them."""
    return torch.from_numpy(rgb_HW3 if rgb_HW3.flags.writeable and rgb_HW3.flags.c_contiguous else rgb_HW3.copy())
