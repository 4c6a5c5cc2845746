"""A short campaign of kills: driver, worker, node, and between the two files of a commit (benchmarks/chaos.py)."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.job_runs import ROOT
from tests.integration.ray_head import ray_environment

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(1500)]

SEED = "21293"  # one of which all kills come before their driver ends, so that five drivers do


def test_nothing_is_lost_or_doubled_by_five_kills(tmp_path: Path) -> None:
    """At first work and at what changed. All tables are looked at after each, and read meanwhile."""
    file = tmp_path / "kills"
    command = [sys.executable, "benchmarks/chaos.py", "--kills", "5", "--seed", SEED, "--json", str(file)]
    run = subprocess.run(command, cwd=ROOT, env=ray_environment(), capture_output=True, text=True, check=False)
    assert run.returncode == 0, run.stdout + run.stderr
    kills = [json.loads(line) for line in file.read_text().splitlines()]
    fired = [kill for kill in kills if kill["fired"]]
    assert len(fired) >= 5
    assert {kill["redo"] for kill in kills} == {False, True}
    assert not any(kill["wrong"] for kill in kills)
