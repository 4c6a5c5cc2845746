"""MatConvNet's DagNN files (.mat, v5 to v7) -> our network and spec: the authors' ResNet-50, -101 and VGG16.

The format: filters are H x W x in x out, not flipped; batch-norm keeps [mean, sigma] in `_moments`, sigma being
sqrt(variance + epsilon); input is RGB 0..255 less `averageImage`. ResNets have the stride in a block's first 1x1 and
a pooling that pads behind only; both are read from the layers where these are there. A file without heads (plain
ImageNet weights) gets zero ones and our own enlargement and decoding. Where a cell looks: third_party.py.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import cast

import torch
from torch import Tensor, nn

from tinyface_core.errors import CheckpointError
from tinyface_core.model.dag_file import DagFile, open_dag
from tinyface_core.model.inventory import Inventory
from tinyface_core.model.network import HRNetwork, enlarging_kernel
from tinyface_core.model.spec import DecodingRule, ModelSpec, NetworkConfig, TrunkConfig, TrunkName
from tinyface_core.model.trunks import Bottleneck, ResNet
from tinyface_core.templates import Template, TemplateSet

# A parameter that only this trunk has, the deepest first.
_TELLING: tuple[tuple[str, TrunkName], ...] = (
    ("res4b22_branch2a_filter", "resnet101"),
    ("res4f_branch2a_filter", "resnet50"),
    ("conv5_3f", "vgg16"),
)
_BEHIND = ("res5", "bn5", "fc")  # the network ends before these
_TEMPLATES = 25  # the only number for which it is known which template fires at which level
_CHANNELS = 5 * _TEMPLATES
# Rows and columns of the enlarged map cut off (before, after).
_CROP: dict[TrunkName, tuple[int, int]] = {"resnet50": (1, 2), "resnet101": (1, 2), "vgg16": (1, 1)}


def read_matconvnet(path: Path, trunk: TrunkName | None = None) -> tuple[HRNetwork, ModelSpec]:
    """The network and its spec, without a name. Raises CheckpointError, naming what is missing, wrong, or too much."""
    file = open_dag(path)
    trunk = trunk or next((known for telling, known in _TELLING if telling in file.params), None)
    if trunk is None or trunk not in _CROP:
        known = ", ".join(telling for telling, _ in _TELLING)
        raise CheckpointError(f"{path}: not a MatConvNet file of a known trunk: it has none of {known}.")
    inventory = Inventory(path, file.params)
    heads = _heads(file, trunk, inventory)
    if file.mean is None:
        inventory.refuse("meta.normalization.averageImage is missing: the colour to take off the input")
    config = NetworkConfig(_trunk_config(file, trunk), mean=file.mean or (0.0, 0.0, 0.0))
    if heads:
        config = replace(config, enlargement="transposed", crop=_CROP[trunk])
    network = HRNetwork(config)
    filler = _Filler(inventory, file)
    filler.vgg(network) if trunk == "vgg16" else filler.resnet(network)
    for stride, (weight, bias) in heads.items():
        filler.head(cast(nn.Conv2d, network.heads[str(stride)]), weight, bias)
    spec = ModelSpec("", network=config)
    if heads:
        inventory.take_fixed(_kernel_name(file), enlarging_kernel()[:, :, None, None] * torch.eye(_CHANNELS))
        first_centre = network.trunk.grids[16].centre - 4 + 1  # half a coarse cell before; the authors count from 1
        spec = replace(spec, templates=_templates(file, inventory), decoding=DecodingRule(first_centre, "zoom"))
    left_out = inventory.leave_out(lambda name: name.startswith(_BEHIND))
    inventory.finish()
    what = "MatConvNet" if heads else "MatConvNet, ImageNet weights, heads zero"
    return network, replace(spec, provenance={"format": what, "left_out": left_out})


class _Filler:
    """Moves a file's parameters into our modules, and checks that the layers do what the modules will."""

    def __init__(self, inventory: Inventory, file: DagFile) -> None:
        self.inventory = inventory
        self.layers = file.layers

    def resnet(self, network: HRNetwork) -> None:
        trunk = cast(ResNet, network.trunk)
        self._conv_norm("conv1", "bn_conv1", trunk.conv1, trunk.bn1)
        after = (0, 1, 0, 1) if trunk.pool_after else (1, 1, 1, 1)
        self._expect("pool1", (2, 2), after)
        for number in (2, 3, 4):
            blocks = [cast(Bottleneck, block) for block in getattr(trunk, f"layer{number - 1}")]
            for name, block in zip(_block_names(network.config.trunk.name, number), blocks, strict=True):
                for branch, part in (("2a", "1"), ("2b", "2"), ("2c", "3")):
                    names = f"res{name}_branch{branch}", f"bn{name}_branch{branch}"
                    self._conv_norm(*names, getattr(block, f"conv{part}"), getattr(block, f"bn{part}"))
                if block.downsample is not None:
                    self._conv_norm(f"res{name}_branch1", f"bn{name}_branch1", *block.downsample)

    def vgg(self, network: HRNetwork) -> None:
        convolutions = [module for module in network.trunk.modules() if isinstance(module, nn.Conv2d)]
        names = [f"{stage}_{i}" for stage, depth in enumerate((2, 2, 3, 3, 3), 1) for i in range(1, depth + 1)]
        for name, conv in zip(names, convolutions, strict=True):
            weight, bias = self._filter(f"conv{name}f", conv), self._vector(f"conv{name}b", conv.out_channels)
            if f"bn{name}x" in self.inventory:  # our VGG16 has no batch-norm: it becomes part of the convolution
                mult, shift = (self._vector(f"bn{name}{end}", conv.out_channels) for end in "mb")
                mean, sigma = self._moments(f"bn{name}x", conv.out_channels)
                weight, bias = weight * (mult / sigma)[:, None, None, None], (bias - mean) * mult / sigma + shift
            conv.weight.data.copy_(weight)
            cast(Tensor, conv.bias).data.copy_(bias)
            self._expect(f"conv{name}", (1, 1), (1, 1, 1, 1))
        for number in range(1, 5):
            self._expect(f"pool{number}", (2, 2), (0, 0, 0, 0))

    def head(self, conv: nn.Conv2d, weight: str, bias: str) -> None:
        conv.weight.data.copy_(self._filter(weight, conv))
        cast(Tensor, conv.bias).data.copy_(self._vector(bias, conv.out_channels))

    def _conv_norm(self, name: str, norm_name: str, conv: nn.Conv2d, norm: nn.BatchNorm2d) -> None:
        conv.weight.data.copy_(self._filter(f"{name}_filter", conv))
        norm.weight.data.copy_(self._vector(f"{norm_name}_mult", conv.out_channels))
        norm.bias.data.copy_(self._vector(f"{norm_name}_bias", conv.out_channels))
        mean, sigma = self._moments(f"{norm_name}_moments", conv.out_channels)
        if f"{name}_bias" in self.inventory:  # ours has none before a batch-norm: it only moves the mean
            mean = mean - self._vector(f"{name}_bias", conv.out_channels)
        cast(Tensor, norm.running_mean).copy_(mean)
        cast(Tensor, norm.running_var).copy_(sigma.double() ** 2 - norm.eps)
        pad_y, pad_x = cast(tuple[int, int], conv.padding)
        self._expect(name, conv.stride, (pad_y, pad_y, pad_x, pad_x))

    def _filter(self, name: str, conv: nn.Conv2d) -> Tensor:
        out, inputs, height, width = conv.weight.shape
        return self.inventory.take(name, (height, width, inputs, out)).permute(3, 2, 0, 1)

    def _vector(self, name: str, length: int) -> Tensor:
        return self.inventory.take_vector(name, length)

    def _moments(self, name: str, length: int) -> tuple[Tensor, Tensor]:
        mean, sigma = self.inventory.take(name, (length, 2)).unbind(1)
        if not bool((sigma > 0).all()):
            self.inventory.refuse(f"{name} has a sigma (second column) that is not above 0")
        return mean, sigma

    def _expect(self, name: str, stride: tuple[int, ...], pad: tuple[int, ...]) -> None:
        if name in self.layers and self.layers[name].window() != (stride, pad):
            found_stride, found_pad = self.layers[name].window()
            self.inventory.refuse(
                f"layer {name} has stride {found_stride} and pad {found_pad}, the network has {stride} and {pad}"
            )


def _block_names(trunk: TrunkName, stage: int) -> list[str]:
    """Caffe's names of a stage's blocks: 4a 4b .. 4f, but 4a 4b1 4b2 .. in ResNet-101's longer stages."""
    if trunk == "resnet101" and stage > 2:
        return [f"{stage}a", *(f"{stage}b{i}" for i in range(1, {3: 4, 4: 23}[stage]))]
    return [f"{stage}{letter}" for letter in {2: "abc", 3: "abcd", 4: "abcdef"}[stage]]


def _trunk_config(file: DagFile, trunk: TrunkName) -> TrunkConfig:
    """The form of the trunk, from the layers where the file has them, else the form that such files have.

    Any epsilon would do: the variance is taken from sigma with it, so sigma stays what it is.
    """
    if trunk == "vgg16":
        return TrunkConfig(trunk)
    strides = file.layers["res3a_branch2a"].window()[0] if "res3a_branch2a" in file.layers else (2, 2)
    pad = file.layers["pool1"].window()[1] if "pool1" in file.layers else (0, 1, 0, 1)
    epsilons = [layer.block["epsilon"][0] for layer in file.layers.values() if layer.block.get("epsilon")]
    return TrunkConfig(
        trunk,
        stride_in_1x1=strides == (2, 2),
        bn_eps=epsilons[0] if epsilons else TrunkConfig.bn_eps,
        pool_after=pad == (0, 1, 0, 1),
    )


def _heads(file: DagFile, trunk: TrunkName, inventory: Inventory) -> dict[int, tuple[str, str]]:
    """Stride -> names of a head's filter and bias; empty when the file has no heads."""
    if trunk != "vgg16":
        named = any(name.startswith("score_") for name in file.params)
        return {8 * k: (f"score_res{n}_filter", f"score_res{n}_bias") for k, n in ((1, 3), (2, 4))} if named else {}
    found = {}
    for name, layer in file.layers.items():
        if layer.params and tuple(file.params.get(layer.params[0], torch.empty(0)).shape) == (1, 1, 512, _CHANNELS):
            stride = {"conv4_3": 8, "conv5_3": 16}.get(file.origin(layer) or "")
            if stride is None:
                inventory.refuse(f"layer {name} looks like a head, but sits neither on conv4_3 nor on conv5_3")
            else:
                found[stride] = (layer.params[0], (*layer.params, f"bias of {name}")[1])
    if len(found) == 1:
        inventory.refuse(f"only one head is there, of stride {min(found)}; needed: on conv4_3 and on conv5_3")
        return {}
    return found


def _kernel_name(file: DagFile) -> str:
    """Name of the enlargement's fixed kernel."""
    return next((x.params[0] for x in file.layers.values() if "ConvTranspose" in x.type and x.params), "score4f")


def _templates(file: DagFile, inventory: Inventory) -> TemplateSet:
    """The file's own templates; A and B are the published numbers of the 25."""
    if file.clusters is None:
        inventory.refuse("meta.clusters is missing: the templates")
    elif file.clusters.shape != (_TEMPLATES, 5):
        inventory.refuse(f"meta.clusters is {file.clusters.shape}, needed: ({_TEMPLATES}, 5), x1 y1 x2 y2 s of each")
    else:
        return TemplateSet(tuple(Template.from_corners(*row) for row in file.clusters.tolist()))
    return TemplateSet()
