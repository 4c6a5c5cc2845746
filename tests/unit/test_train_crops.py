"""Data and crops: what the annotations say is what the crop shows, at the place it says."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyface_core.errors import InputError
from tinyface_core.geometry import LevelSize
from tinyface_core.train.crops import CropSettings, cut, draw_crop
from tinyface_core.train.data import PictureCache, read_annotated

PLAIN = CropSettings(side_px=64, colour=0.0, grey=0.0)
GREY = (120, 110, 100)


def write_folder(folder: Path, pictures: list[np.ndarray], boxes: list[list[list[int]]], invalid: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    lines = []
    for number, (pixels, xywh) in enumerate(zip(pictures, boxes, strict=True)):
        Image.fromarray(pixels).save(folder / f"{number}.png")
        size = {"width": pixels.shape[1], "height": pixels.shape[0]}
        attrs = [[0, 0, 0, invalid, 0, 0]] * len(xywh)
        lines.append(json.dumps({"image": f"{number}.png", **size, "boxes": xywh, "attrs": attrs}))
    (folder / "annotations.jsonl").write_text("\n".join(lines))
    return folder


def cache_of(folder: Path) -> PictureCache:
    return PictureCache(read_annotated(folder)[0], folder / "cache")


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), dtype=np.uint8)


def test_the_cache_holds_each_picture_and_is_built_once(tmp_path: Path) -> None:
    pictures = [noise(37, 53), noise(11, 90)[::-1]]
    folder = write_folder(tmp_path, pictures, [[[1, 2, 3, 4]], []])
    cache = cache_of(folder)
    assert [np.array_equal(cache.pixels_HW3(i), pictures[i]) for i in (0, 1)] == [True, True]
    assert cache.pictures[0].faces_K4.tolist() == [[1, 2, 4, 6]]
    (file,) = (folder / "cache").iterdir()
    before = file.stat().st_mtime_ns
    cache_of(folder)
    assert file.stat().st_mtime_ns == before


@pytest.mark.parametrize(("power", "crowd_share"), [(0.0, 1 / 2), (0.5, 2 / 3), (1.0, 4 / 5)])
def test_crowds_are_drawn_as_often_as_the_power_of_their_faces_says(
    tmp_path: Path, power: float, crowd_share: float
) -> None:
    """Four faces in the one picture, one in the other, and a third without any; a crop holds the whole of a picture."""
    crowd = [[20 * place, 2, 16, 20] for place in range(4)]
    folder = write_folder(tmp_path, [noise(60, 90)] * 3, [crowd, [[5, 5, 16, 20]], []])
    cache = cache_of(folder)
    settings = replace(PLAIN, side_px=100, zooms=(1.0,), shares=(1.0,), zoom_jitter=0.0, face_share=1.0, crowding=power)
    crops = [draw_crop(cache, settings, GREY, np.random.default_rng(seed)) for seed in range(400)]
    faces = np.array([len(crop.faces_K4) for crop in crops])
    assert set(faces) == {1, 4}
    assert (faces == 4).mean() == pytest.approx(crowd_share, abs=0.08)


def test_boxes_without_size_are_dropped_and_invalid_ones_are_no_faces(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, [noise(37, 53)], [[[1, 2, 0, 4], [5, 6, 7, 8], [1, 1, 5, 0]]], invalid=1)
    (picture,) = read_annotated(folder)[0]
    assert picture.faces_K4.shape == (0, 4)
    assert picture.unclear_M4.tolist() == [[5, 6, 12, 14]]


@pytest.mark.parametrize("line", ["{", '{"image": "a.png"}', "[]"])
def test_a_bad_line_is_named(tmp_path: Path, line: str) -> None:
    (tmp_path / "annotations.jsonl").write_text(line)
    with pytest.raises(InputError, match=r"annotations\.jsonl:1"):
        read_annotated(tmp_path)


def test_a_picture_of_another_size_is_refused(tmp_path: Path) -> None:
    folder = write_folder(tmp_path, [noise(37, 53)], [[]])
    Image.fromarray(noise(53, 37)).save(folder / "0.png")
    with pytest.raises(InputError, match=r"\(53, 37\)"):
        cache_of(folder)


@pytest.mark.parametrize("zoom", [0.37, 0.5, 1.0, 1.3, 2.0])
def test_a_cut_equals_resizing_the_whole_and_cutting_then(tmp_path: Path, zoom: float) -> None:
    pixels = noise(151, 233)
    cache = cache_of(write_folder(tmp_path, [pixels], [[]]))
    level = LevelSize((151, 233), zoom)
    height, width = level.image_hw
    whole = np.asarray(Image.fromarray(pixels).resize((width, height), Image.Resampling.BILINEAR)).astype(int)
    settings = replace(PLAIN, side_px=48)
    for y, x in [(0, 0), (height - 48, width - 48), (3, 20)]:
        crop = cut(cache, 0, level, (y, x), settings, GREY)
        assert np.abs(crop.pixels_HW3 - whole[y : y + 48, x : x + 48]).max() <= 1


def test_beyond_the_picture_lies_padding(tmp_path: Path) -> None:
    cache = cache_of(write_folder(tmp_path, [noise(37, 53)], [[[10, 10, 20, 20]]]))
    crop = cut(cache, 0, LevelSize((37, 53), 1.0), (-9, -5), PLAIN, GREY)
    assert crop.shown == (5, 9, 58, 46)
    assert np.array_equal(crop.pixels_HW3[9:46, 5:58], noise(37, 53))
    outside = np.ones((64, 64), bool)
    outside[9:46, 5:58] = False
    assert (crop.pixels_HW3[outside] == GREY).all()
    assert crop.faces_K4.tolist() == [[15, 19, 35, 39]]


def test_a_face_of_which_too_little_is_left_is_dropped(tmp_path: Path) -> None:
    cache = cache_of(write_folder(tmp_path, [noise(90, 120)], [[[20, 10, 40, 40]]]))
    level = LevelSize((90, 120), 1.0)
    assert cut(cache, 0, level, (0, 40), PLAIN, GREY).faces_K4.tolist() == [[0, 10, 20, 50]]
    assert len(cut(cache, 0, level, (0, 49), PLAIN, GREY).faces_K4) == 0


@pytest.mark.parametrize("colour", [0.0, 0.2])
def test_boxes_lie_on_the_faces_whatever_zoom_place_and_mirror(tmp_path: Path, colour: float) -> None:
    """White faces on black: the box is where the white is."""
    pixels = np.zeros((137, 253, 3), np.uint8)
    pixels[31:61, 101:121] = 255
    cache = cache_of(write_folder(tmp_path, [pixels], [[[101, 31, 20, 30]]]))
    settings = replace(PLAIN, colour=colour, zooms=(0.5, 1.0, 2.0), shares=(0.3, 0.3, 0.4), face_px=(10, 80))
    seen = 0
    for seed in range(60):
        crop = draw_crop(cache, settings, (0, 0, 0), np.random.default_rng(seed))
        left, top, right, bottom = crop.shown
        shown = crop.pixels_HW3[top:bottom, left:right].astype(int).sum(axis=2)
        if not len(crop.faces_K4):
            continue
        seen += 1
        rows, columns = np.nonzero(shown > (int(shown.max()) + int(shown.min())) / 2)
        white = [columns.min() + left, rows.min() + top, columns.max() + left + 1, rows.max() + top + 1]
        assert np.abs(crop.faces_K4[0] - white).max() <= 0.75, seed
    assert seen > 40


def test_the_same_seed_gives_the_same_crop(tmp_path: Path) -> None:
    cache = cache_of(write_folder(tmp_path, [noise(137, 253)], [[[101, 31, 20, 30]]]))
    settings = CropSettings(side_px=64)
    first, again, other = (draw_crop(cache, settings, GREY, np.random.default_rng(seed)) for seed in (1, 1, 2))
    assert np.array_equal(first.pixels_HW3, again.pixels_HW3)
    assert np.array_equal(first.faces_K4, again.faces_K4)
    assert not np.array_equal(first.pixels_HW3, other.pixels_HW3)
