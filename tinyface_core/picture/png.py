"""A PNG file without its animation. Decodes nothing."""

from __future__ import annotations

from tinyface_core.picture.layout import png_chunks

_ANIMATION = frozenset({b"acTL", b"fcTL", b"fdAT"})


def without_animation(data: bytes) -> bytes:
    """The still PNG that every animated one holds for readers that know no animation; a still one as it is.

    OpenCV composes frames itself: then it passes over wrong sums, and a frame that is missing or small leaves the
    canvas black. Raises what the walk raises for a file whose chunks do not add up.
    """
    kept, begin = [data[:8]], 8
    for kind, start, stop in png_chunks(data):
        if kind in _ANIMATION:
            kept.append(data[begin:start])
            begin = stop
    return b"".join([*kept, data[begin:]]) if begin > 8 else data
