"""Hands the papers to MkDocs under the names that they have in the repository, so that links between them hold there,
on GitHub and on the site alike; and what they link to that is no paper.
"""

from __future__ import annotations

from pathlib import Path

from mkdocs.config.defaults import MkDocsConfig
from mkdocs.structure.files import File, Files, InclusionLevel

ROOT = Path(__file__).resolve().parents[1]
PAPERS = ("*.md", "docs/*.md", "cluster/README.md", "demo/README.md", "demo/archive/CREDITS.md")
PAPERS += ("tinyface_core/weights/*.md",)
LINKED = ("LICENSE", "ray_config.yaml", ".rayignore", "docs/*.jsonl", "docs/*.svg", "cluster/Dockerfile")
LINKED += ("cluster/base/retrain/cron_job/*.py",)


def on_files(files: Files, *, config: MkDocsConfig) -> Files:
    """In place of what lies in docs/, the papers of the whole repository."""
    for file in list(files):
        if file.src_dir == config.docs_dir:
            files.remove(file)
    for path in sorted({path for pattern in PAPERS + LINKED for path in ROOT.glob(pattern)}):
        name = path.relative_to(ROOT).as_posix()
        where = (str(ROOT), config.site_dir, config.use_directory_urls)
        files.append(File(name, *where, inclusion=InclusionLevel.INCLUDED))
    return files
