"""Two detectors of one thread, or one of two? On a machine that is free, and on one where something else runs.

    python benchmarks/threads.py [--pictures DIR] [--models NAME ...] [--seconds 30] [--rounds 3] [--json FILE]

Both ways use all CPUs and take turns; the other program is one process that adds numbers. Prints a Markdown table:
pictures/s by the clock, median of the rounds, and what the first way is of the second.
"""

from __future__ import annotations

import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Annotated

from cyclopts import App, Parameter
from figures import finish
from whole_job import bare

ROOT = Path(__file__).resolve().parents[1]
CPUS = os.cpu_count() or 1
app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


@contextmanager
def another_program() -> Iterator[None]:
    busy = subprocess.Popen([sys.executable, "-c", "while True: sum(range(10**6))"])
    try:
        yield
    finally:
        busy.kill()
        busy.wait()


@app.default
def main(
    *,
    pictures: Path = ROOT / "demo" / "archive",
    models: tuple[str, ...] = ("hr-resnet50", "hr-mobilenetv2"),
    seconds: float = 30,
    rounds: int = 3,
    distinct: int = 8,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """distinct: loose JPEGs, drawn evenly from the folder. seconds: of each measurement, at least."""
    files = sorted(path for path in pictures.rglob("*.jpg") if path.parent.name != "broken")
    files = files[:: max(1, len(files) // distinct)][:distinct]
    ways = {f"{CPUS} detectors of 1 thread": (CPUS, 1), f"1 detector of {CPUS} threads": (1, CPUS)}
    found = []
    print(f"{len(files)} pictures again and again, {CPUS} CPUs, median of {rounds} rounds\n")
    print(f"| model | beside | {' | '.join(ways)} | ratio |\n|---|---|---:|---:|---:|")
    with tempfile.TemporaryDirectory(prefix="threads-") as name:
        for path in files:
            (Path(name) / path.name).write_bytes(path.read_bytes())
        for model in models:
            for beside in ("nothing", "one busy process"):
                rates: dict[str, list[float]] = {way: [] for way in ways}
                for _ in range(rounds):
                    for way, (workers, threads) in ways.items():
                        if beside == "nothing":
                            rates[way].append(bare(Path(name), model, seconds, workers, threads).rate)
                            continue
                        with another_program():
                            rates[way].append(bare(Path(name), model, seconds, workers, threads).rate)
                first, second = (statistics.median(rates[way]) for way in ways)
                print(f"| {model} | {beside} | {first:.2f} | {second:.2f} | {first / second:.2f} |", flush=True)
                found.append({"model": model, "beside": beside, **rates})
    finish(found, json_file)


if __name__ == "__main__":
    app()
