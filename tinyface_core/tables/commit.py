"""Commits units: two files, one record, exactly once; and removes what no commit stands behind.

The protocol of docs/guarantees.md, on stores without rename: first `detections/part-<unit>-<commit>.parquet`, then
`images/part-<unit>.parquet` in one atomic PUT. Until the second is there the unit is not done, and nobody reads the
first; a driver killed in between leaves a file that the sweep removes. Does not know where rows come from, nor
which units there should be.
"""

from __future__ import annotations

import threading
from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field, replace

import pyarrow as pa
import pyarrow.parquet as pq

from tinyface_core.errors import OutputError
from tinyface_core.storage import ObjectInfo, Storage
from tinyface_core.tables.footer import (
    THREADS,
    Footer,
    batches,
    denied_stops_the_run,
    detections_uri,
    folder_of,
    images_uri,
    list_files,
    read_footer,
    unit_and_commit_of_detections,
    unit_of_images,
    unit_of_temporary,
)
from tinyface_core.tables.partition import PartitionBy
from tinyface_core.tables.redo import UnitWork, committed_tables
from tinyface_core.tables.removed import Removed
from tinyface_core.tables.unit_tables import SORT_KEYS, UnitTables, UnitTotals, amended, unit_tables, without

ROW_GROUP_ROWS = 122_880  # a file of usual size is one group; DuckDB's own group size for the others
_UNIQUE_IN_IMAGES = frozenset({"image_id", "sha256"})
_UNIQUE_IN_DETECTIONS = frozenset({"x1", "y1", "x2", "y2", "score"}) | frozenset(
    {"ellipse_cx", "ellipse_cy", "ellipse_major", "ellipse_minor"}
)


def _nothing() -> None:
    pass


@dataclass(frozen=True)
class Swept:
    """How many files a sweep deleted: commit records of unplanned units; detections that no record names; and
    half-written temporary files (on disk)."""

    images: int = 0
    detections: int = 0
    temporaries: int = 0

    def __add__(self, other: Swept) -> Swept:
        return Swept(
            self.images + other.images, self.detections + other.detections, self.temporaries + other.temporaries
        )


@dataclass(frozen=True)
class Written:
    """One commit: what the unit holds now, and what of it was worked. errors: of that, by (stage, class)."""

    unit: UnitTotals
    worked: UnitTotals
    errors: Mapping[tuple[str, str], int] = field(default_factory=dict)


class Committer:
    """Writes units into one output. Safe to call from many threads; one driver at a time (see `claim.py`)."""

    def __init__(
        self,
        storage: Storage,
        output_uri: str,
        settings_hash: str,
        model_hash: str,
        carried: Iterable[pa.Field] = (),
        *,
        removed: Removed | None = None,
        partition: PartitionBy | None = None,
        check: Callable[[], None] = _nothing,
    ) -> None:
        """removed: pictures that are kept out of all that is written. partition: where units are written to. check:
        called before every write and delete; raises ClaimError when this driver may not write any more."""
        self._storage = storage
        self._output_uri = output_uri.rstrip("/")
        self._settings_hash = settings_hash
        self._model_hash = model_hash
        self._carried = tuple(carried)
        self._removed = removed or Removed()
        self._partition = partition
        self._check = check
        self._written: dict[str, str] = {}  # unit -> commit
        self._busy: set[str] = set()
        self._freed = threading.Condition()
        for table in ("images", "detections"):
            storage.make_folder(f"{self._output_uri}/{table}")

    def write(self, work: UnitWork, sources_hash: str, rows: pa.Table) -> Written:
        """Commits one whole unit; once this returns, the unit is done, and it was not before.

        Args:
            rows: of the part that was worked, as `UnitCollector.add` gives them.
        Raises:
            StorageError: the store failed; the unit is as it was before, or done.
            StopRun: rows that stand cannot be read.
            ValueError: the rows are not those of this part, or not all.
        """
        worked = unit_tables(work.part.name, rows, self._carried)
        tables, gone = worked, frozenset[str]()
        if work.stands is not None:
            images, detections = committed_tables(self._storage, work.stands)
            tables = amended(work.unit.name, (images, detections), work.replaced, worked, self._carried)
        if self._removed and (gone := self._removed.among(tables.images)):
            tables = without(tables, gone, self._carried)
        identity = (work.unit.name, tables.commit, self._settings_hash, self._model_hash)
        folder = self._partition.folder(work.unit.sources[0].uri) if self._partition else ""
        self.put(Footer(*identity, sources_hash, tables.totals, work.failed(rows, gone)), tables, folder)
        return Written(tables.totals, worked.totals, worked.errors_by_stage())

    def put(self, record: Footer, tables: UnitTables, folder: str = "") -> None:
        """Writes the two files of a unit, the commit record last. folder: as `folder_of`. Raises: StorageError."""
        plain = replace(record, sources_hash=None, totals=None, failed=None)
        detections = encode(tables.detections, plain, _UNIQUE_IN_DETECTIONS)
        images = encode(tables.images, record, _UNIQUE_IN_IMAGES, SORT_KEYS)
        where = detections_uri(self._output_uri, record.unit, record.commit, folder)
        with denied_stops_the_run(), self._alone_with(record.unit):
            if self._storage.stat(where) is None:  # else the same rows, of a driver that died before its record
                self._check()
                self._storage.write(where, detections)
            self._check()
            self._storage.write(images_uri(self._output_uri, record.unit, folder), images)
        self._written[record.unit] = record.commit

    def sweep(self, planned: AbstractSet[str], known: Mapping[str, str] | None = None) -> Swept:
        """Deletes images files of units that are not planned, detections files that no images footer names, and
        half-written files. Safe while `write` runs in other threads; names that are not ours are left alone.

        Args:
            planned: names of all units of the plan.
            known: unit -> commit as its footer said it since this driver holds the output; saves reading it again,
                as what this committer wrote itself does. It may be out of date: what is deleted was always compared
                with the footer as it is now.
        Raises:
            OutputError: there are units, but no plan: an output is never cleaned by an empty plan.
        """
        found = self._found()
        if not planned and any(files.images for files in found.values()):
            raise OutputError(
                f"{self._output_uri}: holds committed units, but the plan names none: not cleaned. "
                "Is this the output of another run? Choose an empty folder."
            )
        known = {**(known or {}), **self._written}
        suspects = (
            (unit, files) for unit, files in found.items() if unit not in planned or files.may_be_stale(known.get(unit))
        )
        swept = Swept()
        with ThreadPoolExecutor(THREADS) as pool:
            for batch in batches(suspects, 512):
                for one in pool.map(lambda suspect: self._sweep_unit(suspect[0], suspect[1], planned), batch):
                    swept += one
        return swept

    def retire(self, unit_names: Iterable[str]) -> None:
        """Deletes the images files of these units: from then on they are not committed. The sweep does the rest."""
        if not (retired := frozenset(unit_names)):
            return
        listed = (info.uri for info in list_files(self._storage, self._output_uri, "images"))
        doomed = (uri for uri in listed if unit_of_images(uri) in retired)
        with ThreadPoolExecutor(THREADS) as pool:
            for batch in batches(doomed, 512):
                list(pool.map(self._retire_unit, batch))

    def _retire_unit(self, uri: str) -> None:
        with self._alone_with(unit_of_images(uri) or ""):
            self._check()
            self._storage.delete(uri)

    def _found(self) -> dict[str, _UnitFiles]:
        found: defaultdict[str, _UnitFiles] = defaultdict(_UnitFiles)
        for table in ("images", "detections"):
            for info in list_files(self._storage, self._output_uri, table):
                if unit := unit_of_images(info.uri):
                    found[unit].images = info
                elif named := unit_and_commit_of_detections(info.uri):
                    found[named[0]].detections[info.uri] = named[1]
                elif unit := unit_of_temporary(info.uri):
                    found[unit].temporaries.append(info.uri)
        return dict(found)

    def _folder(self, files: _UnitFiles) -> str:
        """Where a unit's files lie."""
        return folder_of(self._output_uri, next(iter([*files.detections, *files.temporaries]), ""))

    def _sweep_unit(self, unit: str, files: _UnitFiles, planned: AbstractSet[str]) -> Swept:
        """Decided anew, with this unit's writer shut out: a commit may have happened since the listing."""
        doomed_images: list[str] = []
        commit = None
        with denied_stops_the_run(), self._alone_with(unit):
            record_uri = files.images.uri if files.images else images_uri(self._output_uri, unit, self._folder(files))
            record = self._storage.stat(record_uri)
            if record is not None and unit not in planned:
                doomed_images = [record_uri]
            elif record is not None:
                footer = read_footer(self._storage, record)
                if footer is None:
                    return Swept()  # unreadable, so not done: its redo comes first, and a later sweep
                commit = footer.commit
            doomed = [uri for uri, named in files.detections.items() if named != commit]
            # The record goes first: without it nobody reads the rest.
            for uri in [*doomed_images, *doomed, *files.temporaries]:
                self._check()
                self._storage.delete(uri)
        return Swept(len(doomed_images), len(doomed), len(files.temporaries))

    @contextmanager
    def _alone_with(self, unit: str) -> Iterator[None]:
        """One thread at a time works on a unit's files, whether it writes or sweeps."""
        with self._freed:
            self._freed.wait_for(lambda: unit not in self._busy)
            self._busy.add(unit)
        try:
            yield
        finally:
            with self._freed:
                self._busy.remove(unit)
                self._freed.notify_all()


@dataclass
class _UnitFiles:
    """What lies in the output under one unit's name. detections: uri -> commit in its name."""

    images: ObjectInfo | None = None
    detections: dict[str, str] = field(default_factory=dict)
    temporaries: list[str] = field(default_factory=list)

    def may_be_stale(self, known_commit: str | None) -> bool:
        """False only for a record with the one detections file that it names.

        A commit seen in the footer earlier is enough for that: another one would have brought a second file.
        """
        only = list(self.detections.values()) == [known_commit]
        return self.images is None or not only or bool(self.temporaries)


def encode(table: pa.Table, footer: Footer, unique: Container[str], sort_keys: Sequence[tuple[str, str]] = ()) -> bytes:
    """One Parquet file: zstd, page checksums, page index; column documentation is left out, being half the size.

    Args:
        unique: columns whose values never repeat: a dictionary of them would be a second copy.
        sort_keys: the order that the rows are in, for readers that can use it.
    """
    schema = pa.schema([pa.field(field.name, field.type, field.nullable) for field in table.schema])
    sorting = pq.SortingColumn.from_ordering(schema, sort_keys, null_placement="at_start") if sort_keys else None
    sink = pa.BufferOutputStream()
    with pq.ParquetWriter(
        sink,
        schema,
        compression="zstd",
        write_page_checksum=True,
        write_page_index=True,
        use_dictionary=[name for name in schema.names if name not in unique],
        sorting_columns=sorting,
    ) as writer:
        writer.write_table(table.cast(schema), row_group_size=ROW_GROUP_ROWS)
        writer.add_key_value_metadata(footer.metadata())
    return bytes(sink.getvalue())
