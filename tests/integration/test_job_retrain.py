"""jobs/retrain.py as a schedule runs it: killed and resumed, twice at once, decided once; and who uses what it made."""

from __future__ import annotations

import io
import json
import os
import re
from contextlib import redirect_stderr, redirect_stdout
from dataclasses import dataclass
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from cyclopts import App
from PIL import Image

from detect_archive import app as detect_app
from options import run_job
from registry import app as registry_app
from retrain import app as retrain_app
from tests.integration.job_runs import Ended, Job, Tables, everything_in
from tests.integration.labelled import LIGHT, labelled, weakened
from tests.integration.ray_head import RayHead
from tinyface_core.detect.detector import Detector
from tinyface_core.model.spec import file_hash, read_spec
from tinyface_core.registry.registry import Registry
from tinyface_core.storage import Storage
from tinyface_core.tables.claim import Claim

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

TICK, NAME = "2026-11-10T03:00Z", "20261110T0300Z"
NEW, FROZEN = (0, 1, 2, 3, 5, 6, 7, 13), (8, 9, 10, 11)  # each shows faces
BETTER = ("--start-from", LIGHT)
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

    def options(self, *more: str, tick: str = TICK, **places: str) -> list[str]:
        """places: other folders for registry, data, frozen."""
        given = {"registry": "registry", "data": "new", "frozen": "frozen"} | places
        fixed = [text for option, name in given.items() for text in (f"--{option}", str(self.folder / name))]
        return [*fixed, "--tick", tick, *SMALL, *RULE, *more]

    def retrain(self) -> Job:
        """The first tick in a process of its own."""
        return Job(self.folder / "log", self.environment, *self.options(*BETTER), script="retrain.py")

    def here(self, app: App, *tokens: str) -> tuple[int, str, str]:
        """(exit code, what it printed, what it refused) in this process, with a Ray that does not answer."""
        out, err = io.StringIO(), io.StringIO()
        nowhere = mock.patch.dict(os.environ, {"RAY_ADDRESS": "127.0.0.1:1", "COLUMNS": "200"})
        with redirect_stdout(out), redirect_stderr(err), nowhere:
            code = run_job(app, list(tokens))
        return code, out.getvalue(), err.getvalue()

    def manage(self, *tokens: str) -> None:
        code, _, err = self.here(registry_app, *tokens, "--registry", str(self.folder / "registry"))
        assert code == 0, err


@pytest.fixture(scope="module")
def begun(tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead) -> Place:
    """A registry whose current model is a weak one; labels of eight days, four frozen pictures."""
    folder = tmp_path_factory.mktemp("retrain")
    labelled(folder / "new", NEW, {number: f"2026-11-0{1 + place}" for place, number in enumerate(NEW)})
    labelled(folder / "frozen", FROZEN)
    place = Place(folder, ray_head.environment)
    place.manage("add", str(weakened(folder / "weak.safetensors")))
    return place


@pytest.fixture(scope="module")
def decided(begun: Place) -> Place:
    """The first tick: killed after a checkpoint, while a second driver is refused; then the same command again."""
    place, work = begun, begun.folder / "registry" / "runs"
    killed = place.retrain()
    claims = work / "_run" / "claims"
    killed.wait_until(lambda: any('"holds": true' in path.read_text() for path in claims.glob("*[!p]")), "a claim")
    code, _, err = place.here(retrain_app, *place.options(*BETTER))
    assert (code, "another driver is at work on it" in err) == (1, True), err
    killed.wait_until(lambda: any((work / NAME).glob("training/checkpoint_*/epochs.json")), "a checkpoint")
    assert killed.kill().code != 0
    assert place.registry.decision(NAME) is None
    ended = place.retrain().wait().expect(0)
    assert "promoted" in ended.out, ended.out
    return place


def test_a_dry_run_tells_what_would_be_done_and_writes_nothing(begun: Place) -> None:
    before = everything_in(begun.folder / "registry")
    more = (*BETTER, "--since", "2026-11-02", "--dry-run")
    code, out, err = begun.here(retrain_app, *begun.options(*more, tick="2026-11-09T03:00Z"))
    assert code == 0, err
    assert "from 2026-11-02T00:00Z up to 2026-11-09T03:00Z" in out
    assert "7 pictures, " in out
    assert "24 crops" in out
    assert f"{LIGHT}.safetensors" in out
    assert everything_in(begun.folder / "registry") == before


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
    code, out, err = decided.here(retrain_app, *decided.options(*BETTER))
    assert (code, "promoted" in out) == (0, True), err
    assert everything_in(decided.folder / "registry") == before


def test_a_tick_that_was_cut_short_before_its_last_write_decides_the_same_and_promotes_no_second_time(
    decided: Place,
) -> None:
    """Its work is all there, so no Ray is needed; a rollback that came in between stands."""
    decision, entry = decided.registry.decision(NAME), decided.registry.current()
    assert decision is not None
    assert entry is not None
    versions = everything_in(decided.folder / "registry" / "versions")
    decided.manage("rollback")
    (decided.folder / "registry" / "ticks" / f"{NAME}.json").unlink()
    code, _, err = decided.here(retrain_app, *decided.options(*BETTER))
    assert code == 0, err
    again = decided.registry.decision(NAME)
    assert again == decision | {"decided_at": (again or {})["decided_at"]}
    assert everything_in(decided.folder / "registry" / "versions") == versions
    assert decided.registry.find("current").name == entry.previous
    assert [each.action for each in decided.registry.history()] == ["added", "promoted", "rolled back"]
    decided.manage("promote", entry.version)


@pytest.mark.parametrize("other", [("--margin", "0"), ("--tolerance", "1"), ("--samples", "300")])
def test_a_tick_that_was_cut_short_keeps_the_rule_that_it_began_with(decided: Place, other: tuple[str, str]) -> None:
    """A rule that is stated after the numbers are known is none."""
    decision = decided.folder / "registry" / "ticks" / f"{NAME}.json"
    known = decision.read_bytes()
    decision.unlink()
    before = everything_in(decided.folder / "registry")
    given = decided.options(*BETTER)
    given[given.index(other[0]) + 1] = other[1]
    code, _, err = decided.here(retrain_app, *given)
    assert (code, f"{other[0]} {other[1]}: this tick was begun with" in err) == (2, True), err
    assert everything_in(decided.folder / "registry") == before
    decision.write_bytes(known)


def test_a_driver_that_waited_for_another_one_takes_up_what_that_one_made_current(
    decided: Place, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Else it would train the version before, for a comparison that no longer counts; what was left undone is told."""
    entry, left = decided.registry.current(), "runs/20261001T0300Z/begun.json"
    assert entry is not None
    decided.manage("rollback")
    decided.registry.write_json(left, {})

    class Waited(Claim):
        def __enter__(self) -> Claim:
            decided.manage("promote", entry.version)
            return super().__enter__()

    monkeypatch.setattr("retrain.Claim", Waited)
    code, _, err = decided.here(retrain_app, *decided.options(tick="2026-11-10T12:00Z"))
    assert code == 0, err
    decision = decided.registry.decision("20261110T1200Z")
    assert decision is not None
    assert (decision["base"], decision["decision"]) == (entry.version, "too few new pictures")
    assert "--tick 20261001T0300Z goes on with it" in caplog.text
    (decided.folder / "registry" / left).unlink()


def test_a_tick_that_no_schedule_named_says_by_which_name_it_goes_on(
    decided: Place, caplog: pytest.LogCaptureFixture
) -> None:
    tokens = decided.options("--least-pictures", "100")
    for option, value in (("--tick", TICK), ("--least-pictures", "4")):
        place = tokens.index(option)
        assert tokens[place : place + 2] == [option, value]
        del tokens[place : place + 2]
    code, out, err = decided.here(retrain_app, *tokens)
    assert (code, "too few new pictures" in out) == (0, True), err
    (name,) = re.findall(r"if this is cut short, only --tick (\d{8}T\d{4}Z) goes on with it", caplog.text)
    assert decided.registry.decision(name) is not None


def test_ticks_in_a_row_go_on_from_what_is_current_and_from_where_its_data_ended(decided: Place) -> None:
    """A second training from the promoted version, which no margin lets through; then what the next one would do, also
    after a rollback."""
    first = decided.registry.find("current")
    labelled(decided.folder / "later", NEW, dict.fromkeys(NEW, "2026-11-12"))
    tick = decided.options(tick="2026-11-13T03:00Z", data="later")
    tick[tick.index("--margin") + 1] = "1"
    ended = Job(decided.folder / "log", decided.environment, *tick, script="retrain.py").wait().expect(0)
    assert "kept the current model" in ended.out
    decision = decided.registry.decision("20261113T0300Z")
    assert decision is not None
    assert decision["base"] == first.name
    second = decided.registry.find(decision["version"])
    assert second.lineage["start_from"] == first.uri
    for run in (decided.folder / "registry" / "runs" / "20261113T0300Z").glob("faces-*/run.json"):
        assert "imports" not in json.loads(run.read_text())["start_up_s"], "the training before it is none of its start"
    assert second.lineage["window"] == {"since": "2026-11-10T03:00:00+00:00", "until": "2026-11-13T03:00:00+00:00"}
    spec = read_spec(Path(second.uri.removeprefix("file://")))
    assert (spec.name, spec.version) == (LIGHT, "20261113T0300Z")
    assert decided.registry.find("current").name == first.name

    def next_one() -> str:
        where = decided.options("--dry-run", tick="2026-11-14T03:00Z", data="later")
        code, out, err = decided.here(retrain_app, *where)
        assert code == 0, err
        return out

    assert "from 2026-11-10T03:00Z up to" in next_one()  # what the one that was kept out has learned comes again
    decided.manage("promote", second.name)
    assert "from 2026-11-13T03:00Z up to" in next_one()
    assert f"{second.name}, a {LIGHT}" in next_one()
    decided.manage("rollback")
    assert "from 2026-11-10T03:00Z up to" in next_one()
    assert decided.registry.find("current").name == first.name


def test_the_next_tick_begins_where_the_data_of_the_current_version_ended(
    decided: Place, caplog: pytest.LogCaptureFixture
) -> None:
    """Nothing new there: no training, the model stays, and the tick is decided."""
    caplog.set_level("INFO")
    current = decided.registry.find("current").name
    code, out, err = decided.here(retrain_app, *decided.options(tick="2026-11-12T03:00Z"))
    assert (code, "too few new pictures" in out) == (0, True), err
    assert "0 rows from 2026-11-10T03:00Z up to 2026-11-12T03:00Z, 8 before and 0 after" in caplog.text
    decision = decided.registry.decision("20261112T0300Z")
    assert decision is not None
    assert decision["promoted"] is False
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
    decided.manage("rollback")
    assert decided.registry.find("current").name != version.name
    (tmp_path / "in" / "new.jpg").write_bytes((decided.folder / "new" / "images" / "0.jpg").read_bytes())
    detect("--model", "registry:current").expect(0)
    assert Tables(tmp_path / "out").validated().run_facts["settings"] == settings
    assert Tables(tmp_path / "out").run_facts["output"]["pictures"] == 3
    other = ("--model", f"registry:{decided.registry.find('current').name}", *where)
    paths = ("--input", str(tmp_path / "in"), "--output", str(tmp_path / "out"))
    code, _, err = decided.here(detect_app, *paths, *other)
    assert (code, "was made with model" in err) == (2, True), err
    decided.manage("promote", version.name)
    assert decided.registry.find("current").name == version.name


@pytest.mark.parametrize(
    ("places", "more", "why"),
    [
        ({"registry": "empty"}, (), "no model is current"),
        ({"data": "nothing"}, (), "no manifest"),
        ({"frozen": "new"}, (), "is one of --frozen's pictures"),
        ({"frozen": "copy"}, (), "or a copy of one"),
        ({"frozen": "lost"}, (), "1 of 4 pictures are not there"),
        ({"frozen": "cut"}, (), f"{FROZEN[0]}.jpg: cannot be decoded"),
        ({}, ("--start-from", "hr-resnet50"), "is another network"),
        ({}, ("--preset", "slow"), "known are fast, paper"),
        ({}, ("--least", "3"), "Unknown option"),
    ],
)
def test_what_is_wrong_is_told_before_anything_is_written(
    begun: Place, places: dict[str, str], more: tuple[str, ...], why: str
) -> None:
    """At a tick that is not decided, with a Ray that does not answer."""
    labelled(begun.folder / "copy", [*FROZEN, NEW[0]])
    lost = labelled(begun.folder / "lost", FROZEN)
    (lost / "images" / f"{FROZEN[0]}.jpg").unlink()
    cut = labelled(begun.folder / "cut", FROZEN) / "images" / f"{FROZEN[0]}.jpg"
    cut.write_bytes(cut.read_bytes()[:2000])
    before = everything_in(begun.folder / "registry")
    tokens = begun.options("--since", "2026-11-01", *more, tick="2026-11-11T03:00Z", **places)
    code, _, err = begun.here(retrain_app, *tokens)
    assert (code, why in err) == (2, True), err
    assert everything_in(begun.folder / "registry") == before
    assert not (begun.folder / "empty").exists()
