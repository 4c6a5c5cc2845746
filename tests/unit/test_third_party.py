"""The PyTorch port's .pth and ImageNet weights: files of these layouts, written here with random values, against a
forward pass written from the layout's description alone, in double precision. The authors' .mat: test_matconvnet.py."""

from __future__ import annotations

import pickle
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import Tensor
from torch.nn import functional as F

from tinyface_core.errors import CheckpointError
from tinyface_core.model.checkpoint import load_checkpoint, save_checkpoint
from tinyface_core.model.network import HeatMaps, HRNetwork
from tinyface_core.model.spec import DecodingRule, ModelSpec
from tinyface_core.model.third_party import convert
from tinyface_core.templates import TemplateSet

WEIGHTS = Path(__file__).resolve().parents[3] / "shared" / "weights"
RESNET50 = WEIGHTS / "resnet50_imagenet" / "resnet50_trunk_layer3_fp16.safetensors"
MOBILENET = WEIGHTS / "mobilenet_v2_imagenet" / "mobilenet_v2-b0353104.pth"
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)
DEPTHS = {"resnet50": (3, 4, 6), "resnet101": (3, 4, 23)}
PICTURES = [(37, 53), (63, 46)]  # height, width: odd and even maps at strides 8 and 16, on both axes
State = dict[str, Tensor]


# ------------------------------------------------------------------------------------------------ writing such files
def resnet_state(trunk: str, prefix: str = "") -> State:
    """Torchvision's names and shapes up to layer3; each bn2's variance is so small that epsilon counts."""
    torch.manual_seed(1)
    state: State = {}

    def conv_norm(conv: str, norm: str, shape: tuple[int, ...], gain: float = 1.0, small: float = 1.0) -> None:
        state[f"{prefix}{conv}.weight"] = torch.randn(shape) * small * (2 / (shape[1] * shape[2] * shape[3])) ** 0.5
        state[f"{prefix}{norm}.weight"] = gain * (0.8 + 0.4 * torch.rand(shape[0]))
        state[f"{prefix}{norm}.bias"] = 0.1 * torch.randn(shape[0])
        state[f"{prefix}{norm}.running_mean"] = 0.1 * small * torch.randn(shape[0])
        state[f"{prefix}{norm}.running_var"] = small**2 * (0.8 + 0.4 * torch.rand(shape[0]))
        state[f"{prefix}{norm}.num_batches_tracked"] = torch.tensor(7)

    conv_norm("conv1", "bn1", (64, 3, 7, 7))
    inputs = 64
    for layer, (middle, depth) in enumerate(zip((64, 128, 256), DEPTHS[trunk], strict=True), 1):
        for k in range(depth):
            block = f"layer{layer}.{k}"
            conv_norm(f"{block}.conv1", f"{block}.bn1", (middle, inputs, 1, 1))
            conv_norm(f"{block}.conv2", f"{block}.bn2", (middle, middle, 3, 3), small=0.005)
            conv_norm(f"{block}.conv3", f"{block}.bn3", (4 * middle, middle, 1, 1), gain=0.3)
            if k == 0:
                conv_norm(f"{block}.downsample.0", f"{block}.downsample.1", (4 * middle, inputs, 1, 1))
            inputs = 4 * middle
    state[f"{prefix}fc.weight"], state[f"{prefix}fc.bias"] = torch.ones(1000, 2048), torch.ones(1000)
    return state


def port_state(trunk: str, prefix: str = "model.") -> State:
    state = resnet_state(trunk, prefix)
    for name, channels in (("score_res3", 512), ("score_res4", 1024)):
        state[f"{name}.weight"] = torch.randn(125, channels, 1, 1) * 0.1 * (2 / channels) ** 0.5
        state[f"{name}.bias"] = 0.3 * torch.randn(125)
    taps = torch.tensor([0.25, 0.75, 0.75, 0.25])
    state["score4_upsample.weight"] = torch.zeros(125, 125, 4, 4)
    for channel in range(125):
        state["score4_upsample.weight"][channel, channel] = taps[:, None] * taps
    return state


# --------------------------------------------------------------------- the reference, from the layout's description
def features(
    state: State, x: Tensor, trunk: str, *, prefix: str = "", in_1x1: bool = False, eps: float = 1e-5
) -> State:
    """Outputs of layer1, layer2 and layer3 of a normalised picture."""

    def step(x: Tensor, conv: str, norm: str, stride: int = 1, pad: int = 0) -> Tensor:
        weight, bias, mean, var = (
            state[f"{prefix}{norm}.{end}"].double()[:, None, None]
            for end in ("weight", "bias", "running_mean", "running_var")
        )
        x = F.conv2d(x, state[f"{prefix}{conv}.weight"].double(), None, stride, pad)
        return (x - mean) / torch.sqrt(var + eps) * weight + bias

    found = {}
    x = F.max_pool2d(F.relu(step(x, "conv1", "bn1", 2, 3)), 3, 2, 1)
    for layer, depth in enumerate(DEPTHS[trunk], 1):
        for k in range(depth):
            block, stride = f"layer{layer}.{k}", 2 if k == 0 and layer > 1 else 1
            first, second = (stride, 1) if in_1x1 else (1, stride)
            shortcut = step(x, f"{block}.downsample.0", f"{block}.downsample.1", stride) if k == 0 else x
            y = F.relu(step(x, f"{block}.conv1", f"{block}.bn1", first))
            y = F.relu(step(y, f"{block}.conv2", f"{block}.bn2", second, 1))
            x = F.relu(step(y, f"{block}.conv3", f"{block}.bn3") + shortcut)
        found[f"layer{layer}"] = x
    return found


def port_scores(state: State, rgb_3HW: Tensor, trunk: str, prefix: str) -> Tensor:
    mean, std = (torch.tensor(values, dtype=torch.float64)[:, None, None] for values in (MEAN, STD))
    maps = features(state, ((rgb_3HW.double() / 255 - mean) / std)[None], trunk, prefix=prefix)
    state = {name: tensor.double() for name, tensor in state.items() if name.startswith("score")}
    fine = F.conv2d(maps["layer2"], state["score_res3.weight"], state["score_res3.bias"])
    coarse = F.conv2d(maps["layer3"], state["score_res4.weight"], state["score_res4.bias"])
    coarse = F.conv_transpose2d(coarse, state["score4_upsample.weight"], stride=2, padding=1)
    return fine + coarse[..., : fine.shape[2], : fine.shape[3]]


def scores_of(network: HRNetwork, spec: ModelSpec, rgb_3HW: Tensor) -> Tensor:
    """What our network says, with its channels put back into the file's order."""
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (spec.network.mean, spec.network.std))
    maps: HeatMaps = network.double()(((rgb_3HW.double() - mean) / std)[None])
    return torch.cat([maps.logits_NTHW, *maps.offsets_NT4HW.unbind(2)], 1)


def picture(hw: tuple[int, int]) -> Tensor:
    return torch.rand(3, *hw, generator=torch.Generator().manual_seed(5)) * 255


@pytest.mark.slow
# -------------------------------------------------------------------------------------------------- the port's files
@pytest.mark.parametrize(
    ("trunk", "prefix", "whole"), [("resnet101", "model.", True), ("resnet50", "", False)], ids=["published", "bare"]
)
def test_scores_equal_the_ports_own_forward_pass(tmp_path: Path, trunk: str, prefix: str, whole: bool) -> None:
    """As published (epoch, optimizer and all, names under `model.`), and as a bare state dict without the prefix."""
    state = port_state(trunk, prefix)
    optimizer = {"state": {0: {"momentum_buffer": torch.ones(3)}}, "param_groups": [{"lr": 1e-4}]}
    torch.save(
        {"epoch": 50, "batch_size": 12, "model": state, "optimizer": optimizer} if whole else state, tmp_path / "p.pth"
    )
    network, spec = convert(tmp_path / "p.pth")
    assert spec.network.trunk.name == trunk
    assert spec.provenance["left_out"] == [f"{prefix}fc.bias", f"{prefix}fc.weight"]
    for hw in PICTURES:
        with torch.inference_mode():
            ours, theirs = scores_of(network, spec, picture(hw)), port_scores(state, picture(hw), trunk, prefix)
        assert 0.05 < theirs.std() < 1e3, "the random file does not exercise the network"
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_the_ports_geometry_travels_in_the_spec_through_a_checkpoint(tmp_path: Path) -> None:
    torch.save(port_state("resnet50"), tmp_path / "port.pth")
    network, spec = convert(tmp_path / "port.pth")
    assert (spec.network.trunk.stride_in_1x1, spec.network.trunk.pool_after) == (False, False)
    assert (spec.network.enlargement, spec.network.crop) == ("transposed", (1, 1))
    assert spec.decoding == DecodingRule(first_centre_px=-1.0, back="zoom")
    assert spec.templates == TemplateSet()
    assert spec.name == "port"
    assert spec.provenance["file"] == "port.pth", "no folder of this machine in the file"
    save_checkpoint(tmp_path / "ours.safetensors", network, spec, half=False)
    again, same = load_checkpoint(tmp_path / "ours.safetensors")
    assert same == spec
    with torch.inference_mode():
        there, here = (scores_of(net, spec, picture((37, 53))) for net in (again, network))
    torch.testing.assert_close(there, here, rtol=0, atol=0)


def test_a_state_dict_that_does_not_fit_says_all_that_does_not(tmp_path: Path) -> None:
    state = port_state("resnet50")
    del state["model.layer2.1.bn2.running_var"]
    state["model.layer4.0.conv1.weight"] = torch.ones(512, 1024, 1, 1)  # known, and not needed
    state["model.extra.weight"] = torch.ones(3)
    state["model.bn1.bias"] = torch.ones(32)
    state["model.bn1.weight"][3] = torch.inf
    state["score_res4.weight"] = torch.ones(100, 1024, 1, 1)
    state["score4_upsample.weight"][2, 3] = 0.1
    torch.save(state, tmp_path / "p.pth")
    with pytest.raises(CheckpointError) as refusal:
        convert(tmp_path / "p.pth")
    told = [
        "p.pth: ",
        "missing: model.layer2.1.bn2.running_var;",
        "model.bn1.weight holds values that are not finite",
        "model.bn1.bias is (32,), the network needs (64,)",
        "score_res4.weight is (100, 1024, 1, 1), the network needs (125, 1024, 1, 1)",
        "score4_upsample.weight was trained",
        "without a place: model.extra.weight.",
    ]
    assert [text for text in told if text not in str(refusal.value)] == []


def test_naming_the_trunk_decides(tmp_path: Path) -> None:
    torch.save(port_state("resnet50"), tmp_path / "p.pth")
    with pytest.raises(CheckpointError, match=r"missing: model\.layer3\.6\.conv1\.weight, .* and \d+ more"):
        convert(tmp_path / "p.pth", trunk="resnet101")


# --------------------------------------------------------------------------------------------- files that are refused
class Attack:
    """Unpickled without care, it leaves a file behind."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return Path.touch, (self.path,)


@pytest.mark.parametrize("zipped", [True, False], ids=["torch.save", "bare pickle"])
def test_code_in_a_pickle_is_refused_and_does_not_run(tmp_path: Path, zipped: bool) -> None:
    content = {"model": {"conv1.weight": torch.ones(1)}, "epoch": Attack(tmp_path / "ran")}
    path = tmp_path / "evil.pth"
    if zipped:
        torch.save(content, path)
    else:
        path.write_bytes(pickle.dumps(content, protocol=2))
    with pytest.raises(CheckpointError, match=r"evil\.pth: holds more than weights, .* nothing in it was run"):
        convert(path)
    assert not (tmp_path / "ran").exists()


def test_a_torn_file_is_refused(tmp_path: Path) -> None:
    torch.save({"conv1.weight": torch.ones(500)}, tmp_path / "whole.pth")
    save_file({"conv1.weight": torch.ones(500)}, tmp_path / "whole.safetensors")
    for ending in ("pth", "safetensors"):
        content = (tmp_path / f"whole.{ending}").read_bytes()
        for size in (0, 5, 600, len(content) - 50):
            (tmp_path / f"torn.{ending}").write_bytes(content[:size])
            with pytest.raises(CheckpointError, match=rf"torn\.{ending}: (a broken|an empty|neither a)"):
                convert(tmp_path / f"torn.{ending}")


@pytest.mark.parametrize(
    ("content", "told"),
    [
        ({"conv1.weight": torch.ones(3)}, "of no trunk that is known: it has none of layer3.22.conv1.weight.*--trunk"),
        ({"conv1.weight": torch.ones(3), "epoch": 3}, "epoch is not a tensor"),
        ({"model": torch.ones(3)}, "holds a Tensor, not a dict"),
        ([torch.ones(3)], "holds a list, not a dict"),
        ({}, "holds nothing"),
    ],
)
def test_other_pytorch_files_are_refused(tmp_path: Path, content: Any, told: str) -> None:
    torch.save(content, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=rf"other\.pth: .*{told}"):
        convert(tmp_path / "other.pth")


def test_no_file_a_picture_and_our_own_checkpoint_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pth: cannot be read \(No such file"):
        convert(tmp_path / "none.pth")
    (tmp_path / "a.jpg").write_bytes(b"\xff\xd8\xff\xe0" + bytes(600))
    with pytest.raises(CheckpointError, match=r"a\.jpg: neither a MatConvNet"):
        convert(tmp_path / "a.jpg")
    save_file({"x": torch.ones(3)}, tmp_path / "ours.safetensors", {"tinyface": "{}"})
    with pytest.raises(CheckpointError, match=r"ours\.safetensors: is a tinyface checkpoint already"):
        convert(tmp_path / "ours.safetensors")


# --------------------------------------------------------------------------------------------------- ImageNet weights
@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_imagenet_weights_give_heads_of_zeros_in_our_own_geometry(tmp_path: Path, ending: str) -> None:
    state = resnet_state("resnet50") | {"layer4.2.bn3.bias": torch.ones(2048)}
    path = tmp_path / f"resnet50.{ending}"
    torch.save(state, path) if ending == "pth" else save_file(state, path)
    network, spec = convert(path)
    assert spec.network.enlargement == "aligned"
    assert spec.decoding == DecodingRule()
    assert spec.network.mean == pytest.approx([255 * value for value in MEAN])
    assert spec.network.std == pytest.approx([255 * value for value in STD])
    assert spec.provenance["left_out"] == ["fc.bias", "fc.weight", "layer4.2.bn3.bias"]
    assert not any(bool(tensor.any()) for tensor in network.heads.state_dict().values())
    x = torch.randn(1, 3, 37, 53, dtype=torch.float64)
    with torch.inference_mode():
        ours, theirs = network.double().trunk(x), features(state, x, "resnet50")
    for stride, layer in ((4, "layer1"), (8, "layer2"), (16, "layer3")):
        torch.testing.assert_close(ours[stride], theirs[layer], rtol=1e-6, atol=1e-6)


def test_kerass_form_has_its_own_stride_epsilon_and_input(tmp_path: Path) -> None:
    torch.save(resnet_state("resnet50"), tmp_path / "keras.pth")
    spec = convert(tmp_path / "keras.pth", form="keras")[1]
    assert (spec.network.trunk.stride_in_1x1, spec.network.trunk.bn_eps) == (True, 1e-3)
    assert (spec.network.mean, spec.network.std) == ((123.68, 116.779, 103.939), (1, 1, 1))


@pytest.mark.skipif(not RESNET50.is_file(), reason="needs ../shared/weights/resnet50_imagenet")
def test_the_real_resnet50_computes_what_its_description_says() -> None:
    """Features of a picture, against the description's forward pass: stride in the first 1x1, epsilon 0.001."""
    network, spec = convert(RESNET50, form="keras")
    state = {name: tensor.double() for name, tensor in network.trunk.state_dict().items()}
    raw = load_file(RESNET50)
    assert set(raw) == {name for name in state if not name.endswith("num_batches_tracked")}
    x = (picture((61, 83)).double() - torch.tensor(spec.network.mean).double()[:, None, None])[None]
    with torch.inference_mode():
        ours, theirs = network.double().trunk(x), features(raw, x, "resnet50", in_1x1=True, eps=1e-3)
    for stride, layer in ((4, "layer1"), (8, "layer2"), (16, "layer3")):
        torch.testing.assert_close(ours[stride], theirs[layer], rtol=1e-6, atol=1e-6)


@pytest.mark.skipif(not MOBILENET.is_file(), reason="needs ../shared/weights/mobilenet_v2_imagenet")
def test_the_real_mobilenet_converts_and_leaves_out_only_what_lies_behind() -> None:
    network, spec = convert(MOBILENET)
    assert spec.network.trunk.name == "mobilenet_v2"
    behind = ("classifier.", "features.14.conv.", "features.15.", "features.16.", "features.17.", "features.18.")
    assert all(name.startswith(behind) for name in spec.provenance["left_out"])
    assert bool(torch.isfinite(network.trunk(torch.randn(1, 3, 37, 53))[16]).all())
