"""Where a zip's directory stands, and which members the zip holds beside those that it names.

Both by range reads: the last 64 KiB, the directory, and a few bytes where so much lies between the named members that
another one may stand there. Unnoticed stay members smaller than 128 bytes, those behind other data in a gap (as behind
a self-extracting program), and those in other than the 64 largest gaps. Unpacks nothing.
"""

from __future__ import annotations

import heapq
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice
from typing import BinaryIO

_LOCAL, _ENTRY, _END, _END64, _LOCATOR = b"PK\x03\x04", b"PK\x01\x02", b"PK\x05\x06", b"PK\x06\x06", b"PK\x06\x07"
_LOCAL_BYTES, _ENTRY_BYTES, END_BYTES, _END64_BYTES, _LOCATOR_BYTES = 30, 46, 22, 56, 20
_LONGEST_COMMENT = 0xFFFF
_ENTRY_NUMBERS = struct.Struct("<20x2L3H8xL")  # sizes packed and unpacked; of name, extra, comment; place
_IN_ZIP64 = 0xFFFFFFFF
_DESCRIPTOR_BYTES = 24  # at most, behind a member whose sizes were not known when it was begun
_SLACK_BYTES = 128  # of a gap that needs no look: fields that only local headers have, and a descriptor
_MOST_LOOKS = 64  # at gaps, the largest first; a zip whose members are aligned to pages is nothing but gaps
_MOST_ENDS = 16  # that are tried: a comment may be full of them


@dataclass(frozen=True)
class End:
    """The record at the end of a zip. Places and sizes in bytes of the file.

    stop: behind its comment. directory_at: where the directory stands by its size, told_at: where it should stand,
    which is less in a zip behind other data.
    """

    at: int
    stop: int
    directory_at: int
    directory_bytes: int
    told_at: int


def find_end(file: BinaryIO) -> End | None:
    """The end record, told from what only looks like one; None where there is none.

    Its comment ends with the file and a directory stands before it; else something may stand behind it; else the zip is
    empty; else the last one that there is, for the library to say what is wrong.
    """
    size = file.seek(0, io.SEEK_END)
    tail_at = max(0, size - END_BYTES - _LONGEST_COMMENT)
    tail = _read_at(file, tail_at, size - tail_at)
    places = sorted(_places(tail), key=lambda place: not _ends_with(tail, place))
    ends = [_end(file, tail_at + place, tail[place : place + END_BYTES]) for place in islice(places, _MOST_ENDS)]
    if len(ends) == 1:  # as nearly always: a look at the directory would cost a request
        return ends[0]
    for end in ends:
        if 0 <= end.directory_at < end.at and _read_at(file, end.directory_at, 4) == _ENTRY:
            return end
    empty = (end for end in ends if end.directory_bytes == 0 and end.stop == size)
    return next(empty, ends[0] if ends else None)


def _places(tail: bytes) -> Iterator[int]:
    """Where the signature stands with room for a record behind it, the last first."""
    place = tail.rfind(_END, 0, max(0, len(tail) - END_BYTES + len(_END)))
    while place >= 0:
        yield place
        place = tail.rfind(_END, 0, place)


def _ends_with(tail: bytes, place: int) -> bool:
    return place + END_BYTES + int.from_bytes(tail[place + 20 : place + 22], "little") == len(tail)


def _end(file: BinaryIO, at: int, record: bytes) -> End:
    size, told_at, comment = struct.unpack_from("<2LH", record, 12)
    before = _read_at(file, at - _END64_BYTES - _LOCATOR_BYTES, _END64_BYTES + _LOCATOR_BYTES)
    stands_before = at
    if before[:4] == _END64 and before[_END64_BYTES : _END64_BYTES + 4] == _LOCATOR:
        size, told_at = struct.unpack_from("<2Q", before, 40)
        stands_before = at - len(before)
    return End(at, at + END_BYTES + comment, stands_before - size, size, told_at)


def unnamed_members(file: BinaryIO, end: End) -> list[tuple[int, int]]:
    """(place, bytes) of the gaps before, between and behind the named members in which another member stands.

    An entry that points out of the zip is an error row of its own, so the member that it means is none here.
    """
    named, lost = [], set()
    directory = _read_at(file, end.directory_at, end.directory_bytes)
    for name, start, packed_bytes in _entries(directory, end.directory_at - end.told_at):
        if 0 <= start <= end.directory_at - _LOCAL_BYTES:
            named.append((start, start + _LOCAL_BYTES + len(name) + packed_bytes, packed_bytes > 0))
        else:
            lost.add(name)
    gaps = _gaps(named, end.directory_at)
    size = file.seek(0, io.SEEK_END)
    if size - end.stop > _LOCAL_BYTES:
        gaps.append(_Gap(end.stop, size, None))
    looked_at = heapq.nlargest(_MOST_LOOKS, gaps, key=lambda gap: gap.stop - gap.start)
    found = ((_member_in(file, gap, lost), gap.stop) for gap in looked_at)
    return sorted((place, stop - place) for place, stop in found if place is not None)


@dataclass(frozen=True)
class _Gap:
    """Bytes that no named member covers. behind: where the member before it begins, None where there is none."""

    start: int
    stop: int
    behind: int | None


def _gaps(named: list[tuple[int, int, bool]], directory_at: int) -> list[_Gap]:
    """named: (start, least stop, whether it has data), in any order; folders may be told to stand anywhere."""
    named.sort()
    next_at = directory_at
    for place in reversed(range(len(named))):
        start, stop, has_data = named[place]
        if has_data:  # a size that lies hides nothing behind the next member
            named[place] = (start, min(stop, next_at), True)
            next_at = start
    gaps: list[_Gap] = []
    covered, behind = 0, None
    for start, stop, _ in [*named, (directory_at, directory_at, False)]:
        if start - covered > (_LOCAL_BYTES if behind is None else _SLACK_BYTES):
            gaps.append(_Gap(covered, start, behind))
        if stop > covered:
            covered, behind = stop, start
    return gaps


def _member_in(file: BinaryIO, gap: _Gap, lost: set[bytes]) -> int | None:
    """Where a member begins at the start of the gap; None for other data, and for the members called as in `lost`."""
    at = gap.start
    if gap.behind is not None:
        local = _read_at(file, gap.behind, _LOCAL_BYTES)
        at += int.from_bytes(local[28:30], "little") if local[:4] == _LOCAL else 0  # its extra field
    found = _read_at(file, at, _DESCRIPTOR_BYTES + len(_LOCAL)).find(_LOCAL)
    if found < 0 or at + found + _LOCAL_BYTES > gap.stop:
        return None
    header = _read_at(file, at + found, _LOCAL_BYTES)
    name = _read_at(file, at + found + _LOCAL_BYTES, int.from_bytes(header[26:28], "little"))
    return None if name in lost else at + found


def _entries(directory: bytes, shift: int) -> Iterator[tuple[bytes, int, int]]:
    """(name, where its local header stands, packed bytes) of each member, as far as the directory is sound."""
    at = 0
    while directory[at : at + 4] == _ENTRY and at + _ENTRY_BYTES <= len(directory):
        packed, unpacked, name_bytes, extra_bytes, comment_bytes, start = _ENTRY_NUMBERS.unpack_from(directory, at)
        extra_at = at + _ENTRY_BYTES + name_bytes
        if _IN_ZIP64 in (packed, unpacked, start):
            extra = directory[extra_at : extra_at + extra_bytes]
            _, packed, start = _from_zip64(extra, [unpacked, packed, start])
        yield directory[at + _ENTRY_BYTES : extra_at], start + shift, packed
        at = extra_at + extra_bytes + comment_bytes


def _from_zip64(extra: bytes, numbers: list[int]) -> list[int]:
    """The numbers with those that did not fit taken from the zip64 field, where it holds them."""
    at = 0
    while at + 4 <= len(extra):
        kind, size = struct.unpack_from("<2H", extra, at)
        if kind == 1:
            field = extra[at + 4 : at + 4 + size]
            wide = iter(struct.unpack(f"<{len(field) // 8}Q", field[: len(field) // 8 * 8]))
            return [next(wide, number) if number == _IN_ZIP64 else number for number in numbers]
        at += 4 + size
    return numbers


def _read_at(file: BinaryIO, at: int, size: int) -> bytes:
    """What stands there; nothing before the start of the file."""
    if at < 0:
        return b""
    file.seek(at)
    return file.read(size)
