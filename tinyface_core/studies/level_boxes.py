"""What each level of a picture gives before NMS, with and without regression, computed once and kept in a file.

Without regression a box is its template's own shape at its cell (METHOD, section 7, "regression"). 40 bytes a box and
level: a picture of 100,000 boxes takes 4 MB.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinyface_core.detect.decode import Candidates
from tinyface_core.detect.detector import Detector
from tinyface_core.detect.pyramid import Level, levels_for
from tinyface_core.model.network import HeatMaps


@dataclass(frozen=True)
class LevelBoxes:
    """Boxes of one level, in cell order: K cells that scored above the floor.

    boxes_K4, still_K4: regressed, and not: float32 xyxy, continuous px of the picture, not clipped. scores_K float32.
    """

    boxes_K4: NDArray[np.float32]
    still_K4: NDArray[np.float32]
    scores_K: NDArray[np.float32]


@dataclass(frozen=True)
class Looked:
    """One picture at several zooms. levels: by zoom."""

    picture_hw: tuple[int, int]
    levels: dict[float, LevelBoxes]


@torch.inference_mode()
def look(detector: Detector, rgb_HW3: NDArray[np.uint8], zooms: tuple[float, ...]) -> Looked:
    """All boxes above the detector's min_score, of an upright RGB picture, uint8 (H, W, 3).

    Raises:
        SettingsError: a zoom at which no template may fire.
    """
    picture_hw = (rgb_HW3.shape[0], rgb_HW3.shape[1])
    pixels_HW3 = torch.from_numpy(np.ascontiguousarray(rgb_HW3)).to(detector.runtime.device)
    levels = {}
    for level in levels_for(picture_hw, zooms, detector.spec.templates):
        found = detector.candidates(pixels_HW3, [level])
        still_K4 = still_boxes(detector, level, found)
        levels[level.zoom] = LevelBoxes(*(each.cpu().numpy() for each in (found.boxes_K4, still_K4, found.scores_K)))
    return Looked(picture_hw, levels)


def still_boxes(detector: Detector, level: Level, found: Candidates) -> Tensor:
    """The template's own box at each candidate's cell, (K, 4) as in Candidates; found: of one level, in cell order.

    The detector's decoder makes them, of heat maps in which these cells fire and no cell has an offset.
    """
    if not len(found.cell_K):
        return found.boxes_K4
    templates = detector.spec.templates
    height, width = level.size.image_hw
    row_K, column_K = found.cell_K // width % height, found.cell_K % width
    output_of = found.cell_K.new_full((len(templates.templates),), -1)  # template -> channel
    output_of[list(templates.outputs)] = torch.arange(len(templates.outputs), device=output_of.device)
    output_K = output_of[found.template_K]
    shape = (1, len(templates.outputs), int(row_K.max()) + 1, int(column_K.max()) + 1)
    logits_1THW = found.scores_K.new_full(shape, -1.0)
    logits_1THW[0, output_K, row_K, column_K] = 1.0
    offsets_1T4HW = logits_1THW.new_zeros(1).expand(*shape[:2], 4, *shape[2:])
    return detector.decoder.decode(HeatMaps(logits_1THW, offsets_1T4HW), (0, 0), level, 0.5).boxes_K4


def save(looked: Looked, file: Path) -> None:
    """Into an .npz that is there whole or not at all."""
    arrays: dict[str, NDArray[np.generic]] = {
        "picture_hw": np.array(looked.picture_hw),
        "zooms": np.array(list(looked.levels)),
    }
    for place, level in enumerate(looked.levels.values()):
        arrays |= {f"boxes{place}": level.boxes_K4, f"still{place}": level.still_K4, f"scores{place}": level.scores_K}
    part = file.with_suffix(".part")
    with part.open("wb") as opened:
        np.savez(opened, **arrays)  # type: ignore[arg-type]
    part.replace(file)


def load(file: Path) -> Looked:
    """What save() wrote."""
    with np.load(file) as arrays:
        height, width = arrays["picture_hw"].tolist()
        levels = {
            zoom: LevelBoxes(arrays[f"boxes{place}"], arrays[f"still{place}"], arrays[f"scores{place}"])
            for place, zoom in enumerate(arrays["zooms"].tolist())
        }
    return Looked((height, width), levels)
