"""What a node of Ray tells Prometheus, asked over HTTP."""

from __future__ import annotations

import time
import urllib.request
from collections.abc import Callable, Mapping
from dataclasses import dataclass

from prometheus_client.parser import text_string_to_metric_families

PATIENCE_S = 60.0


@dataclass(frozen=True)
class Sample:
    """One line. name: with `_bucket`, `_count`, `_sum` behind those of a histogram."""

    name: str
    labels: Mapping[str, str]
    value: float


def scraped(url: str) -> list[Sample]:
    with urllib.request.urlopen(url, timeout=30) as answer:
        text = answer.read().decode()
    return [
        Sample(sample.name, sample.labels, sample.value)
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    ]


def total(samples: list[Sample], name: str, **labels: str) -> float:
    """The sum over all series of this name that have these labels."""
    return sum(
        each.value
        for each in samples
        if each.name == name and all(each.labels.get(label) == value for label, value in labels.items())
    )


def when(url: str, true: Callable[[list[Sample]], bool], what: str) -> list[Sample]:
    """The first answer of which it is true: processes tell the node's agent each second or so."""
    deadline = time.monotonic() + PATIENCE_S
    while not true(samples := scraped(url)):
        ours = "\n".join(f"{each.name} {dict(each.labels)} {each.value}" for each in samples if "tinyface" in each.name)
        assert time.monotonic() < deadline, f"never {what}:\n{ours}"
        time.sleep(0.2)
    return samples
