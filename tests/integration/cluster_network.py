"""Who may talk to whom under a set of NetworkPolicies: the rules that the manifests use, and no others."""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

OURS = "tinyface"


@dataclass(frozen=True)
class Peer:
    """A pod by its labels and namespace, or, with an address, something outside."""

    labels: Mapping[str, str] = field(default_factory=dict)
    namespace: str = OURS
    address: str = ""


def selects(selector: Mapping[str, Any] | None, labels: Mapping[str, str]) -> bool:
    """Whether a label selector takes these labels; an empty one takes all."""
    selector = selector or {}
    assert set(selector) <= {"matchLabels", "matchExpressions"}
    expressions = selector.get("matchExpressions", ())
    assert all(expression["operator"] == "In" for expression in expressions)
    return all(labels.get(key) == value for key, value in selector.get("matchLabels", {}).items()) and all(
        labels.get(expression["key"]) in expression["values"] for expression in expressions
    )


def may_talk(policies: list[dict[str, Any]], source: Peer, target: Peer, port: int, protocol: str = "TCP") -> bool:
    """Whether both ends let a connection through."""
    return _open(policies, "Egress", source, target, port, protocol) and _open(
        policies, "Ingress", target, source, port, protocol
    )


def _open(policies: list[dict[str, Any]], way: str, pod: Peer, other: Peer, port: int, protocol: str) -> bool:
    """Whether a pod of ours lets it through in this direction; one that no policy selects lets all through."""
    if pod.namespace != OURS or pod.address:
        return True
    ruling = [
        policy["spec"] for policy in policies
        if way in policy["spec"]["policyTypes"] and selects(policy["spec"]["podSelector"], pod.labels)
    ]  # fmt: skip
    rules = [rule for spec in ruling for rule in spec.get(way.lower(), ())]
    ends = {"Egress": "to", "Ingress": "from"}[way]
    return not ruling or any(
        any(_is(end, other) for end in rule[ends])
        and ("ports" not in rule or {"protocol": protocol, "port": port} in rule["ports"])
        for rule in rules
    )


def _is(end: Mapping[str, Any], peer: Peer) -> bool:
    if "ipBlock" in end:
        if not peer.address:
            return False
        address, block = ipaddress.ip_address(peer.address), end["ipBlock"]
        inside = address in ipaddress.ip_network(block["cidr"])
        return inside and not any(address in ipaddress.ip_network(cidr) for cidr in block.get("except", ()))
    if peer.address:
        return False
    if "namespaceSelector" in end:
        there = {"kubernetes.io/metadata.name": peer.namespace}
        return selects(end["namespaceSelector"], there) and selects(end.get("podSelector"), peer.labels)
    return peer.namespace == OURS and selects(end["podSelector"], peer.labels)
