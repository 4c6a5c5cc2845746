"""One call of oneDNN says what torch's steps say: with and without a shortcut, packed or not, in place or not."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from tinyface_core.model.convolve import Activation, Fused, fuses, onednn, plain

CONVOLUTIONS: list[dict[str, Any]] = [
    {"in_channels": 3, "out_channels": 16, "kernel_size": 7, "stride": 2, "padding": 3},
    {"in_channels": 24, "out_channels": 144, "kernel_size": 1},
    {"in_channels": 144, "out_channels": 144, "kernel_size": 3, "padding": 1, "groups": 144},
    {"in_channels": 32, "out_channels": 64, "kernel_size": 1, "stride": 2, "bias": False},
]
DTYPES = [dtype for dtype in (torch.float32, torch.bfloat16) if fuses(torch.device("cpu"), dtype)]


@pytest.mark.parametrize(
    ("shape", "activation", "added"),
    [(shape, activation, False) for shape in CONVOLUTIONS for activation in ("none", "relu", "relu6")]
    + [(shape, activation, True) for shape in CONVOLUTIONS if "groups" not in shape for activation in ("none", "relu")],
)
@pytest.mark.parametrize("dtype", DTYPES, ids=str)
@torch.inference_mode()
def test_one_call_says_what_the_steps_say(
    shape: dict[str, Any], activation: Activation, added: bool, dtype: torch.dtype
) -> None:
    torch.manual_seed(0)
    convolution = nn.Conv2d(**shape).to(dtype).to(memory_format=torch.channels_last)  # type: ignore[call-overload]
    fused = Fused()
    for height, width in ((18, 26), (31, 9)):  # packed for the first, used for both
        x_NCHW = torch.randn(2, shape["in_channels"], height, width).to(dtype, memory_format=torch.channels_last)
        out_NCHW = plain(x_NCHW, convolution, None, "none")
        shortcut_NCHW = 3 * torch.randn_like(out_NCHW) if added else None
        wanted = plain(x_NCHW, convolution, None, activation, shortcut_NCHW)
        close = {"rtol": 2e-2, "atol": 4e-2} if dtype == torch.bfloat16 else {"rtol": 1e-5, "atol": 1e-5}
        kept = None if shortcut_NCHW is None else shortcut_NCHW.clone()
        once = onednn(x_NCHW, convolution.weight, convolution.bias, convolution, activation, shortcut_NCHW)
        torch.testing.assert_close(once, wanted, **close)
        if kept is not None:
            assert torch.equal(kept, shortcut_NCHW)  # type: ignore[arg-type]
        packed = fused(x_NCHW, convolution, nn.Identity(), activation, shortcut_NCHW)
        torch.testing.assert_close(packed, wanted, **close)
        assert packed.is_contiguous(memory_format=torch.channels_last)
        assert (wanted > 0).any()
        assert (activation == "none") == bool((wanted < 0).any())


def test_fp16_and_a_gpu_are_not_onednns() -> None:
    assert not fuses(torch.device("cpu"), torch.float16)
    assert not fuses(torch.device("cuda"), torch.bfloat16)
    assert fuses(torch.device("cpu"), torch.float32)
