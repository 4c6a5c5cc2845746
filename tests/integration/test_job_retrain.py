"""jobs/retrain.py as a schedule runs it: killed and resumed, twice at once, decided once; and who uses what it made."""

from __future__ import annotations

import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from tests.integration.job_runs import Ended, Job, Tables, everything_in
from tests.integration.labelled import LIGHT, labelled, weakened
from tests.integration.ray_head import RayHead
from tinyface_core.detect.detector import Detector
from tinyface_core.model.spec import file_hash, read_spec
from tinyface_core.registry.registry import Registry
from tinyface_core.storage import Storage

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

TICK, NEXT = "2026-11-10T03:00Z", "2026-11-12T03:00Z"
NAME = "20261110T0300Z"
NEW, FROZEN = range(8), range(8, 12)
SMALL = (
    *("--crops", "24", "--epoch-crops", "8", "--batch", "4", "--validation-crops", "4", "--rate", "0.1"),
    *("--workers", "1", "--least-pictures", "4", "--refit-pictures", "4", "--samples", "200"),
)
RULE = ("--margin", "0.01", "--tolerance", "0.05")


@dataclass(frozen=True)
class Place:
    """A folder with new/ (dated labels), frozen/ and registry/."""

    folder: Path
    environment: dict[str, str]

    @property
    def registry(self) -> Registry:
        return Registry(Storage(), str(self.folder / "registry"))

    def retrain(self, *options: str, tick: str = TICK, environment: dict[str, str] | None = None) -> Job:
        fixed = ("--registry", "registry", "--data", "new", "--frozen", "frozen", "--tick", tick, *SMALL, *RULE)
        variables = environment or self.environment
        return Job(self.folder / "log", variables, *fixed, *options, cwd=self.folder, script="retrain.py")

    def manage(self, *options: str) -> Ended:
        given = (*options, "--registry", "registry")
        return Job(self.folder / "log", self.environment, *given, cwd=self.folder, script="registry.py").wait()

    def nowhere(self) -> dict[str, str]:
        """An environment whose Ray does not answer."""
        return self.environment | {"RAY_ADDRESS": "127.0.0.1:1"}

    def json_of(self, name: str) -> Any:
        return json.loads((self.folder / "registry" / name).read_text())


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead) -> Place:
    """A registry whose current model is a weak one; labels of eight days, four frozen pictures."""
    folder = tmp_path_factory.mktemp("retrain")
    labelled(folder / "new", NEW, {number: f"2026-11-0{1 + number}" for number in NEW})
    labelled(folder / "frozen", FROZEN)
    place = Place(folder, ray_head.environment)
    place.manage("add", str(weakened(folder / "weak.safetensors"))).expect(0)
    return place


@pytest.fixture(scope="module")
def decided(begun: Place) -> Place:
    """The first tick: a dry run, then one that is killed after a checkpoint while a second one is refused, then on."""
    place, better = begun, ("--start-from", LIGHT)
    before = everything_in(place.folder / "registry")
    dry = place.retrain(*better, "--dry-run", environment=place.nowhere()).wait().expect(0)
    assert "from the first row up to 2026-11-10T03:00Z" in dry.out
    assert "8 pictures, " in dry.out
    assert "24 crops" in dry.out
    assert everything_in(place.folder / "registry") == before
    killed = place.retrain(*better)
    claims, run = place.folder / "registry" / "runs" / "_run" / "claims", place.folder / "registry" / "runs" / NAME
    killed.wait_until(lambda: any('"holds": true' in path.read_text() for path in claims.glob("*[!p]")), "a claim")
    refused = place.retrain(*better).wait().expect(1)
    assert "another driver is at work on it" in refused.err
    killed.wait_until(lambda: any(run.glob("training/checkpoint_*/epochs.json")), "a checkpoint")
    assert killed.kill().code != 0
    assert place.registry.decision(NAME) is None
    ended = place.retrain(*better).wait().expect(0)
    assert "promoted" in ended.out, ended.out
    return place


def test_the_better_model_is_a_whole_version_and_current(decided: Place) -> None:
    """The one that was killed and went on: its numbers, its lineage, its card and its sheet are of one piece."""
    entry = decided.registry.current()
    assert entry is not None
    assert (entry.action, entry.tick) == ("promoted", NAME)
    version = decided.registry.find(entry.version)
    folder = Path(version.uri.removeprefix("file://")).parent
    assert file_hash(folder / "model.safetensors") == version.model_hash
    metrics, lineage = (json.loads((folder / name).read_text()) for name in ("metrics.json", "lineage.json"))
    whole = metrics["groups"][0]
    assert metrics["promote"] is True
    assert whole["difference"] == pytest.approx(whole["new"] - whole["current"], abs=1e-5)
    assert whole["difference"] >= 0.01
    assert whole["low"] > 0
    assert metrics["frozen"]["pictures"] == len(FROZEN)
    assert lineage["base"]["version"] == entry.previous
    assert lineage["window"] == {"since": None, "until": "2026-11-10T03:00:00+00:00"}
    assert sum(lineage["pictures"].values()) == len(NEW)
    assert lineage["training"]["seed"] == 0
    card = (folder / "card.md").read_text()
    assert f"| {whole['group']} | {whole['faces']:,} |" in card
    assert "**Better by the rule**" in card
    with Image.open(folder / "contact_sheet.png") as sheet:
        assert sheet.size > (500, 300)
    assert not list((decided.folder / "registry" / "runs" / NAME).glob("training/checkpoint_*/*")), "left over"


def test_the_version_has_what_detection_needs(decided: Place) -> None:
    """Advice of its own, ranges and ellipses fitted anew or left out and said so, the rest as the model before."""
    version = decided.registry.find("current")
    path = Path(version.uri.removeprefix("file://"))
    spec, before = read_spec(path), read_spec(decided.folder / "weak.safetensors")
    assert spec.advice is not None
    assert spec.advice.pictures == len(FROZEN)
    assert (spec.name, spec.version, spec.templates) == (LIGHT, NAME, before.templates)
    assert spec.defaults.level_heights == before.defaults.level_heights
    assert spec.ranges.keys() == before.ranges.keys()
    assert spec.ranges != before.ranges
    assert spec.ellipses is not spec.provenance["refitted"]["ellipses"].startswith("left out")
    with Image.open(next((decided.folder / "frozen" / "images").glob("*.jpg"))) as picture:
        Detector.load(path)(np.asarray(picture))


def test_a_tick_that_is_decided_stays_so_and_needs_no_ray(decided: Place) -> None:
    before = everything_in(decided.folder / "registry")
    again = decided.retrain("--start-from", LIGHT, environment=decided.nowhere()).wait().expect(0)
    assert "promoted" in again.out
    assert everything_in(decided.folder / "registry") == before


def test_the_next_tick_begins_where_the_data_of_the_current_version_ended(decided: Place) -> None:
    """Nothing new there: no training, the model stays, and the tick is decided."""
    current = decided.registry.find("current").name
    ended = decided.retrain(tick=NEXT, environment=decided.nowhere()).wait().expect(0)
    assert "too few new pictures" in ended.out
    assert "0 rows from 2026-11-10T03:00Z up to 2026-11-12T03:00Z, 8 before and 0 after" in ended.err
    assert decided.json_of("ticks/20261112T0300Z.json")["promoted"] is False
    assert decided.registry.find("current").name == current


def test_detection_takes_the_current_version_and_keeps_it_when_another_becomes_current(
    decided: Place, tmp_path: Path
) -> None:
    """The output names the concrete version; after a rollback it goes on with it, also without a registry."""
    (tmp_path / "in").mkdir()
    for path in sorted((decided.folder / "frozen" / "images").glob("*.jpg"))[:2]:
        (tmp_path / "in" / path.name).write_bytes(path.read_bytes())
    version = decided.registry.find("current")
    where = ("--registry", str(decided.folder / "registry"))
    common = ("--input", "in", "--output", "out", "--zooms", "0.5", "--no-report")

    def detect(*options: str) -> Ended:
        return Job(tmp_path / "log", decided.environment, *common, *options, cwd=tmp_path).wait()

    detect("--model", "registry:current", *where).expect(0)
    settings = Tables(tmp_path / "out").run_facts["settings"]
    assert (settings["model"], settings["model_hash"]) == (f"registry:{version.name}", version.model_hash)
    decided.manage("rollback").expect(0)
    assert decided.registry.find("current").name != version.name
    (tmp_path / "in" / "new.jpg").write_bytes((decided.folder / "new" / "images" / "0.jpg").read_bytes())
    detect("--model", "registry:current", *where).expect(0)
    detect().expect(0)
    assert Tables(tmp_path / "out").validated().run_facts["settings"] == settings
    assert Tables(tmp_path / "out").run_facts["output"]["pictures"] == 3
    refused = detect("--model", f"registry:{decided.registry.find('current').name}", *where).expect(2)
    assert "was made with model" in refused.err
    decided.manage("promote", version.name).expect(0)
    assert decided.registry.find("current").name == version.name


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--registry", "empty"), "no model is current"),
        (("--data", "nothing"), "no manifest"),
        (("--frozen", "new"), "is one of --frozen's pictures"),
        (("--frozen", "copy"), "or a copy of one"),
        (("--frozen", "lost"), "1 of 4 pictures are not there"),
        (("--start-from", "hr-resnet50"), "is another network"),
        (("--since", "2026-11-12"), "nothing lies between"),
        (("--preset", "slow"), "known are fast, paper"),
        (("--least", "3"), "Unknown option"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(
    begun: Place, decided: Place, options: tuple[str, str], why: str
) -> None:
    """At a tick that is not decided, with a Ray that does not answer."""
    labelled(begun.folder / "copy", [*FROZEN, 0])
    lost = labelled(begun.folder / "lost", FROZEN)
    (lost / "images" / f"{FROZEN[0]}.jpg").unlink()
    before = everything_in(begun.folder / "registry")
    given = ["--registry", "registry", "--data", "new", "--frozen", "frozen", "--since", "2026-11-01", *SMALL]
    option, value = options
    if option in given:
        given[given.index(option) + 1] = value
    else:
        given += options
    fixed = (*given, "--tick", "2026-11-11T03:00Z")
    run = Job(begun.folder / "log", begun.nowhere(), *fixed, cwd=begun.folder, script="retrain.py").wait().expect(2)
    assert why in run.err
    assert "Traceback" not in run.err
    assert everything_in(begun.folder / "registry") == before
    assert not (begun.folder / "empty").exists()
