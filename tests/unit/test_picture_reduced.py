"""A JPEG that is decoded 2, 4 or 8 times smaller: the same picture, the same errors, its whole size told."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.picture_samples import colour_files, exif, noisy_HW3, saved, turned
from tests.toy_network import bright_detector, bright_picture
from tinyface_core.detect.options import DetectOptions
from tinyface_core.detect.pyramid import Zooms, most_reduced
from tinyface_core.errors import PictureError
from tinyface_core.picture.decode import decode
from tinyface_core.picture.guard import DecodePool
from tinyface_core.picture.picture import Limits, Picture
from tinyface_core.templates import Template, TemplateSet


def at(reduced: int, data: bytes) -> Picture:
    found = decode(data, Limits(reduced=reduced))
    assert isinstance(found, Picture), found
    return found


def jpeg(upright_HW3: NDArray[np.uint8], orientation: int) -> bytes:
    return saved(turned(upright_HW3, orientation), "JPEG", quality=98, subsampling=0, exif=exif(orientation))


def means_of_squares(rgb_HW3: NDArray[np.uint8], side: int) -> NDArray[np.uint8]:
    """Each square of so many pixels as one; those past the edges repeat the last row and column."""
    height, width = rgb_HW3.shape[:2]
    filled = np.pad(rgb_HW3, ((0, -height % side), (0, -width % side), (0, 0)), mode="edge").astype(np.float64)
    means = filled.reshape(-(-height // side), side, -(-width // side), side, 3).mean(axis=(1, 3))
    return np.asarray(means.round(), np.uint8)


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("reduced", [2, 4, 8])
def test_each_pixel_stands_for_a_square_of_the_upright_picture(reduced: int, orientation: int) -> None:
    """One that is not turned has squares that are cut at the right and the bottom."""
    height, width = (203, 117) if orientation == 1 else (208, 120)
    upright_HW3 = cv2.GaussianBlur(noisy_HW3(height, width), (0, 0), reduced).astype(np.uint8)
    picture = at(reduced, jpeg(upright_HW3, orientation))
    means_HW3 = means_of_squares(upright_HW3, reduced)
    assert (picture.size_hw, picture.reduced) == ((height, width), reduced)
    assert picture.rgb_HW3.shape == means_HW3.shape
    assert picture.rgb_HW3.flags.c_contiguous
    difference = np.abs(picture.rgb_HW3.astype(int) - means_HW3).mean()
    assert difference < 3  # another low pass than a mean
    for shifted_HW3 in (np.roll(means_HW3, 1, 0), np.roll(means_HW3, 1, 1), means_HW3[::-1], means_HW3[:, ::-1]):
        assert np.abs(picture.rgb_HW3.astype(int) - shifted_HW3).mean() > 2 * difference


@pytest.mark.parametrize(("height", "width", "times"), [(203, 117, 1), (206, 120, 2), (204, 116, 4)])
def test_a_turned_picture_has_no_square_that_is_cut(height: int, width: int, times: int) -> None:
    """It would be at the top or the left, and all the others off by what is cut."""
    picture = at(8, jpeg(noisy_HW3(height, width), 3))
    assert (picture.size_hw, picture.reduced) == ((height, width), times)


@pytest.mark.parametrize("name", [name for name in colour_files() if not name.startswith("jpeg")])
def test_other_formats_keep_their_size(name: str) -> None:
    picture, whole = at(4, colour_files()[name]), at(1, colour_files()[name])
    np.testing.assert_array_equal(picture.rgb_HW3, whole.rgb_HW3)
    assert (picture.reduced, picture.size_hw) == (1, whole.size_hw)


@pytest.mark.parametrize("reduced", [2, 8])
@pytest.mark.parametrize("options", [{}, {"progressive": True}], ids=["sequential", "progressive"])
def test_what_is_lost_is_noticed_at_any_size(options: dict[str, bool], reduced: int) -> None:
    data = saved(noisy_HW3(), "JPEG", **options)
    middle = len(data) // 2
    for damaged in (data[:middle], data[:middle] + bytes(len(data) - middle), data[:middle] + data[middle + 400 :]):
        whole, small = decode(damaged), decode(damaged, Limits(reduced=reduced))
        assert isinstance(whole, PictureError)
        assert isinstance(small, PictureError)
        assert small.error_class is whole.error_class


@pytest.mark.parametrize("hw", [(1, 1), (3, 5), (7, 7), (8, 1), (9, 16)])
@pytest.mark.parametrize("reduced", [2, 4, 8])
def test_the_smallest_pictures_keep_their_size_in_the_tables(hw: tuple[int, int], reduced: int) -> None:
    picture = at(reduced, saved(noisy_HW3()[: hw[0], : hw[1]], "JPEG"))
    assert picture.size_hw == hw
    assert picture.rgb_HW3.shape[:2] == tuple(-(-side // picture.reduced) for side in hw)


def test_a_child_gives_what_decoding_here_gives() -> None:
    data = jpeg(noisy_HW3(204, 118), 6)
    with DecodePool(1, Limits(reduced=2)) as pool:
        ((_, found),) = pool.decode_ahead([(0, data)])
    here = at(2, data)
    assert isinstance(found, Picture)
    np.testing.assert_array_equal(found.rgb_HW3, here.rgb_HW3)
    assert (found.size_hw, found.reduced) == (here.size_hw, here.reduced) == ((204, 118), 2)


@pytest.mark.parametrize(
    ("zooms", "times"),
    [
        ("adaptive", 1),
        ((0.25, 0.5, 1.0, 2.0), 1),
        ((1.0,), 1),
        ((0.51,), 1),
        ((0.25, 0.5), 2),
        ((0.3,), 2),
        ((0.25,), 4),
        ((0.01, 0.125), 8),
        ((0.01,), 8),
    ],
)
def test_no_level_needs_more_than_what_is_decoded(zooms: Zooms, times: int) -> None:
    assert most_reduced(zooms) == times


@pytest.mark.parametrize(
    ("zoom", "reduced", "hw", "face"),
    [
        (0.5, 2, (147, 211), (104, 32, 152, 96)),
        (0.25, 2, (147, 211), (48, 0, 144, 128)),
        (0.25, 4, (147, 211), (48, 0, 144, 128)),
        (0.5, 2, (95, 151), (104, 32, 152, 96)),  # a pixel past the right and the bottom edge, which cut its box
        (0.25, 4, (125, 141), (48, 0, 144, 128)),
    ],
)
def test_boxes_are_of_the_whole_picture(
    zoom: float, reduced: int, hw: tuple[int, int], face: tuple[int, int, int, int]
) -> None:
    """No square of pixels ends where the picture does."""
    shape = Template(24, 32, 1)
    detector = bright_detector(TemplateSet((shape,), outputs=(0,), a=(0,), b=()), DetectOptions(0.5, 0.3, (zoom,)))
    shown_HW3 = means_of_squares(bright_picture(*hw, face), reduced)
    found = detector(shown_HW3, reduced=reduced, size_hw=hw)
    x1, y1, x2, y2 = face
    assert found.boxes_K4.round(3).tolist() == [[x1, y1, min(x2, hw[1]), min(y2, hw[0])]]
    assert (found.zooms, found.zoom_K.tolist(), found.min_face_px) == ((zoom,), [zoom], 32 / zoom)
