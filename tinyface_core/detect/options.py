"""What a detector is asked for, and where it computes. Plain values, without torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from tinyface_core.detect.pyramid import Zooms
from tinyface_core.model.spec import ModelSpec

Device = Literal["auto", "cpu", "cuda"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "int8"]
TILE_PX = 3840 * 2160  # a 1080p picture at 2x: nothing larger is ever computed at once


@dataclass(frozen=True)
class Runtime:
    """Where and how exactly to compute, and why so."""

    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16", "fp16", "int8"]
    reason: str


def suited(runtime: Runtime, spec: ModelSpec) -> Runtime:
    """A runtime chosen without knowing the model: fp32 in the place of int8 where the model has no ranges."""
    if runtime.precision != "int8" or spec.ranges:
        return runtime
    return Runtime(runtime.device, "fp32", f"{runtime.reason}; int8 needs ranges in the model (jobs/calibrate.py)")


@dataclass(frozen=True)
class DetectOptions:
    """None: the checkpoint's default.

    min_score: exclusive. nms_iou: suppressed strictly above. tile_px: pixels computed at once, at most. focus: levels
    above 1x only where the 1x level scores above this (focus.py); None: everywhere.
    """

    min_score: float | None = None
    nms_iou: float | None = None
    zooms: Zooms | None = None
    tile_px: int = TILE_PX
    focus: float | None = None
