"""Is anything lost or doubled when runs are killed again and again?

    python benchmarks/chaos.py --kills 200 [--seed 0] [--json FILE]

A small archive (the demo's photographs, small: loose, in a tar, a zip and Parquet, and broken files) is worked on a Ray
of several raylets. Each driver is given one kill: after some of the commits that are left, drawn at random, it takes
the driver with all its children, a worker of Ray, or a node; or the driver between the two files of a commit. Beside
some of them a rival is started on the same output: it must be refused, or take over where the other was killed. The
same command is run until it ends by itself; then the output must hold each picture once, with the faces of an unbroken
run. Then a third of the pictures and all archives change, and the same goes on with that, with --retry errors.
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
import time
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Annotated

import psutil
from cyclopts import App, Parameter
from small_archive import make_archive
from watched import Output, Picture, Reader

ROOT = Path(__file__).resolve().parents[1]
FAULTS = ROOT / "tests" / "faults"
UNIT = 8  # pictures
PATIENCE_S = 600.0  # of one driver
UP_TO_FIRST_S = 10.0  # from the claim to the first commit, about
BETWEEN = "between the two files"
KINDS = ("driver", BETWEEN, "worker", "node")
RIVALS = 0.15  # of the drivers have one
REFUSED, WON, ALREADY = "refused", "ended with 0", "another driver is at work"
app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


@dataclass(frozen=True)
class Kill:
    """One driver, its kill and what came of it.

    redo: of what changed. at: commits of this driver before the kill. fired: whether it came to that; a driver may end
    before. rival: None without one; `refused`, or how the second driver on the same output ended. worker: what a killed
    worker did: `reader` or `detector`.
    """

    number: int
    kind: str
    redo: bool
    at: int
    fired: bool
    seconds: float
    wrong: tuple[str, ...] = ()
    rival: str | None = None
    worker: str | None = None


class Raylets:
    """A Ray of a head without CPUs and two raylets on this machine; nodes that are killed are replaced."""

    def __init__(self) -> None:
        os.environ |= {"RAY_AUTH_MODE": "disabled", "RAY_USAGE_STATS_ENABLED": "0", "OMP_NUM_THREADS": "1"}
        from ray.cluster_utils import Cluster  # behind the variables, which it reads once

        head = {"num_cpus": 0, "include_dashboard": False, "object_store_memory": 150 << 20}
        self._cluster = Cluster(initialize_head=True, head_node_args=head)
        self._nodes = [self._new(), self._new()]
        self.address = self._cluster.address

    def _new(self) -> object:
        return self._cluster.add_node(num_cpus=1, object_store_memory=150 << 20)

    def kill_node(self, rng: random.Random) -> None:
        node = self._nodes.pop(rng.randrange(len(self._nodes)))
        self._cluster.remove_node(node, allow_graceful=False)
        self._nodes.append(self._new())

    def kill_worker(self, rng: random.Random) -> str | None:
        """One process that reads or detects, and which of these it was; None where there is none at the moment."""
        workers = []
        for process in psutil.Process().children(recursive=True):  # of this Ray, and of no other on the machine
            with suppress(psutil.NoSuchProcess):
                title = " ".join(process.cmdline())
                if title.startswith("ray::") and ("Map" in title or "Detect" in title):
                    workers.append((process.pid, "detector" if "Detect" in title else "reader"))
        if not workers:
            return None
        pid, what = rng.choice(sorted(workers))
        with suppress(ProcessLookupError):
            os.kill(pid, signal.SIGKILL)
        return what

    def close(self) -> None:
        self._cluster.shutdown()


@dataclass(frozen=True)
class Driver:
    """The command that is run again and again."""

    work: Path
    address: str

    def start(
        self, output: Path, *options: str, log: str = "driver.log", **environment: str
    ) -> subprocess.Popen[bytes]:
        command = [sys.executable, "jobs/detect_archive.py", "--input", str(self.work / "in"), "--output", str(output)]
        command += ["--model", "hr-mobilenetv2", "--zooms", "1", "--unit-pictures", str(UNIT), "--no-report"]
        command += options
        variables = os.environ | {"RAY_ADDRESS": self.address, "PYTHONPATH": f"{FAULTS}:{ROOT}"} | environment
        with (self.work / log).open("ab") as file:
            return subprocess.Popen(command, cwd=ROOT, env=variables, stdout=file, stderr=file, start_new_session=True)

    def last_lines(self, log: str = "driver.log") -> str:
        return (self.work / log).read_text(errors="replace")[-2000:]


def one_kill(kill: Kill, rng: random.Random, output: Output, driver: Driver, raylets: Raylets) -> tuple[Kill, bool]:
    """Runs the command once, with this kill; whether it ended by itself."""
    began, now = time.monotonic(), time.time()
    # The faults count files as they are written: the unit behind the `at`-th loses its second file.
    deadly = {"TINYFACE_TEST_KILL": f"detections:{kill.at + 1}"} if kill.kind == BETWEEN else {}
    options = ("--retry", "errors") if kill.redo else ()
    process = driver.start(output.folder, *options, **deadly)
    rival = Rival(driver, output, options) if kill.rival else None

    def waits() -> bool:
        return process.poll() is None and time.monotonic() < began + PATIENCE_S

    while waits() and not (output.claimed(now) and output.committed(now) >= kill.at):
        time.sleep(0.01)
    until = time.monotonic() + (rng.uniform(0, UP_TO_FIRST_S) if kill.at == 0 else 0)
    while waits() and time.monotonic() < until and output.committed(now) == 0:
        time.sleep(0.01)
    fired = process.poll() is None and kill.kind != BETWEEN
    if fired and kill.kind == "driver":
        os.killpg(process.pid, signal.SIGKILL)
    elif fired and kill.kind == "node":
        raylets.kill_node(rng)
    elif fired:
        what = None
        while waits() and not (what := raylets.kill_worker(rng)):
            time.sleep(0.05)
        fired, kill = bool(what), replace(kill, worker=what)
    wrong = []
    try:
        code = process.wait(PATIENCE_S)
    except subprocess.TimeoutExpired:
        os.killpg(process.pid, signal.SIGKILL)
        code = process.wait()
        wrong.append(f"the driver did not end within {PATIENCE_S:.0f} s")
    if code not in (0, -signal.SIGKILL) and not (rival and ALREADY in driver.last_lines()):
        wrong.append(f"the driver ended with {code}: {driver.last_lines()}")
    if rival:
        told = rival.ended(wrong)
        kill, code = replace(kill, rival=told), 0 if told == WON else code
    if output.committed():
        wrong += output.double()
    fired = fired or code == -signal.SIGKILL
    return replace(kill, fired=fired, seconds=round(time.monotonic() - began, 1), wrong=tuple(wrong)), code == 0


class Rival:
    """A second driver on the same output, started a moment later."""

    def __init__(self, driver: Driver, output: Output, options: tuple[str, ...]) -> None:
        self._driver = driver
        (driver.work / "rival.log").unlink(missing_ok=True)
        self._process = driver.start(output.folder, *options, log="rival.log")

    def ended(self, wrong: list[str]) -> str:
        """How; what it should not have done goes to `wrong`."""
        try:
            code = self._process.wait(PATIENCE_S)
        except subprocess.TimeoutExpired:
            os.killpg(self._process.pid, signal.SIGKILL)
            self._process.wait()
            wrong.append(f"the rival did not end within {PATIENCE_S:.0f} s")
            return "stuck"
        said = self._driver.last_lines("rival.log")
        if code == 0:
            return WON
        if code != 1 or ALREADY not in said:
            wrong.append(f"the rival ended with {code}: {said}")
        return REFUSED


def check_finished(output: Output, wanted: Counter[Picture]) -> list[str]:
    """What is wrong with an output whose last driver ended by itself."""
    found = output.pictures()
    wrong = [f"lost: {picture}" for picture in (wanted - found).elements()]
    wrong += [f"not in the unbroken run: {picture}" for picture in (found - wanted).elements()]
    validator = [sys.executable, "jobs/validate.py", str(output.folder)]
    report = subprocess.run(validator, cwd=ROOT, capture_output=True, text=True, check=False)
    return wrong if report.returncode == 0 else [*wrong, report.stdout]


class Campaign:
    """Kills, one driver after the other, until there are enough that came to it."""

    def __init__(self, work: Path, driver: Driver, raylets: Raylets, seed: int, done: list[Kill]) -> None:
        self.done, self._seed = done, seed
        self._work, self._driver, self._raylets = work, driver, raylets
        self.queries = self.repeated = 0
        self._wanted = [self._unbroken(changed) for changed in (False, True)]

    def _unbroken(self, changed: bool) -> Counter[Picture]:
        """What a run that nobody disturbs makes of the archive as it is then."""
        make_archive(self._work / "in", changed=changed)
        whole = Output(self._work / f"whole {changed}")
        if self._driver.start(whole.folder).wait(PATIENCE_S):
            raise SystemExit(f"the unbroken run failed: {self._driver.last_lines()}")
        self.units = whole.committed()
        return whole.pictures()

    def round(self) -> Iterator[Kill]:
        """One output: worked until it is whole, then what changed. Gives each kill as it is done."""
        output = Output(self._work / f"{len(self.done)}")
        for redo in (False, True):
            make_archive(self._work / "in", changed=redo)
            began, ended = time.time(), False
            while not ended:
                rng = random.Random(f"{self._seed} {len(self.done)}")  # noqa: S311
                left = max(1, self.units - output.committed(began))
                plan = Kill(len(self.done), rng.choice(KINDS), redo, rng.randrange(left), False, 0.0)
                plan = replace(plan, rival="to come" if rng.random() < RIVALS else None)
                reader = Reader(output)
                with reader.reading():
                    kill, ended = one_kill(plan, rng, output, self._driver, self._raylets)
                wrong = (*kill.wrong, *reader.wrong, *(check_finished(output, self._wanted[redo]) if ended else ()))
                self.queries, self.repeated = self.queries + reader.queries, self.repeated + reader.repeated
                self.done.append(replace(kill, wrong=wrong))
                yield self.done[-1]
        shutil.rmtree(output.folder)


@app.default
def main(
    kills: int = 20,
    seed: int = 0,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Kills, checks, and prints a table."""
    if json_file and json_file.is_dir():
        raise SystemExit(f"--json {json_file}: is a folder; give a file.")
    lines = json_file.read_text().splitlines() if json_file and json_file.exists() else []
    done = [Kill(**json.loads(line) | {"wrong": tuple(json.loads(line)["wrong"])}) for line in lines]
    work = Path(tempfile.mkdtemp(prefix="chaos-"))
    raylets = Raylets()
    try:
        campaign = Campaign(work, Driver(work, raylets.address), raylets, seed, done)
        while sum(kill.fired for kill in done) < kills:
            for kill in campaign.round():
                print(json.dumps(asdict(kill)), flush=True)
                if json_file:
                    with json_file.open("a") as file:
                        file.write(json.dumps(asdict(kill)) + "\n")
    finally:
        raylets.close()
        shutil.rmtree(work)
    show(done)
    rivals = Counter(kill.rival for kill in done if kill.rival)
    print(f"\nrivals: {dict(rivals)}")
    print(f"{campaign.queries} queries on the way, {campaign.repeated} more broke and were repeated.")
    return int(any(kill.wrong for kill in done))


def show(done: list[Kill]) -> None:
    """Prints what was killed, how often, and what was wrong, as Markdown."""
    print("\n| killed | at work | at redo | came too late | driver ran, s | wrong |\n|---|---:|---:|---:|---:|---:|")
    for kind in (*KINDS, "of the workers, readers", "of the workers, detectors"):
        mine = [kill for kill in done if kill.kind == kind or (kill.worker and kind.endswith(f"{kill.worker}s"))]
        times = [sum(kill.fired and kill.redo == redo for kill in mine) for redo in (False, True)]
        late, seconds = sum(not kill.fired for kill in mine), sum(kill.seconds for kill in mine)
        wrong = sum(bool(kill.wrong) for kill in mine)
        print(f"| {kind} | {times[0]} | {times[1]} | {late} | {seconds:.0f} | {wrong} |")


if __name__ == "__main__":
    sys.exit(app())
