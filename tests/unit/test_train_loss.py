"""The loss of boxes, by hand."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from torch import Tensor

from tinyface_core import boxes
from tinyface_core.model.network import HeatMaps
from tinyface_core.train.loss import LossSettings, loss_of

GIOU = LossSettings(boxes="giou")


def box_loss(found_P4: Tensor, wanted_P4: Tensor, settings: LossSettings = GIOU) -> Tensor:
    """Of positives side by side in a heat map of one template."""
    count = len(found_P4)
    offsets_NT4HW = found_P4.T.reshape(1, 1, 4, 1, count)
    maps = HeatMaps(torch.zeros(1, 1, 1, count), offsets_NT4HW)
    cells_P4 = torch.tensor([(0, 0, 0, x) for x in range(count)])
    labels = torch.ones(1, 1, 1, count, dtype=torch.int8)
    return loss_of(maps, (labels, cells_P4, wanted_P4, torch.ones(count)), settings, share=1).boxes


def test_a_weight_of_two_is_the_positive_twice() -> None:
    """In labels and in boxes; negatives count 1."""
    torch.manual_seed(0)
    logits_NTHW, offsets_NT4HW = torch.randn(1, 2, 3, 4), torch.randn(1, 2, 4, 3, 4)
    labels_NTHW = torch.zeros(1, 2, 3, 4, dtype=torch.int8)
    cells_P4, wanted_P4 = torch.tensor([(0, 1, 2, 3), (0, 0, 1, 1)]), torch.randn(2, 4)
    labels_NTHW[0, 1, 2, 3] = labels_NTHW[0, 0, 1, 1] = 1
    maps = HeatMaps(logits_NTHW, offsets_NT4HW)

    def loss(*weights: float) -> tuple[float, float]:
        found = loss_of(maps, (labels_NTHW, cells_P4, wanted_P4, torch.tensor(weights)), GIOU, share=1)
        return float(found.labels), float(found.boxes)

    none, first, second = loss(0, 0), loss(1, 0), loss(0, 1)
    assert none[0] > 0
    assert none[1] == 0
    for part in (0, 1):
        one, other = first[part] - none[part], second[part] - none[part]
        assert loss(2, 1)[part] == pytest.approx(none[part] + 2 * one + other, rel=1e-5)


def test_giou_by_hand() -> None:
    """Two boxes of the template's size, one side apart along x: IoU 0, hull of 2 x 1, nothing of it empty: 1 - 0.
    Two sides apart: a third of the hull is empty. Half a side: IoU 1/3, hull filled."""
    still = torch.zeros(1, 4)
    for moved, loss in ((0.0, 0.0), (0.5, 2 / 3), (1.0, 1.0), (2.0, 4 / 3)):
        found = torch.tensor([[moved, 0.0, 0.0, 0.0]])
        assert float(box_loss(found, still)) == pytest.approx(loss, abs=1e-6)
    twice = torch.tensor([[0.0, 0.0, math.log(2), 0.0]])  # twice as wide around the same centre: IoU 1/2
    assert float(box_loss(twice, still)) == pytest.approx(0.5, abs=1e-6)
    assert float(box_loss(twice, still, replace(GIOU, box_weight=3.0))) == pytest.approx(1.5, abs=1e-6)


def test_giou_is_that_of_pixels_whatever_the_template() -> None:
    torch.manual_seed(0)
    found_P4, wanted_P4 = torch.randn(50, 4) * 0.1, torch.randn(50, 4) * 0.1
    sides_2 = torch.tensor([40.0, 57.0])

    def pixels(offsets_P4: Tensor) -> Tensor:
        middle_P2, half_P2 = offsets_P4[:, :2] * sides_2, offsets_P4[:, 2:].exp() * sides_2 / 2
        return torch.cat([middle_P2 - half_P2, middle_P2 + half_P2], dim=1)

    one, other = pixels(found_P4), pixels(wanted_P4)
    hull = torch.cat([torch.minimum(one, other)[:, :2], torch.maximum(one, other)[:, 2:]], dim=1)
    iou_P = boxes.iou(one, other).diagonal()
    union_P = (boxes.area(one) + boxes.area(other)) / (1 + iou_P)
    wanted = (1 - iou_P + (boxes.area(hull) - union_P) / boxes.area(hull)).sum()
    torch.testing.assert_close(box_loss(found_P4, wanted_P4), wanted)


def test_giou_of_a_box_out_of_all_bounds_stays_finite() -> None:
    found_P4 = torch.tensor([[0.0, 0.0, 200.0, 200.0], [1e4, 0.0, -200.0, 0.0]], requires_grad=True)
    loss = box_loss(found_P4, torch.zeros(2, 4))
    loss.backward()
    assert loss.isfinite()
    assert found_P4.grad is not None
    assert found_P4.grad.isfinite().all()
