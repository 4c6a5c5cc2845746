"""Training: the fast form says what the network says, it learns, and a killed run ends where an unbroken one does."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from tinyface_core.errors import CheckpointError, SettingsError
from tinyface_core.model.checkpoint import load_checkpoint, save_checkpoint
from tinyface_core.model.network import HRNetwork, NetworkConfig
from tinyface_core.model.trunks import TrunkConfig
from tinyface_core.templates import TemplateSet
from tinyface_core.train.batches import make_batch
from tinyface_core.train.crops import CropSettings
from tinyface_core.train.data import Annotated, PictureCache
from tinyface_core.train.folded import folded, freeze
from tinyface_core.train.loop import Budget, Report, Trainer, World, resume, save_state, train
from tinyface_core.train.presets import PRESETS, OptimiserSettings, TrainSettings, light, preset

OUTPUTS = (7, 11, 20)


@pytest.fixture(scope="module")
def cache(tmp_path_factory: pytest.TempPathFactory) -> PictureCache:
    """Four pictures with bright ovals as faces."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    pictures = []
    for number in range(4):
        image = Image.fromarray(rng.integers(0, 90, (110, 150, 3), dtype=np.uint8))
        corners = rng.integers(0, 70, (2, 2))
        faces = np.concatenate([corners, corners + np.array([24, 32])], axis=1).astype(np.float32)
        for face in faces:
            ImageDraw.Draw(image).ellipse(tuple(face), fill=(250, 220, 180))
        image.save(folder / f"{number}.png")
        pictures.append(Annotated(folder / f"{number}.png", (110, 150), faces, faces[:0]))
    return PictureCache(pictures, folder / "cache")


def small_settings(bf16: bool = False) -> TrainSettings:
    spec = light().spec
    network = replace(spec.network, outputs=len(OUTPUTS))
    return replace(
        light(),
        spec=replace(spec, network=network, templates=TemplateSet(outputs=OUTPUTS)),
        crops=CropSettings(side_px=72, zooms=(1.0, 2.0), shares=(0.5, 0.5), face_px=(14, 70)),
        optimiser=OptimiserSettings(head_rate=1e-2, trunk_rate=1e-3, average_decay=0.8),
        batch=2,
        bf16=bf16,
    )


def trainer(crops: int = 60, world: World | None = None, bf16: bool = False) -> Trainer:
    torch.manual_seed(0)
    settings = small_settings(bf16)
    return Trainer(HRNetwork(settings.spec.network), settings, Budget(crops=crops), world)


def weights(one: Trainer) -> list[Tensor]:
    with one.averaged() as network:
        averages = [tensor.clone() for tensor in network.state_dict().values()]
    return [*averages, *(tensor.clone() for tensor in one.network.state_dict().values())]


def randomised(config: NetworkConfig) -> HRNetwork:
    """A network whose norms and heads are not the trivial ones."""
    torch.manual_seed(1)
    network = HRNetwork(config).eval()
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            for tensor, low, high in (
                (module.weight.data, 0.5, 1.5),
                (module.bias.data, -0.5, 0.5),
                (module.running_mean, -0.5, 0.5),
                (module.running_var, 0.5, 2.0),
            ):
                assert tensor is not None
                tensor.uniform_(low, high)
    for head in network.heads.values():
        assert isinstance(head, nn.Conv2d)
        nn.init.normal_(head.weight, std=0.1)
    return network


@pytest.mark.parametrize(
    "trunk",
    [
        TrunkConfig("resnet50", stride_in_1x1=True, bn_eps=1e-3),
        TrunkConfig("resnet50", pool_after=True),
        TrunkConfig("mobilenet_v2"),
        TrunkConfig("vgg16"),
    ],
    ids=str,
)
def test_the_fast_form_gives_the_networks_answers_and_gradients(trunk: TrunkConfig) -> None:
    network = randomised(NetworkConfig(trunk=trunk, outputs=2))
    freeze(network, 4)
    image_N3HW = torch.randn(1, 3, 37, 53)
    trained = [parameter for parameter in network.parameters() if parameter.requires_grad]
    found = []
    for form in (network, folded(network)):
        maps = form(image_N3HW)
        loss = maps.logits_NTHW.square().mean() + maps.offsets_NT4HW.square().mean()
        found.append((maps.logits_NTHW.detach(), torch.autograd.grad(loss, trained)))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-3, atol=1e-4)
    for plain, fast in zip(found[0][1], found[1][1], strict=True):
        assert (plain - fast).norm() <= 1e-2 * plain.norm() + 1e-6


def test_what_is_frozen_stays_and_the_rest_moves(cache: PictureCache) -> None:
    one = trainer()
    before = {name: tensor.clone() for name, tensor in one.network.state_dict().items()}
    for batch, _ in zip(one.batches(cache), range(3), strict=False):
        one.step(batch)
    moved = {name for name, tensor in one.network.state_dict().items() if not torch.equal(tensor, before[name])}
    assert not any("running" in name for name in moved)
    assert not any(name.startswith(f"trunk.features.{i}.") for name in moved for i in range(4))
    assert {"heads.8.weight", "heads.16.weight", "trunk.features.4.conv.0.0.weight"} <= moved


@pytest.mark.parametrize("bf16", [False, True])
def test_thirty_steps_lower_the_loss(cache: PictureCache, bf16: bool) -> None:
    one = trainer(crops=60, bf16=bf16)
    losses = [float(one.step(batch)[0].total.detach()) for batch, _ in zip(one.batches(cache), range(30), strict=False)]
    assert np.mean(losses[-10:]) < 0.7 * np.mean(losses[:5])


class Killed(Exception):
    pass


def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(cache: PictureCache, tmp_path: Path) -> None:
    unbroken = trainer(crops=24)
    train(unbroken, cache, on_report=lambda report: None, on_save=lambda: None)
    assert unbroken.step_number == 12

    killed, path = trainer(crops=24), tmp_path / "state.pt"

    def save_then_die_at_five() -> None:
        if killed.step_number == 4:
            save_state(path, killed)
        if killed.step_number == 6:
            raise Killed

    with pytest.raises(Killed):
        train(killed, cache, on_report=lambda report: None, on_save=save_then_die_at_five, save_seconds=0.0)

    resumed = trainer(crops=24)
    assert resume(path, resumed)
    assert resumed.step_number == 4
    train(resumed, cache, on_report=lambda report: None, on_save=lambda: None)
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(unbroken), strict=True))


def test_other_settings_do_not_resume(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", trainer())
    assert not resume(tmp_path / "none.pt", trainer())
    with pytest.raises(CheckpointError, match="other settings"):
        resume(tmp_path / "state.pt", trainer(bf16=True))


def test_two_processes_share_the_crops_and_average_their_gradients(cache: PictureCache) -> None:
    asked: list[int] = []

    def average(gradients: Sequence[Tensor]) -> None:
        asked.append(len(gradients))
        for gradient in gradients:
            gradient.zero_()

    alone = trainer()
    second = trainer(world=World(rank=1, size=2, average=average))
    ours, theirs = (iter(one.batches(cache)) for one in (second, alone))
    first = [next(ours).pixels_NHW3, next(ours).pixels_NHW3]
    all_of_them = [next(theirs).pixels_NHW3 for _ in range(4)]
    assert torch.equal(first[0], all_of_them[1])
    assert torch.equal(first[1], all_of_them[3])
    _, norm = second.step(make_batch(cache, second.settings, second.network.grid, 0))
    assert norm == 0
    assert asked == [sum(parameter.requires_grad for parameter in second.network.parameters())]
    assert second.crops == 4


def test_reports_and_the_hours_budget(cache: PictureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyface_core.train.loop.REPORT_STEPS", 4)
    one = trainer()
    one.budget = Budget(hours=1.0)
    ticks = iter(range(0, 10**6, 360))  # a clock that moves 0.1 h whenever it is read
    reports: list[Report] = []
    train(
        one, cache, on_report=reports.append, on_save=lambda: None, save_seconds=1e9, clock=lambda: float(next(ticks))
    )
    assert one.step_number == 10
    assert [(report.step, round(report.spent, 6)) for report in reports] == [(4, 0.4), (8, 0.8)]
    assert reports[1].crops_a_second == pytest.approx(8 / 1440)
    assert reports[1].rate < reports[0].rate


def test_what_is_saved_loads_and_says_the_same(cache: PictureCache, tmp_path: Path) -> None:
    one = trainer()
    for batch, _ in zip(one.batches(cache), range(3), strict=False):
        one.step(batch)
    image_N3HW = torch.randn(1, 3, 37, 53)
    with one.averaged() as network, torch.no_grad():
        save_checkpoint(tmp_path / "a.safetensors", network, one.settings.spec, half=False)
        said = folded(network)(image_N3HW)
    loaded, spec = load_checkpoint(tmp_path / "a.safetensors")
    assert spec == one.settings.spec
    with torch.no_grad():
        torch.testing.assert_close(loaded(image_N3HW).logits_NTHW, said.logits_NTHW, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("amounts", [{}, {"crops": 0}, {"hours": -1.0}])
def test_a_budget_of_nothing_is_refused(amounts: dict[str, float]) -> None:
    with pytest.raises(SettingsError, match="budget"):
        Budget(**amounts)  # type: ignore[arg-type]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_their_networks(name: str) -> None:
    settings = preset(name)
    assert settings.spec.network.outputs == len(settings.spec.templates.outputs) == 15
    assert sum(settings.crops.shares) == pytest.approx(1)
