"""Pictures made to break their reader: each costs its own row, tells why, and leaves its neighbours alone."""

from __future__ import annotations

import struct
import time
import tracemalloc
import zlib
from collections.abc import Iterator

import numpy as np
import pytest
from PIL import Image

from tests.picture_samples import HEIGHT, WIDTH, colour_files, noisy_files, png_chunk, saved
from tinyface_core.errors import ErrorClass, PictureError, Stage
from tinyface_core.picture import decode as module
from tinyface_core.picture.decode import decode
from tinyface_core.picture.guard import DecodePool
from tinyface_core.picture.header import sniff
from tinyface_core.picture.picture import Limits, Picture

LONG_PX = 65_500  # the longest side of a JPEG
PNG = colour_files()["png"]
GOOD = colour_files()["jpeg"]
MIB = 1 << 20
SMALL = Limits(memory_bytes=600 << 20, timeout_s=30)


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(1, SMALL) as opened:
        yield opened


def between_neighbours(pool: DecodePool, data: bytes) -> Picture | PictureError:
    """What becomes of it in a child; the pictures before and behind it are read."""
    before, found, behind = (result for _, result in pool.decode_ahead(enumerate((GOOD, data, GOOD))))
    for neighbour in (before, behind):
        assert isinstance(neighbour, Picture)
        assert (neighbour.width, neighbour.height) == (WIDTH, HEIGHT)
    return found


def error_class(found: Picture | PictureError) -> ErrorClass:
    assert isinstance(found, PictureError), found
    assert found.stage is Stage.DECODE
    return found.error_class


def flat(width: int, height: int, kind: str, **options: object) -> bytes:
    picture = Image.fromarray(np.full((height, width, 3), (90, 60, 200), np.uint8))
    return saved(picture.quantize(4) if kind == "GIF" else picture, kind, **options)


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "BMP", "TIFF", "GIF"])
def test_a_side_of_65500_pixels_is_read(kind: str) -> None:
    for width, height in ((LONG_PX, 3), (3, LONG_PX)):
        picture = decode(flat(width, height, kind))
        assert isinstance(picture, Picture)
        assert (picture.width, picture.height) == (width, height)


def test_longer_than_its_decoder_takes_is_too_large_not_corrupt() -> None:
    """libavif calls a sound file damaged then."""
    data = flat(3, LONG_PX, "AVIF", quality=10, speed=10)
    assert error_class(decode(data)) is ErrorClass.TOO_LARGE


def sized(kind: str, width: int, height: int) -> bytes:
    """The small picture with another size in its header."""
    data = bytearray(colour_files()["webp lossless" if kind == "webp" else kind])
    if kind == "jpeg":
        at = data.index(b"\xff\xc0") + 5
        data[at : at + 4] = struct.pack(">HH", height, width)
    elif kind == "png":
        data[8:33] = png_chunk(b"IHDR", struct.pack(">II", width, height) + data[24:29])
    elif kind == "bmp":
        data[18:26] = struct.pack("<ii", width, height)
    elif kind == "gif":
        data[6:10] = struct.pack("<HH", width, height)
    elif kind == "webp":
        extended = b"VP8X" + struct.pack("<II", 10, 0) + struct.pack("<I", width - 1)[:3]
        data[12:12] = extended + struct.pack("<I", height - 1)[:3]
        data[4:8] = struct.pack("<I", len(data) - 8)
    elif kind == "tiff":
        for tag, value in ((256, width), (257, height)):
            at = data.index(struct.pack("<HHI", tag, 4, 1)) + 8
            data[at : at + 4] = struct.pack("<I", value)
    else:
        at = data.index(b"ispe") + 8
        data[at : at + 8] = struct.pack(">II", width, height)
    return bytes(data)


@pytest.mark.parametrize("kind", ["jpeg", "png", "webp", "tiff", "bmp", "gif", "avif", "heic"])
def test_65500_by_65500_is_refused_before_anything_is_decoded(kind: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_DECODERS", {})
    tracemalloc.start()
    try:
        found = decode(sized(kind, LONG_PX, LONG_PX))
        assert tracemalloc.get_traced_memory()[1] < 1 << 20
    finally:
        tracemalloc.stop()
    assert error_class(found) is ErrorClass.TOO_LARGE
    assert "65500 x 65500 is 4,290.2 megapixels" in found.message  # type: ignore[union-attr]


def tiff(entries: list[tuple[int, int, list[int]]], strip: bytes) -> bytes:
    """A little-endian TIFF of one strip or tile; 0 for tags 273 and 324 means: where that is."""
    codes = {3: "H", 4: "I"}
    size = 10 + 12 * len(entries) + 4
    beside = b""
    directory = struct.pack("<H", len(entries))
    where = size + sum(len(values) * struct.calcsize(codes[kind]) for _, kind, values in entries if len(values) > 2)
    for tag, kind, values in entries:
        told = [where] if tag in (273, 324) else values
        raw = struct.pack(f"<{len(told)}{codes[kind]}", *told)
        if len(raw) > 4:
            raw, beside = struct.pack("<I", size + len(beside)), beside + raw
        directory += struct.pack("<HHI", tag, kind, len(told)) + raw.ljust(4, b"\0")
    return b"II*\0\x08\0\0\0" + directory + bytes(4) + beside + strip


def flat_tiff(strip: bytes, *, samples: int = 3, tile: int | None = None) -> bytes:
    place = (
        [(273, 4, [0]), (278, 4, [HEIGHT]), (279, 4, [len(strip)])]
        if tile is None
        else [(322, 4, [tile]), (323, 4, [tile]), (324, 4, [0]), (325, 4, [len(strip)])]
    )
    common = [(256, 4, [WIDTH]), (257, 4, [HEIGHT]), (258, 3, [8, 8, 8]), (259, 3, [8]), (262, 3, [2])]
    return tiff(sorted([*common, (277, 3, [samples]), *place]), strip)


def test_the_made_tiff_is_one() -> None:
    picture = decode(flat_tiff(zlib.compress(bytes(WIDTH * HEIGHT * 3))))
    assert isinstance(picture, Picture)
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)


def test_data_that_unpack_to_more_than_the_picture_cost_nothing(pool: DecodePool) -> None:
    """Behind a small and honest size 64 MiB of zeros: in the pixels, a comment, a profile. The picture is read."""
    bomb = zlib.compress(bytes(64 * MIB), 1)
    head, rest = PNG[:33], PNG[33:]
    for name, data in {
        "pixels": head + png_chunk(b"IDAT", bomb) + png_chunk(b"IEND", b""),
        "comment": head + png_chunk(b"zTXt", b"note\0\0" + bomb) + rest,
        "profile": head + png_chunk(b"iCCP", b"x\0\0" + bomb) + rest,
        "strip": flat_tiff(bomb),
    }.items():
        found = between_neighbours(pool, data)
        assert isinstance(found, Picture), (name, found)
        assert (found.width, found.height) == (WIDTH, HEIGHT)


def test_a_size_inside_that_is_larger_than_the_headers_is_corrupt(pool: DecodePool) -> None:
    """A frame larger than its canvas, a tile of 4 gigapixels in a small picture, 65,535 samples a pixel."""
    gif = bytearray(colour_files()["gif"])
    frame = gif.index(b",", 13 + 3 * (2 << (gif[10] & 7)))
    gif[frame + 5 : frame + 9] = struct.pack("<HH", LONG_PX, LONG_PX)
    large = flat(2000, 2000, "WEBP", lossless=True)[12:]
    canvas = b"VP8X" + struct.pack("<II", 10, 0) + struct.pack("<I", WIDTH - 1)[:3] + struct.pack("<I", HEIGHT - 1)[:3]
    webp = b"RIFF" + struct.pack("<I", 4 + len(canvas + large)) + b"WEBP" + canvas + large
    packed = zlib.compress(bytes(1 << 20))
    for name, data in {
        "gif": bytes(gif),
        "webp": webp,
        "tile": flat_tiff(packed, tile=65_536),
        "samples": flat_tiff(packed, samples=65_535),
    }.items():
        assert error_class(between_neighbours(pool, data)) is ErrorClass.CORRUPT, name


@pytest.mark.parametrize("kind", ["webp", "avif", "heic"])
def test_a_canvas_that_memory_cannot_hold_costs_its_row(pool: DecodePool, kind: str) -> None:
    """Within the limit on pixels, told by a file of 200 bytes to 1 KB."""
    side = 16_000
    assert error_class(between_neighbours(pool, sized(kind, side, side))) is ErrorClass.OUT_OF_MEMORY


@pytest.mark.parametrize("name", ["png", "avif", "jpeg"])
def test_damage_in_the_middle_is_corrupt(pool: DecodePool, name: str) -> None:
    """PNG has sums, libavif checks; of a JPEG a piece is taken out."""
    data = bytearray(noisy_files()[name])
    middle = len(data) // 2
    if name == "jpeg":
        del data[middle : middle + 2000]
    else:
        data[middle : middle + 50] = bytes(50)
    assert error_class(between_neighbours(pool, bytes(data))) is ErrorClass.CORRUPT


@pytest.mark.parametrize("kind", ["tiff", "bmp", "gif", "webp", "heic"])
def test_a_head_that_contradicts_itself_is_corrupt_in_every_format(pool: DecodePool, kind: str) -> None:
    data = bytearray(sized(kind, 0 if kind != "webp" else 5, HEIGHT))
    if kind == "webp":
        data = bytearray(colour_files()["webp"])
        data[20 + 3 : 20 + 6] = b"\0\0\0"  # the start code of its first frame
    assert error_class(between_neighbours(pool, bytes(data))) is ErrorClass.CORRUPT


def endless() -> dict[str, bytes]:
    """Files of 6 MiB that are nothing but parts of a header, or whose tags are each as large as the file."""

    def little_tiff(tags: list[tuple[int, int, int]]) -> bytes:
        entries = b"".join(struct.pack("<HHII", tag, kind, count, 8) for tag, kind, count in tags)
        return b"II*\0\x08\0\0\0" + struct.pack("<H", len(tags)) + entries + bytes(6 * MIB)

    brands = struct.pack(">I4s4s4s4s", 20, b"ftyp", b"heic", bytes(4), b"heic")
    head = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", 9, 9, 8, 0, 0, 0, 0))
    return {
        "jpeg markers": b"\xff\xd8\xff" + b"\xff\xd0" * 3 * MIB,
        "jpeg segments": b"\xff\xd8" + b"\xff\xe5\0\2" * MIB,
        "png chunks": head + (bytes(4) + b"tEXt" + bytes(4)) * (MIB // 2),
        "webp chunks": b"RIFF\0\0\0\0WEBP" + (b"abcd" + bytes(4)) * (3 * MIB // 4),
        "heic boxes": brands + struct.pack(">I4s", 8, b"free") * (3 * MIB // 4),
        "tiff numbers": little_tiff([(256, 1, 6 * MIB), (257, 4, MIB)]),
        "tiff texts": little_tiff([(256, 3, 1), (257, 3, 1), *([(306, 2, 6 * MIB)] * 20_000)]),
        "bigtiff tags": b"II+\0\x08\0\0\0" + struct.pack("<QQ", 16, MIB // 4) + bytes(6 * MIB),
    }


@pytest.mark.parametrize("name", endless())
def test_an_endless_header_ends(name: str) -> None:
    """It is read in the process that feeds the model: 1 GiB of it took that process minutes, or hours."""
    data = endless()[name]
    begun = time.process_time()
    found = sniff(data)
    assert time.process_time() - begun < 1.5  # 0.3 s on a slow core
    if not name.startswith("tiff "):
        assert error_class(found) is ErrorClass.CORRUPT  # type: ignore[arg-type]


def test_a_tag_as_large_as_its_file_is_not_read_whole() -> None:
    """Each of its numbers would take 36 bytes."""
    data = endless()["tiff numbers"]
    tracemalloc.start()
    try:
        assert error_class(sniff(data)) is ErrorClass.TOO_LARGE  # type: ignore[arg-type]
        assert tracemalloc.get_traced_memory()[1] < MIB
    finally:
        tracemalloc.stop()


def test_a_run_of_fill_bytes_is_passed_at_once() -> None:
    data = GOOD[:2] + b"\xff" * 32 * MIB + GOOD[2:]
    begun = time.process_time()
    found = sniff(data)
    assert not isinstance(found, PictureError)
    assert (found.width, found.height) == (WIDTH, HEIGHT)
    assert time.process_time() - begun < 0.5
