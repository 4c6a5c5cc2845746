"""int8: convolutions on bytes. Processors with VNNI or AMX multiply four times as many of those as of floats.

A feature map is kept as scale * (byte - zero), one scale and zero a map. Both follow from the range of its values,
which pictures have shown (`Recorder`, jobs/calibrate.py) and the checkpoint keeps. Weights have a scale for each output
channel. Sums are whole numbers and exact, so the same cell gives the same value in every tile.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Mapping
from functools import reduce
from typing import NamedTuple, cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyface_core.errors import CheckpointError
from tinyface_core.model.convolve import Activation, Convolve, Fused, fuses, plain
from tinyface_core.model.network import HRNetwork
from tinyface_core.model.spec import NO_RANGES, Range, Ranges

_LEFT_OUT = "the model's ranges leave out a convolution: make them anew by jobs/calibrate.py."
_LEAST_SCALE = 1e-8  # of a map, or a channel's weights, that is zero everywhere
_BYTE, _SIGNED = 255, 127
_REGRESSOR_DIGITS = 3  # it gives features that hardly vary large weights, beside which those of the others are small
# What weights are laid out for, whatever is shown first: laid out for a map of 90 x 160, others take twice as long.
_USUAL_HW = (64, 64)


class Code(NamedTuple):
    """What a byte of a map stands for: scale * (byte - zero). Zero is coded exactly: padding adds it."""

    scale: float
    zero: int

    @classmethod
    def of(cls, values: Range) -> Code:
        lowest, highest = min(values[0], 0.0), max(values[1], 0.0)
        scale = max((highest - lowest) / _BYTE, _LEAST_SCALE)
        return cls(scale, round(-lowest / scale))

    def coded(self, values_NCHW: Tensor) -> Tensor:
        """The nearest bytes, uint8; values beyond the range become its ends."""
        half_up_NCHW = torch.add(values_NCHW.new_tensor(self.zero + 0.5), values_NCHW, alpha=1 / self.scale)
        return half_up_NCHW.clamp_(0, _BYTE).to(torch.uint8)


class Int8:
    """A `Convolve` on a CPU; norms must be folded in. The parts that the trunk names as exact take and give floats."""

    def __init__(self, network: HRNetwork, ranges: Mapping[str, Ranges]) -> None:
        """ranges: of what a convolution takes, gives, and adds, by its name in the network."""
        exact = {module for name in network.trunk.exact for module in network.trunk.get_submodule(name).modules()}
        names = {module: name for name, module in network.named_modules() if module not in exact}
        self._regressor = set() if network.ellipse is None else set(network.ellipse.modules())
        self._ranges = {module: ranges[name] for module, name in names.items() if name in ranges}
        self._steps: dict[nn.Conv2d, _Step] = {}
        self._others = Fused()

    def __call__(
        self,
        x_NCHW: Tensor,
        convolution: nn.Conv2d,
        norm: nn.Module | None,
        activation: Activation,
        shortcut_NCHW: Tensor | None = None,
    ) -> Tensor:
        if convolution not in self._ranges:
            if x_NCHW.dtype == torch.uint8:
                raise CheckpointError(_LEFT_OUT)
            return self._others(x_NCHW, convolution, norm, activation, shortcut_NCHW)
        if convolution not in self._steps:
            digits = _REGRESSOR_DIGITS if convolution in self._regressor else 1
            self._steps[convolution] = _Step(convolution, self._ranges[convolution], digits=digits)
        return self._steps[convolution](x_NCHW, activation, shortcut_NCHW)


def run_in_int8(network: HRNetwork, ranges: Mapping[str, Ranges]) -> None:
    """The trunk's convolutions take and give bytes, heads and regressor take them; norms must be folded in.

    Raises:
        CheckpointError: no ranges, or not those of this network.
    """
    if not ranges:
        raise CheckpointError(NO_RANGES.format("the model"))
    if any(f"heads.{stride}" not in ranges for stride in network.strides):
        raise CheckpointError(_LEFT_OUT)
    of_regressor = {f"ellipse.{stride}": ranges[f"heads.{stride}"] for stride in network.strides}
    network.trunk.convolve = network.score = Int8(network, {**ranges, **of_regressor})


class Recorder:
    """A `Convolve` in fp32, on a CPU, that notes the ranges of all that convolutions take, give and add.

    Of each map the mean over all windows shown of its lowest and of its highest value: a single bright spot of one
    picture must not make the steps of all others wide. A regressor of ellipses takes what the heads take, and is left
    out: run_in_int8 knows.
    """

    def __init__(self, network: HRNetwork) -> None:
        self._names = {module: name for name, module in network.named_modules()}
        self._seen: dict[tuple[str, str], list[Range]] = defaultdict(list)
        self._trunk = set(network.trunk.modules())
        self._regressor = set() if network.ellipse is None else set(network.ellipse.modules())
        self._compute: Convolve = Fused() if fuses(torch.device("cpu"), torch.float32) else plain
        network.trunk.convolve = network.score = self

    def __call__(
        self,
        x_NCHW: Tensor,
        convolution: nn.Conv2d,
        norm: nn.Module | None,
        activation: Activation,
        shortcut_NCHW: Tensor | None = None,
    ) -> Tensor:
        if convolution in self._regressor:
            return self._compute(x_NCHW, convolution, norm, activation, shortcut_NCHW)
        self._note(convolution, "takes", x_NCHW)
        if shortcut_NCHW is not None:
            self._note(convolution, "adds", shortcut_NCHW)  # before its memory is taken for the answer
        out_NCHW = self._compute(x_NCHW, convolution, norm, activation, shortcut_NCHW)
        if convolution in self._trunk:
            self._note(convolution, "gives", out_NCHW)
        return out_NCHW

    def _note(self, module: nn.Module, what: str, values: Tensor) -> None:
        ends = (float(values.amin()), float(values.amax()))  # aminmax is 15 times slower, channels last
        self._seen[self._names[module], what].append(ends)

    def ranges(self) -> dict[str, Ranges]:
        """By the name of each convolution in the network."""
        found: dict[str, dict[str, Range]] = defaultdict(dict)
        for (name, what), seen in self._seen.items():
            lowest, highest = (sum(ends) / len(seen) for ends in zip(*seen, strict=True))
            found[name][what] = (lowest, highest)
        return {name: Ranges(**known) for name, known in found.items()}


class _Step:
    """One convolution, its weights as bytes laid out for oneDNN. relu6 is the range's end: 6 at most, as bytes cannot
    go beyond it.

    digits: bytes of a weight, each of which codes what those before leave; more than one where floats are given.
    """

    def __init__(self, convolution: nn.Conv2d, ranges: Ranges, *, digits: int = 1) -> None:
        places = (convolution.stride, convolution.padding, convolution.dilation, convolution.groups)
        self.takes, self.adds = Code.of(ranges.takes), Code.of(ranges.adds or (0.0, 0.0))
        self._digits, bias_C = digits, convolution.bias
        bytes_, scale_C = _coded(convolution.weight.detach().float(), digits)
        if bias_C is not None:
            bias_C = F.pad(bias_C, (0, len(scale_C) - len(bias_C)))
        calls = torch.ops.onednn
        usual = [1, convolution.in_channels, *_USUAL_HW]
        packed = calls.qconv_prepack(bytes_, scale_C, self.takes.scale, self.takes.zero, *places, usual)
        zero_C = torch.zeros(len(scale_C), dtype=torch.long)
        self._weights = (packed, scale_C, zero_C)
        gives = (1.0, 0, torch.float32) if ranges.gives is None else (*Code.of(ranges.gives), torch.uint8)
        self._rest = (bias_C, *places, *gives)

    def __call__(self, x_NCHW: Tensor, activation: Activation, shortcut_NCHW: Tensor | None) -> Tensor:
        if x_NCHW.dtype != torch.uint8:
            x_NCHW = self.takes.coded(x_NCHW)
        name = "none" if activation == "none" else "relu"
        x, calls = (x_NCHW, self.takes.scale, self.takes.zero), torch.ops.onednn
        if shortcut_NCHW is None:
            out_NCHW = calls.qconv2d_pointwise(*x, *self._weights, *self._rest, name, [], "")
            if self._digits > 1:
                out_NCHW = reduce(torch.add, out_NCHW.chunk(self._digits, dim=1))
        else:
            added = (self.adds.scale, self.adds.zero, "sum", 1.0)
            out_NCHW = calls.qconv2d_pointwise.binary(
                *x, *self._weights, shortcut_NCHW, *self._rest, *added, name, [], ""
            )
        return cast(Tensor, out_NCHW)


def _coded(rest: Tensor, digits: int) -> tuple[Tensor, Tensor]:
    """The nearest bytes, int8, and the scale of each output channel; digit after digit, along the outputs."""
    bytes_, scales = [], []
    for _ in range(digits):
        scale_C = (rest.abs().amax((1, 2, 3)) / _SIGNED).clamp_min(_LEAST_SCALE)
        digit = (rest / scale_C[:, None, None, None]).round()
        rest = rest - digit * scale_C[:, None, None, None]
        bytes_.append(digit.to(torch.int8))
        scales.append(scale_C)
    return torch.cat(bytes_), torch.cat(scales)
