"""Pixels of what is looked at: faces where they are, tiny ones enlarged, no pixel covered by a caption."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.render_samples import HEIGHT, WIDTH, marks
from tinyface_core.render.caption import error_tile, with_legend
from tinyface_core.render.drawn import CUT_PX, Style, drawn, jpeg, tiny_cuts

GREY = np.full((HEIGHT, WIDTH, 3), 128, np.uint8)
YELLOW = (253, 231, 37)  # a score of 1


@pytest.mark.parametrize("ellipses", [False, True])
def test_faces_are_drawn_where_they_lie_on_a_smaller_picture(ellipses: bool) -> None:
    large = np.full((10 * HEIGHT, 10 * WIDTH, 3), 128, np.uint8)
    seen = drawn(large, marks([100, 60, 300, 300], score=1), WIDTH, ellipses=ellipses)
    assert seen.shape == (HEIGHT, WIDTH, 3)
    changed_y, changed_x = np.nonzero((seen != 128).any(axis=2))
    assert (changed_x.min(), changed_x.max() + 1) == pytest.approx((10, 30), abs=3), "with a casing"
    assert (changed_y.min(), changed_y.max() + 1) == pytest.approx((6, 30), abs=3)
    assert (seen[18, 18:22] == 128).all(), "the face itself stays"


def test_the_tiniest_faces_are_cut_out_smallest_first() -> None:
    """A dot in the middle of each face of its own shade, and a face that is not tiny."""
    picture = np.full((370, 530, 3), 128, np.uint8)
    boxes = [[100, 100, 110, 112], [300, 200, 306, 207], [200, 50, 260, 120]]
    for (x1, y1, x2, y2), shade in zip(boxes, (40, 80, 120), strict=True):
        picture[int(y1 + y2) // 2, int(x1 + x2) // 2] = shade
    cuts = tiny_cuts(picture, marks(*boxes), Style(cuts=8))
    assert cuts is not None
    assert cuts.shape == (CUT_PX, 2 * CUT_PX + 4, 3)
    assert (cuts[:, :CUT_PX] == 80).all(axis=2).any(), "the one of 7 px comes first"
    assert (cuts[:, CUT_PX:] == 40).all(axis=2).any()
    one = tiny_cuts(picture, marks(*boxes), Style(cuts=1))
    assert one is not None
    assert one.shape == (CUT_PX, CUT_PX, 3)


@pytest.mark.parametrize("size", [(HEIGHT, WIDTH), (3, 200), (5, 2)])
def test_a_face_at_the_border_or_in_a_sliver_is_cut_too(size: tuple[int, int]) -> None:
    picture = np.full((*size, 3), 128, np.uint8)
    for box in ([0, 0, 2, 3], [size[1] - 2, size[0] - 3, size[1], size[0]]):
        cuts = tiny_cuts(picture, marks(box), Style())
        assert cuts is not None
        assert cuts.shape == (CUT_PX, CUT_PX, 3)


def test_no_cuts_where_nothing_is_tiny_or_none_are_wanted() -> None:
    assert tiny_cuts(GREY, marks([0, 0, 20, 30]), Style()) is None
    assert tiny_cuts(GREY, marks(), Style()) is None
    assert tiny_cuts(GREY, marks([0, 0, 5, 5]), Style(cuts=0)) is None


@pytest.mark.parametrize("width", [WIDTH, 900, 5000])
def test_a_legend_stands_below_the_picture_and_covers_none_of_it(width: int) -> None:
    picture = np.random.default_rng(0).integers(0, 256, (HEIGHT, width, 3), np.uint8)
    below = np.full((96, 200, 3), 77, np.uint8)
    sheet = with_legend(picture, below, "1,234 faces, smallest 7 px")
    assert np.array_equal(sheet[:HEIGHT, :width], picture)
    assert np.array_equal(sheet[HEIGHT + 4 : HEIGHT + 100, :200], below)
    assert (sheet[HEIGHT + 100 :] == (68, 1, 84)).all(axis=2).any(), "the bar's dark end"
    assert (np.abs(sheet[HEIGHT + 100 :].astype(int) - YELLOW).sum(axis=2) < 9).any(), "and its bright one"


def test_a_tile_tells_whatever_a_message_is() -> None:
    plain = error_tile("corrupt", "bad Huffman code", "/in/a.jpg")
    assert plain.shape == (360, 640, 3)
    other = error_tile("corrupt", "x" * 3000 + " \u202e\ud800 名前", "/in/" + "y" * 3000)
    assert other.shape == plain.shape
    assert not np.array_equal(plain, other)


def test_thin_coloured_lines_keep_their_colour() -> None:
    """A JPEG with colours at half resolution would fade them."""
    import cv2

    picture = drawn(np.full((200, 300, 3), 128, np.uint8), marks([100, 60, 160, 140], score=1), 300, ellipses=False)
    back = cv2.cvtColor(cv2.imdecode(np.frombuffer(jpeg(picture, 90), np.uint8), cv2.IMREAD_COLOR), cv2.COLOR_BGR2RGB)
    assert np.abs(back[100, 100].astype(int) - YELLOW).max() < 60
