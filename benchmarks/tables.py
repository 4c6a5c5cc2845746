"""Tables of 10^7 pictures: how many files, how large, and how quick does DuckDB answer?

    python benchmarks/tables.py [--pictures 1000000] [--unit-pictures 1000] [--workers N] [--compacted] \
        [--partitioned] [--work DIR] [--json FILE]

Made-up rows (benchmarks/made_up_rows.py) go through the driver's own collector and committer to this disk, in as many
processes as there are CPUs. Then typical queries over the plain globs, each three times by a connection of its own
with DuckDB's own settings; the files may be in the page cache. Answers are compared with what the rows were made of.
`--compacted` asks again of copies in files of some 256 MB, images by uri. `--partitioned` writes a hundredth of 10^7
pictures to each folder, and asks for the faces of one, by its uris and by its key. Prints two Markdown tables; the
seconds are the median of three.
"""

from __future__ import annotations

import multiprocessing
import os
import shutil
import statistics
import sys
import tempfile
import time
from collections import Counter, deque
from concurrent.futures import Future, ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import asdict, dataclass
from functools import partial
from pathlib import Path
from typing import Annotated

import duckdb
import pyarrow.parquet as pq
from commit_loop import BLOCK
from cyclopts import App, Parameter
from figures import finish
from made_up_rows import BAD_TAR, EDGES_PX, GROUP, SMALL_PX, made_up
from watched import Output

ROOT = Path(__file__).resolve().parents[1]
sys.path[:0] = [str(ROOT), str(ROOT / "jobs")]

from tinyface_core.storage import Storage  # noqa: E402
from tinyface_core.tables.collect import UnitCollector  # noqa: E402
from tinyface_core.tables.commit import Committer, Written  # noqa: E402
from tinyface_core.tables.partition import PartitionBy  # noqa: E402
from tinyface_core.tables.redo import UnitWork  # noqa: E402
from work import COMMIT_THREADS, COMMITS_AHEAD  # noqa: E402

BYTES_A_PICTURE = 1500  # at most, copies included: whether the disk has room

Rows = list[tuple[object, ...]]
SMALL = f"pictures with faces under {SMALL_PX} px"
_heights = " ".join(f"WHEN y2 - y1 < {edge} THEN 'under {edge}'" for edge in EDGES_PX)
QUERIES = {
    "how many pictures": "SELECT count(*) FROM IMAGES",
    "how many faces": "SELECT count(*) FROM DETECTIONS",
    "what became of them": "SELECT status, error_class, count(*), sum(num_faces) FROM IMAGES GROUP BY ALL",
    "faces by height": f"SELECT CASE {_heights} ELSE 'larger' END, count(*) FROM DETECTIONS GROUP BY 1",
    "pictures with most faces": "SELECT num_faces, width, height, uri, member FROM IMAGES "
    "ORDER BY num_faces DESC, uri, member LIMIT 20",
    SMALL: "SELECT uri, member, count(*) AS small, min(y2 - y1), "
    f"count(*) OVER () FROM IMAGES JOIN DETECTIONS USING (image_id, commit) WHERE y2 - y1 < {SMALL_PX} "
    "GROUP BY uri, member ORDER BY small DESC, uri, member LIMIT 20",
    "share of errors by archive": "SELECT uri, avg((status = 'error')::int) AS share, count(*) FROM IMAGES "
    "WHERE member IS NOT NULL GROUP BY uri ORDER BY share DESC LIMIT 20",
    "one picture by uri": "SELECT * FROM IMAGES WHERE uri = 's3://archive/photos/00000/000007.jpg'",
    "its faces": "SELECT d.* FROM IMAGES JOIN DETECTIONS d USING (image_id, commit) "
    "WHERE uri = 's3://archive/photos/00000/000007.jpg'",
}
PARTITION = r"part=/(\d{4})\d[./]"
_one_part = "SELECT count(*), avg(score) FROM IMAGES i JOIN DETECTIONS d USING (image_id, commit) WHERE "
OF_ONE_PART = {
    "faces of one part, by its uris": _one_part + r"regexp_extract(uri, '/(\d{4})\d[./]', 1) = '0001'",
    "faces of one part, by its key": _one_part + "i.part = '0001' AND d.part = '0001'",
}
app = App(help=__doc__)


def write(numbers: range, pictures: int, output_uri: str, *, partitioned: bool) -> Counter[str]:
    """Makes and commits these units, in this process; gives what is known of them."""
    partition = PartitionBy.parse(PARTITION) if partitioned else None
    committer = Committer(Storage(), output_uri, "settings", "model", partition=partition)
    collector = UnitCollector()
    known, writing = Counter[str](), deque[Future[Written]]()
    with ThreadPoolExecutor(COMMIT_THREADS) as pool:
        for number in numbers:
            made = made_up(number, pictures)
            known.update(made.known)
            for first in range(0, len(made.rows), BLOCK):
                for _, rows in collector.add(made.rows.slice(first, BLOCK)):
                    writing.append(pool.submit(committer.write, UnitWork.whole(made.unit), "sources", rows))
            while len(writing) > COMMITS_AHEAD:
                writing.popleft().result()
        for one in writing:
            one.result()
    return known


@dataclass(frozen=True)
class Table:
    """The files of one table. footers_mb: of mb, what a query reads that looks for one row."""

    name: str
    rows: int
    files: int
    mb: float
    footers_mb: float


def table_of(output: Output, name: str) -> Table:
    files = list((output.folder / name).rglob("*.parquet"))
    rows, footers_bytes = 0, 0
    for path in files:
        footer = pq.read_metadata(path)
        rows, footers_bytes = rows + footer.num_rows, footers_bytes + footer.serialized_size
    return Table(name, rows, len(files), sum(path.stat().st_size for path in files) / 1e6, footers_bytes / 1e6)


def ask(output: Output, sql: str, rounds: int = 3) -> tuple[Rows, list[float]]:
    """The answer, and the seconds of each round, by a connection of its own."""
    seconds = []
    for _ in range(rounds):
        began = time.monotonic()
        rows = output.query(sql)
        seconds.append(time.monotonic() - began)
    return rows, seconds


def number(value: object) -> int:
    return int(str(value))


def check(rows: dict[str, Rows], known: Counter[str]) -> None:
    """Raises SystemExit for an answer that is not what the rows were made of."""
    became = rows["what became of them"]
    found = Counter(pictures=number(rows["how many pictures"][0][0]), faces=number(rows["how many faces"][0][0]))
    found["errors"] = sum(number(count) for status, _, count, _ in became if status == "error")
    found["pictures with small faces"] = number(rows[SMALL][0][-1])
    found.update({str(height): number(count) for height, count in rows["faces by height"]})
    counted = sum(number(faces) for _, _, _, faces in became)
    worst, one, its_faces = rows["share of errors by archive"][0][0], rows["one picture by uri"], rows["its faces"]
    if found != known or counted != known["faces"] or worst != BAD_TAR or len(one) != 1 or len(its_faces) not in one[0]:
        raise SystemExit(f"wrong answers: {found}, {counted} faces and {worst}; made were {known} and {BAD_TAR}")


def compact(output: Output, into: Path) -> Output:
    """Copies of both tables in few files."""
    into.mkdir()
    with duckdb.connect(config={"temp_directory": str(into / "spill")}) as connection:
        for table, order in (("images", "ORDER BY uri, member"), ("detections", "")):
            rows = f"SELECT * FROM '{output.folder}/{table}/**/*.parquet' {order}"
            options = "FORMAT parquet, COMPRESSION zstd, FILE_SIZE_BYTES '256MB'"
            connection.execute(f"COPY ({rows}) TO '{into / table}' ({options})")
    return Output(into)


def written(
    output: Output, units: int, pictures: int, workers: int, *, partitioned: bool
) -> tuple[Counter[str], float]:
    """Makes both tables; what is known of them, and pictures/s."""
    began, known = time.monotonic(), Counter[str]()
    parts, uri = [range(first, units, workers) for first in range(workers)], f"file://{output.folder}"
    with ProcessPoolExecutor(workers, multiprocessing.get_context("spawn")) as pool:
        for one in pool.map(partial(write, pictures=pictures, output_uri=uri, partitioned=partitioned), parts):
            known.update(one)
    return known, known["pictures"] / (time.monotonic() - began)


def tell_tables(tables: dict[str, list[Table]]) -> None:
    print("| table | | rows | files | MB | kB a file | bytes a row | MB of footers |\n|---|---|" + "---:|" * 6)
    for form, several in tables.items():
        for one in several:
            sizes = f"{one.mb:,.0f} | {one.mb / one.files * 1000:,.0f} | {one.mb * 1e6 / one.rows:.0f}"
            print(f"| {one.name} | {form} | {one.rows:,} | {one.files:,} | {sizes} | {one.footers_mb:,.1f} |")


def tell_queries(
    outputs: dict[str, Output], known: Counter[str], *, partitioned: bool
) -> dict[str, dict[str, list[float]]]:
    """Asks all, and checks the answers; the seconds of each round."""
    print("\n| query | " + " | ".join(f"s, {form}" for form in outputs) + " |\n|---|" + "---:|" * len(outputs))
    queries = QUERIES | (OF_ONE_PART if partitioned else {})
    seconds = {query: dict[str, list[float]]() for query in queries}
    rows = {form: dict[str, Rows]() for form in outputs}
    for query, sql in queries.items():
        for form, output in outputs.items():
            rows[form][query], seconds[query][form] = ask(output, sql)
        medians = (f"{statistics.median(each):.2f}" for each in seconds[query].values())
        print(f"| {query} | " + " | ".join(medians) + " |", flush=True)
    for several in rows.values():
        check(several, known)
        if len({several[query][0][0] for query in OF_ONE_PART if partitioned}) > 1:
            raise SystemExit("wrong answers: the faces of a part are others by its key")
    return seconds


@app.default
def main(
    *,
    pictures: int = 1_000_000,
    unit_pictures: int = 1000,
    workers: int = os.cpu_count() or 1,
    compacted: bool = False,
    partitioned: bool = False,
    work: Path | None = None,
    json_file: Annotated[Path | None, Parameter("--json")] = None,
) -> None:
    """unit_pictures: of each unit, of which there are 20 at least. work: a folder on the disk that is to be used."""
    units = max(2 * GROUP, pictures // unit_pictures)
    with tempfile.TemporaryDirectory(prefix="tables-", dir=work) as folder:
        free, needed = shutil.disk_usage(folder).free, units * unit_pictures * BYTES_A_PICTURE
        if free < needed:
            raise SystemExit(f"{folder}: {free / 1e9:.0f} GB are free, needed are {needed / 1e9:.0f}")
        output = Output(Path(folder) / "faces")
        known, rate = written(output, units, unit_pictures, workers, partitioned=partitioned)
        print(f"{known['pictures']:,} pictures with {known['faces']:,} faces in units of {unit_pictures:,}, ", end="")
        print(f"made and written at {rate:,.0f} pictures/s by {workers} processes\n")
        outputs = {"as written": output}
        if compacted:
            outputs["compacted"] = compact(output, Path(folder) / "compacted")
        tables = {form: [table_of(one, name) for name in ("images", "detections")] for form, one in outputs.items()}
        tell_tables(tables)
        seconds = tell_queries(outputs, known, partitioned=partitioned)
    found = {form: [asdict(table) for table in several] for form, several in tables.items()}
    finish({"known": known, "tables": found, "seconds": seconds}, json_file)


if __name__ == "__main__":
    app()
