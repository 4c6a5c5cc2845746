"""`ray job submit --working-dir .`: the code travels, runs from where it was unpacked, and its exit code is told.

Detection and retraining.

A head with dashboard whose Python has the libraries, and no tinyface: what runs must be what travelled.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from options import run_job
from registry import app as registry_app
from tests.integration.job_pictures import cloud
from tests.integration.job_runs import ROOT
from tests.integration.labelled import LIGHT, labelled
from tests.integration.ray_head import RayHead
from tests.integration.s3_server import S3Server
from tests.unit.archives import tar_bytes
from tinyface_core.model.locate import locate
from tinyface_core.registry.registry import Registry
from tinyface_core.storage import Storage
from tinyface_core.tables.validate import validate

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

PACKAGE_BYTES = 40 << 20  # code and bundled weights


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This environment's libraries without the editable install of tinyface: a path in a .pth brings no other .pth."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (here,) = {path for path in sys.path if path.startswith(sys.prefix) and path.endswith("site-packages")}
    (site / "libraries.pth").write_text(f"{here}\n")
    python = folder / "bin" / "python"
    found = subprocess.run([python, "-c", "import ray, tinyface_core"], cwd="/", capture_output=True, text=True)
    assert "No module named 'tinyface_core'" in found.stderr
    return python


@pytest.fixture(scope="module")
def head(bare_python: Path, s3_server: S3Server) -> Iterator[RayHead]:
    """With the token that Ray asks for by default."""
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    with RayHead(cpus=2, python=bare_python, variables=s3_server.environment() | token, dashboard=True) as head:
        yield head


@pytest.fixture(scope="module")
def checkout(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy of what a clone of the repository holds."""
    folder = tmp_path_factory.mktemp("checkout") / "tinyface"
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, check=True).stdout
    for name in listed.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / name, folder / name)
    return folder


def submit(
    head: RayHead, checkout: Path, *options: str, script: str = "detect_archive.py"
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """(what the command said, what the head knows of the job)."""
    ray = Path(sys.executable).parent / "ray"
    command = [ray, "job", "submit", "--address", head.dashboard_url, "--working-dir", ".", "--"]
    run = subprocess.run(
        [*command, "python", f"jobs/{script}", *options],
        cwd=checkout, env=head.environment, capture_output=True, text=True, timeout=600,
    )  # fmt: skip
    return run, max(head.jobs(), key=lambda job: job["start_time"] or 0)


def test_a_submitted_job_runs_the_code_that_travelled_from_s3_to_s3(
    head: RayHead, checkout: Path, bucket: str, s3_server: S3Server, model: Path
) -> None:
    """A CSV of urls with a column to carry, on a cluster that has never seen tinyface; the package is small."""
    client = s3_server.client()
    client.put_object(Bucket=bucket, Key="in/shard.tar", Body=tar_bytes([(f"{n}.jpg", cloud(n)) for n in range(5)]))
    client.put_object(Bucket=bucket, Key="in/one.jpg", Body=cloud(9))
    rows = f"uri,label\ns3://{bucket}/in/shard.tar,shard\ns3://{bucket}/in/one.jpg,one\n"
    client.put_object(Bucket=bucket, Key="list.csv", Body=rows.encode())
    client.upload_file(str(model), bucket, "model.safetensors")
    options = ["--input", f"s3://{bucket}/list.csv", "--output", f"s3://{bucket}/out", "--carry", "label"]
    run, job = submit(head, checkout, *options, "--model", f"s3://{bucket}/model.safetensors", "--zooms", "0.5")
    assert run.returncode == 0, run.stdout + run.stderr
    assert job["driver_exit_code"] == 0
    report = validate(Storage(), f"s3://{bucket}/out")
    assert report.exit_code == 0, str(report)
    assert report.totals.pictures == 6
    assert not report.totals.errors
    packages = list(head.folder.glob("session_latest/runtime_resources/working_dir_files/*/jobs/detect_archive.py"))
    assert len(packages) == 1
    package = packages[0].parents[1]
    assert {path.name for path in package.iterdir()} & {
        "tests",
        "docs",
        "demo",
        ".git",
        "cluster",
        "benchmarks",
    } == set()
    assert sum(path.stat().st_size for path in package.rglob("*") if path.is_file()) < PACKAGE_BYTES


def test_a_submitted_retraining_decides_on_s3(
    head: RayHead, checkout: Path, bucket: str, s3_server: S3Server, tmp_path: Path
) -> None:
    """From labels to a decision, on a cluster that has never seen tinyface; the same tick again decides nothing anew.

    The current model made the labels, so none is better.
    """
    client, registry = s3_server.client(), Registry(Storage(), f"s3://{bucket}/registry")
    assert run_job(registry_app, ["add", LIGHT, "--registry", registry.uri]) == 0
    labelled(tmp_path / "new", range(4), dict.fromkeys(range(4), "2026-11-05"))
    labelled(tmp_path / "frozen", range(8, 11))
    for file in (path for path in tmp_path.rglob("*") if path.is_file()):
        client.upload_file(str(file), bucket, str(file.relative_to(tmp_path)))
    client.put_object(Bucket=bucket, Key="labels.csv", Body=b"source,date\nnew,2026-11-05\n")
    options = ["--registry", registry.uri, "--data", f"s3://{bucket}/labels.csv", "--frozen", f"s3://{bucket}/frozen"]
    options += [
        "--tick",
        "2026-11-10T03:00Z",
        "--crops",
        "8",
        "--batch",
        "4",
        "--validation-crops",
        "2",
        "--rate",
        "0.1",
    ]
    options += ["--workers", "1", "--least-pictures", "2", "--refit-pictures", "2", "--samples", "100"]
    run, job = submit(head, checkout, *options, script="retrain.py")
    assert run.returncode == 0, run.stdout + run.stderr
    assert job["driver_exit_code"] == 0
    decision = registry.decision("20261110T0300Z")
    assert decision is not None
    assert (decision["promoted"], decision["decision"]) == (False, "kept the current model")
    assert registry.find("current").name == decision["base"]
    version = registry.find(decision["version"])
    assert locate(f"registry:{version.name}", Storage(), registry.uri).sha256 == version.model_hash
    assert b"**Not better by the rule**" in (registry.read(version.name, "card.md") or b"")
    stored = {one["Key"]: one["LastModified"] for one in client.list_objects_v2(Bucket=bucket)["Contents"]}
    run, _ = submit(head, checkout, *options, script="retrain.py")
    assert run.returncode == 0, run.stdout + run.stderr
    assert "kept the current model" in run.stdout
    again = {one["Key"]: one["LastModified"] for one in client.list_objects_v2(Bucket=bucket)["Contents"]}
    assert again == stored


def test_a_node_says_that_it_is_well_without_the_token_and_nothing_else(head: RayHead) -> None:
    """What the probes of cluster/base/pool/ray_cluster.yaml ask, as a kubelet does; any other path wants the token."""
    with urllib.request.urlopen(f"{head.agent_url}/api/healthz", timeout=30) as answer:
        assert answer.status == 200
    for url in (f"{head.agent_url}/api/job_agent/jobs/", f"{head.dashboard_url}/api/jobs/"):
        with pytest.raises(urllib.error.HTTPError, match="401"):
            urllib.request.urlopen(url, timeout=30)


def test_a_refused_job_fails_with_its_code_and_its_sentence(head: RayHead, checkout: Path, bucket: str) -> None:
    """`ray job submit` itself exits 1 for whatever failed: Ray's own rule."""
    options = ["--input", f"s3://{bucket}/nothing/", "--output", f"s3://{bucket}/out"]
    run, job = submit(head, checkout, *options)
    assert run.returncode == 1
    assert (job["status"], job["driver_exit_code"]) == ("FAILED", 2)
    assert "error: no such input" in run.stdout
    assert "Traceback" not in run.stdout
