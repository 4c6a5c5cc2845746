"""A real S3 server (SeaweedFS, one process) for tests: started on free ports, ended by SIGKILL, its folder deleted.

Every SeaweedFS port P also takes P + 10000 for gRPC. SIGTERM takes it 26 s, and nothing is lost by SIGKILL.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path
from types import TracebackType
from typing import Any

import boto3
from botocore.config import Config
from botocore.exceptions import BotoCoreError, ClientError

ACCESS_KEY, SECRET_KEY = "tinyface-test", "not-a-secret"
START_S = 90.0  # 3 s on an idle machine, up to 27 s on a loaded one


class S3Server:
    """`with S3Server(folder) as server:` gives a server that has taken a PUT.

    endpoint: url. environment(): the AWS_* variables of a client. restart() keeps the objects. state(): for a report.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: subprocess.Popen[bytes] | None = None
        self.port = 0

    @property
    def endpoint(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def environment(self) -> dict[str, str]:
        return {
            "AWS_ENDPOINT_URL": self.endpoint,
            "AWS_ACCESS_KEY_ID": ACCESS_KEY,
            "AWS_SECRET_ACCESS_KEY": SECRET_KEY,
            "AWS_REGION": "us-east-1",
            "AWS_EC2_METADATA_DISABLED": "true",
        }

    def client(self) -> Any:
        """A boto3 client that gives up at once."""
        return boto3.client(
            "s3",
            endpoint_url=self.endpoint,
            aws_access_key_id=ACCESS_KEY,
            aws_secret_access_key=SECRET_KEY,
            region_name="us-east-1",
            config=Config(retries={"total_max_attempts": 1}, connect_timeout=2, read_timeout=10),
        )

    def new_bucket(self) -> str:
        """A bucket of its own for each test."""
        bucket = f"test-{uuid.uuid4().hex[:12]}"
        self.client().create_bucket(Bucket=bucket)
        return bucket

    def __enter__(self) -> S3Server:
        self._folder.mkdir(parents=True, exist_ok=True)
        for _ in range(3):  # a port may be taken between choosing and listening
            self._start(_free_ports(4))
            if self._ready():
                return self
            self.kill()
        log = (self._folder / "weed.log").read_text(errors="replace")[-3000:]
        raise RuntimeError(f"SeaweedFS took no PUT within {START_S:.0f} s, three times; its log ends:\n{log}")

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self.kill()
        shutil.rmtree(self._folder, ignore_errors=True)

    def state(self) -> str:
        """Whether the process lives, whether its port takes a connection, and the end of its log."""
        code = "not started" if self._process is None else self._process.poll()
        try:
            socket.create_connection(("127.0.0.1", self.port), timeout=5).close()
            port = "takes connections"
        except OSError as error:
            port = str(error)
        log = "\n".join(path.read_text(errors="replace")[-3000:] for path in self._folder.glob("*.log"))
        return f"process: {'lives' if code is None else code}; port {self.port}: {port}; its log ends:\n{log}"

    def kill(self) -> None:
        """SIGKILL; the objects stay on disk."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.wait()
            self._process = None

    def restart(self) -> None:
        """Start again on the same port and folder after `kill`."""
        self._start([*_free_ports(3), self.port])
        if not self._ready():
            raise RuntimeError("SeaweedFS did not come back on its folder")

    def _start(self, ports: list[int]) -> None:
        master, volume, filer, self.port = ports
        config = self._folder / "s3.json"
        identity = {
            "name": "t",
            "credentials": [{"accessKey": ACCESS_KEY, "secretKey": SECRET_KEY}],
            "actions": ["Admin", "Read", "Write", "List", "Tagging"],
        }
        config.write_text(json.dumps({"identities": [identity]}))
        data = self._folder / "data"
        data.mkdir(exist_ok=True)
        weed = Path(sys.executable).parent / "weed"
        options = {
            "dir": data, "ip": "127.0.0.1", "ip.bind": "127.0.0.1", "master.telemetry": "false",
            "master.port": master, "master.volumeSizeLimitMB": 64, "volume.port": volume, "volume.max": 0,
            "filer.port": filer, "s3.port": self.port, "s3.port.iceberg": 0, "s3.port.lance": 0, "s3.config": config,
        }  # fmt: skip
        command = [str(weed), "server", *(f"-{key}={value}" for key, value in options.items()), "-filer", "-s3"]
        few = os.environ | {"WEED_MASTER_VOLUME_GROWTH_COPY_1": "1"}  # by itself 7 a bucket, with open files each
        with open(self._folder / "weed.log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder, env=few)

    def _ready(self) -> bool:
        """Whether a PUT into a bucket of ours succeeds before the time is up; an open port says nothing."""
        client, bucket, deadline = self.client(), "ready-check", time.monotonic() + START_S
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                if bucket not in [entry["Name"] for entry in client.list_buckets()["Buckets"]]:
                    client.create_bucket(Bucket=bucket)
                client.put_object(Bucket=bucket, Key="ready", Body=b"yes")
                return True
            except (BotoCoreError, ClientError):
                time.sleep(0.2)
        return False


def _free_ports(count: int) -> list[int]:
    """Ports that are free together with their gRPC twin; below 45000, as the twin must be below 55000."""
    found: list[int] = []
    while len(found) < count:
        port = random.SystemRandom().randrange(10_000, 45_000)
        if all(_is_free(one) and one not in found for one in (port, port + 10_000)):
            found.append(port)
    return found


def _is_free(port: int) -> bool:
    with socket.socket() as probe:
        try:
            probe.bind(("127.0.0.1", port))
        except OSError:
            return False
    return True
