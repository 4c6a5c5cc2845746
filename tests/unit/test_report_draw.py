from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

from tinyface_core.report.draw import colours_of, draw_boxes, fit, hex_colour

YELLOW = (253, 231, 37)  # viridis at 1
GREY = np.full((37, 53, 3), 128, np.uint8)


def test_colours_are_viridis() -> None:
    scores = np.linspace(0, 1, 256)
    expected = np.rint(np.array(mpl.colormaps["viridis"].colors) * 255)
    assert np.array_equal(colours_of(scores), expected)


def test_lightness_rises_with_the_score() -> None:
    """Why this map: the order survives a grey print."""
    luma = colours_of(np.linspace(0, 1, 64)) @ np.array([0.2126, 0.7152, 0.0722])
    assert (np.diff(luma) > 0).all()


def test_scores_outside_0_to_1_take_the_ends() -> None:
    ends = colours_of(np.array([0.0, 1.0]))
    assert np.array_equal(colours_of(np.array([-3, np.nan, 1.0001, np.inf])), ends[[0, 0, 1, 1]])


def test_hex_colour() -> None:
    assert hex_colour(1.0) == "#fde725"
    assert hex_colour(0.0) == "#440154"


def test_a_box_colours_its_own_outer_pixels_and_no_more() -> None:
    """x 4..10, y 6..20 on 37 x 53: columns 4 and 9, rows 6 and 19; the casing is the ring around, the inside stays."""
    drawn = draw_boxes(GREY, np.array([[4, 6, 10, 20]]), np.array([1.0]), line_px=1)
    expected = GREY.copy()
    expected[5:21, 3:11] = 0
    expected[6:20, 4:10] = YELLOW
    expected[7:19, 5:9] = 128
    assert np.array_equal(drawn, expected)


def test_the_picture_given_stays_as_it_was() -> None:
    picture = GREY.copy()
    draw_boxes(picture, np.array([[4, 6, 10, 20]]), np.array([0.5]))
    assert np.array_equal(picture, GREY)


def test_a_wider_line_grows_inwards_and_fills_a_tiny_box() -> None:
    drawn = draw_boxes(GREY, np.array([[10, 10, 13, 13], [20, 10, 30, 20]]), np.array([1.0, 1.0]), line_px=3)
    assert (drawn[10:13, 10:13] == YELLOW).all()
    assert (drawn[12, 22:28] == YELLOW).all()
    assert (drawn[13:17, 23:27] == 128).all()


def test_the_most_confident_box_lies_on_top() -> None:
    boxes = np.array([[4, 4, 20, 20], [8, 4, 24, 20]])
    for scores in ([1.0, 0.2], [0.2, 1.0]):
        best = boxes[int(np.argmax(scores))]
        drawn = draw_boxes(GREY, boxes, np.array(scores), line_px=1)
        assert (drawn[4, best[0] : best[2]] == YELLOW).all()


def test_fractions_of_a_pixel_widen_a_box_never_shrink_it() -> None:
    drawn = draw_boxes(GREY, np.array([[4.9, 6.9, 9.1, 9.1]]), np.array([1.0]), line_px=1)
    assert (drawn[6, 4:10] == YELLOW).all()
    assert (drawn[9, 4:10] == YELLOW).all()


@pytest.mark.parametrize("box", [[-9, -9, 5, 5], [50, 30, 99, 99], [-5, -5, 99, 99], [0, 0, 53, 37]])
def test_boxes_over_the_border_are_cut(box: list[float]) -> None:
    assert draw_boxes(GREY, np.array([box]), np.array([0.7])).shape == (37, 53, 3)


def test_no_boxes_give_a_copy() -> None:
    drawn = draw_boxes(GREY, np.zeros((0, 4)), np.zeros(0))
    assert np.array_equal(drawn, GREY)
    assert drawn is not GREY


def test_a_picture_that_is_not_contiguous_can_be_drawn_on() -> None:
    """A flipped or cut view is what decoders give."""
    assert (draw_boxes(GREY[:, ::-1], np.array([[4, 6, 10, 20]]), np.array([1.0]), line_px=1)[6, 4:10] == YELLOW).all()


def test_fit_keeps_the_shape_of_a_long_picture() -> None:
    assert fit(np.zeros((100, 400, 3), np.uint8), 200).shape == (50, 200, 3)
    assert fit(np.zeros((4000, 3, 3), np.uint8), 100).shape == (100, 1, 3)
    assert fit(GREY, 53) is GREY
