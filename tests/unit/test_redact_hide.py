"""What is left of a face once it is hidden, and that nothing else of the picture changes."""

from __future__ import annotations

import cv2
import numpy as np
import pytest
from numpy.typing import NDArray

from tests.unit.redact_samples import faces_of, noise, random_faces
from tests.unit.test_redact_masks import covered
from tinyface_core.redact.faces import Faces, How, Redaction, Shape
from tinyface_core.redact.hide import GREY, PIXELATE_CELLS, hide_faces

WAYS: tuple[How, ...] = ("fill", "blur", "pixelate")


def hidden(rgb_HW3: NDArray[np.uint8], faces: Faces, redaction: Redaction) -> NDArray[np.uint8]:
    copy = rgb_HW3.copy()
    hide_faces(copy, faces, redaction)
    return copy


@pytest.mark.parametrize("shape", ["ellipse", "box"])
@pytest.mark.parametrize("how", WAYS)
def test_pixels_change_within_the_masks_and_nowhere_else(how: How, shape: Shape) -> None:
    """Each pixel within, where a fill is told from the picture; most of them where chance may keep a value."""
    before, faces = noise(120, 90), random_faces(12, (120, 90), (3, 40), seed=1)
    after = hidden(before, faces, Redaction(how, shape, 0.2))
    changed_HW, inside_HW = (after != before).any(axis=2), covered(faces, shape, 0.2, (120, 90))
    assert not changed_HW[~inside_HW].any()
    assert changed_HW[inside_HW].mean() > 0.98
    if how == "fill":
        assert (after[inside_HW] == GREY).all()


@pytest.mark.parametrize("how", WAYS)
@pytest.mark.parametrize("box", [(0, 0, 3, 3), (50, 34, 53, 37), (20, 0, 23, 2.5), (0, 10, 2, 30), (0, 0, 53, 37)])
def test_faces_of_3_px_at_edges_and_of_the_whole_picture_are_hidden(how: How, box: tuple[float, ...]) -> None:
    before = noise()
    after = hidden(before, faces_of(box), Redaction(how))
    inside_HW = covered(faces_of(box), "ellipse", 0.2)
    assert inside_HW.any()
    assert (after != before).any(axis=2)[inside_HW].mean() > 0.9


@pytest.mark.slow
def test_ten_thousand_faces_are_hidden_and_nothing_else() -> None:
    before, faces = noise(2000, 3000), random_faces(10_000, (2000, 3000), (6, 30), seed=2)
    inside_HW = covered(faces, "ellipse", 0.2, (2000, 3000))
    for how in WAYS:
        changed_HW = (hidden(before, faces, Redaction(how)) != before).any(axis=2)
        assert not changed_HW[~inside_HW].any()
        assert changed_HW[inside_HW].mean() > 0.9


@pytest.mark.parametrize("how", ["blur", "pixelate"])
def test_a_small_face_within_a_large_one_opens_nothing_of_it(how: How) -> None:
    """In whatever order they come: the large one's pixels keep no more detail than if it were alone."""
    before, large = noise(200, 200), (20, 20, 180, 180)
    small = [(x, y, x + 12, y + 12) for x in range(40, 150, 14) for y in range(40, 150, 14)]
    middle = (slice(60, 140), slice(60, 140))
    alone = hidden(before, faces_of(large), Redaction(how))[middle].astype(float)
    for boxes in ([large, *small], [*small, large]):
        together = hidden(before, faces_of(*boxes), Redaction(how))[middle].astype(float)
        assert np.abs(np.diff(together, axis=1)).mean() <= np.abs(np.diff(alone, axis=1)).mean() + 0.5


@pytest.mark.parametrize("size", [24, 90, 400])
def test_a_pixelated_face_has_few_colours(size: int) -> None:
    box = (10, 10, 10 + size, 10 + size * 0.8)
    after = hidden(noise(size + 20, size + 20), faces_of(box), Redaction("pixelate", "box", 0.0))
    colours = np.unique(after[11 : 9 + int(size * 0.8), 11 : 9 + size].reshape(-1, 3), axis=0)
    assert 4 <= len(colours) <= PIXELATE_CELLS**2


@pytest.mark.parametrize("size", [32, 120, 700])
@pytest.mark.parametrize("waves", [3, 5, 10])
def test_a_blurred_face_keeps_nothing_of_what_repeats_three_times_over_it(size: int, waves: int) -> None:
    """A pattern of full contrast becomes one grey: no computation tells it from its opposite."""
    wave_W = 127 * np.cos(2 * np.pi * waves * (np.arange(size) + 0.5) / size)
    striped = np.broadcast_to((128 + wave_W).round().astype(np.uint8)[None, :, None], (size, size, 3)).copy()
    after = hidden(striped, faces_of((0, 0, size, size)), Redaction("blur", "box", 0.0))
    assert np.ptp(after.astype(int)) <= 1


@pytest.mark.parametrize("size", [32, 120, 700])
def test_a_blurred_face_is_some_twenty_numbers(size: int) -> None:
    """The cosines of up to two waves give it back to the level: there is no more in it."""
    after = hidden(noise(size, size), faces_of((0, 0, size, size)), Redaction("blur", "box", 0.0))
    for channel_HW in np.moveaxis(after.astype(np.float32), 2, 0):
        cosines_HW = cv2.dct(channel_HW)
        across, down = np.meshgrid(np.arange(size), np.arange(size))
        few_HW = cosines_HW * (across**2 + down**2 <= 20)
        assert np.abs(cv2.idct(few_HW) - channel_HW).max() <= 1.5


def test_what_is_filled_does_not_depend_on_the_face() -> None:
    one, other = (hidden(noise(seed=seed), faces_of((5, 5, 30, 30)), Redaction("fill", "box")) for seed in (1, 2))
    assert (one[5:30, 5:30] == other[5:30, 5:30]).all()
