"""From 1 to 64 detectors on a cluster of several raylets: does the job's rate grow with them?

    python benchmarks/actors.py [--actors 1 4 16 64] [--sleep 2] [--seconds 150] [--kilobytes 400] [--json FILE]

A detector sleeps a fixed time a picture (benchmarks/sleeping, which stands in for tinyface_core/detect/guarded.py), so
that a machine of few cores can hold many; everything else is the job: listing, plan, Ray Data's chain, readers,
decoding children, collecting, commits to disk. It joins a Ray of a head without CPUs and NODES raylets, all on this
machine, which claim a CPU for each detector. The pictures are those of the demo, small, again and again in tars; each
file is filled up with remarks to the size of a photograph's, as it is bytes that make the blocks that go to a detector.

Detectors begin together, when all have started. The rate is that between the commits of the first and the last tenth of
the units; `efficiency` is its share of actors / sleep, `slept` the share of that time in which the detectors slept, by
their own notes: what is between the two is how evenly commits come. `duty` is what run.json tells, of the whole run
with its start. CPUs are what processes used in that time (`others`: not of the job); where all together come near to
what the machine has, it is the machine that limits. Prints a Markdown table.
"""

from __future__ import annotations

import io
import json
import os
import subprocess
import sys
import tarfile
import tempfile
import threading
import time
from collections import defaultdict
from contextlib import suppress
from dataclasses import asdict, dataclass, field
from itertools import cycle, islice
from pathlib import Path
from typing import Annotated

import numpy as np
import psutil
import pyarrow.parquet as pq
from cyclopts import App, Parameter
from figures import finish
from PIL import Image
from soak_watch import SIGNS

ROOT = Path(__file__).resolve().parents[1]
DEMO = ROOT / "demo" / "archive"
SLEEPING = ROOT / "benchmarks" / "sleeping"
NODES = 8
STORE_BYTES = 300 << 20  # of each node's objects
DETECTOR_BYTES = 3 << 30  # that a node claims for each detector: the job asks for 2.5 GB
TAR_PICTURES = 8  # a tar is a unit: many commits; of three blocks
LONGEST_REMARK = 65533
LOOK_EVERY_S = 3.0
CPU_KINDS = ("driver", "readers", "detectors", "decoders", "Ray", "others")
app = App(help=__doc__)


@dataclass(frozen=True)
class Run:
    """One run of the job. cpus: by kind of process, of one CPU each."""

    actors: int
    sleep_s: float
    pictures: int
    seconds: float
    slept: float
    duty: float
    start_s: float
    cpus: dict[str, float]

    @property
    def rate(self) -> float:
        return self.pictures / self.seconds

    @property
    def efficiency(self) -> float:
        return self.rate * self.sleep_s / self.actors


def small_jpegs(side: int, kilobytes: int) -> list[bytes]:
    """The demo's photographs at up to `side` px, filled up with remarks to about so many kB."""
    made = []
    for path in sorted(path for path in DEMO.rglob("*.jpg") if path.parent.name != "broken"):
        with Image.open(path) as picture:
            small = picture.convert("RGB")
        small.thumbnail((side, side))
        buffer = io.BytesIO()
        small.save(buffer, "JPEG", quality=90)
        data, left = buffer.getvalue(), kilobytes * 1000 - buffer.tell()
        remarks = [min(LONGEST_REMARK, left - done) for done in range(0, left, LONGEST_REMARK)]
        filled = b"".join(b"\xff\xfe" + (size + 2).to_bytes(2, "big") + bytes(size) for size in remarks)
        made.append(data[:2] + filled + data[2:])
    return made


def make_archive(folder: Path, datas: list[bytes], tars: int) -> None:
    """So many tars; after a round of the pictures they are links to those before."""
    folder.mkdir()
    again = cycle(datas)
    for number in range(tars):
        place = folder / f"{number:05}.tar"
        if number >= len(datas):
            place.hardlink_to(folder / f"{number % len(datas):05}.tar")
            continue
        with tarfile.open(place, "w") as tar:
            for index, data in enumerate(islice(again, TAR_PICTURES)):
                member = tarfile.TarInfo(f"{index:03}.jpg")
                member.size = len(data)
                tar.addfile(member, io.BytesIO(data))


class Raylets:
    """A Ray of a head without CPUs and NODES raylets on this machine, whose workers have detectors that sleep."""

    def __init__(self, work: Path, cpus: int) -> None:
        os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        os.environ |= {"PYTHONPATH": f"{SLEEPING}:{ROOT}", "SLEEPING_FOLDER": str(work)}
        # Many processes start on few cores, and share one memory; a minute is what docs/decisions.md tells clusters.
        os.environ |= {"RAY_worker_register_timeout_seconds": "600", "ARROW_DEFAULT_MEMORY_POOL": "system"}
        os.environ |= {"RAY_idle_worker_killing_time_threshold_ms": "60000"}
        from ray.cluster_utils import Cluster  # behind the variables, which it reads once

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": STORE_BYTES}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        for _ in range(NODES):
            self._cluster.add_node(num_cpus=cpus, memory=cpus * DETECTOR_BYTES, object_store_memory=STORE_BYTES)
        self.address = self._cluster.address

    def close(self) -> None:
        self._cluster.shutdown()


@dataclass
class CpuWatch:
    """CPU time by kind of process, of this program's children, looked at every few seconds."""

    driver: psutil.Process
    _looks: list[tuple[float, dict[str, float]]] = field(default_factory=list)
    _seen: dict[psutil.Process, tuple[str, float]] = field(default_factory=dict)
    _ended: threading.Event = field(default_factory=threading.Event)

    def __enter__(self) -> CpuWatch:
        self._thread = threading.Thread(target=self._watch, daemon=True)
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_EVERY_S):
            for process in psutil.Process().children(recursive=True):
                with suppress(psutil.Error):
                    times = process.cpu_times()
                    self._seen[process] = (self._kind_of(process), times.user + times.system)
            used = defaultdict[str, float](float)
            for kind, seconds in self._seen.values():  # of those too that have ended
                used[kind] += seconds
            busy = psutil.cpu_times()
            used[CPU_KINDS[-1]] = busy.user + busy.nice + busy.system + busy.softirq - sum(used.values())
            self._looks.append((time.time(), used))

    def _kind_of(self, process: psutil.Process) -> str:
        title = " ".join(process.cmdline())
        for sign, kind in SIGNS.items():
            if sign in title:
                return kind
        if process == self.driver:
            return "driver"
        return self._seen.get(process, ("Ray", 0.0))[0]  # an idle reader is one still

    def cpus(self, begin: float, end: float) -> dict[str, float]:
        """Used between these times, of one CPU each."""
        at = [when for when, _ in self._looks]
        lines = {kind: [used[kind] for _, used in self._looks] for kind in CPU_KINDS}
        return {
            kind: float(np.diff(np.interp((begin, end), at, line))[0]) / (end - begin) for kind, line in lines.items()
        }


def slept_share(notes: Path, begin: float, end: float) -> float:
    """Share of the detectors' time between these times in which they slept."""
    shares = []
    for path in notes.iterdir():
        times_N2 = np.fromfile(path).reshape(-1, 2).clip(begin, end)
        shares.append(np.diff(times_N2).sum() / (end - begin))
    return float(np.mean(shares))


def run_job(work: Path, address: str, actors: int, sleep_s: float, tars: int, datas: list[bytes]) -> Run:
    """The job on so many tars, with so many detectors."""
    place = work / str(actors)
    (place / "notes").mkdir(parents=True)
    make_archive(place / "in", datas, tars)
    orders = {"actors": actors, "sleep_s": sleep_s, "notes": str(place / "notes")}
    (work / "orders.json").write_text(json.dumps(orders))
    command = [sys.executable, "jobs/detect_archive.py", "--input", str(place / "in"), "--output", str(place / "out")]
    command += ["--model", "hr-mobilenetv2", "--actors", str(actors), "--no-report", "--ray-address", address]
    began, log = time.time(), place / "driver.log"
    with log.open("wb") as file:
        process = subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=file)
        try:
            with CpuWatch(psutil.Process(process.pid)) as watch:
                code = process.wait()
        finally:
            process.kill()
    if code:
        raise SystemExit(f"the job ended with {code}: {log.read_text()[-2000:]}")
    facts = json.loads((place / "out" / "run.json").read_text())
    if facts["output"]["ok"] != tars * TAR_PICTURES:
        raise SystemExit(f"{facts['output']} of {tars * TAR_PICTURES} pictures: {log.read_text()[-2000:]}")
    commits = sorted((path.stat().st_mtime, path) for path in (place / "out" / "images").glob("part-*.parquet"))
    first, last = len(commits) // 10, len(commits) - 1 - len(commits) // 10
    done = sum(pq.read_metadata(path).num_rows for _, path in commits[first + 1 : last + 1])
    begin, end = commits[first][0], commits[last][0]
    slept = slept_share(place / "notes", begin, end)
    start_s = commits[0][0] - began
    return Run(actors, sleep_s, done, end - begin, slept, facts["duty"], start_s, watch.cpus(begin, end))


def tell(run: Run) -> None:
    figures = f"{run.pictures:,} | {run.seconds:.0f} | {run.rate:.2f} | {run.efficiency:.3f} | {run.slept:.3f}"
    used = " | ".join(f"{run.cpus[kind]:.2f}" for kind in CPU_KINDS)
    print(f"| {run.actors} | {figures} | {run.duty:.3f} | {run.start_s:.0f} | {used} |")


@app.default
def main(
    *,
    actors: Annotated[tuple[int, ...], Parameter(consume_multiple=True)] = (1, 4, 16, 64),
    sleep: float = 2.0,
    seconds: float = 150,
    side: int = 320,
    kilobytes: int = 400,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """seconds: that each run would take without a loss. side: of the pictures, in px. kilobytes: of their files."""
    runs = []
    with tempfile.TemporaryDirectory(prefix="actors-") as name:
        datas = small_jpegs(side, kilobytes)
        raylets = Raylets(Path(name), -(-max(actors) // NODES))
        try:
            print(f"{sleep:g} s a picture of {kilobytes} kB; {NODES} raylets on {os.cpu_count()} cores\n")
            measured = "pictures | seconds | pictures/s | efficiency | slept | duty | first commit after, s"
            print(f"| actors | {measured} | {' | '.join(f'CPUs: {kind}' for kind in CPU_KINDS)} |")
            print("|" + "---:|" * (8 + len(CPU_KINDS)), flush=True)
            for count in actors:
                tars = max(1, round(count * seconds / sleep / TAR_PICTURES))
                runs.append(run_job(Path(name), raylets.address, count, sleep, tars, datas))
                tell(runs[-1])
                sys.stdout.flush()
        finally:
            raylets.close()
    found = [asdict(run) | {"rate": run.rate, "efficiency": run.efficiency} for run in runs]
    finish({"sleep_s": sleep, "kilobytes": kilobytes, "runs": found}, json_file)


if __name__ == "__main__":
    app()
