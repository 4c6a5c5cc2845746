"""jobs/export.py: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest

from export import app
from options import run_job
from tests.report_sample import SamplePicture, write_unit

BOXES_K5 = np.array([[10, 20, 40, 32, 0.9], [1, 2, 9, 8, 0.3]], np.float32)


@pytest.fixture
def output(tmp_path: Path) -> Path:
    write_unit(
        tmp_path / "out",
        "a",
        [
            SamplePicture("file:///in/1.jpg", boxes_K5=BOXES_K5),
            SamplePicture("file:///in/2.jpg", error=("decode", "corrupt", "bad")),
            SamplePicture("file:///in/day.tar", "3.jpg", boxes_K5=BOXES_K5),
        ],
    )
    (tmp_path / "out" / "_SUCCESS").write_text("")
    return tmp_path / "out"


def run(output: Path, *options: str) -> int:
    return run_job(app, [str(output), *options])


def test_coco_is_written_and_what_is_left_out_is_told(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(output, "--to", "coco", "--output", str(tmp_path / "f.json"), "--min-score", "0.5") == 0
    assert len(json.loads((tmp_path / "f.json").read_text())["images"]) == 2
    assert capsys.readouterr().out.splitlines() == [
        f"2 pictures with 2 faces written to file://{tmp_path}/f.json",
        "left out: 1 picture with an error row (1 corrupt)",
        "left out: 2 faces below --min-score or --min-height",
    ]


def test_wider_tells_that_errors_have_no_faces(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(output, "--to", "wider", "--output", str(tmp_path / "w")) == 0
    assert "without faces: 1 picture with an error row" in capsys.readouterr().out
    assert json.loads((tmp_path / "w" / "_export.json").read_text()) == {
        "form": "wider",
        "pictures": 3,
        "faces": 4,
        "complete": True,
    }


def test_img2dataset_tells_what_it_cannot_download(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(output, "--to", "img2dataset", "--output", str(tmp_path / "b.parquet")) == 0
    assert "left out: 1 picture (in archives, where pictures have no url of their own)" in capsys.readouterr().out


def test_an_unfinished_output_is_exported_and_told(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (output / "_SUCCESS").unlink()
    next((output / "detections").iterdir()).unlink()
    assert run(output, "--to", "fddb", "--output", str(tmp_path / "f.txt")) == 0
    told = capsys.readouterr().out
    assert "left out: 1 unit whose faces are not there" in told
    assert "not finished (no _SUCCESS)" in told


def test_a_place_that_fails_at_the_end_ends_with_1_and_leaves_nothing(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tinyface_core.export.target._sync", full)
    assert run(output, "--to", "coco", "--output", str(tmp_path / "f.json")) == 1
    assert "No space left on device. The same command goes on" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--to", "coco", "--output", "{0}/old.json"], "old.json: is there already. Give --overwrite"),
        (["--to", "coco", "--output", " "], "--output: is empty"),
        (["--to", "coco", "--output", "{0}/out/x.json"], "lies inside the output"),
        (["--to", "coco", "--output", "{0}/x.json", "--min-score", "50"], "--min-score 50: needs a number from 0 to 1"),
        (["--to", "coco", "--output", "{0}/x.json", "--min-height", "-1"], "--min-height -1: needs a height"),
        (["--to", "coco", "--output", "{0}/x.json", "--catalog-option", "a=b"], "is for --to iceberg only"),
        (["--to", "yolo", "--output", "{0}/x.json"], "yolo"),
        (["--to", "coco"], "--output is missing"),
        (["--to", "iceberg", "--output", "lake.f", "--min-score", "0.5"], "takes the tables as they are"),
        (["--to", "iceberg", "--output", "lake.f", "--catalog-option", "uri"], "--catalog-option uri: give it as key"),
        (["--to", "iceberg", "--output", "lake"], "give CATALOG.NAMESPACE"),
    ],
)
def test_what_makes_no_sense_ends_with_2_and_writes_nothing(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    (tmp_path / "old.json").write_text("old")
    before = sorted(tmp_path.rglob("*"))
    assert run(output, *(option.format(tmp_path) for option in options)) == 2
    assert told in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before


def test_where_there_is_no_output_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "elsewhere", "--to", "coco", "--output", str(tmp_path / "x.json")) == 2
    assert "elsewhere: nothing is there" in capsys.readouterr().err


def test_names_that_a_form_cannot_hold_end_with_2_and_leave_nothing(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write_unit(output, "b", [SamplePicture("file:///in/1.png")])
    assert run(output, "--to", "fddb", "--output", str(tmp_path / "f.txt")) == 2
    assert "Nothing was written: take --to coco" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["out"]


def test_iceberg_through_the_command(output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    catalog = ["--catalog-option", f"uri=sqlite:///{tmp_path}/lake.db", f"warehouse=file://{tmp_path}/lake"]
    assert run(output, "--to", "iceberg", "--output", "lake.faces", *catalog) == 0
    assert "added to lake.faces: 0 units" in capsys.readouterr().out  # the sample has no footers
