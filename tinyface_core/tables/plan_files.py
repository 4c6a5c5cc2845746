"""The files of a plan: generations of Parquet files, which of them count, reading and writing them.

`_run/plan/<generation>-<n>.parquet` hold rows of `plan_rows.plan_schema`; a generation counts only once its
`<generation>.complete` exists, which says how many files it has. Knows not what the rows mean.
"""

from __future__ import annotations

import io
import json
import re
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

import pyarrow as pa
import pyarrow.parquet as pq

from tinyface_core.archive.record import Unit
from tinyface_core.errors import OutputError
from tinyface_core.storage import ObjectMissing, Storage
from tinyface_core.tables.plan_rows import plan_schema, tombstones, unit_rows

_BATCH_SOURCES = 50_000
_FILE_SOURCES = 500_000


class PlanFiles:
    """The files of one output's plan."""

    def __init__(self, storage: Storage, output_uri: str, carried: Sequence[pa.Field]) -> None:
        self._storage = storage
        self._folder = f"{output_uri.rstrip('/')}/_run/plan"
        self._carried = carried

    def next_generation(self) -> GenerationWriter:
        """A writer for the generation after the last complete one; files of interrupted ones are deleted."""
        generations = self.generations()
        for info in list(self._storage.list(f"{self._folder}/")):
            match = re.fullmatch(r"(\d{6,})-(\d+)\.parquet", info.uri.rpartition("/")[2])
            if match and int(match[2]) >= generations.get(int(match[1]), 0):
                self._storage.delete(info.uri)
        return GenerationWriter(self._storage, self._folder, max(generations, default=0) + 1, self._carried)

    def generations(self) -> dict[int, int]:
        """Complete generation -> number of its files, ascending."""
        found = {}
        for info in self._storage.list(f"{self._folder}/"):
            if match := re.fullmatch(r"(\d{6,})\.complete", info.uri.rpartition("/")[2]):
                found[int(match[1])] = int(json.loads(self._storage.read(info.uri))["files"])
        return dict(sorted(found.items()))

    def read(self, *, any_carried: bool = False) -> Iterator[pq.ParquetFile]:
        """All files that count, oldest first. any_carried: whatever columns their sources carry."""
        expected = plan_schema(self._carried)
        for generation, count in self.generations().items():
            for number in range(count):
                uri = f"{self._folder}/{generation:06d}-{number}.parquet"
                try:
                    stream = self._storage.open(uri)
                except ObjectMissing as error:
                    raise OutputError(
                        f"{uri}: this part of the output's plan is missing, so what is finished cannot be told. "
                        "Put it back, or write to another --output."
                    ) from error
                with stream, pq.ParquetFile(stream) as file:
                    if not any_carried and not (found := file.schema_arrow).equals(expected):
                        raise OutputError(
                            f"{uri}: the plan was made for other --carry columns: it has "
                            f"{found.field('sources').type}, now needed is {expected.field('sources').type}. "
                            "Carry the same columns, or write to another --output."
                        )
                    yield file


class GenerationWriter:
    """Writes one generation, file by file; it counts once `complete` has ended."""

    def __init__(self, storage: Storage, folder: str, generation: int, carried: Sequence[pa.Field]) -> None:
        self.generation = generation
        self._storage = storage
        self._prefix = f"{folder}/{generation:06d}"
        self._carried = carried
        self._files = 0
        self._units: list[Unit] = []
        self._unit_sources = 0
        self._file_sources = 0
        self._buffer = io.BytesIO()
        self._writer: pq.ParquetWriter | None = None

    def add(self, unit: Unit) -> None:
        self._units.append(unit)
        self._unit_sources += len(unit.sources)
        if self._unit_sources >= _BATCH_SOURCES:
            self._flush()

    def add_tombstones(self, names: Sequence[str]) -> None:
        """Before the units of the same generation, which may bear the same names."""
        if names:
            self._write(tombstones(names, self._carried))

    def complete(self) -> None:
        self._flush()
        self._end_file()
        about = {"files": self._files, "planned": datetime.now(UTC).isoformat(timespec="seconds")}
        self._storage.write(f"{self._prefix}.complete", json.dumps(about).encode())

    def _flush(self) -> None:
        if self._units:
            self._write(unit_rows(self._units, self._carried))
            self._file_sources += self._unit_sources
        self._units, self._unit_sources = [], 0
        if self._file_sources >= _FILE_SOURCES:
            self._end_file()

    def _write(self, rows: pa.RecordBatch) -> None:
        if self._writer is None:
            self._buffer = io.BytesIO()
            self._writer = pq.ParquetWriter(self._buffer, rows.schema, compression="zstd", write_page_checksum=True)
        self._writer.write_table(pa.table(rows))  # a row group each

    def _end_file(self) -> None:
        if self._writer is not None:
            self._writer.close()
            self._storage.write(f"{self._prefix}-{self._files}.parquet", self._buffer.getvalue())
            self._files += 1
        self._writer, self._file_sources = None, 0
