"""A network in the form it trains fast in: batch-norm frozen and folded, convolutions with their activation in one.

The twin shares its parameters with the network: nothing is converted, and what is saved is the network. A frozen
norm is a factor and a shift a channel: the factor goes into the weights inside autograd, so their gradients are
those of the unfolded form; the shift (the norm's bias) is trained. On CPUs oneDNN then applies shift, shortcut and
ReLU while it writes the convolution's output; measured 1.2 (ResNet-50) to 1.3 (MobileNetV2) times faster.
"""

from __future__ import annotations

import copy
from typing import Any, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyface_core.model.convolve import Activation, activated, fuses, onednn
from tinyface_core.model.network import HRNetwork
from tinyface_core.model.trunks import STRIDES, VGG16, MobileNetV2, ResNet, Trunk


def freeze(network: HRNetwork, up_to_stride: int) -> None:
    """Stops training of all norms' factors, and of the trunk's layers up to this stride (0: of none)."""
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            module.weight.requires_grad_(False)
    if up_to_stride:
        for module in _early(network.trunk, up_to_stride):
            module.requires_grad_(False)


def _early(trunk: Trunk, up_to_stride: int) -> list[nn.Module]:
    if isinstance(trunk, ResNet):
        layers = zip(STRIDES, (trunk.layer1, trunk.layer2, trunk.layer3), strict=True)
        return [trunk.conv1, trunk.bn1, *(layer for stride, layer in layers if stride <= up_to_stride)]
    ends = trunk.taps if isinstance(trunk, MobileNetV2) else VGG16.ends
    return list(cast(nn.Sequential, trunk.features))[: ends[up_to_stride]]


def folded(network: HRNetwork) -> HRNetwork:
    """The network's fast twin: same parameters, same answers as the network in eval mode."""
    twin, trunk = copy.copy(network), copy.copy(network.trunk)
    trunk.convolve = _folding
    twin._modules = network._modules | {"trunk": trunk}
    return twin


def _folding(
    x_NCHW: Tensor,
    convolution: nn.Conv2d,
    norm: nn.Module | None,
    activation: Activation,
    shortcut_NCHW: Tensor | None = None,
) -> Tensor:
    """A Convolve, in x's precision."""
    weight, shift_C = convolution.weight, cast(Tensor, convolution.bias)
    if norm is not None:
        bn = cast(nn.BatchNorm2d, norm)
        mean_C, variance_C = cast(Tensor, bn.running_mean), cast(Tensor, bn.running_var)
        factor_C = bn.weight.detach() * torch.rsqrt(variance_C + bn.eps)
        weight, shift_C = weight * factor_C[:, None, None, None], bn.bias - mean_C * factor_C
    weight, shift_C = weight.to(x_NCHW.dtype), shift_C.to(x_NCHW.dtype)
    if fuses(x_NCHW.device, x_NCHW.dtype):
        return cast(Tensor, _Fused.apply(x_NCHW, weight, shift_C, shortcut_NCHW, convolution, activation))
    conv = convolution
    x_NCHW = F.conv2d(x_NCHW, weight, shift_C, conv.stride, conv.padding, conv.dilation, conv.groups)
    return activated(x_NCHW if shortcut_NCHW is None else x_NCHW + shortcut_NCHW, activation)


class _Fused(torch.autograd.Function):
    """Convolution, shift, shortcut and activation as one oneDNN call; the backward pass in two."""

    @staticmethod
    def forward(
        ctx: Any,
        x_NCHW: Tensor,
        weight: Tensor,
        shift_C: Tensor,
        shortcut: Tensor | None,
        conv: nn.Conv2d,
        activation: Activation,
    ) -> Tensor:
        out_NCHW = onednn(x_NCHW, weight, shift_C, conv, activation, shortcut)
        ctx.save_for_backward(x_NCHW, weight, out_NCHW if activation != "none" else None)
        ctx.conv, ctx.activation = conv, activation
        return out_NCHW

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        x_NCHW, weight, out_NCHW = ctx.saved_tensors
        conv, grad_NCHW = ctx.conv, gradients[0]
        if ctx.activation == "relu":
            grad_NCHW = torch.ops.aten.threshold_backward(grad_NCHW, out_NCHW, 0)
        elif ctx.activation == "relu6":
            grad_NCHW = torch.ops.aten.hardtanh_backward(grad_NCHW, out_NCHW, 0.0, 6.0)
        wanted = list(ctx.needs_input_grad[:3])
        of_x, of_weight, of_shift = torch.ops.aten.convolution_backward(
            grad_NCHW,
            x_NCHW,
            weight,
            [len(weight)],
            conv.stride,
            conv.padding,
            conv.dilation,
            False,
            [0, 0],
            conv.groups,
            wanted,
        )
        of_shortcut = grad_NCHW if ctx.needs_input_grad[3] else None
        return of_x, of_weight, of_shift, of_shortcut, None, None
