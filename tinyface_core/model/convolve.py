"""One step of every trunk: convolution, norm, shortcut, activation. Trunks say what; how is one of several functions.

`plain` is torch's own, on any device, with gradients. `onednn` is one call of the library that torch computes with on
CPUs: it applies all three while it writes the convolution's output, so that output is written once and never read.
"""

from __future__ import annotations

from functools import reduce
from typing import Literal, Protocol, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

Activation = Literal["none", "relu", "relu6"]
# oneDNN's name and numbers. torch does not document these calls: tests/unit/test_convolve.py holds them to `plain`.
_ONEDNN: dict[Activation, tuple[str | None, list[float]]] = {
    "none": (None, []),
    "relu": ("relu", []),
    "relu6": ("hardtanh", [0.0, 6.0]),
}


class Convolve(Protocol):
    """activation(norm(convolution(x)) + shortcut); norm: None or Identity where there is none, or it is folded in.

    The shortcut may be overwritten: who gives one does not read it again. With one, the activation is none
    or relu, and channels are not in groups: what else oneDNN does not know for every precision.
    """

    def __call__(
        self,
        x_NCHW: Tensor,
        convolution: nn.Conv2d,
        norm: nn.Module | None,
        activation: Activation,
        shortcut_NCHW: Tensor | None = None,
    ) -> Tensor: ...


def plain(
    x_NCHW: Tensor,
    convolution: nn.Conv2d,
    norm: nn.Module | None,
    activation: Activation,
    shortcut_NCHW: Tensor | None = None,
) -> Tensor:
    """As torch has it, each step for itself."""
    x_NCHW = convolution(x_NCHW)
    if norm is not None:
        x_NCHW = norm(x_NCHW)
    if shortcut_NCHW is not None:
        x_NCHW = x_NCHW + shortcut_NCHW
    return activated(x_NCHW, activation)


def activated(x_NCHW: Tensor, activation: Activation) -> Tensor:
    """The activation by its name."""
    return x_NCHW if activation == "none" else F.relu6(x_NCHW) if activation == "relu6" else F.relu(x_NCHW)


def max_pool(x_NCHW: Tensor, kernel: int, stride: int, padding: int = 0, *, ceil_mode: bool = False) -> Tensor:
    """As torch has it, and of bytes, which torch lacks on CPUs; there padding is 0, the least there is."""
    if x_NCHW.dtype != torch.uint8:
        return F.max_pool2d(x_NCHW, kernel, stride, padding, ceil_mode=ceil_mode)
    for dim in (2, 3):
        side = x_NCHW.shape[dim] + 2 * padding - kernel
        last = -(-side // stride) if ceil_mode else side // stride
        behind = max(0, last * stride + kernel - padding - x_NCHW.shape[dim])
        x_NCHW = F.pad(x_NCHW, (padding, behind) if dim == 3 else (0, 0, padding, behind))
        shifted = [x_NCHW.narrow(dim, place, last * stride + 1) for place in range(kernel)]
        every = [one[:, :, ::stride] if dim == 2 else one[..., ::stride] for one in shifted]
        x_NCHW = reduce(torch.maximum, every)
    return x_NCHW


def fuses(device: torch.device, dtype: torch.dtype) -> bool:
    """Whether oneDNN can take these convolutions here."""
    if device.type != "cpu" or dtype not in (torch.float32, torch.bfloat16) or not torch.backends.mkldnn.is_available():
        return False
    return dtype != torch.bfloat16 or bool(torch.ops.mkldnn._is_mkldnn_bf16_supported())


def onednn(
    x_NCHW: Tensor,
    weight: Tensor,
    bias_C: Tensor | None,
    convolution: nn.Conv2d,
    activation: Activation,
    shortcut_NCHW: Tensor | None = None,
    *,
    overwrite: bool = False,
) -> Tensor:
    """activation(convolution(x) + shortcut) in one call, no gradients.

    weight: as `convolution`'s, or packed. overwrite: the answer takes the shortcut's place.
    """
    name, numbers = _ONEDNN[activation]
    of_weight = (weight, bias_C, *_places(convolution))
    calls = torch.ops.mkldnn
    if shortcut_NCHW is None:
        out_NCHW = calls._convolution_pointwise(x_NCHW, *of_weight, name or "none", numbers, "")
    elif overwrite:
        out_NCHW = calls._convolution_pointwise_.binary(
            shortcut_NCHW, x_NCHW, *of_weight, "add", 1.0, name, numbers, ""
        )
    else:
        out_NCHW = calls._convolution_pointwise.binary(x_NCHW, shortcut_NCHW, *of_weight, "add", 1.0, name, numbers, "")
    return cast(Tensor, out_NCHW)


def _places(convolution: nn.Conv2d) -> tuple[object, ...]:
    return convolution.padding, convolution.stride, convolution.dilation, convolution.groups


class Fused:
    """For inference on a CPU: norms must be folded in. Weights are laid out for oneDNN once, at the first picture."""

    def __init__(self) -> None:
        self._packed: dict[nn.Conv2d, Tensor] = {}

    def __call__(
        self,
        x_NCHW: Tensor,
        convolution: nn.Conv2d,
        norm: nn.Module | None,
        activation: Activation,
        shortcut_NCHW: Tensor | None = None,
    ) -> Tensor:
        weight, bias_C = convolution.weight, convolution.bias
        x_NCHW = x_NCHW.to(weight.dtype)
        if convolution not in self._packed:
            packed = torch.ops.mkldnn._reorder_convolution_weight(weight, *_places(convolution), x_NCHW.shape)
            self._packed[convolution] = packed
        packed = self._packed[convolution]
        return onednn(x_NCHW, packed, bias_C, convolution, activation, shortcut_NCHW, overwrite=True)
