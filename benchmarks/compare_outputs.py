"""What does it take to compare two outputs of many pictures: seconds, memory, disk?

    python benchmarks/compare_outputs.py [--pictures 200000] [--unit-pictures 1000] [--work DIR]

A made-up output (benchmarks/made_up_rows.py) beside two copies of it. One has the same units: pairs of files are read
and forgotten. In the other one every file is called otherwise, as if its units were cut anew: all pictures wait on
disk and are joined. Each comparison is jobs/compare.py in a process of its own; memory is its highest resident set.
The boxes of a copy are the same, so nothing may be lost, gained or moved. Prints a Markdown table.
"""

from __future__ import annotations

import hashlib
import json
import resource
import shutil
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from cyclopts import App
from tables import write

ROOT = Path(__file__).resolve().parents[1]
app = App(help=__doc__)


@app.default
def main(*, pictures: int = 200_000, unit_pictures: int = 1000, work: Path | None = None) -> None:
    """Prints seconds and memory of both."""
    with tempfile.TemporaryDirectory(dir=work, prefix="tinyface-compare-bench-") as name:
        folder = Path(name)
        known = write(range(pictures // unit_pictures), unit_pictures, (folder / "old").as_uri(), partitioned=False)
        (folder / "old" / "_SUCCESS").touch()
        shutil.copytree(folder / "old", folder / "same units")
        shutil.copytree(folder / "old", folder / "other units")
        for file in (folder / "other units").rglob("part-*.parquet"):
            unit, _, commit = file.stem.removeprefix("part-").partition("-")
            other = hashlib.blake2b(unit.encode(), digest_size=16).hexdigest()
            file.rename(file.with_name(f"part-{other}{'-' if commit else ''}{commit}.parquet"))
        print(f"{known['pictures']:,} pictures, {known['faces']:,} faces\n\n| | s | MB |\n|---|---:|---:|")
        for new in ("same units", "other units"):
            seconds, memory_bytes = _timed(folder, new, known["faces"])
            print(f"| {new} | {seconds:.1f} | {memory_bytes / 1e6:.0f} |", flush=True)


def _timed(folder: Path, new: str, faces: int) -> tuple[float, int]:
    """(seconds, highest resident set of all children so far). Fails where a copy is told to differ."""
    command = [sys.executable, str(ROOT / "jobs" / "compare.py"), str(folder / "old"), str(folder / new)]
    began = time.perf_counter()
    subprocess.run([*command, "--json", str(folder / "n.json")], check=True, stdout=subprocess.DEVNULL)
    seconds = time.perf_counter() - began
    found = json.loads((folder / "n.json").read_text())["faces"]
    assert (found["kept"], found["lost"], found["gained"], found["moved"]) == (faces, 0, 0, 0), found
    return seconds, resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024


if __name__ == "__main__":
    app()
