"""Pictures whose unit is not in both outputs, until all units are read: then they are joined by image_id.

They wait in a DuckDB file in the temporary folder, and the join spills beside it: memory stays bounded for any number.
Knows ROWS; not where they come from, nor what is compared.
"""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import TracebackType

import duckdb
import pyarrow as pa
import pyarrow.compute as pc

from tinyface_core.compare.rows import ROWS
from tinyface_core.errors import StorageError

_MEMORY = "1GiB"
_WAITING_BYTES = 32 << 20  # rows that are inserted together: an insert for each unit would cost more than its rows
_BATCH_ROWS = 8192
_SORTED = [("uri", "ascending"), ("member", "ascending"), ("image_id", "ascending")]


class Spill:
    """A context manager; for one thread."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="tinyface-compare-")
        place = Path(self._folder.name)
        self._database = duckdb.connect(
            str(place / "pictures.duckdb"),
            config={
                "memory_limit": _MEMORY,
                "threads": 2,
                "temp_directory": str(place / "spill"),
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
            },
        )
        self._waiting: dict[str, list[pa.Table]] = {"old": [], "new": []}
        for side in self._waiting:
            self._database.register("empty", ROWS.empty_table())
            self._database.execute(f"CREATE TABLE {side} AS FROM empty")
            self._database.unregister("empty")

    def __enter__(self) -> Spill:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._database.close()
        self._folder.cleanup()

    def add(self, side: str, rows: pa.Table) -> None:
        """rows: ROWS of `old` or `new`. Raises: StorageError."""
        if not len(rows):
            return
        waiting = self._waiting[side]
        waiting.append(rows)
        if sum(each.nbytes for each in waiting) >= _WAITING_BYTES:
            self._insert(side)

    def joined(self) -> Iterator[tuple[pa.Table, pa.Table]]:
        """(old, new): the pictures that both have, in the same order, batch after batch. Raises: StorageError."""
        own = [f"{side}.{name} AS {side}_{name}" for side in ("old", "new") for name in ROWS.names]
        yield from (
            (_side(batch, "old"), _side(batch, "new"))
            for batch in self._query(f"SELECT {', '.join(own)} FROM old JOIN new USING (image_id)")
        )

    def alone(self, side: str) -> Iterator[pa.Table]:
        """ROWS of the pictures that the other one does not have, without their faces. Raises: StorageError."""
        other = "new" if side == "old" else "old"
        kept = ", ".join("''::BLOB AS faces" if name == "faces" else name for name in ROWS.names)
        for batch in self._query(f"SELECT {kept} FROM {side} ANTI JOIN {other} USING (image_id)"):
            yield batch.cast(ROWS)

    def _query(self, sql: str) -> Iterator[pa.Table]:
        for side in self._waiting:
            self._insert(side)
        with _told(self._folder.name):
            reader = self._database.sql(sql).to_arrow_reader(_BATCH_ROWS)
            for batch in reader:
                yield pa.Table.from_batches([batch])

    def _insert(self, side: str) -> None:
        if not (waiting := self._waiting[side]):
            return
        with _told(self._folder.name):
            self._database.register("waiting", pa.concat_tables(waiting))
            self._database.execute(f"INSERT INTO {side} FROM waiting")
            self._database.unregister("waiting")
        waiting.clear()


@contextmanager
def _told(folder: str) -> Iterator[None]:
    try:
        yield
    except duckdb.Error as error:
        raise StorageError(
            f"{folder}: pictures cannot wait here: {error}. Give room in another temporary folder with TMPDIR"
        ) from error


def _side(batch: pa.Table, side: str) -> pa.Table:
    """Sorted by the old output's names, whatever the order of the join: both sides alike."""
    order = batch.select([f"old_{name}" for name, _ in _SORTED]).rename_columns([name for name, _ in _SORTED])
    place = pc.sort_indices(order, sort_keys=_SORTED)
    return pa.table({name: batch[f"{side}_{name}"] for name in ROWS.names}).cast(ROWS).take(place).combine_chunks()
