"""Encoded bytes -> an upright RGB picture, or why not. Decodes in this process; `guard` puts it into children.

Which library decodes what was chosen by what it *refuses* (a damaged file must become an error, not a picture
that is grey below its middle), measured with OpenCV 5.0, Pillow 13 and simplejpeg 1.9:

    jpeg                 simplejpeg in strict mode alone, at limits.reduced too: it stops where data were lost.
                         OpenCV and Pillow fill the rest with grey. It stops at its first doubt, a harmless one too:
                         then what no pixel depends on is mended (`jpeg`) and it must pass from end to end.
    png webp bmp gif     OpenCV: it checks the sums, and reads more of the valid oddities than Pillow does. Of an
                         animated PNG it would not check them: `png` takes the animation away.
    avif                 OpenCV for pixels (it stops at every flipped bit; Pillow's decoder shows them),
                         Pillow for the turn, which OpenCV ignores.
    tiff                 Pillow; OpenCV for numbers that Pillow cannot hold: see `tiff`.
    heic                 pillow-heif, an optional extra.

Orientation is applied in one place, `upright`, from the header that `header` read; the decoders that turn by
themselves (TIFF, HEIC) are named there. Alpha is dropped, not laid over a colour. Of several frames or pages
the first is taken (of an animated PNG the picture for readers that know no animation). 16 bits become 8 by their
upper half. Floating point: 0..1 or 0..255, see `tiff._to_8_bits`.
"""

from __future__ import annotations

import io
from collections.abc import Callable
from dataclasses import replace
from functools import partial

import cv2
import numpy as np
import simplejpeg
from PIL import AvifImagePlugin

from tinyface_core.errors import ErrorClass, PictureError, Stage
from tinyface_core.picture.header import Header, sniff, too_large
from tinyface_core.picture.ifd import exif_facts
from tinyface_core.picture.jpeg import has_all_scans, strictly
from tinyface_core.picture.picture import Limits, Picture
from tinyface_core.picture.png import without_animation
from tinyface_core.picture.refusal import PILLOW_ERRORS, RGB, Refused, opencv, refusal
from tinyface_core.picture.tiff import decode_tiff

_LEAST_REDUCED_PX = 8  # of a picture's longer side; of smaller ones two scales of libjpeg give as many pixels
_AVIF_LONGEST_SIDE_PX = 32_768  # libavif's limit; over it a sound file is called damaged


def decode(data: bytes, limits: Limits = Limits()) -> Picture | PictureError:
    """The upright picture in an encoded file, or why there is none. Never raises; stage is always `decode`.

    Runs with the threads that OpenCV is set to (`cv2.setNumThreads`): that is the caller's choice. Of the limits
    only max_pixels is kept here; time and memory are kept by `guard.DecodePool`.
    """
    try:
        header = sniff(data, limits)
        return header if isinstance(header, PictureError) else _decode(data, header, limits)
    except Refused as refused:
        return refused.error
    except MemoryError:
        return PictureError(Stage.DECODE, ErrorClass.OUT_OF_MEMORY, "the picture does not fit into the memory limit")
    except Exception as bug:
        message = f"decoding met {type(bug).__name__}: {bug}"
        return PictureError(Stage.DECODE, ErrorClass.INTERNAL, message)


def _decode(data: bytes, header: Header, limits: Limits) -> Picture:
    picture = _DECODERS[header.format](data, header, limits)
    if header.format in ("heic", "avif"):  # they tell a size for each of their parts; their libraries know which
        return picture
    told = (header.width, header.height) if header.exif_orientation < 5 else (header.height, header.width)
    height, width = picture.rgb_HW3.shape[:2]
    if (width, height) != tuple(_reduced(side, picture.reduced) for side in told):
        found = f"the decoder gave {width} x {height} upright pixels"
        raise Refused(ErrorClass.CORRUPT, f"the header says {told[0]} x {told[1]}, {found}")
    return picture if picture.reduced == 1 else replace(picture, whole_hw=(told[1], told[0]))


def _reduced(side_px: int, times: int) -> int:
    """Pixels of a side that is shown so many times smaller: the last one may stand for a part alone."""
    return -(-side_px // times)


def upright(stored_HW3: RGB, orientation: int) -> RGB:
    """Turns and mirrors a stored picture by its EXIF orientation (1..8); 5 to 8 swap height and width."""
    if orientation >= 5:
        stored_HW3 = cv2.transpose(stored_HW3)  # type: ignore[assignment]
    # after the transposition 6 is 2 (mirror left and right), 7 is 3 (both), 8 is 4 (top and bottom)
    flip = {2: 1, 3: -1, 4: 0, 6: 1, 7: -1, 8: 0}.get(orientation)
    return np.ascontiguousarray(stored_HW3 if flip is None else cv2.flip(stored_HW3, flip), dtype=np.uint8)


def _picture(header: Header, upright_HW3: RGB) -> Picture:
    return Picture(upright_HW3, header.format, header.exif_orientation, header.taken_at)


def _by_opencv(data: bytes, header: Header, limits: Limits) -> Picture:
    return _picture(header, upright(opencv(data, header), header.exif_orientation))


def _png(data: bytes, header: Header, limits: Limits) -> Picture:
    return _by_opencv(without_animation(data), header, limits)


def _gif(data: bytes, header: Header, limits: Limits) -> Picture:
    """A background that is no colour of the palette, which OpenCV refuses, shows nowhere in a first frame."""
    flags, background = data[10:12].ljust(2, b"\0")
    colours = 2 << (flags & 7) if flags & 0x80 else 0
    return _by_opencv(data if background < colours else data[:11] + b"\0" + data[12:], header, limits)


def _jpeg(data: bytes, header: Header, limits: Limits) -> Picture:
    times = _times_smaller(header, limits)
    least_hw = _reduced(header.height, times), _reduced(header.width, times)
    try:
        data, stored = strictly(data, partial(_by_simplejpeg, least_hw=least_hw))
    except ValueError as why:
        if "subsampling" in str(why):  # its words for every header that it cannot read, a sound one too
            opencv(data, header)  # refuses what is damaged
            kind = "a jpeg whose sampling factors no decoder here reads that would notice lost data"
            raise Refused(ErrorClass.UNSUPPORTED, f"this is {kind}: convert it to RGB, or to 4:4:4") from why
        raise refusal(data, header, why) from why
    if not has_all_scans(data):
        what = f"this jpeg file ends too early: its {len(data):,} bytes lack scans that would complete the picture"
        raise Refused(ErrorClass.TRUNCATED, what)
    return replace(_picture(header, upright(stored, header.exif_orientation)), reduced=times)


def _times_smaller(header: Header, limits: Limits) -> int:
    """How many times smaller it is decoded. A square that the edge cuts must be at the right or the bottom."""
    times = limits.reduced if max(header.height, header.width) >= _LEAST_REDUCED_PX else 1
    while header.exif_orientation != 1 and (header.height % times or header.width % times):
        times //= 2
    return times


def _by_simplejpeg(data: bytes, least_hw: tuple[int, int]) -> RGB:
    """least_hw: libjpeg picks the eighths of the size that just reach it; it reads and checks all data at any size.

    Raises ValueError with libjpeg's first error or warning (its jerror.h has them all).
    """
    return simplejpeg.decode_jpeg(data, "RGB", min_height=least_hw[0], min_width=least_hw[1], strict=True)


def _avif(data: bytes, header: Header, limits: Limits) -> Picture:
    if max(header.width, header.height) > _AVIF_LONGEST_SIDE_PX:
        told = f"{header.width} x {header.height}: no side of an AVIF may be over {_AVIF_LONGEST_SIDE_PX:,} pixels"
        raise Refused(ErrorClass.TOO_LARGE, told)
    try:
        opened = AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    except PILLOW_ERRORS as why:
        raise refusal(data, header, why) from why
    # irot and imir, as an EXIF orientation; one in the EXIF block itself is void (ISO 23008-12)
    orientation, taken_at = exif_facts(opened.info.get("exif"))
    header = replace(header, width=opened.width, height=opened.height, exif_orientation=orientation, taken_at=taken_at)
    _check_size(opened.width, opened.height, limits)
    return _by_opencv(data, header, limits)


def _heic(data: bytes, header: Header, limits: Limits) -> Picture:
    try:
        import pillow_heif
    except ImportError as why:
        message = "HEIC needs the optional extra: pip install 'tinyface[heic]'"
        raise Refused(ErrorClass.UNSUPPORTED, message) from why
    try:
        opened = pillow_heif.open_heif(data, convert_hdr_to_8bit=True)
        width, height = opened.size
        _check_size(width, height, limits)
        turned = np.asarray(opened.to_pillow().convert("RGB"))  # libheif turns it itself
    except PILLOW_ERRORS as why:
        raise refusal(data, header, why) from why
    orientation, taken_at = exif_facts(opened.info.get("exif"))  # told to the reader, not applied again
    return _picture(replace(header, exif_orientation=orientation, taken_at=taken_at), np.array(turned, np.uint8))


def _check_size(width: int, height: int, limits: Limits) -> None:
    if error := too_large(width, height, limits):
        raise Refused(error.error_class, error.message)


def _tiff(data: bytes, header: Header, limits: Limits) -> Picture:
    return _picture(header, decode_tiff(data, header))


_DECODERS: dict[str, Callable[[bytes, Header, Limits], Picture]] = {
    "jpeg": _jpeg,
    "png": _png,
    "webp": _by_opencv,
    "bmp": _by_opencv,
    "gif": _gif,
    "avif": _avif,
    "tiff": _tiff,
    "heic": _heic,
}
