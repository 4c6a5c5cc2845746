from __future__ import annotations

import base64
import xml.etree.ElementTree as ET

import cv2
import numpy as np
import pytest

from tinyface_core.report.draw import hex_colour
from tinyface_core.report.gallery import LONGEST_PX, MOST_BOXES, Shown, show

BOXES = np.array([[10, 4, 20, 16, 0.97], [12, 6, 14, 8, 0.4]], np.float32)


def noise(height: int, width: int) -> np.ndarray:
    return np.random.default_rng(0).integers(0, 256, (height, width, 3), np.uint8)


def boxes_in(shown: Shown) -> list[ET.Element]:
    return list(ET.fromstring(f"<g>{shown.boxes}</g>"))


def decoded(shown: Shown) -> np.ndarray:
    data = np.frombuffer(base64.b64decode(shown.jpeg_base64), np.uint8)
    return np.asarray(cv2.cvtColor(cv2.imdecode(data, cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB))


def test_a_box_lies_where_it_lay_at_the_size_shown() -> None:
    """2560 x 1600 is shown at half its size; the title tells the height in the original."""
    first, second = boxes_in(show(np.zeros((1600, 2560, 3), np.uint8), BOXES * [2, 2, 2, 2, 1], 10**6))
    assert {k: first.get(k) for k in ("x", "y", "width", "height")} == {
        "x": "10.0",
        "y": "4.0",
        "width": "10.0",
        "height": "12.0",
    }
    assert first.get("stroke") == hex_colour(0.97)
    assert [title.text for title in first] == ["score 0.97, 24 px high"]
    assert second.get("x") == "12.0"


def test_the_smaller_box_comes_last_so_that_it_can_be_pointed_at() -> None:
    for boxes in (BOXES, BOXES[::-1]):
        assert [box.get("width") for box in boxes_in(show(noise(37, 53), boxes, 10**6))] == ["10.0", "2.0"]


def test_colours_are_not_swapped() -> None:
    red = np.zeros((37, 53, 3), np.uint8)
    red[..., 0] = 220
    assert np.allclose(decoded(show(red, BOXES, 10**6)).mean(axis=(0, 1)), [220, 0, 0], atol=4)


def test_the_longest_side_is_bounded_and_a_small_picture_is_not_enlarged() -> None:
    assert decoded(show(noise(200, 3000), BOXES, 10**6)).shape == (85, LONGEST_PX, 3)
    assert decoded(show(noise(37, 53), BOXES, 10**6)).shape == (37, 53, 3)


@pytest.mark.parametrize("max_bytes", [900_000, 300_000, 100_000])
def test_bytes_are_bounded_on_a_picture_that_hardly_compresses(max_bytes: int) -> None:
    shown = show(noise(900, 1300), BOXES, max_bytes)
    assert shown.size_bytes <= max_bytes
    assert (shown.width, shown.height) == (1280, 886), "the layer keeps its units, the page stretches the JPEG"


def test_an_impossible_bound_still_gives_a_picture() -> None:
    assert max(decoded(show(noise(900, 1300), BOXES, 10)).shape) <= 320


def test_the_least_certain_of_very_many_boxes_are_left_out() -> None:
    boxes = np.tile(np.float32([1, 1, 9, 9, 0.5]), (MOST_BOXES + 30, 1))
    boxes[::2, 4] = 0.99
    shown = show(noise(37, 53), boxes, 10**6)
    assert shown.left_out == 30
    titles = [title.text or "" for box in boxes_in(shown) for title in box]
    assert len(titles) == MOST_BOXES
    assert sum("0.99" in title for title in titles) == (MOST_BOXES + 30) // 2


def test_no_boxes() -> None:
    shown = show(noise(37, 53), np.zeros((0, 5), np.float32), 10**6)
    assert (shown.boxes, shown.casing, shown.left_out) == ("", "", 0)
