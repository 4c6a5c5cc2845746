"""Renders the tables of docs/cli.md from the jobs themselves: `make docs`; a test holds the page against it."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from command_lines import CommandLine, command_line, job_names

PAGE = Path(__file__).resolve().parents[1] / "docs" / "cli.md"
_BLOCK = re.compile(r"(?<=<!-- by jobs/cli_doc.py -->\n).*?(?=<!-- end -->)", re.DOTALL)


def rendered(page: str, jobs: Sequence[CommandLine]) -> str:
    """The page with its block made anew."""
    return _BLOCK.sub(lambda _: f"\n{_options(jobs)}\n\n{_exit_codes(jobs)}\n\n", page)


def all_jobs() -> list[CommandLine]:
    return [command_line(name) for name in job_names()]


def _options(jobs: Sequence[CommandLine]) -> str:
    lines = ["| job | arguments | options |", "|---|---|---|"]
    for job in jobs:
        options = [f"`{option}`" for option in job.options] + (["storage"] if job.storage else [])
        lines.append(f"| `{job.name}.py` | {' '.join(job.arguments)} | {', '.join(options)} |")
    return "\n".join(lines)


def _exit_codes(jobs: Sequence[CommandLine]) -> str:
    codes = sorted({code for job in jobs for code in job.exit_codes})
    lines = [f"| job | {' | '.join(map(str, codes))} |", "|---" * (len(codes) + 1) + "|"]
    told = {job.name: [job.exit_codes.get(code, "").replace("<", "&lt;") for code in codes] for job in jobs}
    lines += [f"| `{name}.py` | {' | '.join(cells)} |" for name, cells in told.items()]
    return "\n".join(lines)


if __name__ == "__main__":
    PAGE.write_text(rendered(PAGE.read_text("utf-8"), all_jobs()), "utf-8")
    sys.exit(0)
