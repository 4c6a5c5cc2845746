"""Runs a job as its users do, `python jobs/detect_archive.py ...`, and looks into what it wrote."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import psutil

from tinyface_core.storage import Storage
from tinyface_core.tables.validate import validate

ROOT = Path(__file__).resolve().parents[2]
PATIENCE_S = 400.0  # of a whole run; 10 s on an idle machine


@dataclass(frozen=True)
class Ended:
    """What a run left behind. code: of the exit, as a shell tells it. out, err: what it said."""

    code: int
    out: str
    err: str
    seconds: float

    def expect(self, code: int) -> Ended:
        """Itself, if it ended so; else the test fails with all that it said."""
        assert self.code == code, f"exit code {self.code}, not {code}\n{self.out}\n{self.err}"
        return self


class Job:
    """One run of the job in a process group of its own, so that a test can end driver and children at once."""

    def __init__(
        self,
        folder: Path,
        environment: Mapping[str, str],
        *options: str,
        cwd: Path = ROOT,
        script: str = "detect_archive.py",
    ) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self._out, self._err = folder / f"{time.monotonic_ns()}.out", folder / f"{time.monotonic_ns()}.err"
        self._began = time.monotonic()
        with self._out.open("wb") as out, self._err.open("wb") as err:
            self.process = subprocess.Popen(
                [sys.executable, str(ROOT / "jobs" / script), *options],
                cwd=cwd, env=dict(environment), stdout=out, stderr=err, start_new_session=True,
            )  # fmt: skip

    def said(self) -> str:
        return self._err.read_text(errors="replace")

    def wait_until(self, true: Callable[[], bool], what: str) -> None:
        """Waits for a condition, not for a time; fails if the run ends before it."""
        deadline = time.monotonic() + PATIENCE_S
        while not true():
            assert self.process.poll() is None, f"ended ({self.process.returncode}) before {what}:\n{self.said()}"
            assert time.monotonic() < deadline, f"never {what}:\n{self.said()}"
            time.sleep(0.02)

    def kill(self) -> Ended:
        """SIGKILL of the driver and all that it started."""
        with suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        return self.wait()

    def signal(self, number: signal.Signals) -> Ended:
        """To the driver alone, as `kill` and Ray send it."""
        self._began = time.monotonic()
        self.process.send_signal(number)
        return self.wait()

    def wait(self) -> Ended:
        try:
            self.process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self.process.pid, signal.SIGKILL)
            raise AssertionError(f"still at work after {PATIENCE_S:.0f} s:\n{self.said()}") from None
        code = self.process.returncode
        seconds = time.monotonic() - self._began
        return Ended(code if code >= 0 else 128 - code, self._out.read_text(), self.said(), seconds)


def maps_of_detectors() -> list[str]:
    """What each detector that runs on this machine has mapped: its libraries among it."""
    maps = []
    for process in psutil.process_iter():
        with suppress(psutil.Error, OSError):
            if " ".join(process.cmdline()).startswith("ray::MapWorker(MapBatches(DetectFaces"):
                maps.append(Path(f"/proc/{process.pid}/maps").read_text())
    return maps


class Tables:
    """An output folder on disk, seen with DuckDB over plain globs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def query(self, sql: str) -> list[tuple[Any, ...]]:
        """sql: IMAGES and DETECTIONS stand for the tables."""
        for name in ("images", "detections"):
            sql = sql.replace(name.upper(), f"'{self.folder}/{name}/**/*.parquet'")
        with duckdb.connect() as connection:
            return connection.execute(sql).fetchall()

    def statuses(self) -> dict[str, str]:
        """What a person calls a picture (uri below the folder's parent, and member) -> `ok`, or its error class."""
        rows = self.query("SELECT uri, member, coalesce(error_class, status) FROM IMAGES")
        names = [uri.removeprefix(f"file://{self.folder.parent}/") + (f"::{member}" if member else "")
                 for uri, member, _ in rows]  # fmt: skip
        assert not [name for name, count in Counter(names).items() if count > 1], "rows are double"
        return dict(zip(names, (status for *_, status in rows), strict=True))

    @property
    def run_facts(self) -> dict[str, Any]:
        return json.loads((self.folder / "run.json").read_text())

    def committed(self) -> list[Path]:
        return sorted((self.folder / "images").glob("part-*.parquet"))

    def whole(self) -> bool:
        """Whether `_SUCCESS` is there, and nothing is newer."""
        success = self.folder / "_SUCCESS"
        files = [path for path in self.folder.rglob("*") if path.is_file()]
        return success in files and all(path.stat().st_mtime_ns <= success.stat().st_mtime_ns for path in files)

    def validated(self) -> Tables:
        """Itself, if jobs/validate.py has nothing to say against it."""
        report = validate(Storage(), f"file://{self.folder}")
        assert report.exit_code == 0, str(report)
        return self


def everything_in(folder: Path) -> dict[str, tuple[int, int]]:
    """Each path below it with size and time: equal before and after means that nothing was written."""
    return {
        str(path.relative_to(folder)): (path.stat().st_size, path.stat().st_mtime_ns)
        for path in sorted(folder.rglob("*"))
    }


def ray_processes_below(pid: int) -> list[str]:
    """Names of Ray's own processes that a driver started."""
    with suppress(psutil.NoSuchProcess):
        return [child.name() for child in psutil.Process(pid).children(recursive=True)
                if child.name() in ("raylet", "gcs_server")]  # fmt: skip
    return []
