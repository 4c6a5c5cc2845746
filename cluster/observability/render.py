"""Writes dashboard.json from panels.py, and prometheus_rule.yaml from rules.yaml. `make observability` runs it.

A test holds both files against this.
"""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import yaml
from panels import ROWS, Panel

HERE = Path(__file__).resolve().parent
SOURCE = {"type": "prometheus", "uid": "${datasource}"}
CHOSEN = 'SessionName=~"$session"'
HEIGHTS = {"stat": 4, "table": 7, "timeseries": 7}
SCHEMA = 41  # Grafana 12; older ones take it too, as it uses nothing that is new


def dashboard() -> dict[str, Any]:
    """Grafana's JSON of the whole dashboard."""
    return {
        "uid": "tinyface",
        "title": "tinyface",
        "description": "Runs of tinyface on Ray. docs/observing.md says what each number means.",
        "tags": ["ray", "tinyface"],
        "schemaVersion": SCHEMA,
        "version": 1,
        "editable": True,
        "graphTooltip": 1,
        "timezone": "browser",
        "time": {"from": "now-3h", "to": "now"},
        "refresh": "30s",
        "templating": {"list": [_datasource(), _sessions()]},
        "annotations": {"list": []},
        "links": [],
        "panels": list(_placed()),
    }


def _datasource() -> dict[str, Any]:
    return {"name": "datasource", "label": "Prometheus", "type": "datasource", "query": "prometheus", "hide": 0}


def _sessions() -> dict[str, Any]:
    query = "label_values(ray_node_mem_total_host, SessionName)"
    return {
        "name": "session",
        "label": "Ray session",
        "type": "query",
        "datasource": SOURCE,
        "query": {"query": query, "refId": "sessions"},
        "refresh": 2,
        "sort": 2,
        "multi": True,
        "includeAll": True,
        "allValue": ".*",
        "current": {"text": ["All"], "value": ["$__all"]},
        "hide": 0,
    }


def _placed() -> Iterator[dict[str, Any]]:
    """Rows and panels from left to right, in lines of 24 columns; a line is as high as its highest panel."""
    number, y = 0, 0
    for title, panels in ROWS.items():
        number += 1
        place = {"x": 0, "y": y, "w": 24, "h": 1}
        yield {"id": number, "type": "row", "title": title, "collapsed": False, "gridPos": place, "panels": []}
        x, y, height = 0, y + 1, 0
        for panel in panels:
            if x + panel.width > 24:
                x, y, height = 0, y + height, 0
            number += 1
            place = {"x": x, "y": y, "w": panel.width, "h": HEIGHTS[panel.kind]}
            yield {"id": number, "gridPos": place, **_panel(panel)}
            x, height = x + panel.width, max(height, HEIGHTS[panel.kind])
        y += height


def _panel(panel: Panel) -> dict[str, Any]:
    bounds = {} if panel.most is None else {"max": panel.most}
    defaults: dict[str, Any] = {"unit": panel.unit, "min": 0, **bounds, "color": {"mode": "palette-classic"}}
    options: dict[str, Any] = {}
    if panel.kind == "timeseries":
        stacking = {"mode": "normal" if panel.stacked else "none", "group": "A"}
        defaults["custom"] = {"drawStyle": "line", "fillOpacity": 20 if panel.stacked else 0, "stacking": stacking}
        legend = {"displayMode": "list", "placement": "bottom", "showLegend": True, "calcs": []}
        options = {"legend": legend, "tooltip": {"mode": "multi", "sort": "desc"}}
    elif panel.kind == "stat":
        options = {"reduceOptions": {"calcs": ["lastNotNull"], "fields": "", "values": False}, "graphMode": "area"}
    return {
        "type": panel.kind,
        "title": panel.title,
        "description": panel.about,
        "datasource": SOURCE,
        "targets": [_target(panel, place) for place in range(len(panel.queries))],
        "fieldConfig": {"defaults": defaults, "overrides": []},
        "options": options,
        **({"transformations": [_columns()]} if panel.kind == "table" else {}),
    }


def _target(panel: Panel, place: int) -> dict[str, Any]:
    query, legend = panel.queries[place]
    as_table = {"instant": True, "range": False, "format": "table"} if panel.kind == "table" else {"range": True}
    return {
        "refId": chr(ord("A") + place),
        "datasource": SOURCE,
        "editorMode": "code",
        "expr": query.replace("@", CHOSEN),
        "legendFormat": legend or "__auto",
        **as_table,
    }


def _columns() -> dict[str, Any]:
    shown = ("command", "run", "model", "precision", "device", "version", "SessionName")
    return {"id": "filterFieldsByName", "options": {"include": {"names": list(shown)}}}


def prometheus_rule() -> str:
    """The alerts as an object of Prometheus' operator."""
    manifest = {
        "apiVersion": "monitoring.coreos.com/v1",
        "kind": "PrometheusRule",
        "metadata": {"name": "tinyface"},
        "spec": yaml.safe_load((HERE / "rules.yaml").read_text()),
    }
    told = "# Made by render.py of rules.yaml, where the comments are: change that, and run `make observability`.\n"
    return told + yaml.dump(manifest, Dumper=_Readable, sort_keys=False, width=120, allow_unicode=True)


class _Readable(yaml.SafeDumper):
    """Text of several lines stays so."""


def _text(dumper: yaml.SafeDumper, value: str) -> yaml.ScalarNode:
    return dumper.represent_scalar("tag:yaml.org,2002:str", value, style="|" if "\n" in value else None)


_Readable.add_representer(str, _text)


def rendered() -> dict[Path, str]:
    """Each file with its content."""
    return {
        HERE / "dashboard.json": json.dumps(dashboard(), indent=2) + "\n",
        HERE / "prometheus_rule.yaml": prometheus_rule(),
    }


if __name__ == "__main__":
    for path, text in rendered().items():
        path.write_text(text)
