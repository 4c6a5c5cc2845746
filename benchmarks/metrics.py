"""What counting costs a process: one count, the counts of a block, making a metric; with a Ray, and without one.

    python benchmarks/metrics.py [--json FILE]

A detector tells its counts once a block, a reader once a block, the driver once a commit.
"""

from __future__ import annotations

import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "jobs"))

import ray
from cyclopts import App, Parameter
from figures import finish

from ray_metrics import StageSeconds, made

TIMES = 20_000
app = App(help=__doc__)


def microseconds(call: Callable[[], object]) -> float:
    """Of one call, the mean."""
    call()
    began = time.perf_counter()
    for _ in range(TIMES):
        call()
    return (time.perf_counter() - began) / TIMES * 1e6


def measure(where: str) -> dict[str, float]:
    counter, seconds = made("tinyface_pictures_total"), StageSeconds()

    def block() -> None:
        seconds.add("detect", 0.1)
        seconds.add("decode", 0.1)
        seconds.tell()

    costs = {
        "one count": microseconds(lambda: counter.inc(1)),
        "a block": microseconds(block),
        "making one": microseconds(lambda: made("tinyface_stage_seconds_total")),
    }
    print(f"{where}: " + ", ".join(f"{name} {cost:.1f} us" for name, cost in costs.items()))
    return costs


@app.default
def main(*, json_file: Annotated[Path | None, Parameter("--json")] = None) -> None:
    """Counts without a Ray, then with one."""
    found = {"no Ray": measure("no Ray")}
    ray.init(address="local", include_dashboard=False, logging_level="WARNING")
    found["Ray"] = measure("Ray")
    ray.shutdown()
    finish(found, json_file)


if __name__ == "__main__":
    app()
