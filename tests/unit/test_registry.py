"""A registry on disk: versions are whole or not there, current.json is one write, a rollback is an entry of its own."""

from __future__ import annotations

import json
import threading
from datetime import UTC, datetime, timedelta, timezone
from pathlib import Path

import pytest

from tests.toy_network import calibrated
from tinyface_core.errors import CheckpointError, ClaimError, OutputError
from tinyface_core.model.checkpoint import save_checkpoint
from tinyface_core.model.locate import fetch, locate
from tinyface_core.model.spec import file_hash
from tinyface_core.registry.registry import BEGUN, LINEAGE, MODEL, Registry, tick_name, version_name
from tinyface_core.storage import Storage
from tinyface_core.tables.claim import Claim, ClaimTimes

QUICK = ClaimTimes(renew_s=0.1, lose_s=60, silent_s=90, retry_s=0.05, recheck_s=0)


@pytest.fixture
def registry(tmp_path: Path) -> Registry:
    return Registry(Storage(), str(tmp_path / "registry"))


def added(registry: Registry, letter: str) -> str:
    """A version of made-up bytes; later letters are of later ticks."""
    day = ord(letter) - ord("a") + 1
    name = version_name(tick_name(datetime(2026, 11, day, 3, tzinfo=UTC)), letter * 64)
    registry.write_version(name, {MODEL: letter.encode()}, {"model_hash": letter * 64})
    return name


def promoted(registry: Registry, *letters: str) -> list[str]:
    names = [added(registry, letter) for letter in letters]
    for name in names:
        registry.promote(name, action="promoted", by="a test")
    return names


def test_names_sort_by_time_and_are_in_utc() -> None:
    east = datetime(2026, 11, 29, 5, 0, 59, tzinfo=timezone(timedelta(hours=2)))
    assert version_name(tick_name(east), "0123456789ab") == "20261129T0300Z-01234567"


def test_a_version_without_its_lineage_is_none(registry: Registry, tmp_path: Path) -> None:
    """As a kill leaves it: the lineage is written last."""
    name = added(registry, "a")
    assert registry.versions() == [name]
    (tmp_path / "registry" / "versions" / name / LINEAGE).unlink()
    assert registry.versions() == []
    with pytest.raises(CheckpointError, match=f"no version {name}; it has none"):
        registry.find(name)
    with pytest.raises(CheckpointError, match="no version"):
        registry.promote(name, action="promoted", by="a test")
    added(registry, "a")
    assert registry.find(name).model_hash == "a" * 64


def test_a_whole_version_is_never_written_again(registry: Registry) -> None:
    name = added(registry, "a")
    registry.write_version(name, {MODEL: b"other bytes"}, {"model_hash": "f" * 64})
    assert registry.read(name, MODEL) == b"a"
    assert registry.find(name).model_hash == "a" * 64


@pytest.mark.parametrize("name", ["", "../a", "20261101T0300Z-aaaaaaaa/..", "nothing", "latest"])
def test_a_name_that_is_none_leads_nowhere(registry: Registry, name: str) -> None:
    added(registry, "a")
    with pytest.raises(CheckpointError, match="no version"):
        registry.find(name)


def test_a_registry_without_a_current_version_says_how_to_get_one(registry: Registry) -> None:
    added(registry, "a")
    assert registry.current() is None
    with pytest.raises(CheckpointError, match=r"registry\.py add"):
        registry.find("current")


def test_promoting_adds_an_entry_and_again_adds_none(registry: Registry) -> None:
    first, second = promoted(registry, "a", "b")
    again = registry.promote(second, action="promoted", by="another")
    assert again.by == "a test"
    assert [(entry.number, entry.version, entry.previous) for entry in registry.history()] == [
        (1, first, None), (2, second, first)
    ]  # fmt: skip
    assert registry.find("current").name == second


def test_rolling_back_goes_back_step_by_step_and_deletes_nothing(registry: Registry) -> None:
    """a, b, c, then twice back: b, a; a third time is refused. All five stand in the history."""
    first, second, third = promoted(registry, "a", "b", "c")
    assert registry.roll_back(by="me").version == second
    assert registry.roll_back(by="me").version == first
    with pytest.raises(OutputError, match="nothing was current before"):
        registry.roll_back(by="me")
    assert [entry.version for entry in registry.history()] == [first, second, third, second, first]
    assert registry.versions() == [first, second, third]


def test_what_is_promoted_after_a_rollback_rolls_back_to_where_that_led(registry: Registry) -> None:
    """a, b, back to a, then c: what was current before c is a, not b."""
    first, _ = promoted(registry, "a", "b")
    registry.roll_back(by="me")
    promoted(registry, "c")
    assert registry.roll_back(by="me").version == first
    with pytest.raises(OutputError):
        registry.roll_back(by="me")


def test_a_version_that_was_promoted_by_hand_again_rolls_back_too(registry: Registry) -> None:
    """a, b, a by hand: back to b, then to a, and not round and round."""
    first, second = promoted(registry, "a", "b")
    registry.promote(first, action="promoted by hand", by="me")
    assert [registry.roll_back(by="me").version for _ in range(2)] == [second, first]
    with pytest.raises(OutputError):
        registry.roll_back(by="me")


class DiesAt(Storage):
    """A storage whose process dies at its n-th write."""

    writes_left = 0

    def write(self, uri: str, data: bytes) -> None:
        if self.writes_left == 0:
            raise KeyboardInterrupt
        self.writes_left -= 1
        super().write(uri, data)


@pytest.mark.parametrize("writes", [0, 1])
def test_a_kill_while_promoting_leaves_the_old_one_or_the_new_one(registry: Registry, writes: int) -> None:
    """And the history is whole again with the next entry."""
    (first,) = promoted(registry, "a")
    second, third = added(registry, "b"), added(registry, "c")
    deadly = DiesAt()
    deadly.writes_left = writes
    with pytest.raises(KeyboardInterrupt):
        Registry(deadly, registry.uri).promote(second, action="promoted", by="a test")
    expected = [first, second][: 1 + writes]
    assert registry.find("current").name == expected[-1]
    assert [entry.version for entry in registry.history()] == expected
    registry.promote(third, action="promoted", by="a test")
    assert [entry.version for entry in registry.history()] == [*expected, third]
    on_disk = sorted(Path(registry.path("history").removeprefix("file://")).glob("*.json"))
    assert [json.loads(path.read_text())["number"] for path in on_disk] == list(range(1, 2 + len(expected)))


def test_of_writers_side_by_side_each_makes_one_entry_or_is_refused(registry: Registry) -> None:
    """Six threads, each with the claim of a driver of its own: entries are numbered without gap or double."""
    names = promoted(registry, "a", "b")
    done, refused = list[int](), list[ClaimError]()

    def writer(number: int) -> None:
        try:
            with Claim(Storage(), registry.uri, times=QUICK, option="--registry") as claim:
                own = Registry(claim.guarded(), registry.uri)
                done.append(own.promote(names[own.find("current").name == names[0]], action="promoted", by="").number)
        except ClaimError as error:
            refused.append(error)

    threads = [threading.Thread(target=writer, args=(number,)) for number in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(done) + len(refused) == 6
    assert done
    assert [entry.number for entry in registry.history()] == list(range(1, 3 + len(done)))
    assert all("--registry" in str(error) for error in refused)


def test_decisions_of_ticks_stand(registry: Registry) -> None:
    assert registry.decision("20261129T0300Z") is None
    registry.write_decision("20261129T0300Z", {"decision": "promoted"})
    assert registry.decision("20261129T0300Z") == {"decision": "promoted"}


def test_what_is_no_registry_is_named(registry: Registry, tmp_path: Path) -> None:
    (tmp_path / "registry").mkdir()
    for content, why in (("{", "is not JSON"), ('{"version": "a"}', "is not of a registry")):
        (tmp_path / "registry" / "current.json").write_text(content)
        with pytest.raises(OutputError, match=why):
            registry.current()


@pytest.fixture
def with_model(registry: Registry, tmp_path: Path) -> tuple[Registry, str]:
    """A registry, and its one version, which can be loaded."""
    save_checkpoint(tmp_path / "toy.safetensors", *calibrated("mobilenet_v2"))
    digest = file_hash(tmp_path / "toy.safetensors")
    name = version_name("20261129T0300Z", digest)
    registry.write_version(name, {MODEL: (tmp_path / "toy.safetensors").read_bytes()}, {"model_hash": digest})
    registry.promote(name, action="added", by="a test")
    return registry, name


def test_a_model_is_located_by_its_version_or_as_the_current_one(
    with_model: tuple[Registry, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its name is the concrete version whatever was asked for; the registry is given, or stands in the environment."""
    registry, name = with_model
    storage = Storage()
    found = locate("registry:current", storage, registry.uri)
    assert (found.name, found.bundled) == (f"registry:{name}", False)
    assert file_hash(fetch(found, storage)) == found.sha256
    monkeypatch.setenv("TINYFACE_REGISTRY", registry.uri)
    assert locate(f"registry:{name}", storage) == found


def test_a_model_that_is_not_in_the_registry_or_was_changed_is_refused(
    with_model: tuple[Registry, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    registry, name = with_model
    monkeypatch.delenv("TINYFACE_REGISTRY", raising=False)
    storage = Storage()
    with pytest.raises(CheckpointError, match="of which registry"):
        locate("registry:current", storage)
    with pytest.raises(CheckpointError, match=f"no version other; it has {name}"):
        locate("registry:other", storage, registry.uri)
    file = Path(registry.find(name).uri.removeprefix("file://"))
    changed = file.with_name("changed")
    save_checkpoint(changed, *calibrated("mobilenet_v2", seed=1))
    changed.rename(file)
    with pytest.raises(CheckpointError, match="not the file that was written there"):
        locate("registry:current", storage, registry.uri)


def test_a_tick_that_was_begun_is_undecided_until_its_decision_is_written(registry: Registry) -> None:
    assert registry.undecided() == []
    for tick in ("20261108T0300Z", "20261101T0300Z"):
        registry.write_json(f"runs/{tick}/{BEGUN}", {})
        registry.write_json(f"runs/{tick}/training/{BEGUN}", {})
    assert registry.undecided() == ["20261101T0300Z", "20261108T0300Z"]
    registry.write_decision("20261101T0300Z", {})
    assert registry.undecided() == ["20261108T0300Z"]
