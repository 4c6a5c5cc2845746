"""jobs/evaluate.py: our tables and WIDER's text in, a table, JSON, CSV and PNG out; wrong input is named."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from evaluate import app
from options import run_job
from tests.report_sample import SamplePicture, write_unit
from tinyface_core.evaluate.results import read_output
from tinyface_core.evaluate.truth import read_truth

FACES = {"p_1": [[10, 20, 30, 40], [100, 20, 9, 9]], "p_2": [[5, 5, 12, 15]], "p_3": [[1, 1, 200, 200]]}


@pytest.fixture
def truth(tmp_path: Path) -> Path:
    folder = tmp_path / "truth"
    folder.mkdir()
    lines = [
        {"image": f"images/{name}.jpg", "width": 300, "height": 200, "boxes": boxes, "attrs": [[0] * 6] * len(boxes)}
        for name, boxes in FACES.items()
    ]
    (folder / "annotations.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    return folder


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """Finds the faces of p_1, one of p_2 and an alarm; p_3 is an error row."""

    def boxes(*given: list[float]) -> np.ndarray:
        return np.array(given, np.float32)

    pictures = [
        SamplePicture("file:///d/p_1.jpg", boxes_K5=boxes([10, 20, 40, 60, 0.9], [100, 20, 109, 29, 0.6])),
        SamplePicture("file:///d/a.tar", "0--Parade/p_2.png", boxes([5, 5, 17, 20, 0.8], [60, 60, 90, 90, 0.7])),
        SamplePicture("file:///d/p_3.jpg", error=("decode", "corrupt", "bad")),
    ]
    write_unit(tmp_path / "out", "a" * 32, pictures)
    return tmp_path / "out"


def test_tables_are_read_by_file_name(output: Path) -> None:
    found = read_output(output)
    assert found["p_1"].boxes_K4.tolist() == [[10, 20, 30, 40], [100, 20, 9, 9]]
    assert found["p_2"].scores_K == pytest.approx([0.8, 0.7])
    assert len(found["p_3"].scores_K) == 0


def test_a_table_a_file_of_numbers_curves_and_text(
    output: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    report, text, numbers = tmp_path / "report", tmp_path / "text", tmp_path / "ap.json"
    asked = ["--truth", str(truth), "--samples", "50", "--report", str(report), "--text", str(text)]
    assert run_job(app, [f"ours={output}", *asked, "--json", str(numbers)]) == 0
    told = capsys.readouterr().out
    assert "3 pictures" in told
    assert "| all valid | 4 |" in told
    # Hits at .9, .8, .6 and an alarm at .7: precision 1, 1, 3/4 at recall 1/4, 1/2, 3/4.
    assert json.loads(numbers.read_text())["ours"]["all valid"]["average_precision"] == pytest.approx(0.5 + 0.75 / 4)
    with (report / "curves.csv").open() as file:
        assert {row["group"] for row in csv.DictReader(file)} >= {"all valid", "under 10 px", "140 px and more"}
    with Image.open(report / "curves.png") as picture:
        assert picture.size > (500, 300)
    assert run_job(app, [str(output), str(text), *asked[:4]]) == 0
    assert "| faces | count | out | text |" in capsys.readouterr().out
    assert run_job(app, [str(output), *asked]) == 2
    assert "results of two runs would mix" in capsys.readouterr().err


def test_only_pictures_that_all_results_have_are_judged(
    output: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "few").mkdir()
    (tmp_path / "few" / "p_2.txt").write_text("p_2\n1\n5 5 12 15 0.5\n")
    assert run_job(app, [str(output), str(tmp_path / "few"), "--truth", str(truth), "--samples", "10"]) == 0
    assert "1 pictures" in capsys.readouterr().out


def test_wrong_input_is_named(output: Path, truth: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "bad").mkdir()
    (tmp_path / "bad" / "annotations.jsonl").write_text('{"image": "a.jpg"}\n')
    (tmp_path / "other").mkdir()
    (tmp_path / "other" / "z.txt").write_text("z\n0\n")
    for tokens, message in (
        (["--truth", str(truth)], "no results"),
        ([str(tmp_path / "gone"), "--truth", str(truth)], "gone: no such folder"),
        ([str(tmp_path / "truth"), "--truth", str(truth)], "no .txt files"),
        ([str(output), "--truth", str(tmp_path / "bad")], "annotations.jsonl:1: not an annotation"),
        ([str(output), "--truth", str(tmp_path)], "wider_face_val.mat"),
        ([str(tmp_path / "other"), "--truth", str(truth)], "none of the 1 pictures is annotated"),
        ([str(output), "--truth", str(truth), "--samples", "0"], "--samples 0: intervals need 1 or more"),
    ):
        assert run_job(app, tokens) == 2
        assert message in capsys.readouterr().err
    write_unit(output, "b" * 32, [SamplePicture("file:///e/p_1.jpg")])
    assert run_job(app, [str(output), "--truth", str(truth)]) == 2
    assert "two pictures are called p_1" in capsys.readouterr().err


def test_two_results_of_one_name_are_refused(output: Path, truth: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Else one of them would be left out without a word."""
    assert run_job(app, [str(output), str(output), "--truth", str(truth)]) == 2
    assert "two results have one name" in capsys.readouterr().err
    assert run_job(app, [str(output), f"again={output}", "--truth", str(truth), "--samples", "5"]) == 0
    assert "| out | again |" in capsys.readouterr().out


def test_annotations_have_no_official_levels(truth: Path) -> None:
    annotated = read_truth(truth)
    assert annotated.names == ("p_1", "p_2", "p_3")
    assert annotated.levels == {}


def test_fddbs_annotation_gives_fddbs_protocol(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    folds, report, numbers = tmp_path / "folds", tmp_path / "report", tmp_path / "rates.json"
    folds.mkdir()
    (folds / "FDDB-fold-01-ellipseList.txt").write_text("2002/a\n1\n30 20 1.5 50 60  1\n2002/b\n1\n9 8 1.5 20 20  1\n")
    (tmp_path / "found.txt").write_text("2002/a\n1\n30 20 1.5 50 60 0.9\n2002/b\n1\n9 8 1.5 90 90 0.5\n")
    asked = [str(tmp_path / "found.txt"), "--truth", str(folds), "--report", str(report), "--json", str(numbers)]
    assert run_job(app, asked) == 0
    assert "found" in capsys.readouterr().out
    assert (report / "roc.csv").is_file()
    assert numbers.is_file()
    assert run_job(app, [*asked, "--yunet", "none.onnx"]) == 2
    assert "need annotated boxes" in capsys.readouterr().err
