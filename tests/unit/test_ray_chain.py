"""How much a detector is handed at once: more where it has a GPU, and one picture where it travels alone."""

from __future__ import annotations

import logging
from dataclasses import replace
from typing import Any, cast

import pytest
from ray.data import DataContext

import ray_chain
from ray_stages import BLOCK_BYTES, Reading
from ray_start import Pool
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.storage import Storage

ON_CPUS = Pool(smallest=2, largest=2, cpus=0.9, gpus=0, threads=1, decoders=1)
READING = Reading(Storage(), CandidateFilter())


@pytest.mark.parametrize(
    ("gpus", "asked", "expected", "batch"),
    [
        (0, BLOCK_BYTES, BLOCK_BYTES, None),
        (1, BLOCK_BYTES, ray_chain.GPU_BLOCK_BYTES, ray_chain.GPU_BATCH),
        (0.25, BLOCK_BYTES, ray_chain.GPU_BLOCK_BYTES, ray_chain.GPU_BATCH),
        (0, 1, 1, None),
        (1, 1, 1, 1),
    ],
)
def test_blocks_suit_the_detectors(
    gpus: float, asked: int, expected: int, batch: int | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    built: list[Reading] = []
    monkeypatch.setattr(ray_chain, "_chain", lambda _work, reading, _detecting, _pool: built.append(reading))
    monkeypatch.setattr(DataContext.get_current(), "target_max_block_size", 0)
    monkeypatch.setattr(logging.getLogger("ray.data"), "handlers", [])  # pytest's are among them, and would be silenced
    pool = replace(ON_CPUS, gpus=gpus)
    ray_chain.faces_in([], replace(READING, block_bytes=asked), cast(Any, None), pool)
    assert [reading.block_bytes for reading in built] == [expected]
    assert DataContext.get_current().target_max_block_size == expected
    assert ray_chain._batch_size(built[0], pool) == batch
