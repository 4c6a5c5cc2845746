"""docs/cli.md, shell completion and the jobs' own help tell of the same options. All jobs are imported."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from cli_doc import PAGE, all_jobs, rendered
from command_lines import CommandLine, job_names
from completion import app as completion_app
from options import run_job
from tinyface_core import __version__

pytestmark = pytest.mark.integration
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def jobs() -> list[CommandLine]:
    return all_jobs()


@pytest.fixture(scope="module")
def page() -> str:
    return PAGE.read_text("utf-8")


def test_the_tables_are_those_of_the_jobs(jobs: list[CommandLine], page: str) -> None:
    """`make docs` renders them."""
    assert rendered(page, jobs) == page


def test_each_name_that_several_jobs_have_is_explained(jobs: list[CommandLine], page: str) -> None:
    table = page.partition("## What a name means")[2].partition("\n## ")[0]
    options = [option for job in jobs for option in job.options]
    shared = {option for option in options if options.count(option) > 1}
    said = set(re.findall(r"--[a-z][a-z-]+", table))
    assert {option for option in shared - said if not option.startswith("--max-")} == set()


def test_a_job_that_reads_tables_takes_them_first_and_every_other_place_has_a_name_of_its_own(
    jobs: list[CommandLine],
) -> None:
    of = {job.name: job for job in jobs}
    for name in ("export", "redact", "remove", "render", "validate"):
        assert of[name].arguments == ("TABLES",)
    options = {option for job in jobs for option in job.options}
    assert options & {"--out", "--outdir", "--out-dir", "--destination", "--dest", "--target", "--tables"} == set()


def test_each_job_tells_its_exit_codes(jobs: list[CommandLine]) -> None:
    assert [job.name for job in jobs if not {0, 2} <= job.exit_codes.keys()] == []
    limits = {job.name for job in jobs for option in job.options if option.startswith("--max-")}
    assert {job.name for job in jobs if 3 in job.exit_codes} == limits


def test_every_job_has_help_with_an_example_and_the_version(
    jobs: list[CommandLine], capsys: pytest.CaptureFixture[str]
) -> None:
    for job in jobs:
        assert run_job(job.app, ["--help"]) == 0
        assert f"python jobs/{job.name}.py" in " ".join(capsys.readouterr().out.split())
        assert run_job(job.app, ["--version"]) == 0
        assert capsys.readouterr().out.strip() == __version__
        assert run_job(job.app, ["--no-such-option", "x"]) == 2
        assert "--no-such-option" in capsys.readouterr().err


@pytest.fixture(scope="module")
def script(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """As a user prints it."""
    file = tmp_path_factory.mktemp("completion") / "completion.bash"
    with pytest.MonkeyPatch.context() as patch, file.open("w") as out:
        patch.setattr("sys.stdout", out)
        assert run_job(completion_app, []) == 0
    return file


def completed(script: Path, *words: str) -> list[str]:
    """What bash offers when TAB is pressed behind the last word."""
    line = " ".join(f"'{word}'" for word in words)
    command = (
        f"source {script}; COMP_WORDS=({line}); COMP_CWORD={len(words) - 1}; "
        'spec=$(complete -p "${COMP_WORDS[0]##*/}"); function=${spec##*-F }; ${function%% *}; '
        "printf '%s\\n' \"${COMPREPLY[@]}\""
    )
    run = subprocess.run(["bash", "--norc", "-c", command], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stderr == ""
    return sorted(run.stdout.split())


@pytest.mark.parametrize("behind", [[".venv/bin/python", "jobs/detect_archive.py"], ["jobs/detect_archive.py"]])
def test_bash_completes_options_and_choices(script: Path, behind: list[str]) -> None:
    assert completed(script, *behind, "--max") == ["--max-error-share", "--max-pixels"]
    assert "--config" in completed(script, *behind, "--")
    assert completed(script, *behind, "--input", "x", "--device", "c") == ["cpu", "cuda"]
    assert completed(script, *behind, "--config", "mkdo") == ["mkdocs.yml"]


def test_each_job_is_completed_and_other_programs_are_left_to_bash(script: Path) -> None:
    for name in job_names():
        assert "--help" in completed(script, "python3", f"jobs/{name}.py", "--")
    assert completed(script, "python3", "setup.py", "--") == []
    assert completed(script, "python3", "-m", "p") == []
