"""cluster/observability, judged by the tools of those who read it: promtool, kubectl, Grafana's own types."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
import yaml

from tests.integration.cluster_manifests import OVERLAYS, of_kind, pods, rendered_at
from tests.integration.cluster_network import selects
from tests.integration.kube_schemas import differing, refused_by_kubernetes
from tests.unit.test_observability import HERE, QUERIES

pytestmark = pytest.mark.integration

PROMTOOL = os.environ.get("PROMTOOL") or shutil.which(
    "promtool", path=f"{Path(sys.executable).parent}:{os.environ['PATH']}"
)
needs_promtool = pytest.mark.skipif(PROMTOOL is None, reason="promtool is not at hand: make promtool (from Debian)")

# What these manifests use of the kinds of Prometheus' operator (v1) -> what a value is, as in kube_schemas.
POD_MONITOR = {
    "selector": {"matchLabels": {"*": str}},
    "podTargetLabels": [str],
    "podMetricsEndpoints": [{"port": str, "interval": str, "honorLabels": bool}],
}
PROMETHEUS_RULE = {
    "groups": [
        {
            "name": str,
            "rules": [{"alert": str, "expr": str, "for": str, "labels": {"*": str}, "annotations": {"*": str}}],
        }
    ]
}


def promtool(*arguments: str, folder: Path = HERE) -> None:
    assert PROMTOOL is not None
    run = subprocess.run([PROMTOOL, *arguments], cwd=folder, capture_output=True, text=True, timeout=60, check=False)
    assert run.returncode == 0, run.stdout + run.stderr


def of_kind_here(kind: str) -> dict[str, Any]:
    (found,) = [each for each in rendered_at(HERE) if each["kind"] == kind]
    return found


@needs_promtool
def test_promtool_takes_the_rules_or_is_skipped_where_there_is_none() -> None:
    promtool("check", "rules", "rules.yaml")


@needs_promtool
def test_the_alerts_fire_when_they_should_and_only_then_or_skipped_without_promtool() -> None:
    promtool("test", "rules", "rules_test.yaml")


@needs_promtool
def test_promtool_takes_the_configuration_or_is_skipped_where_there_is_none() -> None:
    promtool("check", "config", "prometheus.yml")


@needs_promtool
def test_promtool_takes_every_query_of_the_dashboard_or_is_skipped_where_there_is_none(tmp_path: Path) -> None:
    """Each as a recording rule."""
    records = [{"record": f"query:{place}", "expr": query} for place, query in enumerate(QUERIES.values())]
    (tmp_path / "queries.yaml").write_text(yaml.safe_dump({"groups": [{"name": "queries", "rules": records}]}))
    promtool("check", "rules", "queries.yaml", folder=tmp_path)


@needs_promtool
def test_promtool_finds_a_rule_that_is_wrong_or_is_skipped_where_there_is_none(tmp_path: Path) -> None:
    text = (HERE / "rules.yaml").read_text().replace("increase(ray_tinyface_errors_total[30m])", "increase(x)")
    (tmp_path / "rules.yaml").write_text(text)
    with pytest.raises(AssertionError, match="expected type range vector"):
        promtool("check", "rules", "rules.yaml", folder=tmp_path)


def test_the_operator_gets_the_same_rules() -> None:
    rule = of_kind_here("PrometheusRule")
    assert rule["spec"] == yaml.safe_load((HERE / "rules.yaml").read_text())
    assert list(differing(rule["spec"], PROMETHEUS_RULE, "spec")) == []


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_the_monitor_finds_every_node_of_ray_and_its_port(overlay: str) -> None:
    """KubeRay gives a Ray container that names no port `metrics` one of its own, 8080; one that does must agree."""
    monitor = of_kind_here("PodMonitor")
    assert list(differing(monitor["spec"], POD_MONITOR, "spec")) == []
    found = [pod for pod in pods(overlay) if selects(monitor["spec"]["selector"], pod.labels)]
    assert {pod.node_type for pod in found} == {"head", "worker"}
    assert len(found) == len([pod for pod in pods(overlay) if pod.node_type])
    (endpoint,) = monitor["spec"]["podMetricsEndpoints"]
    for pod in found:
        ports = {port["name"]: port["containerPort"] for port in pod.spec["containers"][0].get("ports", ())}
        assert ports.get(endpoint["port"], 8080) == 8080, str(pod)
    (policy,) = [each for name, each in of_kind(overlay, "NetworkPolicy").items() if name == "metrics"]
    assert policy["spec"]["ingress"][0]["ports"] == [{"protocol": "TCP", "port": 8080}]
    assert all(selects(policy["spec"]["podSelector"], pod.labels) for pod in found)


def test_the_dashboard_is_in_a_config_map_that_grafanas_sidecar_takes() -> None:
    config = of_kind_here("ConfigMap")
    assert config["metadata"]["labels"]["grafana_dashboard"] == "1"
    assert json.loads(config["data"]["dashboard.json"]) == json.loads((HERE / "dashboard.json").read_text())
    assert refused_by_kubernetes(config) == []
    assert {each["metadata"]["namespace"] for each in rendered_at(HERE)} == {"tinyface"}
