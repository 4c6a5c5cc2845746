"""jobs/compare.py: what it prints and writes, and its exit codes."""

from __future__ import annotations

import hashlib
import json
from dataclasses import replace
from pathlib import Path

import pytest

from compare import app
from options import run_job
from tests.unit.compare_samples import SETTINGS, Sample, SampleOutput
from tests.unit.test_compare_outputs import FACE, LARGE, SMALL, shifted
from tests.unit.test_report_html import ATTACKS, Page
from tinyface_core.storage import Storage

ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def sides(tmp_path: Path) -> tuple[str, str]:
    """Of three faces one is lost, one moved, one gained."""
    SampleOutput([[Sample("a", [FACE, SMALL]), Sample("b", [LARGE])]]).write(tmp_path / "old")
    new = [[Sample("a", [FACE, shifted(FACE, 200)]), Sample("b", [shifted(LARGE, 30)])]]
    SampleOutput(new, SETTINGS | {"model": "accurate", "model_hash": "2", "min_score": 0.4}).write(tmp_path / "new")
    return str(tmp_path / "old"), str(tmp_path / "new")


def run(*tokens: str) -> int:
    return run_job(app, list(tokens))


def test_all_is_told_and_nothing_is_written(
    sides: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    assert run(*sides) == 3
    told = capsys.readouterr()
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    lines = [" ".join(line.split()) for line in told.out.splitlines()]
    assert lines[:2] == [f"old: file://{sides[0]}", f"new: file://{sides[1]}"]
    assert "model light accurate" in lines
    assert "min_score 0.3 0.4" in lines
    assert "compared 2" in lines
    assert "10-20 px 1 0 1 100.00 % 0 0" in lines
    assert "all 3 3 1 33.33 % 1 33.33 % 1 50.00 %" in lines
    assert "must not take the place" in told.err
    assert "1 of 3 old faces are lost, above --max-lost 0.01" in told.err


def test_within_the_limits_it_ends_with_0(sides: tuple[str, str], capsys: pytest.CaptureFixture[str]) -> None:
    assert run(*sides, "--max-lost", "0.5", "10-20=1", "--max-moved", "0.5") == 0
    assert "may take the old one's place" in capsys.readouterr().out
    assert run(*sides, "--max-lost", "0.5", "10-20=0.9") == 3
    assert run(*sides, "--max-lost", "1", "--max-moved", "40-140=0", "140-=0.9") == 3


def test_numbers_and_the_page_are_written_where_they_are_asked_for(sides: tuple[str, str], tmp_path: Path) -> None:
    assert run(*sides, "--json", str(tmp_path / "n.json"), "--report", str(tmp_path / "page")) == 3
    numbers = json.loads((tmp_path / "n.json").read_text())
    assert numbers["accepted"] is False
    assert len(numbers["broken"]) == 1
    assert numbers["settings"]["model"] == {"old": "light", "new": "accurate"}
    assert numbers["faces"]["min_score"] == 0.4
    assert {name: numbers["faces"][name] for name in ("old", "new", "lost", "gained", "kept", "moved")} == {
        "old": 3, "new": 3, "lost": 1, "gained": 1, "kept": 2, "moved": 1,
    }  # fmt: skip
    assert numbers["faces"]["by_height_px"]["10-20"]["lost"] == 1
    assert numbers["faces"]["by_score"]["0.5"]["lost"] == 1
    assert [(diff["uri"], diff["lost"]) for diff in numbers["most_different"]] == [
        ("file:///archive/a", 1), ("file:///archive/b", 0),
    ]  # fmt: skip
    page = Page((tmp_path / "page" / "compare.html").read_text())
    assert "The new output must not take the old one's place" in page.text
    assert "--report-pictures 24 draws some" in page.text
    assert page.all("img") == []


def test_real_pictures_are_drawn_with_their_boxes_by_kind(tmp_path: Path) -> None:
    """The one that is another version by now is told, and not drawn."""
    folder = f"file://{ROOT}/demo/archive/portraits"
    info, data = Storage().stat(f"{folder}/navy_portrait.jpg"), Storage().read(f"{folder}/navy_portrait.jpg")
    assert info is not None
    sha256 = hashlib.sha256(data).hexdigest()
    portrait = Sample("navy_portrait.jpg", folder=folder, version=info.version, sha256=sha256)
    changed = Sample("astronaut_portrait.png", folder=folder)
    for name, boxes in (("old", [FACE, SMALL]), ("new", [FACE, LARGE])):
        samples = [replace(sample, boxes=boxes) for sample in (portrait, changed)]
        SampleOutput([samples]).write(tmp_path / name)
    asked = ["--report", str(tmp_path), "--report-pictures", "3"]
    assert run(str(tmp_path / "old"), str(tmp_path / "new"), *asked) == 3
    page = Page((tmp_path / "compare.html").read_text())
    assert [image["alt"] for image in page.all("img")] == ["navy_portrait.jpg"]
    assert sorted(box["stroke"] or "" for box in page.all("rect")) == ["#56b4e9", "#c8c8c8", "#d55e00"]
    assert "lost, score 0.50, 15 px high" in page.text
    assert "Not drawn, as they could not be read again" in page.text


def test_names_cannot_become_markup(tmp_path: Path) -> None:
    SampleOutput([[Sample(attack, [FACE]) for attack in ATTACKS]]).write(tmp_path / "old")
    SampleOutput([[Sample(attack) for attack in ATTACKS]]).write(tmp_path / "new")
    assert run(str(tmp_path / "old"), str(tmp_path / "new"), "--report", str(tmp_path)) == 3
    source = (tmp_path / "compare.html").read_text()
    page = Page(source)
    assert page.all("script") == []
    assert not [name for _, attributes in page.elements for name in attributes if name.startswith("on")]
    assert "alert(1)" in page.text


def test_accepting_makes_the_pointer_and_again_changes_nothing(
    sides: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pointer = tmp_path / "current.json"
    assert run(*sides, "--accept", str(pointer)) == 3
    assert not pointer.exists()
    asked = [*sides, "--max-lost", "0.5", "--accept", str(pointer)]
    assert run(*asked) == 0
    content = json.loads(pointer.read_text())
    assert (content["output"], content["before"]) == (f"file://{sides[1]}", None)
    assert content["faces"]["lost"] == 1
    assert content["pictures"] == {"compared": 2}
    written = pointer.stat().st_mtime_ns
    capsys.readouterr()
    assert run(*asked) == 0
    assert "named already" in capsys.readouterr().out
    assert pointer.stat().st_mtime_ns == written
    assert run(sides[1], sides[0], "--max-lost", "0.5", "--accept", str(pointer)) == 0
    assert json.loads(pointer.read_text())["output"] == f"file://{sides[0]}"


def test_an_unfinished_output_is_compared_and_not_accepted(
    sides: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "new" / "_SUCCESS").unlink()
    assert run(*sides, "--max-lost", "1") == 3
    assert "not finished (no _SUCCESS)" in capsys.readouterr().err


def test_a_run_that_begins_on_the_new_output_meanwhile_stops_the_acceptance(
    sides: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def begun(*_: object) -> str:
        (tmp_path / "new" / "_SUCCESS").unlink(missing_ok=True)
        return ""

    monkeypatch.setattr("compare._print", begun)
    assert run(*sides, "--max-lost", "0.5", "--accept", str(tmp_path / "current.json")) == 1
    assert "began on it meanwhile" in capsys.readouterr().err
    assert not (tmp_path / "current.json").exists()


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["{0}/old", "{0}/elsewhere"], "elsewhere: nothing is there"),
        (["{0}/old", "{0}/old"], "is both the old and the new output"),
        (["{0}/old"], "NEW is missing"),
        (["{0}/old", "{0}/new", "--max-lost", "5"], "--max-lost 5: give a share"),
        (["{0}/old", "{0}/new", "--max-missing", "5"], "--max-missing 5: needs a number"),
        (["{0}/old", "{0}/new", "--min-score", "50"], "--min-score 50"),
        (["{0}/old", "{0}/new", "--report-pictures", "5"], "--report-pictures without --report"),
        (["{0}/old", "{0}/new", "--report", "{0}/r", "--report-pictures", "101"], "from 0 to 100"),
        (["{0}/old", "{0}/new", "--accept", ""], "--accept: is empty"),
        (["{0}/old", "{0}/new", "--accept", "{0}/new/current.json"], "lies in an output"),
        (["{0}/old", "{0}/new", "--json", "{0}/none/n.json"], "--json"),
        (["{0}/old", "{0}/new", "--json", "{0}/new"], "new: is a folder. Give the name of a file"),
        (["{0}/old", "{0}/new", "--report", "{0}/old/_SUCCESS/page"], "_SUCCESS is no folder"),
        (["{0}/old", "{0}/new", "--accept", "{0}/old/_SUCCESS/current.json"], "_SUCCESS is no folder"),
        (["{0}/old", "{0}/new", "--max-los", "0"], "Did you mean"),
    ],
)
def test_what_makes_no_sense_ends_with_2_and_writes_nothing(
    sides: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    before = sorted(tmp_path.rglob("*"))
    assert run(*(option.format(tmp_path) for option in options)) == 2
    assert told in capsys.readouterr().err
    assert sorted(tmp_path.rglob("*")) == before
