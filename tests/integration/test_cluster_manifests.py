"""The manifests of cluster/: accepted by strict schemas, and true to what they promise. No cluster is needed."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from tests.integration.cluster_manifests import (
    CLUSTER,
    OVERLAYS,
    Pod,
    amount,
    of_kind,
    pods,
    ray_job_specs,
    ray_specs,
    rendered,
)
from tests.integration.cluster_network import OURS, Peer, may_talk, selects
from tests.integration.job_runs import ROOT
from tests.integration.kube_schemas import CRDS, CRDS_NAMED, FIELDS, crd_schema, refused, unlike_the_crd

pytestmark = [pytest.mark.integration, pytest.mark.parametrize("overlay", OVERLAYS)]
needs_crds = pytest.mark.skipif(
    not CRDS_NAMED and not CRDS.is_dir(), reason=f"KubeRay's CRDs are not in {CRDS}: KUBERAY_CRDS names their folder"
)
RAY = dict(line.split("==") for line in (ROOT / "constraints.txt").read_text().splitlines() if "==" in line)["ray"]
GIB = 2.0**30


def containers(pod: Pod) -> list[dict[str, Any]]:
    return [*pod.spec.get("initContainers", ()), *pod.spec["containers"]]


def test_kubernetes_and_the_reduced_schema_of_kuberay_accept_every_object(overlay: str) -> None:
    wrong = {f"{each['kind']} {each['metadata']['name']}": refused(each, by_crds=False) for each in rendered(overlay)}
    assert {name: why for name, why in wrong.items() if why} == {}


@needs_crds
def test_the_crds_of_kuberay_accept_every_object(overlay: str) -> None:
    wrong = {f"{each['kind']} {each['metadata']['name']}": refused(each, by_crds=True) for each in rendered(overlay)}
    assert {name: why for name, why in wrong.items() if why} == {}


@needs_crds
def test_the_reduced_schema_says_nothing_that_the_crds_do_not(overlay: str) -> None:
    kinds = {each["kind"] for each in rendered(overlay)} & set(FIELDS)
    wrong = [
        text for kind in sorted(kinds)
        for text in unlike_the_crd(FIELDS[kind], crd_schema(kind)["properties"]["spec"], kind)
    ]  # fmt: skip
    assert wrong == []


@pytest.mark.parametrize("by_crds", [False, pytest.param(True, marks=needs_crds)], ids=["reduced", "crds"])
@pytest.mark.parametrize(
    ("path", "wrong"),
    [
        (["idleTimeoutSecond"], 3),
        (["workerGroupSpecs", 0, "maxReplica"], 3),
        (["workerGroupSpecs", 0, "maxReplicas"], "3"),
        (["headGroupSpec", "template", "spec", "containers", 0, "volumeMount"], []),
        (["headGroupSpec", "template", "spec", "containers", 0, "ports", 0, "containerPort"], "http"),
        (["authOptions", "mode"], "tokens"),
    ],
    ids=["idle", "group", "type", "container", "port", "mode"],
)
def test_a_misspelt_key_or_a_wrong_value_is_found(overlay: str, path: list[Any], wrong: Any, by_crds: bool) -> None:
    (cluster,) = copy.deepcopy(of_kind(overlay, "RayCluster")).values()
    target = cluster["spec"]
    for key in path[:-1]:
        target = target[key]
    target[path[-1]] = wrong
    assert len(refused(cluster, by_crds=by_crds)) == 1


def test_every_object_names_its_part_and_stands_in_our_namespace(overlay: str) -> None:
    for each in rendered(overlay):
        assert each["metadata"]["labels"]["tinyface/part"] in {"ground", "pool", "detect", "retrain"}
        assert each["kind"] == "Namespace" or each["metadata"]["namespace"] == OURS


def test_what_a_pod_refers_to_is_in_its_part_or_in_the_ground(overlay: str) -> None:
    """So one part can be applied by its label."""
    there = {(each["kind"], each["metadata"]["name"]): each["metadata"]["labels"]["tinyface/part"]
             for each in rendered(overlay)}  # fmt: skip
    for pod in pods(overlay):
        wanted = [("ServiceAccount", pod.spec["serviceAccountName"])]
        for volume in pod.spec.get("volumes", ()):
            if "configMap" in volume and not volume["configMap"].get("optional"):
                wanted.append(("ConfigMap", volume["configMap"]["name"]))
        for name in wanted:
            assert there.get(name) in {"ground", pod.part}, f"{pod}: {name}"


def test_every_selector_finds_a_pod(overlay: str) -> None:
    """A budget or a policy whose labels are misspelt protects nothing, and nobody says so."""
    labels = [pod.labels for pod in pods(overlay)]
    for name, each in of_kind(overlay, "PodDisruptionBudget", "NetworkPolicy").items():
        selector = each["spec"].get("selector", each["spec"].get("podSelector"))
        assert any(selects(selector, those) for those in labels), name
    for name, each in of_kind(overlay, "Service").items():
        assert any(selects({"matchLabels": each["spec"]["selector"]}, those) for those in labels), name


def test_each_head_has_a_disruption_budget_of_its_own(overlay: str) -> None:
    """By a number: Kubernetes takes no share and no maxUnavailable for pods of kinds that it cannot scale."""
    budgets = of_kind(overlay, "PodDisruptionBudget").values()
    for pod in pods(overlay):
        over = [budget for budget in budgets if selects(budget["spec"]["selector"], pod.labels)]
        assert len(over) == (1 if pod.node_type == "head" or pod.labels["tinyface/role"] == "redis" else 0), str(pod)
        assert all(budget["spec"]["minAvailable"] == 1 for budget in over)


def test_images_are_pinned_and_hold_the_ray_that_the_tests_ran_with(overlay: str) -> None:
    for pod in pods(overlay):
        for container in containers(pod):
            name, _, tag = container["image"].rpartition(":")
            assert name, f"{pod}: {container['image']} has no tag"
            assert tag != "latest"
            if "tinyface" in name and overlay != "dev":
                assert f"ray{RAY}-" in tag, str(pod)
                assert tag.endswith("cuda" if "nvidia.com/gpu" in container["resources"]["limits"] else "cpu")
    assert {spec["rayVersion"] for spec in ray_specs(overlay).values()} == {RAY}


def test_no_container_can_become_root(overlay: str) -> None:
    """What the namespace enforces: Kubernetes' `restricted`."""
    contexts = {f"{pod} {container['name']}": (pod.spec.get("securityContext", {}), container["securityContext"])
                for pod in pods(overlay) for container in containers(pod)}  # fmt: skip
    for name, spec in ray_specs(overlay).items():
        contexts[f"{name} autoscaler"] = {}, spec["autoscalerOptions"]["securityContext"]
    for name, (of_pod, own) in contexts.items():
        both = of_pod | own
        assert both["runAsNonRoot"] is True, name
        assert both["allowPrivilegeEscalation"] is False, name
        assert both["capabilities"] == {"drop": ["ALL"]}, name
        assert both["seccompProfile"] == {"type": "RuntimeDefault"}, name
        assert both.get("runAsUser", 1000) > 0, name
    (namespace,) = of_kind(overlay, "Namespace").values()
    assert namespace["metadata"]["labels"]["pod-security.kubernetes.io/enforce"] == "restricted"


def test_every_container_says_what_it_takes_and_memory_is_never_overbooked(overlay: str) -> None:
    found = {f"{pod} {container['name']}": container["resources"]
             for pod in pods(overlay) for container in containers(pod)}  # fmt: skip
    found |= {name: spec["autoscalerOptions"]["resources"] for name, spec in ray_specs(overlay).items()}
    for name, resources in found.items():
        assert {"cpu", "memory"} <= set(resources["requests"]) & set(resources["limits"]), name
        assert resources["requests"]["memory"] == resources["limits"]["memory"], name


def test_ray_is_told_of_no_more_memory_than_its_container_has(overlay: str) -> None:
    """Its heap and its store together; the store lies in /dev/shm, which counts for the container."""
    for name, spec in ray_specs(overlay).items():
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            pod = group["template"]["spec"]
            (shm,) = [volume["emptyDir"] for volume in pod["volumes"] if volume["name"] == "shm"]
            assert {"name": "shm", "mountPath": "/dev/shm"} in pod["containers"][0]["volumeMounts"], name
            store = int(group["rayStartParams"]["object-store-memory"])
            limit = amount(pod["containers"][0]["resources"]["limits"]["memory"])
            assert shm["medium"] == "Memory"
            assert store <= amount(shm["sizeLimit"]), name
            assert int(group["rayStartParams"]["memory"]) + store <= limit - 0.125 * GIB, name


def test_heads_work_no_pictures_and_stay_off_spot_machines(overlay: str) -> None:
    for name, spec in ray_specs(overlay).items():
        assert spec["headGroupSpec"]["rayStartParams"]["num-cpus"] == "0", name
        pod = spec["headGroupSpec"]["template"]["spec"]
        wanted = pod["affinity"]["nodeAffinity"]["requiredDuringSchedulingIgnoredDuringExecution"]
        (term,) = wanted["nodeSelectorTerms"]
        assert {each["operator"] for each in term["matchExpressions"]} == {"NotIn"}, name
        assert "tolerations" not in pod, name


def test_workers_come_from_nothing_prefer_spot_and_leave_within_its_notice(overlay: str) -> None:
    """30 s is the shortest notice of the large clouds."""
    for name, spec in ray_specs(overlay).items():
        avoided = {
            (each["key"], each["values"][0])
            for term in spec["headGroupSpec"]["template"]["spec"]["affinity"]["nodeAffinity"][
                "requiredDuringSchedulingIgnoredDuringExecution"
            ]["nodeSelectorTerms"]
            for each in term["matchExpressions"]
        }
        for group in spec["workerGroupSpecs"]:
            assert group["minReplicas"] == group["replicas"] == 0 < group["maxReplicas"], name
            pod = group["template"]["spec"]
            terms = pod["affinity"]["nodeAffinity"]["preferredDuringSchedulingIgnoredDuringExecution"]
            preferred = {
                (each["key"], each["values"][0]) for term in terms for each in term["preference"]["matchExpressions"]
            }
            assert preferred == avoided, name
            grace = int(pod["containers"][0]["lifecycle"]["preStop"]["exec"]["command"][-1])
            assert grace < pod["terminationGracePeriodSeconds"] < 30, name
            keys = {toleration["key"] for toleration in pod["tolerations"]}
            assert ("nvidia.com/gpu" in keys) == ("nvidia.com/gpu" in pod["containers"][0]["resources"]["limits"])


def test_every_node_of_ray_is_probed_where_no_token_is_asked_for(overlay: str) -> None:
    """The path and the port that tests/integration/test_job_submit.py asks a real head with a token."""
    for pod in pods(overlay):
        if pod.node_type:
            for probe in ("startupProbe", "readinessProbe", "livenessProbe"):
                assert pod.spec["containers"][0][probe]["httpGet"] == {"path": "/api/healthz", "port": 52365}, str(pod)


def test_every_cluster_asks_for_a_token_and_grows_by_itself(overlay: str) -> None:
    for name, spec in ray_specs(overlay).items():
        assert spec["authOptions"]["mode"] == "token", name
        assert spec["enableInTreeAutoscaling"] is True, name
        for group in [spec["headGroupSpec"], *spec["workerGroupSpecs"]]:
            assert "restartPolicy" not in group["template"]["spec"], f"{name}: refused by KubeRay with autoscaler v2"


def test_only_the_pool_that_stays_keeps_what_its_head_knows(overlay: str) -> None:
    (cluster,) = of_kind(overlay, "RayCluster").values()
    assert ("gcsFaultToleranceOptions" in cluster["spec"]) == (overlay != "dev") == bool(of_kind(overlay, "Service"))
    if overlay != "dev":
        (service,) = of_kind(overlay, "Service").values()
        (port,) = service["spec"]["ports"]
        address = f"redis://{service['metadata']['name']}:{port['port']}"
        assert cluster["spec"]["gcsFaultToleranceOptions"]["redisAddress"] == address
    for name, job in ray_job_specs(overlay).items():
        assert "gcsFaultToleranceOptions" not in job["rayClusterSpec"], name


def test_no_secret_and_no_key_is_in_a_file(overlay: str) -> None:
    assert of_kind(overlay, "Secret") == {}
    text = (CLUSTER / "README.md").read_text()
    for pod in pods(overlay):
        for container in containers(pod):
            for variable in container.get("env", ()):
                assert not variable["name"].startswith("AWS_"), str(pod)
                secret = variable.get("valueFrom", {}).get("secretKeyRef")
                assert secret is None or f"generic {secret['name']}" in text, f"{secret}: cluster/README.md makes none"


def test_only_those_who_have_to_may_reach_a_pod(overlay: str) -> None:
    policies = list(of_kind(overlay, "NetworkPolicy").values())
    head = Peer({"tinyface/role": "ray", "tinyface/part": "pool", "ray.io/node-type": "head"})
    worker = Peer({"tinyface/role": "ray", "tinyface/part": "pool", "ray.io/node-type": "worker"})
    submitter, starter = Peer({"tinyface/role": "submitter"}), Peer({"tinyface/role": "starter"})
    redis, stranger = Peer({"tinyface/role": "redis"}), Peer({"app": "other"})
    operator = Peer({"app.kubernetes.io/name": "kuberay-operator"}, "kuberay-system")
    neighbour, prometheus = Peer({"app": "other"}, "default"), Peer({}, "monitoring")
    s3, metadata = Peer(address="52.219.1.1"), Peer(address="169.254.169.254")
    dns = Peer({"k8s-app": "kube-dns"}, "kube-system")
    allowed = [
        (worker, head, 6379), (head, worker, 43210), (worker, worker, 43210),
        (submitter, head, 8265), (operator, head, 8265), (prometheus, worker, 8080),
        (worker, s3, 443), (head, s3, 443), (head, s3, 6443),
    ]  # fmt: skip
    if overlay != "dev":
        allowed.append((head, redis, 6379))
    if overlay != "raycronjob":
        allowed.append((starter, s3, 6443))
    denied = [
        (stranger, head, 8265), (neighbour, head, 8265), (neighbour, head, 6379), (neighbour, worker, 43210),
        (submitter, head, 6379), (submitter, worker, 8265), (submitter, s3, 443), (operator, head, 6379),
        (worker, redis, 6379), (neighbour, redis, 6379), (redis, s3, 443), (starter, head, 8265),
        (worker, metadata, 80), (worker, metadata, 443), (worker, s3, 80), (worker, s3, 6443), (prometheus, head, 8265),
    ]  # fmt: skip
    assert [pair for pair in allowed if not may_talk(policies, *pair)] == []
    assert [pair for pair in denied if may_talk(policies, *pair)] == []
    assert all(may_talk(policies, pod, dns, 53, "UDP") for pod in (head, worker, submitter, starter, redis))


def test_only_who_asks_kubernetes_has_its_token(overlay: str) -> None:
    asking = {str(pod) for pod in pods(overlay) if pod.spec.get("automountServiceAccountToken", True)}
    heads = {str(pod) for pod in pods(overlay) if pod.node_type == "head"}
    starters = {str(pod) for pod in pods(overlay) if pod.labels["tinyface/role"] == "starter"}
    assert asking == heads | starters
