"""The table of results: one row a picture, telling what became of it. One Parquet file a unit, its commit record.

    results/part-<unit>.parquet     written last, after the unit's copies, in one atomic step

A unit is done if its file's footer has today's settings and the commit of the detections that were masked. Knows rows,
files and footers; not how copies are made.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from tinyface_core.storage import Storage
from tinyface_core.tables.commit import encode
from tinyface_core.tables.footer import THREADS, Footer, batches, list_files, read_footer, unit_of_images
from tinyface_core.tables.unit_tables import SORT_KEYS, UnitTotals

RESULTS = "results"
# Beside the classes of docs/guarantees.md. NOT_EXAMINED: an error row of the detection; nobody knows its faces.
# CHANGED: other bytes than those that were examined.
NOT_EXAMINED, CHANGED = "not_examined", "changed"

_dictionary = pa.dictionary(pa.int32(), pa.string())
RESULTS_SCHEMA = pa.schema(
    [
        pa.field("image_id", pa.string(), nullable=False),
        pa.field("uri", pa.string(), nullable=False),
        pa.field("member", pa.string()),
        pa.field("status", _dictionary, nullable=False),  # written or error
        pa.field("error_class", _dictionary),
        pa.field("error_message", pa.string()),
        pa.field("path", pa.string()),  # of the copy, below the destination; null where there is none
        pa.field("format", _dictionary),
        pa.field("size_bytes", pa.int64()),
        pa.field("sha256", pa.string()),
        pa.field("faces_masked", pa.int32(), nullable=False),  # 0 where there is no copy
        pa.field("unit", pa.string(), nullable=False),
        pa.field("commit", pa.string(), nullable=False),  # of the detections that were masked
    ]
)


def _plain(field: pa.Field) -> pa.Field:
    return field.with_type(field.type.value_type) if pa.types.is_dictionary(field.type) else field


# Between the stages. kind: "record" (one picture), "end" (the unit has `count` of them) or "stop" (error_message).
ROW_SCHEMA = pa.schema(
    [
        pa.field("kind", pa.string(), nullable=False),
        pa.field("index", pa.int32(), nullable=False),
        pa.field("count", pa.int32()),
        *(_plain(field).with_nullable(True) for field in RESULTS_SCHEMA),
    ]
)


def rows_table(rows: Iterable[Mapping[str, Any]]) -> pa.Table:
    return pa.Table.from_pylist(list(rows), schema=ROW_SCHEMA)


def end_row(unit: str, count: int) -> dict[str, Any]:
    return {"unit": unit, "kind": "end", "index": -1, "count": count}


def stop_row(unit: str, message: str) -> dict[str, Any]:
    return {"unit": unit, "kind": "stop", "index": -1, "error_message": message}


def unit_results(rows: pa.Table) -> pa.Table:
    """The results of a whole unit, as they are written; rows: as `UnitCollector` gives them."""
    records = rows.filter(pc.equal(rows["kind"], "record"))
    order = pc.sort_indices(
        pa.table({"uri": records["uri"], "member": pc.fill_null(records["member"], ""), "index": records["index"]}),
        sort_keys=[*SORT_KEYS, ("index", "ascending")],
    )
    records = records.take(order).combine_chunks()
    columns = [
        records[field.name].dictionary_encode().cast(field.type)
        if pa.types.is_dictionary(field.type)
        else records[field.name]
        for field in RESULTS_SCHEMA
    ]
    return pa.Table.from_arrays(columns, schema=RESULTS_SCHEMA)


def totals_of(results: pa.Table) -> UnitTotals:
    """faces: masked ones."""
    classes = pc.value_counts(pc.drop_null(results["error_class"].cast(pa.string())))
    errors = {each["values"].as_py(): each["counts"].as_py() for each in classes}
    return UnitTotals(len(results), pc.sum(results["faces_masked"]).as_py() or 0, errors)


@dataclass(frozen=True)
class ResultFiles:
    """The files of one destination's table. settings_hash: of how faces are hidden; model_hash: of who found them."""

    storage: Storage
    destination_uri: str
    settings_hash: str
    model_hash: str

    def uri(self, unit: str) -> str:
        return f"{self.destination_uri}/{RESULTS}/part-{unit}.parquet"

    def write(self, unit: str, commit: str, results: pa.Table) -> UnitTotals:
        """Commits a unit whose copies are written; gives its counts. Raises: StorageError."""
        totals = totals_of(results)
        footer = Footer(unit, commit, self.settings_hash, self.model_hash, commit, totals)
        self.storage.write(self.uri(unit), encode(results, footer, {"image_id", "sha256", "path"}, SORT_KEYS))
        return totals

    def found(self) -> dict[str, Footer]:
        """unit -> footer of each file that is whole; of others settings that no run has, so that they are redone."""
        ours = (info for info in list_files(self.storage, self.destination_uri, RESULTS) if unit_of_images(info.uri))
        result = {}
        with ThreadPoolExecutor(THREADS) as pool:
            for batch in batches(ours, 512):
                footers = pool.map(lambda info: read_footer(self.storage, info), batch)
                for info, footer in zip(batch, footers, strict=True):
                    unit = unit_of_images(info.uri) or ""
                    result[unit] = footer or Footer(unit, "", "", "")
        return result

    def is_done(self, footer: Footer | None, commit: str) -> bool:
        """Whether a unit's file tells of these detections under today's settings."""
        return footer is not None and footer.settings_hash == self.settings_hash and footer.commit == commit

    def delete(self, unit: str) -> None:
        self.storage.delete(self.uri(unit))

    def tables(self, columns: list[str]) -> Iterator[pa.Table]:
        """These columns of all files, one after the other. Raises: ObjectError, StorageError."""
        for info in list_files(self.storage, self.destination_uri, RESULTS):
            if unit_of_images(info.uri):
                with self.storage.open(info.uri) as file, pq.ParquetFile(file) as results:
                    yield results.read(columns=columns)
