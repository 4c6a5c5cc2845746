"""A checkpoint gives back what was put in, and one that does not fit names the thing."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from tinyface_core.errors import CheckpointError
from tinyface_core.model.checkpoint import is_half, load_checkpoint, save_checkpoint
from tinyface_core.model.network import HRNetwork
from tinyface_core.model.spec import DecodingRule, Defaults, ModelSpec, NetworkConfig, TrunkConfig, file_hash, read_spec
from tinyface_core.templates import Template, TemplateSet

CONFIG = NetworkConfig(
    TrunkConfig("mobilenet_v2"), heads=(8, 16), outputs=2, mean=(1, 2, 3), std=(4, 5, 6), crop=(1, 2)
)
SPEC = ModelSpec(
    name="light",
    version="7",
    network=CONFIG,
    templates=TemplateSet(
        (Template(9.5, 11, 1), Template(30, 40, 0.5)), outputs=(0, 1), a=(0,), b=(1,), levels=((2.0, (0,)),)
    ),
    decoding=DecodingRule(-1.0, "zoom"),
    defaults=Defaults(0.25, 0.4, (0.5, 1.41)),
    provenance={"pictures": 1300, "notes": ["a", None]},
)


@pytest.fixture(scope="module")
def network() -> HRNetwork:
    torch.manual_seed(0)
    made = HRNetwork(CONFIG).eval()
    for name, tensor in made.state_dict().items():
        if "running" in name:
            tensor.uniform_(0.5, 90_000)  # beyond fp16, as ImageNet's ResNet-50 has it
    for head in made.heads.values():
        torch.nn.init.normal_(head.weight)
    return made


def test_weights_and_spec_come_back(tmp_path: Path, network: HRNetwork) -> None:
    path = tmp_path / "folder" / "light.safetensors"
    save_checkpoint(path, network, SPEC, half=False)
    loaded, spec = load_checkpoint(path)
    assert spec == SPEC == read_spec(path)
    assert not loaded.training
    image = torch.randn(1, 3, 37, 53)
    with torch.inference_mode():
        assert torch.equal(loaded(image).offsets_NT4HW, network(image).offsets_NT4HW)


def test_half_keeps_filters_in_fp16_and_vectors_in_fp32(tmp_path: Path, network: HRNetwork) -> None:
    """A variance beyond 65,504 would become infinite."""
    path = tmp_path / "light.safetensors"
    save_checkpoint(path, network, SPEC)
    with safe_open(path, framework="pt") as file:
        types = {file.get_tensor(name).dtype: file.get_tensor(name).ndim for name in file.keys()}  # noqa: SIM118
        assert types == {torch.float16: 4, torch.float32: 1}
    loaded = load_checkpoint(path)[0].state_dict()
    for name, tensor in network.state_dict().items():
        assert loaded[name].dtype == (torch.int64 if name.endswith("tracked") else torch.float32)
        expected = tensor.half().float() if tensor.ndim == 4 else tensor
        assert torch.equal(loaded[name], expected), name


def broken(state: dict[str, Tensor], name: str, value: Tensor | None) -> dict[str, Tensor]:
    return {key: tensor for key, tensor in (state | {name: value}).items() if tensor is not None}


HEAD = "heads.8.weight"


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        (HEAD, None, f"{HEAD} is missing"),
        (HEAD, torch.ones(100, 192, 1, 1), rf"{HEAD} is \(100, 192, 1, 1\), the network needs \(10, 192, 1, 1\)"),
        (HEAD, torch.full((10, 192, 1, 1), torch.nan), f"{HEAD} holds values that are not finite"),
        ("heads.4.weight", torch.ones(3), r"heads\.4\.weight has no place in the network"),
    ],
)
def test_a_tensor_that_does_not_fit_is_named(
    tmp_path: Path, network: HRNetwork, name: str, value: Tensor | None, told: str
) -> None:
    path = tmp_path / "light.safetensors"
    save_checkpoint(path, network, SPEC)
    with safe_open(path, framework="pt") as file:
        state, metadata = {key: file.get_tensor(key) for key in file.keys()}, file.metadata()  # noqa: SIM118
    save_file(broken(state, name, value), path, metadata)
    with pytest.raises(CheckpointError, match=rf"light\.safetensors: {told}"):
        load_checkpoint(path)


def changed(*keys: str, value: Any) -> Callable[[dict[str, Any]], None]:
    def change(spec: dict[str, Any]) -> None:
        for key in keys[:-1]:
            spec = spec[key]
        spec[keys[-1]] = value

    return change


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (changed("format_version", value=99), "made in format 99, this version reads up to 1. Update tinyface"),
        (changed("network", "trunk", "name", value="alexnet"), r"its metadata is wrong at network\.trunk\.name"),
        (changed("network", "outputs", value=3), "3 outputs a head, but templates are named for 2"),
        (changed("decoding", "back", value="guess"), r"wrong at decoding\.back"),
        (lambda spec: spec.pop("name"), "wrong at name"),
    ],
)
def test_metadata_that_does_not_fit_is_named(tmp_path: Path, network: HRNetwork, change: Any, told: str) -> None:
    path = tmp_path / "light.safetensors"
    save_checkpoint(path, network, SPEC)
    with safe_open(path, framework="pt") as file:
        spec = json.loads(file.metadata()["tinyface"])
    change(spec)
    save_file({"x": torch.ones(1)}, path, {"tinyface": json.dumps(spec)})
    with pytest.raises(CheckpointError, match=told):
        load_checkpoint(path)


def test_files_that_are_no_checkpoints_are_refused(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.safetensors: no such file"):
        load_checkpoint(tmp_path / "none.safetensors")
    for content in (b"", b"x" * 900, b"\x80\x02}q\x00."):
        (tmp_path / "x.safetensors").write_bytes(content)
        with pytest.raises(
            CheckpointError, match=r"x\.safetensors: a damaged safetensors file, or none .* jobs/convert_checkpoint"
        ):
            load_checkpoint(tmp_path / "x.safetensors")
    save_file({"x": torch.ones(1)}, tmp_path / "y.safetensors")
    with pytest.raises(CheckpointError, match=r"y\.safetensors: a safetensors file, but not a tinyface checkpoint"):
        load_checkpoint(tmp_path / "y.safetensors")
    save_file({"x": torch.ones(1)}, tmp_path / "z.safetensors", {"tinyface": "{"})
    with pytest.raises(CheckpointError, match=r"z\.safetensors: its metadata is wrong at the top"):
        load_checkpoint(tmp_path / "z.safetensors")


def test_a_torn_checkpoint_is_refused(tmp_path: Path, network: HRNetwork) -> None:
    path = tmp_path / "light.safetensors"
    save_checkpoint(path, network, SPEC)
    path.write_bytes(path.read_bytes()[:-100])
    with pytest.raises(CheckpointError, match="a damaged safetensors file, or none"):
        load_checkpoint(path)


def test_a_files_hash_is_sha256(tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"abc")
    assert file_hash(tmp_path / "a") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"


@pytest.fixture(scope="module")
def with_ellipses(network: HRNetwork) -> HRNetwork:
    made = HRNetwork(CONFIG, ellipses=True).eval()
    made.load_state_dict(network.state_dict(), strict=False)
    made.regress(torch.randn(5, 768), torch.randn(5))
    return made


def test_a_regressor_of_ellipses_comes_back_in_fp32_and_a_file_without_has_none(
    tmp_path: Path, with_ellipses: HRNetwork
) -> None:
    save_checkpoint(tmp_path / "with.safetensors", with_ellipses, replace(SPEC, ellipses=True))
    loaded, spec = load_checkpoint(tmp_path / "with.safetensors")
    assert spec.ellipses
    for name in (f"ellipse.{stride}.{what}" for stride in (8, 16) for what in ("weight", "bias")):
        assert torch.equal(loaded.get_parameter(name), with_ellipses.get_parameter(name))
        assert not loaded.get_parameter(name).requires_grad
    save_checkpoint(tmp_path / "without.safetensors", with_ellipses, SPEC)  # as after a training that began there
    loaded, spec = load_checkpoint(tmp_path / "without.safetensors")
    assert loaded.ellipse is None
    assert not spec.ellipses


def test_a_file_that_was_written_before_there_were_regressors_loads(tmp_path: Path, network: HRNetwork) -> None:
    path = tmp_path / "light.safetensors"
    save_checkpoint(path, network, SPEC)
    with safe_open(path, framework="pt") as file:
        state, spec = {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["tinyface"])  # noqa: SIM118
    del spec["ellipses"]
    save_file(state, path, {"tinyface": json.dumps(spec)})
    assert load_checkpoint(path)[1] == SPEC


@pytest.mark.parametrize(
    ("said", "value", "told"),
    [
        (True, None, r"ellipse\.weight is missing"),
        (True, torch.ones(5, 1536), r"ellipse\.weight is \(5, 1536\), the network needs \(5, 768\)"),
        (True, torch.full((5, 768), torch.inf), r"ellipse\.weight holds values that are not finite"),
        (False, torch.ones(5, 768), r"ellipse\.\w+ has no place in the network"),
    ],
)
def test_a_regressor_that_does_not_fit_is_named(
    tmp_path: Path, with_ellipses: HRNetwork, said: bool, value: Tensor | None, told: str
) -> None:
    path = tmp_path / "light.safetensors"
    save_checkpoint(path, with_ellipses, replace(SPEC, ellipses=True))
    with safe_open(path, framework="pt") as file:
        state, spec = {key: file.get_tensor(key) for key in file.keys()}, json.loads(file.metadata()["tinyface"])  # noqa: SIM118
    spec["ellipses"] = said
    save_file(broken(state, "ellipse.weight", value), path, {"tinyface": json.dumps(spec)})
    with pytest.raises(CheckpointError, match=rf"light\.safetensors: {told}"):
        load_checkpoint(path)


def test_whether_half_is_enough(network: HRNetwork, tmp_path: Path) -> None:
    assert not is_half(network)
    save_checkpoint(tmp_path / "light.safetensors", network, SPEC)
    assert is_half(load_checkpoint(tmp_path / "light.safetensors")[0])
