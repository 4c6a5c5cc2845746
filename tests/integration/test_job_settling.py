"""Pictures that kill: detectors that die by SIGKILL and SIGSEGV, decoders that crash, hang and eat memory.

Each harms itself alone: its row says what happened, all others have their faces, and the run ends with 0. The deaths
are real (tests/faults): nothing in the job knows that this is a test.
"""

from __future__ import annotations

import json
import signal
from pathlib import Path

import pytest

from tests.integration.job_pictures import cloud, deadly, faulty
from tests.integration.job_runs import Ended, Job, Tables, everything_in
from tests.integration.ray_head import RayHead
from tests.unit.archives import tar_bytes, zip_bytes

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(1500)]

SIGKILLED, SIGSEGVED, RAISED = (250, 1, 2), (250, 1, 3), (250, 1, 4)
BAD = {
    "in/03 killed.png": deadly(SIGKILLED),
    "in/05 segfault.png": deadly(SIGSEGVED),
    "in/07 raises.png": deadly(RAISED),
    "in/08 crash.jpg": faulty("crash"),
    "in/09 hang.jpg": faulty("hang"),
    "in/11 eat.jpg": faulty("eat"),
}
WANTED = {
    "in/03 killed.png": ("detect", "internal"),
    "in/05 segfault.png": ("detect", "internal"),
    "in/07 raises.png": ("detect", "internal"),
    "in/08 crash.jpg": ("decode", "decoder_crashed"),
    "in/09 hang.jpg": ("decode", "timed_out"),
    "in/11 eat.jpg": ("decode", "out_of_memory"),
    "in/shard.tar::b killed.png": ("detect", "internal"),
}


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead, model: Path) -> tuple[Tables, str, Ended]:
    """(output, what the first run said, the second run).

    One unit of loose pictures with six bad ones, and a tar with one. The first run is killed, driver and all, when it
    has seen that the deadly ones need a process of their own; the second is the same command again.
    """
    folder = tmp_path_factory.mktemp("settle")
    (folder / "in").mkdir()
    for name, data in BAD.items():
        (folder / name).write_bytes(data)
    for number in range(13):
        (folder / "in" / f"{number:02} good.jpg").write_bytes(cloud(number))
    members = [("a.jpg", cloud(50)), ("b killed.png", deadly(SIGKILLED)), ("c.jpg", cloud(51))]
    (folder / "in" / "shard.tar").write_bytes(tar_bytes(members))
    options = ["--input", "in", "--output", "out", "--model", str(model), "--zooms", "0.5", "--decode-timeout", "4"]

    first = Job(folder / "log", ray_head.environment, *options, cwd=folder)
    first.wait_until(lambda: "in a process of its own" in first.said(), "a picture is tried alone")
    assert first.kill().code == 128 + signal.SIGKILL
    attempts = [json.loads(path.read_text()) for path in (folder / "out" / "_run" / "attempts").glob("*.json")]
    assert sorted(len(counts) for counts in attempts) == [1, 2], "of each unit its deadly pictures are remembered"
    second = Job(folder / "log", ray_head.environment, *options, cwd=folder).wait().expect(0)
    return Tables(folder / "out").validated(), first.said(), second


def test_a_deadly_picture_is_one_error_row_and_harms_no_neighbour(settled: tuple[Tables, str, Ended]) -> None:
    tables, _, _ = settled
    assert tables.whole()
    sql = "SELECT uri, member, error_stage, error_class, error_message FROM IMAGES WHERE status = 'error'"
    prefix = f"file://{tables.folder.parent}/"
    errors = {
        uri.removeprefix(prefix) + (f"::{member}" if member else ""): (stage, error_class)
        for uri, member, stage, error_class, message in tables.query(sql)
        if message
    }
    assert errors == WANTED
    good = {name: status for name, status in tables.statuses().items() if name not in WANTED}
    assert good == {f"in/{number:02} good.jpg": "ok" for number in range(13)} | {
        "in/shard.tar::a.jpg": "ok",
        "in/shard.tar::c.jpg": "ok",
    }


def test_what_an_earlier_run_saw_dying_goes_straight_to_a_process_of_its_own(
    settled: tuple[Tables, str, Ended],
) -> None:
    """No detector of the pool dies again: what is remembered is tried alone before anything else, then forgotten."""
    tables, first, second = settled
    assert "what they lack is tried again, one picture a block" in first
    alone = [line for line in second.err.splitlines() if "in a process of its own" in line]
    assert len(alone) == 3
    assert not list((tables.folder / "_run" / "attempts").glob("*.json"))


def test_a_picture_whose_reading_kills_the_reader_is_one_error_row(
    tmp_path: Path, ray_head: RayHead, model: Path
) -> None:
    """Its neighbours, of which no reader came to the end at first, need no processes of their own."""
    (tmp_path / "in").mkdir()
    for number in range(40):
        (tmp_path / "in" / f"{number:02}.jpg").write_bytes(cloud(number))
    (tmp_path / "in" / "20 deadly.jpg").write_bytes(faulty("reader"))
    options = ["--input", "in", "--output", "out", "--model", str(model), "--zooms", "0.5", "--no-report"]
    run = Job(tmp_path / "log", ray_head.environment, *options, cwd=tmp_path).wait().expect(0)
    tables = Tables(tmp_path / "out").validated()
    assert tables.statuses() == {f"in/{number:02}.jpg": "ok" for number in range(40)} | {"in/20 deadly.jpg": "internal"}
    assert tables.query("SELECT error_stage FROM IMAGES WHERE status = 'error'") == [("read",)]
    assert run.err.count("in a process of its own") == 1


def test_retry_errors_works_error_rows_and_no_others(tmp_path: Path, ray_head: RayHead, model: Path) -> None:
    """Loose, in a tar, a zip and a tar.gz; what is mended meanwhile becomes faces, what is not stays an error row."""
    (tmp_path / "in").mkdir()
    broken = tmp_path / "broken"
    broken.touch()
    members = [(f"{number}.jpg", cloud(60 + number)) for number in range(4)]
    members[1:1] = [("mended.jpg", faulty(f"while:{broken}"))]
    members[3:3] = [("crash.jpg", faulty("crash"))]
    for name, data in members:
        (tmp_path / "in" / name).write_bytes(data)
    (tmp_path / "in" / "a.tar").write_bytes(tar_bytes(members))
    (tmp_path / "in" / "b.tar.gz").write_bytes(tar_bytes(members, "w:gz"))
    (tmp_path / "in" / "c.zip").write_bytes(zip_bytes(members))
    options = ["--input", "in", "--output", "out", "--model", str(model), "--zooms", "0.5", "--no-report"]
    Job(tmp_path / "log", ray_head.environment, *options, cwd=tmp_path).wait().expect(0)
    tables = Tables(tmp_path / "out").validated()
    bad = {
        f"in/{place}{name}"
        for place in ("", "a.tar::", "b.tar.gz::", "c.zip::")
        for name in ("mended.jpg", "crash.jpg")
    }
    first = tables.statuses()
    assert {name for name, status in first.items() if status == "decoder_crashed"} == bad
    others = "FROM DETECTIONS JOIN IMAGES USING (image_id) WHERE NOT concat(uri, member) LIKE '%mended%' ORDER BY ALL"
    faces = f"SELECT uri, member, x1, y1, x2, y2, score, template, zoom, ellipse_angle {others}"
    stand = tables.query(faces)
    assert stand

    broken.unlink()
    again = [*options, "--retry", "errors"]
    run = Job(tmp_path / "log", ray_head.environment, *again, cwd=tmp_path).wait().expect(0)
    assert "4 units with error rows: they are tried again" in run.err
    assert tables.validated().run_facts["this_run"]["pictures"] == len(bad)
    assert tables.run_facts["output"]["error"] == len(bad) / 2
    assert tables.statuses() == {name: "ok" if "mended" in name else status for name, status in first.items()}
    assert tables.query(faces) == stand
    assert tables.whole()
    mended = "WHERE concat(uri, member) LIKE '%mended%' AND error_class IS NULL AND width = 41"
    assert tables.query(f"SELECT count(*) FROM IMAGES {mended}") == [(4,)]

    before = everything_in(tables.folder / "images")
    Job(tmp_path / "log", ray_head.environment, *options, cwd=tmp_path).wait().expect(0)
    assert everything_in(tables.folder / "images") == before, "without --retry an error row is done"
