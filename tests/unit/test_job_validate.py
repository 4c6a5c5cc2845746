"""jobs/validate.py: its exit codes and what it prints."""

from __future__ import annotations

from pathlib import Path

import pytest

from options import run_job
from tests.unit.row_samples import make_rows, make_unit
from tinyface_core.storage import Storage
from tinyface_core.tables.commit import Committer
from tinyface_core.tables.redo import UnitWork
from validate import app


@pytest.fixture
def output(tmp_path: Path) -> Path:
    folder = tmp_path / "out"
    unit = make_unit(3)
    Committer(Storage(), Storage().canonical(str(folder)), "settings", "model").write(
        UnitWork.whole(unit), "sources", make_rows(unit)
    )
    (folder / "run.json").write_text("{}")
    (folder / "_SUCCESS").write_text("")
    return folder


def test_a_valid_output_ends_with_0(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(app, [str(output)]) == 0
    assert "3 pictures (0 with errors), 6 faces, 1 unit: valid" in capsys.readouterr().out


def test_a_violation_ends_with_1_and_is_named(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (output / "images" / "stray.parquet").write_bytes(b"")
    assert run_job(app, [str(output)]) == 1
    assert "images/stray.parquet: a stray file" in capsys.readouterr().out


def test_a_name_forges_no_line(output: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (output / "images" / "a\nall: valid\x1b[2J.parquet").write_bytes(b"")
    assert run_job(app, [str(output)]) == 1
    told = capsys.readouterr().out
    assert r"images/a\nall: valid\u001b[2J.parquet: a stray file" in told
    assert "\x1b" not in told


def test_an_unfinished_output_may_be_allowed(output: Path) -> None:
    (output / "_SUCCESS").unlink()
    assert run_job(app, [str(output)]) == 1
    assert run_job(app, [str(output), "--unfinished-ok"]) == 0


def test_where_there_is_no_output_ends_with_2(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(app, [str(tmp_path / "elsewhere")]) == 2
    assert "elsewhere: nothing is there" in capsys.readouterr().err


def test_an_unknown_option_ends_with_2(output: Path) -> None:
    assert run_job(app, [str(output), "--fast"]) == 2
