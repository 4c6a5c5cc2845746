"""Device and precision: the best of what is there, said with its reason; a GPU that lies idle is a warning."""

from __future__ import annotations

import copy
import logging
from dataclasses import dataclass, field
from pathlib import Path

import psutil
import pytest
import torch
from torch import nn

from tests.toy_network import calibrated, cloudy_picture
from tinyface_core.detect import runtime
from tinyface_core.detect.options import Runtime
from tinyface_core.detect.runtime import choose_runtime, give_memory_back, is_out_of_memory, prepare
from tinyface_core.errors import ResourceError
from tinyface_core.model.spec import TrunkName

FP32 = Runtime("cpu", "fp32", "for tests")
BF16 = Runtime("cpu", "bf16", "for tests")


@dataclass
class Machine:
    """What a machine pretends to have."""

    patch: pytest.MonkeyPatch
    dev: Path
    calls: list[str] = field(default_factory=list)

    def has(
        self,
        *,
        gpu: bool = False,
        gpu_bf16: bool = False,
        amx: bool = False,
        avx512: bool = False,
        vnni: bool = False,
    ) -> None:
        def bf16_supported(including_emulation: bool = True) -> bool:
            return gpu_bf16 or including_emulation  # torch emulates it on every card

        self.patch.setattr(torch.cuda, "is_available", lambda: gpu)
        self.patch.setattr(torch.cuda, "get_device_name", lambda *_: "Tesla T4")
        self.patch.setattr(torch.cuda, "is_bf16_supported", bf16_supported)
        self.patch.setattr(torch.cpu, "_is_amx_tile_supported", lambda: amx)
        self.patch.setattr(torch.cpu, "_is_avx512_bf16_supported", lambda: avx512)
        self.patch.setattr(torch.cpu, "_is_vnni_supported", lambda: vnni)
        if gpu:
            (self.dev / "nvidia0").touch()


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Machine:
    monkeypatch.setattr(runtime, "DEVICES", tmp_path)
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    return Machine(monkeypatch, tmp_path)


@pytest.mark.parametrize(
    ("have", "device", "precision", "reason"),
    [
        ({}, "cpu", "fp32", "no bf16 units"),
        ({"vnni": True}, "cpu", "int8", "VNNI"),
        ({"avx512": True, "vnni": True}, "cpu", "bf16", "AVX-512"),
        ({"amx": True, "avx512": True, "vnni": True}, "cpu", "bf16", "AMX"),
        ({"gpu": True, "amx": True}, "cuda", "fp16", "Tesla T4"),
        ({"gpu": True, "gpu_bf16": True}, "cuda", "bf16", "Tesla T4"),
    ],
)
def test_the_best_that_is_there_is_taken_and_logged_with_its_reason(
    machine: Machine,
    have: dict[str, bool],
    device: str,
    precision: str,
    reason: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    machine.has(**have)
    with caplog.at_level(logging.INFO):
        chosen = choose_runtime()
    assert (chosen.device, chosen.precision) == (device, precision)
    assert reason in chosen.reason
    (record,) = caplog.records
    assert record.levelno == logging.INFO
    for part in (device, precision, reason):
        assert part in record.getMessage()


def test_options_override_device_and_precision_each_alone(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.has(gpu=True, gpu_bf16=True, amx=True)
    assert choose_runtime("cpu").precision == "bf16"
    assert choose_runtime("cpu", "fp32") == Runtime("cpu", "fp32", "asked for by option")
    assert choose_runtime(precision="fp16") == Runtime("cuda", "fp16", "asked for by option")
    assert choose_runtime("cuda", "fp32").precision == "fp32"
    machine.has()
    assert choose_runtime("cpu", "bf16").precision == "bf16"


def test_a_gpu_that_an_option_leaves_idle_is_a_warning(machine: Machine, caplog: pytest.LogCaptureFixture) -> None:
    machine.has(gpu=True)
    choose_runtime("cpu")
    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert "Tesla T4" in record.getMessage()
    assert "--device cpu" in record.getMessage()


@pytest.mark.parametrize(
    ("cuda", "visible", "why"),
    [(None, None, "built without CUDA"), ("12.8", "", "CUDA_VISIBLE_DEVICES is ''"), ("12.8", None, "driver")],
)
def test_a_gpu_that_torch_cannot_use_is_a_warning_that_says_why(
    machine: Machine, cuda: str | None, visible: str | None, why: str, caplog: pytest.LogCaptureFixture
) -> None:
    """A torch without CUDA on a GPU node computes on the CPU for days without a word."""
    machine.has()
    (machine.dev / "nvidia0").touch()
    (machine.dev / "nvidiactl").touch()
    machine.patch.setattr(torch.version, "cuda", cuda)
    if visible is not None:
        machine.patch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert choose_runtime().device == "cpu"
    (record,) = (record for record in caplog.records if record.levelno == logging.WARNING)
    assert "1 NVIDIA GPU" in record.getMessage()
    assert why in record.getMessage()
    with pytest.raises(ResourceError, match=why):
        choose_runtime("cuda")


@pytest.mark.parametrize("device", ["auto", "cpu"])
def test_without_a_gpu_nothing_is_warned_of(machine: Machine, device: str, caplog: pytest.LogCaptureFixture) -> None:
    machine.has()
    (machine.dev / "nvidiactl").touch()  # the driver's, no card
    choose_runtime(device)  # type: ignore[arg-type]
    assert not [record for record in caplog.records if record.levelno >= logging.WARNING]


def test_cuda_without_a_device_is_refused_with_the_mend(machine: Machine) -> None:
    machine.has()
    with pytest.raises(ResourceError, match=r"--device cuda.*--device cpu"):
        choose_runtime("cuda")


def test_memory_that_a_heap_holds_goes_back_to_the_system() -> None:
    """Blocks too small for pages of their own stay with the process while a later one lives."""
    process = psutil.Process()
    blocks = [torch.ones(25_000) for _ in range(2_000)]
    last = torch.ones(25_000)
    full = process.memory_info().rss
    del blocks
    give_memory_back()
    assert full - process.memory_info().rss > 150 << 20
    assert float(last.sum()) == 25_000


@pytest.mark.parametrize("name", ["resnet50", "mobilenet_v2"])
def test_folding_batch_norm_changes_nothing_and_leaves_none(name: TrunkName) -> None:
    """Held against fp64 without folding: as close as fp32 without folding, but for a factor."""
    network, _ = calibrated(name)
    for module in network.modules():
        if isinstance(module, nn.BatchNorm2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            nn.init.normal_(module.bias, std=0.2)
    image_13HW = torch.from_numpy(cloudy_picture(101, 149, 3)).permute(2, 0, 1)[None].float() - 110
    with torch.inference_mode():
        exact = copy.deepcopy(network).double()(image_13HW.double())
        plain = network(image_13HW)
        folded_network = prepare(network, FP32)
        folded = folded_network(image_13HW)
    assert not [module for module in folded_network.modules() if isinstance(module, nn.BatchNorm2d)]
    for part in ("logits_NTHW", "offsets_NT4HW"):
        wanted = getattr(exact, part)
        error_folded = (getattr(folded, part) - wanted).abs().max()
        error_plain = (getattr(plain, part) - wanted).abs().max()
        assert wanted.std() > 0.1
        assert error_folded < 1e-4 * wanted.abs().max()
        assert error_folded < 4 * error_plain + 1e-6


@pytest.mark.parametrize("name", ["resnet50", "vgg16", "mobilenet_v2"])
def test_a_prepared_network_is_for_inference_in_the_runtimes_precision(name: TrunkName) -> None:
    """All but the heads, whose biases bf16 rounds by up to 0.016, and the light trunk's first two layers."""
    network = prepare(calibrated(name)[0].train(), BF16)
    assert not network.training
    assert not [name for name, tensor in network.named_parameters() if tensor.requires_grad]
    exact = ("heads.", "trunk.features.0.", "trunk.features.1.") if name == "mobilenet_v2" else ("heads.",)
    for parameter, tensor in network.named_parameters():
        assert tensor.dtype == (torch.float32 if parameter.startswith(exact) else torch.bfloat16), parameter


def test_a_heads_bias_is_not_rounded_to_bf16() -> None:
    """Near -4.56, where training starts them, bf16 has steps of 1/32."""
    network, _ = calibrated("resnet50")
    for head in network.heads.values():
        nn.init.zeros_(head.weight)  # type: ignore[arg-type]
        nn.init.constant_(head.bias, -4.5747)  # type: ignore[arg-type]
    with torch.inference_mode():
        logits_NTHW = prepare(network, BF16)(torch.zeros(1, 3, 37, 53)).logits_NTHW
    torch.testing.assert_close(logits_NTHW, torch.full_like(logits_NTHW, 2 * -4.5747))
    assert logits_NTHW.dtype == torch.float32


def test_what_counts_as_out_of_memory() -> None:
    """What torch really raises on this machine, and what it would on a card."""
    with pytest.raises(RuntimeError) as full:
        torch.empty(1 << 50, dtype=torch.uint8)
    assert is_out_of_memory(full.value)
    assert is_out_of_memory(torch.OutOfMemoryError("CUDA out of memory"))
    assert is_out_of_memory(MemoryError())
    assert is_out_of_memory(RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"))
    assert not is_out_of_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
