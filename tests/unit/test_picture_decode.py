"""Bytes -> an upright RGB picture, or an error value: right for every kind, and never a half-read picture."""

from __future__ import annotations

import builtins
import io
import json
import re
import struct
import subprocess
import sys
import zlib
from datetime import datetime
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import simplejpeg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from tests.picture_samples import (
    CORNERS,
    HEIGHT,
    TAKEN,
    WIDTH,
    colour_files,
    corners,
    exif,
    flat_jpeg,
    grey_files,
    noisy_files,
    noisy_HW3,
    opencv_saved,
    png_chunk,
    saved,
    turned,
    upright_HW3,
)
from tinyface_core.errors import ErrorClass, PictureError, Stage
from tinyface_core.picture import decode as module
from tinyface_core.picture.decode import decode, upright
from tinyface_core.picture.layout import jpeg_segments, png_chunks
from tinyface_core.picture.picture import Limits, Picture


def picture_of(data: bytes, limits: Limits = Limits()) -> Picture:
    found = decode(data, limits)
    assert isinstance(found, Picture), found
    assert found.rgb_HW3.dtype == np.uint8
    assert found.rgb_HW3.flags.c_contiguous
    assert found.rgb_HW3.shape == (found.height, found.width, 3)
    return found


def error_of(data: bytes, limits: Limits = Limits()) -> PictureError:
    found = decode(data, limits)
    assert isinstance(found, PictureError), found
    assert found.stage is Stage.DECODE
    assert len(found.message) > 15
    return found


@pytest.mark.parametrize("name", colour_files())
def test_every_kind_gives_the_same_upright_colours(name: str) -> None:
    picture = picture_of(colour_files()[name])
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    assert picture.format == name.split()[0]
    assert (picture.exif_orientation, picture.taken_at) == (1, None)
    assert corners(picture.rgb_HW3) == CORNERS
    if name.split()[0] in ("bmp", "png", "tiff") and not any(w in name for w in ("palette", "jpeg", "cmyk")):
        np.testing.assert_array_equal(picture.rgb_HW3, upright_HW3())


@pytest.mark.parametrize("name", grey_files())
def test_grey_of_any_depth_is_the_same_grey_in_three_channels(name: str) -> None:
    """A 16-bit picture that saturates would be white; one read as 8 bits would be noise."""
    rgb_HW3 = picture_of(grey_files()[name]).rgb_HW3
    expected = np.asarray(Image.fromarray(upright_HW3()).convert("L")).astype(int)
    assert (rgb_HW3[..., 0] == rgb_HW3[..., 1]).all()
    assert (rgb_HW3[..., 0] == rgb_HW3[..., 2]).all()
    assert np.abs(rgb_HW3[..., 0] - expected).max() <= (12 if name.startswith("jpeg") else 1)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("kind", ["JPEG", "PNG", "WEBP", "TIFF", "AVIF", "HEIF"])
def test_all_orientations_stand_upright_once(kind: str, orientation: int) -> None:
    """Turned twice, or not at all, another colour stands in the corner; a mirrored one too."""
    options: dict[str, Any] = {"lossless": True} if kind == "WEBP" else {"quality": 95}
    stored = turned(upright_HW3(), orientation)
    picture = picture_of(saved(stored, kind, exif=exif(orientation, original=TAKEN), **options))
    assert (picture.width, picture.height) == (WIDTH, HEIGHT)
    assert corners(picture.rgb_HW3) == CORNERS
    assert picture.taken_at == datetime(2019, 7, 6, 5, 4, 3)
    assert picture.exif_orientation == orientation


@pytest.mark.parametrize("orientation", range(1, 9))
def test_float_tiff_stands_upright_once(orientation: int) -> None:
    """OpenCV turns a TIFF by itself even when told not to."""
    grey = np.asarray(Image.fromarray(upright_HW3()).convert("L"))
    stored = turned(np.repeat(grey[..., None], 3, axis=2), orientation)[..., 0].astype(np.float32) / 255
    picture = picture_of(saved(Image.fromarray(stored), "TIFF", exif=exif(orientation)))
    assert np.abs(picture.rgb_HW3[..., 0].astype(int) - grey).max() <= 1
    assert picture.exif_orientation == orientation
    colour = bytearray(opencv_saved(".tiff", turned(upright_HW3(), orientation).astype(np.float32) / 255))
    picture = picture_of(with_tiff_orientation(bytes(colour), orientation))
    assert corners(picture.rgb_HW3) == CORNERS
    assert picture.exif_orientation == orientation


def with_tiff_orientation(data: bytes, orientation: int) -> bytes:
    """Copies the directory to the end of a little-endian TIFF, with tag 274 added."""
    (at,) = struct.unpack_from("<I", data, 4)
    (count,) = struct.unpack_from("<H", data, at)
    entries = [data[at + 2 + 12 * i : at + 14 + 12 * i] for i in range(count)]
    entries = [e for e in entries if e[:2] != struct.pack("<H", 274)]
    entries = sorted([*entries, struct.pack("<HHIHH", 274, 3, 1, orientation, 0)], key=lambda e: e[:2][::-1])
    directory = struct.pack("<H", len(entries)) + b"".join(entries) + bytes(4)
    return data[:4] + struct.pack("<I", len(data)) + data[8:] + directory


def test_upright_against_the_slow_reference() -> None:
    for orientation in range(1, 9):
        np.testing.assert_array_equal(upright(turned(upright_HW3(), orientation), orientation), upright_HW3())


def test_in_heic_the_property_turns_and_the_exif_tag_does_not() -> None:
    """Phones write both; ISO 23008-12 lets only the property count, so that nobody turns twice."""
    data = saved(turned(upright_HW3(), 6), "HEIF", exif=exif(6), quality=95)
    angle_at = data.index(b"irot") + 4
    picture = picture_of(data[:angle_at] + b"\0" + data[angle_at + 1 :])
    assert (picture.width, picture.height) == (HEIGHT, WIDTH)
    assert picture.exif_orientation == 6


def test_heic_without_its_library_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    real = builtins.__import__

    def without(name: str, *rest: Any, **options: Any) -> Any:
        if name == "pillow_heif":
            raise ImportError(name)
        return real(name, *rest, **options)

    data = colour_files()["heic"]
    monkeypatch.setattr(builtins, "__import__", without)
    error = error_of(data)
    assert error.error_class is ErrorClass.UNSUPPORTED
    assert "pip install 'tinyface[heic]'" in error.message


@pytest.mark.parametrize("share", [0.3, 0.6, 0.95])
@pytest.mark.parametrize("name", noisy_files())
def test_a_cut_file_is_truncated(name: str, share: float) -> None:
    data = noisy_files()[name]
    assert error_of(data[: int(len(data) * share)]).error_class is ErrorClass.TRUNCATED


@pytest.mark.parametrize("name", [*noisy_files(), *colour_files()])
def test_no_cut_gives_a_part_of_a_picture(name: str) -> None:
    """Of an animation or a file of several pages the first may be whole already: then it is given, right."""
    data = (colour_files() | noisy_files())[name]
    whole = picture_of(data).rgb_HW3
    for cut in np.linspace(0, len(data) - 1, 25).astype(int):
        found = decode(data[:cut])
        if isinstance(found, Picture):
            np.testing.assert_array_equal(found.rgb_HW3, whole)
        else:
            assert found.error_class in (ErrorClass.TRUNCATED, ErrorClass.NOT_AN_IMAGE)


def without_its_middle(data: bytes) -> bytes:
    return data[: len(data) // 2] + data[len(data) // 2 + 2000 :]


def half_zeros(data: bytes) -> bytes:
    half = len(data) // 2
    return data[:half] + bytes(len(data) - half - 2) + data[-2:]


def ended_early(data: bytes) -> bytes:
    return data[: len(data) // 2] + b"\xff\xd9"


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive"])
@pytest.mark.parametrize("damage", [without_its_middle, half_zeros, ended_early])
def test_a_jpeg_that_lost_data_is_corrupt_not_half_grey(name: str, damage: Any) -> None:
    """OpenCV and Pillow give a picture that is grey or garbage from the loss on; its end marker is there."""
    damaged = damage(noisy_files()[name])
    shown = cv2.imdecode(np.frombuffer(damaged, np.uint8), cv2.IMREAD_COLOR_RGB)
    assert shown is not None, "this test has lost its reason: OpenCV refuses it by itself"
    assert error_of(damaged).error_class is ErrorClass.CORRUPT


@pytest.mark.parametrize(
    "padding", [bytes(20), bytes(30_000), b"\xff" * 50, bytes(20) + b"\xff\xff", b"odd bytes"], ids=len
)
def test_a_jpeg_with_padding_is_whole(padding: bytes) -> None:
    """Some cameras leave unused bytes before the end marker, or trailers behind it: nothing is missing."""
    data = noisy_files()["jpeg"]
    whole = picture_of(data).rgb_HW3
    for padded in (data[:-2] + padding + data[-2:], data + b"trailer" * 100, data[:2] + b"\xff\xff" + data[2:]):
        np.testing.assert_array_equal(picture_of(padded).rgb_HW3, whole)


@pytest.mark.parametrize("share", np.linspace(0.5, 0.99, 12))
def test_zeros_over_the_end_of_a_jpeg_are_no_padding(share: float) -> None:
    """They decode to flat colour; the last few of them are left over, as padding is."""
    data = noisy_files()["jpeg"]
    begin = int(len(data) * share)
    assert error_of(data[:begin] + bytes(len(data) - 2 - begin) + data[-2:]).error_class is ErrorClass.CORRUPT


def test_coded_data_left_over_are_no_padding() -> None:
    """Of some flipped bits the decoder ends early, with all behind them shifted or in other colours."""
    damaged = bytearray(noisy_files()["jpeg"])
    damaged[len(damaged) // 2 + 6] ^= 16
    with pytest.raises(ValueError, match="64 extraneous bytes before marker 0xd9"):  # 0.2 % of the file
        simplejpeg.decode_jpeg(bytes(damaged), "RGB", strict=True)
    assert error_of(bytes(damaged)).error_class is ErrorClass.CORRUPT


def odd_jfif_version(data: bytes) -> bytes:
    at = data.rindex(b"JFIF\0") + 5
    return data[:at] + b"\x09\x09" + data[at + 2 :]


def odd_adobe_transform(data: bytes, transform: int = 5) -> bytes:
    """In place of JFIF's segment, which would tell the colours."""
    start, stop = next((start, stop) for marker, start, stop in jpeg_segments(data) if marker in (0xE0, 0xEE))
    return data[: start - 4] + b"\xff\xee\0\x0eAdobe\0\x64\0\0\0\0" + bytes([transform]) + data[stop:]


def odd_scan_bounds(data: bytes) -> bytes:
    *_, (_, _, stop) = jpeg_segments(data)
    return data[: stop - 3] + bytes(3) + data[stop:]


def odd_padding(data: bytes) -> bytes:
    return data[:-2] + bytes(30) + data[-2:]


def odd_in_all(data: bytes) -> bytes:
    return odd_padding(odd_scan_bounds(odd_jfif_version(data[:2] + b"\xff\xe5\0\x07stray" + data[2:])))


def odd_short_segments(data: bytes) -> bytes:
    return odd_jfif_version(data[:2] + b"\xff\xee\0\x07Adobe\xff\xe0\0\x07JFIF\0" + data[2:])


ODD = [odd_short_segments, odd_jfif_version, odd_adobe_transform, odd_scan_bounds, odd_in_all]


@pytest.mark.parametrize("odd", ODD)
def test_a_harmless_oddity_of_a_jpeg_costs_no_picture(odd: Any) -> None:
    data = odd(noisy_files()["jpeg"])
    with pytest.raises(ValueError, match=r"JFIF|Adobe|SOS"):
        simplejpeg.decode_jpeg(data, "RGB", strict=True)
    np.testing.assert_array_equal(picture_of(data).rgb_HW3, picture_of(noisy_files()["jpeg"]).rgb_HW3)


@pytest.mark.parametrize("damage", [without_its_middle, half_zeros, ended_early])
@pytest.mark.parametrize("odd", ODD)
def test_a_harmless_oddity_of_a_jpeg_hides_no_loss(odd: Any, damage: Any) -> None:
    """The decoder stops at its first doubt; who shows the picture for that one's sake shows every loss behind it."""
    assert error_of(odd(damage(noisy_files()["jpeg"]))).error_class is ErrorClass.CORRUPT


def test_an_odd_adobe_transform_of_cmyk_is_what_libjpeg_takes_it_for() -> None:
    """For four components that is YCCK; the same file with the transform named shows the same colours."""
    data = saved(Image.fromarray(noisy_HW3()).convert("CMYK"), "JPEG", quality=90)
    odd, named = (picture_of(odd_adobe_transform(data, transform)).rgb_HW3 for transform in (1, 2))
    np.testing.assert_array_equal(odd, named)
    assert np.abs(odd.astype(int) - picture_of(data).rgb_HW3).mean() > 20


def scans_of(data: bytes) -> tuple[bytes, list[bytes]]:
    """What stands before the first scan's tables, and each scan with its tables; their data hold no marker."""
    starts = [found.start() for found in re.finditer(rb"(\xff\xc4[^\xff]*)*\xff\xda", data)]
    return data[: starts[0]], [data[a:b] for a, b in zip(starts, [*starts[1:], len(data) - 2], strict=True)]


def test_a_progressive_jpeg_without_one_of_its_scans_is_an_error() -> None:
    """Decoders show a relief, or a blurred picture, and the strict one objects only to some of them."""
    head, scans = scans_of(noisy_files()["jpeg progressive"])
    assert len(scans) == 10
    picture_of(head + b"".join(scans) + b"\xff\xd9")
    for lost in range(10):
        found = error_of(head + b"".join(scans[:lost] + scans[lost + 1 :]) + b"\xff\xd9")
        assert found.error_class in (ErrorClass.CORRUPT, ErrorClass.TRUNCATED)
        cut = error_of(head + b"".join(scans[:lost]) + b"\xff\xd9")
        assert cut.error_class is (ErrorClass.TRUNCATED if lost else ErrorClass.CORRUPT)


@pytest.mark.parametrize("mode", ["RGB", "L", "CMYK"])
def test_whole_progressive_jpegs_of_every_colour_have_all_their_scans(mode: str) -> None:
    picture = Image.fromarray(noisy_HW3()).convert(mode)
    picture_of(saved(picture, "JPEG", progressive=True, optimize=True))
    picture_of(saved(Image.new(mode, (64, 40)), "JPEG", progressive=True))
    if mode != "CMYK":
        options = [cv2.IMWRITE_JPEG_PROGRESSIVE, 1, cv2.IMWRITE_JPEG_RST_INTERVAL, 3]
        picture_of(bytes(cv2.imencode(".jpg", np.asarray(picture), options)[1]))


def test_a_sequential_jpeg_without_one_of_its_components_is_truncated() -> None:
    """Each may have a scan of its own; a missing one is a missing colour."""
    thirds = [(1, 1), (1, 1), (1, 1)]
    assert (picture_of(flat_jpeg(thirds, [[0, 1, 2]])).rgb_HW3 == 128).all()
    assert (picture_of(flat_jpeg(thirds, [[0], [1], [2]])).rgb_HW3 == 128).all()
    assert error_of(flat_jpeg(thirds, [[0], [2]])).error_class is ErrorClass.TRUNCATED


def test_a_jpeg_that_only_the_lenient_decoder_reads_is_unsupported() -> None:
    """Rare sampling factors: what it loses, nobody would see."""
    rare = flat_jpeg([(2, 2), (2, 1), (1, 2)], [[0, 1, 2]])
    assert cv2.imdecode(np.frombuffer(rare, np.uint8), cv2.IMREAD_COLOR_RGB) is not None
    error = error_of(rare)
    assert error.error_class is ErrorClass.UNSUPPORTED
    assert "convert it" in error.message
    frame_twice = rare.replace(b"\xff\xc0", rare[rare.index(b"\xff\xc0") :][:19] + b"\xff\xc0")
    assert error_of(frame_twice).error_class is ErrorClass.CORRUPT


@pytest.mark.parametrize("name", ["jpeg", "jpeg progressive"])
def test_stray_bytes_in_the_header_of_a_jpeg_cost_no_picture(name: str) -> None:
    """Some editors leave them between segments, and libjpeg warns of them as of a loss; between scans they are one."""
    data = noisy_files()[name]
    starts = [start - 4 for _, start, _ in jpeg_segments(data)]
    assert len(starts) > 4  # before the first it would be no JPEG
    for at in starts[1:]:
        odd = data[:at] + b"\x00junk" + data[at:]
        with pytest.raises(ValueError, match="extraneous bytes"):
            simplejpeg.decode_jpeg(odd, "RGB", strict=True)
        np.testing.assert_array_equal(picture_of(odd).rgb_HW3, picture_of(data).rgb_HW3)


def test_a_bad_colour_profile_costs_no_picture() -> None:
    data = noisy_files()["jpeg"]
    odd = data[:2] + b"\xff\xe2\x00\x12ICC_PROFILE\0\x01\x02\x00\x00" + data[2:]
    np.testing.assert_array_equal(picture_of(odd).rgb_HW3, picture_of(data).rgb_HW3)


def test_the_jpeg_decoders_agree() -> None:
    """A picture must not depend on which of the two read it."""
    picture = Image.fromarray(noisy_HW3())
    for subsampling in (0, 1, 2):
        for progressive in (False, True):
            data = saved(picture, "JPEG", quality=85, subsampling=subsampling, progressive=progressive)
            by_opencv = cv2.imdecode(np.frombuffer(data, np.uint8), cv2.IMREAD_COLOR_RGB)
            np.testing.assert_array_equal(picture_of(data).rgb_HW3, by_opencv)


@pytest.mark.parametrize("name", noisy_files())
def test_flipped_bits_give_an_error_or_a_full_size_picture(name: str) -> None:
    """Never an exception; where the format holds sums (PNG) or its decoder checks (AVIF), always an error."""
    data = noisy_files()[name]
    random = np.random.default_rng(5)
    for _ in range(25):
        damaged = bytearray(data)
        for at in random.integers(4, len(data), random.integers(1, 6)):
            damaged[at] ^= 1 << int(random.integers(8))
        found = decode(bytes(damaged), Limits(max_pixels=10_000_000))
        if isinstance(found, Picture):
            assert found.rgb_HW3.shape == (found.height, found.width, 3)
            assert name not in ("png", "avif")
            if name == "png animated":  # the damage is in the other frame
                np.testing.assert_array_equal(found.rgb_HW3, noisy_HW3())
        else:
            assert found.error_class is not ErrorClass.INTERNAL, found


@settings(max_examples=250, deadline=None, suppress_health_check=[HealthCheck.too_slow], derandomize=True)
@given(st.data())
def test_no_bytes_at_all_raise(data: st.DataObject) -> None:
    """Splices, insertions and random ends of real files: a value comes back, and never `internal`."""
    files = list((colour_files() | grey_files()).values())
    one, other = data.draw(st.sampled_from(files)), data.draw(st.sampled_from(files))
    cut = data.draw(st.integers(0, len(one)))
    middle = data.draw(st.binary(max_size=40))
    found = decode(one[:cut] + middle + other[data.draw(st.integers(0, len(other))) :], Limits(max_pixels=4_000_000))
    assert isinstance(found, Picture) or found.error_class is not ErrorClass.INTERNAL, found


SIGNATURES = [b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0+", b"RIFF....WEBP", b"BM"]


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    st.sampled_from([b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n", b"GIF89a", b"II*\0", b"MM\0+", b"RIFF....WEBP", b"BM"]),
    st.binary(),
)
def test_random_bytes_behind_a_signature_are_an_error(signature: bytes, rest: bytes) -> None:
    assert error_of(signature + rest).error_class in (
        ErrorClass.TRUNCATED,
        ErrorClass.CORRUPT,
        ErrorClass.UNSUPPORTED,
        ErrorClass.TOO_LARGE,
        ErrorClass.NOT_AN_IMAGE,
    )


def test_png_with_metadata_that_pillow_refuses_is_read() -> None:
    """A text chunk of 3 MB, or one with a wrong sum, is no reason to lose the picture."""
    data = noisy_files()["png"]
    long_text = png_chunk(b"zTXt", b"note\0\0" + zlib.compress(b"x" * 3_000_000))
    bad_sum = png_chunk(b"tEXt", b"note\0text")[:-1] + b"\0"
    for chunk in (long_text, bad_sum):
        np.testing.assert_array_equal(picture_of(data[:33] + chunk + data[33:]).rgb_HW3, noisy_HW3())


def test_of_an_animated_png_the_still_picture_counts() -> None:
    """OpenCV shows black where the first frame is missing or small, and passes over a wrong sum."""
    data = noisy_files()["png animated"]
    chunks = {kind: (start, stop) for kind, start, stop in reversed(list(png_chunks(data)))}  # the first of each kind
    start, stop = chunks[b"fcTL"]
    content = data[start + 8 : stop - 4]
    small = png_chunk(b"fcTL", content[:4] + struct.pack(">II", 10, 10) + content[12:])
    for first_frame in (b"", small):
        np.testing.assert_array_equal(picture_of(data[:start] + first_frame + data[stop:]).rgb_HW3, noisy_HW3())
    still = noisy_files()["png"]
    np.testing.assert_array_equal(
        picture_of(still[:33] + png_chunk(b"acTL", struct.pack(">II", 5, 0)) + still[33:]).rgb_HW3, noisy_HW3()
    )
    wrong_sum = bytearray(data)
    wrong_sum[chunks[b"IDAT"][1] - 1] ^= 1
    assert error_of(bytes(wrong_sum)).error_class is ErrorClass.CORRUPT


def test_tiff_alpha_does_not_darken() -> None:
    """Alpha is dropped, in every format alike; OpenCV's TIFF reader would multiply by it."""
    clear = Image.fromarray(upright_HW3()).convert("RGBA")
    clear.putalpha(0)
    for kind in ("TIFF", "PNG", "BMP"):
        np.testing.assert_array_equal(picture_of(saved(clear, kind)).rgb_HW3, upright_HW3())


@pytest.mark.parametrize("values", [[-5.0, 20.0], [0.0, 70000.0], [0.0, float("nan")], [0.0, float("inf")]], ids=str)
def test_a_tiff_of_measurements_is_refused_not_guessed(values: list[float]) -> None:
    pixels = np.resize(np.array(values, np.float32), (HEIGHT, WIDTH))
    error = error_of(saved(Image.fromarray(pixels), "TIFF"))
    assert error.error_class is ErrorClass.UNSUPPORTED
    assert "convert it to 8 bits" in error.message


def test_a_decoder_that_disagrees_with_the_header_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    """Boxes would lie in another picture's coordinates."""
    monkeypatch.setattr(module, "upright", lambda stored, orientation: stored.transpose(1, 0, 2))
    error = error_of(colour_files()["png"])
    assert error.error_class is ErrorClass.CORRUPT
    assert "37 x 53" in error.message
    assert "53 x 37" in error.message


def test_what_nobody_thought_of_is_internal_not_an_exception(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: Any) -> Any:
        raise ZeroDivisionError("a bug")

    monkeypatch.setattr(module, "upright", broken)
    assert error_of(colour_files()["png"]).error_class is ErrorClass.INTERNAL
    monkeypatch.setattr(module, "upright", lambda *_: bytearray(1 << 60))
    assert error_of(colour_files()["png"]).error_class is ErrorClass.OUT_OF_MEMORY


def test_heic_over_the_limit_by_its_true_size() -> None:
    assert error_of(colour_files()["heic"], Limits(max_pixels=WIDTH * HEIGHT)).error_class is ErrorClass.TOO_LARGE


LITTLE_MEMORY = """
import json, resource, sys
from tinyface_core.picture.decode import decode
taken = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (taken + int(sys.argv[1]),) * 2)
found = [decode(open(path, "rb").read()) for path in sys.argv[2:]]
print(json.dumps([f.error_class if hasattr(f, "error_class") else "picture" for f in found]))
"""


@pytest.mark.parametrize("room", [0.6, 1.1])
def test_lack_of_memory_is_told_from_damage(tmp_path: Path, room: float) -> None:
    """Too little for the picture, and enough for it but not for what its decoder needs besides.

    Libraries tell it each in their own words, call it damage, or say nothing.
    """
    side = 2000
    plain = Image.fromarray(np.zeros((side, side, 3), np.uint8))
    files = {
        "progressive.jpg": saved(plain, "JPEG", progressive=True),
        "a.png": saved(plain, "PNG", compress_level=1),
        "a.webp": saved(plain, "WEBP", method=0, lossless=True),
        "a.tif": saved(plain, "TIFF", compression="tiff_lzw"),
        "a.gif": saved(plain.quantize(4), "GIF"),
        "a.avif": saved(plain, "AVIF", speed=10),
        "small.png": colour_files()["png"],
    }
    for name, data in files.items():
        (tmp_path / name).write_bytes(data)
    allowed = str(int(room * 3 * side * side))
    command = [sys.executable, "-c", LITTLE_MEMORY, allowed, *(str(tmp_path / name) for name in files)]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert json.loads(done.stdout) == ["out_of_memory"] * (len(files) - 1) + ["picture"]


@pytest.mark.parametrize("colours", [2, 64])
def test_a_gif_whose_background_is_no_colour_is_shown(colours: int) -> None:
    """As other programs do; OpenCV alone refuses it."""
    shown = Image.effect_noise((40, 30), 60).quantize(colours)
    buffer = io.BytesIO()
    shown.save(buffer, "gif")
    odd = bytearray(buffer.getvalue())
    odd[11] = 255
    picture = decode(bytes(odd))
    assert isinstance(picture, Picture), picture
    assert np.array_equal(picture.rgb_HW3, np.asarray(shown.convert("RGB")))
