"""Which process holds a claim: told so that another process, here or elsewhere, can say whether it still lives.

Knows processes of this machine; nothing of stores and claims.
"""

from __future__ import annotations

import os
import socket
from dataclasses import dataclass
from pathlib import Path

import psutil

_START_TOLERANCE_S = 1.5  # the boot time that a start is counted from is told in whole seconds


@dataclass(frozen=True)
class ProcessId:
    """One process, past or present, of any machine.

    host: for people, and one more thing that must agree. boot_id: of the machine since it was last started.
    pid_space: containers on one machine share its boot id, yet count their processes apart. start_s: when the
    process began, in seconds since boot, so that a pid which was given again is not mistaken.
    """

    host: str
    boot_id: str
    pid_space: str
    pid: int
    start_s: float

    @classmethod
    def own(cls) -> ProcessId:
        return cls(socket.gethostname(), _boot_id(), _pid_space(), os.getpid(), _start_s(psutil.Process()))

    def lives(self) -> bool | None:
        """Whether the process is there; None when it cannot be told, as it is of another machine or container."""
        if (self.host, self.boot_id, self.pid_space) != (socket.gethostname(), _boot_id(), _pid_space()):
            return None
        try:
            process = psutil.Process(self.pid)
            if process.status() == psutil.STATUS_ZOMBIE:  # killed, and not yet collected by its parent
                return False
            return abs(_start_s(process) - self.start_s) < _START_TOLERANCE_S
        except psutil.NoSuchProcess:
            return False

    def __str__(self) -> str:
        return f"host {self.host}, pid {self.pid}"


def _start_s(process: psutil.Process) -> float:
    return process.create_time() - psutil.boot_time()  # the wall clock, which may be set anew, cancels out


def _boot_id() -> str:
    file = Path("/proc/sys/kernel/random/boot_id")
    return file.read_text().strip() if file.exists() else str(int(psutil.boot_time()))


def _pid_space() -> str:
    try:
        return os.readlink("/proc/self/ns/pid")
    except OSError:
        return ""
