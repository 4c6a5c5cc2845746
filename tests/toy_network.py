"""Networks whose answer is known or whose weights are made up: they stand in for a model in tests of the detector."""

from __future__ import annotations

import copy
from collections.abc import Collection
from functools import lru_cache
from typing import cast

import cv2
import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F

from tinyface_core.detect.detector import Detector
from tinyface_core.detect.options import DetectOptions, Runtime
from tinyface_core.geometry import CellGrid
from tinyface_core.model.network import HRNetwork
from tinyface_core.model.spec import ModelSpec, NetworkConfig, TrunkConfig, TrunkName
from tinyface_core.model.trunks import Trunk
from tinyface_core.templates import Template, TemplateSet

FP32 = Runtime("cpu", "fp32", "for tests")
SHARE = 0.01  # of all cells that fire in a calibrated network


class BrightTrunk(Trunk):
    """Channel t at stride 8: mean brightness, 0..1, of a rectangle one pixel larger than template t, centred on 8 i."""

    def __init__(self, shapes: tuple[Template, ...]) -> None:
        super().__init__()
        self.windows_hw = [(int(shape.height) + 1, int(shape.width) + 1) for shape in shapes]
        if any(side % 2 == 0 for window in self.windows_hw for side in window):
            raise ValueError("a window without a middle pixel: give templates of even sides")
        self.channels = {8: len(shapes)}
        self.grids = {8: CellGrid(8, 0.0, max(max(window) for window in self.windows_hw))}

    def forward(self, image_N3HW: Tensor, strides: Collection[int] = (8,)) -> dict[int, Tensor]:
        bright_N1HW = image_N3HW.mean(dim=1, keepdim=True)
        maps = []
        for height, width in self.windows_hw:
            window = bright_N1HW.new_full((1, 1, height, width), 1 / (height * width))
            maps.append(F.conv2d(bright_N1HW, window, stride=8, padding=(height // 2, width // 2)))
        return {8: torch.cat(maps, dim=1)}


class BlankTrunk(Trunk):
    """One channel at stride 8, zero everywhere."""

    def __init__(self) -> None:
        super().__init__()
        self.channels, self.grids = {8: 1}, {8: CellGrid(8)}

    def forward(self, image_N3HW: Tensor, strides: Collection[int] = (8,)) -> dict[int, Tensor]:
        count, _, height, width = image_N3HW.shape
        return {8: image_N3HW.new_zeros(count, 1, -(-height // 8), -(-width // 8))}


def _detector(trunk: Trunk, head: nn.Conv2d, templates: TemplateSet, options: DetectOptions) -> Detector:
    """Shows the trunk brightness in 0..1; one head, at stride 8."""
    light = TrunkConfig("mobilenet_v2")  # built, then replaced
    network = HRNetwork(NetworkConfig(light, (8,), len(templates.outputs), (0.0, 0.0, 0.0), (255.0, 255.0, 255.0)))
    network.trunk = trunk
    network.heads = nn.ModuleDict({"8": head})
    return Detector(network, ModelSpec("toy", network=network.config, templates=templates), FP32, options)


def bright_detector(templates: TemplateSet, options: DetectOptions) -> Detector:
    """Sees a bright rectangle of a template's size (in the level's image) whose middle is the corner (8 i, 8 j).

    The box is that rectangle, exactly: half a pixel of offset leads from the cell's pixel to its corner. The rectangle
    may be blurred by the zoom, but not be smaller, nor lie one cell off: the threshold is half way between.
    """
    shapes = tuple(templates.templates[i] for i in templates.outputs)
    count = len(shapes)
    head = nn.Conv2d(count, 5 * count, 1)
    nn.init.zeros_(head.weight)
    head.weight.data[:count, :, 0, 0] = 40 * torch.eye(count)
    bias = torch.zeros(5, count)
    for number, shape in enumerate(shapes):
        in_place = shape.width * shape.height / (shape.width + 1) / (shape.height + 1)
        bias[0, number] = -40 * in_place * (1 - 3.75 / max(shape.width, shape.height))
        bias[1, number], bias[2, number] = -0.5 / shape.width, -0.5 / shape.height
    cast(Tensor, head.bias).data.copy_(bias.flatten())
    return _detector(BrightTrunk(shapes), head, templates, options)


def hot_detector(templates: TemplateSet, options: DetectOptions) -> Detector:
    """Every template fires at every cell of any picture; the first template has the best score."""
    count = len(templates.outputs)
    head = nn.Conv2d(1, 5 * count, 1)
    cast(Tensor, head.bias).data.copy_(torch.cat([torch.linspace(3, 1, count), torch.zeros(4 * count)]))
    return _detector(BlankTrunk(), head, templates, options)


def calibrated(config: NetworkConfig | TrunkName, seed: int = 0) -> tuple[HRNetwork, ModelSpec]:
    """The real trunk with made-up weights, scaled so that about SHARE of all cells fire on a made-up picture."""
    network, spec = copy.deepcopy(_calibrated(config, seed))
    torch.manual_seed(seed)  # what a test draws next does not depend on the tests before it
    return network, spec


@lru_cache(maxsize=8)
@torch.inference_mode(False)
def _calibrated(config: NetworkConfig | TrunkName, seed: int) -> tuple[HRNetwork, ModelSpec]:
    torch.manual_seed(seed)
    spec = ModelSpec("toy", network=NetworkConfig(TrunkConfig(config)) if isinstance(config, str) else config)
    network = HRNetwork(spec.network)
    for module in network.trunk.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_in", nonlinearity="relu")
        if isinstance(module, nn.BatchNorm2d):
            module.momentum = None  # statistics of all that it has seen
    for head in network.heads.values():
        nn.init.normal_(cast(nn.Conv2d, head).weight)
    image_HW3 = torch.from_numpy(cloudy_picture(224, 320, seed)).float() - torch.tensor(spec.network.mean)
    image_13HW = image_HW3.permute(2, 0, 1)[None]
    with torch.inference_mode():
        network.train()(image_13HW)
        maps = network.eval()(image_13HW)
        _scale_heads(network, maps.logits_NTHW, maps.offsets_NT4HW)
    return network, spec


def _scale_heads(network: HRNetwork, logits_NTHW: Tensor, offsets_NT4HW: Tensor) -> None:
    """Logits of each template get a spread of 2 and pass 0 in SHARE of the cells; offsets a spread of 0.2 around 0."""
    offsets_NCHW = offsets_NT4HW.transpose(1, 2).flatten(1, 2)
    scores_CK = torch.cat([logits_NTHW, offsets_NCHW], dim=1)[0].flatten(1)
    outputs = logits_NTHW.shape[1]
    gain_C = 2 / scores_CK.std(dim=1)
    gain_C[outputs:] /= 10
    zero_C = torch.cat([scores_CK[:outputs].quantile(1 - SHARE, dim=1), scores_CK[outputs:].mean(dim=1)])
    for number, head in enumerate(network.heads.values()):
        convolution = cast(nn.Conv2d, head)
        convolution.weight *= gain_C[:, None, None, None]
        if number == 0:
            cast(Tensor, convolution.bias).copy_(-zero_C * gain_C)


def toy_detector(options: DetectOptions, seed: int = 0) -> Detector:
    """The light trunk with made-up weights."""
    return Detector(*calibrated("mobilenet_v2", seed), FP32, options)


def cloudy_picture(height: int, width: int, seed: int = 0) -> NDArray[np.uint8]:
    """Noise of every size from 2 px to the whole picture, so that something is to be seen at each zoom."""
    rng = np.random.default_rng(seed)
    sum_HW3 = np.zeros((height, width, 3), np.float32)
    cell = 2
    while cell < 2 * max(height, width):
        shape = (height // cell + 2, width // cell + 2, 3)
        sum_HW3 += cv2.resize(rng.random(shape, np.float32) - 0.5, (width, height), interpolation=cv2.INTER_CUBIC)
        cell *= 2
    return np.clip(128 + 100 * sum_HW3, 0, 255).astype(np.uint8)


def bright_picture(height: int, width: int, *rectangles: tuple[int, int, int, int]) -> NDArray[np.uint8]:
    """Black, with white rectangles (x1, y1, x2, y2), ends exclusive."""
    rgb_HW3 = np.zeros((height, width, 3), np.uint8)
    for x1, y1, x2, y2 in rectangles:
        rgb_HW3[y1:y2, x1:x2] = 255
    return rgb_HW3
