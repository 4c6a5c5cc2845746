"""The fixed crops that choose the best epoch: the same each time, shared by processes, and their score a real one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tinyface_core.evaluate.matching import Found
from tinyface_core.model.network import HRNetwork
from tinyface_core.train.crops import CropSettings
from tinyface_core.train.curves import draw_curves, write_tensorboard
from tinyface_core.train.data import AnnotatedPicture, PictureCache
from tinyface_core.train.loop import Budget, Trainer
from tinyface_core.train.presets import TrainSettings, preset
from tinyface_core.train.validate import FixedCrops

COUNT = 6


@pytest.fixture(scope="module")
def trainer() -> Trainer:
    fast = preset("fast", "hr-mobilenetv2")
    crops = CropSettings(side_px=72, zooms=(1.0,), shares=(1.0,), face_px=(8, 70))
    settings = replace(fast, crops=crops, precision="fp32")
    return Trainer(HRNetwork(settings.spec.network), settings, Budget(crops=16))


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> PictureCache:
    folder = tmp_path_factory.mktemp("held_out")
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(3):
        Image.fromarray(rng.integers(0, 256, (97, 131, 3), dtype=np.uint8)).save(folder / f"{number}.png")
        faces = np.array([[10, 20, 34, 52], [70, 30, 79, 41]], np.float32)
        pictures.append(AnnotatedPicture(f"file://{folder}/{number}.png", (97, 131), faces, faces[:1] + 40))
    return PictureCache(pictures, folder / "cache")


def fixed(cache: PictureCache, settings: TrainSettings, trainer: Trainer) -> FixedCrops:
    return FixedCrops(cache, settings, trainer.network.grid, COUNT)


def test_the_crops_are_the_same_each_time_and_a_perfect_model_scores_1(cache: PictureCache, trainer: Trainer) -> None:
    crops, again = (fixed(cache, trainer.settings, trainer) for _ in range(2))
    truth = crops.truth
    assert np.array_equal(truth.faces_F4, again.truth.faces_F4)
    assert truth.valid_F.sum() > COUNT / 2
    assert not truth.valid_F.all()
    starts = truth.starts_P1
    perfect = {
        name: Found(truth.faces_F4[begin:end], np.ones(end - begin))
        for name, begin, end in zip(truth.names, starts, starts[1:], strict=False)
    }
    scores = crops.score(perfect)
    assert scores["val_ap"] == 1
    assert set(scores.values()) == {1.0}
    assert crops.score({})["val_ap"] == 0


def test_two_processes_find_what_one_finds(cache: PictureCache, trainer: Trainer) -> None:
    crops = fixed(cache, trainer.settings, trainer)
    with_all = crops.found(trainer, range(COUNT))
    shared = crops.found(trainer, range(0, COUNT, 2)) | crops.found(trainer, range(1, COUNT, 2))
    assert with_all.keys() == shared.keys() == {str(number) for number in range(COUNT)}
    for name, found in with_all.items():
        np.testing.assert_allclose(np.sort(found.scores_K), np.sort(shared[name].scores_K), atol=1e-5)


def test_curves_as_a_picture_and_as_events(tmp_path: Path) -> None:
    epochs = [
        {
            "crops": 8 * n,
            "labels_loss": 1 / n,
            "boxes_loss": 1 / n,
            "rate": 0.1,
            "val_ap": 0.1 * n,
            "val_ap 10-20 px": 0.0,
        }
        for n in (1, 2, 3)
    ]
    del epochs[0]["labels_loss"]  # no report came before the first epoch's end
    draw_curves(epochs, tmp_path / "curves.png")
    with Image.open(tmp_path / "curves.png") as picture:
        assert len(set(picture.convert("L").tobytes())) > 20
    draw_curves(epochs[:1], tmp_path / "one.png")
    write_tensorboard(epochs, tmp_path / "events")
    (events,) = (tmp_path / "events").iterdir()
    assert b"val_ap" in events.read_bytes()
