"""Where options come from, in every job alike: the command line, the environment, a file."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import pytest
from cyclopts import App, Group, Parameter

from options import StorageFlags, Texts, job_app, many, run_job
from tinyface_core import __version__
from tinyface_core.errors import StorageError

PREFIX = "TINYFACE_SOME_JOB_"


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class Options:
    number: int = 0
    zooms: Annotated[Texts, many(Group("What"))] = ()
    sure: bool = False
    out: Annotated[str | None, Parameter("--output")] = None
    storage: StorageFlags = StorageFlags()


@pytest.fixture
def given() -> list[Options]:
    return []


@pytest.fixture
def app(given: list[Options]) -> App:
    app = job_app("some_job.py", "Does nothing.")

    @app.default
    def main(*, options: Options | None = None) -> None:
        given.append(options or Options())

    return app


def test_the_command_line_wins_over_the_environment_and_that_over_the_file(
    app: App, given: list[Options], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "job.yaml"
    file.write_text("number: 1\nzooms: [1, 2]\noutput: from the file\nsure: true\n")
    monkeypatch.setenv(f"{PREFIX}NUMBER", "2")
    monkeypatch.setenv(f"{PREFIX}ZOOMS", "3 4")
    assert run_job(app, ["--config", str(file)]) == 0
    assert run_job(app, ["--number", "5", f"--config={file}", "--zooms", "6"]) == 0
    assert given == [
        Options(number=2, zooms=("3", "4"), out="from the file", sure=True),
        Options(number=5, zooms=("6",), out="from the file", sure=True),
    ]


def test_the_environment_alone(app: App, given: list[Options], monkeypatch: pytest.MonkeyPatch) -> None:
    for name, value in (("OUTPUT", "a b"), ("SURE", "true"), ("ENDPOINT_URL", "http://x"), ("STORAGE_OPTION", "a=b")):
        monkeypatch.setenv(PREFIX + name, value)
    monkeypatch.setenv("TINYFACE_OTHER_JOB_NUMBER", "9")
    assert run_job(app, []) == 0
    storage = StorageFlags(endpoint_url="http://x", storage_option=("a=b",))
    assert given == [Options(out="a b", sure=True, storage=storage)]


def test_toml_is_told_by_its_name(app: App, given: list[Options], tmp_path: Path) -> None:
    file = tmp_path / "job.toml"
    file.write_text('number = 1\nzooms = ["1", "2"]\nstorage-option = ["a=b"]\n')
    assert run_job(app, ["--config", str(file)]) == 0
    assert given == [Options(number=1, zooms=("1", "2"), storage=StorageFlags(storage_option=("a=b",)))]


@pytest.mark.parametrize(
    ("name", "text", "told"),
    [
        ("c.toml", "number: 1", "c.toml: cannot be read as TOML"),
        ("c.yaml", "number: [", "c.yaml: cannot be read as YAML"),
        ("c.yaml", "numbers: 1", "numbers"),
        ("c.yaml", "number: much", "much"),
        ("c.toml", "no-sure = true", "give the option itself"),
    ],
)
def test_a_file_that_is_wrong_is_refused_and_named(
    app: App, given: list[Options], tmp_path: Path, capsys: pytest.CaptureFixture[str], name: str, text: str, told: str
) -> None:
    (tmp_path / name).write_text(text)
    assert run_job(app, ["--config", str(tmp_path / name)]) == 2
    assert told in capsys.readouterr().err
    assert given == []


@pytest.mark.parametrize(
    ("variable", "value", "told"),
    [
        ("NUMBR", "1", f"{PREFIX}NUMBR: some_job.py has no such option. Did you mean {PREFIX}NUMBER?"),
        ("COLOUR", "1", f"{PREFIX}COLOUR: some_job.py has no such option. Unset it."),
        ("NUMBER", "much", "much"),
    ],
)
def test_a_variable_that_is_wrong_is_refused_and_named(
    app: App,
    given: list[Options],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    variable: str,
    value: str,
    told: str,
) -> None:
    monkeypatch.setenv(PREFIX + variable, value)
    assert run_job(app, []) == 2
    assert told in capsys.readouterr().err
    assert given == []


def test_version_and_help(app: App, given: list[Options], capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(app, ["--version"]) == 0
    assert capsys.readouterr().out.strip() == __version__
    assert run_job(app, ["--help"]) == 0
    told = " ".join(capsys.readouterr().out.split())
    assert f"{PREFIX}OPTION" in told
    assert "--config FILE" in told
    assert given == []


@pytest.mark.parametrize("said", ["cannot write x.", "cannot write x", "cannot write x. Is it full?"])
def test_a_fault_of_the_store_ends_with_one_full_stop_and_what_to_do(
    said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    app = job_app("any.py", "")

    @app.default
    def main() -> None:
        raise StorageError(said)

    assert run_job(app, []) == 1
    told = capsys.readouterr().err
    assert told.endswith("The same command goes on from here.\n")
    assert not re.search(r"[.?]\.", told)
