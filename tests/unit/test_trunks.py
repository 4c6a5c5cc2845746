"""Each trunk looks where its grid says, and takes ImageNet's tensors under torchvision's names."""

from __future__ import annotations

from collections import Counter
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor, nn
from torch.nn import functional as F

from tinyface_core.errors import CheckpointError
from tinyface_core.model.convolve import plain
from tinyface_core.model.spec import TrunkConfig
from tinyface_core.model.trunks import STRIDES, Trunk, build_trunk, load_imagenet

WEIGHTS = Path(__file__).resolve().parents[3] / "shared" / "weights"
RESNET50 = WEIGHTS / "resnet50_imagenet" / "resnet50_trunk_layer3_fp16.safetensors"
MOBILENET = WEIGHTS / "mobilenet_v2_imagenet" / "mobilenet_v2-b0353104.pth"
CONFIGS = [
    TrunkConfig("resnet50"),
    TrunkConfig("resnet50", stride_in_1x1=True),
    TrunkConfig("resnet50", stride_in_1x1=True, pool_after=True),
    TrunkConfig("resnet101", stride_in_1x1=True, pool_after=True),
    TrunkConfig("vgg16"),
    TrunkConfig("mobilenet_v2"),
]


def mean_pool(
    x: Tensor, size: Any, stride: Any, padding: Any = 0, *_: Any, ceil_mode: bool = False, **__: Any
) -> Tensor:
    return F.avg_pool2d(x, size, stride, padding, ceil_mode)


@pytest.fixture
def opened(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Opens a trunk so that every pixel a cell sees has a derivative above 0: weights above 0, batch-norm that does
    nothing, pooling that takes the mean of the same windows. Doubles, for the product of a hundred small weights."""
    monkeypatch.setattr(F, "max_pool2d", mean_pool)

    def open_up(trunk: Trunk) -> Trunk:
        torch.manual_seed(0)
        for module in trunk.modules():
            if isinstance(module, nn.Conv2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
                module.weight.data /= module.weight[0].numel()
        return trunk.double().eval()

    return open_up


def seen_px(trunk: Trunk, stride: int, hw: tuple[int, int], cell: tuple[int, int]) -> Tensor:
    """Whether each pixel of an image of this size counts for a cell (row, column), (H, W)."""
    image = torch.full((1, 3, *hw), 1e-3, dtype=torch.float64, requires_grad=True)  # small: below every ReLU6
    trunk(image, [stride])[stride][0, :, cell[0], cell[1]].sum().backward()
    assert image.grad is not None
    return image.grad[0].sum(0) > 0


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_a_cell_sees_exactly_its_receptive_field_around_its_centre(config: TrunkConfig, opened: Any) -> None:
    """On a strip that is long enough, once along x and once along y."""
    trunk = opened(build_trunk(config))
    for stride in STRIDES:
        grid = trunk.grids[stride]
        index = int((grid.receptive_field / 2 - grid.centre) // stride) + 2
        middle = grid.centre + stride * index
        long, short = int(middle + grid.receptive_field / 2) + 9, 19
        expected = (torch.arange(long) - middle).abs() <= (grid.receptive_field - 1) / 2
        assert int(expected.sum()) == grid.receptive_field < long
        torch.testing.assert_close(seen_px(trunk, stride, (short, long), (0, index)).any(0), expected)
        torch.testing.assert_close(seen_px(trunk, stride, (long, short), (index, 0)).any(1), expected)


def test_receptive_fields_are_the_published_ones() -> None:
    """The authors' form: 291 px for ResNet-50's res4, 835 px for ResNet-101's; cells at 8 i + 2 and 16 j + 2."""
    for name, field in (("resnet50", 291), ("resnet101", 835)):
        grids = build_trunk(TrunkConfig(name, stride_in_1x1=True, pool_after=True)).grids
        assert (grids[16].receptive_field, grids[16].centre, grids[8].centre) == (field, 2, 2)
    assert [build_trunk(TrunkConfig("vgg16")).grids[s].centre for s in (8, 16)] == [3.5, 7.5]
    for name in ("resnet50", "resnet101", "mobilenet_v2"):
        assert {grid.centre for grid in build_trunk(TrunkConfig(name)).grids.values()} == {0}


@pytest.mark.parametrize(
    ("config", "sizes"),
    [
        (CONFIGS[0], {4: (256, 10, 14), 8: (512, 5, 7), 16: (1024, 3, 4)}),
        (
            CONFIGS[2],
            {4: (256, 9, 13), 8: (512, 5, 7), 16: (1024, 3, 4)},
        ),  # an odd map loses its last row in the pooling
        (CONFIGS[4], {4: (256, 9, 13), 8: (512, 4, 6), 16: (512, 2, 3)}),
        (CONFIGS[5], {4: (144, 10, 14), 8: (192, 5, 7), 16: (576, 3, 4)}),
    ],
    ids=str,
)
def test_features_have_the_channels_and_sizes_that_are_stated(config: TrunkConfig, sizes: dict[int, Any]) -> None:
    trunk = build_trunk(config).eval()
    with torch.inference_mode():
        features = trunk(torch.zeros(2, 3, 37, 53))
    assert {stride: tuple(maps.shape[1:]) for stride, maps in features.items()} == sizes
    assert trunk.channels == {stride: size[0] for stride, size in sizes.items()}


@pytest.mark.parametrize("config", CONFIGS, ids=str)
def test_only_the_strides_that_are_asked_for_are_computed_and_none_twice(config: TrunkConfig) -> None:
    trunk, run = build_trunk(config).eval(), Counter[nn.Module]()

    def counted(x: Tensor, convolution: nn.Conv2d, *rest: Any) -> Tensor:
        run.update([convolution])
        return plain(x, convolution, *rest)

    trunk.convolve = counted
    image_N3HW = torch.randn(1, 3, 37, 53)
    with torch.inference_mode():
        every = trunk(image_N3HW)
        assert set(run) == {module for module in trunk.modules() if isinstance(module, nn.Conv2d)}
        assert set(run.values()) == {1}
        whole = len(run)
        for strides in ([8], [8, 16], [4]):
            run.clear()
            some = trunk(image_N3HW, strides)
            assert list(some) == strides
            assert all(torch.equal(some[stride], every[stride]) for stride in strides)
            assert len(run) < whole or 16 in strides


def test_an_unknown_trunk_is_refused() -> None:
    with pytest.raises(CheckpointError, match="'alexnet' is not known; known are resnet50"):
        build_trunk(TrunkConfig("alexnet"))  # type: ignore[arg-type]


def test_imagenet_tensors_must_be_there_and_fit() -> None:
    trunk = build_trunk(TrunkConfig("mobilenet_v2"))
    state = {name: torch.ones_like(tensor) for name, tensor in trunk.state_dict().items()}
    assert load_imagenet(trunk, state | {"classifier.1.bias": torch.ones(9)}) == ["classifier.1.bias"]
    assert bool((trunk.features[0][0].weight == 1).all())  # type: ignore[index, union-attr]
    first = "features.0.0.weight"
    with pytest.raises(CheckpointError, match=rf"{first} is missing"):
        load_imagenet(trunk, {name: tensor for name, tensor in state.items() if name != first})
    with pytest.raises(CheckpointError, match=rf"{first} is \(3,\), the trunk needs \(32, 3, 3, 3\)"):
        load_imagenet(trunk, state | {first: torch.ones(3)})


@pytest.mark.skipif(not RESNET50.is_file(), reason="needs ../shared/weights/resnet50_imagenet")
def test_the_real_resnet50_loads_whole() -> None:
    trunk = build_trunk(TrunkConfig("resnet50", stride_in_1x1=True, bn_eps=1e-3))
    state = load_file(RESNET50)
    assert load_imagenet(trunk, state) == []
    torch.testing.assert_close(trunk.state_dict()["layer3.5.conv3.weight"], state["layer3.5.conv3.weight"].float())


@pytest.mark.skipif(not MOBILENET.is_file(), reason="needs ../shared/weights/mobilenet_v2_imagenet")
def test_the_real_mobilenet_v2_loads_up_to_stride_16() -> None:
    trunk = build_trunk(TrunkConfig("mobilenet_v2"))
    left = load_imagenet(trunk, torch.load(MOBILENET, weights_only=True))
    assert {name.split(".")[1] for name in left} == {"1", "14", "15", "16", "17", "18"}  # 1: of the classifier
