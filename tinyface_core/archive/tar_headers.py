"""The headers of a tar, read by the standard library within limits that a hostile tar would break.

Knows how long one header may be and how many may stand before a member; nothing of what a member holds. What is over a
limit is a damaged header: tars of pictures stay far below.
"""

from __future__ import annotations

import io
import re
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, BinaryIO, cast

_BUFFER_BYTES = 1 << 20
_MAX_HEADER_BYTES = 1 << 20  # of all headers before one member: long names, pax, the map of a sparse file
_MAX_GLOBAL_BYTES = 1 << 16  # of the pax headers that hold for all members; the library copies them for each
_MAX_CHAIN = 16  # headers before a member; the library reads each inside the one before
_LONGEST_NUMBER = 255  # digits, as in a file's name; the library's search takes the square of a run of them
_EXTENSIONS = (tarfile.GNUTYPE_LONGNAME, tarfile.GNUTYPE_LONGLINK, tarfile.XHDTYPE, tarfile.XGLTYPE, b"X")
_PAX_LENGTH = re.compile(rb"([0-9]{1,10}) ")


class Info(tarfile.TarInfo):
    """Notes how the headers ended, which `TarFile.next` hides, and bounds what a header may cost."""

    @classmethod
    def fromtarfile(cls, archive: tarfile.TarFile) -> Info:
        try:
            return super().fromtarfile(archive)
        except tarfile.HeaderError as error:
            archive.ending = error  # type: ignore[attr-defined]
            raise

    def _proc_member(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        if self.type not in _EXTENSIONS:
            info = cast(tarfile.TarInfo, super()._proc_member(archive))  # type: ignore[misc]
            if info.islnk() and info.size > 0:
                _pass_data_of_link(archive, info)
            return info
        if not 0 <= self.size <= _MAX_HEADER_BYTES:
            raise _damaged(f"an extended header of {self.size} bytes")
        stream = cast(HeaderStream, archive.fileobj)
        with stream.one_deeper() as depth:
            if depth > _MAX_CHAIN:
                raise _damaged(f"more than {_MAX_CHAIN} headers before one member")
            return cast(tarfile.TarInfo, super()._proc_member(archive))  # type: ignore[misc]

    def _proc_pax(self, archive: tarfile.TarFile) -> tarfile.TarInfo:
        """Python before 3.11.10 takes the square of a malformed header's length, in time and in memory."""
        stream = cast(HeaderStream, archive.fileobj)
        whole = -(-self.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
        block = stream.read(whole)
        if len(block) < whole:
            raise EOFError("unexpected end of data")
        _check_pax(block[: self.size])
        stream.give_again(block[: self.size].ljust(whole, b"\0"))
        if self.type == tarfile.XGLTYPE:
            known = sum(len(name) + len(value) for name, value in archive.pax_headers.items())
            if known + self.size > _MAX_GLOBAL_BYTES:
                raise _damaged(f"more than {_MAX_GLOBAL_BYTES} bytes of headers for all members")
        return cast(tarfile.TarInfo, super()._proc_pax(archive))  # type: ignore[misc]


def _pass_data_of_link(archive: tarfile.TarFile, link: tarfile.TarInfo) -> None:
    """Hard links hold data in tars of some writers (POSIX.1-2008, pax, allows it), in others their size is for show.

    The block behind tells, as libarchive has it: there the next header stands, or the end mark, or data. A size that a
    pax header gives is not asked about: only data of 8 GiB need that.
    """
    stream = cast(HeaderStream, archive.fileobj)
    block = stream.read(tarfile.BLOCKSIZE)
    try:
        tarfile.TarInfo.frombuf(block, "utf-8", "surrogateescape")
    except cast(Any, tarfile).InvalidHeaderError:
        archive.offset = link.offset_data + -(-link.size // tarfile.BLOCKSIZE) * tarfile.BLOCKSIZE
    except tarfile.HeaderError:  # the end mark, or the end of the file
        stream.give_again(block)
    else:
        stream.give_again(block)


class HeaderStream:
    """The stream as `tarfile` reads it. While headers are read, they may be long, not endless.

    Goes forward only, and ends at its end, however far a header points behind it. seekable: members are skipped by
    seeking; else all is read.
    """

    def __init__(self, stream: BinaryIO, *, seekable: bool) -> None:
        self._stream, self._seekable = stream, seekable
        self._position = stream.tell() if seekable else 0
        self._end = stream.seek(0, io.SEEK_END) if seekable else 0
        if seekable:
            stream.seek(self._position)
        self._again = b""
        self._headers_left: int | None = None
        self._depth = 0

    def tell(self) -> int:
        return self._position - len(self._again)

    def seek(self, position: int) -> int:
        if position < self._position:
            raise tarfile.StreamError("a header points backwards")
        if self._seekable:
            self._position = self._stream.seek(min(position, self._end))
            return self._position
        while self._position < position and self._piece(position - self._position):
            pass
        return self._position

    def read(self, size: int) -> bytes:
        """All of `size` bytes, less only at the end."""
        if self._again:
            again, self._again = self._again, b""
            return again
        if self._headers_left is not None:
            self._headers_left -= size
            if self._headers_left < 0:
                raise _damaged(f"more than {_MAX_HEADER_BYTES} bytes of headers before one member")
        pieces = [self._piece(size)]
        while pieces[-1] and (size := size - len(pieces[-1])):
            pieces.append(self._piece(size))
        return pieces[0] if len(pieces) == 1 else b"".join(pieces)

    def give_again(self, data: bytes) -> None:
        """The next `read`, which must be one for as many bytes, gives `data`, which was read already."""
        self._again = data

    @contextmanager
    def headers(self) -> Iterator[None]:
        """Within it, what is read is counted as headers of one member."""
        self._headers_left = _MAX_HEADER_BYTES + _MAX_CHAIN * 2 * tarfile.BLOCKSIZE
        try:
            yield
        finally:
            self._headers_left = None

    @contextmanager
    def one_deeper(self) -> Iterator[int]:
        self._depth += 1
        try:
            yield self._depth
        finally:
            self._depth -= 1

    def _piece(self, size: int) -> bytes:
        piece = self._stream.read(min(size, _BUFFER_BYTES))
        self._position += len(piece)
        return piece


def _check_pax(records: bytes) -> None:
    """Each is `LENGTH KEYWORD=VALUE\\n`; zeros may follow (POSIX.1-2008, pax). Raises: HeaderError."""
    at = 0
    while at < len(records) and records[at]:
        length = _PAX_LENGTH.match(records, at)
        end = at + int(length[1]) if length else at
        if length is None or records.find(b"=", length.end(), end) < 0 or records[end - 1 : end] != b"\n":
            raise _damaged("a pax header that is none")
        at = end
    if max(map(len, re.findall(rb"[0-9]+", records)), default=0) > _LONGEST_NUMBER:
        raise _damaged(f"a pax header with a number of more than {_LONGEST_NUMBER} digits")


def _damaged(what: str) -> Exception:
    return cast(Any, tarfile).SubsequentHeaderError(what)
