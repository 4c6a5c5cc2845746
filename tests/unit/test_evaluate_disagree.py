"""Faces that only one of two models finds, and the sheet that shows them."""

from __future__ import annotations

import io

import numpy as np
from PIL import Image

from tinyface_core.evaluate.disagree import disagreements, sheet
from tinyface_core.evaluate.matching import Found
from tinyface_core.evaluate.truth import joined
from tinyface_core.labels.forms import attributes_of

A, B, C, D = ([x, 5.0, 10.0, 12.0] for x in (0.0, 40.0, 80.0, 120.0))


def found(*boxes: tuple[list[float], float]) -> Found:
    return Found(np.array([box for box, _ in boxes], float).reshape(-1, 4), np.array([score for _, score in boxes]))


def test_what_only_one_has_above_its_own_score() -> None:
    """A is both's; B only the current one's; C and D only the new one's, but D is too weak to count."""
    current = {"p": found((A, 0.6), (B, 0.9)), "q": found((A, 0.9)), "r": found()}
    new = {"p": found(([1.0, 5.0, 10.0, 12.0], 0.4), (C, 0.5), (D, 0.3)), "q": found((A, 0.9)), "r": found((A, 0.2))}
    (one,) = disagreements(current, new, 0.5, 0.3)
    assert one.name == "p"
    assert one.current_A4.tolist() == [B]
    assert one.new_B4.tolist() == [C]
    assert one.both_C4.tolist() == [[1, 5, 10, 12]]


def test_the_most_disputed_picture_comes_first() -> None:
    current = {"p": found((A, 0.9)), "q": found((A, 0.9), (B, 0.9)), "s": found()}
    nothing = {name: found() for name in current}
    assert [one.name for one in disagreements(current, nothing, 0.5, 0.5)] == ["q", "p"]
    assert [one.name for one in disagreements(nothing, current, 0.5, 0.5)] == ["q", "p"]


def test_the_sheet_shows_each_side_in_its_colour() -> None:
    """On a grey picture: orange where only the current model has a box, blue where only the new one has."""
    current, new = {"p": found((A, 0.9))}, {"p": found((C, 0.9))}
    truth = joined({"p": (np.array([A]), attributes_of(np.zeros(1)))})
    grey = np.full((40, 160, 3), 128, np.uint8)
    data = sheet(disagreements(current, new, 0.5, 0.5), truth, lambda name: grey)
    assert data is not None
    pixels = np.asarray(Image.open(io.BytesIO(data)).convert("RGB"), int)
    for colour in ((255, 140, 0), (47, 123, 255)):
        assert (np.abs(pixels - colour).sum(axis=2) < 30).sum() > 20, colour


def test_models_that_agree_have_no_sheet_and_a_lost_picture_leaves_its_place() -> None:
    current = {"p": found((A, 0.9))}
    truth = joined({"p": (np.array([A]), attributes_of(np.zeros(1)))})
    assert sheet(disagreements(current, current, 0.5, 0.5), truth, lambda name: None) is None
    lost = sheet(disagreements(current, {"p": found()}, 0.5, 0.5), truth, lambda name: None)
    assert lost is not None
    assert lost.startswith(b"\x89PNG")
