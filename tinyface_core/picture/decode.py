"""Encoded bytes -> an upright RGB picture, or why not. Decodes in this process; `guard` puts it into children.

Which library decodes what was chosen by what it *refuses* (a damaged file must become an error, not a picture
that is grey below its middle), measured with OpenCV 5.0, Pillow 13 and simplejpeg 1.9:

    jpeg                 simplejpeg in strict mode: it stops where data were lost. OpenCV fills the rest with grey.
                         Stray bytes in the header are taken out first. OpenCV only for what simplejpeg objects to
                         without a loss (padding).
    png webp bmp gif     OpenCV: it checks the sums, and reads more of the valid oddities than Pillow does.
    avif                 OpenCV for pixels (it stops at every flipped bit; Pillow's decoder shows them),
                         Pillow for the turn, which OpenCV ignores.
    tiff                 Pillow; OpenCV for what Pillow cannot open. OpenCV multiplies colours by alpha.
    heic                 pillow-heif, an optional extra.

Orientation is applied in one place, `upright`, from the header that `header` read; the decoders that turn by
themselves (TIFF, HEIC) are named there. Alpha is dropped, not laid over a colour. Of several frames or pages
the first is taken. 16 bits become 8 by their upper half. Floating point: 0..1 or 0..255, see `_to_8_bits`.
"""

from __future__ import annotations

import io
import re
from collections.abc import Callable
from dataclasses import replace

import cv2
import numpy as np
import simplejpeg
from PIL import AvifImagePlugin

from tinyface_core.errors import ErrorClass, PictureError, Stage
from tinyface_core.picture.header import Header, sniff, too_large
from tinyface_core.picture.ifd import exif_facts
from tinyface_core.picture.jpeg import with_clean_header
from tinyface_core.picture.picture import Limits, Picture
from tinyface_core.picture.refusal import PILLOW_ERRORS, RGB, Refused, opencv, refusal
from tinyface_core.picture.tiff import decode_tiff

_AVIF_LONGEST_SIDE_PX = 32_768  # libavif's limit; over it a sound file is called damaged
_PADDING_SHARE = 0.02  # of a JPEG: that much may stand unused before its end marker (cameras pad; losses leave more)


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
    if (picture.width, picture.height) != told:
        found = f"the decoder gave {picture.width} x {picture.height} upright pixels"
        raise Refused(ErrorClass.CORRUPT, f"the header says {told[0]} x {told[1]}, {found}")
    return picture


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


def _jpeg(data: bytes, header: Header, limits: Limits) -> Picture:
    try:
        stored = simplejpeg.decode_jpeg(data, "RGB", strict=True)
    except ValueError as why:
        stored = _odd_jpeg(data, header, why)
    return _picture(header, upright(stored, header.exif_orientation))


def _odd_jpeg(data: bytes, header: Header, why: ValueError) -> RGB:
    """One that simplejpeg objects to (`why`): what is odd in its header does not touch the picture."""
    if not _lost_data(str(why), len(data)):
        try:
            return np.ascontiguousarray(opencv(data, header), dtype=np.uint8)
        except Refused:
            raise refusal(data, header, why) from why  # the first decoder's reason says more
    try:
        return simplejpeg.decode_jpeg(with_clean_header(data), "RGB", strict=True)
    except ValueError:
        raise refusal(data, header, why) from why


def _lost_data(words: str, size_bytes: int) -> bool:
    """Does libjpeg's message (its jerror.h) mean that a part of the picture is missing or wrong?

    Bytes that stand unused before the end marker are padding when few, a loss when many.
    """
    if unused := re.match(r"Corrupt JPEG data: (\d+) extraneous bytes before marker 0xd9", words):
        return int(unused[1]) > _PADDING_SHARE * size_bytes
    return words.startswith(("Corrupt JPEG data", "Premature end"))


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
    "png": _by_opencv,
    "webp": _by_opencv,
    "bmp": _by_opencv,
    "gif": _by_opencv,
    "avif": _avif,
    "tiff": _tiff,
    "heic": _heic,
}
