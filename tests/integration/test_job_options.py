"""Options that bound or describe a run: --limit, --max-error-share, --dry-run, --config; and how work is shared out."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from tests.integration.job_pictures import cloud
from tests.integration.job_runs import Job, Tables, everything_in
from tests.integration.ray_head import RayHead, ray_environment
from tests.picture_samples import saved
from tests.unit.archives import tar_bytes, zip_bytes

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

SLOW = (250, 1, 5)  # a first pixel (tests/faults)


def test_a_dry_run_tells_types_and_sizes_and_writes_nothing(tmp_path: Path) -> None:
    """No claim, no output folder, no Ray: RAY_ADDRESS leads nowhere."""
    (tmp_path / "in").mkdir()
    for number in range(3):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(bytes(1024))
    (tmp_path / "in" / "s.tar").write_bytes(tar_bytes([("a.jpg", bytes(5000))]))
    (tmp_path / "in" / "s.zip").write_bytes(zip_bytes([("a.jpg", b"1")]))
    (tmp_path / "in" / "notes.txt").write_text("words")
    before, log = everything_in(tmp_path), tmp_path.parent / f"{tmp_path.name}-log"
    nowhere = ray_environment() | {"RAY_ADDRESS": "127.0.0.1:1", "COLUMNS": "120"}
    run = Job(log, nowhere, "--input", "in", "--output", "out", "--dry_run", cwd=tmp_path).wait().expect(0)
    assert everything_in(tmp_path) == before
    told = {
        cells[0]: cells[1:] for cells in (re.split(r"\s*[│|]\s*", line.strip(" │|")) for line in run.out.splitlines())
    }
    assert told[".jpg"] == ["3", "3.0 KiB"]
    assert told["tar"] == ["1", "10.0 KiB"]
    assert told["zip"][0] == "1"
    assert told["all"][0] == "5"
    assert ".txt 1" in run.out


def test_a_forecast_writes_nothing_and_the_run_is_held_against_it(
    tmp_path: Path, ray_head: RayHead, model: Path
) -> None:
    (tmp_path / "in").mkdir()
    for number in range(6):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(cloud(number))
    (tmp_path / "in" / "half.jpg").write_bytes(cloud(9)[:500])
    members = [(f"{number}.jpg", cloud(number, 200, 300)) for number in range(20)]
    (tmp_path / "in" / "s.tar").write_bytes(tar_bytes(members))
    (tmp_path / "in" / "notes.txt").write_text("words")
    before, log = everything_in(tmp_path), tmp_path.parent / f"{tmp_path.name}-log"
    common = ("--input", "in", "--output", "out", "--model", str(model), "--zooms", "0.5")
    environment = ray_head.environment | {"COLUMNS": "120"}
    asked = ("--forecast", "--actors", "2", "--price-per-hour", "3600")
    run = Job(log, environment, *common, *asked, cwd=tmp_path).wait().expect(0)
    assert everything_in(tmp_path) == before
    rows = [re.split(r"\s*[│┃|]\s*", line.strip(" │┃|")) for line in run.out.splitlines()]
    cells = {row[0]: row[1:] for row in rows}
    steps = {step: float(cells[step][0]) for step in ("read", "decode", "model")}
    assert all(ms > 0 for ms in steps.values())
    assert cells["model"][1] == "2"
    rate, *_, cost = cells["2"]
    pictures = int(re.search(r"about (\d+) pictures", run.out)[1])  # type: ignore[index]
    assert 26 <= pictures <= 29  # 7 loose ones, and 20 by the size of 8
    assert float(rate) == pytest.approx(2000 / (steps["decode"] + steps["model"]), rel=0.02)
    assert float(cost) == pytest.approx(2 * pictures / float(rate), rel=0.1)  # one detector costs 1 a second
    assert ".txt 1" in run.out
    expected = re.search(r"--expect-hours (\S+)", run.out)[1]  # type: ignore[index]

    last = Job(log, environment, *common, "--expect-hours", expected, "--no-report", cwd=tmp_path).wait().expect(0)
    found = Tables(tmp_path / "out").run_facts["forecast"]
    assert found["hours"] == float(expected)
    assert found["took_hours"] > 0
    facts = Tables(tmp_path / "out").run_facts
    assert 0 < facts["duty"] < 1
    assert list(facts["start_up_s"]) == ["imports", "listing", "Ray", "device", "plan", "detectors", "first block"]
    assert 0 < sum(facts["start_up_s"].values()) < facts["wall_s"] + 30  # from the command on
    assert re.search(r"detectors +2, computing \d+% of the time", last.out)
    assert re.search(r"of work expected, .* taken \([+-]", last.out)


def test_a_partitioned_output_resumes_and_is_asked_by_its_key(tmp_path: Path, ray_head: RayHead, model: Path) -> None:
    for number in range(12):
        place = tmp_path / "in" / f"camera-{number % 2}" / f"2016-05-0{1 + number % 3}"
        place.mkdir(parents=True, exist_ok=True)
        (place / f"{number}.jpg").write_bytes(cloud(number))
    (tmp_path / "in" / "undated.tar").write_bytes(tar_bytes([("2016-05-01/a.jpg", cloud(20)), ("b.jpg", b"x")]))
    by_day = ("--partition-by", r"day=/(\d{4}-\d\d-\d\d)/")
    common = ("--input", "in", "--output", "out", "--model", str(model), "--zooms", "0.5", "--no-report")
    first = (*common, *by_day, "--unit-pictures", "3", "--limit", "5")
    Job(tmp_path / "log", ray_head.environment, *first, cwd=tmp_path).wait().expect(0)
    tables = Tables(tmp_path / "out").validated()
    assert 5 <= tables.query("SELECT count(*) FROM IMAGES")[0][0] < 14
    other = Job(tmp_path / "log", ray_head.environment, *common, "--partition-by", "day=/(x)/", cwd=tmp_path).wait()
    assert "was made with partition_by" in other.expect(2).err
    Job(tmp_path / "log", ray_head.environment, *common, cwd=tmp_path).wait().expect(0)
    days = tables.validated().query("SELECT day::VARCHAR, count(*) FROM IMAGES GROUP BY 1 ORDER BY 1")
    assert days == [("2016-05-01", 4), ("2016-05-02", 4), ("2016-05-03", 4), (None, 2)]
    assert sorted(path.name for path in (tmp_path / "out" / "images").iterdir()) == [
        *(f"day=2016-05-0{day}" for day in (1, 2, 3)), "day=__HIVE_DEFAULT_PARTITION__"
    ]  # fmt: skip


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead, model: Path) -> tuple[Path, str]:
    """(folder, Ray Data's log of a run over one tar of 120 pictures, 6 MB, a single unit).

    Every other picture takes a detector a fifth of a second, so that the second one is there before the first is done.
    """
    folder = tmp_path_factory.mktemp("shared")
    (folder / "in").mkdir()
    noise = np.random.default_rng(7)
    pictures = [noise.integers(0, 255, (107, 211, 3), np.uint8) for _ in range(120)]
    for picture in pictures[::2]:
        picture[0, 0] = SLOW
    members = [
        (f"{number:03}.png", saved(picture, "PNG")) if number % 2 == 0 else (f"{number:03}.jpg", saved(picture, "JPEG"))
        for number, picture in enumerate(pictures)
    ]
    (folder / "in" / "shard.tar").write_bytes(tar_bytes(members))
    before = len(ray_head.data_log)
    options = ["--input", "in", "--output", "out", "--model", str(model), "--zooms", "1", "--no-report"]
    Job(folder / "log", ray_head.environment, *options, cwd=folder).wait().expect(0)
    return folder, ray_head.data_log[before:]


def test_reading_is_not_fused_into_the_detectors(shared: tuple[Path, str]) -> None:
    """Ray Data's own words for the steps that it runs: two, not one."""
    _, log = shared
    assert set(re.findall(r"Executing map task of operator (.*) with task index", log)) == {
        "MapBatches(read_units)", "MapBatches(DetectFaces)"
    }  # fmt: skip


def test_one_large_unit_is_worked_by_all_detectors(shared: tuple[Path, str], notes: Path) -> None:
    """Each of the two takes a share of the 120 pictures; the one that is ready first begins."""
    folder, _ = shared
    assert len(Tables(folder / "out").committed()) == 1
    taken = [path.read_text().count("211 107\n") for path in notes.iterdir()]
    shares = sorted(count for count in taken if count)
    assert sum(shares) == 120, "each picture was worked once"
    assert len(shares) == 2
    assert shares[0] >= 10


@pytest.fixture
def crashed_ray() -> Iterator[dict[str, str]]:
    """What a Ray that did not end well leaves behind: the address at which it was. Short, for sockets lie below."""
    with tempfile.TemporaryDirectory(prefix="ray-", dir="/tmp") as folder:
        (Path(folder) / "ray").mkdir()
        (Path(folder) / "ray" / "ray_current_cluster").write_text("127.0.0.1:1")
        yield {"RAY_TMPDIR": folder}


def test_a_run_on_one_cpu_with_a_limit_goes_on_where_it_stopped(
    tmp_path: Path, crashed_ray: dict[str, str], ray_head: RayHead, model: Path
) -> None:
    """--config gives options in either spelling; the command line wins; whole units until --limit is reached.

    The first run starts a Ray of its own, as there is none but a crashed one; the second joins a cluster.
    """
    (tmp_path / "in").mkdir()
    for number in range(20):
        (tmp_path / "in" / f"{number:02}.jpg").write_bytes(cloud(number))
    (tmp_path / "job.yaml").write_text(f"model: {model}\nzooms: [0.5]\nunit_pictures: 6\nlimit: 1\nreport: false\n")
    options = ["--input=in", "--output=out", "--config", "job.yaml"]
    one_cpu, tables = (
        ray_environment() | crashed_ray | {"RAY_OVERRIDE_RESOURCES": '{"CPU": 1}'},
        Tables(tmp_path / "out"),
    )
    run = Job(tmp_path / "log", one_cpu, *options, "--limit", "7", cwd=tmp_path).wait().expect(0)
    assert "a local Ray: 1 CPUs" in run.err
    assert "not all that is planned is worked" in run.out
    assert len(tables.statuses()) == 12
    assert not tables.run_facts["complete"]
    assert not (tmp_path / "out" / "report.html").exists()
    Job(tmp_path / "log", ray_head.environment, *options, "--limit=1000", cwd=tmp_path).wait().expect(0)
    assert len(tables.statuses()) == 20
    assert tables.run_facts["complete"]
    tables.validated()


def test_too_many_errors_stop_the_run_with_3_and_stay_committed(tmp_path: Path, ray_head: RayHead, model: Path) -> None:
    (tmp_path / "in").mkdir()
    for number in range(10):
        (tmp_path / "in" / f"{number}.jpg").write_bytes(cloud(number) if number < 7 else b"words")
    options = ["--input", "in", "--output", "out", "--model", str(model), "--zooms", "0.5", "--max-error-share"]
    run = Job(tmp_path / "log", ray_head.environment, *options, "0.2", cwd=tmp_path).wait().expect(3)
    assert "3 of 10 pictures" in run.err
    assert "--max-error-share 0.2" in run.err
    assert not (tmp_path / "out" / "_SUCCESS").exists()
    assert len(Tables(tmp_path / "out").statuses()) == 10
    again = Job(tmp_path / "log", ray_head.environment, *options, "0.2", cwd=tmp_path).wait().expect(3)
    assert "3 of 10 pictures of the output" in again.err  # a scheduler that tries again must not see it go well
    assert Job(tmp_path / "log", ray_head.environment, *options, "0.3", cwd=tmp_path).wait().expect(0)
