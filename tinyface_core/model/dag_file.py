"""A MatConvNet DagNN file as plain values: parameters, layers, and the two things that matter of `meta`.

Knows MATLAB's structs and cells, as scipy gives them without squeezing; knows no network.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import scipy.io
import torch
from numpy.typing import NDArray
from torch import Tensor

from tinyface_core.errors import CheckpointError


@dataclass(frozen=True)
class Layer:
    """One layer. type: MATLAB class. inputs, outputs: variables. block: settings, as flat tuples of numbers."""

    type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    params: tuple[str, ...]
    block: Mapping[str, tuple[float, ...]]

    def window(self) -> tuple[tuple[int, ...], tuple[int, ...]]:
        """Stride (y, x) and padding (top, bottom, left, right), written out in full."""
        stride = [int(value) for value in self.block.get("stride", (1,))]
        pad = [int(value) for value in self.block.get("pad", (0,))]
        if len(pad) == 2:
            pad = [pad[0], pad[0], pad[1], pad[1]]
        return tuple((stride * 2)[:2]), tuple((pad * 4)[:4])


@dataclass(frozen=True)
class DagFile:
    """What a file holds. clusters (any shape) and mean (RGB 0..255): None when the file does not say."""

    params: dict[str, Tensor]
    layers: dict[str, Layer]
    clusters: NDArray[np.float64] | None
    mean: tuple[float, float, float] | None

    def origin(self, layer: Layer) -> str | None:
        """Name of the convolution that feeds this layer, no pooling in between; None when there is none."""
        makers = {output: name for name, other in self.layers.items() for output in other.outputs}
        for _ in self.layers:
            name = makers.get(layer.inputs[0]) if layer.inputs else None
            if name is None or "Pool" in self.layers[name].type:
                return None
            layer = self.layers[name]
            if layer.type.endswith("Conv"):
                return name
        return None


def open_dag(path: Path) -> DagFile:
    """Reads a .mat of v5 to v7; `net` around its fields or not.

    Raises:
        CheckpointError: broken, or not a DagNN; names the field.
    """
    try:
        with path.open("rb") as file:
            content = scipy.io.loadmat(file, variable_names=["net", "params", "layers", "meta"])
    except Exception as error:  # a torn file shows as one of many types, which scipy does not list
        raise CheckpointError(f"{path}: a broken .mat file ({type(error).__name__}: {error}).") from error
    net = _first(content["net"]) if "net" in content else content
    params = {_text(record["name"]): record["value"] for record in _records(path, net, "params", "name", "value")}
    layers = _records(path, net, "layers", "name", "type", "inputs", "outputs", "params", "block")
    meta = _first(_field(net, "meta"))
    clusters = _numbers(_field(meta, "clusters"))
    average = _numbers(_field(_first(_field(meta, "normalization")), "averageImage"))
    return DagFile(
        {name: _tensor(path, name, value) for name, value in params.items()},
        {_text(record["name"]): _layer(record) for record in layers},
        clusters,
        None if average is None else _colour(average),
    )


def _layer(record: Any) -> Layer:
    block = _first(record["block"])
    settings = {name: _numbers(_field(block, name)) for name in ("pad", "stride", "epsilon")}
    return Layer(
        _text(record["type"]),
        _texts(record["inputs"]),
        _texts(record["outputs"]),
        _texts(record["params"]),
        {name: tuple(value.ravel().tolist()) for name, value in settings.items() if value is not None and value.size},
    )


def _records(path: Path, net: Any, name: str, *fields: str) -> list[Any]:
    """The elements of a struct array."""
    array = _field(net, name)
    found = getattr(getattr(array, "dtype", None), "names", None) or ()
    if not set(fields) <= set(found):
        what = f"has only {', '.join(found)}" if found else "is no struct array" if array is not None else "is missing"
        raise CheckpointError(
            f"{path}: {name} {what}; needed: {', '.join(fields)}, as MatConvNet's DagNN saves it. "
            "A SimpleNN becomes one with dagnn.DagNN.fromSimpleNN."
        )
    return list(array.flat)


def _field(struct: Any, name: str) -> Any:
    """A field of a struct, or of the file itself; None when it is not there."""
    if isinstance(struct, dict):
        return struct.get(name)
    names = getattr(getattr(struct, "dtype", None), "names", None) or ()
    return struct[name] if name in names else None


def _first(array: Any) -> Any:
    """The one element of a 1 x 1 struct; None when there is none."""
    return array.flat[0] if isinstance(array, np.ndarray) and array.size else None


def _text(value: Any) -> str:
    return "".join(str(part) for part in np.ravel(value))


def _texts(cell: Any) -> tuple[str, ...]:
    """A cell of strings, or one string, which stands for a cell of one."""
    if isinstance(cell, np.ndarray) and cell.dtype != object:
        return (_text(cell),) if cell.size else ()
    return tuple(_text(part) for part in np.ravel(cell))


def _numbers(value: Any) -> NDArray[np.float64] | None:
    try:
        return None if value is None else np.asarray(value, np.float64)
    except (TypeError, ValueError):
        return None


def _tensor(path: Path, name: str, value: Any) -> Tensor:
    try:
        return torch.from_numpy(np.ascontiguousarray(value, np.float32))
    except (TypeError, ValueError) as error:
        raise CheckpointError(f"{path}: {name} holds a {type(value).__name__}, not numbers.") from error


def _colour(average: NDArray[np.float64]) -> tuple[float, float, float] | None:
    """One colour, from 3 values in any direction or from a whole mean image, height x width x 3."""
    flat = average.ravel() if average.size == 3 else average.mean(axis=(0, 1)) if average.shape[2:] == (3,) else None
    return None if flat is None else (float(flat[0]), float(flat[1]), float(flat[2]))
