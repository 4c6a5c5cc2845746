"""jobs/render.py: what it prints, and its exit codes."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from options import run_job
from render import app
from tests.report_sample import SamplePicture, write_unit
from tests.unit.render_samples import failed, photo


@pytest.fixture
def output(tmp_path: Path) -> Path:
    pictures = [
        photo(tmp_path / "in" / "a.png", [4, 6, 24, 30], [30, 8, 36, 15]),
        failed(f"file://{tmp_path}/in/broken.jpg"),
        SamplePicture(f"file://{tmp_path}/in/gone.png"),
    ]
    write_unit(tmp_path / "out", "a", pictures)
    (tmp_path / "out" / "_SUCCESS").write_text("")
    (tmp_path / "out" / "run.json").write_text(json.dumps({"inputs": [f"file://{tmp_path}/in"]}))
    return tmp_path / "out"


def run(output: Path, *options: str) -> int:
    return run_job(app, [str(output), *options])


def test_a_page_is_written_and_what_cannot_be_shown_is_told(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(output, "--output", str(tmp_path / "looked")) == 0
    assert (tmp_path / "looked" / "index.html").is_file()
    told = capsys.readouterr().out.splitlines()
    assert told[0] == f"3 pictures of 3 that pass: file://{tmp_path}/looked/index.html"
    assert told[1] == "as tiles: 1 picture with an error row (1 corrupt)"
    assert told[2] == "as tiles: 1 picture that cannot be shown"
    assert told[3].startswith(f"  {tmp_path}/in/gone.png: ")
    assert json.loads((tmp_path / "looked" / "_export.json").read_text()) == {
        "form": "page",
        "pictures": 3,
        "not_shown": 1,
        "complete": True,
    }


def test_a_folder_is_written_replaced_when_asked_and_by_the_other_form_too(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    asked = ["--output", str(tmp_path / "looked"), "--as", "pictures", "--ellipses"]
    assert run(output, *asked, "--most-crowded", "5") == 0
    (drawn,) = (tmp_path / "looked").rglob("*.jpg")
    assert drawn.relative_to(tmp_path / "looked").as_posix().startswith(f"file{tmp_path}/in/a.png~"), (
        "a PNG became a JPEG"
    )
    assert run(output, *asked) == 2
    assert "holds an export already. Give --overwrite" in capsys.readouterr().err
    assert run(output, *asked, "--errors", "--overwrite") == 0
    assert [file.name for file in (tmp_path / "looked").rglob("*.jpg")] == ["broken.jpg"]


def test_an_unfinished_output_is_shown_and_told(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (output / "_SUCCESS").unlink()
    (tmp_path / "list.csv").write_text(f"uri\n{tmp_path}/in/a.png\n{tmp_path}/in/never.png\n")
    assert run(output, "--output", str(tmp_path / "looked"), "--list", str(tmp_path / "list.csv")) == 0
    told = capsys.readouterr().out
    assert f"not in the output: 1 line of --list: file://{tmp_path}/in/never.png" in told
    assert "not finished (no _SUCCESS)" in told


def test_where_nothing_passes_nothing_is_written(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(output, "--output", str(tmp_path / "looked"), "--tiny", "3") == 0
    assert capsys.readouterr().out == "no picture passes: nothing is written\n"
    assert not (tmp_path / "looked").exists()
    assert run(output, "--output", str(tmp_path / "looked"), "--uri", "a.png", "--errors") == 0
    assert capsys.readouterr().out == "no picture passes: nothing is written\n"


def test_a_name_that_no_picture_has_is_refused(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(output, "--output", str(tmp_path / "looked"), "--uri", "b.pngg") == 2
    assert "--uri b.pngg: no picture of this output has such a name" in capsys.readouterr().err
    assert not (tmp_path / "looked").exists()


def test_where_no_picture_can_be_read_again_it_is_refused(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(output, "--output", str(tmp_path / "looked"), "--uri", "gone.png") == 2
    assert "none of 1 picture can be shown: " in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_place_that_fails_at_the_end_ends_with_1_and_leaves_nothing(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("tinyface_core.render.page._write", full)
    assert run(output, "--output", str(tmp_path / "looked")) == 1
    assert "No space left on device. The same command goes on" in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


@pytest.mark.parametrize(
    ("options", "told"),
    [
        (["--output", " "], "--output: is empty"),
        (["--output", "{0}/x.html"], "x.html: a page is a folder"),
        (["--output", "{0}/out/x"], "lies inside the output"),
        (["--output", "{0}/in/x"], "an input of this output: they would be taken for new pictures"),
        (["--output", "{0}/in"], "an input of this output"),
        (["--output", "{0}/x", "--sample", "3", "--limit", "3"], "Give one of them"),
        (["--output", "{0}/x", "--tiny", "-1"], "--tiny -1: needs a height"),
        (["--output", "{0}/x", "--list", "{0}/no.csv"], "no.csv: cannot be read"),
        (["--output", "{0}/x", "--list", "{0}/in/a.png"], "is not text in UTF-8"),
        (["--output", "{0}/x", "--uri", " "], "--uri: is empty"),
        (["--output", "{0}/x", "--longest", "3"], "--longest 3: needs a number of pixels"),
        (["--output", "{0}/x", "--cuts", "-1"], "--cuts -1: needs a number"),
        (["--output", "{0}/x", "--most-crowed", "3"], "Unknown option: --most-crowed. Did you mean --most-crowded?"),
    ],
)
def test_what_is_wrong_is_refused_before_anything_is_written(
    output: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str], options: list[str], told: str
) -> None:
    assert run(output, *(option.format(tmp_path) for option in options)) == 2
    assert told in capsys.readouterr().err
    assert sorted(path.name for path in tmp_path.iterdir()) == ["in", "out"]


def test_a_folder_without_tables_is_named(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(tmp_path / "none", "--output", str(tmp_path / "x")) == 2
    assert "none: nothing is there" in capsys.readouterr().err
