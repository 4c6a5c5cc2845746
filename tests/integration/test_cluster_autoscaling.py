"""The node types of ray_config.yaml on a cloud that is made of processes: the pool grows and shrinks with a run.

Ray's own autoscaler with its fake provider, as ray.cluster_utils.AutoscalingCluster starts them; not that class itself,
as it ends every Ray of the machine first (`ray stop --force`) and needs a file that Ray 2.60's wheel lacks. Its nodes
share this machine: each type has as many nodes and CPUs less as that asks for.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml
from ray._raylet import GcsClient
from ray.autoscaler._private.fake_multi_node.node_provider import FAKE_HEAD_NODE_TYPE
from ray.autoscaler._private.util import prepare_config, validate_config

from tests.integration.job_pictures import deadly
from tests.integration.job_runs import ROOT, Job, Tables
from tests.integration.ray_head import FAULTS, RayHead

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

SLOW = (250, 1, 5)  # a picture that takes a detector 0.2 s (tests/faults)
PATIENCE_S = 120.0  # for an idle node to be ended; 10 s on an idle machine
STORE_BYTES = 80 << 20


def on_this_machine(address: str) -> dict[str, Any]:
    """ray_config.yaml as Ray prepares it, for the fake provider: the same node types, at most two nodes of a CPU each.

    Nothing is installed on its nodes, which are this machine; an idle one is ended after 3 s.
    """
    config: dict[str, Any] = prepare_config(yaml.safe_load((ROOT / "ray_config.yaml").read_text()))
    types = config["available_node_types"]
    head = types.pop(config["head_node_type"])
    for kind in types.values():
        kind["resources"] = {name: min(1, count) for name, count in kind["resources"].items()}
        kind["resources"]["object_store_memory"] = STORE_BYTES
        kind["max_workers"] = min(2, kind["max_workers"])
    types[FAKE_HEAD_NODE_TYPE] = head | {"max_workers": 0}
    for kind in types.values():
        kind["node_config"] = {}
        kind.pop("docker", None)
    config |= {
        "head_node_type": FAKE_HEAD_NODE_TYPE, "idle_timeout_minutes": 0.05,
        "docker": {}, "file_mounts": {}, "setup_commands": [], "worker_setup_commands": [],
        "provider": {
            "type": "fake_multinode", "gcs_address": address,
            "use_node_id_as_ip": True,  # all nodes have one address
            "disable_node_updaters": True, "disable_launch_config_check": True,
        },
    }  # fmt: skip
    validate_config(config)
    return config


class Nodes:
    """The workers of a head, as its own table of nodes has them."""

    def __init__(self, head: RayHead) -> None:
        self._client = GcsClient(address=head.address)

    def alive(self) -> Mapping[str, int]:
        """Node type -> how many there are now; the head is left out."""
        found = self._client.get_all_node_info(timeout=30).values()
        return Counter(node.node_type_name for node in found if node.state == 0 and not node.is_head_node)

    def wait_until(self, true: Callable[[], bool], what: str) -> None:
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert time.monotonic() < deadline, f"never {what}; workers are {self.alive()}"
            time.sleep(0.1)


@pytest.fixture(scope="module")
def head() -> Iterator[RayHead]:
    """A head that works no pictures, with no workers, and an autoscaler that looks every second."""
    variables = {"RAY_FAKE_CLUSTER": "1", "AUTOSCALER_UPDATE_INTERVAL_S": "1", "PYTHONPATH": str(FAULTS)}
    with RayHead(cpus=0, variables=variables, autoscaling=on_this_machine) as head:
        yield head


@pytest.mark.parametrize(
    ("options", "pictures", "pool"),
    [
        (["--actors", "2"], 60, {"cpu_worker": 2}),  # enough that the second node still finds work
        # The fake provider gives Ray a GPU to count, and torch none: the detector computes on the CPU beside it.
        (["--actors", "1", "--gpus-per-actor", "1"], 8, {"gpu_worker": 1}),
    ],
    ids=["cpu", "gpu"],
)
def test_the_pool_grows_and_shrinks_with_a_run(
    head: RayHead, model: Path, tmp_path: Path, options: list[str], pictures: int, pool: dict[str, int]
) -> None:
    """From no worker to those that the detectors ask for, and to none again; every picture is a row."""
    nodes = Nodes(head)
    assert nodes.alive() == {}
    (tmp_path / "in").mkdir()
    for number in range(pictures):
        (tmp_path / "in" / f"{number}.png").write_bytes(deadly(SLOW))
    where = ["--input", "in", "--output", "out", "--model", str(model), "--no-report"]
    how = ["--zooms", "0.5", "--device", "cpu", "--unit-pictures", "4", *options]
    run = Job(tmp_path / "log", head.environment, *where, *how, cwd=tmp_path)
    try:
        run.wait_until(lambda: nodes.alive() == pool, f"grown to {pool}")
    finally:
        ended = run.wait()
    ended.expect(0)
    assert Tables(tmp_path / "out").validated().query("SELECT count(*) FROM IMAGES") == [(pictures,)]
    nodes.wait_until(lambda: nodes.alive() == {}, "shrunk to nothing")
