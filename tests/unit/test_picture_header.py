"""What the first bytes tell: format by signature, size without decoding, orientation, time, and the limits."""

from __future__ import annotations

import io
import struct
import tarfile
import time
import zipfile
import zlib
from datetime import datetime

import pytest
from PIL import Image

from tests.picture_samples import (
    HEIGHT,
    TAKEN,
    WIDTH,
    colour_files,
    exif,
    grey_files,
    opencv_saved,
    png_chunk,
    saved,
    upright_HW3,
)
from tinyface_core.errors import ErrorClass, PictureError, Stage
from tinyface_core.picture.header import Header, sniff
from tinyface_core.picture.layout import jpeg_segments
from tinyface_core.picture.picture import Limits


def refused(data: bytes, limits: Limits = Limits()) -> tuple[ErrorClass, str]:
    found = sniff(data, limits)
    assert isinstance(found, PictureError), found
    assert found.stage is Stage.DECODE
    return found.error_class, found.message


def accepted(data: bytes, limits: Limits = Limits()) -> Header:
    found = sniff(data, limits)
    assert isinstance(found, Header), found
    return found


@pytest.mark.parametrize("name", [*colour_files(), *grey_files()])
def test_format_and_size_of_every_kind(name: str) -> None:
    """The size is the stored one, width first, of the first frame or page."""
    header = accepted((colour_files() | grey_files())[name])
    assert header.format == name.split()[0]
    if name == "heic":  # coded in blocks, cropped when decoded
        assert (header.width, header.height) == (64, 64)
    else:
        assert (header.width, header.height) == (WIDTH, HEIGHT)
    assert header.decoded_bytes == 3 * header.width * header.height


def test_bytes_after_the_end_do_no_harm() -> None:
    for name, data in colour_files().items():
        assert accepted(data + b"left over" * 20).format == name.split()[0]


def archive(kind: str) -> bytes:
    file = io.BytesIO()
    if kind == "zip":
        with zipfile.ZipFile(file, "w") as members:
            members.writestr("a.jpg", colour_files()["jpeg"])
    else:
        with tarfile.open(fileobj=file, mode="w" if kind == "tar" else "w:gz") as tar:
            member = tarfile.TarInfo("a.jpg")
            member.size = 3
            tar.addfile(member, io.BytesIO(b"abc"))
    return file.getvalue()


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", 8 + len(content)) + kind + content


def brands(*names: bytes) -> bytes:
    return box(b"ftyp", names[0] + b"\0\0\0\0" + b"".join(names[1:]))


def bmp_of_compression(number: int) -> bytes:
    data = bytearray(colour_files()["bmp"])
    data[30:34] = struct.pack("<I", number)
    return bytes(data)


@pytest.mark.parametrize("kind", ["zip", "tar", "gzip"])
def test_archives_are_unsupported_not_unpacked(kind: str) -> None:
    error_class, message = refused(archive(kind))
    assert error_class is ErrorClass.UNSUPPORTED
    assert f"an archive ({kind})" in message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"7z\xbc\xaf\x27\x1c" + bytes(90), "an archive (7z)"),
        (b"Rar!\x1a\x07\x01\0" + bytes(90), "an archive (rar)"),
        (b"\x28\xb5\x2f\xfd" + bytes(90), "an archive (zstd)"),
        (saved(upright_HW3(), "JPEG2000"), "JPEG 2000"),
        (b"\xff\x0a\x7f\x02" + bytes(40), "JPEG XL"),
        (b"\0\0\0\x0cJXL \r\n\x87\n" + bytes(40), "JPEG XL"),
        (b"8BPS\0\x01" + bytes(40), "Photoshop"),
        (b'<?xml version="1.0"?>\n<svg xmlns="http://www.w3.org/2000/svg"/>', "SVG"),
        (b"<svg viewBox='0 0 1 1'/>", "SVG"),
        (saved(upright_HW3(), "ICO", sizes=[(32, 32)]), "icon"),
        (saved(upright_HW3(), "PPM"), "PNM"),
        (saved(upright_HW3(), "DDS"), "DirectDraw"),
        (b"II*\0\x10\0\0\0CR\x02\0" + bytes(90), "CR2"),
        (brands(b"crx ", b"crx ", b"isom"), "CR3"),
        (b"FUJIFILMCCD-RAW 0201" + bytes(90), "RAF"),
        (bytes(128) + b"DICM" + bytes(90), "DICOM"),
        (brands(b"mif1", b"mif1", b"jpeg"), "neither HEVC nor AV1"),
        (b"\xff\xd8\xff\xf7" + colour_files()["jpeg"].split(b"\xff\xc0")[1], "JPEG-LS"),
        (colour_files()["jpeg"].replace(b"\xff\xc0", b"\xff\xc5"), "hierarchical"),
        (saved(upright_HW3(), "TGA"), "Targa"),
        (saved(upright_HW3(), "TGA", compression="tga_rle"), "Targa"),
        (b"\0\0\2\0\1\0\x20\x20\0\0" + bytes(40), "cursor"),
        (saved(upright_HW3(), "PCX"), "PCX"),
        (saved(upright_HW3(), "SGI"), "SGI"),
        (saved(Image.fromarray(upright_HW3()).convert("1"), "XBM"), "XBM"),
        (b"/* XPM */\nstatic char *a[] = {", "XPM"),
        (b"icns" + bytes(40), "ICNS"),
        (b"P6\r\n37 53\r\n255\n" + bytes(40), "PNM"),
        (bmp_of_compression(4), "BMP with a JPEG"),
        (bmp_of_compression(5), "BMP with a PNG"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_other_picture_formats_are_unsupported(data: bytes, words: str) -> None:
    error_class, message = refused(data)
    assert error_class is ErrorClass.UNSUPPORTED
    assert words in message


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"%PDF-1.7\n%\xe2\xe3\xcf\xd3\n", "PDF"),
        (brands(b"isom", b"isom", b"avc1", b"mp41") + bytes(90), "video or sound file (mp4 family, brand 'isom')"),
        (brands(b"qt  "), "brand 'qt'"),
        (b"\x1aE\xdf\xa3\x9fB\x86\x81\x01" + bytes(40), "webm"),
        (b"RIFF\x24\0\0\0AVI LIST" + bytes(40), "avi"),
        (b"RIFF\x24\0\0\0WAVEfmt " + bytes(40), "wav"),
        (b"\x7fELF\x02\x01\x01" + bytes(40), "ELF"),
        (b"MZ\x90\0\x03" + bytes(90), "Windows"),
        (b"\n<!DOCTYPE html><html><body>404</body></html>", "web page"),
        (b"Hello, this is a note about the pictures.\n", "text"),
        ("Bilder vom Fest, schön\n".encode(), "text"),
        (b"BMX bicycles are fun, and this is no bitmap at all", "text"),
        (b'{"caption": "three people"}', "text"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:0\n", "never fetched"),
        (b"PAR1" + bytes(40), "Parquet"),
        (bytes(1000), "begins with the bytes 00 00 00 00"),
        (bytes(range(200, 256)), "begins with the bytes c8 c9"),
    ],
    ids=lambda value: value if isinstance(value, str) else "",
)
def test_what_is_no_picture_is_named(data: bytes, words: str) -> None:
    error_class, message = refused(data)
    assert error_class is ErrorClass.NOT_AN_IMAGE
    assert words in message


def test_an_empty_file_is_truncated() -> None:
    error_class, message = refused(b"")
    assert error_class is ErrorClass.TRUNCATED
    assert "0 bytes" in message


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "gif", "bmp", "tiff", "avif", "heic"])
def test_a_header_that_ends_early_is_truncated(name: str) -> None:
    """Every cut within the header: an error of class truncated, or (before a signature is whole) not_an_image."""
    data = colour_files()[name]
    signature = {"webp": 12, "avif": 12, "heic": 12, "bmp": 18}.get(name, 1)
    found = [sniff(data[:cut]) for cut in range(1, len(data))]
    errors = [error.error_class for error in found if isinstance(error, PictureError)]
    assert len(errors) > signature
    assert set(errors[:signature]) <= {ErrorClass.TRUNCATED, ErrorClass.NOT_AN_IMAGE}
    assert set(errors[signature:]) == {ErrorClass.TRUNCATED}


@pytest.mark.parametrize("name", ["jpeg", "png", "webp", "tiff", "tiff big"])
@pytest.mark.parametrize("orientation", range(1, 9))
def test_orientation_is_read(name: str, orientation: int) -> None:
    options = {"big_tiff": True} if name == "tiff big" else {}
    data = saved(upright_HW3(), name.split()[0].upper(), exif=exif(orientation), **options)
    assert accepted(data).exif_orientation == orientation


def test_orientation_is_read_behind_the_size_of_a_jpeg_too() -> None:
    with_it, without = saved(upright_HW3(), "JPEG", exif=exif(6)), colour_files()["jpeg"]
    start, stop = next((start, stop) for marker, start, stop in jpeg_segments(with_it) if marker == 0xE1)
    scan = without.index(b"\xff\xda")
    header = accepted(without[:scan] + with_it[start - 4 : stop] + without[scan:])
    assert header.exif_orientation == 6
    assert (header.width, header.height) == (WIDTH, HEIGHT)


@pytest.mark.parametrize("orientation", [0, 9, 255, 65535])
def test_an_orientation_that_does_not_exist_is_upright(orientation: int) -> None:
    assert accepted(saved(upright_HW3(), "JPEG", exif=exif(orientation))).exif_orientation == 1


@pytest.mark.parametrize("order", ["<", ">"])
def test_exif_in_either_byte_order(order: str) -> None:
    block = {"<": b"II*\0", ">": b"MM\0*"}[order] + struct.pack(order + "IHHHIHHI", 8, 1, 0x0112, 3, 1, 8, 0, 0)
    assert accepted(saved(upright_HW3(), "JPEG", exif=b"Exif\0\0" + block)).exif_orientation == 8


@pytest.mark.parametrize("name", ["JPEG", "PNG", "WEBP", "TIFF"])
def test_time_taken_is_the_original_one_else_that_of_the_file(name: str) -> None:
    both = exif(time="2021:01:01 00:00:00", original=TAKEN)
    assert accepted(saved(upright_HW3(), name, exif=both)).taken_at == datetime(2019, 7, 6, 5, 4, 3)
    assert accepted(saved(upright_HW3(), name, exif=exif(time=TAKEN))).taken_at == datetime(2019, 7, 6, 5, 4, 3)
    assert accepted(saved(upright_HW3(), name)).taken_at is None


@pytest.mark.parametrize("odd", ["    :  :     :  :  ", "0000:00:00 00:00:00", "2019:13:40 05:04:03", "yesterday", ""])
def test_a_time_that_is_none_is_null(odd: str) -> None:
    assert accepted(saved(upright_HW3(), "JPEG", exif=exif(3, time=odd, original=odd))).taken_at is None
    mixed = accepted(saved(upright_HW3(), "JPEG", exif=exif(3, time=TAKEN, original=odd)))
    assert mixed.taken_at == datetime(2019, 7, 6, 5, 4, 3)


def test_a_damaged_exif_block_costs_nothing_but_itself() -> None:
    whole = exif(6, original=TAKEN)
    for cut in range(7, len(whole)):
        header = accepted(saved(upright_HW3(), "JPEG", exif=whole[:cut]))
        assert header.exif_orientation in (1, 6)


def bombs() -> dict[str, bytes]:
    """Small files whose headers promise a great many pixels."""
    side = 30_000
    jpeg, webp, bmp, gif, tiff, heic = (
        bytearray(colour_files()[n]) for n in ("jpeg", "webp lossless", "bmp", "gif", "tiff", "heic")
    )
    at = jpeg.index(b"\xff\xc0") + 5
    jpeg[at : at + 4] = struct.pack(">HH", side, side)
    webp[21:25] = struct.pack("<I", (16383 | 16383 << 14) | struct.unpack("<I", webp[21:25])[0] & 0xF0000000)
    bmp[18:26] = struct.pack("<ii", side, -side)
    gif[6:10] = struct.pack("<HH", side, side)
    for tag in (256, 257):
        at = tiff.index(struct.pack("<HHI", tag, 4, 1)) + 8
        tiff[at : at + 4] = struct.pack("<I", side)
    at = heic.index(b"ispe") + 8
    heic[at : at + 8] = struct.pack(">II", side, side)
    png = b"\x89PNG\r\n\x1a\n" + png_chunk(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 0, 0, 0, 0))
    png += png_chunk(b"IDAT", zlib.compress(bytes(10_000))) + png_chunk(b"IEND", b"")
    named = {"jpeg": jpeg, "webp": webp, "bmp": bmp, "gif": gif, "tiff": tiff, "heic": heic, "png": png}
    return {name: bytes(data) for name, data in named.items()}


@pytest.mark.parametrize("name", sorted(bombs()))
def test_a_bomb_is_found_by_its_header(name: str) -> None:
    error_class, message = refused(bombs()[name], Limits(max_pixels=200_000_000))
    assert error_class is ErrorClass.TOO_LARGE
    assert "30000 x 30000" in message or "16384 x 16384" in message
    assert "the limit is 200.0" in message


def test_the_limit_itself_is_allowed() -> None:
    data = colour_files()["png"]
    accepted(data, Limits(max_pixels=WIDTH * HEIGHT))
    assert refused(data, Limits(max_pixels=WIDTH * HEIGHT - 1))[0] is ErrorClass.TOO_LARGE


def test_a_side_longer_than_the_decoders_take_is_too_large() -> None:
    assert (
        refused(opencv_saved(".bmp", upright_HW3())[:18] + struct.pack("<iiHHI", 2_000_000, 1, 1, 24, 0) + bytes(40))[0]
        is ErrorClass.TOO_LARGE
    )


@pytest.mark.parametrize("kind", [b"IDAT", b"IEND"])
def test_a_png_chunk_that_lies_about_its_length_is_refused_here(kind: bytes) -> None:
    """OpenCV would take that much memory, 1 GB here, and seconds to fill it."""
    data = bytearray(colour_files()["png"])
    at = data.index(kind) - 4
    data[at : at + 4] = struct.pack(">I", 1_000_000_000)
    error_class, message = refused(bytes(data))
    assert error_class is ErrorClass.CORRUPT
    assert "chunks do not add up" in message


def test_no_pixels_is_corrupt() -> None:
    gif = bytearray(colour_files()["gif"])
    gif[6:8] = b"\0\0"
    assert refused(bytes(gif))[0] is ErrorClass.CORRUPT


def test_a_raw_file_is_not_mistaken_for_its_thumbnail() -> None:
    """DNG, NEF and ARW are TIFFs whose first page is a small copy."""
    assert refused(saved(upright_HW3(), "TIFF", tiffinfo={254: 1}))[0] is ErrorClass.UNSUPPORTED
    assert refused(saved(upright_HW3(), "TIFF", tiffinfo={50706: b"\1\4\0\0"}))[0] is ErrorClass.UNSUPPORTED


def test_a_header_costs_next_to_nothing() -> None:
    """It is read for every picture in the process that also feeds the model: well under a millisecond."""
    for name, data in (colour_files() | grey_files()).items():
        begun = time.process_time()
        for _ in range(50):
            sniff(data)
        assert (time.process_time() - begun) / 50 < 0.001, name
