"""The RayJobs of cluster/, and the program that makes one at each tick, against an API that behaves like Kubernetes."""

from __future__ import annotations

import copy
import json
import os
import shlex
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cyclopts
import pytest

from detect_archive import app
from options import _config_file
from retrain import app as retrain_app
from tests.integration.cluster_manifests import CLUSTER, OVERLAYS, of_kind, ray_job_specs
from tests.integration.kube_schemas import refused

pytestmark = pytest.mark.integration
START = CLUSTER / "base" / "retrain" / "cron_job" / "start_ray_job.py"
TICK = 29_400_000  # minutes since 1970
NAME = f"tinyface-retrain-{TICK}"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_options_of_an_overlay_are_those_of_the_job(overlay: str) -> None:
    """What its RayJob reads with --config, through the job's own parser; and its nodes can carry its detectors."""
    (job,) = of_kind(overlay, "RayJob").keys() - {"tinyface-retrain"}
    spec = ray_job_specs(overlay)[f"RayJob {job}"]
    program, script, *tokens = shlex.split(spec["entrypoint"])
    assert (program, script) == ("python", "/home/ray/tinyface/jobs/detect_archive.py")
    (head,) = [volume for volume in spec["rayClusterSpec"]["headGroupSpec"]["template"]["spec"]["volumes"]
               if volume["name"] == "options"]  # fmt: skip
    (name,) = of_kind(overlay, "ConfigMap").keys() & {head["configMap"]["name"]}
    (option, path) = tokens
    assert (option, str(Path(path).parent)) == ("--config", "/etc/tinyface")
    text = of_kind(overlay, "ConfigMap")[name]["data"][Path(path).name]
    file = CLUSTER / "overlays" / (overlay if overlay != "raycronjob" else "gpu") / "detect.yaml"
    assert text == file.read_text()
    path, values = _config_file(["--config", str(file)])
    app.config = [cyclopts.config.Dict(values, source=str(path))]
    _, bound, _ = app.parse_args([], exit_on_error=False, print_error=False)
    (options,) = bound.arguments.values()
    _, most = options.actor_range()
    groups = spec["rayClusterSpec"]["workerGroupSpecs"]
    kind = "nvidia.com/gpu" if options.device == "cuda" else "cpu"
    room = sum(
        group["maxReplicas"] * int(group["template"]["spec"]["containers"][0]["resources"]["limits"].get(kind, 0))
        for group in groups
        if options.device == "cuda" or group["groupName"] == "cpu"
    )
    assert most == room


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_every_ray_job_ends_and_takes_its_cluster_with_it(overlay: str) -> None:
    for name, spec in ray_job_specs(overlay).items():
        assert spec["shutdownAfterJobFinishes"] is True, name
        assert "deletionStrategy" not in spec, f"{name}: KubeRay refuses both"
        assert 0 <= spec["ttlSecondsAfterFinished"] <= 600, name
        assert 0 < spec["activeDeadlineSeconds"] <= 7 * 86400, name
        assert 0 <= spec["backoffLimit"] <= 3, name
        assert not set("$`;&|") & set(spec["entrypoint"]), f"{name}: KubeRay puts it into a shell's line"


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_retraining_sleeps_until_it_has_something_to_work_on(overlay: str) -> None:
    """A schedule whose buckets nobody has filled in would fail each week, on a cluster that costs."""
    schedules = of_kind(overlay, "CronJob", "RayCronJob")
    assert [each["spec"]["suspend"] for each in schedules.values()] == [True]


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_retraining_command_is_one_that_the_job_takes(overlay: str) -> None:
    """Through the job's own parser, with the tick as the starter writes it; its workers share a batch and find room."""
    if overlay == "raycronjob":
        (cron,) = of_kind(overlay, "RayCronJob").values()
        spec = cron["spec"]["jobTemplate"]
    else:
        spec = of_kind(overlay, "RayJob")["tinyface-retrain"]["spec"]
    assert ("@TICK@" in spec["entrypoint"]) is (overlay != "raycronjob"), "only the starter fills it in"
    program, script, *tokens = shlex.split(spec["entrypoint"].replace("@TICK@", "2025-11-24T16:00Z"))
    assert (program, script) == ("python", "/home/ray/tinyface/jobs/retrain.py")
    _, bound, _ = retrain_app.parse_args(tokens, exit_on_error=False, print_error=False)
    (options,) = bound.arguments.values()
    assert options.training.settings_for("hr-resnet50", None).batch % options.training.workers == 0
    (group,) = [group for group in spec["rayClusterSpec"]["workerGroupSpecs"] if group["groupName"] == "cpu"]
    limits = group["template"]["spec"]["containers"][0]["resources"]["limits"]
    assert options.training.workers * options.training.cpus_per_worker <= int(limits["cpu"]) * group["maxReplicas"]


@pytest.mark.parametrize("overlay", sorted(set(OVERLAYS) - {"raycronjob"}))
def test_the_cron_job_outlives_what_it_starts_and_never_overlaps(overlay: str) -> None:
    (cron,) = of_kind(overlay, "CronJob").values()
    template = of_kind(overlay, "RayJob")["tinyface-retrain"]
    assert template["spec"]["suspend"] is True
    assert cron["spec"]["concurrencyPolicy"] == "Forbid"
    job = cron["spec"]["jobTemplate"]["spec"]
    assert job["activeDeadlineSeconds"] > template["spec"]["activeDeadlineSeconds"]
    (container,) = job["template"]["spec"]["containers"]
    environment = {each["name"]: each.get("value") for each in container["env"]}
    assert environment["TEMPLATE"] == template["metadata"]["name"]
    assert len(NAME) <= 47, "KubeRay's limit for the name of a RayJob"
    (role,) = of_kind(overlay, "Role").values()
    assert role["rules"] == [{"apiGroups": ["ray.io"], "resources": ["rayjobs"], "verbs": ["get", "create"]}]


def test_the_ray_cron_job_has_the_nodes_of_the_template_and_starts_at_once() -> None:
    (cron,) = of_kind("raycronjob", "RayCronJob").values()
    template = of_kind("gpu", "RayJob")["tinyface-retrain"]["spec"]
    job = cron["spec"]["jobTemplate"]
    assert job["rayClusterSpec"] == template["rayClusterSpec"]
    assert "suspend" not in job
    assert of_kind("raycronjob", "CronJob") == {}


class Kubernetes(ThreadingHTTPServer):
    """The RayJobs of a namespace: get and create, a second of one name refused. Each RayJob ends at its third look."""

    def __init__(self, ends: str) -> None:
        super().__init__(("127.0.0.1", 0), Handler)
        self.ends = ends
        self.jobs: dict[str, dict[str, Any]] = {}
        self.looks = 0
        self.failures = 0  # of the next looks

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Kubernetes

    def do_GET(self) -> None:
        *_, name = self.path.split("/")
        found = self.server.jobs.get(name)
        if found is None or self.server.failures > 0:
            self.server.failures -= 1
            self._tell(404 if found is None else 503, {})
            return
        self.server.looks += "ownerReferences" in found["metadata"]
        told = copy.deepcopy(found)
        if self.server.looks >= 3:
            told["status"] = {"jobDeploymentStatus": "Complete", "jobStatus": self.server.ends, "message": "so it is"}
        self._tell(200, told)

    def do_POST(self) -> None:
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        assert self.path == "/apis/ray.io/v1/namespaces/tinyface/rayjobs"
        assert self.headers["Authorization"] == "Bearer secret"
        if body["metadata"]["name"] in self.server.jobs:
            self._tell(409, {})
            return
        self.server.jobs[body["metadata"]["name"]] = body
        self._tell(201, body)

    def log_message(self, format: str, *args: Any) -> None:
        """Says nothing."""

    def _tell(self, code: int, body: dict[str, Any]) -> None:
        data = json.dumps(body).encode()
        self.send_response(code)
        self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        self.wfile.write(data)


@pytest.fixture
def kubernetes() -> Iterator[Kubernetes]:
    with Kubernetes("SUCCEEDED") as server:
        server.jobs["tinyface-retrain"] = copy.deepcopy(of_kind("gpu", "RayJob")["tinyface-retrain"])
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.shutdown()
        thread.join()


def start(kubernetes: Kubernetes, folder: Path, name: str = NAME) -> subprocess.CompletedProcess[str]:
    """As the CronJob's pod does."""
    (folder / "token").write_text("secret")
    own = {"TEMPLATE": "tinyface-retrain", "NAMESPACE": "tinyface", "JOB_NAME": name, "JOB_UID": "1-2-3"}
    where = {"KUBERNETES_API": kubernetes.url, "SERVICE_ACCOUNT": str(folder), "PAUSE_S": "0.01"}
    return subprocess.run(
        [sys.executable, "-I", START], env=os.environ | own | where, capture_output=True, text=True, timeout=60
    )


def test_a_tick_makes_one_ray_job_of_the_template_and_waits_for_it(kubernetes: Kubernetes, tmp_path: Path) -> None:
    run = start(kubernetes, tmp_path)
    assert (run.returncode, run.stderr) == (0, "")
    assert run.stdout.splitlines()[-1] == f"{NAME}: SUCCEEDED so it is"
    made, template = kubernetes.jobs[NAME], kubernetes.jobs["tinyface-retrain"]
    assert made["spec"]["entrypoint"].endswith("--tick 2025-11-24T16:00Z")
    assert made["metadata"]["ownerReferences"] == [
        {"apiVersion": "batch/v1", "kind": "Job", "name": NAME, "uid": "1-2-3"}
    ]
    assert made["metadata"]["labels"] == {"tinyface/part": "retrain"}
    assert made["spec"] == template["spec"] | {"suspend": False, "entrypoint": made["spec"]["entrypoint"]}
    assert refused(made, by_crds=False) == []


def test_a_second_pod_of_a_tick_makes_nothing_and_waits_on(kubernetes: Kubernetes, tmp_path: Path) -> None:
    assert start(kubernetes, tmp_path).returncode == 0
    before = copy.deepcopy(kubernetes.jobs)
    kubernetes.looks = 0
    run = start(kubernetes, tmp_path)
    assert run.returncode == 0
    assert "is there already" in run.stdout
    assert kubernetes.jobs == before


def test_another_tick_makes_another_ray_job(kubernetes: Kubernetes, tmp_path: Path) -> None:
    assert start(kubernetes, tmp_path).returncode == 0
    assert start(kubernetes, tmp_path, f"tinyface-retrain-{TICK + 10_080}").returncode == 0
    assert kubernetes.jobs[f"tinyface-retrain-{TICK + 10_080}"]["spec"]["entrypoint"].endswith("2025-12-01T16:00Z")


def test_a_failed_training_fails_its_job_for_good(kubernetes: Kubernetes, tmp_path: Path) -> None:
    """The exit code that the CronJob's podFailurePolicy names."""
    kubernetes.ends = "FAILED"
    (cron,) = of_kind("gpu", "CronJob").values()
    rules = cron["spec"]["jobTemplate"]["spec"]["podFailurePolicy"]["rules"]
    assert start(kubernetes, tmp_path).returncode in rules[0]["onExitCodes"]["values"]


def test_an_api_that_is_away_for_a_while_is_waited_for(kubernetes: Kubernetes, tmp_path: Path) -> None:
    post = Handler.do_POST

    def away_after_the_post(handler: Handler) -> None:
        post(handler)
        kubernetes.failures = 5

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Handler, "do_POST", away_after_the_post)
        assert start(kubernetes, tmp_path).returncode == 0


def test_a_template_that_is_not_there_is_no_success(kubernetes: Kubernetes, tmp_path: Path) -> None:
    del kubernetes.jobs["tinyface-retrain"]
    assert start(kubernetes, tmp_path).returncode == 1
