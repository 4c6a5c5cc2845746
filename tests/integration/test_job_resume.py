"""A run that is killed, and the same command again: each picture exactly once, nothing worked twice, nothing left."""

from __future__ import annotations

import os
import shutil
import signal
from dataclasses import dataclass, replace
from pathlib import Path

import pytest

from tests.integration.job_pictures import cloud
from tests.integration.job_runs import Ended, Job, Tables, everything_in, maps_of_detectors
from tests.integration.ray_head import RayHead
from tests.unit.archives import tar_bytes
from tinyface_core.storage import Storage
from tinyface_core.tables.claim import Claim

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(900)]

LOOSE, IN_TAR, UNIT = 61, 11, 8
UNITS = 9  # 61 loose pictures in eighths, and the tar
PICTURES = LOOSE + IN_TAR


@dataclass(frozen=True)
class Story:
    """A finished output, and how it came to be. skipped: units that the last run found committed."""

    folder: Path
    environment: dict[str, str]
    options: tuple[str, ...]
    last: Ended
    skipped: int

    def again(self, *more: str, environment: dict[str, str] | None = None) -> Ended:
        """The same command once more."""
        return Job(self.folder / "log", environment or self.environment, *self.options, *more, cwd=self.folder).wait()

    def copied(self, folder: Path) -> Story:
        """The same with an output of its own, for a test that changes it."""
        shutil.copytree(self.folder / "out", folder / "out")
        options = [str(folder / "out") if option == "out" else option for option in self.options]
        return Story(self.folder, self.environment, tuple(options), self.last, self.skipped)

    @property
    def tables(self) -> Tables:
        return Tables(self.folder / self.options[self.options.index("--output") + 1])


@pytest.fixture(scope="module")
def story(tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead, model: Path) -> Story:
    """72 pictures in 9 units. Killed from outside at 1 and 3 commits and between two files of a commit; then done."""
    folder = tmp_path_factory.mktemp("resume")
    (folder / "in").mkdir()
    for number in range(LOOSE):
        (folder / "in" / f"{number:02}.jpg").write_bytes(cloud(number))
    members = [(f"{number:02}.jpg", cloud(100 + number)) for number in range(IN_TAR)]
    (folder / "in" / "shard.tar").write_bytes(tar_bytes(members))
    fixed = ("--output", "out", "--model", str(model), "--zooms", "0.5", "--unit-pictures", str(UNIT), "--no-report")
    options, environment, tables = ("--input", "in", *fixed), ray_head.environment, Tables(folder / "out")

    done = 0
    for at_least in (1, 3):
        job, least = Job(folder / "log", environment, *options, cwd=folder), max(at_least, done + 1)
        job.wait_until(lambda least=least: len(tables.committed()) >= least, f"{least} units are committed")
        assert {"libjemalloc" in maps for maps in maps_of_detectors()} == {True}
        assert job.kill().code == 128 + signal.SIGKILL
        assert f"{done} of {UNITS} units are committed" in job.said() or not done
        done = len(tables.committed())
        assert least <= done < UNITS
    deadly = environment | {"TINYFACE_TEST_KILL": "detections:1"}
    assert Job(folder / "log", deadly, *options, cwd=folder).wait().code == 128 + signal.SIGKILL
    assert len(tables.committed()) >= done
    assert len(list((folder / "out" / "detections").glob("*.parquet"))) > len(tables.committed())
    assert not (folder / "out" / "_SUCCESS").exists()

    done, written = len(tables.committed()), everything_in(folder / "out" / "images")
    last = Job(folder / "log", environment, *options, cwd=folder).wait().expect(0)
    assert written.items() <= everything_in(folder / "out" / "images").items(), "a committed unit was written again"
    return Story(folder, environment, options, last, done)


def check_whole(tables: Tables, pictures: int = PICTURES) -> None:
    """Exact counts, no doubles, valid: an orphan in detections/ is a violation too."""
    assert len(tables.statuses()) == pictures == tables.run_facts["output"]["pictures"]
    assert set(tables.statuses().values()) == {"ok"}
    assert tables.whole()
    tables.validated()


def test_kills_between_commits_and_within_one_lose_and_double_nothing(story: Story) -> None:
    check_whole(story.tables)
    assert f"{story.skipped} of {UNITS} units are committed under these settings: skipped" in story.last.err
    worked = {"planned": UNITS, "committed_before": story.skipped, "worked": UNITS - story.skipped}
    assert story.tables.run_facts["units"] == worked


def test_a_finished_run_again_starts_no_ray_and_sweeps_orphans(story: Story, tmp_path: Path) -> None:
    """The cluster of RAY_ADDRESS is not there, and is not missed; files that no record names go, the others stay."""
    mine = story.copied(tmp_path)
    before = everything_in(mine.tables.folder / "images") | everything_in(mine.tables.folder / "detections")
    some = next((mine.tables.folder / "detections").iterdir())
    shutil.copy(some, some.with_name(f"{some.stem[:-32]}{'0' * 32}.parquet"))
    shutil.copy(some, some.with_name(f"part-{'1' * 32}-{'2' * 32}.parquet"))
    shutil.copy(some, some.with_name(f".{some.name}.{'3' * 32}.tmp"))
    run = mine.again(environment=mine.environment | {"RAY_ADDRESS": "127.0.0.1:1"}).expect(0)
    assert f"{UNITS} of {UNITS} units are committed under these settings: skipped" in run.err
    assert everything_in(mine.tables.folder / "images") | everything_in(mine.tables.folder / "detections") == before
    assert mine.tables.run_facts["this_run"]["pictures"] == 0
    check_whole(mine.tables)


def test_what_changes_between_listing_and_reading_is_planned_again(
    tmp_path: Path, ray_head: RayHead, model: Path
) -> None:
    """Three times a run, loose or archive; what goes on changing is an error row, which the next run takes up."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "steady.jpg").write_bytes(cloud(1))
    tar = tar_bytes([(f"{number}.jpg", cloud(number)) for number in range(3)])
    for name, data in (("changes-1.jpg", cloud(2)), ("changes-9.jpg", cloud(3)), ("changes-2.tar", tar)):
        (tmp_path / "in" / name).write_bytes(data)
        os.utime(tmp_path / "in" / name, (1000, 1000))
    fixed = ("--output", "out", "--model", str(model), "--zooms", "0.5", "--no-report", "--actors", "1")
    run = Job(tmp_path / "log", ray_head.environment, "--input", "in", *fixed, cwd=tmp_path).wait().expect(0)
    assert "3 sources changed between listing and reading: planned again" in run.err
    tables = Tables(tmp_path / "out")
    once = {f"in/changes-2.tar::{number}.jpg": "ok" for number in range(3)} | {"in/changes-1.jpg": "ok"}
    assert tables.statuses() == once | {"in/steady.jpg": "ok", "in/changes-9.jpg": "unreadable"}
    facts = tables.run_facts
    assert facts["units"] == {"planned": 2, "committed_before": 0, "worked": 2}
    assert tables.query("SELECT DISTINCT error_message[:18] FROM IMAGES WHERE status = 'error'") == [
        ("changed meanwhile:",)
    ]
    assert os.stat(tmp_path / "in" / "changes-9.jpg").st_mtime == 1004, "read four times"
    (tmp_path / "in" / "changes-9.jpg").rename(tmp_path / "in" / "calm.jpg")
    (tmp_path / "in" / "calm.jpg").rename(tmp_path / "in" / "changes-9.jpg")
    os.utime(tmp_path / "in" / "changes-9.jpg", (2000, 2000))
    Job(tmp_path / "log", ray_head.environment, "--input", "in", *fixed, cwd=tmp_path).wait().expect(0)
    assert tables.statuses() == once | {"in/steady.jpg": "ok", "in/changes-9.jpg": "ok"}
    tables.validated()


def test_a_changed_picture_alone_is_worked_at_the_cost_of_one_inference(story: Story, tmp_path: Path) -> None:
    """The rows of its unit's other pictures are carried over, also of one that is not there any more."""
    mine = story.copied(tmp_path)
    changed, gone = story.folder / "in" / "09.jpg", story.folder / "in" / "10.jpg"
    before = {path: (path.read_bytes(), path.stat()) for path in (changed, gone)}
    others = f"FROM DETECTIONS JOIN IMAGES USING (image_id) WHERE uri <> 'file://{changed}' ORDER BY ALL"
    faces = f"SELECT uri, x1, y1, x2, y2, score, template, zoom, ellipse_angle {others}"
    stand = mine.tables.query(faces)
    sha = dict(mine.tables.query("SELECT uri, sha256 FROM IMAGES WHERE member IS NULL"))
    try:
        changed.write_bytes(cloud(305))
        gone.unlink()
        run = mine.again().expect(0)
    finally:
        for path, (data, times) in before.items():
            path.write_bytes(data)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert (
        "sources: 0 new, 1 changed, 60 as before, 1 no longer listed (their rows stay; --prune takes them out)"
        in run.err
    )
    facts = mine.tables.run_facts
    assert facts["units"] == {"planned": UNITS, "committed_before": UNITS - 1, "worked": 1}
    assert facts["this_run"]["pictures"] == 1
    check_whole(mine.tables)
    now = dict(mine.tables.query("SELECT uri, sha256 FROM IMAGES WHERE member IS NULL"))
    assert {uri for uri, hash_ in now.items() if sha[uri] != hash_} == {f"file://{changed}"}
    assert mine.tables.query(faces) == stand


def test_pruning_takes_out_what_is_gone_and_lets_it_come_back(story: Story, tmp_path: Path) -> None:
    """A picture, the whole archive and, at first, too much of both; no inference but for what comes back."""
    mine = story.copied(tmp_path)
    gone, archive = story.folder / "in" / "10.jpg", story.folder / "in" / "shard.tar"
    before = mine.tables.query("SELECT uri, member, commit FROM IMAGES")
    try:
        for path in (gone, archive):
            path.rename(tmp_path / path.name)
        refused = mine.again("--prune", "0.01").expect(2)
        assert "2 of 62 sources are no longer listed" in refused.err
        assert mine.tables.query("SELECT uri, member, commit FROM IMAGES") == before
        assert (mine.tables.folder / "_SUCCESS").exists()
        (mine.tables.folder / "report.html").write_text("a picture of what goes")
        run = mine.again("--prune", "0.05").expect(0)
    finally:
        for path in (gone, archive):
            (tmp_path / path.name).rename(path)
    assert "0 changed, 60 as before, 2 no longer listed (their rows go)" in run.err
    assert mine.tables.run_facts["this_run"]["pictures"] == 0
    check_whole(mine.tables, LOOSE - 1)
    assert not (mine.tables.folder / "report.html").exists()
    assert f"file://{gone}" not in dict(mine.tables.query("SELECT uri, sha256 FROM IMAGES"))
    mine.again("--prune", "0").expect(0)
    assert mine.tables.run_facts["this_run"]["pictures"] == 1 + IN_TAR
    check_whole(mine.tables)


def test_a_picture_that_was_taken_out_stays_out(story: Story, tmp_path: Path) -> None:
    """Also when its neighbour is worked again, and it has changed itself."""
    mine = story.copied(tmp_path)
    gone, changed = story.folder / "in" / "12.jpg", story.folder / "in" / "13.jpg"
    before = {path: (path.read_bytes(), path.stat()) for path in (changed, gone)}
    removal = Job(
        mine.folder / "log", mine.environment, str(mine.tables.folder), "--uri", str(gone), script="remove.py"
    )
    assert "1 picture with" in removal.wait().expect(0).out
    assert f"file://{gone}" not in dict(mine.tables.query("SELECT uri, sha256 FROM IMAGES"))
    assert mine.tables.validated().whole()
    try:
        changed.write_bytes(cloud(306))
        gone.write_bytes(cloud(307))
        mine.again().expect(0)
    finally:
        for path, (data, times) in before.items():
            path.write_bytes(data)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert mine.tables.run_facts["this_run"]["pictures"] == 1
    check_whole(mine.tables, PICTURES - 1)
    assert f"file://{gone}" not in dict(mine.tables.query("SELECT uri, sha256 FROM IMAGES"))


def test_new_pictures_changed_ones_and_another_input_are_worked_and_nothing_else(story: Story, tmp_path: Path) -> None:
    """A changed loose picture is redone and its rows are replaced; a new tar elsewhere is added."""
    mine = story.copied(tmp_path)
    (tmp_path / "more.tar").write_bytes(tar_bytes([("a.jpg", cloud(300)), ("b.jpg", cloud(301))]))
    changed, new = story.folder / "in" / "09.jpg", story.folder / "in" / "99.jpg"
    before, times = changed.read_bytes(), changed.stat()
    sha = dict(mine.tables.query("SELECT uri, sha256 FROM IMAGES WHERE member IS NULL"))
    try:
        changed.write_bytes(cloud(302))
        new.write_bytes(cloud(303))
        run = mine.again("--input", str(tmp_path / "more.tar")).expect(0)
    finally:
        new.unlink()
        changed.write_bytes(before)
        os.utime(changed, ns=(times.st_atime_ns, times.st_mtime_ns))
    assert "sources: 2 new, 1 changed, 61 as before" in run.err
    facts = mine.tables.run_facts
    assert facts["units"] == {"planned": UNITS + 2, "committed_before": UNITS - 1, "worked": 3}
    assert facts["this_run"]["pictures"] == 1 + 1 + 2
    check_whole(mine.tables, PICTURES + 3)
    now = dict(mine.tables.query("SELECT uri, sha256 FROM IMAGES WHERE member IS NULL"))
    assert {uri for uri, hash_ in now.items() if sha.get(uri) != hash_} == {f"file://{changed}", f"file://{new}"}


@pytest.mark.parametrize(
    ("option", "value", "named"),
    [
        ("--min_score", "0.9", "was made with min_score = 0.5, --min-score asks for 0.9"),
        ("--model", "hr-mobilenetv2", "was made with model = tiny, --model asks for hr-mobilenetv2"),
    ],
)
def test_other_settings_are_refused_by_name_and_change_nothing(
    story: Story, tmp_path: Path, option: str, value: str, named: str
) -> None:
    mine = story.copied(tmp_path)
    before = everything_in(mine.tables.folder)
    options = list(mine.options)
    if option in options:
        options[options.index(option) + 1] = value
    else:
        options += [option, value]
    run = replace(mine, options=tuple(options)).again().expect(2)
    assert named in run.err
    assert "Traceback" not in run.err
    assert everything_in(mine.tables.folder) == before


def test_an_output_that_another_driver_holds_is_left_to_it(story: Story, tmp_path: Path) -> None:
    """Exit code 1, since waiting helps; the message names the holder, which is this test."""
    mine = story.copied(tmp_path)
    before = everything_in(mine.tables.folder)
    with Claim(Storage(), f"file://{mine.tables.folder}"):
        run = mine.again().expect(1)
        now = everything_in(mine.tables.folder)
    assert f"pid {os.getpid()}" in run.err
    assert "Traceback" not in run.err
    assert {name for name in now.keys() | before.keys() if now.get(name) != before.get(name)} <= claims_of(now)


def claims_of(seen: dict[str, tuple[int, int]]) -> set[str]:
    return {name for name in seen if name.startswith("_run/claims")}
