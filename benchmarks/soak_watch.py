"""Looks at a job and all that it started: memory by kind of process, the object store, pictures committed.

Linux only. Knows no statistics and no archive.
"""

from __future__ import annotations

import os
import re
import time
from collections import Counter, defaultdict
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pyarrow.parquet as pq

SIGNS = {"picture.child": "decoders", "DetectFaces": "detectors", "read_units": "readers"}
STORE_FIGURES = ("pinned objects size", "num local plasma objects")
KINDS = ("driver", "readers", "detectors", "decoders", "raylet", "GCS", "Ray's others")


@dataclass(frozen=True)
class Sample:
    """One look. own_mb: what a kind of process allocated, all of the kind together; processes: how many they are;
    started: how many there have been.

    files, threads: of the driver. used_mb, held_mb, objects: of the object store.
    """

    seconds: float
    pictures: int
    own_mb: dict[str, float]
    processes: dict[str, int]
    started: dict[str, int]
    files: int
    threads: int
    used_mb: float
    held_mb: float
    objects: int

    def figure(self, name: str) -> float:
        if name in KINDS:
            return self.own_mb.get(name, 0.0)
        figures = {"all processes": sum(self.own_mb.values()), "driver's files": self.files}
        figures |= {"object store, used": self.used_mb, "object store, held": self.held_mb}
        return (figures | {"driver's threads": self.threads, "objects": self.objects})[name]


@dataclass
class Watch:
    """A driver, and what it started. output: of the job; ray: the folder of its Ray."""

    driver: psutil.Process
    output: Path
    ray: Path
    _began: float = field(default_factory=time.monotonic)
    _kinds: dict[psutil.Process, str] = field(default_factory=dict)
    _rows: dict[Path, int] = field(default_factory=dict)

    def look(self) -> Sample | None:
        """None where something ended meanwhile, or Ray is not up yet."""
        own, processes = defaultdict[str, float](float), defaultdict[str, int](int)
        try:
            for process in [self.driver, *self.driver.children(recursive=True)]:
                kind = self._kinds[process] = self._kind_of(process)
                own[kind] += own_mb(process.pid)
                processes[kind] += 1
            raylet = next(process for process, kind in self._kinds.items() if kind == "raylet")
            seconds, pictures = time.monotonic() - self._began, self._committed()
            driver = (self.driver.num_fds(), self.driver.num_threads())
            used, objects = self._in_store()
            started = Counter(self._kinds.values())
            return Sample(
                seconds, pictures, dict(own), dict(processes), dict(started), *driver, used, held_mb(raylet), objects
            )
        except (psutil.Error, OSError, StopIteration, ValueError):
            return None

    def _kind_of(self, process: psutil.Process) -> str:
        title = " ".join(process.cmdline())
        for sign, kind in SIGNS.items():
            if sign in title:
                return kind
        if process == self.driver:
            return "driver"
        if title.startswith("ray::IDLE"):  # a reader without work, or what will be an actor and calls itself so
            return self._kinds.get(process, "readers")
        return {"raylet": "raylet", "gcs_server": "GCS"}.get(Path(title.split(" ", 1)[0]).name, "Ray's others")

    def _committed(self) -> int:
        """Pictures, by the records of units."""
        for path in (self.output / "images").glob("part-*.parquet"):
            if path not in self._rows:
                self._rows[path] = pq.read_metadata(path).num_rows
        return sum(self._rows.values())

    def _in_store(self) -> tuple[float, int]:
        """MB in use and objects, as the raylet wrote it down in the last ten seconds.

        Not asked over the network: Ray's client ends the process that it is in when its server goes.
        """
        (state,) = self.ray.glob("session_2*/logs/debug_state.txt")
        pinned, objects = (re.search(rf"^- {name}: (\d+)", state.read_text(), re.M) for name in STORE_FIGURES)
        if pinned is None or objects is None:
            raise FileNotFoundError(f"{state} has no figures of the object store")
        return int(pinned[1]) / 2**20, int(objects[1])

    def end(self) -> None:
        """Ends the driver, if it still runs, and what it left."""
        with suppress(psutil.Error):
            self.driver.terminate()
            self.driver.wait(20)
        _, left = psutil.wait_procs(self._kinds, 10)
        for process in left:
            with suppress(psutil.Error):
                process.kill()
        psutil.wait_procs(left, 10)


def own_mb(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss_Anon:"):
            return int(line.split()[1]) / 1024
    return 0.0


def held_mb(raylet: psutil.Process) -> float:
    """What the object store's file takes; it has no name any more, so it is found among what the raylet has open."""
    files = {}
    for link in Path(f"/proc/{raylet.pid}/fd").iterdir():
        with suppress(OSError):
            if os.readlink(link).startswith("/dev/shm"):  # noqa: S108  where Ray has it
                files[link.stat().st_ino] = link.stat().st_blocks * 512 / 2**20
    return sum(files.values())
