"""The coarse scores land where they look, the whole network sees what its halo says, and channels keep their order."""

from __future__ import annotations

import itertools
import math
from collections.abc import Collection
from dataclasses import replace
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from tinyface_core.geometry import CellGrid
from tinyface_core.model.network import HeatMaps, HRNetwork
from tinyface_core.model.spec import NetworkConfig, TrunkConfig, TrunkName

MSRA = TrunkConfig("resnet50", stride_in_1x1=True, pool_after=True)
OURS: list[TrunkName] = ["resnet50", "resnet101", "vgg16", "mobilenet_v2"]


class Given(nn.Module):
    """In place of a trunk: features that a test gives, on the grids of the real one."""

    def __init__(self, grids: dict[int, CellGrid], features: dict[int, Tensor]) -> None:
        super().__init__()
        self.grids, self.features = grids, features

    def forward(self, _image: Tensor, strides: Collection[int]) -> dict[int, Tensor]:
        return {stride: maps for stride, maps in self.features.items() if stride in strides}


def enlarged(config: NetworkConfig, coarse_HW: Tensor, fine_hw: tuple[int, int]) -> Tensor:
    """What a network makes of these res4 scores where res3 has none, (h, w): one template, its logit."""
    network = HRNetwork(config)
    fine, coarse = network.trunk.channels[8], network.trunk.channels[16]
    features = {8: torch.zeros(1, fine, *fine_hw), 16: torch.zeros(1, coarse, *coarse_HW.shape)}
    features[16][0, 0] = coarse_HW
    network.trunk = Given(network.trunk.grids, features)  # type: ignore[assignment]
    network.heads["16"].weight.data[0, 0] = 1
    with torch.inference_mode():
        return network(torch.zeros(1, 3, 1, 1)).logits_NTHW[0, 0]


def impulse(hw: tuple[int, int], cell: tuple[int, int]) -> Tensor:
    return torch.zeros(hw).index_put((torch.tensor(cell[0]), torch.tensor(cell[1])), torch.tensor(1.0))


def centre_of_mass(map_HW: Tensor) -> list[float]:
    rows, columns = (torch.arange(n, dtype=torch.float32) for n in map_HW.shape)
    return [float((map_HW.sum(1) * rows).sum() / map_HW.sum()), float((map_HW.sum(0) * columns).sum() / map_HW.sum())]


@pytest.mark.parametrize("name", OURS)
def test_a_coarse_score_lands_on_the_fine_cells_that_look_at_its_pixel(name: TrunkName) -> None:
    """ResNet and MobileNet: cell j on cell 2 j, alone at the top. VGG16: midway between 2 j and 2 j + 1."""
    config = NetworkConfig(TrunkConfig(name), outputs=1)
    grids = HRNetwork(config).trunk.grids
    map_HW = enlarged(config, impulse((5, 7), (2, 3)), (10, 14))
    expected = [(grids[16].centre + 16 * j - grids[8].centre) / 8 for j in (2, 3)]
    assert centre_of_mass(map_HW) == pytest.approx(expected)
    assert float(map_HW.sum()) == pytest.approx(4)
    if name == "vgg16":
        assert expected == [4.5, 6.5]
        assert (map_HW == map_HW.max()).nonzero().tolist() == [[4, 6], [4, 7], [5, 6], [5, 7]]
    else:
        assert expected == [4, 6]
        assert (map_HW == map_HW.max()).nonzero().tolist() == [[4, 6]]


@pytest.mark.parametrize(
    ("trunk", "crop", "size"),
    [(MSRA, (1, 2), (9, 13)), (TrunkConfig("resnet50"), (1, 1), (10, 14))],
    ids=["mat", "pth"],
)
def test_an_imported_coarse_score_lands_half_a_cell_further(
    trunk: TrunkConfig, crop: tuple[int, int], size: tuple[int, int]
) -> None:
    """On 2 j + 0.5, as the weights were trained; the map is as long as the crop leaves it, 2 n - 1 or 2 n."""
    config = NetworkConfig(trunk, outputs=1, enlargement="transposed", crop=crop)
    map_HW = enlarged(config, impulse((5, 7), (2, 3)), (10, 14))
    assert tuple(map_HW.shape) == size
    assert centre_of_mass(map_HW) == pytest.approx([4.5, 6.5])
    assert float(map_HW.max()) == pytest.approx(0.75**2)


@pytest.mark.parametrize("fine_hw", [(10, 14), (9, 13)])
@pytest.mark.parametrize("name", OURS)
def test_beyond_the_last_coarse_cell_its_score_is_repeated(name: TrunkName, fine_hw: tuple[int, int]) -> None:
    config = NetworkConfig(TrunkConfig(name), outputs=1)
    coarse_HW = torch.arange(35, dtype=torch.float32).reshape(5, 7)
    map_HW = enlarged(config, coarse_HW, fine_hw)
    assert map_HW.shape == fine_hw
    assert float(map_HW[-1, -1]) == pytest.approx(34 if fine_hw == (10, 14) else 34 - 2 if name == "vgg16" else 34)
    assert float(map_HW[0, 0]) == 0
    assert torch.equal(enlarged(config, torch.ones(5, 7), fine_hw), torch.ones(fine_hw))


def mean_pool(
    x: Tensor, size: Any, stride: Any, padding: Any = 0, *_: Any, ceil_mode: bool = False, **__: Any
) -> Tensor:
    return F.avg_pool2d(x, size, stride, padding, ceil_mode)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("config", "back"),
    [
        (NetworkConfig(TrunkConfig("resnet50")), 0.0),
        (NetworkConfig(TrunkConfig("mobilenet_v2")), 0.0),
        (NetworkConfig(TrunkConfig("vgg16")), 0.25),
        (NetworkConfig(MSRA, enlargement="transposed", crop=(1, 2)), 0.25),
    ],
    ids=["resnet50", "mobilenet_v2", "vgg16", "mat"],
)
def test_a_score_sees_the_pixels_that_the_geometry_gives_and_none_beyond_the_halo(
    config: NetworkConfig, back: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The derivative of output cell i: with both heads nothing beyond the halo; with res4's alone exactly the fields
    of the coarse cells around i / 2 - back: one for every other cell of ours, else two."""
    monkeypatch.setattr(F, "max_pool2d", mean_pool)
    torch.manual_seed(0)
    network = HRNetwork(config).double().eval()
    for module in network.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.uniform_(module.weight, 0.5, 1.5)
            module.weight.data /= module.weight[0].numel()
    coarse = network.trunk.grids[16]
    length = 2 * coarse.receptive_field + 65
    for heads, index in itertools.product(("both", "coarse"), (2 * (length // 32), 2 * (length // 32) + 1)):
        if heads == "coarse":
            network.heads["8"].weight.data.zero_()
        image = torch.full((1, 3, 19, length), 1e-3, dtype=torch.float64, requires_grad=True)
        network(image).logits_NTHW[0, :, 0, index].sum().backward()
        assert image.grad is not None
        seen = image.grad.sum((0, 1, 2)).nonzero()[:, 0].tolist()
        assert 8 * index - network.halo_px <= seen[0] < seen[-1] < 8 * (index + 1) + network.halo_px
        if heads == "coarse":
            lowest, highest = (16 * end(index / 2 - back) + coarse.centre for end in (math.floor, math.ceil))
            half = (coarse.receptive_field - 1) / 2
            assert seen == list(range(int(lowest - half), int(highest + half) + 1))


def test_channels_are_logits_then_all_tx_all_ty_all_tw_all_th() -> None:
    scores = torch.arange(2 * 15 * 2 * 3, dtype=torch.float32).reshape(2, 15, 2, 3)
    maps = HeatMaps.split(scores)
    assert tuple(maps.logits_NTHW.shape) == (2, 3, 2, 3)
    assert tuple(maps.offsets_NT4HW.shape) == (2, 3, 4, 2, 3)
    for template in range(3):
        assert torch.equal(maps.logits_NTHW[:, template], scores[:, template])
        for k in range(4):
            assert torch.equal(maps.offsets_NT4HW[:, template, k], scores[:, 3 + 3 * k + template])


@pytest.mark.parametrize(
    ("heads", "stride", "size"),
    [((8, 16), 8, (5, 7)), ((4, 8, 16), 4, (10, 14)), ((16,), 16, (3, 4)), ((8,), 8, (5, 7)), ((16, 4), 4, (10, 14))],
)
def test_any_subset_of_the_strides_may_have_a_head(heads: tuple[int, ...], stride: int, size: tuple[int, int]) -> None:
    """The finest gives the grid; each adds to the scores."""
    torch.manual_seed(0)
    network = HRNetwork(NetworkConfig(TrunkConfig("mobilenet_v2"), heads=heads, outputs=3)).eval()
    image = torch.randn(1, 3, 37, 53)
    with torch.inference_mode():
        assert not bool(network(image).logits_NTHW.any()), "fresh heads are zero"
        for number, name in enumerate(network.heads):
            network.heads[name].bias.data[:] = 10.0**number
        maps = network(image)
    assert network.grid.stride == stride
    assert tuple(maps.offsets_NT4HW.shape) == (1, 3, 4, *size)
    assert float(maps.logits_NTHW[0, 0, 0, 0]) == pytest.approx(sum(10.0**number for number in range(len(heads))))


def test_pictures_of_a_batch_do_not_meet() -> None:
    torch.manual_seed(0)
    network = HRNetwork(NetworkConfig(TrunkConfig("mobilenet_v2"), outputs=3)).eval()
    for head in network.heads.values():
        nn.init.normal_(head.weight)
    images = torch.randn(3, 3, 37, 53)
    with torch.inference_mode():
        together = network(images).logits_NTHW
        alone = torch.cat([network(image[None]).logits_NTHW for image in images])
    torch.testing.assert_close(together, alone, rtol=1e-4, atol=1e-5)


@pytest.mark.parametrize("size", [(5, 7), (6, 9)])
@pytest.mark.parametrize(
    "config",
    [
        *(NetworkConfig(TrunkConfig(name)) for name in OURS),
        NetworkConfig(TrunkConfig("mobilenet_v2"), heads=(4, 8, 16)),
        NetworkConfig(TrunkConfig("mobilenet_v2"), heads=(16,)),
        NetworkConfig(MSRA, enlargement="transposed", crop=(1, 2)),
        NetworkConfig(TrunkConfig("resnet50"), enlargement="transposed", crop=(1, 1)),
    ],
    ids=[*OURS, "three heads", "one head", "mat", "pth"],
)
def test_ellipses_at_cells_are_those_of_a_head_over_the_whole_map(config: NetworkConfig, size: tuple[int, int]) -> None:
    """A head of five outputs, its filters those of the regressor, run over all cells and enlarged as scores are; then
    the mean over 5 x 5 cells, those at the edges repeated."""
    torch.manual_seed(0)
    network = HRNetwork(replace(config, outputs=1))
    strides = network.strides
    coarsest = strides[-1]
    hw = {s: (size[0] * coarsest // s - (s < coarsest), size[1] * coarsest // s) for s in strides}
    features = {s: torch.randn(1, network.trunk.channels[s], *hw[s]) for s in strides}
    weight_5C, bias_5 = torch.randn(5, sum(network.trunk.channels[s] for s in strides)) / 50, torch.randn(5)
    network.regress(weight_5C, bias_5)
    network.trunk = Given(network.trunk.grids, features)  # type: ignore[assignment]
    parts = weight_5C.split([features[s].shape[1] for s in strides], dim=1)
    for stride, part in zip(strides, parts, strict=True):
        network.heads[str(stride)].weight.data = part[:, :, None, None].clone()
        network.heads[str(stride)].bias.data = bias_5 * (stride == strides[0])
    with torch.inference_mode():
        maps = network(torch.zeros(1, 3, 1, 1))
        whole_5HW = torch.cat([maps.logits_NTHW, maps.offsets_NT4HW[:, 0]], dim=1)[0]
        means_5HW = F.avg_pool2d(F.pad(whole_5HW[None], (2, 2, 2, 2), mode="replicate"), 5, 1)[0]
        row_K, column_K = (
            index.flatten() for index in torch.meshgrid(*map(torch.arange, whole_5HW.shape[1:]), indexing="ij")
        )
        assert maps.ellipses is not None
        at_cells_K5 = maps.ellipses.at(row_K.flip(0), column_K.flip(0)).flip(0)
    torch.testing.assert_close(at_cells_K5.T.reshape(means_5HW.shape), means_5HW, rtol=1e-4, atol=1e-5)


def test_without_a_regressor_there_are_no_ellipses_and_it_is_never_trained() -> None:
    assert HRNetwork(NetworkConfig(TrunkConfig("mobilenet_v2")))(torch.zeros(1, 3, 37, 53)).ellipses is None
    network = HRNetwork(NetworkConfig(TrunkConfig("mobilenet_v2")), ellipses=True)
    assert {name for name, parameter in network.named_parameters() if not parameter.requires_grad} == {
        f"ellipse.{stride}.{what}" for stride in (8, 16) for what in ("weight", "bias")
    }
    shapes = [tuple(network.get_parameter(f"ellipse.{stride}.weight").shape) for stride in (8, 16)]
    assert shapes == [(5, 192, 1, 1), (5, 576, 1, 1)]
