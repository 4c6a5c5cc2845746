"""The launcher's file is one that Ray accepts; a submitted job carries the code and nothing else; so do the images."""

from __future__ import annotations

import re
import subprocess
import zipfile
from fnmatch import fnmatchcase
from pathlib import Path

import pytest
import yaml
from ray._private.runtime_env.packaging import create_package
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.integration.cluster_manifests import tool

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


def test_the_launcher_copies_no_folder_but_the_code() -> None:
    """Each node gets what `file_mounts` names: pictures and tables that lie in the checkout are not among it."""
    config = prepare_config(launcher_config())
    assert config["file_mounts"] == {"/home/ray/tinyface": "."}
    anchored = [re.fullmatch(r"/([^/]+)/", pattern) for pattern in config["rsync_exclude"]]
    patterns = [match[1] for match in anchored if match is not None]
    assert len(patterns) == len(anchored), "rsync: a slash before it is the top of the checkout, one behind it a folder"
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    tops = {path.split("/")[0] for path in tracked.splitlines() if "/" in path}
    mine = {".git", ".venv", "photos", "faces", "demo_finer", "looked", "tables", "junk", "runs"}
    kept = {top for top in tops | mine if not any(fnmatchcase(top, pattern) for pattern in patterns)}
    assert kept == {"jobs", "tinyface_core"}


def test_a_submitted_job_carries_the_code_and_nothing_else(tmp_path: Path) -> None:
    """`--working-dir .` on a checkout that was worked in: no tests, above all no pictures that lie there.

    The code with its weights, each once, and the files beside it, as a --config.
    """
    clone = tmp_path / "clone"
    tracked = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, tracked.split("\0")):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).write_bytes((ROOT / name).read_bytes())
    for name in (
        ".venv/python",
        "photos/me.jpg",
        "faces/images/1.parquet",
        "faces/_run/model.safetensors",
        "ours.yaml",
    ):
        (clone / name).parent.mkdir(parents=True, exist_ok=True)
        (clone / name).touch()

    package = tmp_path / "package.zip"
    create_package(str(clone), package, include_gitignore=True)
    with zipfile.ZipFile(package) as packed:
        names = [name for name in packed.namelist() if not name.endswith("/")]
    assert {name.split("/")[0] for name in names if "/" in name} == {"tinyface_core", "jobs"}
    assert {"ours.yaml", "constraints.txt", "jobs/retrain.py", "tinyface_core/report/templates/report.html.jinja"} <= {
        *names
    }
    weights = sorted(name for name in names if name.endswith(".safetensors"))
    assert weights == [f"tinyface_core/weights/{model}.safetensors" for model in ("hr-mobilenetv2", "hr-resnet50")]
    said = re.search(r"sends (\d+) MiB: the code with its weights", (ROOT / "docs" / "job.md").read_text())
    assert said is not None
    assert package.stat().st_size == pytest.approx(int(said.group(1)) * 2**20, rel=0.1)


def dockerfile() -> dict[str, list[list[str]]]:
    """Target -> its instructions, those of the target below it first; lines that go on are joined."""
    text = re.sub(r"\\\n\s*", "", (ROOT / "cluster" / "Dockerfile").read_text())
    targets: dict[str, list[list[str]]] = {}
    name = ""
    for line in text.splitlines():
        if not line or line.startswith("#"):
            continue
        word, *rest = line.split()
        if word == "FROM":
            source, _, name = rest
            targets[name] = [[word, source], *targets.get(source, [])]
        else:
            targets[name].append([word, *rest])
    return targets


def test_the_linter_has_nothing_to_say_of_the_dockerfile() -> None:
    """All of it, so both targets: it cannot be built where the tests run."""
    run = subprocess.run([tool("hadolint"), ROOT / "cluster" / "Dockerfile"], capture_output=True, text=True)
    assert (run.returncode, run.stdout, run.stderr) == (0, "", "")


@pytest.mark.parametrize("target", ["cpu", "cuda"])
def test_an_image_holds_the_code_as_a_user_that_is_not_root(target: str) -> None:
    steps = dockerfile()[target]
    assert steps[-1] == ["USER", "1000:1000"], "the runAsUser of the manifests, as a number that Kubernetes can check"
    assert steps[-3:-1] == [["ARG", "TINYFACE_COMMIT"], ["ENV", "TINYFACE_COMMIT=$TINYFACE_COMMIT"]], "no git in there"
    (folder,) = [step[1] for step in steps if step[0] == "WORKDIR"]
    assert folder == "/home/ray/tinyface", "where the entrypoints of the manifests look"
    copied = {name for step in steps if step[0] == "COPY" for name in step[1:-1]}
    assert {"tinyface_core", "jobs", "constraints.txt", "pyproject.toml"} <= copied
    let_through = (ROOT / "cluster" / "Dockerfile.dockerignore").read_text().splitlines()
    assert copied == {line[1:] for line in let_through if line.startswith("!")}
    tracked = subprocess.run(["git", "ls-files"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    assert copied <= {path.split("/")[0] for path in tracked.splitlines()}
    installs = [" ".join(step) for step in steps if step[:3] == ["RUN", "pip", "install"]]
    assert len(installs) == 2
    assert all("--constraint constraints.txt" in line for line in installs), "the versions that the tests ran with"


def test_both_images_come_from_one_pinned_base() -> None:
    bases = [step[1] for steps in dockerfile().values() for step in steps if step[0] == "FROM" and ":" in step[1]]
    (base,) = set(bases)
    assert re.fullmatch(r"python:3\.11\.\d+-slim-\w+", base)
