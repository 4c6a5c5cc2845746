"""jobs/render.py where tables, pictures and the page all lie in a store."""

from __future__ import annotations

import csv
import hashlib
import json
import re
from pathlib import Path

import cv2
import numpy as np
import pytest

from options import run_job
from render import app
from tests.report_sample import SamplePicture, write_unit
from tests.unit.archives import tar_bytes
from tests.unit.render_samples import faces, failed
from tinyface_core.storage import Storage

pytestmark = pytest.mark.integration


@pytest.fixture
def output(bucket: str, storage: Storage, tmp_path: Path) -> str:
    """12 loose pictures and 3 members of a tar, each with one face; an error row; and one picture that was replaced."""

    def png(shade: int) -> bytes:
        return cv2.imencode(".png", np.full((37, 53, 3), shade, np.uint8))[1].tobytes()

    pictures = [failed(f"s3://{bucket}/in/0.png")]
    for shade in range(1, 13):
        storage.write(f"s3://{bucket}/in/{shade:02}.png", png(shade))
        sha256 = hashlib.sha256(png(99 if shade == 12 else shade)).hexdigest()
        uri = f"s3://{bucket}/in/{shade:02}.png"
        pictures.append(SamplePicture(uri, boxes_K5=faces([4, 6, 24, 30]), sha256=sha256))
    members = [(f"d/{shade}.png", png(shade)) for shade in (20, 30, 40)]
    storage.write(f"s3://{bucket}/in/x.tar", tar_bytes(members))
    boxes = faces([4, 6, 24, 30])
    pictures += [SamplePicture(f"s3://{bucket}/in/x.tar", name, boxes_K5=boxes) for name, _ in members]
    for unit, some in (("a", pictures[:9]), ("b", pictures[9:])):
        for file in write_unit(tmp_path / "out", unit, some):
            storage.write(f"s3://{bucket}/out/{file.relative_to(tmp_path / 'out')}", file.read_bytes())
    storage.write(f"s3://{bucket}/out/_SUCCESS", b"")
    return f"s3://{bucket}/out"


def test_a_page_in_a_store_holds_all_that_can_be_read_again(
    output: str, bucket: str, storage: Storage, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"s3://{bucket}/looked"
    assert run_job(app, [output, "--output", where]) == 0
    told = capsys.readouterr().out
    assert f"16 pictures of 16 that pass: {where}/index.html" in told
    assert f"s3://{bucket}/in/12.png: it has changed since" in told
    html = storage.read(f"{where}/index.html").decode()
    found = re.search(r'id="data">(.*?)</script>', html)
    assert found
    entries = json.loads(found[1])["pictures"]
    assert [entry["name"] for entry in entries if "why" in entry] == ["0.png", "12.png"]
    for entry in entries:
        if "why" not in entry:
            large = cv2.imdecode(np.frombuffer(storage.read(f"{where}/large/{entry['file']}"), np.uint8), 1)
            assert abs(int(large[0, 0, 0]) - int(entry["name"].removesuffix(".png"))) <= 2, "its own pixels"
    assert json.loads(storage.read(f"{where}/_export.json"))["complete"] is True


def test_a_folder_from_a_store_to_a_disk(output: str, bucket: str, tmp_path: Path) -> None:
    assert run_job(app, [output, "--output", str(tmp_path / "drawn"), "--as", "pictures", "--uri", "**/x.tar/d/*"]) == 0
    with (tmp_path / "drawn" / "pictures.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert [row["member"] for row in rows] == ["d/20.png", "d/30.png", "d/40.png"]
    assert all((tmp_path / "drawn" / row["file"]).is_file() for row in rows)
    assert rows[0]["file"].startswith(f"s3/{bucket}/in/x.tar!/d/20.png~")
