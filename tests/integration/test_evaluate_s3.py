"""jobs/evaluate.py on results in a store: the same as on a disk."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from evaluate import app
from options import run_job
from tests.report_sample import SamplePicture, write_unit
from tinyface_core.evaluate.matching import Found
from tinyface_core.evaluate.results import write_text
from tinyface_core.storage import Storage

pytestmark = pytest.mark.integration


def test_tables_and_text_in_a_store_are_judged_as_on_disk(
    bucket: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    box_K5 = np.array([[10, 20, 40, 60, 0.9], [60, 60, 90, 90, 0.7]], np.float32)
    write_unit(tmp_path / "out", "a" * 32, [SamplePicture("file:///d/p_1.jpg", boxes_K5=box_K5)])
    write_text({"p_1": Found(np.array([[10.0, 20, 30, 40]]), np.array([0.9]))}, tmp_path / "text")
    line = {"image": "p_1.jpg", "width": 300, "height": 200, "boxes": [[10, 20, 30, 40]], "attrs": [[0] * 6]}
    (tmp_path / "annotations.jsonl").write_text(json.dumps(line))
    storage = Storage()
    for name in ("out", "text"):
        for file in (path for path in (tmp_path / name).rglob("*") if path.is_file()):
            storage.write(f"s3://{bucket}/eval/{file.relative_to(tmp_path)}", file.read_bytes())
    asked = ["--truth", str(tmp_path), "--samples", "20"]
    assert run_job(app, [str(tmp_path / "out"), str(tmp_path / "text"), *asked]) == 0
    on_disk = capsys.readouterr().out
    assert "| all valid" in on_disk
    assert run_job(app, [f"s3://{bucket}/eval/out", f"text=s3://{bucket}/eval/text/", *asked]) == 0
    assert capsys.readouterr().out == on_disk
    assert run_job(app, [f"s3://{bucket}/eval/nothing", *asked]) == 2
    assert f"s3://{bucket}/eval/nothing: no results there" in capsys.readouterr().err
