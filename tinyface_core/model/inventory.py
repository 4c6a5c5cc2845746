"""The tensors of a foreign file, taken out one by one under their own names; what does not fit is told all at once.

Knows nothing of any format: third_party.py and matconvnet.py do.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path

import torch
from torch import Tensor

from tinyface_core.errors import CheckpointError

SHOWN = 10  # names that an error lists of each kind


class Inventory:
    """Checks each tensor's shape and values as it is taken, and in the end that nothing is missing or left over."""

    def __init__(self, path: Path, tensors: Mapping[str, Tensor]) -> None:
        self._path = path
        self._tensors = dict(tensors)
        self._missing: list[str] = []
        self._wrong: list[str] = []

    def __contains__(self, name: str) -> bool:
        return name in self._tensors

    def take(self, name: str, shape: tuple[int, ...]) -> Tensor:
        """The tensor in fp32; ones of this shape when it does not fit, which `finish` then refuses."""
        if name not in self._tensors:
            self._missing.append(name)
            return torch.ones(shape)
        tensor = self._tensors.pop(name)
        if tuple(tensor.shape) != shape:
            self.refuse(f"{name} is {tuple(tensor.shape)}, the network needs {shape}")
            return torch.ones(shape)
        if not bool(torch.isfinite(tensor).all()):
            self.refuse(f"{name} holds values that are not finite")
        return tensor.to(torch.float32)

    def take_vector(self, name: str, length: int) -> Tensor:
        """As take, (length,), whichever way the vector lies in the file: (n,), (1, n) or (n, 1)."""
        tensor = self._tensors.get(name)
        if tensor is not None and tensor.ndim > 0 and max(tensor.shape) == tensor.numel():
            self._tensors[name] = tensor.reshape(-1)
        return self.take(name, (length,))

    def take_fixed(self, name: str, needed: Tensor) -> None:
        """Takes a tensor that the network has built in, and refuses any other values."""
        shape = tuple(needed.shape)
        fits = name in self._tensors and tuple(self._tensors[name].shape) == shape
        if not torch.allclose(self.take(name, shape), needed, atol=1e-6) and fits:
            self.refuse(f"{name} was trained, the network has it fixed: bilinear, one channel at a time")

    def leave_out(self, unused: Callable[[str], bool]) -> list[str]:
        """Sets aside what the network is known not to use; gives the names."""
        names = sorted(name for name in self._tensors if unused(name))
        for name in names:
            del self._tensors[name]
        return names

    def refuse(self, sentence: str) -> None:
        """Notes something else that is wrong with the file; `finish` raises it."""
        self._wrong.append(sentence)

    def finish(self) -> None:
        """Raises CheckpointError, naming everything missing, wrong, or without a place in the network."""
        kinds = (("missing", self._missing), ("wrong", self._wrong), ("without a place", sorted(self._tensors)))
        found = "; ".join(f"{kind}: {_list(names)}" for kind, names in kinds if names)
        if found:
            raise CheckpointError(f"{self._path}: does not hold the network that its names promise. {found}.")


def _list(names: list[str]) -> str:
    shown = ", ".join(names[:SHOWN])
    return shown if len(names) <= SHOWN else f"{shown} and {len(names) - SHOWN} more"
