"""What the papers say of the folder is true: the README's tree, the version, the exit codes, the links."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

import tinyface_core
from tests.layout.source import ROOT, modules

PAPERS = [
    ROOT / name for name in ("README.md", "CONTRIBUTING.md", "CHANGELOG.md", "demo/README.md", "cluster/README.md")
]
PAPERS += sorted((ROOT / "docs").glob("*.md"))


def tree_in(readme: str) -> set[str]:
    """Paths in the README's tree: the block after `<!-- tree -->`, two spaces a level, a text after each name."""
    block = re.search(r"<!-- tree -->\n```\n(.*?)```", readme, re.DOTALL)
    assert block, "README.md has no tree after <!-- tree -->"
    paths, folders = set(), []
    for line in block.group(1).splitlines():
        name = line.split()[0]
        folders[(len(line) - len(line.lstrip())) // 2 :] = [name.rstrip("/")]
        paths.add("/".join(folders) + ("/" if name.endswith("/") else ""))
    return paths


def test_the_readme_tree_has_one_line_for_each_file_of_core_and_jobs() -> None:
    tree = tree_in((ROOT / "README.md").read_text())
    in_folder = {module.name for module in modules("tinyface_core", "jobs") if module.path.stem != "__init__"}
    assert sorted(path for path in tree if path.endswith(".py")) == sorted(in_folder)


def test_every_other_line_of_the_readme_tree_exists() -> None:
    assert [path for path in sorted(tree_in((ROOT / "README.md").read_text())) if not (ROOT / path).exists()] == []


def test_the_changelog_opens_with_this_version() -> None:
    top = re.search(r"^## \[(.+?)\]", (ROOT / "CHANGELOG.md").read_text(), re.MULTILINE)
    assert top
    assert top.group(1) == tinyface_core.__version__


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_between_the_papers_lead_somewhere(paper: Path) -> None:
    text = re.sub(r"```.*?```", "", paper.read_text(), flags=re.DOTALL)  # a pattern in code looks like a link
    links = re.findall(r"\]\(([^)#\s]+)[^)]*\)", text)
    local = [link for link in links if "://" not in link]
    assert [link for link in local if not (paper.parent / link).exists()] == []


@pytest.mark.parametrize("paper", PAPERS, ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_named_in_the_papers_exist(paper: Path) -> None:
    """`jobs/x.py`, `docs/x.md`, `tinyface_core/...` in backticks."""
    named = re.findall(r"`((?:jobs|docs|tinyface_core|cluster|tests|benchmarks|demo)/[\w./-]+)`", paper.read_text())
    assert [name for name in sorted(set(named)) if not (ROOT / name).exists()] == []
