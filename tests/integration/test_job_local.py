"""A folder of everything: good, broken and foreign files, on a local Ray that the job starts and ends."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.integration.job_pictures import cloud, photo
from tests.integration.job_runs import ROOT, Job, Tables
from tests.integration.ray_head import ray_environment
from tests.picture_samples import colour_files, grey_files, noisy_files
from tests.unit.archives import tar_bytes, zip_bytes

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

ENDINGS = {"jpeg": "jpg", "tiff": "tif"}


def expected_statuses() -> dict[str, tuple[bytes, str | None]]:
    """Name below the input -> content, and the row's status or error class (None: no row)."""
    files: dict[str, tuple[bytes, str | None]] = {}
    for kind, data in (colour_files() | grey_files()).items():
        ending = kind.split()[0]
        files[f"formats/{kind}.{ENDINGS.get(ending, ending)}"] = data, "ok"
    for kind, data in noisy_files().items():
        files[f"cut/{kind}.bin"] = data[: len(data) // 2], "truncated"
    nested = zip_bytes([("in.jpg", cloud(1))])
    files |= {
        "photos/plain.jpg": (photo(0), "ok"),
        "photos/with space.jpg": (photo(1), "ok"),
        "photos/100%25 #1 ä漢字?.jpg": (photo(2), "ok"),
        "photos/no_extension": (photo(3), "ok"),
        "photos/a picture called.pdf": (photo(4), "ok"),
        "photos/UPPER.JPG": (photo(5), "ok"),
        "broken/empty.jpg": (b"", "truncated"),
        "broken/garbled.png": (b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4, "corrupt"),
        "broken/letter.pdf": (b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n", "not_an_image"),
        "broken/clip.mp4": (b"\0\0\0\x18ftypmp42\0\0\0\0mp42isom" + bytes(500), "not_an_image"),
        "broken/words.doc": (b"only words", "not_an_image"),
        "broken/half.zip": (zip_bytes([("a.jpg", cloud(2)), ("b.jpg", cloud(3))])[:-40], "?"),
        "photos/plain.json": (b"{}", None),
        "photos/plain.txt": (b"words", None),
        "photos/._plain.jpg": (b"resource fork", None),
        ".hidden/secret.jpg": (photo(6), None),
        "photos/Thumbs.db": (b"x", None),
    }
    return files | {
        "box.zip": (zip_bytes([("one.jpg", cloud(4)), ("two/in.zip", nested), ("note.txt", b"x")]), "?"),
        "box.tar": (tar_bytes([("one.jpg", cloud(5)), ("empty.jpg", b"")]), "?"),
        "box.tar.gz": (tar_bytes([("one.jpg", cloud(6))], "w:gz"), "?"),
    }


def test_each_candidate_becomes_a_row_whatever_it_is(tmp_path: Path, model: Path) -> None:
    """Exit code 0, a row for each candidate and none else, `_SUCCESS` newest, the validator content, a report."""
    files = expected_statuses()
    for name, (data, _) in files.items():
        (tmp_path / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "in" / name).write_bytes(data)
    options = ("--input", "in", "--output", "out", "--model", str(model), "--zooms", "0.5", "--ray_address", "local")
    run = Job(tmp_path / "log", ray_environment(), *options, cwd=tmp_path).wait().expect(0)

    wanted = {f"in/{name}": status for name, (_, status) in files.items() if status not in (None, "?")}
    wanted |= {
        "in/broken/half.zip": "truncated",
        "in/box.zip::one.jpg": "ok",
        "in/box.zip::two/in.zip": "unsupported",
        "in/box.tar::one.jpg": "ok",
        "in/box.tar::empty.jpg": "truncated",
        "in/box.tar.gz::one.jpg": "ok",
    }
    tables = Tables(tmp_path / "out")
    assert tables.statuses() == wanted
    (count,) = tables.query("SELECT count(*) FROM IMAGES")[0]
    facts = tables.run_facts
    assert count == len(wanted) == facts["output"]["pictures"] == facts["this_run"]["pictures"]
    assert facts["skipped"] == {".json": 1, ".txt": 2, "hidden": 3}
    assert facts["complete"]
    assert tables.query("SELECT count(*) FROM DETECTIONS") == tables.query("SELECT sum(num_faces) FROM IMAGES")
    assert tables.query("SELECT count(*) FROM DETECTIONS")[0][0] > 10
    assert tables.whole()
    assert "<html" in (tables.folder / "report.html").read_text()[:500].lower()
    assert "Traceback" not in run.err
    validator = [sys.executable, "jobs/validate.py", str(tables.folder)]
    subprocess.run(validator, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
