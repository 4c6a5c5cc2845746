"""The project's Python files as parsed trees, for the layout tests. Imports nothing of what it reads."""

from __future__ import annotations

import ast
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]


@dataclass(frozen=True)
class Module:
    """One file; `part` is what the import order ranks: the core's module or package, or `jobs`."""

    path: Path

    @property
    def name(self) -> str:
        return self.path.relative_to(ROOT).as_posix()

    @property
    def part(self) -> str:
        folder, *rest = self.path.relative_to(ROOT).with_suffix("").parts
        return rest[0] if folder == "tinyface_core" else folder

    @cached_property
    def tree(self) -> ast.Module:
        return ast.parse(self.path.read_text(encoding="utf-8"), filename=self.name)

    @cached_property
    def imports(self) -> list[tuple[str, int]]:
        """Absolute names of every import, also those inside functions, with their lines."""
        found: list[tuple[str, int]] = []
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                found += [(alias.name, node.lineno) for alias in node.names]
            elif isinstance(node, ast.ImportFrom):
                base = node.module or ""
                if node.level:
                    package = self.path.relative_to(ROOT).parts[: -node.level]
                    base = ".".join([*package, *([base] if base else [])])
                # `from tinyface_core import boxes` names the module in the second half.
                found += [(f"{base}.{alias.name}", node.lineno) for alias in node.names]
        return found


def modules(*folders: str) -> list[Module]:
    """Every Python file below the folders, in order of name."""
    paths = (path for folder in folders for path in sorted((ROOT / folder).rglob("*.py")))
    return [Module(path) for path in paths if "__pycache__" not in path.parts]
