"""jobs/redact.py as its users run it: each picture once, whatever is killed; no copy of what was not examined."""

from __future__ import annotations

import hashlib
import io
import json
import os
import shutil
import signal
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import duckdb
import pyarrow.parquet as pq
import pytest
from PIL import Image

from tests.integration.job_pictures import cloud, faulty, photo, save_model
from tests.integration.job_runs import Ended, Job, everything_in
from tests.integration.ray_head import RayHead
from tests.unit.archives import tar_bytes, zip_bytes
from tinyface_core.storage import Storage

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(600)]

LOOSE, MEMBERS = 22, 5
CHECK = ("--check", "8")
UNITS = 9  # 23 loose files in fours, the tar, two of the zip
PICTURES = LOOSE + 2 * MEMBERS + 1  # and a broken one


@dataclass(frozen=True)
class Place:
    """A folder with in/, its detections in out/, and copies in any other folder."""

    folder: Path
    environment: dict[str, str]

    def redact(self, *options: str, to: str = "copies", environment: dict[str, str] | None = None) -> Job:
        fixed = (str(self.folder / "out"), "--output", str(self.folder / to))
        variables = environment or self.environment
        return Job(self.folder / "log", variables, *fixed, *options, cwd=self.folder, script="redact.py")

    def rows(self, to: str = "copies") -> dict[str, dict[str, Any]]:
        """By what a person calls a picture; each once."""
        files = (self.folder / to / "results").glob("part-*.parquet")
        rows = [row for file in files for row in pq.read_table(file).to_pylist()]
        named = {
            row["uri"].removeprefix(f"file://{self.folder}/in/") + (f"::{row['member']}" if row["member"] else ""): row
            for row in rows
        }
        assert len(named) == len(rows), "rows are double"
        return named

    def check_whole(self, to: str = "copies") -> dict[str, dict[str, Any]]:
        """Copies and rows are one to one, each copy is what its row says, and no picture is missing."""
        rows, folder = self.rows(to), self.folder / to
        assert len(rows) == PICTURES
        written = {row["path"]: row["sha256"] for row in rows.values() if row["status"] == "written"}
        assert all((row["path"] is None) == (row["status"] == "error") for row in rows.values())
        on_disk = {str(path.relative_to(folder)): path for path in (folder / "copies").rglob("*") if path.is_file()}
        assert {path: hashlib.sha256(file.read_bytes()).hexdigest() for path, file in on_disk.items()} == written
        assert (folder / "_SUCCESS").exists()
        return rows

    def facts(self, to: str = "copies") -> dict[str, Any]:
        return json.loads((self.folder / to / "run.json").read_text())

    def committed(self, to: str = "copies") -> int:
        return len(list((self.folder / to / "results").glob("part-*.parquet")))


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead) -> Place:
    """Loose pictures, one of them turned, one fragile, a tar, a zip and a broken file; detected, and copied.

    The copying was killed at one commit and at two more, and left a file that no result names.
    """
    folder = tmp_path_factory.mktemp("redact")
    (folder / "in").mkdir()
    for number in range(LOOSE - 2):
        (folder / "in" / f"{number:02}.jpg").write_bytes(cloud(number))
    turned, exif = io.BytesIO(), Image.Exif()
    exif[0x0112] = 6
    with Image.open(io.BytesIO(photo(3))) as opened:
        assert opened.width != opened.height
        opened.transpose(Image.Transpose.ROTATE_90).save(turned, "JPEG", exif=exif, quality=90)
    (folder / "in" / "turned.jpg").write_bytes(turned.getvalue())
    (folder / "in" / "broken.jpg").write_bytes(cloud(50)[:300])
    (folder / "in" / "fragile.jpg").write_bytes(faulty(f"while:{folder}/fragile"))
    members = [(f"day/{number}.jpg", cloud(100 + number)) for number in range(MEMBERS)]
    (folder / "in" / "shard.tar").write_bytes(tar_bytes([("notes.txt", b"no picture"), *members]))
    (folder / "in" / "shard.zip").write_bytes(zip_bytes(members))
    model = save_model(folder / "tiny.safetensors")
    options = ("--input", "in", "--output", "out", "--model", str(model), "--zooms", "0.5", "1", "--unit-pictures", "4")
    Job(folder / "log", ray_head.environment, *options, "--no-report", cwd=folder).wait().expect(0)
    place, done = Place(folder, ray_head.environment), 0
    for more in (1, 2):
        deadly = place.environment | {"TINYFACE_TEST_KILL": f"results:{more}"}
        assert place.redact(*CHECK, environment=deadly).wait().code == 128 + signal.SIGKILL
        assert not (folder / "copies" / "_SUCCESS").exists()
        assert done + more <= place.committed() < UNITS
        done = place.committed()
    (folder / "copies" / "copies" / "file" / "nobody.jpg").write_bytes(b"left by a run that was killed")
    before = everything_in(folder / "copies" / "results")
    assert f"{done} of " in place.redact(*CHECK).wait().expect(0).err
    assert before.items() <= everything_in(folder / "copies" / "results").items(), "a unit was written again"
    return place


def faces_found(place: Place) -> int:
    with duckdb.connect() as connection:
        (found,) = connection.execute(f"SELECT count(*) FROM '{place.folder}/out/detections/**/*.parquet'").fetchone()
    return int(found)


def test_killed_and_resumed_each_picture_is_there_once(place: Place) -> None:
    """A copy or the reason why not, and all faces that were found are masked."""
    rows = place.check_whole()
    errors = {name: row["error_class"] for name, row in rows.items() if row["status"] == "error"}
    assert errors == {"broken.jpg": "not_examined"}
    assert sum(row["faces_masked"] for row in rows.values()) == faces_found(place) > PICTURES
    upright = Image.open(io.BytesIO(photo(3)))
    with Image.open(place.folder / "copies" / rows["turned.jpg"]["path"]) as copy:
        assert copy.size == upright.size
        assert not copy.getexif()
    check = place.facts()["check"]
    assert (check["copies"], check["not_checked"]) == (8, 0)
    assert 0 <= check["interval_95"][0] <= check["residual_rate"] <= check["interval_95"][1] <= 1


def test_a_finished_run_again_writes_nothing_and_needs_no_ray(place: Place) -> None:
    before = everything_in(place.folder / "copies" / "copies") | everything_in(place.folder / "copies" / "results")
    again = place.redact(*CHECK, environment=place.environment | {"RAY_ADDRESS": "127.0.0.1:1"}).wait().expect(0)
    assert "0 of them written in this run" in again.out
    assert "found again" in again.out
    after = everything_in(place.folder / "copies" / "copies") | everything_in(place.folder / "copies" / "results")
    assert after == before


def test_refusals_write_nothing(place: Place, tmp_path: Path) -> None:
    """Another setting for the same copies; copies within the input; what is no output; an output that is not whole."""
    before = everything_in(place.folder)
    refused = place.redact("--margin", "0.4").wait().expect(2)
    assert "was made with margin = 0.2, --margin asks for 0.4" in refused.err
    assert "an input of this output" in place.redact(to="in/copies").wait().expect(2).err
    assert "did not write" in place.redact(to="out").wait().expect(2).err
    asked = (str(tmp_path / "none"), "--output", str(tmp_path / "to"))
    none = Job(tmp_path, place.environment, *asked, script="redact.py")
    assert "nothing is there" in none.wait().expect(2).err
    (place.folder / "out" / "_SUCCESS").rename(place.folder / "out" / "_WAS")
    try:
        assert "is not whole" in place.redact(*CHECK, to="other").wait().expect(2).err
    finally:
        (place.folder / "out" / "_WAS").rename(place.folder / "out" / "_SUCCESS")
    detect = ("--input", "in", "--output", "copies")
    into = Job(place.folder / "log", place.environment, *detect, cwd=place.folder).wait().expect(2)
    assert "did not write" in into.err
    mine = ("copies", "in", "out/images", "out/detections")
    after = {name: seen for name, seen in everything_in(place.folder).items() if name.startswith(mine)}
    assert after.items() <= before.items()


def test_what_changed_since_it_was_examined_gets_no_copy_until_it_is_detected_again(
    place: Place, tmp_path: Path
) -> None:
    """And too many faces found again are exit code 3, without `_SUCCESS`."""
    mine = Place(tmp_path, place.environment)
    for name in ("in", "out"):
        shutil.copytree(place.folder / name, tmp_path / name)
    # the tables name pictures by where they were
    changed, gone = place.folder / "in" / "03.jpg", place.folder / "in" / "04.jpg"
    kept = {path: (path.read_bytes(), path.stat()) for path in (changed, gone)}
    breaks = place.folder / "fragile"
    try:
        breaks.touch()
        changed.write_bytes(cloud(400))
        gone.unlink()
        ended: Ended = mine.redact("--how", "blur", "--max-residual", "0", "--check", "5").wait()
    finally:
        breaks.unlink()
        for path, (data, times) in kept.items():
            path.write_bytes(data)
            os.utime(path, ns=(times.st_atime_ns, times.st_mtime_ns))
    rate = mine.facts()["check"]["residual_rate"]
    ended.expect(3 if rate else 0)
    assert (tmp_path / "copies" / "_SUCCESS").exists() == (rate == 0)
    rows = {row["uri"].rpartition("/")[2]: row for row in mine.rows().values()}
    assert (rows["03.jpg"]["error_class"], rows["04.jpg"]["error_class"]) == ("changed", "unreadable")
    assert rows["fragile.jpg"]["error_class"] == "decoder_crashed", "it takes nobody along"
    assert rows["05.jpg"]["status"] == "written"
    mine.redact("--check", "0", "--retry", "errors").wait().expect(0)
    rows = mine.check_whole()
    assert sorted(row["error_class"] for row in rows.values() if row["status"] == "error") == ["not_examined"]


def test_copies_on_s3(place: Place, bucket: str, storage: Storage) -> None:
    """The same bytes as on disk, under the same names."""
    url = f"s3://{bucket}/red/acted"
    fixed = (str(place.folder / "out"), "--output", url, "--check", "3")
    Job(place.folder / "log", place.environment, *fixed, cwd=place.folder, script="redact.py").wait().expect(0)
    written = {row["path"]: row["sha256"] for row in place.rows().values() if row["status"] == "written"}
    found = {info.uri.removeprefix(f"{url}/"): info.uri for info in storage.list(f"{url}/copies/")}
    assert {name: hashlib.sha256(storage.read(uri)).hexdigest() for name, uri in found.items()} == written
    assert storage.stat(f"{url}/_SUCCESS") is not None
