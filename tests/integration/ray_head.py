"""A real Ray head for the tests: one process that ends with the test run, on ports that the system chose.

Jobs join it by RAY_ADDRESS, which spares each of them the start. Its workers see the faults of tests/faults.
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Mapping
from contextlib import ExitStack, suppress
from pathlib import Path
from types import TracebackType
from typing import Any

import psutil

FAULTS = Path(__file__).resolve().parents[1] / "faults"
START_S = 120.0  # 5 s on an idle machine
OBJECT_STORE_BYTES = 200 << 20


def ray_environment() -> dict[str, str]:
    """For every process that starts or joins a Ray: no token (RAY.md, 5), no phoning home, one thread a library."""
    own = {key: value for key, value in os.environ.items() if not key.startswith(("RAY_", "PYTEST_", "PYTHONPATH"))}
    threads = dict.fromkeys(("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS"), "1")
    return own | threads | {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0"}


class RayHead:
    """`with RayHead(cpus=2) as head:`; head.environment is what a driver needs to join it.

    python: whose environment drivers and workers run in, first on PATH. variables: more of their environment.
    dashboard: for `ray job submit`, at head.dashboard_url. autoscaling: the launcher's configuration for an address.
    """

    def __init__(
        self,
        cpus: int,
        *,
        python: Path | None = None,
        variables: Mapping[str, str] | None = None,
        dashboard: bool = False,
        autoscaling: Callable[[str], Mapping[str, Any]] | None = None,
    ) -> None:
        self._cpus, self._python, self._dashboard = cpus, python or Path(sys.executable), dashboard
        self._autoscaling = autoscaling
        path = f"{self._python.parent}{os.pathsep}{os.environ['PATH']}"
        self._variables = {"PATH": path, **(variables or {})}
        self._process: subprocess.Popen[bytes] | None = None
        self.folder = Path()
        self.address = self.dashboard_url = self.agent_url = self.metrics_url = ""

    @property
    def environment(self) -> dict[str, str]:
        return ray_environment() | {"RAY_ADDRESS": self.address} | self._variables

    @property
    def data_log(self) -> str:
        """What Ray Data said in all drivers of this head, with the plan of each run."""
        return "".join(
            path.read_text() for path in sorted(self.folder.glob("session_latest/logs/ray-data/ray-data.log*"))
        )

    def jobs(self) -> list[dict[str, Any]]:
        """What the dashboard knows of the submitted jobs."""
        token = self._variables.get("RAY_AUTH_TOKEN")
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        request = urllib.request.Request(f"{self.dashboard_url}/api/jobs/", headers=headers)
        with urllib.request.urlopen(request, timeout=30) as answer:
            return json.loads(answer.read())

    def __enter__(self) -> RayHead:
        # sockets below it have names of at most 107 bytes: pytest's own folder would be too deep
        self.folder = Path(tempfile.mkdtemp(prefix="ray-", dir="/tmp"))
        for _ in range(3):  # a port may be taken between choosing and listening
            self._start()
            if self._ready():
                return self
            self._end()
        log = (self.folder / "start.log").read_text(errors="replace")[-3000:]
        raise RuntimeError(f"no Ray head within {START_S:.0f} s, three times; its log ends:\n{log}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._end()
        shutil.rmtree(self.folder, ignore_errors=True)

    def _start(self) -> None:
        port, metrics, client, dashboard, agent, agent_grpc = _free_ports(6)
        self.address, self.dashboard_url = f"127.0.0.1:{port}", f"http://127.0.0.1:{dashboard}"
        self.agent_url, self.metrics_url = f"http://127.0.0.1:{agent}", f"http://127.0.0.1:{metrics}/metrics"
        options = {
            "port": port, "node-ip-address": "127.0.0.1", "temp-dir": self.folder, "num-cpus": self._cpus,
            "object-store-memory": OBJECT_STORE_BYTES, "include-dashboard": str(self._dashboard).lower(),
            "metrics-export-port": metrics, "ray-client-server-port": client, "dashboard-port": dashboard,
            "dashboard-agent-listen-port": agent, "dashboard-agent-grpc-port": agent_grpc,
        }  # fmt: skip
        if self._autoscaling is not None:
            (self.folder / "autoscaling.json").write_text(json.dumps(self._autoscaling(self.address)))
            options["autoscaling-config"] = self.folder / "autoscaling.json"
        command = [str(self._python), "-m", "ray.scripts.scripts", "start", "--head", "--block"]
        command += [f"--{key}={value}" for key, value in options.items()]
        with open(self.folder / "start.log", "wb") as log:
            self._process = subprocess.Popen(
                command, stdout=log, stderr=log, cwd=self.folder, env=ray_environment() | self._variables,
                preexec_fn=_die_with_parent,
            )  # fmt: skip

    def _ready(self) -> bool:
        """Whether the head is up, and its dashboard answers, before the time is up."""
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            if b"Ray runtime started" in (self.folder / "start.log").read_bytes():
                if not self._dashboard:
                    return True
                with suppress(OSError):
                    self.jobs()
                    return True
            time.sleep(0.2)
        return False

    def _end(self) -> None:
        """Every process of this head, by its id; Ray's own are children of the one that was started."""
        if self._process is None:
            return
        with suppress(psutil.NoSuchProcess):
            for process in [*psutil.Process(self._process.pid).children(recursive=True)]:
                with suppress(psutil.NoSuchProcess):
                    process.send_signal(signal.SIGKILL)
        self._process.kill()
        self._process.wait()
        self._process = None


def _die_with_parent() -> None:
    """A test run that is killed leaves no Ray behind: its processes die with the one that is started here."""
    ctypes.CDLL(None).prctl(1, signal.SIGKILL)  # PR_SET_PDEATHSIG


def _free_ports(count: int) -> list[int]:
    """Ports that nobody listens on now; held all at once, so that they differ."""
    with ExitStack() as stack:
        probes = [stack.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]
