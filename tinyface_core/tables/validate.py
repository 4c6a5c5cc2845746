"""Checks a whole output against its contract: every file, every row, and that no picture is there twice.

Memory stays bounded whatever the output holds: files in batches of rows, ids in a DuckDB file that spills to disk.
Knows the folder's layout; the conditions on rows are in `rules.py`, those on a pair of files in `check_unit.py`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from threading import Lock

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinyface_core.storage import ObjectInfo, Storage
from tinyface_core.tables.check_files import FileChecker, Violation
from tinyface_core.tables.footer import batches, is_part, unit_of_images, unit_of_temporary
from tinyface_core.tables.unit_tables import UnitTotals, sum_totals

THREADS = 4
LISTED_VIOLATIONS = 1000
_ID_MEMORY = "512MB"
_ID_BATCH_ROWS = 100_000
_AT_THE_ROOT = {"run.json", "report.html"}

NO_IMAGES = "no images files"
NOT_FINISHED = "not there: the run is not finished"
NO_RUN_JSON = "not there, though _SUCCESS is"
STRAY = "a stray file"
ORPHAN = "no commit stands behind this file: the sweep should have removed it"
REPEATED_ID = "an image_id is there more than once"


@dataclass
class Report:
    """What validation found.

    finished: `_SUCCESS` is there. pending: files that a run in progress, or one that was killed, left and will
    remove. violations: the first LISTED_VIOLATIONS; violations_total: how many there are.
    """

    output_uri: str
    finished: bool = False
    units: int = 0
    totals: UnitTotals = field(default_factory=UnitTotals)
    pending: int = 0
    violations: list[Violation] = field(default_factory=list)
    violations_total: int = 0

    @property
    def exit_code(self) -> int:
        return 1 if self.violations_total else 0

    def add(self, violation: Violation) -> None:
        self.violations_total += 1
        if len(self.violations) < LISTED_VIOLATIONS:
            self.violations.append(violation)

    def __str__(self) -> str:
        return "\n".join(self.lines())

    def lines(self) -> list[str]:
        """One a violation, and a summary last."""
        errors = sum(self.totals.errors.values())
        lines = [str(violation) for violation in self.violations]
        if self.violations_total > len(self.violations):
            lines.append(f"... and {self.violations_total - len(self.violations):,} more")
        if not self.finished:
            lines.append(f"no _SUCCESS: unfinished, {self.pending:,} files pending: join USING (image_id, commit)")
        lines.append(
            f"{self.output_uri}: {self.totals.pictures:,} pictures ({errors:,} with errors), "
            f"{self.totals.faces:,} faces, {self.units:,} unit{'s' if self.units != 1 else ''}: "
            + (f"{self.violations_total:,} violations" if self.violations_total else "valid")
        )
        return lines


def validate(storage: Storage, output_uri: str, *, unfinished_ok: bool = False) -> Report:
    """Checks the output of a run.

    Args:
        output_uri: canonical.
        unfinished_ok: an output without `_SUCCESS` is no violation, nor is what the next sweep will remove.
    Raises:
        StorageError: the store failed.
    """
    report = Report(output_uri.rstrip("/"))
    folder = _Folder(storage, report.output_uri)
    report.finished = folder.finished
    if not folder.images:
        report.add(Violation("images/", NO_IMAGES, 1, ""))
    if not folder.finished and not unfinished_ok:
        report.add(Violation("_SUCCESS", NOT_FINISHED, 1, ""))
    if folder.finished and not folder.has_run_json:
        report.add(Violation("run.json", NO_RUN_JSON, 1, ""))
    for name in folder.strays:
        report.add(Violation(name, STRAY, 1, ""))

    named: set[str] = set()
    with tempfile.TemporaryDirectory(prefix="tinyface-validate-") as spool, _Ids(Path(spool)) as ids:
        checker = FileChecker(storage, report.output_uri, folder.detections, ids)
        with ThreadPoolExecutor(THREADS) as pool:
            for units in batches(sorted(folder.images.items()), 64):
                for result in pool.map(lambda item: checker.check(*item), units):
                    named.add(result.detections)
                    report.totals = sum_totals([report.totals, result.totals])
                    for violation in [*result.violations, *checker.unlike_the_others(result)]:
                        report.add(violation)
        for violation in ids.repeated(lambda unit: folder.images[unit].uri.removeprefix(folder.prefix)):
            report.add(violation)
    report.units = len(folder.images)

    orphans = sorted(folder.detections.keys() - named)
    for name in [*orphans, *folder.temporaries]:
        if unfinished_ok and not folder.finished:
            report.pending += 1
        else:
            report.add(Violation(name, ORPHAN, 1, ""))
    return report


class _Folder:
    """What lies in the output, by one listing."""

    def __init__(self, storage: Storage, output_uri: str) -> None:
        self.images: dict[str, ObjectInfo] = {}  # by unit
        self.detections: dict[str, ObjectInfo] = {}  # by name relative to the output
        self.temporaries: list[str] = []
        self.strays: list[str] = []
        self.finished = self.has_run_json = False
        self.prefix = output_uri + "/"
        for info in storage.list(self.prefix):
            self._place(info.uri.removeprefix(self.prefix), info)

    def _place(self, name: str, info: ObjectInfo) -> None:
        table, _, file = name.partition("/")
        unit = unit_of_images(file) if is_part(name) else None
        if name.startswith("_"):
            self.finished = self.finished or name == "_SUCCESS"
        elif table == "images" and unit and unit not in self.images:
            self.images[unit] = info
        elif table == "detections" and is_part(name):
            self.detections[name] = info
        elif table in ("images", "detections") and unit_of_temporary(file):
            self.temporaries.append(name)
        elif name in _AT_THE_ROOT:
            self.has_run_json = self.has_run_json or name == "run.json"
        else:
            self.strays.append(name)


class _Ids:
    """All image ids of an output in a DuckDB file: what does not fit into memory goes to disk."""

    def __init__(self, spool: Path) -> None:
        self._connection = duckdb.connect(
            str(spool / "ids.duckdb"),
            config={"memory_limit": _ID_MEMORY, "threads": 2, "temp_directory": str(spool)},
        )
        self._connection.execute("CREATE TABLE ids (high UBIGINT, low UBIGINT, unit VARCHAR)")
        self._waiting: list[pa.Table] = []
        self._adding = Lock()

    def __enter__(self) -> _Ids:
        return self

    def __exit__(self, *_: object) -> None:
        self._connection.close()

    def cursor(self) -> duckdb.DuckDBPyConnection:
        """A connection for one thread."""
        return self._connection.cursor()

    def add(self, unit: str, image_id: pa.ChunkedArray) -> None:
        """Ids that are no 128-bit hex are left to the rule that finds them."""
        hexes = image_id.filter(pc.match_substring_regex(image_id, "^[0-9a-f]{32}$"))
        halves = np.frombuffer(bytes.fromhex("".join(hexes.to_pylist())), ">u8").astype(np.uint64).reshape(-1, 2)
        unit_N = pa.repeat(pa.scalar(unit), len(halves))
        rows = pa.table({"high": halves[:, 0], "low": halves[:, 1], "unit": unit_N})
        with self._adding:
            self._waiting.append(rows)
            if sum(len(each) for each in self._waiting) >= _ID_BATCH_ROWS:
                self._insert()

    def _insert(self) -> None:
        self._connection.register("waiting", pa.concat_tables(self._waiting))
        self._connection.execute("INSERT INTO ids SELECT * FROM waiting").fetchall()
        self._connection.unregister("waiting")
        self._waiting.clear()

    def repeated(self, name_of: Callable[[str], str]) -> Iterator[Violation]:
        """One violation for each pair of units that share ids, or unit that repeats some. name_of: a unit's file."""
        if self._waiting:
            self._insert()
        rows = self._connection.execute(
            "WITH twice AS (SELECT printf('%016x%016x', high, low) AS id, min(unit) AS a, max(unit) AS b FROM ids "
            "GROUP BY high, low HAVING count(*) > 1) "
            f"SELECT a, b, count(*), min(id) FROM twice GROUP BY a, b ORDER BY a, b LIMIT {LISTED_VIOLATIONS}"
        ).fetchall()
        for first, second, count, example in rows:
            where = "" if first == second else f", also in {name_of(second)}"
            yield Violation(name_of(first), REPEATED_ID, count, example + where)
