"""Where a large archive is cut into units: by a zip's directory, a tar's headers, a Parquet file's footer.

Reads no picture. What is damaged behind a cut is left to the last unit, which is open to the end: reading it gives
the error row.
"""

from __future__ import annotations

import builtins
import tarfile
from bisect import bisect_right
from dataclasses import dataclass, field

from pyarrow.parquet import ParquetFile, RowGroupMetaData

from tinyface_core.archive import parquet, zip
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.members import MAX_MEMBERS, ArchiveBroken, Occurrences, shown
from tinyface_core.archive.record import Source, Unit
from tinyface_core.archive.tar import Members, is_plain
from tinyface_core.archive.zip_directory import entry_offsets
from tinyface_core.storage import Storage

_MAX_ROWS = 100_000_000  # of one Parquet file; a damaged footer may tell of more than memory can list
_SLACK = 2  # a row group is read whole up to this many times the limits: to cut it means to decode it twice


@dataclass(frozen=True)
class UnitLimits:
    """What a unit may hold: candidates, and their encoded bytes."""

    pictures: int
    bytes: int


def split_zip(source: Source, storage: Storage, candidates: CandidateFilter, limits: UnitLimits) -> list[Unit]:
    """Units by unpacked size. Raises: ArchiveBroken, ObjectError, StorageError."""
    cuts, size = [_Cut(0, 0)], 0
    occurrences, name_sizes = Occurrences(), []
    with zip.opened(source, storage, Unit((source,), 0)) as (archive, _):
        for index, info in enumerate(archive.infolist()):
            raw = zip.raw_name(info)
            name = raw or b"%d" % index
            name_sizes.append(len(raw))
            if zip.is_folder(info):
                continue
            counted = zip.skipped_as(info, name, candidates) is None
            full = cuts[-1].count >= limits.pictures or size + info.file_size > limits.bytes
            if counted and cuts[-1].count and full:
                cuts.append(_Cut(index, 0))
                size = 0
            cuts[-1].count += counted
            size += info.file_size * counted
            if occurrence := occurrences.of(name):
                cuts[-1].occurrences[index] = occurrence
        offsets = entry_offsets(archive, name_sizes)
    for cut in cuts if len(cuts) > 1 else ():
        cut.offset = offsets[cut.index]
    return _units(source, cuts)


@dataclass
class _Cut:
    """A unit that is being gathered. offset: of its first header in a tar, of its first entry in a zip's directory."""

    index: int
    offset: int
    count: int = 0
    occurrences: dict[int, int] = field(default_factory=dict)


def split_tar(source: Source, storage: Storage, candidates: CandidateFilter, limits: UnitLimits) -> list[Unit]:
    """Units of a plain tar, found by walking its headers. Raises: ArchiveBroken, ObjectError, StorageError."""
    cuts = [_Cut(0, 0)]
    occurrences = Occurrences()
    with storage.open(source.url, source.version) as file:
        members = Members(file, seekable=True)
        try:
            for index, member in enumerate(members):
                if set(members.global_headers) - {"comment"}:
                    return [Unit((source,), 0)]  # they would have to be known to every unit behind them
                if index >= MAX_MEMBERS:
                    break
                if not is_plain(member.info):
                    continue
                name = member.name or b"%d" % index
                counted = candidates.member_skipped_as(shown(name)) is None
                here = cuts[-1]
                full = here.count >= limits.pictures
                if counted and here.count and (full or _end_of(member.info) - here.offset > limits.bytes):
                    here = _Cut(index, member.info.offset)
                    cuts.append(here)
                here.count += counted
                if occurrence := occurrences.of(name):
                    here.occurrences[index] = occurrence
        except ArchiveBroken:
            pass
    return _units(source, cuts)


def split_parquet(source: Source, storage: Storage, limits: UnitLimits) -> list[Unit]:
    """Units of rows, at borders of row groups where these are not too large.

    Raises: ArchiveBroken, ObjectError, StorageError.
    """
    with parquet.opened(source, storage) as file:
        columns = parquet.picture_columns(file.schema_arrow)
        if columns is None:
            return [Unit((source,), 0)]
        starts = _row_starts(file, limits)
        repeated: dict[int, int] = {}
        if len(starts) > 1 and columns.names is not None:
            seen = Occurrences()
            for row, name in enumerate(parquet.name_values(file, columns)):
                if occurrence := seen.of(name):
                    repeated[row] = occurrence
    cuts = [_Cut(start, 0) for start in starts]
    for row, occurrence in repeated.items():
        cuts[bisect_right(starts, row) - 1].occurrences[row] = occurrence
    return _units(source, cuts)


def _row_starts(file: ParquetFile, limits: UnitLimits) -> list[int]:
    starts, count, size, row = [0], 0, 0, 0
    for group in range(file.num_row_groups):
        rows, bytes_ = _weight(file.metadata.row_group(group))
        if rows < 0 or row + rows > _MAX_ROWS:
            return [0]
        pieces = max(-(-rows // limits.pictures), -(-bytes_ // limits.bytes))
        if rows <= _SLACK * limits.pictures and bytes_ <= _SLACK * limits.bytes:
            pieces = 1
        if count and (pieces > 1 or count + rows > limits.pictures or size + bytes_ > limits.bytes):
            starts.append(row)
            count = size = 0
        if pieces > 1:
            starts += [row + rows * piece // pieces for piece in range(1, min(pieces, rows))]
            count, size = limits.pictures, limits.bytes  # what follows begins a unit of its own
        else:
            count, size = count + rows, size + bytes_
        row += rows
    return sorted({start for start in starts if start < row} | {0})


def _weight(group: RowGroupMetaData) -> tuple[int, int]:
    """Rows and unpacked bytes of a row group, most of which are pictures.

    The size of one column is not asked for: of a damaged footer that ends the process (pyarrow 26).
    """
    return group.num_rows, max(0, group.total_byte_size)


def _units(source: Source, cuts: list[_Cut]) -> list[Unit]:
    """Each cut to the next one; the last is open to the end."""
    stops = [*(cut.index for cut in cuts[1:]), None]
    return [
        Unit((source,), cut.index, stop, cut.offset, cut.occurrences)
        for cut, stop in builtins.zip(cuts, stops, strict=True)
    ]


def _end_of(info: tarfile.TarInfo) -> int:
    return info.offset_data + info.size
