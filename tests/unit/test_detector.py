"""A picture becomes its faces: the box that is there at each zoom, one NMS, clipped, best first, tiled or not."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from tests.compare import before_and_after_nms, largest_difference
from tests.toy_network import (
    FP32,
    bright_detector,
    bright_picture,
    calibrated,
    cloudy_picture,
    hot_detector,
    toy_detector,
)
from tinyface_core.detect.decode import Candidates
from tinyface_core.detect.detections import Detections
from tinyface_core.detect.detector import Detector
from tinyface_core.detect.options import DetectOptions
from tinyface_core.detect.pyramid import levels_for
from tinyface_core.detect.tiling import tiles
from tinyface_core.errors import CheckpointError, GeometryError, SettingsError
from tinyface_core.model.checkpoint import save_checkpoint
from tinyface_core.model.network import HeatMaps
from tinyface_core.model.spec import TrunkName
from tinyface_core.templates import Template, TemplateSet

SMALL = Template(24, 32, 1)  # (width, height): not square, so that a swap shows
LARGE = Template(48, 64, 1)
Box = tuple[int, int, int, int]


def one_shape(*shapes: Template) -> TemplateSet:
    ids = tuple(range(len(shapes)))
    return TemplateSet(shapes, outputs=ids, a=ids, b=())


def options(*zooms: float, min_score: float = 0.5, nms_iou: float = 0.3, tile_px: int = 1 << 23) -> DetectOptions:
    return DetectOptions(min_score, nms_iou, zooms or (1.0,), tile_px)


def found_boxes(found: Detections) -> list[list[float]]:
    return [[round(side, 3) for side in box] for box in found.boxes_K4.tolist()]


@pytest.mark.parametrize(
    ("zoom", "picture_hw", "face"),
    [
        (1, (37, 53), (12, 0, 36, 32)),
        (2, (37, 53), (10, 4, 22, 20)),
        (4, (37, 53), (7, 4, 13, 12)),
        (0.25, (148, 212), (48, 0, 144, 128)),
        (0.5, (148, 212), (104, 32, 152, 96)),
        (1, (148, 212), (124, 56, 148, 88)),
        (2, (148, 212), (190, 112, 202, 128)),
        (4, (148, 212), (199, 124, 205, 132)),
    ],
)
def test_a_bright_rectangle_is_found_where_it_is(zoom: float, picture_hw: tuple[int, int], face: Box) -> None:
    """Template 24 x 32 (w x h): at each zoom only a rectangle of (24, 32) / zoom fits, and its box is its own."""
    detector = bright_detector(one_shape(SMALL), options(zoom))
    found = detector(bright_picture(*picture_hw, face))
    assert found_boxes(found) == [list(face)]
    assert found.zoom_K.tolist() == [zoom]
    assert found.zooms == (zoom,)
    assert found.min_face_px == 32 / zoom
    assert found.scores_K[0] > 0.9
    types = [array.dtype for array in (found.boxes_K4, found.scores_K, found.template_K, found.zoom_K)]
    assert types == [np.float32, np.float32, np.int8, np.float32]


def test_a_face_of_another_size_is_not_found() -> None:
    detector = bright_detector(one_shape(SMALL), options(1))
    assert len(detector(bright_picture(148, 212, (122, 56, 134, 72)))) == 0
    assert len(bright_detector(one_shape(SMALL), options(2))(bright_picture(148, 212, (122, 56, 134, 72)))) == 1


def test_at_a_zoom_that_rounds_sizes_boxes_return_by_each_axis_own_ratio() -> None:
    """148 x 212 at 0.77 is shown as 114 x 163: 0.7703 and 0.7689."""
    detector = bright_detector(one_shape(SMALL), options(0.77))
    ratio_y, ratio_x = 114 / 148, 163 / 212
    face = (round(60 / ratio_x), round(40 / ratio_y), round(84 / ratio_x), round(72 / ratio_y))
    (box,) = detector(bright_picture(148, 212, face)).boxes_K4
    expected = np.array([60 / ratio_x, 40 / ratio_y, 84 / ratio_x, 72 / ratio_y])
    np.testing.assert_allclose(box, expected, rtol=1e-5)


def test_one_nms_over_all_levels_keeps_the_best_of_a_face_that_two_levels_find() -> None:
    """The small template finds it at 1x, the large one at 2x, where the blur of its border costs it less."""
    picture = bright_picture(148, 212, (100, 40, 124, 72))
    templates = TemplateSet((SMALL, LARGE), outputs=(0, 1), levels=((1.0, (0,)), (2.0, (1,))))
    both = bright_detector(templates, options(1, 2, nms_iou=1.0))(picture)
    assert found_boxes(both) == [[100, 40, 124, 72]] * 2
    assert sorted(zip(both.template_K.tolist(), both.zoom_K.tolist(), strict=True)) == [(0, 1.0), (1, 2.0)]
    kept = bright_detector(templates, options(2, 1, nms_iou=0.3))(picture)
    assert found_boxes(kept) == [[100, 40, 124, 72]]
    assert kept.scores_K[0] == both.scores_K.max()
    assert kept.zoom_K[0] == both.zoom_K[both.scores_K.argmax()]
    assert kept.zooms == (1, 2)


def test_faces_side_by_side_are_both_kept_best_first() -> None:
    picture = bright_picture(148, 212, (20, 24, 44, 56), (100, 88, 124, 120))
    picture[24:56, 20:44] = 240  # the first in the picture is the weaker one
    found = bright_detector(one_shape(SMALL), options(1))(picture)
    assert found_boxes(found) == [[100, 88, 124, 120], [20, 24, 44, 56]]
    assert found.scores_K[0] > found.scores_K[1]


def test_the_score_threshold_is_exclusive_and_options_win_over_the_checkpoint() -> None:
    picture = bright_picture(148, 212, (20, 24, 44, 56))
    score = float(bright_detector(one_shape(SMALL), options(1))(picture).scores_K[0])
    assert len(bright_detector(one_shape(SMALL), options(1, min_score=score + 1e-6))(picture)) == 0
    assert len(bright_detector(one_shape(SMALL), options(1, min_score=score - 1e-6))(picture)) == 1
    by_checkpoint = bright_detector(one_shape(SMALL), DetectOptions())
    defaults = by_checkpoint.spec.defaults
    chosen = (by_checkpoint.min_score, by_checkpoint.nms_iou, by_checkpoint.zooms)
    assert chosen == (defaults.score, defaults.nms_iou, defaults.zooms)


@pytest.mark.parametrize(
    ("templates", "zooms", "fire"),
    [
        (TemplateSet(), (0.5, 1, 1.41, 2, 4), [8, 8, 15, 15, 15]),
        (TemplateSet(full=True), (0.5, 1, 2), [4, 8, 13]),
        (TemplateSet(levels=((0.5, (0, 1)), (2.0, (24,)))), (0.5, 1, 2), [2, 8, 1]),
    ],
    ids=["A and B", "full", "own table"],
)
def test_only_a_levels_templates_fire_there(templates: TemplateSet, zooms: tuple[float, ...], fire: list[int]) -> None:
    found = hot_detector(templates, options(*zooms, nms_iou=1.0))(bright_picture(37, 53))
    for zoom, count in zip(zooms, fire, strict=True):
        ids = set(found.template_K[found.zoom_K == np.float32(zoom)].tolist())
        assert ids == set(templates.at_zoom(zoom))
        assert len(ids) == count


@pytest.mark.parametrize("picture_hw", [(37, 53), (149, 47)])
def test_boxes_are_clipped_none_empty_and_best_first(picture_hw: tuple[int, int]) -> None:
    found = hot_detector(TemplateSet(), DetectOptions(0.5, 1.0, "adaptive"))(bright_picture(*picture_hw))
    x1_K, y1_K, x2_K, y2_K = found.boxes_K4.T
    assert len(found) > 100
    assert min(x1_K.min(), y1_K.min()) == 0
    assert (x2_K.max(), y2_K.max()) == (picture_hw[1], picture_hw[0])
    assert (x2_K > x1_K).all()
    assert (y2_K > y1_K).all()
    assert (np.diff(found.scores_K) <= 0).all()


def candidates_of(*boxes: tuple[list[float], float]) -> Candidates:
    count = len(boxes)
    return Candidates(
        torch.tensor([box for box, _ in boxes]).reshape(count, 4),
        torch.tensor([score for _, score in boxes]),
        torch.zeros(count, dtype=torch.long),
        torch.ones(count),
        torch.arange(count),
    )


def test_a_box_outside_the_picture_suppresses_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """The best box lies left of the picture, its neighbour half inside: the neighbour is a face, clipped."""
    detector = bright_detector(one_shape(SMALL), options(1))
    given = candidates_of(([-20, 3, -0.5, 33], 0.9), ([-15, 3, 5, 33], 0.8), ([60, 5, 80, 30], 0.7))
    monkeypatch.setattr(detector, "candidates", lambda *_: given)
    found = detector(bright_picture(37, 53))
    assert found_boxes(found) == [[0, 3, 5, 33]]
    assert found.scores_K.tolist() == pytest.approx([0.8])


def test_boxes_that_go_have_a_vote_where_the_checkpoint_says_so(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = bright_detector(one_shape(SMALL), options(1))
    given = candidates_of(([10.0, 3, 20, 13], 0.8), ([11.0, 3, 21, 13], 0.8))  # IoU 9/11
    monkeypatch.setattr(detector, "candidates", lambda *_: given)
    assert found_boxes(detector(bright_picture(37, 53))) == [[10, 3, 20, 13]]
    detector.spec = replace(detector.spec, defaults=replace(detector.spec.defaults, vote_iou=0.6))
    pull = 81 / (81 + 121)
    found = detector(bright_picture(37, 53))
    assert found_boxes(found)[0] == pytest.approx([10 + pull, 3, 20 + pull, 13], abs=1e-4)
    assert found.scores_K.tolist() == pytest.approx([0.8])


def test_nms_compares_boxes_before_clipping(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clipped, these two would be the same."""
    detector = bright_detector(one_shape(SMALL), options(1))
    given = candidates_of(([-40, 0, 10, 30], 0.9), ([0, 0, 10, 30], 0.8))
    monkeypatch.setattr(detector, "candidates", lambda *_: given)
    assert found_boxes(detector(bright_picture(37, 53))) == [[0, 0, 10, 30]] * 2


@pytest.mark.slow
def test_a_hundred_thousand_boxes_pass_and_no_number_of_faces_is_too_many() -> None:
    """25,600 faces of 8 px side by side, each found by four templates."""
    shapes = one_shape(*(Template(8, 8 + 0.1 * n, 1) for n in range(4)))
    detector = hot_detector(shapes, options(1, nms_iou=0.5))
    picture = bright_picture(1280, 1280)
    with torch.inference_mode():
        before = detector.candidates(torch.from_numpy(picture), levels_for((1280, 1280), (1.0,), shapes))
    assert len(before.scores_K) == 102_400
    found = detector(picture)
    assert len(found) == 25_600
    assert set(found.template_K.tolist()) == {0}


@pytest.mark.parametrize(
    "wrong",
    [
        np.zeros((37, 53, 3), np.float32),
        np.zeros((37, 53), np.uint8),
        np.zeros((37, 53, 4), np.uint8),
        np.zeros((3, 37, 53), np.uint8),
        np.zeros((1, 37, 53, 3), np.uint8),
        np.zeros((0, 53, 3), np.uint8),
    ],
    ids=["float", "grey", "alpha", "channels first", "a batch", "no rows"],
)
def test_what_is_no_picture_is_an_error_that_says_so(wrong: NDArray[np.generic]) -> None:
    with pytest.raises(GeometryError, match=r"uint8 \(H, W, 3\)"):
        hot_detector(TemplateSet(), options(1))(wrong)  # type: ignore[arg-type]


def test_arrays_that_torch_cannot_hold_give_the_same_and_stay_as_they_were() -> None:
    """Read-only (from Arrow), turned upside down, every other row; warnings are errors here."""
    picture = bright_picture(148, 212, (20, 24, 44, 56))
    detector = bright_detector(one_shape(SMALL), options(1))
    expected = found_boxes(detector(picture))
    read_only = picture.copy()
    read_only.flags.writeable = False
    wide = np.zeros((296, 212, 3), np.uint8)
    wide[::2] = picture
    for array in (read_only, picture[::-1].copy()[::-1], wide[::2]):
        before = array.copy()
        assert found_boxes(detector(array)) == expected
        np.testing.assert_array_equal(array, before)


@pytest.mark.slow
@pytest.mark.parametrize("picture_hw", [(1, 1), (1, 500), (500, 1), (16, 3)])
@pytest.mark.parametrize("name", ["resnet50", "resnet101", "vgg16", "mobilenet_v2"])
def test_slivers_pass_through_every_trunk(
    name: TrunkName, picture_hw: tuple[int, int], networks: dict[TrunkName, Detector]
) -> None:
    detector = networks[name]
    for zooms in ("adaptive", (0.25, 1.0, 4.0)):
        detector.zooms = zooms
        found = detector(cloudy_picture(*picture_hw, seed=5))
        x1_K, y1_K, x2_K, y2_K = found.boxes_K4.T
        assert (x1_K >= 0).all()
        assert (x1_K < x2_K).all()
        assert (x2_K <= picture_hw[1]).all()
        assert (y1_K >= 0).all()
        assert (y1_K < y2_K).all()
        assert (y2_K <= picture_hw[0]).all()


@pytest.fixture(scope="module")
def networks() -> dict[TrunkName, Detector]:
    names: tuple[TrunkName, ...] = ("resnet50", "resnet101", "vgg16", "mobilenet_v2")
    return {name: Detector(*calibrated(name), FP32, DetectOptions(min_score=0.2, nms_iou=1.0)) for name in names}


@pytest.mark.parametrize("zoom", [0.25, 0.5, 0.77, 1.0, 2.0, 4.0])
def test_tiled_equals_whole(zoom: float) -> None:
    """Odd sizes, several tiles along both axes, 1 % of the cells fire: each box is in both, to 1e-4 px of the level."""
    picture = cloudy_picture(round(451 / zoom), round(467 / zoom), seed=3)
    (level,) = levels_for((picture.shape[0], picture.shape[1]), (zoom,), TemplateSet())
    found = []
    for tile_px, least, most in ((1 << 23, 1, 1), (400 * 400, 4, 9)):
        detector = toy_detector(options(zoom, tile_px=tile_px))
        cut = tiles(level.size.image_hw, align=16, halo_px=detector.network.halo_px, max_px=tile_px)
        assert least <= len(list(cut)) <= most
        found.append(before_and_after_nms(detector, picture))
    (whole_before, whole), (tiled_before, tiled) = found
    assert len(whole_before.scores_K) > 100
    for one, other in ((whole_before, tiled_before), (whole, tiled)):
        assert largest_difference(one, other, zoom) <= 1e-4


def test_equal_scores_fall_alike_in_tiles_and_whole() -> None:
    """Every cell of every template scores the same, so only the order decides what NMS keeps."""
    picture = bright_picture(213, 331)
    whole, tiled = (hot_detector(one_shape(SMALL), options(1, tile_px=tile_px))(picture) for tile_px in (1 << 23, 4000))
    assert len(whole) > 50
    np.testing.assert_array_equal(tiled.boxes_K4, whole.boxes_K4)


def test_memory_goes_back_between_tiles_and_small_pictures_do_without(monkeypatch: pytest.MonkeyPatch) -> None:
    """It costs time, and only the tiles of a large picture need it."""
    given_back: list[int] = []
    monkeypatch.setattr("tinyface_core.detect.detector.give_memory_back", lambda: given_back.append(1))
    detector = bright_detector(one_shape(SMALL), options(1, tile_px=160 * 160))
    detector(bright_picture(148, 172))
    assert given_back == []
    detector(bright_picture(296, 424))
    assert len(given_back) == len(list(tiles((296, 424), align=8, halo_px=detector.network.halo_px, max_px=160 * 160)))


def test_the_same_picture_gives_the_same_bits_again() -> None:
    picture = cloudy_picture(331, 453, seed=4)
    first, second = (toy_detector(options(0.5, 1))(picture) for _ in range(2))
    assert len(first) > 20
    for name in ("boxes_K4", "scores_K", "template_K", "zoom_K"):
        np.testing.assert_array_equal(getattr(first, name), getattr(second, name))


def test_a_checkpoint_loads_by_path_and_a_missing_one_names_itself(tmp_path: Path) -> None:
    network, spec = calibrated("mobilenet_v2")
    save_checkpoint(tmp_path / "toy.safetensors", network, spec, half=False)
    picture = cloudy_picture(101, 149)
    loaded = Detector.load(tmp_path / "toy.safetensors", options(1), FP32)(picture)
    expected = Detector(network, spec, FP32, options(1))(picture)
    assert len(expected) > 3
    np.testing.assert_array_equal(loaded.boxes_K4, expected.boxes_K4)
    with pytest.raises(CheckpointError, match="no-such-model"):
        Detector.load("no-such-model", runtime=FP32)


def test_a_zoom_without_templates_is_an_error() -> None:
    with pytest.raises(SettingsError, match=r"zoom 1\.41"):
        hot_detector(TemplateSet(full=True), options(1.41))(bright_picture(37, 53))


def regressing(options: DetectOptions) -> Detector:
    """The light trunk with made-up weights, those of a regressor too."""
    network, spec = calibrated("mobilenet_v2")
    network.regress(torch.randn(5, 192 + 576, generator=torch.Generator().manual_seed(1)) / 50, torch.zeros(5))
    return Detector(network, spec, FP32, options)


def test_a_regressor_adds_ellipses_and_changes_nothing_else() -> None:
    picture = cloudy_picture(331, 453, seed=4)
    without, found = toy_detector(options(0.5, 1))(picture), regressing(options(0.5, 1))(picture)
    assert len(found) > 20
    for name in ("boxes_K4", "scores_K", "template_K", "zoom_K"):
        np.testing.assert_array_equal(getattr(found, name), getattr(without, name))
    assert without.ellipses is None
    assert found.ellipses is not None
    assert len(found.ellipses.angle_K) == len(found)
    assert found.ellipses.angle_K.std() > 0.1
    blank = regressing(options(1, min_score=0.999999))(picture)
    assert (len(blank), len(blank.ellipses.cx_K) if blank.ellipses else None) == (0, 0)


def with_memory_for(detector: Detector, pixels: int, monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The same on a device that is too small for more at once: pixels of each try."""
    tried: list[int] = []
    compute = detector.network.forward

    def scarce(image_N3HW: torch.Tensor) -> HeatMaps:
        tried.append(image_N3HW.shape[2] * image_N3HW.shape[3])
        if tried[-1] > pixels:
            torch.empty(1 << 50, dtype=torch.uint8)
        return compute(image_N3HW)

    monkeypatch.setattr(detector.network, "forward", scarce)
    return tried


def test_where_memory_runs_out_smaller_tiles_give_the_same_faces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Tiles stay small: the next picture is not tried in vain."""
    picture = cloudy_picture(901, 907, seed=3)
    whole = toy_detector(options(1))(picture)
    detector = toy_detector(options(1, tile_px=1 << 20))
    tried = with_memory_for(detector, 1 << 19, monkeypatch)
    tiled = detector(picture)
    assert tried[0] == 901 * 907 > 1 << 19 >= tried[-1]
    assert detector.tile_px == 1 << 19
    assert len(tiled) == len(whole) > 0
    np.testing.assert_allclose(tiled.boxes_K4, whole.boxes_K4, atol=1e-4)
    tried.clear()
    detector(picture)
    assert max(tried) <= 1 << 19


def test_where_the_smallest_tiles_find_no_memory_the_error_is_that_of_torch(monkeypatch: pytest.MonkeyPatch) -> None:
    detector = toy_detector(options(1))
    tried = with_memory_for(detector, 0, monkeypatch)
    with pytest.raises(RuntimeError, match="DefaultCPUAllocator"):
        detector(cloudy_picture(451, 467, seed=3))
    least = (4 * detector.network.halo_px) ** 2
    assert least <= detector.tile_px < 2 * least
    assert len(tried) > 2


def test_ellipses_in_tiles_are_those_of_the_whole() -> None:
    found = []
    for tile_px, least in ((1 << 23, 1), (420 * 420, 4)):
        detector = regressing(options(1, tile_px=tile_px))
        cut = list(tiles((451, 467), align=16, halo_px=detector.network.halo_px, max_px=tile_px))
        assert least <= len(cut) <= 9 * least - 8
        before, _ = before_and_after_nms(detector, cloudy_picture(451, 467, seed=3))
        order = before.cell_K.numpy().argsort()
        assert before.ellipse_K5 is not None
        found.append((before.cell_K.numpy()[order], before.ellipse_K5.numpy()[order]))
    (cell_K, whole_K5), (tiled_cell_K, tiled_K5) = found
    assert len(cell_K) > 100
    np.testing.assert_array_equal(cell_K, tiled_cell_K)
    np.testing.assert_allclose(tiled_K5, whole_K5, atol=1e-4)


def test_an_ellipse_is_against_the_box_before_it_was_clipped(monkeypatch: pytest.MonkeyPatch) -> None:
    """A face half outside: its box ends at the edge, its ellipse goes on."""
    detector = bright_detector(one_shape(SMALL), options(1))
    given = candidates_of(([-20, 3, 20, 63], 0.9))
    monkeypatch.setattr(detector, "candidates", lambda *_: replace(given, ellipse_K5=torch.zeros(1, 5)))
    found = detector(bright_picture(90, 53))
    assert found_boxes(found) == [[0, 3, 20, 63]]
    assert found.ellipses is not None
    values = [getattr(found.ellipses, f"{name}_K")[0] for name in ("cx", "cy", "major", "minor", "angle")]
    assert values == pytest.approx([0, 33, 30, 20, np.pi / 2])
