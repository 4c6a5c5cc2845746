"""Tars, plain and gzipped: read as a stream, never unpacked, never whole in memory. The first bytes tell which it is.

The standard library ends in silence at a damaged header in the middle; here that is an error row. Names are only
names: nothing is written anywhere, so `../../x` is harmless.
"""

from __future__ import annotations

import gzip
import struct
import tarfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
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
)
from tinyface_core.archive.record import Kind, Record, Unit
from tinyface_core.archive.tar_headers import HeaderStream, Info
from tinyface_core.errors import ErrorClass, StorageError
from tinyface_core.storage import ObjectError, Storage

_BUFFER_BYTES = 1 << 20
_MAX_SINGLE_BYTES = 1 << 20
_GZIP = b"\x1f\x8b\x08"
_TAR_MAGIC, _TAR_MAGIC_AT = b"ustar", 257
_CUT = ("unexpected end of data", "empty file", "truncated header", "empty header")  # the library's words for it


def read_tar(unit: Unit, storage: Storage, candidates: CandidateFilter, numbering: Numbering) -> Iterator[Record]:
    """A record for each candidate member. Raises: ArchiveBroken, ObjectError, StorageError."""
    source = unit.sources[0]
    occurrences = Occurrences(unit.occurrences)
    # A stream asks once for the whole; ranges pay where most of it is not wanted.
    few = numbering.only is not None or unit.part is not None
    by_ranges = source.kind is Kind.TAR and bool(unit.byte_offset or few)
    with _opened(unit, storage, by_ranges) as (stream, seekable):
        for index, member in enumerate(Members(stream, seekable=seekable), start=unit.start or 0):
            if unit.stop is not None and index >= unit.stop:
                return
            if index >= MAX_MEMBERS:
                raise ArchiveBroken(ErrorClass.TOO_LARGE, f"more than {MAX_MEMBERS} members: split the archive")
            if member.info.isdir():
                continue
            name = member.name or b"%d" % index  # as a row of a Parquet file: an archive that breaks is the one without
            occurrence = occurrences.of(name, index) if is_plain(member.info) else 0
            skipped = candidates.member_skipped_as(shown(name)) or (None if is_plain(member.info) else "special")
            if skipped is not None:
                numbering.skipped[skipped] += 1
                continue
            refused = refusal(shown(name), member.info.size)
            if numbering.wants_next():
                outcome = refused or member.read()
                yield numbering.record(source, (name, occurrence), outcome, size_bytes=member.info.size)
            else:
                if refused is None:
                    member.pass_by()
                numbering.pass_over()


def is_plain(info: tarfile.TarInfo) -> bool:
    """A regular file that holds its own bytes: not a link, a device, or a sparse file."""
    return bool(info.isreg() and not info.issparse())


class Member:
    """One member, as the tar stands at it; `read` only before the next one is asked for."""

    def __init__(self, archive: tarfile.TarFile, info: tarfile.TarInfo) -> None:
        self._archive = archive
        self.info = info
        self.name = info.name.encode("utf-8", "surrogateescape")

    def read(self) -> bytes:
        with _damage_told():
            file = self._archive.extractfile(self.info)
            return b"" if file is None else file.read()

    def pass_by(self) -> None:
        """Fails where `read` would fail, so that numbers are the same whichever members are wanted."""
        last = self.info.offset_data + self.info.size - 1
        if self.info.size:
            with _damage_told():
                self._archive.fileobj.seek(last)
                if not self._archive.fileobj.read(1):
                    raise EOFError("unexpected end of data")


class Members:
    """Iterates over the members of a tar, or raises ArchiveBroken where the tar is damaged or cut short.

    stream: read from where it stands. seekable: skip members by seeking; else the stream is only ever read on.
    """

    def __init__(self, stream: BinaryIO, *, seekable: bool = False) -> None:
        self._stream = HeaderStream(stream, seekable=seekable)
        self.global_headers: dict[str, str] = {}  # met so far: they hold for all members behind them

    def __iter__(self) -> Iterator[Member]:
        with _damage_told(), self._stream.headers():
            archive = tarfile.TarFile(
                fileobj=cast(BinaryIO, self._stream), encoding="utf-8", errors="surrogateescape", tarinfo=Info
            )
        offset = -1
        while True:
            with _damage_told(), self._stream.headers():
                info = archive.next()
            if info is None:
                return _check_end(archive)
            if info.offset <= offset or info.size < 0:
                raise ArchiveBroken(ErrorClass.CORRUPT, f"a header that points backwards, after {offset} bytes")
            offset = info.offset
            blocks = -(-info.size // tarfile.BLOCKSIZE)
            if is_plain(info) and archive.offset != info.offset_data + blocks * tarfile.BLOCKSIZE:
                raise ArchiveBroken(ErrorClass.CORRUPT, f"a size that contradicts its header, after {offset} bytes")
            self.global_headers = dict(archive.pax_headers)
            yield Member(archive, info)
            archive.members = []  # type: ignore[attr-defined]  # else it keeps every member ever seen


def _check_end(archive: tarfile.TarFile) -> None:
    ending = getattr(archive, "ending", None)
    if isinstance(ending, tarfile.EOFHeaderError):  # type: ignore[attr-defined]
        return _check_rest(archive.fileobj)
    place = f"after {archive.offset} bytes"
    if isinstance(ending, tarfile.InvalidHeaderError):  # type: ignore[attr-defined]
        raise ArchiveBroken(ErrorClass.CORRUPT, f"a damaged header {place}: {ending}")
    raise ArchiveBroken(ErrorClass.TRUNCATED, f"ends {place} without the end mark of a tar: cut short?")


def _check_rest(stream: Any) -> None:
    """Read the padding behind the end mark (and with it gzip's check sum); anything but zeros is told."""
    unpacked = 0
    while True:
        with _damage_told():
            block = stream.read(_BUFFER_BYTES)
        if not block:
            return
        if block.strip(b"\0"):
            raise ArchiveBroken(
                ErrorClass.CORRUPT, "more data behind the end mark of the tar: were several tars joined? Split them"
            )
        unpacked += len(block)
        if unpacked > RATIO_FROM_BYTES:
            raise ArchiveBroken(ErrorClass.TOO_LARGE, f"more than {RATIO_FROM_BYTES} zeros behind the end mark")


@contextmanager
def _damage_told() -> Iterator[None]:
    """Turns what the library raises at a damaged tar or gzip into ArchiveBroken; errors of the store pass."""
    try:
        yield
    except (StorageError, ObjectError, ArchiveBroken):
        raise
    except (
        tarfile.TarError,
        OSError,
        EOFError,
        zlib.error,
        struct.error,
        ValueError,
        LookupError,
        OverflowError,
    ) as error:
        text = str(error) or type(error).__name__
        cut = isinstance(error, EOFError) or text in _CUT
        what = "ends early" if cut else "is damaged, or no tar, plain or gzipped"
        raise ArchiveBroken(ErrorClass.TRUNCATED if cut else ErrorClass.CORRUPT, f"the tar {what}: {text}") from error


class _Replayed:
    """A stream whose first bytes were read already, and come again."""

    def __init__(self, head: bytes, stream: BinaryIO) -> None:
        self._head, self._stream = head, stream

    def read(self, size: int = -1) -> bytes:
        if not self._head:
            return self._stream.read(size)
        most = len(self._head) if size < 0 else size
        head, self._head = self._head[:most], self._head[most:]
        return head + self._stream.read(-1) if size < 0 else head


class _Packed(_Replayed):
    """A gzip of which only so much may be asked for byte by byte.

    So the library reads names and comments in its header, and the zeros behind it: a second for each 5 MB of them.
    """

    _single_bytes = 0

    def read(self, size: int = -1) -> bytes:
        self._single_bytes += size == 1
        if self._single_bytes > _MAX_SINGLE_BYTES:
            message = f"more than {_MAX_SINGLE_BYTES} bytes of names in the gzip's header, or of zeros behind it"
            raise ArchiveBroken(ErrorClass.CORRUPT, message)
        return super().read(size)


class _Inflated(gzip.GzipFile):
    """A gzip stream that refuses to come out absurdly larger than it went in.

    `read` gives what is there rather than all that is asked for: what stands before a cut is not lost.
    """

    def __init__(self, packed: BinaryIO, packed_bytes: int | None) -> None:
        super().__init__(fileobj=packed, mode="rb")
        self._limit = None if packed_bytes is None else max(RATIO_FROM_BYTES, MAX_RATIO * packed_bytes)

    def read(self, size: int | None = -1) -> bytes:
        data = super().read1(-1 if size is None else size)
        if self._limit is not None and self.tell() > self._limit:
            raise ArchiveBroken(ErrorClass.TOO_LARGE, f"unpacks to more than {MAX_RATIO} times its size")
        return data


@contextmanager
def _opened(unit: Unit, storage: Storage, by_ranges: bool) -> Iterator[tuple[BinaryIO, bool]]:
    """(the tar, whether it can seek). A gzip called `.tar` is unpacked, and a tar called `.tar.gz` is not."""
    source = unit.sources[0]
    if by_ranges:
        with storage.open(source.url, source.version) as file:
            if file.read(len(_GZIP)) != _GZIP:
                file.seek(unit.byte_offset)
                yield file, True
                return
    with storage.open_stream(source.url, source.version) as stream:
        head = _first(stream, tarfile.BLOCKSIZE)
        is_tar = head[_TAR_MAGIC_AT:].startswith(_TAR_MAGIC)
        if head.startswith(_GZIP) or (source.kind is Kind.TAR_GZ and not is_tar):
            yield cast(BinaryIO, _Inflated(cast(BinaryIO, _Packed(head, stream)), source.size_bytes)), False
        else:
            yield cast(BinaryIO, _Replayed(head, stream)), False


def _first(stream: BinaryIO, size: int) -> bytes:
    """So many bytes, fewer only at the end."""
    head = b""
    while len(head) < size and (piece := stream.read(size - len(head))):
        head += piece
    return head
