"""Boxes against plain Python; NMS in bounded memory."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from tinyface_core import boxes
from tinyface_core.boxes import area, clip, iou, nms, vote

ROOT = Path(__file__).resolve().parents[2]


def plain_iou(one: list[float], other: list[float]) -> float:
    width = max(0.0, min(one[2], other[2]) - max(one[0], other[0]))
    height = max(0.0, min(one[3], other[3]) - max(one[1], other[1]))
    areas = [max(0.0, x2 - x1) * max(0.0, y2 - y1) for x1, y1, x2, y2 in (one, other)]
    union = sum(areas) - width * height
    return width * height / union if union > 0 else 0.0


def plain_nms(boxes_K4: list[list[float]], scores_K: list[float], max_iou: float) -> list[int]:
    kept: list[int] = []
    for i in sorted(range(len(scores_K)), key=lambda i: (-scores_K[i], i)):
        if all(plain_iou(boxes_K4[i], boxes_K4[j]) <= max_iou for j in kept):
            kept.append(i)
    return kept


def random_boxes(count: int, seed: int, spread: int = 60) -> tuple[Tensor, Tensor]:
    """Whole numbers, so that ratios of areas are exact; few scores, so many ties; some boxes twice, some empty."""
    print(f"seed {seed}")
    random = np.random.default_rng(seed)
    corner_K2 = random.integers(0, spread, (count, 2))
    sides_K2 = random.integers(0, 25, (count, 2)) - (random.random((count, 1)) < 0.05) * 3
    boxes_K4 = np.concatenate([corner_K2, corner_K2 + sides_K2], 1)
    twice = random.random(count) < 0.1
    boxes_K4[twice] = boxes_K4[random.integers(0, max(count, 1), int(twice.sum()))]
    return torch.tensor(boxes_K4, dtype=torch.float32), torch.tensor(random.integers(0, 9, count) / 10)


def test_iou_equals_plain_python() -> None:
    boxes_N4, boxes_M4 = random_boxes(40, seed=1)[0], random_boxes(30, seed=2)[0]
    expected = [[plain_iou(one, other) for other in boxes_M4.tolist()] for one in boxes_N4.tolist()]
    torch.testing.assert_close(iou(boxes_N4, boxes_M4), torch.tensor(expected))
    assert tuple(iou(boxes_N4, boxes_M4[:0]).shape) == (40, 0)


def test_empty_boxes_have_no_area_and_overlap_nothing() -> None:
    empty_K4 = torch.tensor([[5.0, 5, 5, 9], [9, 9, 5, 5], [3, 3, 3, 3]])
    assert area(empty_K4).tolist() == [0, 0, 0]
    assert not bool(iou(empty_K4, torch.cat([empty_K4, torch.tensor([[0.0, 0, 20, 20]])])).any())


def test_clipping_uses_width_for_x_and_height_for_y() -> None:
    found = clip(torch.tensor([[-3.0, -4, 60, 60], [10, 20, 30, 36], [70, 80, 90, 95]]), (37, 53))
    assert found.tolist() == [[0, 0, 53, 37], [10, 20, 30, 36], [53, 37, 53, 37]]


@pytest.mark.parametrize("seed", range(12))
def test_nms_equals_plain_python(seed: int) -> None:
    """Ties, duplicates and empty boxes; few boxes, blocks so small that many follow each other, and as on a GPU."""
    boxes_K4, scores_K = random_boxes(150, seed)
    for max_iou in (0.0, 0.1, 0.3, 0.5, 1.0):
        expected = plain_nms(boxes_K4.tolist(), scores_K.tolist(), max_iou)
        assert nms(boxes_K4, scores_K, max_iou).tolist() == expected
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(boxes, "NMS_BLOCK", 7)
            patch.setattr(boxes, "NMS_GROUP", 2)
            assert nms(boxes_K4, scores_K, max_iou).tolist() == expected
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(boxes, "_on_cpu", lambda boxes_K4: False)
            patch.setattr(boxes, "NMS_BLOCK_GPU", 32)
            patch.setattr(boxes, "PAIRS_GPU", 900)
            assert nms(boxes_K4, scores_K, max_iou).tolist() == expected


@pytest.mark.slow
def test_nms_of_more_boxes_than_a_block_equals_plain_python() -> None:
    """Sparse, so that most survive and every block meets the next."""
    boxes_K4, scores_K = random_boxes(1500, seed=3, spread=900)
    kept = nms(boxes_K4, scores_K, 0.3).tolist()
    assert len(kept) > boxes.NMS_BLOCK
    assert kept == plain_nms(boxes_K4.tolist(), scores_K.tolist(), 0.3)


def test_nms_of_one_and_of_no_box() -> None:
    assert nms(torch.tensor([[1.0, 2, 3, 4]]), torch.tensor([0.5]), 0.3).tolist() == [0]
    none = nms(torch.zeros(0, 4), torch.zeros(0), 0.3)
    assert (none.tolist(), none.dtype) == ([], torch.int64)


def test_an_iou_of_exactly_the_limit_is_kept() -> None:
    """Strictly above: 1 of 2 is not above 0.5."""
    boxes_K4, scores_K = torch.tensor([[0.0, 0, 4, 4], [0, 0, 4, 2]]), torch.tensor([0.9, 0.8])
    assert nms(boxes_K4, scores_K, 0.5).tolist() == [0, 1]
    assert nms(boxes_K4, scores_K, 0.499).tolist() == [0]


def test_equal_scores_keep_the_lower_index() -> None:
    boxes_K4 = torch.tensor([[0.0, 0, 10, 10]]).repeat(3000, 1)
    assert nms(boxes_K4, torch.full((3000,), 0.5), 0.3).tolist() == [0]


def test_a_suppressed_box_suppresses_nothing() -> None:
    """A chain in which each box overlaps the next: every other one stands."""
    x_K = torch.arange(1500.0) * 5
    boxes_K4 = torch.stack([x_K, 0 * x_K, x_K + 10, 0 * x_K + 10], 1)
    assert nms(boxes_K4, -x_K, 0.3).tolist() == list(range(0, 1500, 2))


def test_a_vote_by_hand() -> None:
    """Two of the same face, 1 px apart along x: IoU 9/11. The kept one counts 0.9 squared, the other (0.6 x 9/11)
    squared; one that overlaps less than 0.6 (5/15), and one far away, count nothing."""
    boxes_K4 = torch.tensor([[0.0, 0, 10, 10], [1, 0, 11, 10], [5, 0, 15, 10], [40, 40, 50, 60]])
    scores_K = torch.tensor([0.9, 0.6, 0.8, 0.5])
    pull = (0.6 * 9 / 11) ** 2 / (0.9**2 + (0.6 * 9 / 11) ** 2)
    voted = vote(boxes_K4, scores_K, torch.tensor([0, 3]), 0.6)
    torch.testing.assert_close(voted, torch.tensor([[pull, 0, 10 + pull, 10], [40.0, 40, 50, 60]]))
    torch.testing.assert_close(vote(boxes_K4, scores_K, torch.tensor([0, 3]), 1.0), boxes_K4[[0, 3]])
    assert vote(torch.zeros(0, 4), torch.zeros(0), torch.zeros(0, dtype=torch.long), 0.6).shape == (0, 4)


@pytest.mark.parametrize("seed", range(3))
def test_a_vote_equals_plain_sums(seed: int) -> None:
    """In any grouping of neighbours; an empty box that is kept stays where it is."""
    boxes_K4, scores_K = (tensor.float() for tensor in random_boxes(150, seed))
    kept_M = nms(boxes_K4, scores_K, 0.4)
    iou_MK = iou(boxes_K4[kept_M], boxes_K4).double()
    weight_MK = torch.where(iou_MK >= 0.5, (iou_MK * scores_K) ** 2, 0.0)
    total_M1 = weight_MK.sum(dim=1, keepdim=True)
    expected = torch.where(total_M1 > 0, weight_MK @ boxes_K4.double() / total_M1, boxes_K4[kept_M].double())
    for group in (2, 16):
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(boxes, "NMS_GROUP", group)
            torch.testing.assert_close(vote(boxes_K4, scores_K, kept_M, 0.5).double(), expected, rtol=1e-5, atol=1e-4)
            patch.setattr(boxes, "_on_cpu", lambda boxes_K4: False)
            patch.setattr(boxes, "PAIRS_GPU", group * len(boxes_K4))
            torch.testing.assert_close(vote(boxes_K4, scores_K, kept_M, 0.5).double(), expected, rtol=1e-5, atol=1e-4)


MEASURE = """
import time, torch
from tinyface_core.boxes import nms

def peak_kib():  # of this program: ru_maxrss would count the process that it was forked from
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith("VmHWM"))

torch.set_num_threads(1)
torch.manual_seed(0)
sides = 10 * 200 ** torch.rand(100_000, 1)
corners = torch.rand(100_000, 2) * 4000
boxes, scores = torch.cat([corners, corners + sides], 1), torch.rand(100_000)
nms(boxes[:3000], scores[:3000], 0.3)
before, begin = peak_kib(), time.process_time()
kept = nms(boxes, scores, 0.3)
print(len(kept), peak_kib() - before, time.process_time() - begin)
"""


@pytest.mark.slow
def test_a_hundred_thousand_boxes_take_little_memory_and_time() -> None:
    """Of 10 to 2,000 px, a third of them kept. All pairs at once would be 40 GB; here under 200 MB and 30 CPU-s (3 s on
    an idle core)."""
    command = [sys.executable, "-c", MEASURE]
    result = subprocess.run(
        command, capture_output=True, text=True, check=True, cwd=ROOT, env={"PYTHONPATH": str(ROOT)}
    )
    kept, more_kib, seconds = (float(part) for part in result.stdout.split())
    assert kept > 10_000
    assert more_kib < 200 * 1024
    assert seconds < 30
