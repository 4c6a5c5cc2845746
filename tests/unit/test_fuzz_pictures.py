"""Damaged pictures of every format: a picture of the size that its header told, or an error of the closed list.

benchmarks/fuzz.py drives the same properties for as long as one likes.
"""

from __future__ import annotations

from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.picture_samples import colour_files, exif, grey_files, saved, upright_HW3
from tests.unit.mutations import damaged_pictures
from tinyface_core.errors import ErrorClass, PictureError, Stage
from tinyface_core.picture.guard import DecodePool, Result
from tinyface_core.picture.header import Header, sniff
from tinyface_core.picture.layout import is_whole
from tinyface_core.picture.picture import Limits, Picture

LIMITS = Limits(max_pixels=2_000_000, timeout_s=20, memory_bytes=1 << 30)
FORMATS = {"jpeg", "png", "webp", "tiff", "bmp", "gif", "heic", "avif"}
TOLD_BY_HEADERS = {
    ErrorClass.TRUNCATED,
    ErrorClass.CORRUPT,
    ErrorClass.NOT_AN_IMAGE,
    ErrorClass.UNSUPPORTED,
    ErrorClass.TOO_LARGE,
}
TOLD = TOLD_BY_HEADERS | {ErrorClass.OUT_OF_MEMORY}
AT_ONCE = 8  # pictures in one example: the pool works on several

quick = settings(max_examples=30, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.too_slow])


def files() -> dict[str, bytes]:
    with_exif = exif(6, original="2019:07:06 05:04:03")
    turned = {f"{kind.lower()} exif": saved(upright_HW3(), kind, exif=with_exif) for kind in ("JPEG", "PNG", "TIFF")}
    return colour_files() | grey_files() | turned


@pytest.fixture(scope="module")
def pool() -> Iterator[DecodePool]:
    with DecodePool(1, LIMITS, ahead=AT_ONCE) as opened:
        yield opened


def check_header(data: bytes) -> Header | PictureError:
    """In this process, which must live: an answer, whatever the bytes are."""
    found = sniff(data, LIMITS)
    if isinstance(found, PictureError):
        assert found.stage is Stage.DECODE
        assert found.error_class in TOLD_BY_HEADERS, found
        return found
    assert found.format in FORMATS
    assert 0 < found.width * found.height <= LIMITS.max_pixels
    assert 1 <= found.exif_orientation <= 8
    is_whole(found.format, data)
    return found


def check_picture(header: Header | PictureError, result: Result) -> None:
    if isinstance(result, PictureError):
        assert result.stage is Stage.DECODE
        assert result.error_class in TOLD, result
        assert result.message
        assert not isinstance(header, PictureError) or result == header
        return
    assert isinstance(header, Header)
    assert isinstance(result, Picture)
    assert result.rgb_HW3.dtype == np.uint8
    assert result.rgb_HW3.shape == (result.height, result.width, 3)
    assert result.width * result.height <= LIMITS.max_pixels
    assert result.format == header.format
    if header.format in ("heic", "avif"):  # their headers tell a size for each of their parts
        return
    assert result.exif_orientation == header.exif_orientation
    turned = header.exif_orientation >= 5
    told = (header.height, header.width) if turned else (header.width, header.height)
    assert (result.width, result.height) == told


def check_pictures(damaged: list[tuple[str, bytes]], pool: DecodePool) -> None:
    """None of them hangs, crashes or fills the child, either."""
    given = dict(pool.decode_ahead((number, data) for number, (_, data) in enumerate(damaged)))
    assert sorted(given) == list(range(len(damaged)))
    for number, (name, data) in enumerate(damaged):
        try:
            check_picture(check_header(data), given[number])
        except AssertionError as error:
            error.add_note(f"{name}: {data!r}")
            raise


HEADERS = damaged_pictures(files())
BATCHES = st.lists(HEADERS, min_size=AT_ONCE, max_size=AT_ONCE)


@settings(quick, max_examples=150)
@given(HEADERS)
def test_a_damaged_header_is_a_header_or_an_error(damaged: tuple[str, bytes]) -> None:
    check_header(damaged[1])


def test_a_damaged_picture_is_a_picture_or_an_error(pool: DecodePool) -> None:
    @quick
    @given(BATCHES)
    def holds(damaged: list[tuple[str, bytes]]) -> None:
        check_pictures(damaged, pool)

    holds()
