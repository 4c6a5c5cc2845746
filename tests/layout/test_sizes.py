"""Files stay under 300 lines, functions under 50, signatures at 8 parameters: one subject each."""

from __future__ import annotations

import ast
from collections.abc import Iterator

import pytest

from tests.layout.source import Module, modules

FILE_LINES = 300
FUNCTION_LINES = 50  # the docstring not counted
PARAMETERS = 8

# `file` or `file::function` -> why it may be longer. Keep it short: past a limit, look for the second subject.
ALLOWED: dict[str, str] = {}

Function = ast.FunctionDef | ast.AsyncFunctionDef


def functions(tree: ast.Module) -> Iterator[Function]:
    for node in ast.walk(tree):
        if isinstance(node, Function):
            yield node


def code_lines(function: Function) -> int:
    """Lines from `def` to the end, without the docstring."""
    lines = (function.end_lineno or function.lineno) - function.lineno + 1
    first = function.body[0]
    if ast.get_docstring(function) is not None:
        lines -= (first.end_lineno or first.lineno) - first.lineno + 1
    return lines


def parameters(function: Function) -> int:
    arguments = function.args
    names = [argument.arg for argument in [*arguments.posonlyargs, *arguments.args, *arguments.kwonlyargs]]
    return len([name for name in names if name not in ("self", "cls")])


def too_long(module: Module) -> list[str]:
    found = []
    lines = len(module.path.read_text(encoding="utf-8").splitlines())
    if lines >= FILE_LINES:
        found.append(f"{module.name}: {lines} lines")
    for function in functions(module.tree):
        place = f"{module.name}::{function.name}"
        if code_lines(function) >= FUNCTION_LINES:
            found.append(f"{place}: {code_lines(function)} lines")
        if parameters(function) > PARAMETERS:
            found.append(f"{place}: {parameters(function)} parameters")
    return [text for text in found if text.split(": ")[0] not in ALLOWED]


@pytest.mark.parametrize("module", modules("tinyface_core", "jobs", "demo", "benchmarks"), ids=lambda m: m.name)
def test_one_subject_a_file_and_a_function(module: Module) -> None:
    assert too_long(module) == []


def test_every_exception_to_the_sizes_is_still_needed() -> None:
    names = {module.name for module in modules("tinyface_core", "jobs", "demo", "benchmarks")}
    assert [place for place in ALLOWED if place.split("::")[0] not in names] == []


def test_the_docstring_does_not_count() -> None:
    (function,) = functions(ast.parse('def f(self, a, *, b):\n    """One.\n\n    Two.\n    """\n    return a + b\n'))
    assert code_lines(function) == 2
    assert parameters(function) == 2
