"""Zips (zip64 too): the directory at the end, then each member by range reads.

The standard library reads; here are its limits. A member that is damaged or encrypted costs one row, a directory that
cannot be read costs the archive, and one that leaves members out a row behind those of its members. Passwords are not
asked for.
"""

from __future__ import annotations

import io
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from lzma import LZMAError
from typing import Any, BinaryIO, cast

from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.members import (
    MAX_MEMBERS,
    MAX_RATIO,
    RATIO_FROM_BYTES,
    ArchiveBroken,
    Numbering,
    Occurrences,
    refusal,
    shown,
    too_large,
)
from tinyface_core.archive.record import Record, Source, Unit
from tinyface_core.archive.zip_directory import DirectoryPart, overlapping, read_entries
from tinyface_core.archive.zip_end import END_BYTES, End, find_end, unnamed_members
from tinyface_core.errors import ErrorClass, PictureError, Stage
from tinyface_core.storage import Storage

_MAX_READ_BYTES = 128 << 20  # also bounds the directory, which the library reads at once: about 1.5 million members
_ENCRYPTED, _UTF8 = 0x1, 0x800  # flag bits
_PIECE_BYTES = 1 << 20
_PACKED_PIECE_BYTES = 4096  # bzip2 and lzma unpack all of what they are given, up to 20,000 times its size
_DAMAGE = (
    zipfile.BadZipFile,
    zlib.error,
    LZMAError,
    EOFError,
    struct.error,
    OSError,
    ValueError,
    RuntimeError,
    OverflowError,  # an offset that no file can have
)
_OVERLAPS = PictureError(
    Stage.ARCHIVE, ErrorClass.MEMBER_CORRUPT, "the member's data reach into the next member's: a zip bomb?"
)


def read_zip(unit: Unit, storage: Storage, candidates: CandidateFilter, numbering: Numbering) -> Iterator[Record]:
    """A record for each candidate member. Raises: ArchiveBroken, ObjectError, StorageError."""
    source = unit.sources[0]
    start, stop = unit.start or 0, unit.stop
    with storage.open(source.url, source.version) as file, _directory(file, unit) as (archive, first, end):
        left_out = _left_out(file, end) if stop is None else None  # now: the directory is still in the file's window
        occurrences = Occurrences(unit.occurrences)
        overlaps = overlapping(archive.infolist(), archive.start_dir)
        for index, info in enumerate(archive.infolist(), start=first):
            if stop is not None and index >= stop:
                return
            if is_folder(info):
                continue
            name = raw_name(info) or b"%d" % index
            occurrence = occurrences.of(name, index)
            if index < start:
                continue
            skipped = skipped_as(info, name, candidates)
            if skipped is not None:
                numbering.skipped[skipped] += 1
            elif not numbering.wants_next():
                numbering.pass_over()
            else:
                outcome = _OVERLAPS if index - first in overlaps else _member(archive, info, shown(name))
                yield numbering.record(source, (name, occurrence), outcome, size_bytes=info.file_size)
        if left_out is not None:
            raise left_out


@contextmanager
def opened(source: Source, storage: Storage, unit: Unit) -> Iterator[tuple[zipfile.ZipFile, int]]:
    """The zip with its directory read, or the unit's part of it, and the index of the first member that is there.

    Raises: ArchiveBroken, ObjectError, StorageError.
    """
    with storage.open(source.url, source.version) as file, _directory(file, unit) as (archive, first, _):
        yield archive, first


@contextmanager
def _directory(file: BinaryIO, unit: Unit) -> Iterator[tuple[zipfile.ZipFile, int, End | None]]:
    """As `opened`, and the zip's end where that was sought."""
    part, end = _part(file, unit), None
    try:
        if part is None and (end := find_end(file)) is None:
            raise zipfile.BadZipFile("File is not a zip file")
        archive = zipfile.ZipFile(cast(Any, _Bounded(file, end) if end else part))
    except NotImplementedError as error:
        raise ArchiveBroken(ErrorClass.UNSUPPORTED, str(error)) from error
    except _DAMAGE as error:
        raise _why_not(file, error) from error
    with archive:
        if len(archive.infolist()) > MAX_MEMBERS:
            message = f"{len(archive.infolist())} members, the limit is {MAX_MEMBERS}: split the archive"
            raise ArchiveBroken(ErrorClass.TOO_LARGE, message)
        yield archive, (unit.start or 0) if part else 0, end


def _left_out(file: BinaryIO, end: End | None) -> ArchiveBroken | None:
    """What the last unit of a zip ends with where the zip holds members that its directory does not name."""
    end = end or find_end(file)
    gaps = unnamed_members(file, end) if end else []
    if not gaps:
        return None
    message = (
        f"{sum(size for _, size in gaps)} bytes, from byte {gaps[0][0]} on, hold more members that the directory does "
        "not name: were several zips joined? Their pictures are not read: split them, or mend the zip with `zip -FF`"
    )
    return ArchiveBroken(ErrorClass.CORRUPT, message)


def _part(file: BinaryIO, unit: Unit) -> DirectoryPart | None:
    """None where the plan did not find the unit's entries, or they do not stand there: then all is read."""
    count = None if unit.stop is None else unit.stop - (unit.start or 0)
    entries = read_entries(file, unit.byte_offset, count) if unit.byte_offset else None
    return None if entries is None else DirectoryPart(file, unit.byte_offset, entries)


def raw_name(info: zipfile.ZipInfo) -> bytes:
    """The bytes of the name in the directory: many writers store UTF-8 without saying so."""
    return info.orig_filename.encode("utf-8" if info.flag_bits & _UTF8 else "cp437", "surrogateescape")


def is_folder(info: zipfile.ZipInfo) -> bool:
    """One that holds data is a member. `ZipInfo.is_dir` fails at a member without a name."""
    return info.filename.endswith("/") and info.file_size == 0


def skipped_as(info: zipfile.ZipInfo, name: bytes, candidates: CandidateFilter) -> str | None:
    """What a member is counted under when it is no candidate; links are `special`, as in tars."""
    is_link = stat.S_ISLNK(info.external_attr >> 16)
    return candidates.member_skipped_as(shown(name)) or ("special" if is_link else None)


def _member(archive: zipfile.ZipFile, info: zipfile.ZipInfo, name: str) -> bytes | PictureError:
    if (refused := refusal(name, info.file_size)) is not None:
        return refused
    if info.flag_bits & _ENCRYPTED:
        return PictureError(Stage.ARCHIVE, ErrorClass.ENCRYPTED, "the member is encrypted: unpack it with its password")
    if info.file_size > max(RATIO_FROM_BYTES // 4, MAX_RATIO * 5 * info.compress_size):
        return too_large(f"{info.file_size} bytes out of {info.compress_size}", f"{MAX_RATIO * 5} times")
    try:
        data = _unpacked(archive, info)
    except NotImplementedError as error:
        return PictureError(Stage.ARCHIVE, ErrorClass.UNSUPPORTED, str(error))
    except MemoryError:
        return PictureError(Stage.ARCHIVE, ErrorClass.OUT_OF_MEMORY, f"{info.file_size} bytes do not fit in memory")
    except _DAMAGE as error:
        return PictureError(
            Stage.ARCHIVE, ErrorClass.MEMBER_CORRUPT, f"the member is damaged: {str(error) or type(error).__name__}"
        )
    if len(data) != info.file_size:
        message = f"unpacks to {len(data)} bytes, the directory says {info.file_size}"
        return PictureError(Stage.ARCHIVE, ErrorClass.MEMBER_CORRUPT, message)
    return data


def _unpacked(archive: zipfile.ZipFile, info: zipfile.ZipInfo) -> bytes:
    """In pieces, as what is allocated must follow what is there, not what a header claims."""
    bounded = info.compress_type in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
    with archive.open(info) as file:
        return b"".join(iter(lambda: file.read(_PIECE_BYTES if bounded else _PACKED_PIECE_BYTES), b""))


def _why_not(file: BinaryIO, error: Exception) -> ArchiveBroken:
    """A zip cut short lost its directory, which stands at the end, but still begins like one."""
    file.seek(0)
    head = file.read(4)
    if not head:
        return ArchiveBroken(ErrorClass.TRUNCATED, "the zip is empty (0 bytes)")
    if head == b"PK\x03\x04" and "not a zip file" in str(error):
        return ArchiveBroken(ErrorClass.TRUNCATED, "no directory at the end of the zip: cut short?")
    return ArchiveBroken(ErrorClass.CORRUPT, f"the zip is damaged: {str(error) or type(error).__name__}")


class _Bounded:
    """The zip up to its end record, shown without a comment: the library takes the last that looks like one.

    Refuses a read that only a lying header can want.
    """

    def __init__(self, file: BinaryIO, end: End) -> None:
        self._file = file
        self._size = end.at + END_BYTES

    def read(self, size: int = -1) -> bytes:
        start = self._file.tell()
        left = max(0, self._size - start)  # asked for more, the file would reserve it
        wanted = left if size is None or size < 0 else min(size, left)
        if wanted > _MAX_READ_BYTES:
            raise ArchiveBroken(ErrorClass.TOO_LARGE, f"a directory of more than {_MAX_READ_BYTES} bytes")
        data = self._file.read(wanted)
        comment_from = max(0, self._size - 2 - start)  # its length, the last two bytes of the record
        return data if len(data) <= comment_from else data[:comment_from].ljust(len(data), b"\0")

    def seekable(self) -> bool:
        return True

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        if whence == io.SEEK_END:
            offset, whence = offset + self._size, io.SEEK_SET
        return self._file.seek(offset, whence)

    def tell(self) -> int:
        return self._file.tell()
