"""The command lines of all jobs, for those who tell of them: docs/cli.md, shell completion, tests.

A job is a file of this folder with an `app`; importing one takes what it needs, Ray and torch among it.
"""

from __future__ import annotations

import importlib
import re
from dataclasses import dataclass
from pathlib import Path

from cyclopts import App

from options import StorageFlags

_APP = re.compile(r"^app = job_app\(", re.MULTILINE)
_CODES = re.compile(r"Exit\s+codes:\s(.*?)\.(?:\s|$)", re.DOTALL)


@dataclass(frozen=True)
class CommandLine:
    """One job. arguments: in upper case, `...` behind one that takes several. options: with their dashes.

    storage: it takes the four options of StorageFlags, which are not in `options`. exit_codes: code -> when, as its
    docstring has them.
    """

    name: str
    app: App
    arguments: tuple[str, ...]
    options: tuple[str, ...]
    storage: bool
    exit_codes: dict[int, str]


def job_names() -> list[str]:
    """Without `.py`."""
    here = Path(__file__).parent
    return sorted(path.stem for path in here.glob("*.py") if _APP.search(path.read_text("utf-8")))


def command_line(name: str) -> CommandLine:
    module = importlib.import_module(name)
    arguments, options = list[str](), list[str]()
    for argument in module.app.assemble_argument_collection():
        if not argument.show:
            continue
        if argument.name.startswith("--"):
            options.append(argument.name)
        else:
            arguments.append(argument.name)
    shared = {f"--{field.replace('_', '-')}" for field in StorageFlags.__dataclass_fields__}
    own = tuple(option for option in options if option not in shared)
    codes = _exit_codes(module.__doc__ or "")
    return CommandLine(name, module.app, tuple(arguments), own, own != tuple(options), codes)


def _exit_codes(about: str) -> dict[int, str]:
    """Of a docstring that says `Exit codes: 0 done, 2 refused before the first write.`"""
    found = _CODES.search(about)
    parts = re.split(r",\s+(?=\d)", " ".join(found[1].split())) if found else []
    return {int(code): when for code, _, when in (part.partition(" ") for part in parts)}
