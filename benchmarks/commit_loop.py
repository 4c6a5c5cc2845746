"""How many pictures a second can the driver gather and commit?

    python benchmarks/commit_loop.py [--units 40] [--pictures 1000] [--faces 3] [--output URL] [--json FILE]

Made-up rows come as detectors send them, in blocks of 16 pictures of several units in turns; the driver's own collector
makes whole units of them, and its committer writes both tables in as many threads as the job has. Nothing else runs:
no Ray, no network, no model. Prints a Markdown row: pictures/s by the clock, CPU time, bytes.
"""

from __future__ import annotations

import sys
import tempfile
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import zip_longest
from pathlib import Path
from typing import Annotated

import pyarrow as pa
from cyclopts import App, Parameter
from figures import finish

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "jobs")]

from tests.unit.row_samples import make_rows, make_unit  # noqa: E402
from tinyface_core.archive.record import Unit  # noqa: E402
from tinyface_core.storage import Storage, StorageOptions  # noqa: E402
from tinyface_core.tables.collect import UnitCollector  # noqa: E402
from tinyface_core.tables.commit import Committer  # noqa: E402
from tinyface_core.tables.redo import UnitWork  # noqa: E402
from work import COMMIT_THREADS, COMMITS_AHEAD  # noqa: E402

BLOCK, AT_ONCE = 16, 8  # pictures; units whose blocks come mixed
app = App(help=__doc__)


def blocks(units: list[Unit], faces: int) -> Iterator[pa.Table]:
    """All rows of all units, AT_ONCE of them in turns."""
    for first in range(0, len(units), AT_ONCE):
        some = [make_rows(unit, faces=faces, seed=number) for number, unit in enumerate(units[first : first + AT_ONCE])]
        cut = [[rows.slice(begin, BLOCK) for begin in range(0, len(rows), BLOCK)] for rows in some]
        yield from (block for turn in zip_longest(*cut) for block in turn if block is not None)


@app.default
def main(
    *,
    units: int = 40,
    pictures: int = 1000,
    faces: int = 3,
    output: str | None = None,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """faces: of each picture. output: an empty folder or prefix; None: a temporary folder."""
    with tempfile.TemporaryDirectory(prefix="commit-loop-") as folder:
        storage, place = Storage(StorageOptions()), output or f"file://{folder}"
        committer, collector = Committer(storage, place, "settings", "model"), UnitCollector()
        planned = {unit.name: unit for unit in (make_unit(pictures, f"{number:05}") for number in range(units))}
        came = list(blocks(list(planned.values()), faces))
        began, began_cpu = time.monotonic(), time.process_time()
        with ThreadPoolExecutor(COMMIT_THREADS) as pool:
            writing = []
            for block in came:
                for name, rows in collector.add(block):
                    writing.append(pool.submit(committer.write, UnitWork.whole(planned[name]), "sources", rows))
                    if len(writing) > COMMITS_AHEAD:
                        writing[-COMMITS_AHEAD - 1].result()
            done = sum(one.result().unit.pictures for one in writing)
        took_s, cpu_s = time.monotonic() - began, time.process_time() - began_cpu
        files = list(Path(folder).rglob("*.parquet"))
        size_mb = sum(path.stat().st_size for path in files) / 1e6
    assert done == units * pictures
    rates = f"{done / took_s:,.0f} | {cpu_s:.1f} | {cpu_s / took_s:.2f}"
    print("| pictures | faces each | pictures/s | CPU s | of CPUs | files | MB |\n|---:|---:|---:|---:|---:|---:|---:|")
    print(f"| {done:,} | {faces} | {rates} | {len(files)} | {size_mb:.1f} |")
    finish({"pictures": done, "faces": faces, "seconds": took_s, "cpu_s": cpu_s}, json_file)


if __name__ == "__main__":
    app()
