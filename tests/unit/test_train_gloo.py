"""Two processes that average by gloo, as Ray Train's workers do on CPUs, have the gradient of one process."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, multiprocessing
from torch import distributed as dist

from ray_train import average
from tests.unit.test_train_loop import cache, small_settings, trainer
from tinyface_core.train.data import PictureCache
from tinyface_core.train.loop import Trainer, World
from tinyface_core.train.presets import TrainSettings

__all__ = ["cache"]  # the fixture

pytestmark = [pytest.mark.slow, pytest.mark.timeout(300)]
SETTINGS = replace(small_settings(), batch=4)


def gradients(one: Trainer) -> dict[str, Tensor]:
    return {name: p.grad.clone() for name, p in one.network.named_parameters() if p.grad is not None}


def stepped(cache: PictureCache, settings: TrainSettings, world: World | None = None) -> dict[str, Tensor]:
    torch.set_num_threads(1)
    one = trainer(settings=settings, world=world)
    one.step(next(one.batches(cache)))
    return gradients(one)


def work(rank: int, folder: Path, cache: PictureCache, settings: TrainSettings) -> None:
    dist.init_process_group("gloo", init_method=f"file://{folder}/meet", rank=rank, world_size=2)
    torch.save(stepped(cache, settings, World(rank, 2, average)), folder / f"{rank}.pt")
    dist.destroy_process_group()


def test_two_processes_over_gloo_have_the_gradient_of_one(cache: PictureCache, tmp_path: Path) -> None:
    multiprocessing.spawn(work, (tmp_path, cache, SETTINGS), nprocs=2)
    alone = stepped(cache, SETTINGS)
    both = [torch.load(tmp_path / f"{rank}.pt") for rank in (0, 1)]
    assert alone.keys() == both[0].keys() == both[1].keys()
    for name, wanted in alone.items():
        torch.testing.assert_close(both[0][name], wanted, rtol=1e-3, atol=1e-5, msg=name)
        assert torch.equal(both[0][name], both[1][name]), name
