"""`ray job submit --working-dir .`: the code travels, runs from where it was unpacked, and its exit code is told.

Detection and retraining.

A head with dashboard whose Python has the libraries, and no tinyface: what runs must be what travelled.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from options import run_job
from registry import app as registry_app
from tests.integration.job_pictures import cloud, deadly
from tests.integration.job_runs import ROOT
from tests.integration.labelled import LIGHT, labelled
from tests.integration.ray_head import FAULTS, RayHead
from tests.integration.s3_server import S3Server
from tests.unit.archives import tar_bytes
from tinyface_core.model.locate import locate
from tinyface_core.registry.registry import Registry
from tinyface_core.storage import Storage
from tinyface_core.tables.validate import validate

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

PACKAGE_BYTES = 40 << 20  # code and bundled weights
SLOW, SLOW_PICTURES = (250, 1, 5), 160  # a picture that takes a detector 0.2 s (tests/faults)
PATIENCE_S = 300.0


@pytest.fixture(scope="module")
def bare_python(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """This environment's libraries without the editable install of tinyface: a path in a .pth brings no other .pth."""
    folder = tmp_path_factory.mktemp("bare")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python*/site-packages")
    (here,) = {path for path in sys.path if path.startswith(sys.prefix) and path.endswith("site-packages")}
    (site / "libraries.pth").write_text(f"{here}\n")
    python = folder / "bin" / "python"
    bare = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
    asked = [python, "-c", "import ray, tinyface_core"]
    found = subprocess.run(asked, cwd="/", env=bare, capture_output=True, text=True)
    assert "No module named 'tinyface_core'" in found.stderr
    return python


@pytest.fixture(scope="module")
def head(bare_python: Path, s3_server: S3Server) -> Iterator[RayHead]:
    """With the token that Ray asks for by default, and no way to S3: that comes with each job.

    Its detectors take their time where a picture says so.
    """
    token = {"RAY_AUTH_MODE": "token", "RAY_AUTH_TOKEN": "0123456789abcdef" * 4}
    nowhere = dict.fromkeys(s3_server.environment(), "nothing") | {"AWS_ENDPOINT_URL": "http://127.0.0.1:9"}
    variables = nowhere | token | {"PYTHONPATH": str(FAULTS)}
    with RayHead(cpus=2, python=bare_python, variables=variables, dashboard=True) as head:
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


def ray_job(head: RayHead, checkout: Path, what: str, *rest: str) -> subprocess.CompletedProcess[str]:
    """`ray job WHAT`, as a user types it in the checkout."""
    command = [Path(sys.executable).parent / "ray", "job", what, "--address", head.dashboard_url, *rest]
    return subprocess.run(command, cwd=checkout, env=head.environment, capture_output=True, text=True, timeout=600)


def sent(s3_server: S3Server) -> list[str]:
    """What each job brings: the code, and in its runtime environment the way to S3, for driver and workers."""
    return ["--working-dir", ".", "--runtime-env-json", json.dumps({"env_vars": s3_server.environment()})]


def submit(
    head: RayHead, checkout: Path, s3_server: S3Server, *options: str, script: str = "detect_archive.py"
) -> tuple[subprocess.CompletedProcess[str], dict[str, Any]]:
    """(what the command said, what the head knows of the job)."""
    run = ray_job(head, checkout, "submit", *sent(s3_server), "--", "python", f"jobs/{script}", *options)
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
    run, job = submit(
        head, checkout, s3_server, *options, "--model", f"s3://{bucket}/model.safetensors", "--zooms", "0.5"
    )
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
    run, job = submit(head, checkout, s3_server, *options, script="retrain.py")
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
    run, _ = submit(head, checkout, s3_server, *options, script="retrain.py")
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


def test_a_refused_job_fails_with_its_code_and_its_sentence(
    head: RayHead, checkout: Path, bucket: str, s3_server: S3Server
) -> None:
    """`ray job submit` itself exits 1 for whatever failed: Ray's own rule."""
    options = ["--input", f"s3://{bucket}/nothing/", "--output", f"s3://{bucket}/out"]
    run, job = submit(head, checkout, s3_server, *options)
    assert run.returncode == 1
    assert (job["status"], job["driver_exit_code"]) == ("FAILED", 2)
    assert "error: no such input" in run.stdout
    assert "Traceback" not in run.stdout


def test_a_stopped_job_leaves_whole_units_and_the_same_command_finishes(
    head: RayHead, checkout: Path, bucket: str, s3_server: S3Server, model: Path
) -> None:
    """`ray job stop` in the middle of the work, once its log has told how far it is. Slow pictures make it last."""
    client = s3_server.client()
    for number in range(SLOW_PICTURES):
        client.put_object(Bucket=bucket, Key=f"in/{number}.png", Body=deadly(SLOW))
    client.upload_file(str(model), bucket, "model.safetensors")
    options = ["--input", f"s3://{bucket}/in/", "--output", f"s3://{bucket}/out", "--zooms", "0.5", "--unit-pictures"]
    options += ["4", "--model", f"s3://{bucket}/model.safetensors"]
    how = [*sent(s3_server), "--submission-id", bucket, "--no-wait"]
    begun = ray_job(head, checkout, "submit", *how, "--", "python", "jobs/detect_archive.py", *options)
    assert begun.returncode == 0, begun.stdout + begun.stderr

    def committed() -> list[str]:
        listed = client.list_objects_v2(Bucket=bucket, Prefix="out/images/part-").get("Contents", ())
        return [one["Key"] for one in listed]

    def job() -> dict[str, Any]:
        return next(job for job in head.jobs() if job["submission_id"] == bucket)

    log, deadline = "", time.monotonic() + PATIENCE_S
    while not (len(committed()) >= 2 and re.search(rf"\d+ of (about )?{SLOW_PICTURES} pictures.* committed", log)):
        log = ray_job(head, checkout, "logs", bucket).stdout
        assert job()["status"] in ("PENDING", "RUNNING"), log
        assert time.monotonic() < deadline, log
    stopped = ray_job(head, checkout, "stop", bucket)
    assert stopped.returncode == 0, stopped.stdout + stopped.stderr
    assert job()["status"] == "STOPPED"
    done = len(committed())
    assert 2 <= done < SLOW_PICTURES // 4
    assert "Contents" not in client.list_objects_v2(Bucket=bucket, Prefix="out/_SUCCESS")

    run, after = submit(head, checkout, s3_server, *options)
    assert run.returncode == 0, run.stdout + run.stderr
    assert (after["status"], after["driver_exit_code"]) == ("SUCCEEDED", 0)
    assert re.search(rf"{done} of {SLOW_PICTURES // 4} units are committed under these settings: skipped", run.stdout)
    report = validate(Storage(), f"s3://{bucket}/out")
    assert report.exit_code == 0, str(report)
    assert (report.totals.pictures, sum(report.totals.errors.values())) == (SLOW_PICTURES, 0)
