from __future__ import annotations

import matplotlib as mpl
import numpy as np
import pytest

from tinyface_core.report.draw import colours_of, draw_boxes, draw_ellipses, fit, hex_colour

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
    """x 4..14, y 6..20 on 37 x 53: columns 4 and 13, rows 6 and 19; the casing is the ring around, the inside stays."""
    drawn = draw_boxes(GREY, np.array([[4, 6, 14, 20]]), np.array([1.0]), line_px=1)
    expected = GREY.copy()
    expected[5:21, 3:15] = 0
    expected[6:20, 4:14] = YELLOW
    expected[7:19, 5:13] = 128
    assert np.array_equal(drawn, expected)


@pytest.mark.parametrize("line_px", [1, 3])
def test_a_face_of_five_pixels_stays_visible_within_its_frame(line_px: int) -> None:
    drawn = draw_boxes(GREY, np.array([[20, 10, 25, 15]]), np.array([1.0]), line_px=line_px)
    expected = GREY.copy()
    expected[8:17, 18:27] = 0
    expected[9:16, 19:26] = YELLOW
    expected[10:15, 20:25] = 128
    assert np.array_equal(drawn, expected)


def test_the_picture_given_stays_as_it_was() -> None:
    picture = GREY.copy()
    draw_boxes(picture, np.array([[4, 6, 10, 20]]), np.array([0.5]))
    assert np.array_equal(picture, GREY)


def test_a_wider_line_grows_inwards_to_an_eighth_of_the_face() -> None:
    boxes = np.array([[2, 2, 34, 34], [37, 10, 49, 30]])
    drawn = draw_boxes(GREY, boxes, np.array([1.0, 1.0]), line_px=3)
    assert (drawn[18, 2:5] == YELLOW).all()
    assert (drawn[18, 5:31] == 128).all()
    assert (drawn[20, 37:38] == YELLOW).all(), "12 px wide: one pixel"
    assert (drawn[20, 38:48] == 128).all()


def test_an_ellipse_lies_where_the_table_has_it() -> None:
    """Upright, around (26, 18), 8 px wide and 24 high; turned by pi/2 it lies on its side."""
    for angle, along in ((np.pi / 2, (slice(6, 30), 26)), (0.0, (18, slice(14, 38)))):
        drawn = draw_ellipses(GREY, np.array([[26, 18, 12, 8, angle]]), np.array([1.0]), line_px=1)
        changed_y, changed_x = np.nonzero((drawn != GREY).any(axis=2))
        assert abs(np.mean(changed_y) + 0.5 - 18) < 0.2
        assert abs(np.mean(changed_x) + 0.5 - 26) < 0.2
        assert np.ptp(changed_y) + 1 == pytest.approx(24 if angle else 16, abs=6), "with its casing"
        assert np.ptp(changed_x) + 1 == pytest.approx(16 if angle else 24, abs=6)
        ends = drawn[along].reshape(-1, 3)
        assert (ends[[0, -1], 0] > 120).all(), "its line, in yellow"
        assert (ends[[0, -1], 2] < 60).all()


def test_a_tiny_ellipse_leaves_its_face_visible_and_one_outside_does_no_harm() -> None:
    ellipses = np.array([[20.5, 15.5, 3, 2.5, 1.57], [-400, 9000, 30, 20, 0.3]])
    drawn = draw_ellipses(GREY, ellipses, np.array([1.0, 0.4]), line_px=3)
    assert (drawn[14:17, 19:22] > 110).all()
    assert (drawn != GREY).any()


def test_the_most_confident_ellipse_lies_on_top() -> None:
    ellipses = np.array([[20, 18, 12, 9, 1.57], [20, 18, 12, 9, 1.57]])
    alone = draw_ellipses(GREY, ellipses[:1], np.array([1.0]))
    for scores in ([1.0, 0.2], [0.2, 1.0]):
        drawn = draw_ellipses(GREY, ellipses, np.array(scores))
        line = (alone[..., 0] > 150) & (alone[..., 2] < 60)
        assert line.any()
        assert (drawn[line, 0] > 120).all(), "bright, where a score of 0.2 is dark"


def test_the_most_confident_box_lies_on_top() -> None:
    boxes = np.array([[4, 4, 20, 20], [8, 4, 24, 20]])
    for scores in ([1.0, 0.2], [0.2, 1.0]):
        best = boxes[int(np.argmax(scores))]
        drawn = draw_boxes(GREY, boxes, np.array(scores), line_px=1)
        assert (drawn[4, best[0] : best[2]] == YELLOW).all()


def test_fractions_of_a_pixel_widen_a_box_never_shrink_it() -> None:
    drawn = draw_boxes(GREY, np.array([[4.9, 6.9, 19.1, 19.1]]), np.array([1.0]), line_px=1)
    assert (drawn[6, 4:20] == YELLOW).all()
    assert (drawn[19, 4:20] == YELLOW).all()


@pytest.mark.parametrize("box", [[-9, -9, 5, 5], [50, 30, 99, 99], [-5, -5, 99, 99], [0, 0, 53, 37]])
def test_boxes_over_the_border_are_cut(box: list[float]) -> None:
    assert draw_boxes(GREY, np.array([box]), np.array([0.7])).shape == (37, 53, 3)


def test_no_boxes_give_a_copy() -> None:
    drawn = draw_boxes(GREY, np.zeros((0, 4)), np.zeros(0))
    assert np.array_equal(drawn, GREY)
    assert drawn is not GREY


def test_a_picture_that_is_not_contiguous_can_be_drawn_on() -> None:
    """A flipped or cut view is what decoders give."""
    assert (draw_boxes(GREY[:, ::-1], np.array([[4, 6, 14, 20]]), np.array([1.0]), line_px=1)[6, 4:14] == YELLOW).all()


def test_fit_keeps_the_shape_of_a_long_picture() -> None:
    assert fit(np.zeros((100, 400, 3), np.uint8), 200).shape == (50, 200, 3)
    assert fit(np.zeros((4000, 3, 3), np.uint8), 100).shape == (100, 1, 3)
    assert fit(GREY, 53) is GREY
