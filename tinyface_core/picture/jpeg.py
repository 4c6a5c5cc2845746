"""A JPEG file without what is no part of its picture. Decodes nothing."""

from __future__ import annotations

import struct

from tinyface_core.picture.layout import Damaged, jpeg_segments

_SCAN, _APP0, _APP14, _COM = 0xDA, 0xE0, 0xEE, 0xFE
_NOTES = (frozenset(range(0xE0, 0xF0)) | {_COM}) - {_APP0, _APP14}  # EXIF, profiles, remarks; Adobe's tells the colours


def with_clean_header(data: bytes) -> bytes:
    """The same picture without its notes, and without stray bytes between the segments before its first scan.

    Readers skip such bytes up to the next marker, and no pixel is lost: some editors leave them. The scans, where
    stray bytes mean a loss, stay as they are. A file whose header makes no sense is given back unchanged.
    """
    kept = [data[:2]]
    try:
        for marker, start, stop in jpeg_segments(data):
            if marker == _SCAN:
                return b"".join([*kept, b"\xff\xda", data[start - 2 :]])
            if marker not in _NOTES:
                kept += [b"\xff", data[start - 3 : stop]]
    except (Damaged, IndexError, struct.error):
        pass
    return data
