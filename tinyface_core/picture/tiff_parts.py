"""What the tags of a TIFF say of its pixels, and whether all that they promise is there."""

from __future__ import annotations

import struct
from collections.abc import Iterable
from dataclasses import dataclass
from itertools import cycle

import simplejpeg

from tinyface_core.picture import ifd
from tinyface_core.picture.header import Header
from tinyface_core.picture.jpeg import has_all_scans, strictly
from tinyface_core.picture.layout import Damaged
from tinyface_core.picture.refusal import opencv, refusal

_UNCOMPRESSED, _OLD_JPEG, _JPEG = 1, 6, 7  # values of the tag Compression
WHITE_IS_0, _BLACK_IS_0, _RGB, _YCBCR, LAB = 0, 1, 2, 6, 8  # of PhotometricInterpretation
UNSIGNED, SIGNED, _FLOAT = 1, 2, 3  # of SampleFormat
_PREMULTIPLIED = 1  # of ExtraSamples
_OPENCV_CODINGS = frozenset({_UNCOMPRESSED, 2, 3, 4, 5, _JPEG, 8, 32773, 32946})  # of its wheel: no zstd, no lzma
_OPENCV_BITS = {UNSIGNED: (8, 10, 12, 14, 16, 32), SIGNED: (32,), _FLOAT: (32, 64)}


@dataclass(frozen=True)
class TiffKind:
    """What the tags say of the pixels. samples: of a pixel. in_planes: one colour after the other.

    colour_block_wh: pixels of YCbCr that share their colour, (width, height).
    """

    compression: int
    colours: int
    number_format: int
    bits: int
    samples: int
    in_planes: bool
    premultiplied: bool
    colour_block_wh: tuple[int, int]

    @classmethod
    def of(cls, data: bytes) -> TiffKind:
        """Raises struct.error, ValueError: as `ifd.read_tags`, and where the tags contradict each other."""
        tags = ifd.read_tags(data, _TAGS_OF_KIND, most=ifd.FEW)
        samples, bits = ifd.number(tags, ifd.SAMPLES, 1), tags.get(ifd.BITS_PER_SAMPLE, (1,))
        block = tags.get(ifd.COLOUR_BLOCK) or (2, 2)
        if 1 < len(bits) < min(samples, ifd.FEW):  # one number may stand for all
            raise ValueError(f"a pixel has {samples} samples, and bits are told of {len(bits)}")
        return cls(
            compression=ifd.number(tags, ifd.COMPRESSION, _UNCOMPRESSED),
            colours=ifd.number(tags, ifd.PHOTOMETRIC, _BLACK_IS_0),
            number_format=ifd.number(tags, ifd.SAMPLE_FORMAT, UNSIGNED),
            bits=ifd.number(tags, ifd.BITS_PER_SAMPLE, 1),
            samples=samples,
            in_planes=samples > 1 and ifd.number(tags, ifd.PLANAR_CONFIGURATION, 1) == 2,
            premultiplied=ifd.number(tags, ifd.EXTRA_SAMPLES, 0) == _PREMULTIPLIED,
            colour_block_wh=(int(block[0]), int(block[-1])),
        )

    def __str__(self) -> str:
        told = {
            "BitsPerSample": self.bits,
            "SampleFormat": self.number_format,
            "SamplesPerPixel": self.samples,
            "PlanarConfiguration": 1 + self.in_planes,
            "PhotometricInterpretation": self.colours,
            "Compression": self.compression,
        }
        return ", ".join(f"{tag} {value}" for tag, value in told.items())

    def bytes_of(self, height: int, width: int) -> int:
        """Of an uncompressed strip or tile of that size in pixels, of one plane or of all colours together."""
        if self.colours == _YCBCR:
            across, down = self.colour_block_wh
            return -(-width // across) * -(-height // down) * (across * down + 2) * self.bits // 8
        return height * -(-width * self.bits * (1 if self.in_planes else self.samples) // 8)

    @property
    def is_right_by_opencv(self) -> bool:
        """It mixes up planes, knows colours by their number only, and leaves them multiplied by alpha."""
        samples = {WHITE_IS_0: (1, 2), _BLACK_IS_0: (1, 2), _RGB: (3, 4)}.get(self.colours, ())
        return (
            self.samples in samples
            and self.bits in _OPENCV_BITS.get(self.number_format, ())
            and not (self.number_format != UNSIGNED and self.samples == 2)
            and not (self.in_planes or self.premultiplied)
            and self.compression in _OPENCV_CODINGS
        )


_TAGS_OF_KIND = (
    ifd.COMPRESSION,
    ifd.PHOTOMETRIC,
    ifd.SAMPLE_FORMAT,
    ifd.BITS_PER_SAMPLE,
    ifd.SAMPLES,
    ifd.PLANAR_CONFIGURATION,
    ifd.EXTRA_SAMPLES,
    ifd.COLOUR_BLOCK,
)
_TAGS_OF_STRIPS = (
    *(ifd.STRIP_OFFSETS, ifd.STRIP_BYTES, ifd.ROWS_PER_STRIP),
    *(ifd.TILE_OFFSETS, ifd.TILE_BYTES, ifd.TILE_WIDTH, ifd.TILE_HEIGHT, ifd.JPEG_TABLES),
)


def check_whole(data: bytes, header: Header, kind: TiffKind) -> None:
    """Is all of the picture there? Asked where the libraries show a part of it instead; of fax nobody can tell.

    Raises Refused; struct.error, ArithmeticError, ValueError, TypeError where the tags make no sense.
    """
    ycbcr = kind.colours == _YCBCR
    if kind.compression == _OLD_JPEG:
        tags = ifd.read_tags(data, (ifd.OLD_JPEG, ifd.OLD_JPEG_BYTES), most=ifd.FEW)
        start = ifd.number(tags, ifd.OLD_JPEG, 0)
        stream = data[start : start + ifd.number(tags, ifd.OLD_JPEG_BYTES, 0)]
        if b"\xff\xda" not in stream:  # only a header: its scan is elsewhere, its tables may be
            raise refusal(data, header, f"unsupported, as lost data would not be noticed: {kind}")
        _check_jpeg(stream, data, header, (header.height, header.width))
    elif kind.compression == _JPEG or (kind.compression == _UNCOMPRESSED and not (kind.in_planes and ycbcr)):
        _check_strips(data, header, kind)
    elif ycbcr:  # libtiff passes over damage there
        raise refusal(data, header, f"unsupported, as lost data would not be noticed: {kind}")


def _check_strips(data: bytes, header: Header, kind: TiffKind) -> None:
    """Are all strips or tiles of uncompressed data, or JPEG, there and whole? Raises as `check_whole`."""
    tags = ifd.read_tags(data, _TAGS_OF_STRIPS)
    offsets, sizes, plane, plane_hw = _strips_of(tags, header)
    needed = plane * (kind.samples if kind.in_planes else 1)
    if needed == 1 and kind.compression == _UNCOMPRESSED and ifd.TILE_WIDTH not in tags:
        sizes = (len(data),)  # some writers tell a wrong size of the only one, or none: libtiff knows better
    if (found := min(len(offsets), len(sizes))) < needed:
        raise refusal(data, header, f"it needs {needed:,} strips or tiles and tells where {found:,} are")
    tables = bytes(tags.get(ifd.JPEG_TABLES, b""))[:-2]  # shared by all; without its end marker
    for offset, size, (height, width) in zip(offsets[:needed], sizes, cycle(plane_hw), strict=False):
        if kind.compression == _JPEG:
            strip = data[offset : offset + size]
            stream = tables + strip[2:] if tables else strip  # without its start marker
            _check_jpeg(stream, data, header, None if kind.in_planes else (height, width))
        elif (there := min(size, len(data) - offset)) < kind.bytes_of(height, width):
            raise refusal(data, header, f"{max(there, 0):,} bytes where {width} x {height} pixels should be")


def _strips_of(
    tags: dict[int, ifd.Value], header: Header
) -> tuple[ifd.Value, ifd.Value, int, Iterable[tuple[int, int]]]:
    """Offsets and sizes in bytes of all strips or tiles; how many make a plane; (height, width) in pixels of those."""
    if ifd.TILE_WIDTH in tags:
        height, width = ifd.number(tags, ifd.TILE_HEIGHT, 0), ifd.number(tags, ifd.TILE_WIDTH, 0)
        tiles = -(-header.height // max(height, 1)) * -(-header.width // max(width, 1))
        return tags.get(ifd.TILE_OFFSETS, ()), tags.get(ifd.TILE_BYTES, ()), tiles, [(height, width)]
    rows = min(ifd.number(tags, ifd.ROWS_PER_STRIP, header.height), header.height)
    if rows == 0:
        raise ValueError("its strips have no rows")
    tops = range(0, header.height, rows)
    strips_hw = ((min(rows, header.height - top), header.width) for top in tops)
    return tags.get(ifd.STRIP_OFFSETS, ()), tags.get(ifd.STRIP_BYTES, ()), len(tops), strips_hw


def _check_jpeg(stream: bytes, data: bytes, header: Header, least_hw: tuple[int, int] | None) -> None:
    """Raises Refused where a JPEG stream of the file `data` has lost something, or is smaller than least_hw pixels."""
    try:
        stream, _ = strictly(stream, _read_by_simplejpeg)
        height, width = simplejpeg.decode_jpeg_header(stream)[:2]
        all_scans = has_all_scans(stream)
    except (ValueError, IndexError, struct.error, Damaged) as why:
        if "subsampling" in str(why):  # its words for every header that it cannot read, a sound one too
            opencv(data, header)  # refuses what is damaged
            raise refusal(data, header, "unsupported sampling of a JPEG: lost data would not be noticed") from why
        raise refusal(data, header, why) from why
    if not all_scans:
        raise refusal(data, header, "a JPEG lacks scans that would complete it")
    if least_hw is not None and (height < least_hw[0] or width < least_hw[1]):
        found = f"a JPEG of {width} x {height} pixels where {least_hw[1]} x {least_hw[0]} should be"
        raise refusal(data, header, found)


def _read_by_simplejpeg(stream: bytes) -> None:
    """Every bit is read, an eighth of the size is drawn. Raises ValueError."""
    simplejpeg.decode_jpeg(stream, "RGB", min_factor=8, strict=True)
