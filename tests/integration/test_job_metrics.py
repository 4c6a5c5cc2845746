"""What a run tells Prometheus and its log, on a real Ray: the same numbers as run.json, whatever died on the way."""

from __future__ import annotations

import json
import os
import signal
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from ray_metrics import METRICS
from tests.integration.job_pictures import cloud, deadly
from tests.integration.job_runs import ROOT, Job, Tables
from tests.integration.ray_head import FAULTS, RayHead
from tests.integration.scraped import Sample, scraped, total, when
from tests.unit.archives import tar_bytes

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

OF_RAY = {"Component", "NodeAddress", "SessionName", "Version", "WorkerId"}
EVERY_SECOND = {"RAY_metrics_report_interval_ms": "1000"}  # else each process tells its counts every ten seconds
FAILING, SLOW, SLOW_PICTURES = (250, 1, 4), (250, 1, 5), 40  # first pixels that tests/faults knows


@pytest.fixture(scope="module")
def at_detectors(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where each detector notes the pictures that it takes, in a file named by its process."""
    return tmp_path_factory.mktemp("notes")


@pytest.fixture(scope="module")
def head(at_detectors: Path) -> Iterator[RayHead]:
    variables = {"PYTHONPATH": f"{FAULTS}:{ROOT}", "TINYFACE_TEST_NOTES": str(at_detectors)}
    with RayHead(cpus=2, variables={**variables, **EVERY_SECOND}) as head:
        yield head


@pytest.fixture(scope="module")
def archive(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Good pictures, some of which take long, three kinds of bad ones, and one on which the detector fails."""
    folder = tmp_path_factory.mktemp("metrics") / "in"
    folder.mkdir()
    for number in range(12):
        (folder / f"{number:02}.jpg").write_bytes(cloud(number))
    for number in range(SLOW_PICTURES):
        (folder / f"slow-{number}.png").write_bytes(deadly(SLOW))
    (folder / "empty.jpg").write_bytes(b"")
    (folder / "letter.pdf").write_bytes(b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n")
    (folder / "box.tar").write_bytes(tar_bytes([("in.jpg", cloud(20)), ("cut.jpg", cloud(21)[:300])]))
    (folder / "fails.png").write_bytes(deadly(FAILING))
    return folder


@dataclass(frozen=True)
class Observed:
    """A run that ended. said: its stderr. at_work: what was scraped while it was."""

    folder: Path
    said: str
    at_work: list[Sample]

    @property
    def facts(self) -> dict[str, Any]:
        return Tables(self.folder).run_facts

    @property
    def lines(self) -> list[dict[str, Any]]:
        """Those of its log that are JSON."""
        return [json.loads(line) for line in self.said.splitlines() if line.startswith("{")]


@pytest.fixture(scope="module")
def run(
    tmp_path_factory: pytest.TempPathFactory, head: RayHead, at_detectors: Path, archive: Path, model: Path
) -> Observed:
    """A run that logs JSON, one of whose detectors is killed over its pictures."""
    folder = tmp_path_factory.mktemp("run")
    options = ["--input", str(archive), "--output", str(folder / "out"), "--model", str(model), "--zooms", "0.5"]
    job = Job(folder / "log", head.environment, *options, "--unit-pictures", "4", "--log-format", "json")
    job.wait_until(lambda: any(at_detectors.iterdir()), "at the first picture")
    os.kill(int(next(at_detectors.iterdir()).name), signal.SIGKILL)
    told: dict[str, Sample] = {}
    while job.process.poll() is None:
        told |= {f"{each.name} {sorted(each.labels.items())}": each for each in scraped(head.metrics_url)}
        time.sleep(0.5)
    said = job.wait().expect(0).err
    return Observed(Tables(folder / "out").validated().folder, said, list(told.values()))


def test_counts_are_those_of_run_json_though_a_detector_was_killed(head: RayHead, run: Observed) -> None:
    """The killed detector's block is worked twice; each picture is counted once, when it is committed."""
    facts = run.facts
    this_run = facts["this_run"]
    samples = when(
        head.metrics_url, lambda found: total(found, "ray_tinyface_runs_total") == 1, "counted the end of the run"
    )
    assert this_run["errors_by_class"] == {"internal": 1, "not_an_image": 1, "truncated": 2}
    assert total(samples, "ray_tinyface_pictures_total") == this_run["pictures"] == 17 + SLOW_PICTURES
    assert total(samples, "ray_tinyface_faces_total") == this_run["faces"] > 0
    for error_class, count in this_run["errors_by_class"].items():
        assert total(samples, "ray_tinyface_errors_total", error_class=error_class) == count
    assert total(samples, "ray_tinyface_errors_total") == this_run["error"] == 4
    assert total(samples, "ray_tinyface_errors_total", error_class="internal", error_stage="detect") == 1
    assert total(samples, "ray_tinyface_errors_total", error_class="truncated", error_stage="decode") == 2
    units = facts["units"]["worked"]
    assert total(samples, "ray_tinyface_units_total") == units
    assert total(samples, "ray_tinyface_commit_seconds_count") == units
    assert total(samples, "ray_tinyface_commit_seconds_bucket", le="+Inf") == units
    assert total(samples, "ray_tinyface_runs_total", command="detect_archive", exit_code="0") == 1


def test_a_run_at_work_says_what_it_runs_with(run: Observed) -> None:
    facts, at_work = run.facts, run.at_work
    (info,) = [each for each in at_work if each.name == "ray_tinyface_run_info"]
    wanted = {"command": "detect_archive", "run": facts["run"], "model": "tiny", "device": "cpu"}
    assert wanted.items() <= dict(info.labels).items()
    assert info.labels["precision"] == facts["settings"]["precision"]
    assert info.value == 1
    assert total(at_work, "ray_tinyface_expected_pictures") >= 1
    detectors = [each for each in at_work if each.name == "ray_tinyface_detectors"]
    assert {each.value for each in detectors} == {1.0}
    assert 1 <= len(detectors) <= 3, "two, and one in the place of the killed one"


def test_what_only_a_living_process_tells_goes_with_it(head: RayHead, run: Observed) -> None:
    """So an alert can tell a run at work from one that ended."""
    gauges = {"ray_tinyface_run_info", "ray_tinyface_detectors", "ray_tinyface_last_commit_timestamp_seconds"}
    when(head.metrics_url, lambda found: not gauges & {each.name for each in found}, "without the run's gauges")


def test_time_is_told_by_stage(head: RayHead, run: Observed) -> None:
    samples = scraped(head.metrics_url)
    stages = {each.labels["stage"] for each in samples if each.name == "ray_tinyface_stage_seconds_total"}
    assert {"read", "commit"} <= stages <= {"read", "decode", "detect", "commit"}
    assert total(samples, "ray_tinyface_stage_seconds_total", stage="commit") > 0


def test_every_series_and_label_is_in_the_table_and_no_label_names_a_picture(head: RayHead, run: Observed) -> None:
    ours = [each for each in [*run.at_work, *scraped(head.metrics_url)] if "tinyface" in each.name]
    for each in ours:
        name = each.name.removeprefix("ray_")
        if name not in METRICS:
            name = name.rpartition("_")[0]  # _bucket, _count, _sum
        metric = METRICS[name]
        own = {label for label in each.labels if not label.startswith("otel_")} - OF_RAY - {"le"}
        assert own == set(metric.labels), each
        for label, values in metric.labels.items():
            assert each.labels[label] in values or (not values and "/" not in each.labels[label]), each
    assert {"SessionName", "WorkerId"} <= set.intersection(*(set(each.labels) for each in ours))


def test_every_line_of_the_log_is_json_of_this_run_but_for_what_ray_prints(
    run: Observed,
) -> None:
    others = [line for line in run.said.splitlines() if line and not line.startswith("{")]
    assert [line for line in others if not line.startswith(("[", "(", "\x1b"))] == []
    ours = [line for line in run.lines if "run" in line]
    assert {line["run"] for line in ours} == {run.facts["run"]}
    assert all({"time", "level", "logger", "message"} <= set(line) for line in ours)
    assert any(line["message"].startswith("listed") or "to work" in line["message"] for line in ours)


def test_a_line_of_a_worker_names_unit_and_picture(run: Observed, archive: Path) -> None:
    """The detector that fails on one picture says so in its own process; the line comes through the driver."""
    (line,) = [line for line in run.lines if line["message"].startswith("detection failed")]
    assert line["exception"].splitlines()[-1] == "RuntimeError: a detector that fails on this picture"
    assert (line["run"], line["logger"]) == (run.facts["run"], "tinyface_core.detect.guarded")
    assert len(line["unit"]) > 8
    assert isinstance(line["index"], int)
    assert line["actor_id"]


def test_copies_are_counted_as_run_json_has_them(tmp_path: Path, head: RayHead, run: Observed) -> None:
    options = [str(run.folder), "--output", str(tmp_path / "to"), "--check", "0"]
    Job(tmp_path / "log", head.environment, *options, script="redact.py").wait().expect(0)
    this_run = json.loads((tmp_path / "to" / "run.json").read_text())["this_run"]
    samples = when(
        head.metrics_url,
        lambda found: total(found, "ray_tinyface_runs_total", command="redact") == 1,
        "counted the end",
    )
    assert total(samples, "ray_tinyface_copies_total") == this_run["written"] == 13 + SLOW_PICTURES
    assert total(samples, "ray_tinyface_masked_faces_total") == this_run["faces_masked"] > 0
    for error_class, count in this_run["errors_by_class"].items():
        assert total(samples, "ray_tinyface_copy_errors_total", error_class=error_class) == count
    assert total(samples, "ray_tinyface_pictures_total") == run.facts["this_run"]["pictures"], "no picture was detected"


def test_a_refused_job_says_so_as_json(tmp_path: Path, head: RayHead) -> None:
    """A job without Ray, and the variable in the place of the option."""
    environment = {**head.environment, "TINYFACE_LOG_FORMAT": "json"}
    ended = Job(tmp_path / "log", environment, str(tmp_path / "none"), script="validate.py").wait().expect(2)
    (line,) = ended.err.splitlines()
    told = json.loads(line)
    assert (told["level"], told["exit_code"]) == ("ERROR", 2)
    assert "no output of detect_archive.py" in told["message"]
