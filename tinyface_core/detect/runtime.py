"""Device and precision: the only file that asks the machine what it has."""

from __future__ import annotations

import ctypes
import logging
import os
from collections.abc import Mapping
from itertools import pairwise
from pathlib import Path
from typing import Literal, cast

import torch
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval

from tinyface_core.detect.options import Device, Precision, Runtime
from tinyface_core.errors import ResourceError
from tinyface_core.model.convolve import Fused, fuses
from tinyface_core.model.network import HRNetwork
from tinyface_core.model.quantise import run_in_int8
from tinyface_core.model.spec import Ranges

log = logging.getLogger(__name__)

# Of weights as they are kept; int8 lays them out as bytes when it first uses them.
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16, "fp16": torch.float16, "int8": torch.float32}
# How torch says that there is no memory where it has no exception of its own for it.
_NO_MEMORY = ("DefaultCPUAllocator", "CUBLAS_STATUS_ALLOC_FAILED", "CUDNN_STATUS_ALLOC_FAILED")
_malloc_trim = getattr(ctypes.CDLL(None), "malloc_trim", None)
DEVICES = Path("/dev")  # where Linux shows NVIDIA's cards as nvidia0, nvidia1, ...


def choose_runtime(device: Device = "auto", precision: Precision = "auto") -> Runtime:
    """The best of what is there, or what is asked for; logs the choice with its reason.

    int8 is for models with ranges: `options.suited` says what others get.

    Raises:
        ResourceError: CUDA, or int8, asked for and not there.
    """
    has_cuda = torch.cuda.is_available()
    unusable = "" if has_cuda else _unusable_gpus()
    if device == "cuda" and not has_cuda:
        raise ResourceError(
            f"--device cuda: {unusable or 'no CUDA device is visible here'}. Use --device cpu, or a GPU node."
        )
    if device == "cpu" and has_cuda:
        log.warning("a GPU (%s) is present but unused: --device cpu was asked for", torch.cuda.get_device_name())
    if device == "auto" and unusable:
        log.warning("computing without a GPU: %s", unusable)
    where: Literal["cpu", "cuda"] = "cuda" if has_cuda and device != "cpu" else "cpu"
    if precision == "int8":
        _check_int8(where)
    best, why = best_precision(where)
    runtime = Runtime(where, best, why) if precision == "auto" else Runtime(where, precision, "asked for by option")
    log.info("computing on %s in %s: %s", runtime.device, runtime.precision, runtime.reason)
    return runtime


def _unusable_gpus() -> str:
    """Why the cards that the system shows are of no use to torch; empty when there are none."""
    cards = len(list(DEVICES.glob("nvidia[0-9]*")))
    if not cards:
        return ""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if torch.version.cuda is None:
        why = f"this torch ({torch.__version__}) is built without CUDA"
    elif visible is not None:
        why = f"CUDA_VISIBLE_DEVICES is {visible!r}"
    else:
        why = f"torch for CUDA {torch.version.cuda} cannot use it, its driver may be too old"
    return f"{cards} NVIDIA GPU(s) are present but unused, {why}"


def best_precision(device: str) -> tuple[Literal["fp32", "bf16", "fp16", "int8"], str]:
    """The precision that this device computes fastest without losing faces, and why (docs/performance.md)."""
    best, why = best_float(device)
    if best == "fp32" and torch.cpu._is_vnni_supported():
        return "int8", f"{why}, but VNNI"
    return best, why


def best_float(device: str) -> tuple[Literal["fp32", "bf16", "fp16"], str]:
    """The same of floats alone, as training needs them."""
    if device == "cuda":
        name = torch.cuda.get_device_name()
        if torch.cuda.is_bf16_supported(including_emulation=False):
            return "bf16", f"{name} has bf16 units"
        return "fp16", f"{name} has no bf16 units"
    if torch.cpu._is_amx_tile_supported():
        return "bf16", "this processor has AMX bf16 units"
    if torch.cpu._is_avx512_bf16_supported():
        return "bf16", "this processor has AVX-512 bf16 instructions"
    return "fp32", "this processor has no bf16 units"


def prepare(network: HRNetwork, runtime: Runtime, ranges: Mapping[str, Ranges] | None = None) -> HRNetwork:
    """The network ready for inference, changed in place: batch-norm folded in fp32, then cast, channels last.

    Heads and regressor stay in fp32, and so do the parts that the trunk names as exact: little work, most of the
    rounding error (docs/performance.md). Each convolution takes its input in its own precision. On a CPU convolutions
    are single calls of oneDNN. In int8 all take bytes by the ranges of the model's spec, but for the exact parts.

    Raises:
        CheckpointError: int8, and no ranges of this network. ResourceError: int8 where that is slow or inexact.
    """
    if runtime.precision == "int8":
        _check_int8(runtime.device)
    network.eval().requires_grad_(False)
    _fold_batch_norm(network)
    network.to(runtime.device)
    exact: list[nn.Module] = [network.heads, *([] if network.ellipse is None else [network.ellipse])]
    exact += [network.trunk.get_submodule(name) for name in network.trunk.exact]
    inside = {module for part in exact for module in part.modules()}
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            module.to(memory_format=torch.channels_last)  # type: ignore[call-overload]
            if module not in inside:
                module.to(DTYPES[runtime.precision])
            module.register_forward_pre_hook(_input_as_weight)
    if runtime.precision == "int8":
        run_in_int8(network, ranges or {})
    elif fuses(torch.device(runtime.device), DTYPES[runtime.precision]):
        network.trunk.convolve = network.score = Fused()
    return network


def _check_int8(device: str) -> None:
    """Without VNNI sums of two products are cut to 16 bits, and take longer than floats."""
    if device != "cpu":
        raise ResourceError("--precision int8 is for CPUs. Use --precision auto, or --device cpu.")
    if not torch.cpu._is_vnni_supported():
        raise ResourceError("--precision int8: a processor without VNNI. Use --precision fp32, or other nodes.")


def _input_as_weight(module: nn.Module, inputs: tuple[Tensor]) -> tuple[Tensor]:
    return (inputs[0].to(cast(nn.Conv2d, module).weight.dtype),)


def is_out_of_memory(error: BaseException) -> bool:
    """Whether the device, or the machine, had no memory left for a tensor."""
    if isinstance(error, MemoryError | torch.OutOfMemoryError):
        return True
    return isinstance(error, RuntimeError) and any(said in str(error) for said in _NO_MEMORY)


def give_memory_back() -> None:
    """Pages that freed tensors hold go back to the system, where the C library can do that (glibc).

    Tiles of several sizes, with the boxes that stay in between, leave a heap that only grows: of a 9,000 px square, 15
    tiles, 1.64 GB without this and 1.20 GB with it.
    """
    if _malloc_trim is not None:
        _malloc_trim(0)


def give_device_memory_back() -> None:
    """After a failure: what torch keeps of a GPU's memory for later goes back, in pieces that fit together again."""
    give_memory_back()
    if torch.cuda.is_available():
        torch.cuda.empty_cache()


def _fold_batch_norm(module: nn.Module) -> None:
    """Every batch-norm registered right behind a convolution goes into that convolution's weights."""
    children = list(module.named_children())
    for (name, child), (next_name, following) in pairwise(children):
        if isinstance(child, nn.Conv2d) and isinstance(following, nn.BatchNorm2d):
            setattr(module, name, fuse_conv_bn_eval(child, following))
            setattr(module, next_name, nn.Identity())
    for child in module.children():
        _fold_batch_norm(child)
