"""A JPEG file as a strict decoder wants it, and whether its scans make a whole picture. Decodes nothing."""

from __future__ import annotations

import re
import struct
from collections.abc import Callable, Iterator
from typing import TypeVar

from tinyface_core.picture.layout import JPEG_FRAMES, Damaged, jpeg_segments

T = TypeVar("T")
_SCAN, _END, _APP0, _APP14, _COM = 0xDA, 0xD9, 0xE0, 0xEE, 0xFE
_NOTES = (frozenset(range(0xE0, 0xF0)) | {_COM}) - {_APP0, _APP14}  # EXIF, profiles, remarks; not what tells colours
_SEQUENTIAL, _PROGRESSIVE = frozenset({0xC0, 0xC1, 0xC9}), frozenset({0xC2, 0xCA})
_JFIF_BYTES, _ADOBE_BYTES = 14, 12  # shorter ones are notes to libjpeg
_ADOBE_TRANSFORMS = {3: (0, 1), 4: (0, 2)}  # by number of components: RGB or YCbCr, CMYK or YCCK
_AFTER_CODED_DATA = re.compile(rb"\xff[^\x00\x01\xd0-\xd7\xff]")  # stuffed zeros, restarts and fill belong to the data
_COEFFICIENTS = 64  # of a block; the first is its mean
_PADDING = re.compile(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9")
_FEW_BYTES = 16  # cameras leave them; damage in the coded data leaves more, or none. The decoder also reads 8 ahead


def strictly(data: bytes, decode: Callable[[bytes], T]) -> tuple[bytes, T]:
    """(bytes, what a strict decoder makes of them), once what no pixel depends on is mended.

    Only what passes then is given: the first objection, a harmless one too, hides all others. Raises ValueError: the
    decoder's last objection, of which `decode` makes one too.
    """
    try:
        return data, decode(data)
    except ValueError:
        clean = with_clean_header(data)
    try:
        return clean, decode(clean)
    except ValueError as left:
        if (cut := without_padding(clean, str(left))) is None:
            raise
    return cut, decode(cut)


def with_clean_header(data: bytes) -> bytes:
    """The same picture without what makes a strict decoder stop before its first scan and changes no pixel.

    Notes and stray bytes between segments go; an unknown version of JFIF, an unknown Adobe transform and the
    bounds of a sequential scan, which has none, become what libjpeg takes them for. The scans, where stray bytes
    mean a loss, stay as they are. A file whose header makes no sense is given back unchanged.
    """
    kept = [data[:2]]
    try:
        segments = [(marker, bytearray(data[start:stop]), stop) for marker, start, stop in jpeg_segments(data)]
        frame, components = next((marker, found[5]) for marker, found, _ in segments if marker in JPEG_FRAMES)
        for marker, content, _ in segments:
            if marker == _APP0 and content.startswith(b"JFIF\0") and len(content) >= _JFIF_BYTES:
                content[5] = 1
            elif marker == _APP14 and content.startswith(b"Adobe") and len(content) >= _ADOBE_BYTES:
                known = _ADOBE_TRANSFORMS.get(components, (content[11],))
                content[11] = content[11] if content[11] in known else known[-1]
            elif marker == _SCAN and frame in _SEQUENTIAL:
                content[-3:] = bytes((0, _COEFFICIENTS - 1, 0))
            if marker not in _NOTES:
                kept.append(struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content)
    except (Damaged, IndexError, StopIteration, struct.error):
        return data
    return b"".join([*kept, data[segments[-1][2] :]])


def without_padding(data: bytes, objection: str) -> bytes | None:
    """The file without the unused bytes that a decoder objects to before its end marker; None where they are a loss.

    Padding is a few bytes, or any number of one value. Longer than what the decoder left, such a run was taken for
    coded data: a part of the picture was overwritten with it.
    """
    told = _PADDING.match(objection)
    end = next((start - 2 for marker, start, _ in _segments(data) if marker == _END), None) if told else None
    if told is None or end is None:
        return None
    unused_bytes = int(told[1])
    body = data[:end].rstrip(b"\xff")  # fill bytes are not counted
    run_bytes = len(body) - len(body.rstrip(body[-1:]))
    if run_bytes > unused_bytes + _FEW_BYTES or unused_bytes > max(run_bytes, _FEW_BYTES):
        return None
    return body[:-unused_bytes] + data[end:]


def has_all_scans(data: bytes) -> bool:
    """Do its scans tell each coefficient of each component to its last bit? Decoders show a blurred picture if not.

    Asked of a file that a strict decoder took: that its scans follow each other in order was its affair.
    """
    low_bits: dict[int, list[int]] = {}  # by component: the bit down to which each coefficient was told; -1 is never
    progressive = False
    for marker, start, _ in _segments(data):
        if marker in JPEG_FRAMES:
            progressive = marker in _PROGRESSIVE
            low_bits = {name: [-1] * _COEFFICIENTS for name in data[start + 6 : start + 6 + 3 * data[start + 5] : 3]}
        elif marker == _SCAN:
            bounds = start + 1 + 2 * data[start]
            first, last, bits = data[bounds : bounds + 3] if progressive else (0, _COEFFICIENTS - 1, 0)
            for name in data[start + 1 : bounds : 2]:
                low_bits[name][first : last + 1] = [bits & 15] * (last + 1 - first)
            if not any(map(any, low_bits.values())):
                return True
    return False


def _segments(data: bytes) -> Iterator[tuple[int, int, int]]:
    """(marker, start of its content, stop) of all segments, with those between the scans, up to and with the end."""
    stop = 2
    for marker, start, stop in jpeg_segments(data):
        yield marker, start, stop
    while found := _AFTER_CODED_DATA.search(data, stop):
        marker, start = data[found.end() - 1], found.end()
        if marker == _END:
            yield marker, start, start
            return
        stop = start + max(2, int.from_bytes(data[start : start + 2], "big"))
        yield marker, start + 2, stop
