"""Do two drivers of different hosts ever write to one output at the same time?

    python benchmarks/lease.py --seconds 600 [--hosts 4] [--seed 0] [--json FILE]

Processes that say they are of different hosts (so that none can see whether another lives) claim one output on a real
S3 server over and over, with times a 20th of the job's. Who holds the claim writes, and takes down when. Meanwhile
processes are stopped and woken (up to twice the time after which a claim counts as dead), killed, and started anew.
A write of one holder that ends after the next holder came in is wrong, but for one kind, which no lease without help of
the store can shut out: a process that is stopped between its last look at the claim and its PUT. Those are counted
apart. Exits 1 where a write was wrong.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from figures import finish

from tinyface_core.errors import ClaimError, StorageError
from tinyface_core.storage import Storage
from tinyface_core.tables.claim import Claim, ClaimTimes

ROOT = Path(__file__).resolve().parents[1]
SHARE = 20  # of the job's times
TIMES = ClaimTimes(10 / SHARE, 30 / SHARE, 90 / SHARE, 3 / SHARE, 1 / SHARE)
HELD_S = 20.0  # at most, before a holder goes by itself
app = App(help=__doc__)


@dataclass(frozen=True)
class Event:
    """What a holder did, in seconds of the machine's clock. what: `held` (start = end), `write` or `refused`."""

    holder: str
    what: str
    start: float
    end: float


@app.command
def hold(host: str, output: str, log: Path) -> None:
    """One driver: claims, writes while it holds, goes, and comes again."""
    socket.gethostname = lambda: host  # type: ignore[assignment]
    number = 0

    def say(what: str, start: float) -> None:
        with log.open("a") as file:
            file.write(json.dumps(asdict(Event(f"{host}-{os.getpid()}-{number}", what, start, now()))) + "\n")

    while True:
        number += 1
        with suppress(StorageError):
            try:
                with Claim(Storage(), output, times=TIMES, on_wait=lambda _: None) as claim:
                    say("held", now())
                    until = now() + random.uniform(1, HELD_S)  # noqa: S311
                    while now() < until:
                        start = now()
                        claim.guarded().write(f"{output}/images/part", host.encode())
                        say("write", start)
                        time.sleep(0.02)
            except ClaimError:
                say("refused", now())
                time.sleep(random.uniform(0, 2))  # noqa: S311


def now() -> float:
    """The same for all processes of this machine, and it goes on while they are stopped."""
    return time.clock_gettime(time.CLOCK_BOOTTIME)


@dataclass
class Driver:
    """A process that holds, or wants to."""

    host: str
    output: str
    log: Path
    process: subprocess.Popen[bytes] | None = None
    wake_at: float | None = None

    def start(self) -> None:
        command = [sys.executable, __file__, "hold", self.host, self.output, str(self.log)]
        self.process = subprocess.Popen(command, env=os.environ | {"PYTHONPATH": str(ROOT)}, stderr=subprocess.DEVNULL)

    def send(self, number: signal.Signals) -> None:
        assert self.process is not None
        self.process.send_signal(number)
        if number == signal.SIGKILL:
            self.process.wait()


def disturb(drivers: list[Driver], rng: random.Random, seconds: float) -> Counter[str]:
    """Stops, wakes and kills, until the time is over; how often what."""
    done: Counter[str] = Counter()
    ends = now() + seconds
    while now() < ends:
        time.sleep(rng.uniform(0.2, 2.0))
        for driver in drivers:
            if driver.wake_at is not None and now() > driver.wake_at:
                driver.send(signal.SIGCONT)
                driver.wake_at = None
        driver = rng.choice(drivers)
        if driver.wake_at is not None:
            continue
        if rng.random() < 0.3:
            driver.send(signal.SIGKILL)
            driver.start()
            done["killed and started anew"] += 1
        else:
            driver.send(signal.SIGSTOP)
            driver.wake_at = now() + rng.uniform(0, 2 * TIMES.silent_s)
            done["stopped and woken"] += 1
    return done


def judge(events: list[Event]) -> dict[str, int]:
    """Counts of holders, writes and those that were too late."""
    came = sorted((event.start, event.holder) for event in events if event.what == "held")
    writes = [event for event in events if event.what == "write"]
    counts = {"holders": len(came), "refused": sum(e.what == "refused" for e in events), "writes": len(writes)}
    counts |= {"wrong": 0, "stopped between look and PUT": 0}
    since = {holder: start for start, holder in came}
    for write in writes:
        following = next((start for start, holder in came if start > since[write.holder]), float("inf"))
        if write.end > following:
            # A write that began while its claim was good, and lasted as long as a claim takes to die, was asleep.
            asleep = write.start < following and write.end - write.start > TIMES.silent_s - TIMES.lose_s
            counts["stopped between look and PUT" if asleep else "wrong"] += 1
    return counts


@app.default
def main(
    seconds: float = 600,
    hosts: int = 4,
    seed: int = 0,
    json_file: Annotated[Path | None, Parameter(name="--json")] = None,
) -> int:
    """Disturbs, and judges what was written."""
    sys.path.insert(0, str(ROOT))
    from tests.integration.s3_server import S3Server

    work = Path(tempfile.mkdtemp(prefix="lease-"))
    with S3Server(work / "s3") as server:
        os.environ |= server.environment()
        output = f"s3://{server.new_bucket()}/out"
        drivers = [Driver(f"host-{number}", output, work / f"{number}.jsonl") for number in range(hosts)]
        for driver in drivers:
            driver.log.touch()
            driver.start()
        while not all(driver.log.stat().st_size for driver in drivers):
            time.sleep(0.1)
        try:
            done = disturb(drivers, random.Random(seed), seconds)  # noqa: S311
        finally:
            for driver in drivers:
                driver.send(signal.SIGKILL)
    lines = [line for driver in drivers for line in driver.log.read_text().splitlines() if line.endswith("}")]
    events = [Event(**json.loads(line)) for line in lines]
    result = {"seconds": seconds, "hosts": hosts, "seed": seed, **done, **judge(events)}
    print(json.dumps(result, indent=1))
    finish(result, json_file)
    return int(result["wrong"] > 0)


if __name__ == "__main__":
    sys.exit(app())
