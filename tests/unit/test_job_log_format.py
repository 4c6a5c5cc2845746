"""--log-format, which every job has: where it may stand, and what is refused."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path

import pytest
from cyclopts import App

from options import LOG_FORMAT, StorageFlags, job_app, run_job
from tinyface_core import logs
from tinyface_core.errors import InputError
from tinyface_core.logs import current


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Iterator[App]:
    """A job that says how it logs, and takes a number."""
    monkeypatch.delenv(LOG_FORMAT, raising=False)
    monkeypatch.setattr(logs, "_hiding", [])
    made, before = job_app("test.py", "A job."), current()

    @made.default
    def main(*, number: int = 0, fails: bool = False) -> int:
        if fails:
            raise InputError("no such input: s3://key:word@bucket/x")
        print(current().form, number)
        return 0

    yield made
    logs._current = before


@pytest.mark.parametrize(
    ("tokens", "form"),
    [
        ([], "text"),
        (["--log-format", "json"], "json"),
        (["--log_format=json", "--number", "7"], "json"),
        (["--number", "7", "--log-format=text"], "text"),
    ],
)
def test_the_command_line_says_how_a_job_logs(
    app: App, capsys: pytest.CaptureFixture[str], tokens: list[str], form: str
) -> None:
    assert run_job(app, tokens) == 0
    assert capsys.readouterr().out == f"{form} {7 if '--number' in tokens else 0}\n"
    assert len(current().run) == 16


def test_the_config_file_and_the_environment_say_it_too_and_the_command_line_wins(
    app: App, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "job.yaml").write_text("log_format: json\nnumber: 3\n")
    config = ["--config", str(tmp_path / "job.yaml")]
    assert run_job(app, config) == 0
    assert run_job(app, [*config, "--log-format", "text"]) == 0
    monkeypatch.setenv(LOG_FORMAT, "json")
    assert run_job(app, []) == 0
    assert capsys.readouterr().out == "json 3\ntext 3\njson 0\n"


@pytest.mark.parametrize("tokens", [["--log-format", "xml"], ["--log-format"]])
def test_another_form_is_refused(app: App, capsys: pytest.CaptureFixture[str], tokens: list[str]) -> None:
    assert run_job(app, tokens) == 2
    assert "--log-format" in (told := capsys.readouterr().err)
    assert "needs text or json" in told


def test_a_misspelt_one_is_told(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(app, ["--log-formt", "json"]) == 2
    assert "Unknown option: --log-formt" in capsys.readouterr().err.replace('"', "")


def test_a_refusal_is_a_line_of_json_with_its_exit_code(app: App, caplog: pytest.LogCaptureFixture) -> None:
    assert run_job(app, ["--log-format", "json", "--fails"]) == 2
    (record,) = caplog.records
    assert (record.levelno, record.exit_code) == (logging.ERROR, 2)
    assert record.getMessage().startswith("no such input")


def test_help_of_any_job_tells_of_it(app: App, capsys: pytest.CaptureFixture[str]) -> None:
    assert run_job(app, ["--help"]) == 0
    assert "--log-format json" in capsys.readouterr().out


def test_secrets_of_storage_options_stay_out_of_the_log_from_then_on(app: App) -> None:
    options = StorageFlags(storage_option=("secret=pa55", "requester_pays=true")).options()
    assert options.extra[0] == ("secret", "pa55")
    assert logs._hidden("sent with pa55, true") == "sent with ***, true"
