"""Training: the fast form says what the network says, it learns, and a killed run ends where an unbroken one does."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from PIL import Image, ImageDraw
from torch import Tensor, nn

from tinyface_core.errors import CheckpointError, SettingsError
from tinyface_core.model.checkpoint import load_checkpoint, save_checkpoint
from tinyface_core.model.network import HRNetwork
from tinyface_core.model.spec import NetworkConfig, TrunkConfig
from tinyface_core.templates import TemplateSet
from tinyface_core.train.crops import CropSettings
from tinyface_core.train.data import AnnotatedPicture, PictureCache
from tinyface_core.train.folded import folded, freeze
from tinyface_core.train.loop import Budget, Trainer, World, resume, save_state, train
from tinyface_core.train.loss import LossSettings
from tinyface_core.train.meter import Report
from tinyface_core.train.optimise import OptimiserSettings, share_of_rate
from tinyface_core.train.presets import MODELS, PRESETS, TrainSettings, preset
from tinyface_core.train.start import starting_network

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
        pictures.append(AnnotatedPicture(f"file://{folder}/{number}.png", (110, 150), faces, faces[:0]))
    return PictureCache(pictures, folder / "cache")


def small_settings(bf16: bool = False) -> TrainSettings:
    fast = preset("fast", "hr-mobilenetv2")
    spec = fast.spec
    network = replace(spec.network, outputs=len(OUTPUTS))
    return replace(
        fast,
        spec=replace(spec, network=network, templates=TemplateSet(outputs=OUTPUTS)),
        crops=CropSettings(side_px=72, zooms=(1.0, 2.0), shares=(0.5, 0.5), face_px=(14, 70)),
        optimiser=OptimiserSettings(head_rate=1e-2, trunk_rate=1e-3, average_decay=0.8),
        batch=2,
        precision="bf16" if bf16 else "fp32",
    )


def trainer(
    crops: int = 60, world: World | None = None, bf16: bool = False, settings: TrainSettings | None = None
) -> Trainer:
    torch.manual_seed(0)
    settings = settings or small_settings(bf16)
    return Trainer(starting_network(settings, None), settings, Budget(crops=crops), world)


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


def nothing(*_: object) -> None:
    pass


def test_a_killed_run_ends_with_the_weights_of_an_unbroken_one(cache: PictureCache, tmp_path: Path) -> None:
    unbroken = trainer(crops=24)
    train(unbroken, cache, on_report=nothing, on_epoch=nothing, epoch_crops=10**9)
    assert unbroken.step_number == 12

    killed, path = trainer(crops=24), tmp_path / "state.pt"

    def save_then_die() -> None:
        if killed.step_number == 4:
            save_state(path, killed)
        if killed.step_number == 6:
            raise Killed

    with pytest.raises(Killed):
        train(killed, cache, on_report=nothing, on_epoch=save_then_die, epoch_crops=4)

    resumed = trainer(crops=24)
    assert resume(path, resumed)
    assert resumed.step_number == 4
    train(resumed, cache, on_report=nothing, on_epoch=nothing, epoch_crops=4)
    assert all(torch.equal(a, b) for a, b in zip(weights(resumed), weights(unbroken), strict=True))


def test_other_settings_do_not_resume(tmp_path: Path) -> None:
    save_state(tmp_path / "state.pt", trainer())
    assert not resume(tmp_path / "none.pt", trainer())
    with pytest.raises(CheckpointError, match="other settings"):
        resume(tmp_path / "state.pt", trainer(bf16=True))


def test_two_processes_share_the_crops(cache: PictureCache) -> None:
    """Each takes its half of every batch; between the two of them, the crops of one process."""
    alone = next(trainer().batches(cache)).pixels_NHW3
    halves = [next(trainer(world=World(rank, 2)).batches(cache)).pixels_NHW3 for rank in (0, 1)]
    assert torch.equal(torch.cat(halves), alone)
    with pytest.raises(SettingsError, match="not shared evenly by 3"):
        trainer(world=World(size=3))


class Two:
    """Two trainers in two threads, whose tensors are averaged when both have come."""

    def __init__(self) -> None:
        self.met, self.given = threading.Barrier(2, timeout=60), [list[Tensor](), list[Tensor]()]

    def average(self, rank: int, tensors: Sequence[Tensor]) -> None:
        self.given[rank] = list(tensors)
        if self.met.wait() == 0:
            for pair in zip(*self.given, strict=True):
                mean = (pair[0] + pair[1]) / 2
                for tensor in pair:
                    tensor.copy_(mean)
        self.met.wait()


@pytest.mark.parametrize("kind", ["focal", "mined"])
def test_one_process_and_two_agree_in_gradient(cache: PictureCache, kind: Literal["focal", "mined"]) -> None:
    """Though their crops hold different numbers of faces. Mining takes all cells here: what it draws may differ."""
    settings = replace(small_settings(), batch=4, loss=LossSettings(kind=kind, easy_under=0.0, mined_each=10**6))
    alone, pair = trainer(settings=settings), Two()
    both = [trainer(settings=settings, world=World(rank, 2, partial(pair.average, rank))) for rank in (0, 1)]
    alone.step(next(alone.batches(cache)))
    batches = [next(one.batches(cache)) for one in both]
    assert batches[0].positives != batches[1].positives
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda one, batch: one.step(batch), both, batches))
    for name, wanted in alone.network.named_parameters():
        if wanted.grad is not None:
            for one in both:
                found = one.network.get_parameter(name).grad
                torch.testing.assert_close(found, wanted.grad, rtol=1e-3, atol=1e-5, msg=name)


def test_processes_agree_on_the_time(cache: PictureCache) -> None:
    pair = Two()
    both = [trainer(world=World(rank, 2, partial(pair.average, rank))) for rank in (0, 1)]
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda one, seconds: one.worked(seconds), both, (10.0, 30.0)))
    assert [one.seconds for one in both] == [20, 20]


def test_mining_leaves_easy_cells_out_and_takes_so_many_of_each(cache: PictureCache) -> None:
    """Paper: 128 of each, from a loss of 0.03 on. Zero heads: all cells lose log 2, so only the number counts."""
    settings = replace(small_settings(), loss=LossSettings(kind="mined", prior=None, mined_each=5))
    one = trainer(settings=settings)
    batch = next(one.batches(cache))
    loss, _ = one.step(batch)
    mined = sum(min(5, int((labels == label).sum())) for labels in batch.labels_NTHW for label in (0, 1))
    assert float(loss.labels.detach()) == pytest.approx(mined * np.log(2) / batch.crops, rel=1e-4)
    easy = replace(settings, loss=replace(settings.loss, easy_under=0.7))
    assert float(trainer(settings=easy).step(batch)[0].total.detach()) == 0


def test_reports_and_the_hours_budget(cache: PictureCache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyface_core.train.loop.REPORT_STEPS", 4)
    one = trainer()
    one.budget = Budget(hours=1.0)
    ticks = iter(range(0, 10**6, 180))  # a clock that moves 0.05 h whenever it is read, twice a step
    reports: list[Report] = []
    epochs: list[int] = []
    train(
        one,
        cache,
        on_report=reports.append,
        on_epoch=lambda: epochs.append(one.crops),
        epoch_crops=6,
        clock=lambda: float(next(ticks)),
    )
    assert one.step_number == 10  # what an epoch's end takes is not counted
    assert epochs == [6, 12, 18, 20]
    assert [report.step for report in reports] == [4, 8]
    assert reports[1].crops_a_second == pytest.approx(8 / (reports[1].hours - reports[0].hours) / 3600, rel=1e-3)
    assert reports[1].rate < reports[0].rate
    assert 0.4 < reports[1].waiting < 0.6


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


@pytest.mark.parametrize("model", MODELS)
@pytest.mark.parametrize("name", PRESETS)
def test_presets_fit_their_networks(name: str, model: str) -> None:
    settings = preset(name, model)
    assert settings.spec.network.outputs == len(settings.spec.templates.outputs) == {"fast": 18, "paper": 25}[name]
    assert sum(settings.crops.shares) == pytest.approx(1)
    assert len(settings.crops.shares) == len(settings.crops.zooms)


def test_the_paper_preset_is_the_papers_recipe() -> None:
    """METHOD, section 3, value by value."""
    paper = preset("paper")
    assert (paper.crops.side_px, paper.crops.zooms, paper.crops.flip, paper.crops.face_share) == (
        500,
        (0.5, 1, 2),
        0.5,
        0,
    )
    assert len(set(paper.crops.shares)) == 1
    assert (paper.targets.positive_iou, paper.targets.ignored_iou, paper.targets.edge) == (0.7, 0.3, "code")
    assert (paper.loss.kind, paper.loss.easy_under, paper.loss.mined_each, paper.loss.prior) == (
        "mined",
        0.03,
        128,
        None,
    )
    rates = paper.optimiser
    assert (rates.kind, rates.momentum, rates.weight_decay, rates.head_rate) == ("sgd", 0.9, 5e-4, 1e-4)
    assert (dict(rates.head_factors), rates.trunk_rate, paper.batch) == ({8: 0.1, 4: 0.01}, 1e-4, 48)
    assert {share_of_rate(spent, rates) for spent in (0.0, 0.3, 1.0)} == {1.0}
    assert paper.epoch_crops is None


def test_unknown_presets_and_models_name_the_known_ones() -> None:
    with pytest.raises(SettingsError, match="fast, paper"):
        preset("light")
    with pytest.raises(SettingsError, match="hr-resnet50, hr-mobilenetv2"):
        preset("fast", "yolo")
