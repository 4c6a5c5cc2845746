"""Reads the tags of a TIFF directory: of a TIFF file, and of an EXIF block, which is a small TIFF inside.

Knows numbers and offsets, not what the tags mean for a picture. Pure Python, so that a hostile file cannot
crash the process that asks; Pillow's reader warns through a process-wide switch, which threads cannot share.
"""

from __future__ import annotations

import struct
from collections.abc import Collection
from datetime import datetime

WIDTH, HEIGHT, ORIENTATION, DATE_TIME = 256, 257, 274, 306
NEW_SUBFILE_TYPE, STRIP_OFFSETS, STRIP_BYTES, TILE_OFFSETS, TILE_BYTES = 254, 273, 279, 324, 325
ROWS_PER_STRIP, TILE_WIDTH, TILE_HEIGHT, JPEG_TABLES = 278, 322, 323, 347
BITS_PER_SAMPLE, COMPRESSION, PHOTOMETRIC, SAMPLES = 258, 259, 262, 277
PLANAR_CONFIGURATION, EXTRA_SAMPLES, SAMPLE_FORMAT, COLOUR_BLOCK = 284, 338, 339, 530
OLD_JPEG, OLD_JPEG_BYTES = 513, 514
EXIF_DIRECTORY, DATE_TIME_ORIGINAL, DNG_VERSION = 34665, 36867, 50706

_NUMBERS = {1: "B", 3: "H", 4: "I", 6: "b", 8: "h", 9: "i", 11: "f", 12: "d", 13: "I", 16: "Q", 17: "q", 18: "Q"}
_TEXTS = frozenset({2, 7})
_MOST_ENTRIES = 0xFFFF  # of a directory: what a classic TIFF can have; a BigTIFF may tell of more than can be walked
FEW = 64  # values of a tag, or bytes of its text, that tell a size, an orientation or a time

Value = tuple[int, ...] | bytes


def read_tags(
    data: bytes, wanted: Collection[int] | None, directory: int | None = None, most: int | None = None
) -> dict[int, Value]:
    """The wanted tags (None: all) of one directory; numbers as a tuple, text as bytes; an absent tag is left out.

    directory: its offset in data; None is the first one. Classic TIFF and BigTIFF, either byte order.
    most: values, or bytes of text, that are read of a tag (None: all): a hostile file tells each of its tags to be as
    large as itself.
    Raises struct.error where data ends too early, ValueError where it is no TIFF.
    """
    order = {b"II": "<", b"MM": ">"}.get(data[:2])
    if order is None:
        raise ValueError("neither II nor MM at its beginning")
    big = struct.unpack_from(order + "H", data, 2)[0] == 43
    offset_code, count_code, entry_bytes, inline_bytes = ("Q", "Q", 20, 8) if big else ("I", "H", 12, 4)
    if directory is None:
        (directory,) = struct.unpack_from(order + offset_code, data, 8 if big else 4)
    (entries,) = struct.unpack_from(order + count_code, data, directory)
    if entries > _MOST_ENTRIES:
        raise ValueError(f"a directory of {entries} tags")
    first = directory + struct.calcsize(order + count_code)
    found: dict[int, Value] = {}
    for at in range(first, min(first + entries * entry_bytes, len(data)), entry_bytes):
        tag, kind, count = struct.unpack_from(order + "HH" + offset_code, data, at)
        if (wanted is not None and tag not in wanted) or not (kind in _NUMBERS or kind in _TEXTS):
            continue
        letter = "s" if kind in _TEXTS else _NUMBERS[kind]
        size = count * struct.calcsize(order + letter)
        value_at = at + entry_bytes - inline_bytes
        if size > inline_bytes:
            (value_at,) = struct.unpack_from(order + offset_code, data, value_at)
        if value_at + size > len(data):
            raise struct.error("a value lies beyond the end of the data")
        few = count if most is None else min(count, most)
        values = struct.unpack_from(f"{order}{few}{letter}", data, value_at)
        found[tag] = values[0] if kind in _TEXTS else values
    if first + entries * entry_bytes > len(data):
        raise struct.error("the directory goes on beyond the end of the data")
    return found


def number(tags: dict[int, Value], tag: int, default: int) -> int:
    """The first value of a numeric tag, else `default`."""
    value = tags.get(tag)
    return int(value[0]) if isinstance(value, tuple) and value else default


def exif_facts(exif: bytes | None) -> tuple[int, datetime | None]:
    """(orientation 1..8, time taken) of an EXIF block; (1, None) for what is absent or makes no sense.

    The time is DateTimeOriginal, else DateTime: a camera's local time without zone. A damaged block is not an
    error of the picture: its pixels are as good without.
    """
    if not exif:
        return 1, None
    tiff = exif.removeprefix(b"Exif\0\0")
    tags = _tags_or_none(tiff, (ORIENTATION, DATE_TIME, EXIF_DIRECTORY), None)
    inner = number(tags, EXIF_DIRECTORY, 0)
    original = _tags_or_none(tiff, (DATE_TIME_ORIGINAL,), inner) if inner else {}
    orientation = number(tags, ORIENTATION, 1)
    taken_at = _time(original.get(DATE_TIME_ORIGINAL)) or _time(tags.get(DATE_TIME))
    return (orientation if 1 <= orientation <= 8 else 1), taken_at


def _tags_or_none(tiff: bytes, wanted: Collection[int], directory: int | None) -> dict[int, Value]:
    try:
        return read_tags(tiff, wanted, directory, FEW)
    except (struct.error, IndexError, ValueError, OverflowError, MemoryError):
        return {}


def _time(text: Value | None) -> datetime | None:
    if not isinstance(text, bytes):
        return None
    try:
        return datetime.strptime(text[:19].decode("ascii"), "%Y:%m:%d %H:%M:%S")  # noqa: DTZ007 (EXIF tells no zone)
    except ValueError:  # "    :  :     :  :  " and "0000:00:00 00:00:00" are how cameras say unknown
        return None
