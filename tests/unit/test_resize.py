"""Any window of a level's image equals that part of the whole image, and the whole is bilinear and antialiased."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F
from torch.utils._python_dispatch import TorchDispatchMode

from tinyface_core.detect import resize
from tinyface_core.detect.resize import Region, resize_region, taps

ZOOMS = [0.05, 0.25, 1 / 3, 0.5, 0.77, 1.0, 1.41, 2.0, 4.0]


def picture(height: int = 37, width: int = 53) -> torch.Tensor:
    rng = np.random.default_rng(7)
    return torch.from_numpy(rng.integers(0, 256, (height, width, 3), dtype=np.uint8))


def shown_hw(rgb_HW3: torch.Tensor, zoom: float) -> tuple[int, int]:
    return max(1, round(rgb_HW3.shape[0] * zoom)), max(1, round(rgb_HW3.shape[1] * zoom))


@pytest.mark.parametrize("zoom", ZOOMS)
def test_the_whole_image_is_torchs_antialiased_bilinear(zoom: float) -> None:
    rgb_HW3 = picture()
    image_hw = shown_hw(rgb_HW3, zoom)
    ours_3HW = resize_region(rgb_HW3, image_hw, Region(0, 0, *image_hw))
    theirs_3HW = F.interpolate(
        rgb_HW3.permute(2, 0, 1)[None].double(), size=image_hw, mode="bilinear", antialias=True, align_corners=False
    )[0]
    assert ours_3HW.shape == (3, *image_hw)
    assert ours_3HW.dtype == torch.float32
    torch.testing.assert_close(ours_3HW.double(), theirs_3HW, atol=1e-3, rtol=0)


@pytest.mark.parametrize("zoom", ZOOMS)
def test_every_window_equals_the_same_part_of_the_whole(zoom: float) -> None:
    rgb_HW3 = picture(101, 75)
    height, width = image_hw = shown_hw(rgb_HW3, zoom)
    whole_3HW = resize_region(rgb_HW3, image_hw, Region(0, 0, height, width))
    for region in [
        Region(height // 3, width // 4, height // 3 + 1, width),
        Region(0, width // 2, height, width // 2 + 1),
        Region(height // 2, 0, height, width // 2 + 1),
    ]:
        window_3HW = resize_region(rgb_HW3, image_hw, region)
        part_3HW = whole_3HW[:, region.top : region.bottom, region.left : region.right]
        torch.testing.assert_close(window_3HW, part_3HW, atol=1e-4, rtol=0)


@pytest.mark.parametrize("source_hw", [(1, 1), (37, 53), (3, 40_000)])
@pytest.mark.parametrize("factor", [2, 4])
def test_multiples_of_a_picture_are_the_same_sums_bit_by_bit(
    source_hw: tuple[int, int], factor: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    rgb_HW3 = picture(*source_hw)
    height, width = image_hw = factor * source_hw[0], factor * source_hw[1]
    sums_3HW = torch.from_numpy(np.stack([summed(rgb_HW3[..., channel], image_hw) for channel in range(3)]))
    for region in (Region(0, 0, *image_hw), Region(height // 2 - 1, width // 3, height, width - width // 4)):
        part_3HW = sums_3HW[:, region.top : region.bottom, region.left : region.right]
        assert torch.equal(resize_region(rgb_HW3, image_hw, region), part_3HW)


def summed(channel_HW: torch.Tensor, image_hw: tuple[int, int]) -> np.ndarray[Any, np.dtype[np.float32]]:
    """The weighted sums themselves, row by row of the taps."""
    map_HW = channel_HW.numpy().astype(np.float32)
    for axis in (1, 0):
        along = taps(map_HW.shape[axis], image_hw[axis], 0, image_hw[axis])
        shown = np.take(map_HW, along.first + along.index_NK, axis=axis)  # (H, N, K) or (N, K, W)
        map_HW = np.einsum("hnk,nk->hn" if axis == 1 else "nkw,nk->nw", shown, along.weight_NK)
    return map_HW


def test_a_flat_picture_stays_flat_at_every_zoom() -> None:
    rgb_HW3 = torch.full((37, 53, 3), 201, dtype=torch.uint8)
    for zoom in ZOOMS:
        image_hw = shown_hw(rgb_HW3, zoom)
        assert (resize_region(rgb_HW3, image_hw, Region(0, 0, *image_hw)) - 201).abs().max() < 1e-3


def test_a_ramp_keeps_its_place_half_pixel_centres() -> None:
    """The value at continuous place x of the picture is x; output pixel i shows place (i + 0.5) / zoom."""
    rgb_HW3 = torch.arange(0, 200, 2, dtype=torch.uint8)[None, :, None].expand(40, 100, 3).contiguous()
    image_3HW = resize_region(rgb_HW3, (80, 200), Region(0, 0, 80, 200))
    place = (torch.arange(200) + 0.5) / 2
    value = 2 * (place - 0.5)
    torch.testing.assert_close(image_3HW[0, 40, 2:-2], value[2:-2], atol=1e-3, rtol=0)


@pytest.mark.parametrize(("source", "target"), [(37, 1), (37, 9), (37, 37), (37, 38), (37, 150), (1, 7)])
def test_taps_are_inside_the_source_and_sum_to_one(source: int, target: int) -> None:
    found = taps(source, target, 0, target)
    assert (found.index_NK >= 0).all()
    assert (found.first + found.index_NK < source).all()
    np.testing.assert_allclose(found.weight_NK.sum(axis=1), 1, atol=1e-6)


class LargestTensor(TorchDispatchMode):
    """Bytes of the largest tensor that any operation makes (views are not made)."""

    def __init__(self) -> None:
        super().__init__()
        self.bytes = 0

    def __torch_dispatch__(
        self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None
    ) -> Any:
        out = func(*args, **(kwargs or {}))
        given = {arg.untyped_storage().data_ptr() for arg in args if isinstance(arg, torch.Tensor)}
        for made in out if isinstance(out, tuple | list) else (out,):
            if isinstance(made, torch.Tensor) and made.untyped_storage().data_ptr() not in given:
                self.bytes = max(self.bytes, made.untyped_storage().nbytes())
        return out


@pytest.mark.parametrize(
    ("source_hw", "target_hw"), [((900, 700), (90, 70)), ((30, 20_000), (3, 2_000)), ((20_000, 30), (2_000, 3))]
)
def test_shrinking_never_copies_the_whole_picture_as_floats(
    source_hw: tuple[int, int], target_hw: tuple[int, int], monkeypatch: pytest.MonkeyPatch
) -> None:
    """A picture of 20,000 x 20,000 px would take 4.8 GB as floats."""
    rgb_HW3 = picture(*source_hw)
    expected_3HW = resize_region(rgb_HW3, target_hw, Region(0, 0, *target_hw))
    monkeypatch.setattr(resize, "PIECE_PX", 20_000)
    with LargestTensor() as largest:
        image_3HW = resize_region(rgb_HW3, target_hw, Region(0, 0, *target_hw))
    assert largest.bytes < rgb_HW3.numel() * 4 / 10
    torch.testing.assert_close(image_3HW, expected_3HW, atol=1e-4, rtol=0)
