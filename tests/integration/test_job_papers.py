"""docs/job.md tells of each option and each exit code, and of none that is not there."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from tinyface_core import errors

ROOT = Path(__file__).resolve().parents[2]
pytestmark = pytest.mark.integration


def test_job_md_has_the_options_that_the_job_has() -> None:
    command = [sys.executable, "jobs/detect_archive.py", "--help"]
    wide = {**os.environ, "COLUMNS": "250"}  # no option broken over two lines
    run = subprocess.run(command, cwd=ROOT, env=wide, capture_output=True, text=True, check=True)
    in_help = set(re.findall(r"(?<![\w-])--[a-z][a-z-]+", run.stdout)) - {
        "--help",
        "--version",
        "--working-dir",
    }  # Ray's, in the example
    in_help = {option for option in in_help if not option.startswith(("--no-", "--empty-"))}
    table = re.search(r"## Options\n(.*?)\n## ", (ROOT / "docs" / "job.md").read_text(), re.DOTALL)
    assert table
    first_cells = "\n".join(line.split("|")[1] for line in table.group(1).splitlines() if line.startswith("|"))
    assert set(re.findall(r"--[a-z][a-z-]+", first_cells)) == in_help


def test_each_exit_code_of_the_errors_is_in_job_md() -> None:
    kinds = [
        kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, errors.TinyfaceError)
    ]
    codes = {kind.exit_code for kind in kinds}
    told = {int(code) for code in re.findall(r"^\| (\d+) \|", (ROOT / "docs" / "job.md").read_text(), re.MULTILINE)}
    assert codes <= told
