"""Imports go one way, and only to libraries that pyproject.toml declares."""

from __future__ import annotations

import ast
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

from tests.layout.source import ROOT, Module, modules

# A part may import parts of a lower rank, never of its own.
RANKS = {
    "__init__": 0,
    "errors": 0,
    "logs": 0,
    "stores": 1,
    "storage": 2,
    "archive": 3,
    "picture": 3,
    "registry": 3,
    "geometry": 3,
    "boxes": 4,
    "templates": 5,
    "model": 6,
    "detect": 7,
    "tables": 8,
    "labels": 9,
    "redact": 9,
    "report": 9,
    "evaluate": 10,
    "compare": 10,
    "forecast": 10,
    "train": 11,
    "export": 11,
    "studies": 12,
    "render": 12,
    "jobs": 13,
}
# The left side of the detector and the readers know nothing of each other.
ONLY = {
    "stores": {"errors"},
    "storage": {"errors", "stores"},
    "archive": {"errors", "storage"},
    "picture": {"errors", "storage"},
    "registry": {"errors", "storage"},
    "geometry": {"errors"},
}
# What a decoding child process imports must be light.
NO_TORCH = {"errors", "stores", "storage", "archive", "picture", "registry", "tables", "redact"}

DISTRIBUTIONS = {
    "cv2": "opencv-python-headless",
    "PIL": "pillow",
    "pythonjsonlogger": "python-json-logger",
    "tensorboardX": "tensorboardx",
    "yaml": "pyyaml",
}
# Declared for what they do without being imported by name.
NOT_IMPORTED = {
    "s3fs": "fsspec loads it for s3:// urls",
    "ray": "imported by jobs/ only",
}


def part_of(name: str) -> str | None:
    """The part that an imported name belongs to; None for other libraries. Jobs import each other by bare name."""
    head, *rest = name.split(".")
    if head == "tinyface_core":
        return rest[0] if rest and rest[0] in RANKS else "__init__"
    if head == "jobs" or (ROOT / "jobs" / f"{head}.py").is_file():
        return "jobs"
    return None


def wrong_way(module: Module) -> list[str]:
    """Imports against the order, as `file:line imports name`."""
    wrong = []
    for name, line in module.imports:
        part = part_of(name)
        if part is None or part in (module.part, "__init__"):
            continue
        allowed = ONLY.get(module.part)
        if RANKS[part] >= RANKS[module.part] or (allowed is not None and part not in allowed):
            wrong.append(f"{module.name}:{line} imports {name}")
    return wrong


def libraries_of(module: Module) -> set[str]:
    """Third-party libraries by the name on the package index."""
    heads = {name.split(".")[0] for name, _ in module.imports if part_of(name) is None}
    return {DISTRIBUTIONS.get(head, head.replace("_", "-")) for head in heads - set(sys.stdlib_module_names)}


def declared() -> tuple[set[str], set[str]]:
    """Names of the dependencies, and of those in extras."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]

    def names(requirements: list[str]) -> set[str]:
        return {re.split(r"[\[<>=!~ ]", requirement)[0].lower() for requirement in requirements}

    extras = [requirement for extra in project["optional-dependencies"].values() for requirement in extra]
    return names(project["dependencies"]), names(extras)


@pytest.mark.parametrize("module", modules("tinyface_core", "jobs"), ids=lambda module: module.name)
def test_imports_go_one_way(module: Module) -> None:
    assert module.part in RANKS, f"{module.name}: give the new part a place in RANKS"
    assert wrong_way(module) == []


def test_the_core_never_imports_ray() -> None:
    found = [
        f"{m.name}:{line}" for m in modules("tinyface_core") for name, line in m.imports if name.startswith("ray.")
    ]
    found += [f"{m.name}:{line}" for m in modules("tinyface_core") for name, line in m.imports if name == "ray"]
    assert found == []


def test_readers_and_tables_do_without_torch() -> None:
    light = [module for module in modules("tinyface_core") if module.part in NO_TORCH]
    assert [module.name for module in light if "torch" in libraries_of(module)] == []


def test_the_detector_does_without_opencv() -> None:
    """benchmarks/gpu.py runs it on a bare machine with torch."""
    script = "import sys; sys.modules['cv2'] = None; import tinyface_core.detect.detector"
    subprocess.run([sys.executable, "-c", script], cwd=ROOT, check=True)


def test_every_library_that_is_imported_is_declared() -> None:
    core, extras = declared()
    used = {library: module.name for module in modules("tinyface_core", "jobs") for library in libraries_of(module)}
    optional = {"pillow-heif", "pyiceberg"} & extras
    missing = {library: user for library, user in used.items() if library not in core | optional}
    assert missing == {}


def test_every_library_that_the_tests_import_is_declared() -> None:
    core, extras = declared()
    used = {
        library: module.name for module in modules("tests", "demo", "benchmarks") for library in libraries_of(module)
    }
    beside = {path.stem.replace("_", "-") for path in (ROOT / "benchmarks").glob("*.py")}
    known = core | extras | {"tests", "demo"} | beside
    assert {library: user for library, user in used.items() if library not in known} == {}


def test_every_library_that_is_declared_is_imported() -> None:
    core, _ = declared()
    used = set().union(*(libraries_of(module) for module in modules("tinyface_core", "jobs")))
    assert sorted(core - used - set(NOT_IMPORTED)) == []


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("from tinyface_core.tables import rows", ["tinyface_core/detect/fake.py:1 imports tinyface_core.tables.rows"]),
        ("from tinyface_core import tables", ["tinyface_core/detect/fake.py:1 imports tinyface_core.tables"]),
        (
            "def f():\n    import tinyface_core.train.loop",
            ["tinyface_core/detect/fake.py:2 imports tinyface_core.train.loop"],
        ),
        ("from ..report import html", ["tinyface_core/detect/fake.py:1 imports tinyface_core.report.html"]),
        ("from tinyface_core.boxes import iou\nfrom tinyface_core.detect import pyramid", []),
    ],
)
def test_an_import_against_the_order_is_found(text: str, expected: list[str]) -> None:
    module = Module(ROOT / "tinyface_core" / "detect" / "fake.py")
    module.__dict__["tree"] = ast.parse(text)
    assert wrong_way(module) == expected


def test_no_package_has_the_name_utils() -> None:
    names: list[Path] = [module.path for module in modules("tinyface_core", "jobs")]
    assert [path for path in names if {"utils", "helpers", "common"} & {path.stem, path.parent.name}] == []
