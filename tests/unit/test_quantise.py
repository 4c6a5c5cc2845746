"""int8 says nearly what fp32 says, the same in every tile, and refuses what it cannot do."""

from __future__ import annotations

import copy
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from pathlib import Path
from typing import cast

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor, nn
from torch.nn import functional as F

from tests.toy_network import calibrated, cloudy_picture
from tinyface_core.detect.detector import Detector
from tinyface_core.detect.options import DetectOptions, Runtime, suited
from tinyface_core.detect.runtime import choose_runtime, prepare
from tinyface_core.errors import CheckpointError, ResourceError
from tinyface_core.model.checkpoint import load_checkpoint, save_checkpoint
from tinyface_core.model.convolve import Activation, max_pool, plain
from tinyface_core.model.network import HRNetwork
from tinyface_core.model.quantise import Code, Int8, Recorder, run_in_int8
from tinyface_core.model.spec import (
    BUNDLED,
    ModelSpec,
    NetworkConfig,
    Ranges,
    TrunkConfig,
    TrunkName,
    bundled_names,
    find_bundled,
    read_spec,
)

INT8, FP32 = Runtime("cpu", "int8", "for tests"), Runtime("cpu", "fp32", "for tests")
has_vnni = pytest.mark.skipif(not torch.cpu._is_vnni_supported(), reason="int8 is for processors with VNNI")
CROWD = Path(__file__).parents[2] / "demo" / "archive" / "fellows" / "fellows_white_house_2015.jpg"
TRUNKS: tuple[TrunkName, ...] = ("resnet50", "vgg16", "mobilenet_v2")


def image_of(picture_HW3: np.ndarray, spec: ModelSpec) -> Tensor:
    image_HW3 = torch.tensor(picture_HW3, dtype=torch.float32) - torch.tensor(spec.network.mean)
    image_HW3 /= torch.tensor(spec.network.std)
    return image_HW3.permute(2, 0, 1)[None].contiguous(memory_format=torch.channels_last)


def with_ranges(config: NetworkConfig | TrunkName) -> tuple[HRNetwork, ModelSpec]:
    """A network with made-up weights, and the ranges that a made-up picture shows."""
    return copy.deepcopy(_with_ranges(config))


@lru_cache(maxsize=3)
@torch.inference_mode()
def _with_ranges(config: NetworkConfig | TrunkName) -> tuple[HRNetwork, ModelSpec]:
    network, spec = calibrated(config)
    seen = prepare(copy.deepcopy(network), FP32)
    recorder = Recorder(seen)
    seen(image_of(cloudy_picture(160, 224, 1), spec))
    return network, replace(spec, ranges=recorder.ranges())


def test_a_code_has_the_range_as_its_ends_and_zero_exactly() -> None:
    code = Code.of((-1.0, 3.0))
    values = torch.tensor([[-9.0, -1.0, 0.0, 3.0, 9.0]])
    coded = code.coded(values)
    assert coded.dtype == torch.uint8
    assert coded.tolist() == [[0, 0, code.zero, 255, 255]]
    back = code.scale * (coded.float() - code.zero)
    assert float(back[0, 2]) == 0
    torch.testing.assert_close(back, values.clamp(-1, 3), atol=code.scale / 2, rtol=0)
    assert Code.of((0.5, 3.0)).zero == 0  # zero is in every code: padding needs it
    assert Code.of((-3.0, -1.0)).zero == 255
    assert Code.of((0.0, 0.0)).scale > 0


@pytest.mark.parametrize("ceil_mode", [False, True])
@pytest.mark.parametrize(("kernel", "stride", "padding"), [(3, 2, 1), (3, 2, 0), (2, 2, 0)])
@pytest.mark.parametrize(("height", "width"), [(16, 16), (17, 22), (5, 3)])
def test_bytes_are_pooled_as_floats_are(
    height: int, width: int, kernel: int, stride: int, padding: int, ceil_mode: bool
) -> None:
    torch.manual_seed(0)
    bytes_NCHW = torch.randint(0, 256, (2, 5, height, width), dtype=torch.uint8)
    for x_NCHW in (bytes_NCHW, bytes_NCHW.contiguous(memory_format=torch.channels_last)):
        ours = max_pool(x_NCHW, kernel, stride, padding, ceil_mode=ceil_mode)
        theirs = F.max_pool2d(x_NCHW.float(), kernel, stride, padding, ceil_mode=ceil_mode)
        assert ours.dtype == torch.uint8
        assert torch.equal(ours.float(), theirs)


@has_vnni
@pytest.mark.parametrize("added", [False, True])
@pytest.mark.parametrize("activation", ["none", "relu", "relu6"])
@torch.inference_mode()
def test_one_convolution_where_the_processor_has_vnni(activation: Activation, added: bool) -> None:
    torch.manual_seed(0)
    network = calibrated("mobilenet_v2")[0]
    convolution, name = nn.Conv2d(8, 16, 3, stride=2, padding=1), "trunk.made_up"
    network.trunk.add_module("made_up", convolution)
    x_NCHW = torch.randn(1, 8, 21, 30).contiguous(memory_format=torch.channels_last)
    shortcut_NCHW = 2 * torch.randn(1, 16, 11, 15).contiguous(memory_format=torch.channels_last) if added else None
    wanted = plain(x_NCHW, convolution, None, activation, shortcut_NCHW)

    def range_of(values: Tensor | None) -> tuple[float, float] | None:
        return None if values is None else (float(values.min()), float(values.max()))

    ranges = Ranges((float(x_NCHW.min()), float(x_NCHW.max())), range_of(wanted), range_of(shortcut_NCHW))
    bytes_NCHW = None if shortcut_NCHW is None else Code.of(ranges.adds).coded(shortcut_NCHW)  # type: ignore[arg-type]
    out = Int8(network, {name: ranges})(x_NCHW, convolution, None, activation, bytes_NCHW)
    code = Code.of(ranges.gives)  # type: ignore[arg-type]
    assert out.dtype == torch.uint8
    assert out.is_contiguous(memory_format=torch.channels_last)
    error = code.scale * (out.float() - code.zero) - wanted
    assert float(error.std()) < 0.02 * float(wanted.std())
    scores = Int8(network, {name: replace(ranges, gives=None)})(x_NCHW, convolution, None, "none")
    assert scores.dtype == torch.float32  # what a head gives
    torch.testing.assert_close(scores, convolution(x_NCHW), atol=0.05, rtol=0.05)


@has_vnni
@pytest.mark.parametrize("model", bundled_names())
@torch.inference_mode()
def test_a_bundled_model_says_nearly_the_same_where_the_processor_has_vnni(model: str) -> None:
    path = find_bundled(model)
    assert path is not None
    network, spec = load_checkpoint(path)
    picture_HW3 = np.asarray(Image.open(CROWD).convert("RGB").resize((640, 400)))
    image_13HW = image_of(picture_HW3, spec)
    exact = prepare(copy.deepcopy(network), FP32)(image_13HW)
    coded = prepare(network, INT8, spec.ranges)(image_13HW)
    assert float(exact.logits_NTHW.max()) > 0  # a face
    for ours, theirs in ((coded.logits_NTHW, exact.logits_NTHW), (coded.offsets_NT4HW, exact.offsets_NT4HW)):
        assert ours.dtype == torch.float32
        assert ours.shape == theirs.shape
        assert float(torch.corrcoef(torch.stack([ours.flatten(), theirs.flatten()]))[0, 1]) > 0.99


@has_vnni
@torch.inference_mode()
def test_the_regressor_is_nearly_exact_where_some_weights_are_far_larger_where_the_processor_has_vnni() -> None:
    """In bytes its features are another picture; so the same features are shown to both."""
    torch.manual_seed(3)
    network, spec = with_ranges("mobilenet_v2")
    weight_5C = torch.randn(5, 768)
    weight_5C[:, 7] *= 3000
    network.regress(weight_5C, torch.randn(5))
    code = Code.of(spec.ranges["heads.8"].takes)
    bytes_NCHW = torch.randint(0, 255, (1, 192, 9, 11), dtype=torch.uint8).to(memory_format=torch.channels_last)
    assert network.ellipse is not None
    head = cast(nn.Conv2d, network.ellipse["8"])
    run_in_int8(network, spec.ranges)
    said = network.score(bytes_NCHW, head, None, "none")
    wanted = head(code.scale * (bytes_NCHW.float() - code.zero))
    assert said.dtype == torch.float32
    torch.testing.assert_close(said, wanted, rtol=1e-4, atol=1e-4 * float(wanted.std()))


@has_vnni
@pytest.mark.parametrize(
    "trunk", ["mobilenet_v2", *(pytest.param(trunk, marks=pytest.mark.slow) for trunk in TRUNKS[:2])]
)
def test_tiles_give_the_bytes_of_the_whole_where_the_processor_has_vnni(trunk: TrunkName) -> None:
    network, spec = with_ranges(trunk)
    picture = cloudy_picture(700, 900, 3)
    found = [
        Detector(copy.deepcopy(network), spec, INT8, DetectOptions(zooms=(0.5, 1.0), tile_px=tile_px))(picture)
        for tile_px in (10**9, 600 * 700)
    ]
    whole, tiled = found
    assert len(whole) > 20
    assert np.array_equal(whole.boxes_K4, tiled.boxes_K4)
    np.testing.assert_allclose(whole.scores_K, tiled.scores_K, atol=1e-6)  # sigmoid, by eights or by one


@torch.inference_mode()
def test_a_regressor_of_ellipses_has_no_ranges_of_its_own() -> None:
    """It takes what the heads take; a model whose regressor is fitted later, or left out, has the same ranges."""
    network, spec = load_checkpoint(BUNDLED / "hr-mobilenetv2.safetensors")
    assert network.ellipse is not None
    seen = prepare(network, FP32)
    recorder = Recorder(seen)
    seen(image_of(cloudy_picture(64, 96, 1), spec))
    assert recorder.ranges().keys() == spec.ranges.keys()
    assert not [name for name in spec.ranges if name.startswith("ellipse.")]


def test_ranges_come_back_from_the_file(tmp_path: Path) -> None:
    network, spec = with_ranges("mobilenet_v2")
    save_checkpoint(tmp_path / "m.safetensors", network, spec)
    assert read_spec(tmp_path / "m.safetensors").ranges == spec.ranges
    assert spec.ranges["heads.8"].gives is None
    assert spec.ranges["trunk.features.3.conv.2"].adds is not None
    named = dict(load_checkpoint(tmp_path / "m.safetensors")[0].named_modules())
    assert all(isinstance(named[name], nn.Conv2d) for name in spec.ranges)


@pytest.mark.parametrize("trunk", TRUNKS)
def test_what_one_convolution_gives_is_what_the_next_takes(trunk: TrunkName) -> None:
    """A byte means the same to both, though each has its ranges from its own side."""
    _, spec = with_ranges(trunk)
    given = {Code.of(ranges.gives) for ranges in spec.ranges.values() if ranges.gives is not None}
    others = list(spec.ranges.values())[1:]
    assert len(spec.ranges) > 14
    for ranges in others:
        assert Code.of(ranges.takes) in given
        assert ranges.adds is None or Code.of(ranges.adds) in given


@has_vnni
def test_without_ranges_int8_is_refused_or_left_where_the_processor_has_vnni() -> None:
    network, spec = calibrated("mobilenet_v2")
    with pytest.raises(CheckpointError, match=r"calibrate\.py"):
        prepare(network, INT8, spec.ranges)
    left = suited(INT8, spec)
    assert (left.precision, "ranges" in left.reason) == ("fp32", True)
    assert suited(INT8, replace(spec, ranges={"trunk.x": Ranges((0, 1))})) is INT8
    assert suited(FP32, spec) is FP32


@has_vnni
@torch.inference_mode()
@pytest.mark.parametrize("name", ["trunk.features.3.conv.2", "heads.16"])
def test_ranges_that_leave_out_a_convolution_are_refused_where_the_processor_has_vnni(name: str) -> None:
    network, spec = with_ranges("mobilenet_v2")
    assert name in spec.ranges
    known = {other: ranges for other, ranges in spec.ranges.items() if other != name}
    with pytest.raises(CheckpointError, match="leave out a convolution"):
        prepare(network, INT8, known)(image_of(cloudy_picture(64, 64), spec))


@pytest.mark.parametrize(
    "ask",
    [lambda: choose_runtime("cpu", "int8"), lambda: prepare(HRNetwork(NetworkConfig(TrunkConfig("vgg16"))), INT8)],
    ids=["by option", "as recorded"],
)
def test_a_processor_without_vnni_is_refused(ask: Callable[[], object], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cpu, "_is_vnni_supported", lambda: False)
    with pytest.raises(ResourceError, match="without VNNI"):
        ask()


def test_int8_on_a_gpu_is_refused() -> None:
    with pytest.raises(ResourceError, match="for CPUs"):
        prepare(HRNetwork(NetworkConfig(TrunkConfig("vgg16"))), Runtime("cuda", "int8", "for tests"), {})
