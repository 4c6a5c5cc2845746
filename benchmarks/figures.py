"""Where and how figures were made, for the end of every benchmark: its command, date, machine and versions."""

from __future__ import annotations

import json
import os
import platform
import shlex
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

PACKAGES = ("torch", "ray", "pyarrow", "numpy", "opencv-python-headless", "duckdb")
UNITS = ("amx_int8", "amx_bf16", "avx512_bf16", "avx512_vnni", "avx512f", "avx2")  # as /proc/cpuinfo names them


def about(**more: object) -> dict[str, object]:
    """What a figure means nothing without; `more` is added to it, such as the name of a GPU."""
    said = _cpuinfo()
    flags = said.get("flags", "").split()
    usable = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return {
        "command": shlex.join(["python", f"benchmarks/{Path(sys.argv[0]).name}", *sys.argv[1:]]),
        "date": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "processor": said.get("model name") or platform.processor() or platform.machine(),
        "units": [unit for unit in UNITS if unit in flags],
        "cpus": usable,
        "load": round(os.getloadavg()[0], 2),
        "system": platform.platform(),
        "versions": {"python": platform.python_version(), **_versions()},
        **more,
    }


def finish(results: object, json_file: Path | None, **more: object) -> None:
    """Prints `about` as a line, and writes it with the results where a file is asked for."""
    made = about(**more)
    units, versions = made["units"], made["versions"]
    assert isinstance(units, list)
    assert isinstance(versions, dict)
    machine = f"{made['processor']}, {made['cpus']} CPUs ({' '.join(units) or 'no vector units that are told'})"
    others = [str(value) for value in more.values()]
    named = ", ".join(f"{name} {number}" for name, number in versions.items())
    print(f"\n{made['date']}, load {made['load']}: " + "; ".join([*others, machine, named]))
    if json_file is not None:
        json_file.write_text(json.dumps({"about": made, "results": results}, indent=1) + "\n")


def _cpuinfo() -> dict[str, str]:
    """Of the first processor; empty where the system has no such file."""
    try:
        first, *_ = Path("/proc/cpuinfo").read_text().split("\n\n", 1)
    except OSError:
        return {}
    pairs = (line.split(":", 1) for line in first.splitlines() if ":" in line)
    return {name.strip(): value.strip() for name, value in pairs}


def _versions() -> dict[str, str]:
    """Of those that are installed."""
    found = {}
    for package in PACKAGES:
        try:
            found[package] = version(package)
        except PackageNotFoundError:
            continue
    return found
