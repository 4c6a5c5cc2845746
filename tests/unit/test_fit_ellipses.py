"""A linear map of features is found again, noise is told to be noise, and turned pictures take their ellipses along."""

from __future__ import annotations

import gzip
import json
import math
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from numpy.typing import NDArray
from PIL import Image

from fit_ellipses import app
from options import run_job
from tests.toy_network import FP32, bright_detector, bright_picture, calibrated, cloudy_picture
from tinyface_core.detect.detector import Detector
from tinyface_core.detect.ellipse import Ellipses, around, from_targets, inscribed
from tinyface_core.detect.options import DetectOptions
from tinyface_core.errors import CheckpointError, InputError
from tinyface_core.evaluate.fddb_files import read_truth
from tinyface_core.model.checkpoint import load_checkpoint, save_checkpoint
from tinyface_core.templates import Template, TemplateSet
from tinyface_core.train.data import AnnotatedPicture
from tinyface_core.train.fit_ellipses import RIDGES, Samples, fit, samples_of
from tinyface_core.train.fit_ellipses_truth import (
    AXIS_RATIO,
    VIEW_PX,
    EyeLines,
    Truth,
    annotated_ellipses,
    moved,
    tilted,
    turned_picture,
    turned_views,
)

SHARED = Path(__file__).resolve().parents[3] / "shared"
FDDB = SHARED / "data" / "fddb" / "ellipses.jsonl.gz"
YUNET = SHARED / "peers" / "yunet" / "yunet_n_dynamic.onnx"
PORTRAIT = Path(__file__).resolve().parents[2] / "demo" / "archive" / "portraits" / "navy_portrait.jpg"


def made_up(
    count: int, channels: int = 12, *, noise: float = 0.0, seed: int = 0
) -> tuple[Samples, NDArray[np.float64]]:
    """Samples whose targets are a linear map of the features, and the map (5, channels + 1)."""
    rng = np.random.default_rng(seed)
    features_NC = (rng.normal(size=(count, channels)) * rng.uniform(0.1, 30, channels) + 5).astype(np.float32)
    map_5D = rng.normal(size=(5, channels + 1)) / 100
    targets_N5 = features_NC @ map_5D[:, :-1].T + map_5D[:, -1]
    targets_N5 += noise * rng.normal(size=targets_N5.shape)
    return Samples(features_NC, targets_N5, rng.integers(0, 10, count)), map_5D


def test_a_linear_map_is_found_again() -> None:
    samples, map_5D = made_up(600)
    fitted = fit(samples)
    said_N5 = samples.features_NC @ fitted.weight_5C.T + fitted.bias_5
    np.testing.assert_allclose(fitted.weight_5C, map_5D[:, :-1], atol=1e-4)
    np.testing.assert_allclose(said_N5, samples.targets_N5, atol=2e-3)
    assert (fitted.rms_5 < 0.01 * fitted.constant_rms_5).all()
    assert fitted.angle_deg < 0.1 < 1 < fitted.constant_angle_deg
    assert fitted.ridge_5 == (RIDGES[0],) * 5


def test_noise_is_no_better_than_a_constant_and_takes_the_strongest_ridge() -> None:
    """300 samples of 200 features: without folds and ridge the map would seem to explain most of it."""
    rng = np.random.default_rng(1)
    features_NC, targets_N5 = rng.normal(size=(300, 200)), rng.normal(size=(300, 5)) / 5
    fitted = fit(Samples(features_NC.astype(np.float32), targets_N5, np.arange(300) % 10))
    assert (fitted.rms_5 > 0.97 * fitted.constant_rms_5).all()
    assert min(fitted.ridge_5) >= 1
    assert fitted.angle_deg > 0.9 * fitted.constant_angle_deg


def test_errors_are_those_of_pictures_that_were_not_seen() -> None:
    """Against folds left out one by one, by numpy's least squares (the smallest ridge does nothing here)."""
    samples, _ = made_up(400, noise=0.05)
    fitted = fit(samples)
    weight_N1 = np.sin(np.arctan2(1, samples.targets_N5[:, 4:])) ** 2  # an error of cot as the turn that it means
    rows_ND = np.column_stack([samples.features_NC, np.ones(400)]).astype(np.float64)
    said_N5 = np.zeros((400, 5))
    for fold in range(10):
        out_N = samples.fold_N == fold
        heavy_ND, heavy_N5 = rows_ND[~out_N] * weight_N1[~out_N], samples.targets_N5[~out_N] * weight_N1[~out_N]
        said_N5[out_N] = rows_ND[out_N] @ np.linalg.lstsq(heavy_ND, heavy_N5)[0]
    expected_5 = np.sqrt((((said_N5 - samples.targets_N5) * weight_N1) ** 2).mean(axis=0))
    np.testing.assert_allclose(fitted.rms_5, expected_5, rtol=0.02)


def test_the_same_samples_give_the_same_bits_and_one_fold_is_too_few() -> None:
    samples, _ = made_up(150, noise=0.1)
    np.testing.assert_array_equal(fit(samples).weight_5C, fit(samples).weight_5C)
    with pytest.raises(InputError, match="fewer than two folds"):
        fit(replace(samples, fold_N=np.zeros(150, np.int64)))


def test_an_ellipse_turns_with_its_picture() -> None:
    """A white ellipse, drawn, then turned and shrunk with the picture: its moments say where it lies."""
    before = Ellipses.of_axes(np.array([[130.0], [90.0], [48.0], [math.radians(80)], [27.0]]))
    drawn_HW3 = np.zeros((211, 263, 3), np.uint8)
    axes = (48 * 16, 27 * 16)
    cv2.ellipse(drawn_HW3, (round(129.5 * 16), round(89.5 * 16)), axes, 80, 0, 360, (255, 255, 255), -1, shift=4)
    for turn in (-0.6, 0.0, 0.7):
        turn_22 = 0.8 * np.array([[math.cos(turn), -math.sin(turn)], [math.sin(turn), math.cos(turn)]])
        shift_2 = np.array([160, 140]) - turn_22 @ [130, 90]
        white_HW = turned_picture(drawn_HW3, turn_22, shift_2, (300, 310))[..., 0] > 200
        rows, columns = np.nonzero(white_HW)
        after = moved(before, turn_22, shift_2)
        assert [columns.mean() + 0.5, rows.mean() + 0.5] == pytest.approx([after.cx_K[0], after.cy_K[0]], abs=0.1)
        spread_22 = np.cov(columns, rows)
        lengths, axes_22 = np.linalg.eigh(spread_22)
        assert 2 * np.sqrt(lengths) == pytest.approx([after.minor_K[0], after.major_K[0]], rel=0.02)
        angle = math.atan2(axes_22[1, 1], axes_22[0, 1]) % math.pi
        assert angle == pytest.approx(after.angle_K[0], abs=0.01)


def test_a_tilted_face_has_fddbs_shape_and_the_middle_and_area_of_its_box() -> None:
    faces_F4 = np.array([[10, 20, 50, 80], [100, 100, 190, 190]], np.float32)
    found = tilted(faces_F4, np.radians([0, -25]))
    boxes_F4 = around(found)
    assert np.prod(boxes_F4[:, 2:] - boxes_F4[:, :2], axis=1).tolist() == pytest.approx([2400, 8100], rel=1e-5)
    assert ((boxes_F4[:, :2] + boxes_F4[:, 2:]) / 2).tolist() == [pytest.approx([30, 50]), pytest.approx([145, 145])]
    assert (found.major_K / found.minor_K).tolist() == pytest.approx([AXIS_RATIO] * 2)
    assert np.degrees(found.angle_K).tolist() == pytest.approx([90, 65])


@pytest.mark.skipif(not FDDB.is_file(), reason="FDDB's annotation is not here")
def test_the_shape_is_the_median_of_fddbs() -> None:
    read = read_truth(FDDB)
    ellipses_F5 = np.concatenate([faces.ellipses_F5 for faces in read.values()])
    assert (len(read), len(ellipses_F5), {faces.fold for faces in read.values()}) == (2845, 5171, set(range(1, 11)))
    ratio_F = ellipses_F5[:, :2].max(axis=1) / ellipses_F5[:, :2].min(axis=1)
    assert np.median(ratio_F) == pytest.approx(AXIS_RATIO, abs=0.005)


@pytest.mark.skipif(not YUNET.is_file(), reason="YuNet is not here")
@pytest.mark.filterwarnings("ignore::DeprecationWarning")
def test_the_eyes_of_a_portrait_say_how_far_it_was_turned() -> None:
    eyes = EyeLines(YUNET)
    portrait_HW3 = np.asarray(Image.open(PORTRAIT).convert("RGB"))
    upright = eyes.ellipses(portrait_HW3, face_of(eyes, portrait_HW3))
    for turn in (-30, 20):
        angle = math.radians(turn)
        turn_22 = np.array([[math.cos(angle), -math.sin(angle)], [math.sin(angle), math.cos(angle)]])
        middle_2 = np.array(portrait_HW3.shape[1::-1]) / 2
        shift_2 = middle_2 - turn_22 @ middle_2
        turned_HW3 = turned_picture(portrait_HW3, turn_22, shift_2, portrait_HW3.shape[:2])
        expected = moved(upright, turn_22, shift_2)
        found = eyes.ellipses(turned_HW3, around(expected).astype(np.float32))
        assert np.degrees(found.angle_K[0] - expected.angle_K[0]) == pytest.approx(0, abs=4)


def face_of(eyes: EyeLines, rgb_HW3: NDArray[np.uint8]) -> NDArray[np.float32]:
    """The box of the largest face that YuNet sees."""
    eyes._yunet.setInputSize(rgb_HW3.shape[1::-1])
    x, y, width, height = max(eyes._yunet.detect(rgb_HW3[..., ::-1].copy())[1].tolist(), key=lambda row: row[3])[:4]
    return np.array([[x, y, x + width, y + height]], np.float32)


class Known:
    """In place of EyeLines: every annotated face stands upright."""

    def ellipses(self, _: NDArray[np.uint8], faces_F4: NDArray[np.float32]) -> Ellipses:
        return tilted(faces_F4, np.zeros(len(faces_F4)))


@pytest.fixture
def pictures(tmp_path: Path) -> list[AnnotatedPicture]:
    made = []
    for number in range(3):
        rgb_HW3 = cloudy_picture(300, 400, seed=number)
        Image.fromarray(rgb_HW3).save(tmp_path / f"{number}.png")
        faces_K4 = np.array([[150, 100, 210, 180]] * (number > 0), np.float32).reshape(-1, 4)
        made.append(
            AnnotatedPicture(f"file://{tmp_path}/{number}.png", (300, 400), faces_K4, np.empty((0, 4), np.float32))
        )
    return made


def test_views_come_in_any_number_hold_their_face_and_are_decided_by_the_seed(pictures: list[AnnotatedPicture]) -> None:
    def views(seed: int) -> list[Truth]:
        return list(turned_views(pictures, Known(), 7, seed))  # type: ignore[arg-type]

    first, again, other = views(0), views(0), views(1)
    assert len(first) == 7
    for one, same in zip(first, again, strict=True):
        np.testing.assert_array_equal(one.rgb_HW3, same.rgb_HW3)
        assert (one.fold, one.zoom) == (same.fold, same.zoom)
        assert one.rgb_HW3.shape == (round(VIEW_PX / (one.zoom or 0)),) * 2 + (3,)
        assert abs(np.degrees(one.ellipses.angle_K) - 90).max(initial=0) <= 45.001
    assert sum(len(view.ellipses.cx_K) for view in first) >= 5
    assert len({view.fold for view in first}) == 2  # of the two pictures that have a face
    assert [view.rgb_HW3.tobytes() for view in first] != [view.rgb_HW3.tobytes() for view in other]
    with pytest.raises(InputError, match="no face of 40 px"):
        next(turned_views(pictures[:1], Known(), 7, 0))  # type: ignore[arg-type]


def test_samples_are_what_the_detector_sees_at_its_own_detections() -> None:
    """A bright rectangle is found with the box that it has; the ellipse is known, so are the targets and features."""
    shape = TemplateSet((Template(24, 32, 1),), outputs=(0,), a=(0,), b=())
    detector = bright_detector(shape, DetectOptions(0.5, 0.3, (1.0,)))
    face = Ellipses.of_axes(np.array([[138.0], [71.0], [20.0], [1.2], [11.0]]))
    lying = Ellipses.of_axes(np.array([[30.0], [30.0], [20.0], [0.2], [11.0]]))
    truth = Truth(bright_picture(148, 212, (124, 56, 148, 88)), Ellipses.joined([lying, face]), 4)
    trunk_maps_1CHW = detector.network.trunk(torch.from_numpy(truth.rgb_HW3).permute(2, 0, 1)[None] / 255)[8]
    samples = samples_of(detector, [truth, replace(truth, ellipses=lying), replace(truth, fold=7)])
    around = float(trunk_maps_1CHW[0, 0, 7:12, 15:20].mean())  # the face's middle is the corner (8 * 17, 8 * 9)
    assert samples.features_NC.tolist() == [[pytest.approx(around)]] * 2
    assert samples.fold_N.tolist() == [4, 7]
    back = from_targets(np.array([[124, 56, 148, 88]], np.float32), samples.targets_N5[:1].astype(np.float32))
    assert [back.cx_K[0], back.major_K[0], back.angle_K[0]] == pytest.approx([138, 20, 1.2], rel=1e-4)
    with pytest.raises(InputError, match="no detection matches"):
        samples_of(detector, [replace(truth, ellipses=lying)])


def fddb_like(folder: Path) -> Iterator[tuple[str, list[list[float]]]]:
    """Two pictures of a detector's own finds: ellipses inside its boxes, all turned by the same angle."""
    detector = Detector(*calibrated("mobilenet_v2"), FP32, DetectOptions(0.2, 0.7, (1.0,)))
    for number in range(2):
        rgb_HW3 = cloudy_picture(211, 301, seed=number)
        (folder / "2002").mkdir(exist_ok=True)
        Image.fromarray(rgb_HW3).save(folder / "2002" / f"{number}.png")
        inside = inscribed(detector(rgb_HW3).boxes_K4)
        yield (
            f"2002/{number}.png",
            [
                [float(major), float(minor), 1.4, float(x), float(y)]
                for x, y, major, minor in zip(inside.cx_K, inside.cy_K, inside.major_K, inside.minor_K, strict=True)
            ],
        )


def test_the_command_writes_a_checkpoint_with_its_regressor(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where all faces are turned alike, so are all ellipses afterwards; the boxes stay as they were."""
    monkeypatch.setattr("tinyface_core.detect.detector.choose_runtime", lambda: FP32)
    network, spec = calibrated("mobilenet_v2")
    spec = replace(spec, defaults=replace(spec.defaults, score=0.2, zooms=(1.0,)), provenance={"by": "hand"})
    save_checkpoint(tmp_path / "toy.safetensors", network, spec, half=False)
    annotation = tmp_path / "ellipses.jsonl.gz"
    with gzip.open(annotation, "wt") as file:
        for number, (name, ellipses) in enumerate(fddb_like(tmp_path)):
            file.write(json.dumps({"image": name, "fold": number + 1, "ellipses": ellipses}) + "\n")
    options = [str(tmp_path / "toy.safetensors"), "--output", str(tmp_path / "with.safetensors")]
    assert run_job(app, [*options, "--ellipses", str(annotation), "--pictures", str(tmp_path)]) == 0
    told = json.loads(capsys.readouterr().out)
    _, made = load_checkpoint(tmp_path / "with.safetensors")
    assert made.ellipses
    assert made.provenance == {"by": "hand", "ellipses": told}
    picture = cloudy_picture(211, 301, seed=0)
    before = Detector.load(tmp_path / "toy.safetensors", runtime=FP32)(picture)
    after = Detector.load(tmp_path / "with.safetensors", runtime=FP32)(picture)
    np.testing.assert_array_equal(after.boxes_K4, before.boxes_K4)
    assert after.ellipses is not None
    assert np.median(after.ellipses.angle_K) == pytest.approx(1.4, abs=0.02)
    assert run_job(app, options) == 2
    assert "--overwrite" in capsys.readouterr().err
    assert run_job(app, [*options, "--overwrite"]) == 2
    assert "--eye-lines" in capsys.readouterr().err


def test_fddbs_own_files_are_read_and_what_is_none_is_named(tmp_path: Path) -> None:
    folder = tmp_path / "FDDB-folds"
    folder.mkdir()
    (folder / "FDDB-fold-02-ellipseList.txt").write_text(
        "2002/a\n2\n67.3 44.5 -1.476 105.2 87.2  1\n41.9 27.0 1.47 184.0 129.3  1\n2002/b\n0\n"
    )
    (tmp_path / "2002").mkdir()
    Image.fromarray(cloudy_picture(200, 230)).save(tmp_path / "2002" / "a.jpg")
    (truth,) = annotated_ellipses(folder, tmp_path)
    assert truth.fold == 2
    assert truth.rgb_HW3.shape == (200, 230, 3)
    assert np.degrees(truth.ellipses.angle_K).tolist() == pytest.approx(np.degrees([math.pi - 1.476, 1.47]))
    with pytest.raises(InputError, match="none of the pictures"):
        next(annotated_ellipses(folder, folder))
    (folder / "FDDB-fold-03-ellipseList.txt").write_text("2002/a\n2\n67.3 44.5\n")
    for wrong in (folder, tmp_path, tmp_path / "none.jsonl"):
        with pytest.raises(InputError, match=str(wrong)):
            list(annotated_ellipses(wrong, tmp_path))
    with pytest.raises(CheckpointError, match="cannot load it as YuNet"):
        EyeLines(tmp_path / "none.onnx")
