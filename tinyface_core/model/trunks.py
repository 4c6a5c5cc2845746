"""Trunks: picture -> features at strides 4, 8 and 16. ResNet-50 and -101, VGG16, and MobileNetV2 as the light one.

Parameter names are torchvision's, so any torchvision ImageNet checkpoint loads (later layers are left out). Each
trunk also states its geometry: the windows that lie between the picture and each feature map.
Paper: section 4, "Architecture" (res5 and later are removed).
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from types import MappingProxyType
from typing import cast

import torch
from torch import Tensor, nn

from tinyface_core.errors import CheckpointError
from tinyface_core.geometry import CellGrid, Window
from tinyface_core.model.convolve import Convolve, max_pool, plain
from tinyface_core.model.spec import TrunkConfig

STRIDES = (4, 8, 16)


class Trunk(nn.Module):
    """Base of all trunks.

    channels: stride -> number of feature channels. grids: stride -> where its cells look. exact: names of the parts
    that stay in fp32 where the rest is computed in less. convolve: how its convolutions are computed.
    """

    channels: Mapping[int, int]
    grids: dict[int, CellGrid]
    exact: tuple[str, ...] = ()
    convolve: Convolve

    def __init__(self) -> None:
        super().__init__()
        self.convolve = plain

    def forward(self, image_N3HW: Tensor, strides: Collection[int] = STRIDES) -> dict[int, Tensor]:
        """Features {stride: (N, channels, h, w)} at these strides; nothing behind the coarsest of them is computed."""
        raise NotImplementedError


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 with a shortcut: the block of ResNet-50 and -101."""

    def __init__(self, inputs: int, middle: int, stride: int, config: TrunkConfig) -> None:
        super().__init__()
        outputs = 4 * middle
        first, second = (stride, 1) if config.stride_in_1x1 else (1, stride)
        self.conv1 = nn.Conv2d(inputs, middle, 1, first, bias=False)
        self.bn1 = nn.BatchNorm2d(middle, config.bn_eps)
        self.conv2 = nn.Conv2d(middle, middle, 3, second, padding=1, bias=False)
        self.bn2 = nn.BatchNorm2d(middle, config.bn_eps)
        self.conv3 = nn.Conv2d(middle, outputs, 1, bias=False)
        self.bn3 = nn.BatchNorm2d(outputs, config.bn_eps)
        self.windows = [Window(1, first), Window(3, second, 1), Window(1)]
        self.downsample = None
        if stride != 1 or inputs != outputs:
            shortcut = nn.Conv2d(inputs, outputs, 1, stride, bias=False)
            self.downsample = nn.Sequential(shortcut, nn.BatchNorm2d(outputs, config.bn_eps))

    def forward(self, x_NCHW: Tensor, convolve: Convolve = plain) -> Tensor:
        shortcut_NCHW = x_NCHW
        if self.downsample is not None:
            shortcut_NCHW = convolve(x_NCHW, cast(nn.Conv2d, self.downsample[0]), self.downsample[1], "none")
        x_NCHW = convolve(x_NCHW, self.conv1, self.bn1, "relu")
        x_NCHW = convolve(x_NCHW, self.conv2, self.bn2, "relu")
        return convolve(x_NCHW, self.conv3, self.bn3, "relu", shortcut_NCHW)


class ResNet(Trunk):
    """ResNet up to res4 (torchvision's layer3)."""

    channels = MappingProxyType({4: 256, 8: 512, 16: 1024})
    layer1: nn.Sequential
    layer2: nn.Sequential
    layer3: nn.Sequential

    def __init__(self, blocks: tuple[int, int, int], config: TrunkConfig) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, 2, padding=3, bias=False)
        self.bn1 = nn.BatchNorm2d(64, config.bn_eps)
        self.pool_after = config.pool_after
        windows = [Window(7, 2, 3), Window(3, 2, 0 if config.pool_after else 1)]
        self.grids = {}
        inputs = 64
        for number, (stride, middle, depth) in enumerate(zip(STRIDES, (64, 128, 256), blocks, strict=True), start=1):
            layer = []
            for block in range(depth):
                layer.append(Bottleneck(inputs, middle, 2 if block == 0 and number > 1 else 1, config))
                inputs = 4 * middle
                windows += layer[-1].windows
            setattr(self, f"layer{number}", nn.Sequential(*layer))
            self.grids[stride] = CellGrid.through(windows)

    def forward(self, image_N3HW: Tensor, strides: Collection[int] = STRIDES) -> dict[int, Tensor]:
        x_NCHW = self.convolve(image_N3HW, self.conv1, self.bn1, "relu")
        x_NCHW = max_pool(x_NCHW, 3, 2, padding=0 if self.pool_after else 1, ceil_mode=self.pool_after)
        features = {}
        for stride, layer in zip(STRIDES, (self.layer1, self.layer2, self.layer3), strict=True):
            if stride > max(strides):
                break
            for block in layer:
                x_NCHW = block(x_NCHW, self.convolve)
            features[stride] = x_NCHW
        return {stride: features[stride] for stride in strides}


class VGG16(Trunk):
    """VGG16 without batch-norm: conv3_3, conv4_3, conv5_3 at strides 4, 8, 16 (the pool before each halves)."""

    channels = MappingProxyType({4: 256, 8: 512, 16: 512})
    # Index behind the ReLU of the last convolution, in torchvision's `features`.
    ends = MappingProxyType({4: 16, 8: 23, 16: 30})

    def __init__(self) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        windows: list[Window] = []
        self.grids = {}
        inputs = 3
        for stage, (outputs, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3))):
            if stage:
                layers.append(nn.MaxPool2d(2, 2))
                windows.append(Window(2, 2))
            for _ in range(depth):
                layers += [nn.Conv2d(inputs, outputs, 3, padding=1), nn.ReLU()]
                windows.append(Window(3, 1, 1))
                inputs = outputs
            self.grids[2**stage] = CellGrid.through(windows)
        self.grids = {stride: self.grids[stride] for stride in STRIDES}
        self.features = nn.Sequential(*layers)

    def forward(self, image_N3HW: Tensor, strides: Collection[int] = STRIDES) -> dict[int, Tensor]:
        features, x_NCHW, begin = {}, image_N3HW, 0
        for stride, end in self.ends.items():
            if stride > max(strides):
                break
            for layer in list(self.features)[begin:end]:
                if isinstance(layer, nn.Conv2d):  # with the ReLU that comes next
                    x_NCHW = self.convolve(x_NCHW, layer, None, "relu")
                elif isinstance(layer, nn.MaxPool2d):
                    x_NCHW = max_pool(x_NCHW, 2, 2)
            features[stride], begin = x_NCHW, end
        return {stride: features[stride] for stride in strides}


class InvertedResidual(nn.Module):
    """MobileNetV2's block: expand 1x1, depthwise 3x3, project 1x1 (no expansion in the very first block)."""

    def __init__(self, inputs: int, outputs: int, stride: int, expansion: int, eps: float) -> None:
        super().__init__()
        middle = inputs * expansion
        expand = [] if expansion == 1 else [_conv_bn_relu6(inputs, middle, 1, 1, 1, eps)]
        self.conv = nn.Sequential(
            *expand,
            _conv_bn_relu6(middle, middle, 3, stride, middle, eps),
            nn.Conv2d(middle, outputs, 1, bias=False),
            nn.BatchNorm2d(outputs, eps),
        )
        self.expands, self.shortcut = expansion != 1, stride == 1 and inputs == outputs

    def widened(self, x_NCHW: Tensor, convolve: Convolve = plain) -> Tensor:
        """What the expansion makes of the block's input; the input itself where there is none."""
        return _three_in_one(self.conv[0], x_NCHW, convolve) if self.expands else x_NCHW

    def forward(self, x_NCHW: Tensor, convolve: Convolve = plain, wide_NCHW: Tensor | None = None) -> Tensor:
        """wide_NCHW: `widened` of the same input, where that is at hand."""
        out_NCHW = self.widened(x_NCHW, convolve) if wide_NCHW is None else wide_NCHW
        depthwise, project, norm = list(self.conv)[-3:]
        out_NCHW = _three_in_one(depthwise, out_NCHW, convolve)
        return convolve(out_NCHW, cast(nn.Conv2d, project), norm, "none", x_NCHW if self.shortcut else None)


def _three_in_one(layer: nn.Module, x_NCHW: Tensor, convolve: Convolve) -> Tensor:
    convolution, norm, _ = cast(nn.Sequential, layer)
    return convolve(x_NCHW, cast(nn.Conv2d, convolution), norm, "relu6")


def _conv_bn_relu6(inputs: int, outputs: int, kernel: int, stride: int, groups: int, eps: float) -> nn.Sequential:
    convolution = nn.Conv2d(inputs, outputs, kernel, stride, (kernel - 1) // 2, groups=groups, bias=False)
    return nn.Sequential(convolution, nn.BatchNorm2d(outputs, eps), nn.ReLU6())


class MobileNetV2(Trunk):
    """MobileNetV2 up to stride 16. Features are the wide expansions at the head of the next stage, before its stride.

    These are what SSD-style detectors take: 144, 192 and 576 channels instead of 24, 32 and 96.
    """

    channels = MappingProxyType({4: 144, 8: 192, 16: 576})
    # Index in torchvision's `features` of the block whose expansion is the feature.
    taps = MappingProxyType({4: 4, 8: 7, 16: 14})
    exact = ("features.0", "features.1")  # weights up to 15 that cancel: most of the error that bf16 makes
    stages = ((1, 16, 1, 1), (6, 24, 2, 2), (6, 32, 3, 2), (6, 64, 4, 2), (6, 96, 3, 1), (6, 160, 1, 2))

    def __init__(self, config: TrunkConfig) -> None:
        super().__init__()
        layers: list[nn.Module] = [_conv_bn_relu6(3, 32, 3, 2, 1, config.bn_eps)]
        windows = [Window(3, 2, 1)]
        self.grids = {}
        inputs = 32
        for expansion, outputs, depth, first_stride in self.stages:
            for block in range(depth):
                stride = first_stride if block == 0 else 1
                layers.append(InvertedResidual(inputs, outputs, stride, expansion, config.bn_eps))
                for tap, index in self.taps.items():
                    if index == len(layers) - 1:
                        self.grids[tap] = CellGrid.through(windows)
                windows.append(Window(3, stride, 1))
                inputs = outputs
        last = cast(InvertedResidual, layers[-1])
        last.conv = nn.Sequential(last.conv[0])  # the rest of that block lies behind the deepest feature
        self.features = nn.Sequential(*layers)

    def forward(self, image_N3HW: Tensor, strides: Collection[int] = STRIDES) -> dict[int, Tensor]:
        tapped = {self.taps[stride]: stride for stride in strides}
        x_NCHW, features = _three_in_one(self.features[0], image_N3HW, self.convolve), {}
        for index in range(1, max(tapped) + 1):
            block, wide_NCHW = cast(InvertedResidual, self.features[index]), None
            if index in tapped:
                wide_NCHW = features[tapped[index]] = block.widened(x_NCHW, self.convolve)
            if index < max(tapped):
                x_NCHW = block(x_NCHW, self.convolve, wide_NCHW)
        return features


def build_trunk(config: TrunkConfig) -> Trunk:
    """The trunk that the config names, with fresh weights.

    Raises:
        CheckpointError: no such trunk.
    """
    if config.name == "resnet50":
        return ResNet((3, 4, 6), config)
    if config.name == "resnet101":
        return ResNet((3, 4, 23), config)
    if config.name == "vgg16":
        return VGG16()
    if config.name == "mobilenet_v2":
        return MobileNetV2(config)
    raise CheckpointError(f"trunk {config.name!r} is not known; known are resnet50, resnet101, vgg16, mobilenet_v2.")


def load_imagenet(trunk: Trunk, state: dict[str, Tensor]) -> list[str]:
    """Puts a torchvision ImageNet state dict into a trunk; returns the names that were left over, for the log.

    Raises:
        CheckpointError: a tensor of the trunk is missing or has another shape; names it.
    """
    own = trunk.state_dict()
    for name, tensor in own.items():
        if name.endswith("num_batches_tracked"):
            continue
        if name not in state:
            raise CheckpointError(f"{name} is missing: the file is not a torchvision checkpoint of this trunk.")
        if state[name].shape != tensor.shape:
            found, needed = tuple(state[name].shape), tuple(tensor.shape)
            raise CheckpointError(f"{name} is {found}, the trunk needs {needed}: the file is of another architecture.")
    trunk.load_state_dict({name: state[name].to(torch.float32) for name in own if name in state}, strict=False)
    return sorted(set(state) - set(own))
