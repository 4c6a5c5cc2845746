"""With the real trunks, a picture in tiles gives the boxes of the picture as a whole, and needs no more memory."""

from __future__ import annotations

import json
import subprocess
import sys
from dataclasses import replace
from functools import cache
from pathlib import Path

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.compare import before_and_after_nms, largest_difference
from tests.toy_network import FP32, calibrated
from tinyface_core.detect.decode import Candidates
from tinyface_core.detect.detector import Detector
from tinyface_core.detect.options import DetectOptions
from tinyface_core.detect.pyramid import Level, levels_for
from tinyface_core.detect.tiling import tiles
from tinyface_core.model.checkpoint import load_checkpoint
from tinyface_core.model.network import HRNetwork
from tinyface_core.model.spec import ModelSpec, NetworkConfig, TrunkConfig, find_bundled

ROOT = Path(__file__).resolve().parents[2]
MEMORY = ROOT / "benchmarks" / "memory.py"
CROWD = ROOT / "demo" / "archive" / "office" / "all_hands_2016.jpg"  # 1600 x 1196, faces everywhere
ZOOMS = [0.25, 0.5, 0.77, 1.0, 1.41, 2.0, 4.0]
STRIP_PX = 83  # of the level's image: as thin as that to be quick

pytestmark = pytest.mark.slow


MSRA = TrunkConfig("resnet50", stride_in_1x1=True, pool_after=True)
IMPORTED = {  # the geometries of the authors' .mat and the port's .pth
    "mat": NetworkConfig(MSRA, enlargement="transposed", crop=(1, 2)),
    "pth": NetworkConfig(TrunkConfig("resnet50"), enlargement="transposed", crop=(1, 1)),
}
BUNDLED = {"resnet50": "hr-resnet50", "mobilenet_v2": "hr-mobilenetv2"}


@cache
def network_of(name: str) -> tuple[HRNetwork, ModelSpec]:
    """The bundled model, else made-up weights; the spec's default score lets 1 % of the cells fire or more.

    Not to be changed. A trained one's own default would leave no box on many a tile border.
    """
    bundled = find_bundled(BUNDLED.get(name, name))
    network, spec = load_checkpoint(bundled) if bundled else calibrated(IMPORTED.get(name, name))  # type: ignore[arg-type]
    return network, replace(spec, defaults=replace(spec.defaults, score=0.005 if bundled else 0.3))


def crop_shown_as(image_hw: tuple[int, int], zoom: float) -> NDArray[np.uint8]:
    """A part of the crowd that this zoom shows as about image_hw; the crowd is repeated where it is too small."""
    crowd_HW3 = np.asarray(Image.open(CROWD).convert("RGB"))[300:, 300:]
    height, width = (max(1, round(side / zoom)) for side in image_hw)
    across, down = -(-width // crowd_HW3.shape[1]), -(-height // crowd_HW3.shape[0])
    return np.tile(crowd_HW3, (down, across, 1))[:height, :width].copy()


def assert_tiles_change_nothing(name: str, zoom: float, image_hw: tuple[int, int], cut: tuple[int, int]) -> int:
    """cut: how many tiles along each axis. Differences are in px of the level's image, and of score.

    Gives the number of boxes of more than an even chance that a tile border cuts.
    """
    network, spec = network_of(name)
    picture = crop_shown_as(image_hw, zoom)
    (level,) = levels_for((picture.shape[0], picture.shape[1]), (zoom,), spec.templates)
    sides = [
        side if count == 1 else -(-side // count) + 16 + network.halo_px
        for side, count in zip(level.size.image_hw, cut, strict=True)
    ]
    found = []
    for tile_px in (10**8, sides[0] * sides[1]):
        options = DetectOptions(zooms=(zoom,), tile_px=tile_px)
        detector = Detector(network, spec, FP32, options)
        found.append(before_and_after_nms(detector, picture))
    (whole_before, whole), (tiled_before, tiled) = found
    borders = tile_borders(level, network.halo_px, sides[0] * sides[1])
    assert [len(of_axis) > 0 for of_axis in borders] == [count > 1 for count in cut]
    assert boxes_across(whole_before, borders) > 0
    for one, other in ((whole_before, tiled_before), (whole, tiled)):
        worst = largest_difference(one, other, zoom)
        print(f"{name} at {zoom:g}: {len(one.scores_K)} boxes, {worst:.1e}")
        assert worst <= 1e-4
    return boxes_across(whole_before.at(whole_before.scores_K > 0.5), borders)


def tile_borders(level: Level, halo_px: int, tile_px: int) -> tuple[set[float], set[float]]:
    """Where cores meet, in px of the picture: (y, x)."""
    cut = list(tiles(level.size.image_hw, align=16, halo_px=halo_px, max_px=tile_px))
    ratio_y, ratio_x = level.size.ratio_yx
    return {tile.core.top / ratio_y for tile in cut if tile.core.top}, {
        tile.core.left / ratio_x for tile in cut if tile.core.left
    }


def boxes_across(found: Candidates, borders: tuple[set[float], set[float]]) -> int:
    """How many boxes have a tile border inside."""
    x1_K, y1_K, x2_K, y2_K = found.boxes_K4.numpy().T
    cut_K = np.zeros(len(x1_K), bool)
    for y in borders[0]:
        cut_K |= (y1_K < y) & (y < y2_K)
    for x in borders[1]:
        cut_K |= (x1_K < x) & (x < x2_K)
    return int(cut_K.sum())


@pytest.mark.parametrize("zoom", ZOOMS)
@pytest.mark.parametrize("name", ["resnet50", "resnet101", "vgg16"])
def test_strips(name: str, zoom: float) -> None:
    """Odd sizes, one cut across a long strip: lying at some zooms, standing at the others."""
    length = 2 * network_of(name)[0].halo_px + 333
    lying = ZOOMS.index(zoom) % 2 == 0
    image_hw = (STRIP_PX, length) if lying else (length, STRIP_PX)
    assert_tiles_change_nothing(name, zoom, image_hw, (1, 2) if lying else (2, 1))


@pytest.mark.parametrize("more", [0, 1, 9])
@pytest.mark.parametrize("name", ["mat", "pth"])
def test_imported_geometries(name: str, more: int) -> None:
    """Their maps may lack the last row or column of cells; lengths of 13, 14 and 6 px more than whole coarse cells."""
    length = 2 * network_of(name)[0].halo_px + 333 + more
    assert_tiles_change_nothing(name, 1.0, (STRIP_PX, length), (1, 2))
    assert_tiles_change_nothing(name, 1.0, (length, STRIP_PX), (2, 1))


@pytest.mark.parametrize(("name", "zoom"), [("resnet50", 2.0), ("vgg16", 0.77), ("mobilenet_v2", 2.0)])
def test_both_axes(name: str, zoom: float) -> None:
    """Odd sizes, two by two tiles."""
    halo_px = network_of(name)[0].halo_px
    sure = assert_tiles_change_nothing(name, zoom, (2 * halo_px + 131, 2 * halo_px + 213), (2, 2))
    assert sure > 0  # of the trained ones, faces


@pytest.mark.timeout(600)
def test_a_picture_of_400_megapixels_needs_the_memory_of_a_1080p_one_and_itself(tmp_path: Path) -> None:
    """20,000 x 20,000 px at 0.2x, in tiles, against 1080p with the whole pyramid; each in a process of its own."""
    command = [sys.executable, str(MEMORY), "--zooms", "0.2", "--json", str(tmp_path / "peaks.json")]
    subprocess.run(command, check=True, cwd=ROOT)
    small, large = json.loads((tmp_path / "peaks.json").read_text())["results"]
    assert (small["width"], large["width"]) == (1920, 20_000)
    assert large["picture_mb"] == 1144
    assert small["faces"] > 0
    assert large["peak_mb"] - large["picture_mb"] < 1.2 * (small["peak_mb"] - small["picture_mb"])
