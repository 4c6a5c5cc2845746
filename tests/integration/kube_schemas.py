"""What Kubernetes and KubeRay would refuse of a manifest, without either: strict schemas, unknown keys are named.

Kubernetes' own kinds: the schemas that kubernetes-validate brings. KubeRay's kinds: the CRDs' schemas where they are at
hand (a folder of `ray.io_*.yaml[.gz]` that KUBERAY_CRDS names, else shared/kuberay_crds beside the checkout, as in CI);
they are not ours to carry. Everywhere else: FIELDS, the keys that these manifests use, held against the CRDs by a test,
and every pod template against Kubernetes' own schema.
"""

from __future__ import annotations

import gzip
import os
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import kubernetes_validate
import yaml
from jsonschema import Draft202012Validator

from tests.integration.job_runs import ROOT

KUBERNETES = "1.31"
CRDS_NAMED = bool(os.environ.get("KUBERAY_CRDS"))  # then their tests are never skipped
CRDS = Path(os.environ.get("KUBERAY_CRDS") or ROOT.parent / "shared" / "kuberay_crds")
KINDS = ("RayCluster", "RayJob", "RayCronJob")

# The keys of KubeRay 1.7 that the manifests use -> what a value is: a type, a set of words, or the keys below it.
# "pod": a pod template of Kubernetes; "any": something of Kubernetes that the CRDs check, where they are at hand.
Fields = dict[str, Any]
GROUP: Fields = {"rayStartParams": {"*": str}, "template": "pod"}
RAY_CLUSTER: Fields = {
    "rayVersion": str,
    "authOptions": {"mode": {"token"}},
    "enableInTreeAutoscaling": bool,
    "autoscalerOptions": {
        "version": {"v2"},
        "upscalingMode": {"Default"},
        "idleTimeoutSeconds": int,
        "resources": "any",
        "securityContext": "any",
    },
    "gcsFaultToleranceOptions": {"redisAddress": str, "redisPassword": "any"},
    "headGroupSpec": GROUP | {"serviceType": str},
    "workerGroupSpecs": [
        GROUP | {"groupName": str, "replicas": int, "minReplicas": int, "maxReplicas": int, "idleTimeoutSeconds": int}
    ],
}
RAY_JOB: Fields = {
    "entrypoint": str,
    "submissionMode": str,
    "suspend": bool,
    "shutdownAfterJobFinishes": bool,
    "ttlSecondsAfterFinished": int,
    "activeDeadlineSeconds": int,
    "backoffLimit": int,
    "submitterConfig": {"backoffLimit": int},
    "submitterPodTemplate": "pod",
    "rayClusterSpec": RAY_CLUSTER,
}
FIELDS: dict[str, Fields] = {
    "RayCluster": RAY_CLUSTER,
    "RayJob": RAY_JOB,
    "RayCronJob": {"schedule": str, "timeZone": str, "suspend": bool, "jobTemplate": RAY_JOB},
}


def refused(manifest: dict[str, Any], *, by_crds: bool) -> list[str]:
    """What is wrong with an object, each as `path: why`; by_crds: KubeRay's kinds by their CRDs, else by FIELDS."""
    kind = manifest["kind"]
    if kind not in KINDS:
        return refused_by_kubernetes(manifest)
    if by_crds:
        errors = Draft202012Validator(crd_schema(kind)).iter_errors(manifest)
        return [f"{'.'.join(map(str, error.absolute_path))}: {error.message[:300]}" for error in errors]
    wrong = list(differing(manifest["spec"], FIELDS[kind], "spec"))
    for path, template in pod_templates(manifest):
        wrong += [f"{path}: {why}" for why in refused_by_kubernetes(as_object(template))]
    return wrong


def refused_by_kubernetes(manifest: dict[str, Any]) -> list[str]:
    """By the schemas of Kubernetes' own kinds."""
    try:
        kubernetes_validate.validate(manifest, KUBERNETES, strict=True)
    except kubernetes_validate.ValidationError as error:
        return [str(error)[:400]]
    return []


def as_object(template: dict[str, Any]) -> dict[str, Any]:
    """A pod template as an object of its own, which Kubernetes knows as PodTemplate."""
    return {"apiVersion": "v1", "kind": "PodTemplate", "metadata": {"name": "template"}, "template": template}


def pod_templates(value: Any, path: str = "") -> Iterator[tuple[str, dict[str, Any]]]:
    """Every (path, pod template) below a manifest, of any kind."""
    if isinstance(value, list):
        for index, item in enumerate(value):
            yield from pod_templates(item, f"{path}[{index}]")
    if isinstance(value, dict):
        if isinstance(value.get("spec"), dict) and "containers" in value["spec"]:
            yield path, value
            return
        for key, item in value.items():
            yield from pod_templates(item, f"{path}.{key}".strip("."))


def differing(value: Any, fields: Any, path: str) -> Iterator[str]:
    """Where a value is not as FIELDS has it."""
    if isinstance(fields, str):
        return
    if isinstance(fields, set):
        if value not in fields:
            yield f"{path}: {value!r}, not one of {sorted(fields)}"
    elif isinstance(fields, list):
        for index, item in enumerate(value):
            yield from differing(item, fields[0], f"{path}[{index}]")
    elif isinstance(fields, dict):
        for key, item in value.items():
            if key not in fields and "*" not in fields:
                yield f"{path}: unknown key {key!r}"
            else:
                yield from differing(item, fields.get(key, fields.get("*")), f"{path}.{key}")
    elif type(value) is not fields:
        yield f"{path}: {value!r} is no {fields.__name__}"


@cache
def crd_schema(kind: str) -> dict[str, Any]:
    """The v1 schema of a KubeRay kind, closed: keys that it does not list are refused, as a strict apiserver does."""
    (path,) = CRDS.glob(f"ray.io_{kind.lower()}s.yaml*")  # of a folder that KUBERAY_CRDS misspells there is none
    data = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
    crd = yaml.load(data, yaml.CSafeLoader)
    (version,) = [version for version in crd["spec"]["versions"] if version["name"] == "v1"]
    schema = _closed(version["schema"]["openAPIV3Schema"])
    schema["properties"]["metadata"] = {"type": "object"}
    return schema


def _closed(schema: dict[str, Any]) -> dict[str, Any]:
    closed = {key: value for key, value in schema.items() if key != "format"}
    if schema.get("x-kubernetes-int-or-string"):
        closed.pop("type", None)
        return closed | {"anyOf": [{"type": "integer"}, {"type": "string"}]}
    if "properties" in schema:
        closed["properties"] = {key: _closed(value) for key, value in schema["properties"].items()}
        if not schema.get("x-kubernetes-preserve-unknown-fields"):
            closed["additionalProperties"] = False
    for key in ("items", "additionalProperties"):
        if isinstance(schema.get(key), dict):
            closed[key] = _closed(schema[key])
    return closed


def unlike_the_crd(fields: Any, schema: dict[str, Any], path: str) -> Iterator[str]:
    """Where FIELDS say something that the CRD does not."""
    words = {str: "string", int: "integer", bool: "boolean"}
    if isinstance(fields, dict) and "*" in fields:
        yield from unlike_the_crd(fields["*"], schema["additionalProperties"], f"{path}.*")
    elif isinstance(fields, dict):
        for key, below in fields.items():
            if key not in schema.get("properties", {}):
                yield f"{path}.{key}: not in the CRD"
            else:
                yield from unlike_the_crd(below, schema["properties"][key], f"{path}.{key}")
    elif isinstance(fields, list):
        yield from unlike_the_crd(fields[0], schema["items"], f"{path}[]")
    elif isinstance(fields, set):
        if not fields <= set(schema.get("enum", ())):
            yield f"{path}: {fields} is not within {schema.get('enum')}"
    elif not isinstance(fields, str) and schema.get("type") != words[fields]:
        yield f"{path}: {schema.get('type')}, not {words[fields]}"
