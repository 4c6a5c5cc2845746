"""How good a model is on its way: average precision on fixed crops of pictures that it does not learn from.

Crops cost a fraction of whole pictures and rank epochs alike; they are no benchmark (evaluate/ is). Each process may
take a part of the crops; whoever has all of what they found gives the score.
"""

from __future__ import annotations

import numpy as np
import torch
from numpy.typing import NDArray

from tinyface_core import boxes
from tinyface_core.detect.decode import CellDecoder
from tinyface_core.detect.pyramid import Level
from tinyface_core.evaluate.curves import curve
from tinyface_core.evaluate.matching import Found, match
from tinyface_core.evaluate.truth import ALL, Truth, joined
from tinyface_core.geometry import CellGrid, LevelSize
from tinyface_core.labels.forms import attributes_of
from tinyface_core.model.network import HeatMaps
from tinyface_core.train.crops import Crop, CropSettings, draw_crop
from tinyface_core.train.data import PictureCache
from tinyface_core.train.loop import Trainer
from tinyface_core.train.presets import TrainSettings

CROPS = 480
LEAST_SCORE = 0.03
_SEED = 1 << 40  # far from the numbers of training crops
_AT_ONCE = 8


class FixedCrops:
    """The same crops for every model whose crops have the same side: CropSettings as it stands, never recoloured.

    So that runs which learn from other crops can be compared.
    """

    def __init__(self, cache: PictureCache, settings: TrainSettings, grid: CellGrid, count: int = CROPS) -> None:
        """grid: of the network's output cells."""
        self._plain = CropSettings(settings.crops.side_px, colour=0.0, grey=0.0, flip=0.0)
        self._cache, self._spec = cache, settings.spec
        self._decoder = CellDecoder(grid, self._spec.templates, self._spec.decoding)
        self.truth = self._annotated(count)

    def _crop(self, number: int) -> Crop:
        mean = tuple(round(value) for value in self._spec.network.mean)
        return draw_crop(self._cache, self._plain, (mean[0], mean[1], mean[2]), np.random.default_rng((_SEED, number)))

    def _annotated(self, count: int) -> Truth:
        pictures = {}
        for number in range(count):
            crop = self._crop(number)
            boxes_K4 = _xywh(np.concatenate([crop.faces_K4, crop.unclear_M4]))
            # Faces that are too small at this zoom belong to a finer level: no crop is drawn around them either.
            too_small_K = boxes_K4[:, 2:].max(axis=1) < self._plain.face_px[0]
            invalid_K = (np.arange(len(boxes_K4)) >= len(crop.faces_K4)) | too_small_K
            pictures[str(number)] = (boxes_K4, attributes_of(invalid_K))
        return joined(pictures)

    @torch.no_grad()
    def found(self, trainer: Trainer, numbers: range) -> dict[str, Found]:
        """Faces in these crops, by the moving average of the trainer's weights."""
        found = {}
        with trainer.averaged():
            for begin in range(0, len(numbers), _AT_ONCE):
                few = numbers[begin : begin + _AT_ONCE]
                maps = trainer.maps(torch.from_numpy(np.stack([self._crop(number).pixels_HW3 for number in few])))
                for place, number in enumerate(few):
                    one = slice(place, place + 1)
                    found[str(number)] = self._faces(HeatMaps(maps.logits_NTHW[one], maps.offsets_NT4HW[one]))
        return found

    def _faces(self, maps: HeatMaps) -> Found:
        side = self._plain.side_px
        level = Level(LevelSize((side, side), 1.0), self._spec.templates.outputs)
        given = self._decoder.decode(maps, (0, 0), level, LEAST_SCORE)
        boxes_K4 = boxes.clip(given.boxes_K4, (side, side))
        kept = boxes.nms(boxes_K4, given.scores_K, self._spec.defaults.nms_iou)
        return Found(_xywh(boxes_K4[kept].cpu().numpy()), given.scores_K[kept].cpu().numpy().astype(np.float64))

    def score(self, found: dict[str, Found]) -> dict[str, float]:
        """Average precision of valid faces that are not too small (`val_ap`), and of those by height in the crop."""
        matches, groups = match(self.truth, found), self.truth.groups()
        by_height = {name: faces_F for name, faces_F in groups.items() if name.endswith(("px", "more"))}
        scores = {f"val_ap {name}": curve(self.truth, matches, faces_F) for name, faces_F in by_height.items()}
        return {"val_ap": curve(self.truth, matches, groups[ALL]).average_precision} | {
            name: one.average_precision for name, one in scores.items() if one.faces
        }


def _xywh(boxes_K4: NDArray[np.floating]) -> NDArray[np.float64]:
    return np.concatenate([boxes_K4[:, :2], boxes_K4[:, 2:] - boxes_K4[:, :2]], axis=1).astype(np.float64)
