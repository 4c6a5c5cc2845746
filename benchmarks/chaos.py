"""Is anything lost or doubled when runs are killed again and again?

    python benchmarks/chaos.py --kills 200 [--seed 0] [--json FILE]

A small archive (the demo's photographs, small: loose, in a tar, a zip and Parquet, and broken files) is worked on a Ray
of several raylets. Each driver is given one kill: at a number of committed units that is drawn at random, it takes the
driver with all its children, a worker of Ray, or a node; or the driver between the two files of a commit. The same
command is run until it ends by itself; then the output must hold each picture once, with the faces of an unbroken run.
A reader asks the tables all the time: what it sees must never be double. --json takes each kill down as it is done, and
a second call with the same file goes on behind it. Exits 1 where anything was wrong.
"""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Annotated

import duckdb
import psutil
from cyclopts import App, Parameter
from small_archive import make_archive

ROOT = Path(__file__).resolve().parents[1]
FAULTS = ROOT / "tests" / "faults"
UNIT = 8  # pictures
PATIENCE_S = 600.0  # of one driver
KINDS = ("driver", "between the two files", "worker", "node")
app = App(help=__doc__)

Picture = tuple[str, str | None, str, int]  # uri, member, status, number of faces


@dataclass(frozen=True)
class Kill:
    """One kill and what came of it. at: units committed, of those that were open when its driver started."""

    number: int
    kind: str
    at: int
    open: int
    seconds: float
    wrong: tuple[str, ...] = ()


class Output:
    """The tables of one output, over plain globs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def committed(self) -> int:
        return len(list((self.folder / "images").glob("part-*.parquet")))

    def query(self, sql: str) -> list[tuple[object, ...]]:
        images, detections = (f"'{self.folder}/{table}/**/*.parquet'" for table in ("images", "detections"))
        with duckdb.connect() as connection:
            return connection.execute(sql.replace("IMAGES", images).replace("DETECTIONS", detections)).fetchall()

    def double(self) -> list[str]:
        """What a reader must never see, at any moment, whatever else is going on."""
        rows = self.query("SELECT image_id FROM IMAGES GROUP BY 1 HAVING count(*) > 1")
        faces = self.query(
            "SELECT image_id FROM (SELECT image_id, commit, num_faces FROM IMAGES) i "
            "JOIN (SELECT image_id, commit FROM DETECTIONS) d USING (image_id, commit) "
            "GROUP BY image_id, num_faces HAVING count(*) > num_faces"
        )
        return [f"{len(found)} {what} are double" for what, found in (("pictures", rows), ("faces", faces)) if found]

    def pictures(self) -> Counter[Picture]:
        joined = self.query(
            "SELECT uri, member, coalesce(error_class, status), count(d.image_id) FROM IMAGES i "
            "LEFT JOIN DETECTIONS d USING (image_id) GROUP BY i.image_id, uri, member, error_class, status"
        )
        return Counter(
            (str(uri), member and str(member), str(status), int(str(n))) for uri, member, status, n in joined
        )


@dataclass
class Reader:
    """Asks for what is double, over and over, from a thread. repeated: queries that a redo broke, and were repeated."""

    output: Output
    queries: int = 0
    repeated: int = 0
    wrong: set[str] = field(default_factory=set)

    @contextmanager
    def reading(self) -> Iterator[None]:
        ended = threading.Event()

        def read() -> None:
            while not ended.wait(0.3):
                if not self.output.committed():
                    continue
                try:
                    self.wrong |= {f"a reader: {what}" for what in self.output.double()}
                    self.queries += 1
                except duckdb.Error:
                    self.repeated += 1

        thread = threading.Thread(target=read)
        thread.start()
        try:
            yield
        finally:
            ended.set()
            thread.join()


class Raylets:
    """A Ray of a head and two further raylets on this machine; nodes that are killed are replaced."""

    def __init__(self) -> None:
        os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        from ray.cluster_utils import Cluster  # behind the variables, which it reads once

        head = {"num_cpus": 1, "include_dashboard": False, "object_store_memory": 150 << 20}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._new(), self._new()]
        self.address = self._cluster.address

    def _new(self) -> object:
        return self._cluster.add_node(num_cpus=1, object_store_memory=150 << 20)

    def kill_node(self, rng: random.Random) -> None:
        node = self._nodes.pop(rng.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._new())

    def kill_worker(self, rng: random.Random) -> bool:
        """One process that reads or detects; False where there is none at the moment."""
        workers = []
        for process in psutil.process_iter(["cmdline"]):
            title = " ".join(process.info["cmdline"] or ())
            if title.startswith("ray::") and ("Map" in title or "Detect" in title):
                workers.append(process)
        if not workers:
            return False
        with suppress(psutil.NoSuchProcess):
            rng.choice(sorted(workers, key=lambda process: process.pid)).send_signal(signal.SIGKILL)
        return True

    def close(self) -> None:
        self._cluster.shutdown()


@dataclass(frozen=True)
class Driver:
    """The command that is run again and again."""

    work: Path
    address: str

    def start(self, output: Path, **environment: str) -> subprocess.Popen[bytes]:
        command = [sys.executable, "jobs/detect_archive.py", "--input", str(self.work / "in"), "--output", str(output)]
        command += ["--model", "hr-mobilenetv2", "--zooms", "1", "--unit-pictures", str(UNIT), "--no-report"]
        variables = os.environ | {"RAY_ADDRESS": self.address, "PYTHONPATH": str(FAULTS)} | environment
        with (self.work / "driver.log").open("ab") as log:
            return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=log, stderr=log, start_new_session=True)


def one_kill(number: int, seed: int, units: int, output: Output, driver: Driver, raylets: Raylets) -> tuple[Kill, bool]:
    """Runs the command once, with one kill; whether it ended by itself."""
    rng = random.Random(f"{seed} {number}")  # noqa: S311
    before, began = output.committed(), time.monotonic()
    kind, at = rng.choice(KINDS), rng.randrange(max(1, units - before))
    # The faults count files as they are written: the unit behind the `at`-th loses its second file.
    deadly = {"TINYFACE_TEST_KILL": f"detections:{at + 1}"} if kind == "between the two files" else {}
    process = driver.start(output.folder, **deadly)
    while process.poll() is None and output.committed() < before + at and time.monotonic() < began + PATIENCE_S:
        time.sleep(0.01)
    killed = process.poll() is None
    if killed and kind == "driver":
        os.killpg(process.pid, signal.SIGKILL)
    elif killed and kind == "node":
        raylets.kill_node(rng)
    while killed and kind == "worker" and not raylets.kill_worker(rng) and process.poll() is None:
        time.sleep(0.05)
    wrong = []
    try:
        code = process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        wrong.append(f"the driver did not end within {PATIENCE_S:.0f} s")
    if code not in (0, -signal.SIGKILL):
        wrong.append(f"the driver ended with {code}")
    if output.committed():
        wrong += output.double()
    return Kill(number, kind, at, units - before, round(time.monotonic() - began, 1), tuple(wrong)), code == 0


def check_finished(output: Output, wanted: Counter[Picture]) -> list[str]:
    """What is wrong with an output whose last driver ended by itself."""
    found = output.pictures()
    wrong = [f"lost: {picture}" for picture in (wanted - found).elements()]
    wrong += [f"not in the unbroken run: {picture}" for picture in (found - wanted).elements()]
    validator = [sys.executable, "jobs/validate.py", str(output.folder)]
    report = subprocess.run(validator, cwd=ROOT, capture_output=True, text=True, check=False)
    return wrong if report.returncode == 0 else [*wrong, report.stdout]


@app.default
def main(
    kills: int = 20,
    seed: int = 0,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Kills, checks, and prints a table."""
    done = [json.loads(line) for line in json_file.read_text().splitlines()] if json_file and json_file.exists() else []
    work = Path(tempfile.mkdtemp(prefix="chaos-"))
    make_archive(work / "in")
    raylets = Raylets()
    try:
        driver = Driver(work, raylets.address)
        whole = Output(work / "whole")
        if driver.start(whole.folder).wait(PATIENCE_S):
            raise SystemExit(f"the unbroken run failed: {(work / 'driver.log').read_text()[-2000:]}")
        wanted, units = whole.pictures(), whole.committed()
        reader = Reader(whole)
        while len(done) < kills:
            reader.output = Output(work / f"{len(done)}")
            ended = False
            with reader.reading():
                while not ended:
                    kill, ended = one_kill(len(done), seed, units, reader.output, driver, raylets)
                    wrong = [*kill.wrong, *reader.wrong, *(check_finished(reader.output, wanted) if ended else ())]
                    done.append(asdict(kill) | {"wrong": wrong})
                    print(
                        f"{len(done)}: {kill.kind} at {kill.at} of {kill.open}, {kill.seconds} s {wrong or ''}",
                        flush=True,
                    )
                    reader.wrong.clear()
                    if json_file:
                        with json_file.open("a") as file:
                            file.write(json.dumps(done[-1]) + "\n")
            shutil.rmtree(reader.output.folder)
    finally:
        raylets.close()
        shutil.rmtree(work)
    show(done, reader)
    return int(any(kill["wrong"] for kill in done))


def show(done: list[dict[str, object]], reader: Reader) -> None:
    """Prints what was killed, how often, and what was wrong, as Markdown."""
    print("\n| killed | times | driver ran, s | wrong |\n|---|---:|---:|---:|")
    for kind in KINDS:
        of_kind = [kill for kill in done if kill["kind"] == kind]
        seconds = sum(float(str(kill["seconds"])) for kill in of_kind)
        print(f"| {kind} | {len(of_kind)} | {seconds:.0f} | {sum(bool(kill['wrong']) for kill in of_kind)} |")
    print(f"\n{reader.queries} queries on the way, {reader.repeated} more broke and were repeated.")


if __name__ == "__main__":
    sys.exit(app())
