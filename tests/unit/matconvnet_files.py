"""Writes MatConvNet files of the authors' layout, with random values small enough to keep activations sane."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import scipy.io

from tinyface_core.templates import PUBLISHED

MEAN = (119.2996, 110.5463, 101.8384)
EPSILON = 3e-5
BLOCKS = {
    "resnet50": {2: "a b c", 3: "a b c d", 4: "a b c d e f"},
    "resnet101": {2: "a b c", 3: "a b1 b2 b3", 4: "a " + " ".join(f"b{i}" for i in range(1, 23))},
}
Values = dict[str, np.ndarray[Any, Any]]
Record = dict[str, Any]


class Author:
    """Makes the parameters and the layers of a DagNN, as the authors' code names and shapes them."""

    def __init__(self, seed: int) -> None:
        self.random = np.random.default_rng(seed)
        self.params: Values = {}
        self.layers: list[Record] = []

    def layer(self, name: str, kind: str, inputs: str, outputs: str, params: str = "", **block: Any) -> None:
        cells = {
            key: cell(text.split()) for key, text in (("inputs", inputs), ("outputs", outputs), ("params", params))
        }
        self.layers.append({"name": name, "type": f"dagnn.{kind}", **cells, "block": block or {"opts": cell([])}})

    def conv(
        self, name: str, ends: str, size: tuple[int, ...], stride: int = 1, pad: int = 0, gain: float = 1.0
    ) -> None:
        """ends: of the parameters' names, filter first."""
        height, width, inputs, _ = size
        values = self.random.standard_normal(size) * gain * np.sqrt(2 / (height * width * inputs))
        names = [name + end for end in ends.split()]
        self.params[names[0]] = values.astype(np.float32)
        for bias in names[1:]:
            self.params[bias] = self.random.normal(0, 0.3, (1, size[3])).astype(np.float32)
        block = {
            "size": array(size),
            "hasBias": bool(names[1:]),
            "pad": array([pad] * 4),
            "stride": array([stride] * 2),
        }
        self.layer(name, "Conv", f"in_{name}", name, " ".join(names), **block)

    def norm(self, name: str, ends: str, channels: int, mult: float = 1.0, sigma: float = 1.0) -> None:
        """ends: of multiplier, bias, moments. sigma: around which; small ones tell whether epsilon is taken off."""
        values = (
            self.random.uniform(0.8, 1.2, (channels, 1)) * mult,
            self.random.normal(0, 0.1, (channels, 1)),
            np.stack([self.random.normal(0, 0.1, channels), self.random.uniform(0.8, 1.2, channels)], 1) * sigma,
        )
        names = [name + end for end in ends.split()]
        self.params.update({key: value.astype(np.float32) for key, value in zip(names, values, strict=True)})
        self.layer(name, "BatchNorm", f"in_{name}", name, " ".join(names), numChannels=channels, epsilon=EPSILON)

    def pool(self, name: str, before: str, size: int, pad: list[int]) -> None:
        block = {"method": "max", "poolSize": array([size] * 2), "stride": array([2, 2]), "pad": array(pad)}
        self.layer(name, "Pooling", before, name, **block)

    def enlargement(self) -> None:
        taps = np.array([0.25, 0.75, 0.75, 0.25])
        kernel = np.outer(taps, taps)[:, :, None, None] * np.eye(125)
        self.params["score4f"] = kernel.astype(np.float32)
        block = {"size": array(kernel.shape), "upsample": array([2, 2]), "crop": array([1, 2, 1, 2]), "hasBias": False}
        self.layer("score4", "ConvTranspose", "score_res4", "score4", "score4f", **block)


def resnet(trunk: str, seed: int, *, heads: bool = True) -> Record:
    author = Author(seed)
    author.conv("conv1", "_filter _bias" if trunk == "resnet50" else "_filter", (7, 7, 3, 64), 2, 3)
    author.norm("bn_conv1", "_mult _bias _moments", 64, sigma=150)
    author.pool("pool1", "conv1x", 3, [0, 1, 0, 1])
    inputs = 64
    for stage, middle in ((2, 64), (3, 128), (4, 256)):
        for letter in BLOCKS[trunk][stage].split():
            block, stride = f"{stage}{letter}", 2 if letter == "a" and stage > 2 else 1
            parts = [("2a", (1, 1, inputs, middle), stride, 0), ("2b", (3, 3, middle, middle), 1, 1)]
            parts += [("2c", (1, 1, middle, 4 * middle), 1, 0)]
            parts += [("1", (1, 1, inputs, 4 * middle), stride, 0)] if letter == "a" else []
            for branch, size, step, pad in parts:
                small = 0.01 if branch == "2b" else 1.0
                author.conv(f"res{block}_branch{branch}", "_filter", size, step, pad, gain=small)
                mult = 0.3 if branch == "2c" else 1.0
                author.norm(f"bn{block}_branch{branch}", "_mult _bias _moments", size[3], mult, small)
            inputs = 4 * middle
    if heads:
        author.conv("score_res4", "_filter _bias", (1, 1, 1024, 125), gain=0.1)
        author.enlargement()
        author.conv("score_res3", "_filter _bias", (1, 1, 512, 125), gain=0.1)
    return network_of(author, heads)


def vgg16(seed: int) -> Record:
    author = Author(seed)
    before, inputs = "data", 3
    for stage, (outputs, depth) in enumerate(((64, 2), (128, 2), (256, 3), (512, 3), (512, 3)), 1):
        for i in range(1, depth + 1):
            name = f"{stage}_{i}"
            author.conv(f"conv{name}", "f b", (3, 3, inputs, outputs), 1, 1)
            author.layers[-1]["inputs"] = cell([before])
            before, inputs = f"conv{name}", outputs
            if stage < 3:
                author.norm(f"bn{name}", "m b x", outputs, sigma=150 if name == "1_1" else 1.0)
                author.layers[-1].update(inputs=cell([before]), outputs=cell([f"bn{name}"]))
                before = f"bn{name}"
            author.layer(f"relu{name}", "ReLU", before, f"{before}x")
            before = f"{before}x"
            if name in ("4_3", "5_3"):
                author.conv(f"some_head_{stage}", "_w _bias", (1, 1, 512, 125), gain=0.1)
                author.layers[-1]["inputs"] = cell([before])
        author.pool(f"pool{stage}", before, 2, [0, 0, 0, 0])
        before = f"pool{stage}"
    author.enlargement()
    author.params["up_w"] = author.params.pop("score4f")
    author.layers[-1]["params"] = cell(["up_w"])
    return network_of(author, True)


def network_of(author: Author, heads: bool) -> Record:
    rows = [
        (*(np.array([-t.width, -t.height, t.width, t.height]) - [-1, -1, 1, 1]) / 2, t.resolution) for t in PUBLISHED
    ]
    meta: Record = {
        "normalization": {"averageImage": np.array(MEAN, np.float32)[:, None]},
        "inputSize": array([500] * 2),
    }
    if heads:
        meta |= {"clusters": np.array(rows), "posThresh": 0.7, "negThresh": 0.3}
    return {"params": author.params, "layers": author.layers, "meta": meta}


def save(path: Path, content: Record, *, wrapper: bool = True) -> Path:
    records = [{"name": k, "value": v, "learningRate": 1.0, "weightDecay": 1.0} for k, v in content["params"].items()]
    net = {
        "vars": structs([{"name": "data", "precious": False}]),
        "params": structs(records),
        "layers": structs(content["layers"]),
        "meta": content["meta"],
    }
    scipy.io.savemat(path, {"net": net, "stats": structs([{"objective": 1.0}])} if wrapper else net)
    return path


def structs(records: list[Record]) -> np.ndarray[Any, Any]:
    """A 1 x N struct array, as MATLAB has it."""
    made = np.empty((1, len(records)), dtype=[(key, object) for key in records[0]])
    for i, record in enumerate(records):
        made[0, i] = tuple(record.values())
    return made


def cell(texts: list[str]) -> np.ndarray[Any, Any]:
    made = np.empty((1, len(texts)), dtype=object)
    made[0, :] = texts
    return made


def array(values: Any) -> np.ndarray[Any, Any]:
    return np.array(values, np.float64)[None]
