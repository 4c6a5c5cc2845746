"""Does a picture cost the same in a large archive as in a small one?

    python benchmarks/linear.py [--pictures 1000 4000 16000] [--unit 100] [--json FILE]

Small JPEGs as in soak.py (80 to 160 px, 12 sizes, some of them broken), half loose, half in tars, on this disk, are
worked by jobs/detect_archive.py with hr-mobilenetv2 at 1x, each number in a run of its own on a Ray of its own. Prints
a Markdown table: of each run, the command's seconds, and the milliseconds a picture from its first to its last commit.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated

import pyarrow.parquet as pq
from cyclopts import App, Parameter
from figures import finish
from soak import make_archive, small_jpegs

ROOT = Path(__file__).resolve().parents[1]
app = App(help=__doc__, default_parameter=Parameter(consume_multiple=True))


def commits(output: Path) -> list[tuple[float, int]]:
    """When each unit's record was written, and its pictures, the first one first."""
    parts = (output / "images").glob("part-*.parquet")
    return sorted((path.stat().st_mtime, pq.read_metadata(path).num_rows) for path in parts)


@app.default
def main(
    *,
    pictures: tuple[int, ...] = (1000, 4000, 16_000),
    unit: int = 100,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """Makes the archives, then runs the job on one after the other."""
    found = []
    print("| pictures | command, s | from first to last commit, s | pictures then | ms a picture |")
    print("|---:|---:|---:|---:|---:|")
    for count in pictures:
        with tempfile.TemporaryDirectory() as folder:
            source, output = Path(folder) / "in", Path(folder) / "out"
            source.mkdir()
            make_archive(source, small_jpegs(count, 160, 12), count, unit)
            command = [sys.executable, str(ROOT / "jobs" / "detect_archive.py"), "--input", str(source)]
            command += ["--output", str(output), "--model", "hr-mobilenetv2", "--zooms", "1", "--no-report"]
            variables = os.environ | {"RAY_ADDRESS": "local", "RAY_AUTH_MODE": "disabled"}
            began = time.monotonic()
            subprocess.run([*command, "--unit-pictures", str(unit)], check=True, capture_output=True, env=variables)
            whole_s = time.monotonic() - began
            (first, _), *later = commits(output)
        window_s, then = later[-1][0] - first, sum(rows for _, rows in later)
        print(f"| {count:,} | {whole_s:.0f} | {window_s:.1f} | {then:,} | {1000 * window_s / then:.2f} |", flush=True)
        found.append({"pictures": count, "command_s": whole_s, "window_s": window_s, "then": then})
    finish(found, json_file)


if __name__ == "__main__":
    app()
