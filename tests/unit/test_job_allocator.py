"""Processes that compute keep their memory: jemalloc in the place of glibc's malloc, and not in decoding children."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

import ray_start
from ray_start import KERNELS, computing_environment
from tinyface_core.picture.process import _environment

FAULTS = """
import resource, torch
def faults():
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    torch.ones(20 << 20)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before
faults()
print(max(faults() for _ in range(5)), "jemalloc" in open("/proc/self/maps").read())
"""


def most_faults(added: dict[str, str]) -> tuple[int, bool]:
    """Page faults of a tensor of 80 MB whose like was freed just before, and whether jemalloc is loaded."""
    plain = {name: value for name, value in os.environ.items() if name not in ("LD_PRELOAD", "MALLOC_CONF")}
    done = subprocess.run([sys.executable, "-c", FAULTS], env=plain | added, capture_output=True, text=True, check=True)
    count, loaded = done.stdout.split()
    return int(count), loaded == "True"


def test_a_tensor_takes_the_memory_that_the_last_one_left(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("LD_PRELOAD", raising=False)
    faults, loaded = most_faults({})
    assert (faults > 10_000, loaded) == (True, False)
    faults, loaded = most_faults(computing_environment()["env_vars"])
    assert (faults < 200, loaded) == (True, True)


def test_an_allocator_of_the_users_choice_stays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "libtcmalloc.so")
    assert computing_environment()["env_vars"].keys() == {KERNELS}
    assert _environment()["LD_PRELOAD"] == "libtcmalloc.so"


def test_without_rays_library_nothing_is_asked_for(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setattr(ray_start, "JEMALLOC", tmp_path / "none.so")
    assert computing_environment()["env_vars"].keys() == {KERNELS}


def test_onednn_keeps_the_kernels_of_many_sizes_or_as_many_as_the_user_says(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(KERNELS, raising=False)
    assert computing_environment()["env_vars"][KERNELS] == "8192"
    monkeypatch.setenv(KERNELS, "64")
    assert computing_environment()["env_vars"][KERNELS] == "64"


def test_decoding_children_go_without_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LD_PRELOAD", "/some/where/libjemalloc.so")
    assert "LD_PRELOAD" not in _environment()
