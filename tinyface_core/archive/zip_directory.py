"""A part of a zip's directory, made to look like the directory of a smaller zip.

A unit is a thousand members of a zip that may hold a million: to read the whole directory for each would take longer
than to read the pictures. Knows the few fields that this takes; the standard library still reads all else.
"""

from __future__ import annotations

import io
import struct
import zipfile
from itertools import accumulate
from typing import BinaryIO, cast

_ENTRY_BYTES, _LOCAL_BYTES = 46, 30
_ENTRY, _ENDS = b"PK\x01\x02", (b"PK\x05\x06", b"PK\x06\x06", b"PK\x05\x05")


def entry_offsets(archive: zipfile.ZipFile, name_sizes: list[int]) -> list[int]:
    """Where each entry of the directory begins in the file; all 0 where that cannot be told.

    name_sizes: of all members, in bytes. Of a zip behind other data (self-extracting) the offsets inside are not those
    of the file, so it is always read whole.
    """
    infos, file = archive.infolist(), cast(BinaryIO, archive.fp)
    unknown = [0] * len(infos)
    if not infos:
        return unknown
    sizes = [
        _ENTRY_BYTES + name + len(info.extra) + len(info.comment) for name, info in zip(name_sizes, infos, strict=True)
    ]
    *offsets, end = accumulate(sizes, initial=archive.start_dir)
    first, last = read_entries(file, offsets[0], 1), read_entries(file, offsets[-1], 1)
    if first is None or last is None or offsets[-1] + len(last[0]) != end:
        return unknown
    (told,) = struct.unpack_from("<L", first[0], 42)
    return offsets if told in (infos[0].header_offset, 0xFFFFFFFF) else unknown


def read_entries(file: BinaryIO, offset: int, count: int | None) -> list[bytes] | None:
    """`count` entries from `offset` on (None: to the end of the directory); None where there are none."""
    file.seek(offset)
    entries: list[bytes] = []
    while count is None or len(entries) < count:
        head = file.read(_ENTRY_BYTES)
        if head[:4] != _ENTRY:
            return entries if count is None and head[:4] in _ENDS else None
        entries.append(head + file.read(sum(struct.unpack_from("<HHH", head, 28))))
    return entries


def overlapping(infos: list[zipfile.ZipInfo], directory_at: int) -> frozenset[int]:
    """Places in `infos` of the members that reach into the next one, or into the directory.

    A few bytes told as a thousand members make a bomb. Newer Pythons refuse them as this does: of several at one place
    the last is good.
    """
    holding = (place for place, info in enumerate(infos) if info.compress_size)  # folders may stand anywhere
    order = sorted(holding, key=lambda place: infos[place].header_offset)
    nexts = [*(infos[place].header_offset for place in order[1:]), directory_at]
    found = zip(order, nexts, strict=False)  # of no member the directory is the next
    return frozenset(place for place, next_at in found if _least_end(infos[place]) > next_at)


def _least_end(info: zipfile.ZipInfo) -> int:
    """Where its data end, its local header's extra field left out, whose size only that tells."""
    return info.header_offset + _LOCAL_BYTES + len(info.orig_filename) + info.compress_size


class DirectoryPart:
    """The file, ending with a directory of `entries` alone, which stands at `offset` (behind all members)."""

    def __init__(self, file: BinaryIO, offset: int, entries: list[bytes]) -> None:
        directory = b"".join(entries)
        count, size = len(entries), len(directory)
        end64 = struct.pack("<4sQ2H2L4Q", b"PK\x06\x06", 44, 45, 45, 0, 0, count, count, size, offset)
        locator = struct.pack("<4sLQL", b"PK\x06\x07", 0, offset + size, 1)
        end = struct.pack("<4s4H2LH", b"PK\x05\x06", 0, 0, 0xFFFF, 0xFFFF, 0xFFFFFFFF, 0xFFFFFFFF, 0)
        self._file, self._offset = file, offset
        self._tail = directory + end64 + locator + end
        self._position = 0

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        size = self._offset + len(self._tail)
        self._position = offset + {io.SEEK_SET: 0, io.SEEK_CUR: self._position, io.SEEK_END: size}[whence]
        return self._position

    def read(self, size: int = -1) -> bytes:
        if self._position >= self._offset:
            start = self._position - self._offset
            data = self._tail[start : None if size < 0 else start + size]
        else:
            most = self._offset - self._position
            self._file.seek(self._position)
            data = self._file.read(most if size < 0 else min(size, most))
        self._position += len(data)
        return data
