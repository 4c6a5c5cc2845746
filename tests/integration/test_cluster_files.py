"""The cluster launcher's file is one that Ray accepts, and a submitted job carries the code and nothing else."""

from __future__ import annotations

import subprocess
import zipfile
from pathlib import Path

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.util import prepare_config, validate_config

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.integration


def launcher_config() -> dict[str, object]:
    config: dict[str, object] = yaml.safe_load((ROOT / "ray_config.yaml").read_text())
    return config


def test_ray_accepts_the_launcher_file() -> None:
    validate_config(prepare_config(launcher_config()))


def test_the_dashboard_listens_on_loopback_only() -> None:
    """Ray's default for the launcher is all interfaces, and whoever reaches the dashboard may run code."""
    commands = prepare_config(launcher_config())["head_start_ray_commands"]
    (start,) = [command for command in commands if "ray start" in command]
    assert start.split("--dashboard-host=")[1:] == ["127.0.0.1"]
    assert "--head" in start
    assert "--autoscaling-config=~/ray_bootstrap_config.yaml" in start


def test_ray_names_a_misspelt_key_of_the_launcher_file() -> None:
    config = launcher_config()
    config["max_worker"] = config.pop("max_workers")
    with pytest.raises(Exception, match="max_worker"):
        validate_config(prepare_config(config))


def test_the_nodes_run_the_ray_that_the_tests_ran_with() -> None:
    pins = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)
    config = launcher_config()
    images = [line.strip() for line in (ROOT / "ray_config.yaml").read_text().splitlines() if "rayproject/ray:" in line]
    assert config["docker"]
    assert images
    assert all(f"rayproject/ray:{pins['ray']}-py311" in image for image in images)


def test_a_submitted_job_carries_the_code_and_nothing_else(tmp_path: Path) -> None:
    """`--working-dir .` on a fresh clone: a few MiB of code and weights, no pictures, no tests, no environment."""
    clone = tmp_path / "clone"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes((ROOT / name).read_bytes())
    (clone / ".venv").mkdir()
    (clone / ".venv" / "python").touch()

    package = tmp_path / "package.zip"
    create_package(str(clone), package, include_gitignore=True)
    with zipfile.ZipFile(package) as packed:
        tops = {name.split("/")[0] for name in packed.namelist()}
    assert {"tinyface_core", "jobs"} <= tops
    assert tops.isdisjoint({".git", ".venv", "benchmarks", "demo", "docs", "tests"})
    assert package.stat().st_size < 100 * 2**20
