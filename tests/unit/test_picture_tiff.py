"""TIFF of every common kind has the right pixels or is `unsupported`; one that lost a part of them is never shown."""

from __future__ import annotations

import io
import struct
import zlib
from itertools import product
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image

from tests.picture_samples import HEIGHT, WIDTH, noisy_HW3, saved, upright_HW3
from tinyface_core.errors import ErrorClass
from tinyface_core.picture.decode import decode
from tinyface_core.picture.picture import Picture

RAW, OLD_JPEG, JPEG, ADOBE_DEFLATE = 1, 6, 7, 8  # values of the tag Compression
WHITE_IS_0, BLACK_IS_0, RGB, PALETTE, CMYK, YCBCR, LAB = 0, 1, 2, 3, 5, 6, 8  # of PhotometricInterpretation
UNSIGNED, SIGNED, FLOAT = 1, 2, 3  # of SampleFormat
ROWS = 16  # of a strip, and of a tile, which is as wide
CODES = {3: "H", 4: "I", 7: "B"}  # by type of a tag

RGB_HW3 = upright_HW3()
GREY_HW = RGB_HW3[..., 0]
GREY_HW3 = np.repeat(GREY_HW[..., np.newaxis], 3, axis=2)


def tiff(strips: list[bytes], order: str = "<", **told: Any) -> bytes:
    """A TIFF of these strips, or of tiles if tile=True; RGB of 8 bits in one strip unless told otherwise."""
    kind = {"bits": 8, "colours": RGB, "samples": 3, "compression": RAW, "rows": HEIGHT, "height": HEIGHT} | told
    sizes = [len(strip) for strip in strips]
    tags: dict[int, tuple[int, list[int]]] = {
        256: (4, [WIDTH]),
        257: (4, [kind["height"]]),
        258: (3, [kind["bits"]] * kind["samples"]),
        259: (3, [kind["compression"]]),
        262: (3, [kind["colours"]]),
        277: (3, [kind["samples"]]),
        284: (3, [2 if kind.get("planes") else 1]),
        339: (3, [kind.get("number_format", UNSIGNED)] * kind["samples"]),
        **kind.get("tags", {}),
    }
    places = 324 if kind.get("tile") else 273
    if kind.get("tile"):
        tags |= {322: (3, [ROWS]), 323: (3, [ROWS]), 324: (4, sizes), 325: (4, sizes)}
    else:
        tags |= {273: (4, sizes), 278: (4, [kind["rows"]]), 279: (4, sizes)}
    beside_at = 8 + 2 + 12 * len(tags) + 4
    long_bytes = sum(n for t, v in tags.values() if (n := len(v) * struct.calcsize(CODES[t])) > 4)
    tags[places] = (4, [beside_at + long_bytes + sum(sizes[:i]) for i in range(len(sizes))])
    directory = beside = b""
    for tag, (kind_of_tag, values) in sorted(tags.items()):
        value = struct.pack(f"{order}{len(values)}{CODES[kind_of_tag]}", *values)
        if len(value) > 4:
            value, beside = struct.pack(order + "I", beside_at + len(beside)), beside + value
        directory += struct.pack(order + "HHI", tag, kind_of_tag, len(values)) + value.ljust(4, b"\0")
    start = (b"II*\0" if order == "<" else b"MM\0*") + struct.pack(order + "IH", 8, len(tags))
    return start + directory + bytes(4) + beside + b"".join(strips)


def packed(values_HWC: NDArray[Any], bits: int) -> bytes:
    """Unsigned numbers of any number of bits, each row filled up to a byte."""
    shifts = np.arange(bits - 1, -1, -1)
    rows = (values_HWC.reshape(len(values_HWC), -1, 1).astype(np.uint64) >> shifts.astype(np.uint64)) & np.uint64(1)
    return np.packbits(rows.astype(np.uint8).reshape(len(values_HWC), -1), axis=1).tobytes()


def coded(content: bytes, compression: int) -> bytes:
    return zlib.compress(content) if compression == ADOBE_DEFLATE else content


def strips_of(pixels_HWC: NDArray[Any]) -> list[bytes]:
    return [pixels_HWC[top : top + ROWS].tobytes() for top in range(0, len(pixels_HWC), ROWS)]


def tiles_of(pixels_HWC: NDArray[Any]) -> list[bytes]:
    height, width = pixels_HWC.shape[:2]
    filled = np.zeros((-(-height // ROWS) * ROWS, -(-width // ROWS) * ROWS, *pixels_HWC.shape[2:]), pixels_HWC.dtype)
    filled[:height, :width] = pixels_HWC
    corners = product(range(0, len(filled), ROWS), range(0, filled.shape[1], ROWS))
    return [filled[y : y + ROWS, x : x + ROWS].tobytes() for y, x in corners]


def pixels_of(data: bytes) -> NDArray[np.uint8]:
    found = decode(data)
    assert isinstance(found, Picture), found
    return found.rgb_HW3


def class_of(data: bytes) -> ErrorClass:
    found = decode(data)
    assert not isinstance(found, Picture), found.rgb_HW3.mean(axis=(0, 1))
    return found.error_class


def assert_near(found: NDArray[np.uint8], expected: NDArray[np.uint8], far: int = 1) -> None:
    assert found.shape == expected.shape
    assert int(np.abs(found.astype(int) - expected.astype(int)).max()) <= far


@pytest.mark.parametrize("compression", [RAW, ADOBE_DEFLATE])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize("bits", [1, 2, 4, 8, 10, 12, 14, 16])
def test_grey_of_any_depth_with_either_end_white(bits: int, order: str, compression: int) -> None:
    """16 bits with white as 0 came as a negative, 12 bits nearly black."""
    most = 2**bits - 1
    values = np.rint(GREY_HW / 255 * most).astype(np.uint16)
    expected = np.repeat(np.rint(values / most * 255).astype(np.uint8)[..., np.newaxis], 3, axis=2)
    for colours in (WHITE_IS_0, BLACK_IS_0):
        stored = most - values if colours == WHITE_IS_0 else values
        content = stored.astype(order + "u2").tobytes() if bits == 16 else packed(stored, bits)
        told = {"bits": bits, "colours": colours, "samples": 1, "compression": compression}
        assert_near(pixels_of(tiff([coded(content, compression)], order, **told)), expected)


@pytest.mark.parametrize("compression", [RAW, ADOBE_DEFLATE])
@pytest.mark.parametrize("order", ["<", ">"])
@pytest.mark.parametrize(("bits", "colours"), [(8, RGB), (16, RGB), (8, CMYK), (16, CMYK)])
def test_colours_in_planes(bits: int, colours: int, order: str, compression: int) -> None:
    """16 bits that are not compressed came as garbage."""
    stored = RGB_HW3 if colours == RGB else np.dstack([255 - RGB_HW3, np.zeros_like(GREY_HW)])
    numbers = stored.astype(order + "u2") * 257 if bits == 16 else stored
    planes = [coded(numbers[..., c].astype(numbers.dtype).tobytes(), compression) for c in range(stored.shape[2])]
    told = {"bits": bits, "colours": colours, "samples": len(planes), "compression": compression}
    np.testing.assert_array_equal(pixels_of(tiff(planes, order, planes=True, **told)), RGB_HW3)


@pytest.mark.parametrize("compression", [RAW, ADOBE_DEFLATE])
@pytest.mark.parametrize("code", ["<f4", ">f4", "<f8", ">f8", "<i4", ">i4", "<u4", ">u4"])
def test_numbers_of_32_bits_in_either_byte_order(code: str, compression: int) -> None:
    """Pillow swaps the bytes of compressed ones that tell the upper first."""
    number_format = {"f": FLOAT, "i": SIGNED, "u": UNSIGNED}[code[1]]
    numbers = (GREY_HW / 255 if number_format == FLOAT else GREY_HW).astype(code)
    told = {"bits": 8 * int(code[2]), "colours": BLACK_IS_0, "samples": 1, "number_format": number_format}
    data = tiff([coded(numbers.tobytes(), compression)], code[0], compression=compression, **told)
    np.testing.assert_array_equal(pixels_of(data), GREY_HW3)


def test_floats_with_white_as_0() -> None:
    data = tiff([(1 - GREY_HW / 255).astype("<f4").tobytes()], bits=32, colours=WHITE_IS_0, samples=1, number_format=3)
    np.testing.assert_array_equal(pixels_of(data), GREY_HW3)


@pytest.mark.parametrize("bits", [8, 16])
def test_grey_with_alpha_is_not_darkened(bits: int) -> None:
    """Multiplied by it (8 bits), or beside it. Alpha itself is dropped."""
    alpha = np.full_like(GREY_HW, 128)
    multiplied = bits == 8
    grey = np.rint(GREY_HW * (128 / 255)).astype(np.uint8) if multiplied else GREY_HW
    content = np.dstack([grey, alpha]).astype("u1" if multiplied else "<u2") * (1 if multiplied else 257)
    told = {"bits": bits, "colours": BLACK_IS_0, "samples": 2, "tags": {338: (3, [1 if multiplied else 2])}}
    assert_near(pixels_of(tiff([content.tobytes()], **told)), GREY_HW3, far=2)


def test_bits_in_reverse_order() -> None:
    """FillOrder 2, with white as 0 too; Pillow's own reader does not know that."""
    reverse = bytes(int(f"{byte:08b}"[::-1], 2) for byte in range(256))
    told = {"colours": WHITE_IS_0, "samples": 1, "tags": {266: (3, [2])}}
    data = tiff([(255 - GREY_HW).tobytes().translate(reverse)], **told)
    np.testing.assert_array_equal(pixels_of(data), GREY_HW3)


@pytest.mark.parametrize(
    ("content", "told"),
    [
        (GREY_HW.astype("<i2") * 128, {"bits": 16, "number_format": SIGNED}),
        (GREY_HW.astype("i1"), {"number_format": SIGNED}),
        ((GREY_HW / 255).astype("<f2"), {"bits": 16, "number_format": FLOAT}),
        (GREY_HW.astype("<u2"), {"bits": 16, "colours": PALETTE, "tags": {320: (3, list(range(65536)) * 3)}}),
        (np.dstack([GREY_HW] * 3), {"colours": LAB, "samples": 3, "planes": True}),
        (np.dstack([GREY_HW] * 3).astype("<u2"), {"bits": 16, "colours": LAB, "samples": 3}),
        (np.dstack([GREY_HW] * 3).astype("<f4"), {"bits": 32, "number_format": FLOAT, "samples": 3, "planes": True}),
        (np.dstack([GREY_HW] * 2).astype("<u2"), {"bits": 16, "samples": 2, "tags": {338: (3, [1])}}),
        (np.dstack([GREY_HW] * 2), {"samples": 2, "planes": True, "tags": {338: (3, [1])}}),
        (GREY_HW, {"compression": 34712}),
    ],
    ids=["int16", "int8", "float16", "palette16", "lab planes", "lab16", "float planes", "La16", "La planes", "jp2"],
)
def test_kinds_that_no_library_shows_right_are_unsupported(content: NDArray[Any], told: dict[str, Any]) -> None:
    """They came as wrong pixels, or were called damaged."""
    kind: dict[str, Any] = {"colours": BLACK_IS_0, "samples": 1} | told
    layers = range(content.shape[2]) if kind.get("planes") else ()
    strips = [content[..., c].tobytes() for c in layers] or [content.tobytes()]
    data = tiff(strips, **kind)
    assert class_of(data) is ErrorClass.UNSUPPORTED
    assert class_of(data[:-40]) is ErrorClass.TRUNCATED


def test_a_measurement_is_told_with_the_values_that_it_has() -> None:
    data = tiff([(GREY_HW.astype("<u4") * 16843009).tobytes()], bits=32, colours=BLACK_IS_0, samples=1)
    found = decode(data)
    assert not isinstance(found, Picture)
    assert found.error_class is ErrorClass.UNSUPPORTED
    assert "its values run from 0 to 4.29497e+09: convert it to 8 bits" in found.message


NUMBERS: dict[str, tuple[NDArray[Any], dict[str, Any]]] = {
    "rgb": (RGB_HW3, {}),
    "grey 16": (GREY_HW.astype("<u2") * 257, {"bits": 16, "colours": BLACK_IS_0, "samples": 1}),
    "float": ((RGB_HW3 / 255).astype("<f4"), {"bits": 32, "number_format": FLOAT}),
}


@pytest.mark.parametrize("compression", [RAW, ADOBE_DEFLATE])
@pytest.mark.parametrize("tile", [False, True])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_part_of_the_strips_or_tiles_is_no_picture(name: str, tile: bool, compression: int) -> None:
    """Half of them, one that is cut or empty, a header that tells twice the height: the lower half was black."""
    pixels, kind = NUMBERS[name]
    parts = [coded(part, compression) for part in (tiles_of if tile else strips_of)(pixels)]
    told = kind | {"rows": ROWS, "tile": tile, "compression": compression}
    expected = RGB_HW3 if pixels.ndim == 3 else GREY_HW3
    np.testing.assert_array_equal(pixels_of(tiff(parts, **told)), expected)
    for lost in (parts[: len(parts) // 2], [parts[0][: len(parts[0]) // 2], *parts[1:]], [parts[0], b"", *parts[2:]]):
        assert class_of(tiff(lost, **told)) is ErrorClass.CORRUPT
    assert class_of(tiff(parts, **told, height=2 * HEIGHT)) is ErrorClass.CORRUPT
    assert class_of(tiff(parts, **told)[:-40]) is ErrorClass.TRUNCATED


def test_a_plane_that_is_missing() -> None:
    planes = [RGB_HW3[..., c].tobytes() for c in range(3)]
    assert class_of(tiff(planes[:2], planes=True)) is ErrorClass.CORRUPT


@pytest.mark.parametrize("told_bytes", [0, 1000, 2**31])
@pytest.mark.parametrize("name", NUMBERS)
def test_a_wrong_size_of_the_only_strip_is_no_damage(name: str, told_bytes: int) -> None:
    """Some old writers tell it wrong; all that the picture needs is there."""
    pixels, kind = NUMBERS[name]
    data = tiff([pixels.tobytes()], **kind)
    at = data.index(struct.pack("<HHI", 279, 4, 1)) + 8
    found = pixels_of(data[:at] + struct.pack("<I", told_bytes) + data[at + 4 :])
    np.testing.assert_array_equal(found, RGB_HW3 if pixels.ndim == 3 else GREY_HW3)


def jpeg_tiff(part: bytes, tables: bytes = b"", **told: Any) -> bytes:
    tags = {347: (7, list(tables))} if tables else {}
    return tiff([part], compression=JPEG, colours=BLACK_IS_0, samples=1, tags=tags, **told)


GREY_JPEG = saved(Image.fromarray(GREY_HW), "JPEG", quality=95)
PROGRESSIVE = saved(Image.fromarray(GREY_HW), "JPEG", quality=95, progressive=True)
HALF = len(GREY_JPEG) - 200  # of its coded data about a half: the rest is tables


@pytest.mark.parametrize(
    "lost",
    [
        GREY_JPEG[:HALF],
        GREY_JPEG[:HALF] + b"\xff\xd9",
        GREY_JPEG[:HALF] + bytes(198) + b"\xff\xd9",
        GREY_JPEG.replace(b"JFIF\0\1", b"JFIF\0\2")[:HALF] + b"\xff\xd9",
        PROGRESSIVE[: PROGRESSIVE.rindex(b"\xff\xda")] + b"\xff\xd9",
        b"",
    ],
    ids=["cut", "cut and ended", "zeros", "a harmless oddity before", "scan missing", "empty"],
)
def test_a_jpeg_strip_that_lost_data(lost: bytes) -> None:
    """libtiff fills the rest with grey."""
    assert class_of(jpeg_tiff(lost)) in (ErrorClass.CORRUPT, ErrorClass.TRUNCATED)


def test_a_jpeg_strip_smaller_than_its_place() -> None:
    assert class_of(jpeg_tiff(GREY_JPEG, height=2 * HEIGHT, rows=2 * HEIGHT)) is ErrorClass.CORRUPT


@pytest.mark.parametrize(
    "whole",
    [
        GREY_JPEG,
        PROGRESSIVE,
        GREY_JPEG.replace(b"JFIF\0\1", b"JFIF\0\2"),
        GREY_JPEG[:-2] + bytes(4) + GREY_JPEG[-2:],
    ],
    ids=["plain", "progressive", "unknown version", "padding"],
)
def test_a_jpeg_strip_that_is_whole(whole: bytes) -> None:
    assert_near(pixels_of(jpeg_tiff(whole)), GREY_HW3, far=30)


@pytest.mark.parametrize("mode", ["RGB", "YCbCr", "CMYK"])
def test_jpeg_strips_that_share_their_tables(mode: str) -> None:
    """As libtiff writes them; half of each of the first three is lost in turn."""
    picture = Image.fromarray(noisy_HW3(200, 150)).convert(mode)
    file = io.BytesIO()
    picture.save(file, "TIFF", compression="jpeg", quality=90, strip_size=150 * 3 * 32)
    data = file.getvalue()
    assert np.abs(pixels_of(data).astype(int) - noisy_HW3(200, 150)).mean() < 20
    tags = Image.open(io.BytesIO(data)).tag_v2  # type: ignore[attr-defined]
    assert len(tags[273]) > 2
    assert tags[347]
    for at, size in zip(tags[273][:3], tags[279], strict=False):
        lost = data[: at + size // 2] + bytes(size - size // 2) + data[at + size :]
        assert class_of(lost) in (ErrorClass.CORRUPT, ErrorClass.TRUNCATED)


@pytest.mark.parametrize(("across", "down"), [(1, 1), (2, 1), (2, 2), (4, 2)])
def test_ycbcr_with_shared_colours_is_whole_or_refused(across: int, down: int) -> None:
    """Fewer bytes than 3 a pixel are no loss; libtiff passes over a real one, and over one in compressed data."""
    block = bytes([100] * across * down + [128, 128])
    parts = [block * (-(-WIDTH // across) * -(-min(ROWS, HEIGHT - y) // down)) for y in range(0, HEIGHT, ROWS)]
    told: dict[str, Any] = {"colours": YCBCR, "rows": ROWS, "tags": {530: (3, [across, down])}}
    assert_near(pixels_of(tiff(parts, **told)), np.full((HEIGHT, WIDTH, 3), 100, np.uint8))
    assert class_of(tiff([*parts[:-1], parts[-1][:-40]], **told)) is ErrorClass.CORRUPT
    compressed = tiff([zlib.compress(part) for part in parts], compression=ADOBE_DEFLATE, **told)
    assert class_of(compressed) is ErrorClass.UNSUPPORTED


def test_an_old_jpeg_is_whole_or_refused() -> None:
    """Compression 6: a whole JPEG file inside, or parts of one, of which nobody would notice a loss."""
    stream = saved(Image.fromarray(RGB_HW3), "JPEG", quality=95)

    def old(part: bytes, told_at: int = 0) -> bytes:
        tags = {512: (3, [1]), 513: (4, [told_at]), 514: (4, [len(part)]), 530: (3, [2, 2])}
        return tiff([part], compression=OLD_JPEG, colours=YCBCR, tags=tags)

    at = len(old(stream)) - len(stream)
    assert np.abs(pixels_of(old(stream, at)).astype(int) - RGB_HW3).mean() < 5
    assert class_of(old(stream[:-200], at)) is ErrorClass.TRUNCATED
    assert class_of(old(stream[:-200] + b"\xff\xd9", at)) is ErrorClass.CORRUPT
    assert class_of(old(stream, len(old(stream)))) is ErrorClass.UNSUPPORTED


def test_the_only_limit_on_pixels_is_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pillow's is lower than our default, and what it raised was taken for a bug of ours."""
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", WIDTH * HEIGHT // 3)
    np.testing.assert_array_equal(pixels_of(tiff([RGB_HW3.tobytes()])), RGB_HW3)


def test_two_widths_are_a_contradiction() -> None:
    """The libraries may take the other one, for which nobody asked whether it is too large."""
    data = bytearray(tiff([RGB_HW3.tobytes()]))
    width, other = (data.index(struct.pack("<HHI", tag, kind, 1)) for tag, kind in ((256, 4), (284, 3)))
    data[other : other + 12] = data[width : width + 12]
    data[width + 8 : width + 12] = struct.pack("<I", 40_000_000)
    assert class_of(bytes(data)) is ErrorClass.CORRUPT
