"""A listing compared with the sources that are planned already: what is new, what changed.

Both may hold 10^8 sources, so both lie on the local disk as Parquet; DuckDB sorts them together, and neighbours are
compared. It sorts range by range, each small enough for the memory that it has: joins ran out of 256 MiB at 3 * 10^6
sources, and one sort out of 128 MiB at 10^7, in spite of a spill folder. Knows no output, no generations, and not
how sources become units.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import chain, groupby, islice, pairwise
from operator import itemgetter
from pathlib import Path

import duckdb
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinyface_core.archive.record import Kind, Source
from tinyface_core.errors import OutputError
from tinyface_core.tables.plan_rows import source_type, sources_array, sources_from

_BATCH_SOURCES = 20_000
_SORT_BYTES = 256  # of memory a row, so that a range fits
_SAMPLE_EVERY = 100  # rows; their uris are kept to find the ranges
_PLANNED = -1  # what a planned row has for `seq`, so that it sorts before the listed ones
_NEW = -1  # what a listed row has for `unit_no`


@dataclass(frozen=True)
class SourceCounts:
    """new + changed + unchanged are the listing. gone: planned, not in it, and not pruned before."""

    new: int
    changed: int
    unchanged: int
    gone: int


class PlanDiff:
    """First `add_listing` and `add_planned`, then `compare`, then the rest.

    Planned units are called by number, in the order in which they were added. A unit is dead when it cannot be
    written again under its name, because its archive changed; it is touched when loose pictures in it did.

    Args:
        folder: an empty local folder, for the spooled rows and what does not fit into `memory_bytes`.
    """

    def __init__(self, folder: Path, carried: Sequence[pa.Field], memory_bytes: int) -> None:
        self._folder = folder
        self._carried = carried
        self._columns = [field.name for field in source_type(carried)]
        place = [pa.field(name, pa.int64(), nullable=False) for name in ("seq", "unit_no", "position")]
        self._schema = pa.schema([*place, *source_type(carried)])
        self._archive_units: dict[str, list[int]] = {}
        self._unit_lengths: list[int] = []
        self._sample: list[str] = []
        self._range_rows = max(_SAMPLE_EVERY, memory_bytes // _SORT_BYTES)
        self._touched: set[int] = set()
        self._lost_of: Counter[int] = Counter()  # unit -> its loose sources that are not listed, when they are pruned
        self._dead: set[int] = set()
        self.unlisted: set[int] = set()  # units of archives that the listing does not name
        self._database = duckdb.connect(
            config={
                "memory_limit": f"{memory_bytes >> 20}MiB",
                "temp_directory": str(folder / "spill"),
                "threads": 2,
                "preserve_insertion_order": False,
                "autoinstall_known_extensions": False,
            }
        )
        self._database.execute("SET enable_progress_bar = false")  # it would go to the job's stdout

    def close(self) -> None:
        self._database.close()

    def add_listing(self, sources: Iterable[Source]) -> None:
        """The listing in any order; of a uri named twice the first counts."""
        with self._writer("listed") as listed:
            iterator = iter(sources)
            sequence = 0
            while batch := list(islice(iterator, _BATCH_SOURCES)):
                nowhere = np.full(len(batch), _NEW)
                place = [np.arange(sequence, sequence + len(batch)), nowhere, nowhere]
                listed.write_table(self._table(place, sources_array(batch, self._carried)))
                self._sample += [source.uri for source in batch[::_SAMPLE_EVERY]]
                sequence += len(batch)

    def add_planned(self, sources_of_units: Iterable[pa.ListArray]) -> None:
        """The sources of the planned units: one list a unit, of `source_type`."""
        number = 0
        with self._writer("planned") as planned:
            for lists in sources_of_units:
                sources = lists.flatten()
                lengths = lists.value_lengths().to_numpy(zero_copy_only=False)
                unit_no = np.repeat(np.arange(number, number + len(lists)), lengths)
                position = np.arange(len(sources)) - np.repeat(np.cumsum(lengths) - lengths, lengths)
                leads = self._leads(sources, unit_no)
                table = self._table([np.full(len(sources), _PLANNED), unit_no, position], sources)
                planned.write_table(table.filter(pa.array(leads)))
                self._sample += sources.field("uri").take(pa.array(np.flatnonzero(leads)[::_SAMPLE_EVERY])).to_pylist()
                self._unit_lengths += lengths.tolist()
                number += len(lists)

    def _leads(self, sources: pa.StructArray, unit_no: np.ndarray) -> np.ndarray:
        """True once a source: an archive stands in each of its units. Remembers the units of each archive."""
        leads = np.ones(len(sources), bool)
        archives = pc.invert(_loose(sources.field("kind"))).to_numpy(zero_copy_only=False)
        for place in np.flatnonzero(archives):
            units = self._archive_units.setdefault(sources.field("uri")[place].as_py(), [])
            leads[place] = not units
            units.append(int(unit_no[place]))
        return leads

    def compare(self, *, prune: bool = False) -> SourceCounts:
        """Finds what is new, what changed and what is gone.

        Args:
            prune: what is gone counts as a change: its units are touched, or dead if nothing else is in them.
        Raises:
            OutputError: a loose picture is an archive now, or the other way round.
        """
        new = changed = unchanged = gone = 0
        last: pa.Table | None = None
        with self._writer("to_cut") as to_cut, self._writer("changed") as loose:

            def lose(lost: pa.Table) -> int:
                for uri in lost.filter(pc.invert(_loose(lost["kind"])))["uri"].to_pylist():
                    self.unlisted.update(self._archive_units[uri])
                if prune:
                    loose.write_table(self._take_out(lost))
                return pc.sum(pc.not_equal(lost["kind"], str(Kind.GONE)), min_count=0).as_py()

            for batch in self._by_uri():
                table = batch if last is None else pa.concat_tables([last, batch])
                news, pairs, changes = self._neighbours(table, skip=0 if last is None else 1)
                archives = self._sort_out_archives(changes)
                to_cut.write_table(pa.concat_tables([news, changes.filter(archives)]).sort_by("uri"))
                loose.write_table(changes.filter(pc.invert(archives)))
                gone += lose(self._lost(table))
                last = table.slice(table.num_rows - 1)
                new += news.num_rows
                changed += changes.num_rows
                unchanged += pairs - changes.num_rows
            gone += lose(self._lost(last, at_end=True)) if last is not None else 0
        emptied = {number for number, lost in self._lost_of.items() if lost == self._unit_lengths[number]}
        self._dead |= emptied
        self._touched -= emptied
        return SourceCounts(new, changed, unchanged, gone)

    def _lost(self, table: pa.Table, *, at_end: bool = False) -> pa.Table:
        """The planned rows that no listed one follows; of the last row that is known at the end only."""
        uris = table["uri"].combine_chunks()
        followed = np.append(pc.equal(uris[1:], uris[:-1]).to_numpy(zero_copy_only=False), not at_end)
        return table.filter(pa.array((table["seq"].to_numpy() == _PLANNED) & ~followed.astype(bool)))

    def _take_out(self, lost: pa.Table) -> pa.Table:
        """Those of these loose sources that are not out yet, as they stand in their units from now on."""
        self._dead |= self.unlisted
        loose = lost.filter(_loose(lost["kind"]))
        self._lost_of.update(loose["unit_no"].to_pylist())
        fresh = loose.filter(pc.not_equal(loose["kind"], str(Kind.GONE)))
        self._touched.update(fresh["unit_no"].to_pylist())
        columns = {name: fresh[name] for name in self._schema.names}
        for name in ("size_bytes", "version", "modified_us"):
            columns[name] = pa.nulls(len(fresh), pa.string() if name == "version" else pa.int64())
        columns["kind"] = pa.repeat(pa.scalar(str(Kind.GONE)), len(fresh))
        columns["seq"] = pa.repeat(pa.scalar(0, pa.int64()), len(fresh))  # behind the planned row
        return pa.table(columns).cast(self._schema)

    def _neighbours(self, table: pa.Table, skip: int) -> tuple[pa.Table, int, pa.Table]:
        """New rows, how many listed rows were planned, and those of them that changed, with their place.

        table: sorted by uri and seq; its first `skip` rows were looked at before.
        """
        uris = table["uri"].combine_chunks()
        same = np.concatenate([[False], pc.equal(uris[1:], uris[:-1]).to_numpy(zero_copy_only=False)])
        listed = table["seq"].to_numpy() != _PLANNED
        after_planned = same & np.concatenate([[False], ~listed[:-1]])
        fresh_rows = np.arange(table.num_rows) >= skip
        news = table.filter(pa.array(listed & ~same & fresh_rows)).select(self._schema.names).cast(self._schema)
        pairs = np.flatnonzero(listed & after_planned & fresh_rows)
        return news, len(pairs), self._changes(table.take(pa.array(pairs - 1)), table.take(pa.array(pairs)))

    def _changes(self, planned: pa.Table, listed: pa.Table) -> pa.Table:
        """Those rows of `listed` that say something new about the same row of `planned`, at its place.

        A listing that does not know the version says nothing against the planned one, unless the size differs.
        """
        resized = pc.fill_null(pc.not_equal(listed["size_bytes"], planned["size_bytes"]), False)
        other = pc.fill_null(pc.not_equal(listed["version"], planned["version"]), True)
        fresh = pc.if_else(pc.is_null(listed["version"]), resized, other)
        fresh = pc.or_(fresh, pc.equal(planned["kind"], str(Kind.GONE)))
        differs = pc.or_(fresh, pc.not_equal(listed["kind"], planned["kind"]))
        if self._carried:
            differs = pc.or_(differs, pc.not_equal(listed["carried_hash"], planned["carried_hash"]))
        columns = {name: listed[name] for name in self._schema.names}
        columns |= {name: planned[name] for name in ("unit_no", "position")}
        for name in ("size_bytes", "version", "modified_us"):
            columns[name] = pc.if_else(fresh, listed[name], planned[name])
        differs_in_form = pc.not_equal(_loose(planned["kind"]), _loose(listed["kind"]))
        for place in np.flatnonzero(differs_in_form.to_numpy())[:1]:
            raise OutputError(
                f"{listed['uri'][place]}: planned as {planned['kind'][place]}, now listed as {listed['kind'][place]}. "
                "Write to another --output."
            )
        return pa.table(columns).cast(self._schema).filter(differs)

    def _sort_out_archives(self, changes: pa.Table) -> pa.ChunkedArray:
        """Which of `changes` are archives; their units are dead, those of the others touched."""
        archives = pc.invert(_loose(changes["kind"]))
        for uri in changes.filter(archives)["uri"].to_pylist():
            self._dead.update(self._archive_units[uri])
        self._touched.update(changes.filter(pc.invert(archives))["unit_no"].to_pylist())
        return archives

    def dead(self) -> list[int]:
        return sorted(self._dead)

    def to_cut(self) -> Iterator[Source]:
        """Sorted by uri: the new sources, and the archives that changed, as they are now."""
        for batch in self._batches("to_cut"):
            yield from self._sources(batch)

    def touched(self) -> Iterator[tuple[Source, ...]]:
        """The sources of each touched unit in their old order, as they are now."""
        touched = sorted(self._touched)
        if not touched:
            return
        wanted = pa.array(touched, pa.int64())
        with self._writer("kept") as kept:  # no others: what is pruned may be most of what changed
            for batch in chain(self._batches("planned"), self._batches("changed")):
                kept.write_table(pa.table(batch.filter(pc.is_in(batch.column("unit_no"), wanted))))

        def rows() -> Iterator[tuple[int, int, Source]]:
            for table in self._by_unit(touched):
                yield from zip(
                    table["unit_no"].to_pylist(), table["position"].to_pylist(), self._sources(table), strict=True
                )

        for _, unit in groupby(rows(), itemgetter(0)):
            latest = {position: source for _, position, source in unit}  # the changed row comes after the planned
            yield tuple(latest.values())

    def _batches(self, name: str) -> Iterator[pa.RecordBatch]:
        # What pyarrow reads ahead of the batches (`pre_buffer`) would stay in memory until the last one.
        with pq.ParquetFile(self._path(name), pre_buffer=False) as file:
            yield from file.iter_batches(_BATCH_SOURCES)

    def _sources(self, rows: pa.Table | pa.RecordBatch) -> list[Source]:
        table = pa.table(rows) if isinstance(rows, pa.RecordBatch) else rows
        columns = [table[name].combine_chunks() for name in self._columns]
        return sources_from(pa.StructArray.from_arrays(columns, names=self._columns))

    def _by_uri(self) -> Iterator[pa.Table]:
        """Planned and listed rows by uri, a planned row first, then in the order of the listing."""
        step = self._range_rows // _SAMPLE_EVERY
        bounds = sorted(set(sorted(self._sample)[step::step]))
        for low, high in pairwise([None, *bounds, None]):
            yield from self._sorted(("planned", "listed"), "uri", low, high, "uri, seq")

    def _by_unit(self, touched: Sequence[int]) -> Iterator[pa.Table]:
        """The kept rows by unit and position, a changed one last. touched: ascending numbers of units."""
        rows = np.cumsum([self._unit_lengths[number] for number in touched])
        bounds = [touched[place] for place in (np.flatnonzero(np.diff(rows // self._range_rows)) + 1).tolist()]
        for low, high in pairwise([None, *bounds, None]):
            yield from self._sorted(("kept",), "unit_no", low, high, "unit_no, position, seq")

    def _sorted(self, names: Sequence[str], key: str, low: object, high: object, order: str) -> Iterator[pa.Table]:
        """Rows with low <= key < high (None: no bound), in batches; with a hash of carried values, if there are any."""
        columns = "*, hash(carried) AS carried_hash" if self._carried else "*"
        files = ", ".join("'" + str(self._path(name)).replace("'", "''") + "'" for name in names)
        bounds = {f"{key} >= ?": low, f"{key} < ?": high}
        conditions = [text for text, bound in bounds.items() if bound is not None]
        where = f"WHERE {' AND '.join(conditions)}" if conditions else ""
        query = f"SELECT {columns} FROM read_parquet([{files}]) {where} ORDER BY {order}"
        # A relation streams its result; that of `execute` would be whole in memory.
        relation = self._database.sql(query, params=[bound for bound in bounds.values() if bound is not None])
        with relation.to_arrow_reader(_BATCH_SOURCES) as reader:
            yield from (pa.table(batch) for batch in reader if batch.num_rows)

    def _table(self, place: Sequence[np.ndarray], sources: pa.StructArray) -> pa.Table:
        return pa.table([*map(pa.array, place), *sources.flatten()], schema=self._schema)

    def _path(self, name: str) -> Path:
        return self._folder / f"{name}.parquet"

    def _writer(self, name: str) -> pq.ParquetWriter:
        return pq.ParquetWriter(self._path(name), self._schema, compression="snappy")


def _loose(kinds: pa.Array | pa.ChunkedArray) -> pa.Array | pa.ChunkedArray:
    return pc.is_in(kinds, value_set=pa.array([str(Kind.PICTURE), str(Kind.GONE)]))
