"""Damaged archives of every kind: rows and an end, whatever is in them, and the same again when read again.

benchmarks/fuzz.py drives the same properties for as long as one likes.
"""

from __future__ import annotations

import os
import tempfile
import time
import zipfile
from itertools import islice
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.unit.archives import parquet_bytes, save, some_members, tar_bytes, whole, zip_bytes
from tests.unit.mutations import damaged, damaged_parquets, damaged_tars, damaged_tgzs, damaged_zips
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.read import read_unit
from tinyface_core.archive.record import Record, Unit, UnitEnd
from tinyface_core.archive.units import cut_units
from tinyface_core.errors import ErrorClass, Stage
from tinyface_core.storage import Storage

MEMBERS = [*some_members(4, 60), ("é" * 60 + ".jpg", b"1"), ("x.json", b"{}")]
TOLD = {
    ErrorClass.TRUNCATED,
    ErrorClass.CORRUPT,
    ErrorClass.NOT_AN_IMAGE,  # a Parquet file whose columns are none of pictures any more
    ErrorClass.UNSUPPORTED,
    ErrorClass.TOO_LARGE,
    ErrorClass.MEMBER_CORRUPT,
    ErrorClass.ENCRYPTED,
    ErrorClass.UNREADABLE,  # a row of a Parquet file without bytes
    ErrorClass.OUT_OF_MEMORY,
}
MOST_RECORDS = 300  # no change makes more members of six
LONGEST_S = 20.0
MEMORY = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None  # thousands of small files, none worth a disk

TAR, ZIP, LZMA = tar_bytes(MEMBERS), zip_bytes(MEMBERS), zip_bytes(MEMBERS[:3], zipfile.ZIP_LZMA)
PARQUET = parquet_bytes(MEMBERS)
ARCHIVES: dict[str, tuple[str, st.SearchStrategy[bytes]]] = {
    "tar": ("a.tar", damaged_tars(TAR)),
    "tar.gz": ("a.tar.gz", damaged_tgzs(TAR)),
    "zip": ("a.zip", damaged_zips(ZIP)),
    "zip lzma": ("a.zip", damaged_zips(LZMA)),
    "parquet": ("a.parquet", damaged_parquets(PARQUET)),
    "parquet groups": ("a.parquet", damaged_parquets(parquet_bytes(some_members(3, 40), 3, label=["a", None, "c"]))),
    "any bytes": ("a.tar", st.one_of(damaged(TAR), damaged(ZIP))),
}


def rows_of(unit: Unit, only: frozenset[int] | None = None) -> tuple[list[Record], UnitEnd]:
    """All that reading gives, checked for what holds for every archive."""
    begun = time.process_time()
    *records, end = islice(read_unit(unit, Storage(), CandidateFilter(), only=only), MOST_RECORDS)
    assert time.process_time() - begun < LONGEST_S
    assert isinstance(end, UnitEnd)
    rows = [record for record in records if isinstance(record, Record)]
    assert len(rows) == len(records)
    assert [row.index for row in rows] == [index for index in range(end.count) if only is None or index in only]
    assert len({row.image_id for row in rows}) == len(rows)
    for row in rows:
        assert (row.data is None) != (row.error is None)
        (row.member or "").encode()  # tables hold UTF-8
        if row.error is not None:
            assert row.error.stage is Stage.ARCHIVE, row
            assert row.error.error_class in TOLD, row
    return rows, end


def check_archive(name: str, data: bytes) -> None:
    """Read as a whole, again, each third of it alone, and in units."""
    with tempfile.TemporaryDirectory(prefix="fuzz", dir=MEMORY) as folder:
        source = save(Path(folder) / name, data)
        rows, end = rows_of(whole(source))
        assert rows_of(whole(source)) == (rows, end)
        for wanted in {0, len(rows) // 2, len(rows) - 1} if rows else set():
            assert rows_of(whole(source), frozenset({wanted})) == (rows[wanted : wanted + 1], end)
        for unit in cut_units([source], Storage(), CandidateFilter(), unit_pictures=2, unit_bytes=3000):
            rows_of(unit)


@pytest.mark.parametrize("kind", ARCHIVES)
def test_a_damaged_archive_is_rows_and_an_end(kind: str) -> None:
    name, archives = ARCHIVES[kind]

    @settings(max_examples=80, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])
    @given(archives)
    def holds(data: bytes) -> None:
        check_archive(name, data)

    holds()
