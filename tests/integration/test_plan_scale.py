"""A plan of 10^6 loose pictures, and a re-run on it, stay within a fixed memory."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

COUNT = 1_000_000
PEAK_BYTES = 600_000_000

PROGRAM = """
import json, sys, time
from datetime import UTC, datetime
from itertools import islice
from tinyface_core.archive.record import Kind, Source, Unit
from tinyface_core.storage import Storage
from tinyface_core.tables.plan import Plan

count, output = int(sys.argv[1]), sys.argv[2]

def peak_bytes():  # of this program: ru_maxrss would count the process that it was forked from
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) << 10 for line in status if line.startswith("VmHWM"))

def listing():  # in no order: 7919 is prime to the count
    modified = datetime(2024, 1, 1, tzinfo=UTC)
    for number in range(count):
        place = number * 7919 % count
        yield Source(f"s3://bucket/archive/folder/{place:09d}.jpg", Kind.PICTURE, 99, f"{place:032x}", modified)

def cut(sources):
    sources = iter(sources)
    while batch := tuple(islice(sources, 1000)):
        yield Unit(batch)

plan = Plan(Storage(), output)
started = time.monotonic()
first = plan.update(listing(), cut)
planned_s = time.monotonic() - started
again = plan.update(listing(), cut)
uris = [unit.sources[0].uri for unit in plan.units()]
print(json.dumps({
    "new": first.sources_new, "units": first.units_new, "unchanged": again.sources_unchanged,
    "sorted": uris == sorted(uris), "pictures": sum(len(unit.sources) for unit in plan.units()),
    "planned_s": planned_s, "peak_bytes": peak_bytes(),
}))
"""


@pytest.mark.slow
def test_a_million_pictures_are_planned_in_bounded_memory(tmp_path: Path) -> None:
    """The peak is that of the whole process, imports included."""
    command = [sys.executable, "-c", PROGRAM, str(COUNT), f"file://{tmp_path}"]
    found = json.loads(subprocess.run(command, check=True, capture_output=True, text=True).stdout)
    print(found)
    assert (found["new"], found["units"], found["unchanged"], found["pictures"]) == (COUNT, 1000, COUNT, COUNT)
    assert found["sorted"]
    assert found["peak_bytes"] < PEAK_BYTES
