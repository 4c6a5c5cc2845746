"""The authors' .mat: files of that layout with random values, against a forward pass written from the layout's
description alone (sigma, padding behind, transposed enlargement and its crop), in double precision."""

from __future__ import annotations

import struct
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io
import torch
from torch import Tensor
from torch.nn import functional as F

from tests.unit.matconvnet_files import BLOCKS, EPSILON, MEAN, Record, Values, array, cell, resnet, save, vgg16
from tinyface_core.errors import CheckpointError
from tinyface_core.model.network import HeatMaps, HRNetwork
from tinyface_core.model.spec import DecodingRule, ModelSpec
from tinyface_core.model.third_party import convert
from tinyface_core.templates import PUBLISHED

PICTURES = [(37, 53), (63, 46)]  # height, width: odd and even maps at strides 8 and 16, on both axes


# --------------------------------------------------------------------- the reference, from the layout's description
def conv(x: Tensor, params: Values, name: str, stride: int = 1, pad: int = 0, ends: str = "_filter _bias") -> Tensor:
    weight, bias = (params.get(name + end) for end in ends.split())
    kernel = torch.from_numpy(weight.transpose(3, 2, 0, 1).copy()).double()
    return F.conv2d(x, kernel, None if bias is None else torch.from_numpy(bias.ravel()).double(), stride, pad)


def norm(x: Tensor, params: Values, name: str, ends: str = "_mult _bias _moments") -> Tensor:
    mult, bias, moments = (torch.from_numpy(params[name + end]).double() for end in ends.split())
    mean, sigma = moments[:, 0], moments[:, 1]
    return (x - mean[:, None, None]) / sigma[:, None, None] * mult.view(-1, 1, 1) + bias.view(-1, 1, 1)


def resnet_scores(params: Values, rgb_3HW: Tensor, trunk: str) -> Tensor:
    x = F.relu(norm(conv(less_mean(rgb_3HW), params, "conv1", 2, 3), params, "bn_conv1"))
    x = F.max_pool2d(F.pad(x, (0, 1, 0, 1), value=-torch.inf), 3, 2)
    ends = {}
    for stage in (2, 3, 4):
        for letter in BLOCKS[trunk][stage].split():
            name, stride = f"{stage}{letter}", 2 if letter == "a" and stage > 2 else 1
            shortcut = x
            if letter == "a":
                shortcut = norm(conv(x, params, f"res{name}_branch1", stride), params, f"bn{name}_branch1")
            y = F.relu(norm(conv(x, params, f"res{name}_branch2a", stride), params, f"bn{name}_branch2a"))
            y = F.relu(norm(conv(y, params, f"res{name}_branch2b", 1, 1), params, f"bn{name}_branch2b"))
            x = F.relu(norm(conv(y, params, f"res{name}_branch2c"), params, f"bn{name}_branch2c") + shortcut)
        ends[stage] = x
    return fused(conv(ends[3], params, "score_res3"), conv(ends[4], params, "score_res4"), params["score4f"], 2)


def vgg_scores(params: Values, rgb_3HW: Tensor, _trunk: str) -> Tensor:
    x, ends = less_mean(rgb_3HW), {}
    for stage, depth in enumerate((2, 2, 3, 3, 3), 1):
        for i in range(1, depth + 1):
            x = conv(x, params, f"conv{stage}_{i}", 1, 1, "f b")
            x = F.relu(norm(x, params, f"bn{stage}_{i}", "m b x") if stage < 3 else x)
        ends[stage] = x
        x = F.max_pool2d(x, 2, 2)
    heads = (conv(ends[stage], params, f"some_head_{stage}", ends="_w _bias") for stage in (4, 5))
    return fused(*heads, params["up_w"], 1)


def less_mean(rgb_3HW: Tensor) -> Tensor:
    return (rgb_3HW.double() - torch.tensor(MEAN, dtype=torch.float32).double()[:, None, None])[None]


def fused(fine: Tensor, coarse: Tensor, kernel: np.ndarray[Any, Any], after: int) -> Tensor:
    """Enlarged by the file's own kernel, cropped, and added where both have a score."""
    up = F.conv_transpose2d(coarse, torch.from_numpy(kernel.transpose(3, 2, 0, 1).copy()).double(), stride=2)
    up = up[..., 1:-after, 1:-after]
    height, width = min(fine.shape[2], up.shape[2]), min(fine.shape[3], up.shape[3])
    return fine[..., :height, :width] + up[..., :height, :width]


def scores_of(network: HRNetwork, spec: ModelSpec, rgb_3HW: Tensor) -> Tensor:
    """What our network says, with its channels put back into the file's order."""
    mean, std = (torch.tensor(v, dtype=torch.float64)[:, None, None] for v in (spec.network.mean, spec.network.std))
    maps: HeatMaps = network.double()(((rgb_3HW.double() - mean) / std)[None])
    return torch.cat([maps.logits_NTHW, *maps.offsets_NT4HW.unbind(2)], 1)


@pytest.fixture(scope="module")
def resnet50() -> Record:
    return resnet("resnet50", 1)


@pytest.fixture(scope="module")
def file_of(tmp_path_factory: pytest.TempPathFactory, resnet50: Record) -> Callable[[str], tuple[Path, Record]]:
    made: dict[str, tuple[Path, Record]] = {}

    def make(trunk: str) -> tuple[Path, Record]:
        if trunk not in made:
            content = resnet50 if trunk == "resnet50" else vgg16(3) if trunk == "vgg16" else resnet(trunk, 2)
            made[trunk] = save(tmp_path_factory.mktemp(trunk) / "net.mat", content), content
        return made[trunk]

    return make


@pytest.mark.slow
# ------------------------------------------------------------------------------------------------------------- tests
@pytest.mark.parametrize("trunk", ["resnet50", "resnet101", "vgg16"])
def test_scores_equal_the_formats_own_forward_pass(trunk: str, file_of: Any) -> None:
    path, content = file_of(trunk)
    network, spec = convert(path)
    assert spec.network.trunk.name == trunk
    reference = vgg_scores if trunk == "vgg16" else resnet_scores
    for hw in PICTURES:
        rgb_3HW = torch.rand(3, *hw, generator=torch.Generator().manual_seed(5)) * 255
        with torch.inference_mode():
            ours, theirs = scores_of(network, spec, rgb_3HW), reference(content["params"], rgb_3HW, trunk)
        assert 0.05 < theirs.std() < 1e3, "the random file does not exercise the network"
        torch.testing.assert_close(ours, theirs, rtol=1e-5, atol=1e-5 * float(theirs.abs().max()))


def test_the_files_geometry_templates_and_colour_travel_in_the_spec(file_of: Any) -> None:
    spec = convert(file_of("resnet50")[0], name="hr")[1]
    trunk = spec.network.trunk
    assert (spec.name, trunk.stride_in_1x1, trunk.pool_after) == ("hr", True, True)
    assert trunk.bn_eps == EPSILON
    assert (spec.network.enlargement, spec.network.crop) == ("transposed", (1, 2))
    assert spec.decoding == DecodingRule(first_centre_px=-1.0, back="zoom")
    assert spec.network.mean == pytest.approx(MEAN)
    assert spec.network.std == (1, 1, 1)
    found = np.array([(t.width, t.height, t.resolution) for t in spec.templates.templates])
    np.testing.assert_allclose(found, [(t.width, t.height, t.resolution) for t in PUBLISHED])


def test_vgg16_cells_are_where_its_receptive_fields_say(file_of: Any) -> None:
    spec = convert(file_of("vgg16")[0])[1]
    assert spec.decoding == DecodingRule(first_centre_px=4.5, back="zoom")
    assert spec.network.crop == (1, 1)


def test_a_plain_imagenet_file_gives_heads_of_zeros_in_our_own_geometry(tmp_path: Path) -> None:
    """No `net` around it; res5 and the classifier are left out; the trunk's own padding stays."""
    content = resnet("resnet50", 4, heads=False)
    extra = {"res5a_branch1_filter": np.ones((1, 1, 8, 8)), "bn5a_branch1_mult": np.ones(8), "fc1000_bias": np.ones(9)}
    content["params"] = content["params"] | extra
    network, spec = convert(save(tmp_path / "imagenet-resnet-50-dag.mat", content, wrapper=False))
    assert spec.provenance["left_out"] == sorted(extra)
    assert (spec.network.enlargement, spec.decoding, spec.network.trunk.pool_after) == ("aligned", DecodingRule(), True)
    assert not any(bool(tensor.any()) for tensor in network.heads.state_dict().values())
    kernel = content["params"]["res4f_branch2b_filter"]
    np.testing.assert_array_equal(network.trunk.layer3[5].conv2.weight.detach().numpy(), kernel.transpose(3, 2, 0, 1))


def test_a_files_own_strides_and_padding_win(tmp_path: Path, resnet50: Record) -> None:
    layers = [layer | {"block": dict(layer["block"])} for layer in resnet50["layers"]]
    for layer in layers:
        if layer["name"] in ("res3a_branch2a", "res4a_branch2a", "res3a_branch2b", "res4a_branch2b"):
            layer["block"]["stride"] = array([1, 1] if layer["name"].endswith("2a") else [2, 2])
        if layer["name"] == "pool1":
            layer["block"]["pad"] = array([1])
    trunk = convert(save(tmp_path / "net.mat", resnet50 | {"layers": layers}))[1].network.trunk
    assert (trunk.stride_in_1x1, trunk.pool_after) == (False, False)


def test_a_matlab_object_in_meta_is_skipped(tmp_path: Path, resnet50: Record) -> None:
    """`var2idx` is a containers.Map, which is no value that scipy can read."""
    marker = b"var2idx-stands-here" * 5 + b"!"
    meta = resnet50["meta"] | {"var2idx": np.frombuffer(marker, np.uint8)[None]}
    path = save(tmp_path / "net.mat", resnet50 | {"meta": meta})
    content = path.read_bytes()
    begin = content.index(marker) - 8 - 8 - 16 - 16  # tags of data and name, dimensions, flags
    text = [
        struct.pack("<II", 1, len(t)) + t.ljust(-len(t) % 8 + len(t), b"\0") for t in (b"", b"MCOS", b"containers.Map")
    ]
    inner = struct.pack("<IIIIIIiiIIII", 6, 8, 13, 0, 5, 8, 6, 1, 1, 0, 6, 24) + struct.pack("<6I", *range(6))
    opaque = struct.pack("<IIII", 6, 8, 17, 0) + b"".join(text) + struct.pack("<II", 14, len(inner)) + inner
    assert len(opaque) == 48 + len(marker)
    path.write_bytes(content[:begin] + opaque + content[begin + len(opaque) :])
    assert type(scipy.io.loadmat(path)["net"][0, 0]["meta"][0, 0]["var2idx"]).__name__ == "MatlabOpaque"
    assert convert(path)[1].network.trunk.name == "resnet50"


def test_a_file_that_does_not_fit_says_all_that_does_not(tmp_path: Path, resnet50: Record) -> None:
    params, meta = dict(resnet50["params"]), dict(resnet50["meta"])
    for name in ("res3b_branch2b_filter", "bn4f_branch2c_moments", "score_res4_bias"):
        del params[name]
    params |= {
        "conv1_filter": np.zeros((5, 5, 3, 64)),
        "bn_conv1_mult": np.ones((8, 8)),
        "bn_conv1_moments": np.zeros((64, 2)),
        "bn_conv1_bias": np.full((64, 1), np.nan),
        "score_res2_filter": np.zeros((1, 1, 256, 125)),
        "score_res3_filter": np.zeros((1, 1, 512, 100)),
        "score4f": np.ones((4, 4, 125, 125)),
    }
    layers = [layer | {"block": dict(layer["block"])} for layer in resnet50["layers"]]
    layers[0]["block"]["pad"] = array([2, 3, 2, 3])
    meta["clusters"] = np.ones((20, 5))
    del meta["normalization"]
    with pytest.raises(CheckpointError) as refusal:
        convert(save(tmp_path / "net.mat", {"params": params, "layers": layers, "meta": meta}))
    told = [
        "net.mat: ",
        "missing: res3b_branch2b_filter, bn4f_branch2c_moments, score_res4_bias;",
        "without a place: score_res2_filter.",
        "conv1_filter is (5, 5, 3, 64), the network needs (7, 7, 3, 64)",
        "bn_conv1_mult is (8, 8), the network needs (64,)",
        "bn_conv1_moments has a sigma (second column) that is not above 0",
        "bn_conv1_bias holds values that are not finite",
        "score_res3_filter is (1, 1, 512, 100), the network needs (1, 1, 512, 125)",
        "score4f was trained",
        "layer conv1 has stride (2, 2) and pad (2, 3, 2, 3), the network has (2, 2) and (3, 3, 3, 3)",
        "meta.clusters is (20, 5), needed: (25, 5)",
        "averageImage is missing",
    ]
    assert [text for text in told if text not in str(refusal.value)] == []


def test_a_file_without_templates_or_kernel_is_refused(tmp_path: Path, resnet50: Record) -> None:
    params = {name: value for name, value in resnet50["params"].items() if name != "score4f"}
    meta = {name: value for name, value in resnet50["meta"].items() if name != "clusters"}
    with pytest.raises(CheckpointError, match=r"missing: score4f; wrong: meta\.clusters is missing"):
        convert(save(tmp_path / "net.mat", resnet50 | {"params": params, "meta": meta}))


def test_a_vgg16_head_behind_a_pooling_is_refused(tmp_path: Path, file_of: Any) -> None:
    content = file_of("vgg16")[1]
    moved = [x | {"inputs": cell(["pool5"])} if x["name"] == "some_head_5" else x for x in content["layers"]]
    with pytest.raises(CheckpointError, match="layer some_head_5 looks like a head, but sits neither on conv4_3 nor"):
        convert(save(tmp_path / "net.mat", content | {"layers": moved}))


def test_a_torn_file_is_refused(tmp_path: Path, file_of: Any) -> None:
    content = file_of("resnet50")[0].read_bytes()
    for size in (130, 1000, len(content) // 3, len(content) - 1000):
        (tmp_path / "net.mat").write_bytes(content[:size])
        with pytest.raises(CheckpointError, match=r"net\.mat: (a broken \.mat file|params is missing)"):
            convert(tmp_path / "net.mat")


def test_hdf5_is_refused_with_the_way_out(tmp_path: Path) -> None:
    header = b"MATLAB 7.3 MAT-file, Platform: GLNXA64".ljust(512) + b"\x89HDF\r\n\x1a\n"
    for content in (header, header[512:]):
        (tmp_path / "net.mat").write_bytes(content + bytes(100))
        with pytest.raises(CheckpointError, match=r"net\.mat: a MATLAB v7\.3 file \(HDF5\).*'-v7'"):
            convert(tmp_path / "net.mat")


def test_other_mat_files_are_refused(tmp_path: Path, resnet50: Record) -> None:
    scipy.io.savemat(tmp_path / "a.mat", {"x": np.ones(3)})
    with pytest.raises(CheckpointError, match=r"a\.mat: params is missing; needed: name, value"):
        convert(tmp_path / "a.mat")
    other = {"params": {"w": np.ones(3)}, "layers": resnet50["layers"], "meta": {}}
    with pytest.raises(CheckpointError, match="none of res4b22_branch2a_filter, res4f_branch2a_filter, conv5_3f"):
        convert(save(tmp_path / "b.mat", other))
