"""The residual face rate: which masked faces count as found again, and how sure a share is."""

from __future__ import annotations

import numpy as np
import pytest

from tests.unit.redact_samples import boxes_of, random_faces
from tinyface_core.redact.residual import SHARED, Residual, drawn, residual_of, wilson


def test_faces_found_again_and_elsewhere() -> None:
    masked = boxes_of((0, 0, 10, 10), (50, 50, 60, 60), (80, 0, 90, 10))
    found = boxes_of(
        (1, 1, 11, 11),  # the first
        (2, 2, 4, 4),  # the first again, of which it is a small part
        (40, 40, 100, 100),  # holds the second
        (88, 8, 98, 18),  # touches the third by 4 of 100
        (200, 200, 210, 210),  # nobody's
    )
    assert residual_of(masked, found) == Residual(1, masked=3, again=2, others=2)


def test_none_masked_or_none_found() -> None:
    some = boxes_of((0, 0, 10, 10))
    assert residual_of(boxes_of(), some) == Residual(1, 0, 0, 1)
    assert residual_of(some, boxes_of()) == Residual(1, 1, 0, 0)
    assert Residual().rate is None
    assert Residual().interval is None


def test_many_boxes_as_in_a_loop_over_pairs() -> None:
    masked, found = (random_faces(60, (200, 300), (4, 60), seed).boxes_K4 for seed in (1, 2))
    near_KL = np.zeros((60, 60), bool)
    for k, (ax1, ay1, ax2, ay2) in enumerate(masked.astype(float)):
        for m, (bx1, by1, bx2, by2) in enumerate(found.astype(float)):
            shared = max(0, min(ax2, bx2) - max(ax1, bx1)) * max(0, min(ay2, by2) - max(ay1, by1))
            near_KL[k, m] = shared >= SHARED * min((ax2 - ax1) * (ay2 - ay1), (bx2 - bx1) * (by2 - by1))
    expected = Residual(1, 60, int(near_KL.any(axis=1).sum()), int((~near_KL.any(axis=0)).sum()))
    assert residual_of(masked, found) == expected


@pytest.mark.parametrize(
    ("hits", "of", "low", "high"),
    [(0, 10, 0.0, 0.2775), (1, 10, 0.0179, 0.4042), (5, 10, 0.2366, 0.7634), (10, 10, 0.7225, 1.0)],
)
def test_wilson_as_printed_in_tables(hits: int, of: int, low: float, high: float) -> None:
    """R: prop.test(hits, of, correct = FALSE)$conf.int."""
    assert wilson(hits, of) == pytest.approx((low, high), abs=1e-4)


def test_a_sample_is_the_same_in_any_order_and_another_one_for_another_seed() -> None:
    rows = [{"image_id": f"{number:032x}"} for number in range(300)]
    sample = drawn(rows, 20, seed=1)
    assert drawn(reversed(rows), 20, seed=1) == sample
    assert drawn(rows, 20, seed=2) != sample
    assert len(drawn(rows[:5], 20, seed=1)) == 5
