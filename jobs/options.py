"""Command line -> frozen settings, in one style for all jobs: cyclopts reads each job's dataclass of options.

Options may be written with `-` or `_`; `--config FILE` (YAML) gives values that the command line overrides. Exit
codes are those of docs/job.md: 2 for whatever is wrong before the first write.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any

import cyclopts
import yaml
from cyclopts import App, Group, Parameter
from rich.console import Console

from signals import INTERRUPTED, TERMINATED, TOLD, Terminated, ending_on_signals, leave
from tinyface_core.errors import InputError, OutputError, SettingsError, StorageError, TinyfaceError
from tinyface_core.model.locate import REGISTRY_VARIABLE
from tinyface_core.storage import ObjectError, StorageOptions

_STORAGE = Group("Storage", sort_key=5)

Texts = tuple[str, ...]


def many(group: Group) -> Parameter:
    """An option that takes one or more values, and may be repeated."""
    return Parameter(group=group, negative=(), consume_multiple=1, show_default=False)


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class StorageFlags:
    """How objects are reached."""

    endpoint_url: Annotated[str | None, Parameter(group=_STORAGE)] = None
    "S3 store other than AWS; else AWS_ENDPOINT_URL."
    profile: Annotated[str | None, Parameter(group=_STORAGE)] = None
    "AWS profile to take credentials from."
    anonymous: Annotated[bool, Parameter(group=_STORAGE, negative=())] = False
    "Send no credentials: for public buckets."
    storage_option: Annotated[Texts, many(_STORAGE)] = ()
    "key=value for fsspec (requester pays, roles, encryption keys); may be repeated."

    def options(self) -> StorageOptions:
        """Raises SettingsError for a --storage-option without `=`."""
        pairs = []
        for text in self.storage_option:
            key, equals, value = text.partition("=")
            if not equals or not key:
                raise SettingsError(f"--storage-option {text}: give it as key=value.")
            pairs.append((key, value))
        return StorageOptions(self.endpoint_url, self.anonymous, self.profile, tuple(pairs))


def actor_range(actors: str | None) -> tuple[int, int] | None:
    """The least and most that --actors asks for; None: as many as there is room for. Raises SettingsError."""
    if actors is None:
        return None
    low, _, high = actors.partition("..")
    try:
        smallest, largest = int(low), int(high or low)
    except ValueError:
        smallest = largest = 0
    if not 1 <= smallest <= largest:
        raise SettingsError(f"--actors {actors}: give a number from 1 on, as 4, or a range, as 2..16.")
    return smallest, largest


def refuse_lost(option: str, path: str) -> None:
    """Raises SettingsError for a relative path to write to in a submitted job."""
    is_relative = "://" not in path and not os.path.isabs(os.path.expanduser(path))
    if is_relative and "/runtime_resources/working_dir_files/" in os.getcwd():
        raise SettingsError(
            f"{option} {path}: under `ray job submit` a relative path lies in Ray's cache of the working folder and "
            "would be lost. Give an absolute path or a url."
        )


def registry_of(given: str | None) -> str:
    """The registry that --registry names, else that of the environment. Raises SettingsError."""
    registry = given if given is not None else os.environ.get(REGISTRY_VARIABLE)
    if registry is None or not registry.strip():
        raise SettingsError(f"--registry: which? Give a folder or url, or set {REGISTRY_VARIABLE}.")
    refuse_lost("--registry", registry)
    return registry


def refuse_unwritable(option: str, file: Path | None) -> None:
    """Raises OutputError for a file of the user's that cannot be made; told before the work that fills it."""
    if file is not None and not (file.parent.is_dir() and os.access(file.parent, os.W_OK)):
        raise OutputError(f"{option} {file}: its folder does not exist or cannot be written to.")


@contextmanager
def before_first_write() -> Iterator[None]:
    """A store that fails while nothing is written yet is a refusal: exit code 2."""
    try:
        yield
    except (ObjectError, StorageError) as error:
        raise InputError(str(error)) from error


def job_app(name: str, about: str) -> App:
    """The command line application of one job; decorate its main with `@app.default`."""
    return App(
        name=name,
        help=about,
        help_format="markdown",
        version_flags=(),
        result_action="return_value",
        suppress_keyboard_interrupt=False,  # Ctrl-C is told by run_job, not ended in silence
    )


def run_job(app: App, tokens: list[str] | None = None) -> int:
    """Runs a job and gives its exit code; errors are one sentence on stderr, never a traceback for a user's mistake."""
    logging.basicConfig(level=logging.INFO, format="%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")
    logging.getLogger("aiobotocore").setLevel(logging.WARNING)
    logging.captureWarnings(True)
    tokens = list(sys.argv[1:] if tokens is None else tokens)
    try:
        with ending_on_signals():
            app.config = _config_file(tokens)
            return int(app(tokens, exit_on_error=False, print_error=False) or 0)
    except cyclopts.CycloptsError as error:
        return _refused(_told(error, app, tokens), 2)
    except StorageError as error:
        return _refused(f"{str(error).rstrip('.')}. The same command goes on from here.", error.exit_code)
    except TinyfaceError as error:
        return _refused(str(error), error.exit_code)
    except ObjectError as error:  # of an object that no run can do without
        return _refused(f"{error}; the same command goes on.", StorageError.exit_code)
    except KeyboardInterrupt:
        return _refused(TOLD[INTERRUPTED], INTERRUPTED)
    except Terminated:
        _refused(TOLD[TERMINATED], TERMINATED)
        leave()


def _told(error: cyclopts.CycloptsError, app: App, tokens: list[str]) -> str:
    """What is wrong with the command line or the config file, and the mend."""
    if isinstance(error, cyclopts.MissingArgumentError):
        if unknown := _unknown_option(app, tokens):
            return unknown
        if error.argument is not None and not error.argument.tokens and error.keyword is None:
            return f"{error.argument.name} is missing; --help shows all options."
    if isinstance(error, cyclopts.UnusedCliTokensError):
        stray = " ".join(error.unused_tokens or ())
        return f"{stray}: belongs to no option. Quote globs, and give each value behind its option; --help shows all."
    return re.sub(r'"?\[([\w-]+)\]"?', r"\1", str(error))  # cyclopts writes names out of a file as [name]


def _unknown_option(app: App, tokens: list[str]) -> str | None:
    """Names the first one: told before what is missing, which may be what was misspelt."""
    known = {name for argument in app.assemble_argument_collection() for name in argument.names}
    given = (token.partition("=")[0].replace("_", "-") for token in tokens if token.startswith("--"))
    wrong = next((option for option in given if option not in known | {"--help"}), None)
    if wrong is None:
        return None
    like = difflib.get_close_matches(wrong.strip("-"), [name.strip("-") for name in known], 1, 0.7)
    return f'Unknown option: "{wrong}".' + (f" Did you mean --{like[0]}?" if like else "")


def _refused(message: str, code: int) -> int:
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {_plain(message)}")
    return code


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _config_file(tokens: list[str]) -> list[Callable[..., Any]]:
    """Takes `--config FILE`, which any job has, out of the tokens; gives what cyclopts reads the values from."""
    for position, token in enumerate(tokens):
        option, equals, value = token.partition("=")
        if option != "--config":
            continue
        rest = tokens[position + 1 :] if equals else tokens[position + 2 :]
        path = Path(value if equals else "".join(tokens[position + 1 : position + 2]))
        del tokens[position:]
        tokens += rest
        if not path.is_file():
            raise SettingsError(f"--config {path}: no such file.")
        try:
            values = yaml.safe_load(path.read_text())
        except (OSError, yaml.YAMLError, UnicodeDecodeError) as error:
            raise SettingsError(f"--config {path}: cannot be read as YAML: {' '.join(str(error).split())}.") from error
        if not isinstance(values, dict):
            raise SettingsError(f"--config {path}: needs `option: value` lines.")
        for name in values:
            if str(name).replace("_", "-").startswith("no-"):
                raise SettingsError(f"--config {path}: {name}: give the option itself with true or false.")
        plain = {str(name).replace("_", "-"): given for name, given in values.items()}
        return [cyclopts.config.Dict(plain, source=str(path))]
    return []
