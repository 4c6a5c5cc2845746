"""How each picture format lays out its file: the size in its header, its EXIF block, and whether its end is there.

Knows where things stand in a file, not how to decode. Pure Python over bytes: it also runs in the process that
must not die. One class a format; a walk that runs off the end of the data raises IndexError or struct.error.
"""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from itertools import repeat

from tinyface_core.picture import ifd

JPEG_FRAMES = frozenset(range(0xC0, 0xD0)) - {0xC4, 0xC8, 0xCC}  # the rest are tables, not frames
_JPEG_KINDS_NOT_DECODED = dict.fromkeys((0xC5, 0xC6, 0xC7, 0xCD, 0xCE, 0xCF), "a hierarchical JPEG")
_JPEG_KINDS_NOT_DECODED[0xF7] = "a JPEG-LS picture"
_JPEG_BARE = frozenset(range(0xD0, 0xD9)) | {0x01}  # markers without a length
_JPEG_SCAN, _JPEG_APP1, _JPEG_END = 0xDA, 0xE1, 0xD9
_JPEG_FILL = re.compile(rb"\xff+")
_MOST_PARTS = 300_000  # of a file: a PNG of 1 GiB in pieces of 4 KiB; the smallest parts have 2 bytes


class Damaged(Exception):
    """The header contradicts itself; the message says how."""


class NotDecoded(Exception):
    """A kind of this format that is not decoded here; the message names it."""


@dataclass(frozen=True)
class Extent:
    """Size in pixels as stored, before any orientation, and the EXIF block (a TIFF, its prefix allowed)."""

    width: int
    height: int
    exif: bytes | None = None


@dataclass(frozen=True)
class Layout:
    """extent: reads the header. is_whole: does the file hold all that its own layout promises?"""

    extent: Callable[[bytes], Extent]
    is_whole: Callable[[bytes], bool]


def _parts() -> Iterator[None]:
    """One for each part of a file, which a walk takes in turn. Raises Damaged where a file is nothing but parts."""
    yield from repeat(None, _MOST_PARTS)
    raise Damaged(f"it has more than {_MOST_PARTS:,} parts")


def jpeg_segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start of its content, stop) up to and with the first scan."""
    at = 2
    for _ in _parts():
        fill = _JPEG_FILL.search(data, at)  # stray bytes between segments are skipped, as libjpeg does
        if fill is None:
            raise IndexError("no further marker before the end of the data")
        at = fill.end()
        marker, at = data[at], at + 1
        if marker == 0 or marker in _JPEG_BARE:
            continue
        if marker == _JPEG_END:
            raise Damaged("its end stands before any picture data")
        (length,) = struct.unpack_from(">H", data, at)
        yield marker, at + 2, at + max(2, length)
        if marker == _JPEG_SCAN:
            return
        at += max(2, length)


def _jpeg_extent(data: bytes) -> Extent:
    """Walks on to the first scan: the EXIF block may stand behind the size."""
    size, exif = None, None
    for marker, start, stop in jpeg_segments(data):
        if marker in _JPEG_KINDS_NOT_DECODED:
            raise NotDecoded(_JPEG_KINDS_NOT_DECODED[marker])
        if marker == _JPEG_APP1 and exif is None and data.startswith(b"Exif\0\0", start):
            exif = data[start:stop]
        elif marker in JPEG_FRAMES and size is None:
            size = struct.unpack_from(">HH", data, start + 1)
    if size is None:
        raise Damaged("its picture data begins before its size was told")
    height, width = size
    return Extent(width, height, exif)


def _jpeg_is_whole(data: bytes) -> bool:
    *_, (_, start, _) = jpeg_segments(data)
    return data.find(b"\xff\xd9", start) >= 0


_PNG_END = b"IEND\xaeB`\x82"


def png_chunks(data: bytes) -> Iterator[tuple[bytes, int, int]]:
    """(kind, start, stop) of each whole chunk, its length and its sum within, up to and with IEND."""
    at = 8
    for _ in _parts():
        length, kind = struct.unpack_from(">I4s", data, at) if at + 12 <= len(data) else (0, b"")
        stop = at + 12 + length
        if stop > len(data):
            raise Damaged("its chunks do not add up") if _PNG_END in data[-64:] else IndexError()
        yield kind, at, stop
        if kind == b"IEND":
            return
        at = stop


def _png_extent(data: bytes) -> Extent:
    """Walks all chunks: for a length that lies, OpenCV would ask for that much memory, up to 4 GB, and fill it."""
    if data[12:16] != b"IHDR":
        raise Damaged("its first chunk is not IHDR") if len(data) >= 16 else IndexError()
    width, height = struct.unpack_from(">II", data, 16)
    exif = None
    for kind, start, stop in png_chunks(data):
        if kind == b"eXIf":
            exif = data[start + 8 : stop - 4]
    return Extent(width, height, exif)


def _webp_extent(data: bytes) -> Extent:
    extent: Extent | None = None
    at = 12
    for _ in _parts():
        if at + 8 > len(data):
            break
        kind, length = struct.unpack_from("<4sI", data, at)
        if kind == b"VP8X":
            low, high_w, low_h, high_h = struct.unpack_from("<HBHB", data, at + 12)
            extent = Extent((high_w << 16 | low) + 1, (high_h << 16 | low_h) + 1)
        elif kind == b"VP8 " and extent is None:
            width, height = struct.unpack_from("<HH", data, at + 14)
            extent = Extent(width & 0x3FFF, height & 0x3FFF)  # the two upper bits are a display hint
        elif kind == b"VP8L" and extent is None:
            (bits,) = struct.unpack_from("<I", data, at + 9)
            extent = Extent((bits & 0x3FFF) + 1, (bits >> 14 & 0x3FFF) + 1)
        elif kind == b"EXIF" and extent is not None:
            return Extent(extent.width, extent.height, data[at + 8 : at + 8 + length])
        at += 8 + length + length % 2
    if extent is None:
        raise IndexError("no picture chunk before the end of the data")
    return extent


def _gif_extent(data: bytes) -> Extent:
    return Extent(*struct.unpack_from("<HH", data, 6))


def _bmp_header(data: bytes) -> tuple[int, int, int, int, int]:
    """width, height, bits a pixel, compression, where the pixels begin."""
    pixels_at, header_bytes = struct.unpack_from("<II", data, 10)
    if header_bytes < 40:
        width, height, _, bits = struct.unpack_from("<HHHH", data, 18)
        return width, height, bits, 0, pixels_at
    width, height, _, bits, compression = struct.unpack_from("<iiHHI", data, 18)
    return width, abs(height), bits, compression, pixels_at  # a negative height means: top row first


_BMP_FILES_INSIDE = {4: "a BMP with a JPEG inside", 5: "a BMP with a PNG inside"}


def _bmp_extent(data: bytes) -> Extent:
    width, height, _, compression, _ = _bmp_header(data)
    if compression in _BMP_FILES_INSIDE:
        raise NotDecoded(_BMP_FILES_INSIDE[compression])
    return Extent(width, height)


def _bmp_is_whole(data: bytes) -> bool:
    width, height, bits, compression, pixels_at = _bmp_header(data)
    if compression in (1, 2):  # run lengths: only the file's own count tells
        return struct.unpack_from("<I", data, 2)[0] <= len(data)
    return pixels_at + (width * bits + 31) // 32 * 4 * height <= len(data)


_TIFF_PIXELS = ((ifd.STRIP_OFFSETS, ifd.STRIP_BYTES), (ifd.TILE_OFFSETS, ifd.TILE_BYTES))


def _tiff_extent(data: bytes) -> Extent:
    tags = ifd.read_tags(data, (ifd.WIDTH, ifd.HEIGHT, ifd.NEW_SUBFILE_TYPE, ifd.DNG_VERSION), most=ifd.FEW)
    if ifd.DNG_VERSION in tags or ifd.number(tags, ifd.NEW_SUBFILE_TYPE, 0) & 1:
        # its first page is only a small copy, to be mistaken for the picture
        raise NotDecoded("a camera's raw file (DNG, NEF, ARW)")
    return Extent(ifd.number(tags, ifd.WIDTH, 0), ifd.number(tags, ifd.HEIGHT, 0), data)  # its tags are its EXIF


def _tiff_is_whole(data: bytes) -> bool:
    tags = ifd.read_tags(data, None)  # any value that lies beyond the end is a cut file, too
    for offsets_tag, bytes_tag in _TIFF_PIXELS:
        for offset, length in zip(tags.get(offsets_tag, ()), tags.get(bytes_tag, ()), strict=False):
            if offset + length > len(data):
                return False
    return True


def _boxes(data: bytes, start: int, stop: int) -> Iterator[tuple[bytes, int, int]]:
    """(type, start of content, stop) of the ISO base media boxes in data[start:stop]; stop may lie beyond data."""
    at = start
    for _ in _parts():
        if at + 8 > stop:
            return
        size, kind = struct.unpack_from(">I4s", data, at)
        content = at + 8
        if size == 1:
            (size,) = struct.unpack_from(">Q", data, content)
            content += 8
        end = stop if size == 0 else at + size
        if end < content:
            raise Damaged(f"its box {kind!r} is smaller than its own header")
        yield kind, content, end
        at = end


def _heif_extent(data: bytes) -> Extent:
    """The largest of the sizes told (`meta/iprp/ipco/ispe`): that of the whole, where a picture is made of tiles."""
    within = (0, len(data))
    for name, skip in ((b"meta", 4), (b"iprp", 0), (b"ipco", 0)):
        box = next(((a, b) for kind, a, b in _boxes(data, *within) if kind == name), None)
        if box is None:
            if name == b"meta" and any(kind == b"moov" for kind, _, _ in _boxes(data, *within)):
                raise NotDecoded("a sequence of pictures without a still one")
            raise IndexError(f"no box {name!r} before the end of the data")
        if box[1] > len(data):
            raise IndexError(f"the data end within the box {name!r}")
        within = (box[0] + skip, box[1])
    sizes = [struct.unpack_from(">II", data, a + 4) for kind, a, _ in _boxes(data, *within) if kind == b"ispe"]
    if not sizes:
        raise Damaged("it tells no size")
    width, height = max(sizes, key=lambda size: size[0] * size[1])
    return Extent(width, height)


def _heif_is_whole(data: bytes) -> bool:
    *_, (_, _, end) = _boxes(data, 0, len(data))
    return end == len(data)


def is_whole(name: str, data: bytes) -> bool:
    """Does a file of this format reach its own end? Asked when decoding failed: `truncated` or `corrupt`?"""
    try:
        return LAYOUTS[name].is_whole(data)
    except (IndexError, struct.error, Damaged, ValueError, OverflowError):
        return False  # its walk ran off the end


LAYOUTS: dict[str, Layout] = {
    "jpeg": Layout(_jpeg_extent, _jpeg_is_whole),
    "png": Layout(_png_extent, lambda data: _PNG_END in data),
    "webp": Layout(_webp_extent, lambda data: struct.unpack_from("<I", data, 4)[0] + 8 <= len(data)),
    "gif": Layout(_gif_extent, lambda data: data.rstrip(b"\0").endswith(b";")),
    "tiff": Layout(_tiff_extent, _tiff_is_whole),
    "bmp": Layout(_bmp_extent, _bmp_is_whole),
    "heic": Layout(_heif_extent, _heif_is_whole),
    "avif": Layout(_heif_extent, _heif_is_whole),
}
