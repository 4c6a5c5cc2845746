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
import struct
import warnings
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import cv2
import numpy as np
import simplejpeg
from numpy.typing import NDArray
from PIL import AvifImagePlugin, Image, TiffImagePlugin

from tinyface_core.errors import ErrorClass, PictureError, Stage
from tinyface_core.picture.header import Header, sniff, too_large
from tinyface_core.picture.ifd import exif_facts
from tinyface_core.picture.jpeg import with_clean_header
from tinyface_core.picture.layout import is_whole
from tinyface_core.picture.picture import Limits, Picture

RGB = NDArray[np.uint8]

_AS_STORED = cv2.IMREAD_COLOR_RGB | cv2.IMREAD_IGNORE_ORIENTATION
# What Pillow's readers are seen to raise for a file that they cannot read; one of these is no bug of ours
_PILLOW_ERRORS = (
    OSError,
    SyntaxError,
    ValueError,
    KeyError,
    TypeError,
    IndexError,
    RuntimeError,
    EOFError,
    struct.error,
)
_AVIF_LONGEST_SIDE_PX = 32_768  # libavif's limit; over it a sound file is called damaged
_PADDING_SHARE = 0.02  # of a JPEG: that much may stand unused before its end marker (cameras pad; losses leave more)


class _Refused(Exception):
    """One picture's error on its way up to `decode`; never leaves this file."""

    def __init__(self, error_class: ErrorClass, message: str) -> None:
        super().__init__(message)
        self.error = PictureError(Stage.DECODE, error_class, message)


def decode(data: bytes, limits: Limits = Limits()) -> Picture | PictureError:
    """The upright picture in an encoded file, or why there is none. Never raises; stage is always `decode`.

    Runs with the threads that OpenCV is set to (`cv2.setNumThreads`): that is the caller's choice. Of the limits
    only max_pixels is kept here; time and memory are kept by `guard.DecodePool`.
    """
    try:
        header = sniff(data, limits)
        return header if isinstance(header, PictureError) else _decode(data, header, limits)
    except _Refused as refused:
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
        raise _Refused(ErrorClass.CORRUPT, f"the header says {told[0]} x {told[1]}, {found}")
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


def _refusal(data: bytes, header: Header, why: object) -> _Refused:
    """`truncated` where the file's end is missing, else what the decoder's words say, else `corrupt`."""
    words = str(why)
    if re.search(r"(?i)insufficient memory|out of memory|failed to allocate", words) or not _has_memory_for(header):
        return _Refused(ErrorClass.OUT_OF_MEMORY, "the picture does not fit into the memory limit")
    if not is_whole(header.format, data) or words.startswith("Premature end"):
        what = f"this {header.format} file ends too early: {len(data):,} bytes do not hold its picture"
        return _Refused(ErrorClass.TRUNCATED, what)
    if re.search(r"(?i)unsupported|not implemented|data precision", words) and "marker" not in words:
        return _Refused(ErrorClass.UNSUPPORTED, f"a kind of {header.format} that is not decoded here: {words}")
    return _Refused(ErrorClass.CORRUPT, f"this {header.format} file is damaged: {words}")


def _has_memory_for(header: Header) -> bool:
    """Decoders keep a lack of memory to themselves, or call it damage: so ask whether it would have been there.

    16 bytes a pixel: what the hungriest of them take besides the picture. Asked for, never touched.
    """
    try:
        np.empty((header.height, header.width, 16), np.uint8)
    except MemoryError:
        return False
    return True


def _opencv(data: bytes, header: Header, flags: int = _AS_STORED) -> NDArray[Any]:
    try:
        pixels = cv2.imdecode(np.frombuffer(data, np.uint8), flags)
    except cv2.error as why:
        if why.code == cv2.Error.StsNoMem:
            raise MemoryError from None
        raise _refusal(data, header, why.err or why) from why
    if pixels is None:
        raise _refusal(data, header, "its data contradict themselves")
    return pixels


def _by_opencv(data: bytes, header: Header, limits: Limits) -> Picture:
    return _picture(header, upright(_opencv(data, header), header.exif_orientation))


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
            return np.ascontiguousarray(_opencv(data, header), dtype=np.uint8)
        except _Refused:
            raise _refusal(data, header, why) from why  # the first decoder's reason says more
    try:
        return simplejpeg.decode_jpeg(with_clean_header(data), "RGB", strict=True)
    except ValueError:
        raise _refusal(data, header, why) from why


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
        raise _Refused(ErrorClass.TOO_LARGE, told)
    try:
        opened = AvifImagePlugin.AvifImageFile(io.BytesIO(data))
    except _PILLOW_ERRORS as why:
        raise _refusal(data, header, why) from why
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
        raise _Refused(ErrorClass.UNSUPPORTED, message) from why
    try:
        opened = pillow_heif.open_heif(data, convert_hdr_to_8bit=True)
        width, height = opened.size
        _check_size(width, height, limits)
        turned = np.asarray(opened.to_pillow().convert("RGB"))  # libheif turns it itself
    except _PILLOW_ERRORS as why:
        raise _refusal(data, header, why) from why
    orientation, taken_at = exif_facts(opened.info.get("exif"))  # told to the reader, not applied again
    return _picture(replace(header, exif_orientation=orientation, taken_at=taken_at), np.array(turned, np.uint8))


def _check_size(width: int, height: int, limits: Limits) -> None:
    if error := too_large(width, height, limits):
        raise _Refused(error.error_class, error.message)


def _tiff(data: bytes, header: Header, limits: Limits) -> Picture:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # Pillow tells of odd tags so
        try:
            opened = TiffImagePlugin.TiffImageFile(io.BytesIO(data))
        except _PILLOW_ERRORS:
            return _picture(header, _tiff_by_opencv(data, header))
        try:
            opened.load()  # turns it by its orientation
            return _picture(header, _rgb_of(opened))
        except _PILLOW_ERRORS as why:
            raise _refusal(data, header, why) from why


def _tiff_by_opencv(data: bytes, header: Header) -> RGB:
    """Three channels of floating point, which Pillow cannot hold, and whatever else libtiff makes RGB of.

    OpenCV turns a TIFF by its orientation whatever it is told.
    """
    raw = _opencv(data, header, cv2.IMREAD_UNCHANGED)
    if raw.dtype == np.uint8:
        return np.ascontiguousarray(_opencv(data, header))
    grey_or_rgb = raw if raw.ndim == 2 else np.ascontiguousarray(raw[..., 2::-1])
    return _to_8_bits(grey_or_rgb)


def _rgb_of(opened: Image.Image) -> RGB:
    if opened.mode.startswith(("I", "F")):  # Pillow's own conversion saturates: a 16-bit picture would be white
        return _to_8_bits(np.asarray(opened))
    return np.array(opened.convert("RGB"), np.uint8)


def _to_8_bits(values: NDArray[Any]) -> RGB:
    """Grey (H, W) or RGB (H, W, 3) of any number type -> RGB uint8, by the range of the values found.

    Floating point in 0..1 is stretched, in 0..255 taken as it is; integers up to 65535 keep their upper 8 bits.
    Anything else is a measurement, not a photograph, and is refused rather than guessed.
    """
    low, high = (float(values.min()), float(values.max())) if values.size else (0.0, 0.0)
    if np.issubdtype(values.dtype, np.integer) and low >= 0 and high <= 65535:
        wide = values.dtype.itemsize == 2 or high > 255
        grey_or_rgb = (values >> 8 if wide else values).astype(np.uint8)
    elif 0 <= low <= high <= 255:
        grey_or_rgb = np.rint(values * (255 if high <= 1 else 1)).astype(np.uint8)
    else:
        message = f"its values run from {low:g} to {high:g}: convert it to 8 bits by a scale of your choice"
        raise _Refused(ErrorClass.UNSUPPORTED, message)
    if grey_or_rgb.ndim == 2:
        return np.repeat(grey_or_rgb[..., np.newaxis], 3, axis=2)
    return grey_or_rgb


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
