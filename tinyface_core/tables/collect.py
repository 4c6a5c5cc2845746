"""Gathers rows that arrive in any order, and more than once, into whole units.

Knows the envelope of a row (unit, kind, index, count); does not know what a row says about a picture, nor what
becomes of a whole unit. Everything is done on slices of Arrow tables: no row becomes a Python object.
"""

from __future__ import annotations

from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
from numpy.typing import NDArray

from tinyface_core.errors import StopRun


@dataclass(frozen=True)
class Missing:
    """What a unit that is not whole lacks.

    indexes_K: int32, ascending: the gaps below `count`, or below the highest index seen while the end is unknown.
    count: how many records the unit has; None while no end marker came, more rows may then follow the last one.
    known: how many it has at least.
    """

    indexes_K: NDArray[np.int32]
    count: int | None
    known: int


@dataclass
class _OpenUnit:
    """Rows of one unit so far. `seen` tells for each index whether its row is in `pieces`."""

    pieces: list[pa.Table] = field(default_factory=list)
    indexes: list[NDArray[np.int32]] = field(default_factory=list)
    seen: NDArray[np.bool_] = field(default_factory=lambda: np.zeros(1024, bool))
    held: int = 0
    count: int | None = None
    end: pa.Table | None = None

    def add_rows(self, table: pa.Table, rows_K: NDArray[np.intp], index_K: NDArray[np.int32]) -> None:
        """Keeps rows `rows_K` of `table`, which stand at `index_K`; the first row of an index wins."""
        index_K, first_K = np.unique(index_K, return_index=True)
        rows_K = rows_K[first_K]
        if index_K[-1] >= len(self.seen):
            self.seen = np.append(self.seen, np.zeros(max(len(self.seen), int(index_K[-1])), bool))
        fresh_K = ~self.seen[index_K]
        if not fresh_K.all():
            index_K, rows_K = index_K[fresh_K], rows_K[fresh_K]
        if len(index_K) == 0:
            return
        self.seen[index_K] = True
        self.held += len(index_K)
        self.indexes.append(index_K)
        # A copy: a slice would keep the whole block, and with it Ray's shared memory, for as long as the unit is open.
        self.pieces.append(table.take(pa.array(rows_K)))

    def add_end(self, end: pa.Table) -> None:
        """The marker. Should two readings of a unit disagree, the longer one is the truth: it lost less."""
        count = end["count"][0].as_py()
        if self.count is None or count > self.count:
            self.count, self.end = count, end

    def is_whole(self) -> bool:
        return self.count is not None and self.held >= self.count and bool(self.seen[: self.count].all())

    def table(self) -> pa.Table:
        """Rows by index, then the end marker, in one chunk."""
        if not self.pieces:
            return self.end
        index_K = np.concatenate(self.indexes)
        order_K = np.argsort(index_K, kind="stable")[: self.count]
        rows = pa.concat_tables(self.pieces)
        if not np.array_equal(order_K, np.arange(len(rows))):
            rows = rows.combine_chunks().take(pa.array(order_K))
        return pa.concat_tables([rows, self.end]).combine_chunks()


class UnitCollector:
    """Collects rows of `row_schema` (or `record_schema`) by unit.

    Holds the rows of open units, and the names of whole ones: what comes of them later is a replay, and dropped.
    """

    def __init__(self) -> None:
        self._open: dict[str, _OpenUnit] = {}
        self._whole: set[str] = set()
        self._schema: pa.Schema | None = None

    def add(self, table: pa.Table) -> list[tuple[str, pa.Table]]:
        """Takes a block in; gives the units that it made whole.

        Args:
            table: rows of any units and kinds, in any order, also ones that came before.
        Returns:
            (unit name, its rows sorted by index and then its end marker), each unit once in the collector's life.
        Raises:
            StopRun: the block holds a "stop" row; the message is that row's.
        """
        if len(table) == 0:
            return []
        self._schema = self._schema or table.schema
        if table.schema != self._schema:  # Ray may forget "not null" on the way
            table = table.select(self._schema.names).cast(self._schema)
        kinds, kind_N = _codes(table["kind"])
        if "stop" in kinds:
            row = int(np.flatnonzero(kind_N == kinds.index("stop"))[0])
            raise StopRun(table["error_message"][row].as_py())
        record_code = kinds.index("record") if "record" in kinds else -1
        index_N = table["index"].combine_chunks().to_numpy(zero_copy_only=False)
        units, unit_N = _codes(table["unit"])
        whole = []
        for code, name in enumerate(units):
            if name in self._whole:
                continue
            rows_K = np.flatnonzero(unit_N == code) if len(units) > 1 else np.arange(len(table))
            unit = self._open.setdefault(name, _OpenUnit())
            is_record_K = kind_N[rows_K] == record_code
            if is_record_K.any():
                unit.add_rows(table, rows_K[is_record_K], index_N[rows_K[is_record_K]])
            for row in rows_K[~is_record_K]:
                unit.add_end(table.take(pa.array([row])))
            if unit.is_whole():
                whole.append((name, unit.table()))
                self._whole.add(name)
                del self._open[name]
        return whole

    def is_whole(self, unit_name: str) -> bool:
        """Whether this unit was given, whole, by `add`."""
        return unit_name in self._whole

    def missing(self) -> dict[str, Missing]:
        """For each unit that is open, what it lacks. A unit of which nothing came is not in here."""
        result = {}
        for name, unit in self._open.items():
            known = unit.count
            if known is None:
                known = 1 + max((int(index_K[-1]) for index_K in unit.indexes), default=-1)
            gaps_K = np.flatnonzero(~unit.seen[:known])
            beyond_K = np.arange(len(unit.seen), known)  # a count past all that `seen` has room for
            result[name] = Missing(np.concatenate([gaps_K, beyond_K]).astype(np.int32), unit.count, known)
        return result


def _codes(column: pa.ChunkedArray) -> tuple[list[str], NDArray[np.int32]]:
    """(distinct values, for each row the position of its value there)."""
    coded = column.combine_chunks()
    coded = pc.dictionary_encode(coded)
    return coded.dictionary.to_pylist(), coded.indices.to_numpy(zero_copy_only=False)
