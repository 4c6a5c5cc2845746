"""Checks the files of each unit as files: that they can be read, their schema, their footers, their pairing.

Knows names, schemas and footers; what must be true of rows is checked by `check_unit.py`.
"""

from __future__ import annotations

from collections.abc import Container
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field, replace
from typing import Protocol

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq

from tinyface_core.storage import ObjectError, ObjectInfo, Storage
from tinyface_core.tables.check_unit import UnitCheck
from tinyface_core.tables.footer import Footer, folder_of
from tinyface_core.tables.format_version import FORMAT_VERSION
from tinyface_core.tables.schema import DETECTIONS_SCHEMA, images_schema
from tinyface_core.tables.unit_tables import UnitTotals

_IN_MEMORY_BYTES = 64 << 20  # a larger file is read by ranges

UNREADABLE = "cannot be read"
ROWS_UNREADABLE = "this file, or its detections file, cannot be read"
NO_RECORD = "the footer is not that of a commit record"
OTHER_UNIT = "the footer names another unit than the file's name"
OTHER_FORMAT = f"format_version is not {FORMAT_VERSION}"
NO_DETECTIONS = "the detections file that the footer names is missing"
WRONG_SCHEMA = "the schema is not the constant one"
OTHER_FOOTER = "the footer does not agree with that of the images file"
WRONG_TOTALS = "the footer's totals are not those of the rows"
WRONG_FAILED = "the records that failed, as the footer has them, are not as many as the error rows"
MIXED_SETTINGS = "settings hash or model hash differ from other files"
MIXED_CARRIED = "carried columns differ from other files"
MIXED_FOLDERS = "lies in a folder of another key than other files"


@dataclass(frozen=True)
class Violation:
    """`count` places in `file` (relative to the output) that fail one check; `example` names one."""

    file: str
    check: str
    count: int
    example: str

    def __str__(self) -> str:
        times = f" ({self.count:,} times)" if self.count > 1 else ""
        return f"{self.file}: {self.check}{times}" + (f": {self.example}" if self.example else "")


@dataclass
class UnitResult:
    """One unit. images, detections: its files, the second as the record names it; carried: further columns."""

    unit: str
    images: str
    detections: str = ""
    footer: Footer | None = None
    carried: str | None = None
    totals: UnitTotals = field(default_factory=UnitTotals)
    violations: list[Violation] = field(default_factory=list)

    @property
    def folder(self) -> str:
        """`key=value/` of a partitioned output."""
        return folder_of("", self.images)

    @property
    def key(self) -> str:
        return self.folder.partition("=")[0]

    def add(self, file: str, check: str, example: str) -> None:
        self.violations.append(Violation(file, check, 1, example))


class Ids(Protocol):
    """Where the ids of all units meet, and who lends connections."""

    def cursor(self) -> duckdb.DuckDBPyConnection: ...
    def add(self, unit: str, image_id: pa.ChunkedArray) -> None: ...


class FileChecker:
    """Checks units one by one, from several threads."""

    def __init__(self, storage: Storage, output_uri: str, detections: Container[str], ids: Ids) -> None:
        """detections: names of the files there, relative to the output."""
        self._storage = storage
        self._output_uri = output_uri
        self._present = detections
        self._ids = ids
        self._first_footer: Footer | None = None
        self._first_carried: str | None = None
        self._first_key: str | None = None

    def check(self, unit: str, info: ObjectInfo) -> UnitResult:
        """All that can be said of one unit by itself."""
        result = UnitResult(unit, info.uri.removeprefix(self._output_uri + "/"))
        with ExitStack() as files:
            self._check(result, files)
        return result

    def _check(self, result: UnitResult, files: ExitStack) -> None:
        images = self._open(result.images, result, files)
        if images is None:
            return
        footer = Footer.from_metadata(images.metadata.metadata)
        if footer is None or footer.sources_hash is None or footer.totals is None:
            result.add(result.images, NO_RECORD, "")
            return
        result.footer = footer
        result.detections = f"detections/{result.folder}part-{result.unit}-{footer.commit}.parquet"
        if footer.unit != result.unit:
            result.add(result.images, OTHER_UNIT, footer.unit)
        if footer.format_version != FORMAT_VERSION:
            result.add(result.images, OTHER_FORMAT, str(footer.format_version))
        detections = self._detections(footer, result, files)
        if _images_schema_fits(images.schema_arrow, result):
            self._check_rows(footer, images, detections, result)

    def unlike_the_others(self, result: UnitResult) -> list[Violation]:
        """What must be the same in all files, against the first one seen. For one thread."""
        found = []
        if self._first_key is None:
            self._first_key = result.key
        if result.key != self._first_key:
            found.append(Violation(result.images, MIXED_FOLDERS, 1, f"{result.key}, elsewhere {self._first_key}"))
        if result.footer is not None:
            first = self._first_footer = self._first_footer or result.footer
            hashes = (result.footer.settings_hash, result.footer.model_hash)
            if hashes != (first.settings_hash, first.model_hash):
                found.append(Violation(result.images, MIXED_SETTINGS, 1, f"{hashes}, in part-{first.unit}: {first}"))
        if result.carried is not None:
            if self._first_carried is None:
                self._first_carried = result.carried
            if result.carried != self._first_carried:
                example = f"{result.carried}, elsewhere {self._first_carried}"
                found.append(Violation(result.images, MIXED_CARRIED, 1, example))
        return found

    def _detections(self, footer: Footer, result: UnitResult, files: ExitStack) -> pq.ParquetFile | None:
        """The detections file; None when its rows cannot be checked."""
        if result.detections not in self._present:
            result.add(result.images, NO_DETECTIONS, result.detections)
            return None
        file = self._open(result.detections, result, files)
        if file is None:
            return None
        own = Footer.from_metadata(file.metadata.metadata)
        if own != replace(footer, sources_hash=None, totals=None, failed=None):
            result.add(result.detections, OTHER_FOOTER, str(own))
        difference = _difference(file.schema_arrow, DETECTIONS_SCHEMA)
        if difference:
            result.add(result.detections, WRONG_SCHEMA, difference)
        return None if difference else file

    def _check_rows(
        self, footer: Footer, images: pq.ParquetFile, detections: pq.ParquetFile | None, result: UnitResult
    ) -> None:
        identity = {"unit": result.unit, "commit": footer.commit}
        check = UnitCheck(self._ids.cursor(), images, detections, identity, lambda ids: self._ids.add(result.unit, ids))
        try:
            check.run()
        except (pa.ArrowException, OSError) as error:
            result.add(result.images, ROWS_UNREADABLE, str(error))
            return
        for file, found in ((result.images, check.images), (result.detections, check.detections)):
            result.violations += [Violation(file, each.check, each.count, each.example) for each in found.values()]
        skipped = footer.totals.skipped if footer.totals else {}
        result.totals = replace(check.totals, skipped=skipped)
        if detections is not None and result.totals != footer.totals:
            result.add(result.images, WRONG_TOTALS, f"footer {footer.totals}, rows {check.totals}")
        failed, errors = footer.failed, sum(check.totals.errors.values())
        if failed is not None and len(failed.indexes) + (failed.onward is not None) != errors:
            result.add(result.images, WRONG_FAILED, f"footer {failed}, rows {errors}")

    def _open(self, name: str, result: UnitResult, files: ExitStack) -> pq.ParquetFile | None:
        """The file, whole in memory when it is small; its pages are verified as they are read."""
        uri = f"{self._output_uri}/{name}"
        try:
            info = self._storage.stat(uri)
            small = info is None or (info.size_bytes or 0) <= _IN_MEMORY_BYTES
            source = pa.BufferReader(self._storage.read(uri)) if small else files.enter_context(self._storage.open(uri))
            return files.enter_context(pq.ParquetFile(source, page_checksum_verification=True))
        except (ObjectError, pa.ArrowException, OSError) as error:
            result.add(name, UNREADABLE, str(error))
            return None


def _images_schema_fits(found: pa.Schema, result: UnitResult) -> bool:
    own = images_schema()
    carried = [found.field(position) for position in range(len(own), len(found))]
    difference = _difference(pa.schema([found.field(position) for position in range(min(len(own), len(found)))]), own)
    if difference:
        result.add(result.images, WRONG_SCHEMA, difference)
        return False
    result.carried = ", ".join(f"{column.name} {column.type}" for column in carried)
    return True


def _difference(found: pa.Schema, needed: pa.Schema) -> str:
    """The first column in which they differ; empty when they do not."""
    if found.equals(needed, check_metadata=False):
        return ""
    for position, column in enumerate(needed):
        with suppress(IndexError):
            if found.field(position).equals(column, check_metadata=False):
                continue
            return f"column {position} is {_shown(found.field(position))}, needed {_shown(column)}"
        return f"column {position} is missing, needed {_shown(column)}"
    return f"{len(found)} columns, needed {len(needed)}"


def _shown(column: pa.Field) -> str:
    return f"{column.name} {column.type}" + ("" if column.nullable else " not null")
