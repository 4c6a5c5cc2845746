"""What a copy's file holds: upright pixels without the faces, and nothing else of the source's file."""

from __future__ import annotations

import io
import struct

import numpy as np
import pytest
from PIL import Image, ImageCms

from tests.picture_samples import HEIGHT, WIDTH, corners, saved, turned, upright_HW3
from tests.unit.redact_samples import faces_of, noise
from tinyface_core.archive.record import image_id_of
from tinyface_core.picture.decode import decode
from tinyface_core.picture.picture import Picture
from tinyface_core.redact.copies import Copy, copy_of, row_of
from tinyface_core.redact.encode import encode
from tinyface_core.redact.faces import Faces, Redaction
from tinyface_core.redact.pictures import Examined

TOP_LEFT = (1, 1, 14, 14)
URI = "file:///in/a.jpg"


def asked(faces: Faces, size_hw: tuple[int, int] | None = (HEIGHT, WIDTH)) -> Examined:
    return Examined(0, image_id_of(URI), URI, None, "0" * 64, size_hw, faces)


def copied(data: bytes, faces: Faces | None = None, **redaction: object) -> Copy:
    picture = decode(data)
    assert isinstance(picture, Picture), picture
    copy = copy_of(asked(faces or faces_of(TOP_LEFT)), picture, Redaction(**redaction))  # type: ignore[arg-type]
    assert isinstance(copy, Copy), copy
    return copy


def exif_with_thumbnail(orientation: int = 1) -> tuple[bytes, bytes]:
    """An EXIF block with a place and a thumbnail, and that thumbnail."""
    thumbnail = saved(upright_HW3()[::2, ::2], "JPEG")
    block = Image.Exif()
    block[0x0112] = orientation
    block[0x010F] = "Maker of cameras"
    block.get_ifd(0x8825)[2] = (47.0, 22.0, 30.0)
    tiff = bytearray(block.tobytes().removeprefix(b"Exif\0\0"))
    order = "<" if tiff[:2] == b"II" else ">"
    (first,) = struct.unpack_from(order + "I", tiff, 4)
    (entries,) = struct.unpack_from(order + "H", tiff, first)
    second = len(tiff)
    struct.pack_into(order + "I", tiff, first + 2 + 12 * entries, second)
    at = second + 2 + 2 * 12 + 4
    tiff += struct.pack(order + "H", 2) + struct.pack(order + "HHII", 513, 4, 1, at)
    tiff += struct.pack(order + "HHII", 514, 4, 1, len(thumbnail)) + struct.pack(order + "I", 0) + thumbnail
    return b"Exif\0\0" + bytes(tiff), thumbnail


def chunks_of_png(data: bytes) -> set[bytes]:
    found, at = set(), 8
    while at < len(data):
        (length,) = struct.unpack_from(">I", data, at)
        found.add(data[at + 4 : at + 8])
        at += length + 12
    return found


@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP"])
def test_no_metadata_and_no_thumbnail_goes_into_the_copy(kind: str) -> None:
    exif, thumbnail = exif_with_thumbnail()
    profile = ImageCms.ImageCmsProfile(ImageCms.createProfile("sRGB")).tobytes()
    options = {"exif": exif, "icc_profile": profile, "xmp": b"<x:xmpmeta>someone</x:xmpmeta>"}
    options |= {"comment": b"someone"} if kind == "JPEG" else {}
    source = saved(upright_HW3(), kind, **options)
    assert thumbnail in source
    copy = copied(source)
    for secret in (thumbnail, b"Exif", b"xmpmeta", b"someone", b"Maker", b"ICC", b"acsp"):
        assert secret not in copy.data
    if kind == "JPEG":
        assert copy.data.count(b"\xff\xd8\xff") == 1
    with Image.open(io.BytesIO(copy.data)) as opened:
        assert opened.format == kind
        assert not opened.getexif()
        assert set(opened.info) <= {"jfif", "jfif_version", "jfif_unit", "jfif_density", "dpi", "loop", "background"}
    if kind == "PNG":
        assert chunks_of_png(copy.data) == {b"IHDR", b"IDAT", b"IEND"}


@pytest.mark.parametrize("orientation", range(1, 9))
def test_a_turned_picture_is_masked_where_it_is_seen_and_written_upright(orientation: int) -> None:
    exif, _ = exif_with_thumbnail(orientation)
    copy = copied(saved(turned(upright_HW3(), orientation), "JPEG", quality=95, exif=exif), mask="box", margin=0.0)
    again = decode(copy.data)
    assert isinstance(again, Picture)
    assert (again.exif_orientation, again.height, again.width) == (1, HEIGHT, WIDTH)
    seen = corners(again.rgb_HW3)
    assert seen == corners(upright_HW3()) | {"top left": (128, 128, 128)}


@pytest.mark.parametrize(
    ("kind", "written", "ending"),
    [("PNG", "png", ".png"), ("BMP", "png", ".png"), ("TIFF", "png", ".png"), ("GIF", "png", ".png"),
     ("WEBP", "webp", ".webp"), ("AVIF", "jpeg", ".jpg"), ("JPEG", "jpeg", ".jpg")],
)  # fmt: skip
def test_formats_of_copies(kind: str, written: str, ending: str) -> None:
    copy = copied(saved(upright_HW3(), kind))
    assert (copy.format, copy.path.endswith(ending)) == (written, True)
    again = decode(copy.data)
    assert isinstance(again, Picture)
    assert again.format == written


def test_what_lost_nothing_loses_nothing_beside_the_face() -> None:
    rgb_HW3 = noise(HEIGHT, WIDTH)
    again = decode(copied(saved(rgb_HW3, "PNG"), mask="box", margin=0.0).data)
    assert isinstance(again, Picture)
    expected = rgb_HW3.copy()
    expected[1:14, 1:14] = 128
    np.testing.assert_array_equal(again.rgb_HW3, expected)


def test_only_the_first_frame_that_was_examined_is_copied() -> None:
    second = Image.fromarray(upright_HW3()[::-1].copy())
    for kind in ("GIF", "PNG", "TIFF"):
        source = saved(upright_HW3(), kind, save_all=True, append_images=[second])
        with Image.open(io.BytesIO(copied(source).data)) as opened:
            assert getattr(opened, "n_frames", 1) == 1


def test_a_picture_that_decodes_to_another_size_than_it_was_examined_at_gets_no_copy() -> None:
    outcome = copy_of(asked(faces_of(TOP_LEFT), (HEIGHT, WIDTH + 1)), Picture(upright_HW3(), "jpeg"), Redaction())
    assert not isinstance(outcome, Copy)
    row = row_of("u", "c", asked(faces_of(TOP_LEFT)), outcome)
    assert (row["status"], row["error_class"], row["faces_masked"], row.get("path")) == ("error", "internal", 0, None)


def test_pixels_that_a_format_cannot_hold_are_an_error_of_this_picture() -> None:
    with pytest.raises(ValueError, match="webp"):
        encode(np.zeros((1, 16_500, 3), np.uint8), "webp", 90)
    outcome = copy_of(
        asked(faces_of((0, 0, 1, 1)), (1, 70_000)), Picture(np.zeros((1, 70_000, 3), np.uint8), "heic"), Redaction()
    )
    assert not isinstance(outcome, Copy)
    assert outcome[0] == "internal"
