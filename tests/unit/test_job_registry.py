"""jobs/registry.py: what it prints, what becomes current, what it refuses."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from options import run_job
from registry import app
from tests.toy_network import calibrated
from tinyface_core.model.checkpoint import save_checkpoint
from tinyface_core.model.locate import locate
from tinyface_core.model.spec import file_hash
from tinyface_core.registry.registry import Registry
from tinyface_core.storage import Storage


@pytest.fixture(scope="module")
def models(tmp_path_factory: pytest.TempPathFactory) -> list[str]:
    folder = tmp_path_factory.mktemp("models")
    for seed in range(2):
        save_checkpoint(folder / f"{seed}.safetensors", *calibrated("mobilenet_v2", seed))
    return [str(folder / f"{seed}.safetensors") for seed in range(2)]


@pytest.fixture
def where(tmp_path: Path) -> list[str]:
    return ["--registry", str(tmp_path / "registry")]


def test_the_first_model_becomes_current_a_second_waits_and_can_be_promoted_and_rolled_back(
    models: list[str], where: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry = Registry(Storage(), where[1])
    assert run_job(app, ["add", models[0], *where]) == 0
    first = registry.find("current")
    assert first.model_hash == file_hash(Path(models[0]))
    assert run_job(app, ["add", models[1], *where]) == 0
    assert registry.find("current").name == first.name
    (second,) = set(registry.versions()) - {first.name}
    assert run_job(app, ["promote", second, *where]) == 0
    assert locate("registry:current", Storage(), where[1]).sha256 == file_hash(Path(models[1]))
    assert f"current: {second} (promoted by hand" in capsys.readouterr().out
    assert run_job(app, ["rollback", *where]) == 0
    assert registry.find("current").name == first.name
    capsys.readouterr()
    monkeypatch.setenv("COLUMNS", "80")  # as a pipe has it; names must be whole, as they are there to be copied
    assert run_job(app, ["list", *where]) == 0
    told = capsys.readouterr().out
    assert re.search(rf"│ current +│ {first.name} │", told)
    assert re.search(rf"│ +│ {second} │", told)
    assert [action for action in ("added", "promoted by hand", "rolled back") if action not in told] == []
    assert run_job(app, ["rollback", *where]) == 2
    assert "nothing was current before" in capsys.readouterr().err


def test_the_same_model_is_added_once(models: list[str], where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(app, ["add", models[0], *where]) == 0
    assert run_job(app, ["add", models[0], *where]) == 0
    assert "this very model is there already" in capsys.readouterr().out
    assert len(Registry(Storage(), where[1]).versions()) == 1


def test_a_bundled_model_brings_its_card(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(app, ["add", "hr-mobilenetv2", *where]) == 0
    assert run_job(app, ["show", *where]) == 0
    assert "# hr-mobilenetv2: trained for" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("tokens", "why"),
    [
        (["promote"], "promote: which version"),
        (["add"], "add: which checkpoint"),
        (["list", "x"], "list x: takes no name"),
        (["show"], "no model is current"),
        (["show", "20261129T0300Z-01234567"], "no version 20261129T0300Z-01234567; it has none"),
        (["promote", "x"], "no version x"),
        (["add", "nothing.safetensors"], "no such file"),
        (["rollback"], "no model is current"),
    ],
)
def test_what_cannot_be_is_refused_and_nothing_is_left(
    tokens: list[str], why: str, where: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert run_job(app, [*tokens, *where]) == 2
    assert why in capsys.readouterr().err
    left = [path for path in Path(where[1]).rglob("*") if path.is_file()]
    assert left == []


def test_which_registry_is_asked(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("TINYFACE_REGISTRY", raising=False)
    assert run_job(app, ["list"]) == 2
    assert "TINYFACE_REGISTRY" in capsys.readouterr().err


def test_a_registry_that_is_not_there_is_no_empty_one(where: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(app, ["list", *where]) == 2
    assert "nothing is there. Check the spelling" in " ".join(capsys.readouterr().err.split())
    assert not Path(where[1]).exists()
