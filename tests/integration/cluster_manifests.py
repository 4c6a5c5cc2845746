"""The manifests of an overlay as Kubernetes would get them, and the pods that would come of them."""

from __future__ import annotations

import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

import yaml

from tests.integration.job_runs import ROOT
from tests.integration.kube_schemas import pod_templates

CLUSTER = ROOT / "cluster"
OVERLAYS = sorted(path.name for path in (CLUSTER / "overlays").iterdir())
UNITS = {"": 1.0, "m": 1e-3, "Ki": 2.0**10, "Mi": 2.0**20, "Gi": 2.0**30}


def tool(name: str) -> str:
    """A program that came with the test extra."""
    found = shutil.which(name, path=Path(sys.executable).parent)
    assert found, f"{name} is missing beside Python: make setup"
    return found


def rendered(overlay: str) -> tuple[dict[str, Any], ...]:
    """The objects of an overlay."""
    return rendered_at(CLUSTER / "overlays" / overlay)


@cache
def rendered_at(folder: Path) -> tuple[dict[str, Any], ...]:
    """The objects that `kubectl apply -k` would send. Read-only: shared by all tests."""
    command = [tool("kubectl"), "kustomize", str(folder)]
    run = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert (run.returncode, run.stderr) == (0, "")
    return tuple(yaml.safe_load_all(run.stdout))


def of_kind(overlay: str, *kinds: str) -> dict[str, dict[str, Any]]:
    """Name -> object."""
    return {each["metadata"]["name"]: each for each in rendered(overlay) if each["kind"] in kinds}


@dataclass(frozen=True)
class Pod:
    """A pod that an object asks for, with the labels that KubeRay adds."""

    owner: dict[str, Any]
    path: str
    spec: dict[str, Any]
    labels: dict[str, str]

    def __str__(self) -> str:
        return f"{self.owner['kind']} {self.owner['metadata']['name']} {self.path}"

    @property
    def part(self) -> str:
        return str(self.owner["metadata"]["labels"]["tinyface/part"])

    @property
    def node_type(self) -> str | None:
        """head, worker, or None for what is no node of Ray."""
        return self.labels.get("ray.io/node-type")


def pods(overlay: str) -> list[Pod]:
    found = []
    for owner in rendered(overlay):
        for path, template in pod_templates(owner):
            added = {}
            if "headGroupSpec" in path:
                added = {"ray.io/node-type": "head"}
            elif "workerGroupSpecs" in path:
                added = {"ray.io/node-type": "worker"}
            found.append(Pod(owner, path, template["spec"], template["metadata"]["labels"] | added))
    assert found
    return found


def ray_specs(overlay: str) -> dict[str, dict[str, Any]]:
    """Kind and name -> the spec of each Ray cluster that may come of an overlay."""
    specs = {f"RayCluster {name}": each["spec"] for name, each in of_kind(overlay, "RayCluster").items()}
    return specs | {name: spec["rayClusterSpec"] for name, spec in ray_job_specs(overlay).items()}


def ray_job_specs(overlay: str) -> dict[str, dict[str, Any]]:
    """Kind and name -> the spec of each RayJob that may come of an overlay."""
    specs = {f"RayJob {name}": each["spec"] for name, each in of_kind(overlay, "RayJob").items()}
    cron = of_kind(overlay, "RayCronJob")
    return specs | {f"RayCronJob {name}": each["spec"]["jobTemplate"] for name, each in cron.items()}


def amount(text: str | int) -> float:
    """What a quantity of Kubernetes is."""
    number, unit = re.fullmatch(r"([\d.]+)(\w*)", str(text)).groups()  # type: ignore[union-attr]
    return float(number) * UNITS[unit]
