"""moto, an S3 server in memory that others wrote, for a second opinion beside SeaweedFS.

It checks no signature, MD5 or CRC, and forgets everything when it ends: what is about those is not for it.
"""

from __future__ import annotations

import socket
import subprocess
import sys
import time
from pathlib import Path

from botocore.exceptions import BotoCoreError, ClientError

from tests.integration.s3_server import S3Server

START_S = 90.0  # 3 s on an idle machine


class MotoServer(S3Server):
    """`with MotoServer(folder) as server:`, used as an S3Server is; `restart` would be an empty store."""

    def __enter__(self) -> MotoServer:
        self._folder.mkdir(parents=True, exist_ok=True)
        for _ in range(3):  # a port may be taken between choosing and listening
            self._start_moto()
            if self._answers():
                return self
            self.kill()
        log = (self._folder / "moto.log").read_text(errors="replace")[-3000:]
        raise RuntimeError(f"moto took no request within {START_S:.0f} s, three times; its log ends:\n{log}")

    def restart(self) -> None:
        raise NotImplementedError("moto keeps all in memory")

    def _start_moto(self) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        command = [str(Path(sys.executable).parent / "moto_server"), "-H", "127.0.0.1", "-p", str(self.port)]
        with open(self._folder / "moto.log", "ab") as log:
            self._process = subprocess.Popen(command, stdout=log, stderr=log, cwd=self._folder)

    def _answers(self) -> bool:
        deadline = time.monotonic() + START_S
        while time.monotonic() < deadline and self._process is not None and self._process.poll() is None:
            try:
                self.client().list_buckets()
                return True
            except (BotoCoreError, ClientError):
                time.sleep(0.2)
        return False
