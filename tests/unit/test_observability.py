"""cluster/observability: files that are made are up to date, and ask for nothing that nobody tells."""

from __future__ import annotations

import importlib.util
import json
import re
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from types import ModuleType
from typing import Any

import promql_parser
import pytest
import ray
import yaml
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.cog.plugins import register_default_plugins
from grafana_foundation_sdk.models.dashboard import Dashboard

from ray_metrics import METRICS
from tests.layout.source import ROOT

HERE = ROOT / "cluster" / "observability"
RAYS_PANELS = Path(ray.__file__).parent / "dashboard" / "modules" / "metrics" / "dashboards"
# Labels that Ray or Prometheus adds to each series of ours.
ADDED = {"SessionName", "WorkerId", "instance", "le"}
OF_OTHERS = ADDED | {"State", "Source", "Location", "Name", "operator", "GpuIndex"}


@cache
def renderer() -> ModuleType:
    sys.path.insert(0, str(HERE))
    try:
        spec = importlib.util.spec_from_file_location("render", HERE / "render.py")
        assert spec is not None
        assert spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        return module
    finally:
        sys.path.remove(str(HERE))


def rules() -> list[dict[str, Any]]:
    (group,) = yaml.safe_load((HERE / "rules.yaml").read_text())["groups"]
    return list(group["rules"])


def panels() -> list[dict[str, Any]]:
    dashboard = json.loads((HERE / "dashboard.json").read_text())
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def plain(query: str) -> str:
    """A query of Grafana's with its variables filled in."""
    return query.replace("$__rate_interval", "5m").replace("$session", ".*")


def queries() -> Iterator[tuple[str, str]]:
    """(where it stands, PromQL)."""
    for rule in rules():
        yield rule["alert"], rule["expr"]
    for panel in panels():
        for target in panel["targets"]:
            yield f"panel {panel['title']} {target['refId']}", plain(target["expr"])


QUERIES = dict(queries())
SELECTOR = re.compile(r"\b(ray_\w+)(?:\{([^}]*)\})?")
MATCHER = re.compile(r'(\w+)\s*(=~|!~|!=|=)\s*"([^"]*)"')
GROUPING = re.compile(r"\b(?:by|on)\s*\(([^)]*)\)")


@pytest.mark.parametrize("path", ["dashboard.json", "prometheus_rule.yaml"])
def test_what_is_made_is_up_to_date(path: str) -> None:
    """Else: make observability."""
    assert renderer().rendered()[HERE / path] == (HERE / path).read_text()


@pytest.mark.parametrize("where", QUERIES)
def test_every_query_is_promql(where: str) -> None:
    promql_parser.parse(QUERIES[where])


@pytest.mark.parametrize("query", ["sum(rate(x[5m])", "sum by (x y) (z)", "rate(x)[5m]"])
def test_what_is_no_promql_is_found(query: str) -> None:
    with pytest.raises(ValueError):
        promql_parser.parse(query)


@pytest.mark.parametrize("where", QUERIES)
def test_every_metric_that_is_asked_for_exists_with_these_labels(where: str) -> None:
    rays = "".join(path.read_text() for path in RAYS_PANELS.glob("*_panels.py"))
    query, known = QUERIES[where], set[str]()
    found = SELECTOR.findall(query)
    assert found
    for name, matchers in found:
        if not name.startswith("ray_tinyface_"):
            assert re.search(rf"\b{name}\b", rays), f"{name}: Ray's own dashboards do not know it"
            known |= OF_OTHERS
            continue
        metric = METRICS[name_in_table(name)]
        known |= set(metric.labels) | ADDED
        for label, _, value in MATCHER.findall(matchers):
            values = metric.labels.get(label)
            assert values is not None or label in ADDED, f"{name} has no label {label}"
            assert not values or set(value.split("|")) <= set(values), f"{name}: {label} is never {value}"
    grouped = {label.strip() for labels in GROUPING.findall(query) for label in labels.split(",")}
    assert grouped <= known


def name_in_table(exported: str) -> str:
    """The name in METRICS of what Ray exports; counters and gauges as they are, histograms in parts."""
    name = exported.removeprefix("ray_")
    whole = re.sub(r"_(bucket|count|sum)$", "", name)
    assert name in METRICS or (whole in METRICS and METRICS[whole].kind == "histogram"), f"{exported} is not in METRICS"
    return name if name in METRICS else whole


def test_the_dashboard_shows_every_metric_of_ours() -> None:
    asked = {name_in_table(name) for panel in panels() for target in panel["targets"]
             for name, _ in SELECTOR.findall(target["expr"]) if "tinyface" in name}  # fmt: skip
    assert set(METRICS) - asked == set()


def lost(given: Any, taken: Any, path: str = "") -> list[str]:
    """Where `taken` does not hold what was given; it may hold more."""
    if isinstance(given, dict) and isinstance(taken, dict):
        return [text for key in given for text in lost(given[key], taken.get(key), f"{path}.{key}")]
    if isinstance(given, list) and isinstance(taken, list) and len(given) == len(taken):
        return [
            text
            for place, pair in enumerate(zip(given, taken, strict=True))
            for text in lost(*pair, f"{path}[{place}]")
        ]
    return [] if given == taken else [f"{path}: {given!r} became {taken!r}"]


def test_grafanas_own_types_hold_all_of_the_dashboard() -> None:
    """Those of Grafana 11.6, the newest that are a package: a key that they do not know is lost."""
    register_default_plugins()
    given = json.loads((HERE / "dashboard.json").read_text())
    assert lost(given, json.loads(JSONEncoder().encode(Dashboard.from_json(given)))) == []
    given["panels"][1]["fieldConfig"]["defaults"]["custom"] = {"drawStile": "line"}
    given["templating"]["list"][0]["querry"] = "x"
    found = lost(given, json.loads(JSONEncoder().encode(Dashboard.from_json(given))))
    assert ".templating.list[0].querry: 'x' became None" in found


def test_panels_have_ids_of_their_own_and_lie_side_by_side() -> None:
    dashboard = json.loads((HERE / "dashboard.json").read_text())
    places = [panel["gridPos"] for panel in dashboard["panels"]]
    cells = [(x, y) for place in places for x in range(place["x"], place["x"] + place["w"])
             for y in range(place["y"], place["y"] + place["h"])]  # fmt: skip
    assert len(cells) == len(set(cells))
    assert max(x for x, _ in cells) < 24
    ids = [panel["id"] for panel in dashboard["panels"]]
    assert len(ids) == len(set(ids))


@pytest.mark.parametrize("panel", panels(), ids=lambda panel: panel["title"])
def test_every_panel_says_what_it_is_there_to_tell(panel: dict[str, Any]) -> None:
    assert panel["description"].endswith(".")
    assert panel["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    assert all('SessionName=~"$session"' in target["expr"] for target in panel["targets"])


@pytest.mark.parametrize("rule", rules(), ids=lambda rule: rule["alert"])
def test_every_alert_is_explained_and_tested(rule: dict[str, Any]) -> None:
    alert = rule["alert"]
    assert rule["labels"]["severity"] in {"warning", "critical"}
    assert rule["annotations"]["runbook"] == f"docs/observing.md#{alert.lower()}"
    assert f"### {alert}\n" in (ROOT / "docs" / "observing.md").read_text()
    tests = yaml.safe_load((HERE / "rules_test.yaml").read_text())["tests"]
    cases = [case for test in tests for case in test["alert_rule_test"] if case["alertname"] == alert]
    assert any("exp_alerts" in case for case in cases)


def test_the_papers_table_is_the_codes() -> None:
    """Names, kinds and labels."""
    found: dict[str, tuple[str, set[str]]] = {}
    for line in (ROOT / "docs" / "observing.md").read_text().splitlines():
        cells = [cell.strip() for cell in line.split("|")]
        for name in re.findall(r"`(tinyface_\w+)`", cells[1]) if len(cells) > 4 else ():
            found[name] = cells[2], set(re.findall(r"`(\w+)`", cells[3]))
    assert found == {name: (metric.kind, set(metric.labels)) for name, metric in METRICS.items()}
