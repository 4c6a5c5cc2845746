"""One small picture in every format and kind that we read, made by Pillow and OpenCV at test time.

The picture is 37 x 53 (width x height), smooth enough for JPEG, with pure colours in three corners and grey in
the fourth, so that a turned or mirrored one cannot be mistaken for an upright one.
"""

from __future__ import annotations

import io
import struct
import zlib
from functools import cache
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

WIDTH, HEIGHT = 37, 53
TAKEN = "2019:07:06 05:04:03"
RED, GREEN, BLUE, GREY = (255, 0, 0), (0, 255, 0), (0, 0, 255), (128, 128, 128)
CORNERS = {"top left": RED, "top right": GREEN, "bottom left": BLUE, "bottom right": GREY}


def upright_HW3() -> NDArray[np.uint8]:
    """(53, 37, 3) uint8 RGB."""
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    rgb_HW3 = np.stack([60 + 2 * y, 60 + 3 * x, 200 - y - x], axis=2).astype(np.uint8)
    for rows, columns, colour in (
        (slice(0, 16), slice(0, 16), RED),
        (slice(0, 16), slice(-16, None), GREEN),
        (slice(-16, None), slice(0, 16), BLUE),
        (slice(-16, None), slice(-16, None), GREY),
    ):
        rgb_HW3[rows, columns] = colour
    return rgb_HW3


def noisy_HW3(height: int = 300, width: int = 200) -> NDArray[np.uint8]:
    """A larger picture with detail everywhere, so that damage anywhere in its file is damage to pixels."""
    few = np.random.default_rng(11).integers(0, 255, (height // 4, width // 4, 3), dtype=np.uint8)
    return np.asarray(cv2.resize(few, (width, height), interpolation=cv2.INTER_CUBIC), np.uint8)


def corners(rgb_HW3: NDArray[np.uint8]) -> dict[str, tuple[int, ...]]:
    """The nearest of the four colours in each corner."""
    colours = list(CORNERS.values())
    found = {}
    for name, (y, x) in zip(CORNERS, ((4, 4), (4, -5), (-5, 4), (-5, -5)), strict=True):
        far = [int(np.abs(rgb_HW3[y, x].astype(int) - colour).sum()) for colour in colours]
        found[name] = colours[int(np.argmin(far))] if min(far) < 60 else tuple(int(v) for v in rgb_HW3[y, x])
    return found


def saved(picture: Image.Image | NDArray[np.uint8], kind: str, **options: Any) -> bytes:
    """The file that Pillow writes."""
    if kind == "HEIF":
        import pillow_heif

        pillow_heif.register_heif_opener()
    file = io.BytesIO()
    source = Image.fromarray(picture) if isinstance(picture, np.ndarray) else picture
    source.copy().save(file, kind, **options)  # a copy: Pillow leaves settings of one format on the picture
    return file.getvalue()


def opencv_saved(ending: str, pixels: NDArray[Any]) -> bytes:
    """The file that OpenCV writes; pixels are RGB or grey."""
    bgr = np.ascontiguousarray(pixels[..., ::-1]) if pixels.ndim == 3 else pixels
    return bytes(cv2.imencode(ending, bgr)[1])


def exif(orientation: int | None = None, *, time: str | None = None, original: str | None = None) -> bytes:
    """An EXIF block."""
    block = Image.Exif()
    if orientation is not None:
        block[0x0112] = orientation
    if time is not None:
        block[0x0132] = time
    if original is not None:
        block.get_ifd(0x8769)[0x9003] = original
    return block.tobytes()


def turned(rgb_HW3: NDArray[np.uint8], orientation: int) -> NDArray[np.uint8]:
    """What a camera stores so that a viewer that obeys `orientation` sees rgb_HW3: numpy only, the slow reference.

    EXIF 2.3, tag 0x0112: which sides of the picture the stored row 0 and column 0 are.
    """
    back = {
        1: lambda p: p,  # row 0 top, column 0 left
        2: lambda p: p[:, ::-1],  # top, right
        3: lambda p: p[::-1, ::-1],  # bottom, right
        4: lambda p: p[::-1],  # bottom, left
        5: lambda p: p.transpose(1, 0, 2),  # left, top
        6: lambda p: p.transpose(1, 0, 2)[::-1],  # right, top: stored row 0 is the right side
        7: lambda p: p[::-1, ::-1].transpose(1, 0, 2),  # right, bottom
        8: lambda p: p.transpose(1, 0, 2)[:, ::-1],  # left, bottom
    }
    return np.ascontiguousarray(back[orientation](rgb_HW3))


def flat_jpeg(samplings: list[tuple[int, int]], scans: list[list[int]]) -> bytes:
    """A grey sequential JPEG: blocks (across, down) of each component in a unit, components of each scan from 0 on."""

    def segment(marker: int, content: bytes) -> bytes:
        return struct.pack(">BBH", 0xFF, marker, len(content) + 2) + content

    across, down = (max(factors) for factors in zip(*samplings, strict=True))
    frame = b"".join(bytes((name, h << 4 | v, 0)) for name, (h, v) in enumerate(samplings))
    data = b"\xff\xd8" + segment(0xDB, bytes(1) + b"\1" * 64)
    data += segment(0xC0, struct.pack(">BHHB", 8, HEIGHT, WIDTH, len(samplings)) + frame)
    for table in (0x00, 0x10):  # both know one code, a bit 0: "no difference", "no more coefficients"
        data += segment(0xC4, bytes((table, 1)) + bytes(15) + bytes(1))
    for members in scans:
        if len(members) > 1:
            in_unit = sum(h * v for h, v in (samplings[name] for name in members))
            blocks = -(-WIDTH // (8 * across)) * -(-HEIGHT // (8 * down)) * in_unit
        else:
            h, v = samplings[members[0]]
            blocks = -(-WIDTH * h // across // 8) * -(-HEIGHT * v // down // 8)
        names = b"".join(bytes((name, 0)) for name in members)
        data += segment(0xDA, bytes((len(members),)) + names + b"\0\x3f\0")
        data += bytes(2 * blocks // 8) + bytes([0xFF >> 2 * blocks % 8] if 2 * blocks % 8 else [])
    return data + b"\xff\xd9"


def png_chunk(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I", len(content)) + kind + content + struct.pack(">I", zlib.crc32(kind + content))


@cache
def colour_files() -> dict[str, bytes]:
    """Every kind that keeps the four corner colours: name -> file."""
    rgb = upright_HW3()
    picture = Image.fromarray(rgb)
    see_through = picture.convert("RGBA")
    see_through.putalpha(Image.fromarray(np.tile(np.linspace(40, 255, WIDTH).astype(np.uint8), (HEIGHT, 1))))
    few_colours = picture.quantize(64)
    other = Image.fromarray(np.ascontiguousarray(rgb[::-1, ::-1]))
    more: dict[str, Any] = {"save_all": True, "append_images": [other], "duration": 100}
    return {
        "jpeg": saved(picture, "JPEG", quality=95),
        "jpeg progressive": saved(picture, "JPEG", quality=95, progressive=True),
        "jpeg cmyk": saved(picture.convert("CMYK"), "JPEG", quality=95),
        "jpeg then another": saved(picture, "MPO", save_all=True, append_images=[other.copy()], quality=95),
        "png": saved(picture, "PNG"),
        "png alpha": saved(see_through, "PNG"),
        "png palette": saved(few_colours, "PNG"),
        "png palette alpha": saved(few_colours, "PNG", transparency=bytes(range(64))),
        "png 16 bit": opencv_saved(".png", rgb.astype(np.uint16) * 257),
        "png animated": saved(picture, "PNG", **more),
        "webp": saved(picture, "WEBP", quality=95),
        "webp lossless": saved(picture, "WEBP", lossless=True),
        "webp alpha": saved(see_through, "WEBP", lossless=True),
        "webp animated": saved(picture, "WEBP", lossless=True, **more),
        "tiff": saved(picture, "TIFF"),
        "tiff lzw": saved(picture, "TIFF", compression="tiff_lzw"),
        "tiff deflate": saved(picture, "TIFF", compression="tiff_adobe_deflate"),
        "tiff jpeg": saved(picture, "TIFF", compression="jpeg"),
        "tiff alpha": saved(see_through, "TIFF"),
        "tiff palette": saved(few_colours, "TIFF"),
        "tiff cmyk": saved(picture.convert("CMYK"), "TIFF"),
        "tiff 16 bit": opencv_saved(".tiff", rgb.astype(np.uint16) * 257),
        "tiff float 0..1": opencv_saved(".tiff", rgb.astype(np.float32) / 255),
        "tiff float 0..255": opencv_saved(".tiff", rgb.astype(np.float32)),
        "tiff big": saved(picture, "TIFF", big_tiff=True),
        "tiff pages": saved(picture, "TIFF", save_all=True, append_images=[other.copy()]),
        "bmp": saved(picture, "BMP"),
        "bmp palette": saved(few_colours, "BMP"),
        "bmp alpha": saved(see_through, "BMP"),
        "gif": saved(few_colours, "GIF"),
        "gif animated": saved(few_colours, "GIF", save_all=True, append_images=[other.quantize(64)], duration=100),
        "avif": saved(picture, "AVIF", quality=95),
        "avif animated": saved(picture, "AVIF", quality=95, **more),
        "heic": saved(picture, "HEIF", quality=95),
    }


@cache
def grey_files() -> dict[str, bytes]:
    """Kinds without colour: name -> file; their pixels are `grey_HW` of the picture, 8 bits."""
    grey = Image.fromarray(upright_HW3()).convert("L")
    values = np.asarray(grey)
    return {
        "jpeg grey": saved(grey, "JPEG", quality=98),
        "png grey": saved(grey, "PNG"),
        "png grey alpha": saved(grey.convert("LA"), "PNG"),
        "png grey 16 bit": opencv_saved(".png", values.astype(np.uint16) * 257),
        "webp grey": saved(grey, "WEBP", lossless=True),
        "tiff grey": saved(grey, "TIFF"),
        "tiff grey 16 bit": saved(Image.fromarray(values.astype(np.uint16) * 257), "TIFF"),
        "tiff grey 16 bit, big end first": saved(
            Image.frombytes("I;16B", grey.size, (values.astype(">u2") * 257).tobytes()), "TIFF"
        ),
        "tiff grey float": saved(Image.fromarray(values.astype(np.float32) / 255), "TIFF"),
        "tiff grey 32 bit": saved(Image.fromarray(values.astype(np.int32)), "TIFF"),
        "bmp grey": saved(grey, "BMP"),
        "gif grey": saved(grey, "GIF"),
    }


@cache
def noisy_files() -> dict[str, bytes]:
    """The larger picture, one file a coding, to be cut and damaged: name -> file."""
    picture = Image.fromarray(noisy_HW3())
    return {
        "jpeg": saved(picture, "JPEG", quality=90),
        "jpeg progressive": saved(picture, "JPEG", quality=90, progressive=True),
        "png": saved(picture, "PNG"),
        "png animated": saved(picture, "PNG", save_all=True, append_images=[picture.rotate(180)]),
        "webp": saved(picture, "WEBP"),
        "webp lossless": saved(picture, "WEBP", lossless=True),
        "tiff": saved(picture, "TIFF"),
        "tiff lzw": saved(picture, "TIFF", compression="tiff_lzw"),
        "tiff directory last": opencv_saved(".tiff", noisy_HW3()),
        "bmp": saved(picture, "BMP"),
        "gif": saved(picture.quantize(64), "GIF"),
        "avif": saved(picture, "AVIF"),
        "heic": saved(picture, "HEIF"),
    }
