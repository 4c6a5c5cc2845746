"""Command line -> frozen settings, in one style for all jobs: cyclopts reads each job's dataclass of options.

Options may be written with `-` or `_`. `--config FILE` (YAML or TOML) gives values; the environment overrides these,
and the command line both. Exit codes are those of docs/cli.md: 2 for whatever is wrong before the first write.
`--log-format json` is any job's.
"""

from __future__ import annotations

import difflib
import logging
import os
import re
import sys
import tomllib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, get_args

import cyclopts
import yaml
from cyclopts import App, Group, Parameter
from rich.console import Console

from signals import INTERRUPTED, TERMINATED, TOLD, Terminated, ending_on_signals, leave
from tinyface_core import __version__
from tinyface_core.errors import InputError, OutputError, SettingsError, StorageError, TinyfaceError
from tinyface_core.logs import Form, Logs, current, hide_by, new_run_id
from tinyface_core.model.locate import REGISTRY_VARIABLE
from tinyface_core.storage import ObjectError, StorageOptions

log = logging.getLogger(__name__)
_STORAGE = Group("Storage", sort_key=5)
LOG_FORMAT = "TINYFACE_LOG_FORMAT"

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
        """From now on they stay out of the log too. Raises SettingsError for a --storage-option without `=`."""
        pairs = []
        for text in self.storage_option:
            key, equals, value = text.partition("=")
            if not equals or not key:
                raise SettingsError(f"--storage-option {text}: give it as key=value.")
            pairs.append((key, value))
        options = StorageOptions(self.endpoint_url, self.anonymous, self.profile, tuple(pairs))
        hide_by(options.hide)
        return options


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


def refuse_unwritable(option: str, file: Path | None, *, overwrite: bool = True) -> None:
    """Raises OutputError for a file of the user's that cannot be made or stays; told before the work that fills it."""
    if file is None:
        return
    if not (file.parent.is_dir() and os.access(file.parent, os.W_OK)):
        raise OutputError(f"{option} {file}: its folder does not exist or cannot be written to.")
    if file.is_dir():
        raise OutputError(f"{option} {file}: is a folder. Give the name of a file.")
    if file.exists() and not overwrite:
        raise OutputError(f"{option} {file}: is there already. Give another name, or --overwrite.")


def refuse_unmakeable(option: str, folder: Path) -> None:
    """The same for a folder, which is made where it is not there yet."""
    there = next(each for each in (folder.absolute(), *folder.absolute().parents) if each.exists())
    if not (there.is_dir() and os.access(there, os.W_OK)):
        raise OutputError(f"{option} {folder}: {there} is no folder, or cannot be written to.")


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
        help_epilogue=f"Any option may stand in a YAML or TOML file too, --config FILE, or in the environment, as "
        f"{variable_prefix(name)}OPTION. The command line wins over the environment, the environment over the file. "
        f"--log-format json (or {LOG_FORMAT}=json): the log on stderr as one JSON object a line. More: docs/cli.md.",
        version=__version__,
        version_flags=("--version",),
        result_action="return_value",
        suppress_keyboard_interrupt=False,  # Ctrl-C is told by run_job, not ended in silence
    )


def variable_prefix(name: str) -> str:
    """How the environment variables of a job begin: detect_archive.py -> TINYFACE_DETECT_ARCHIVE_."""
    return f"TINYFACE_{name.removesuffix('.py').upper()}_"


def run_job(app: App, tokens: list[str] | None = None) -> int:
    """Runs a job and gives its exit code; errors are one sentence on stderr, never a traceback for a user's mistake."""
    tokens = list(sys.argv[1:] if tokens is None else tokens)
    hide_by(StorageOptions().hide)
    try:
        path, values = _config_file(tokens)
        Logs(_log_form(tokens, values), new_run_id()).set_up()
        with ending_on_signals():
            file = [cyclopts.config.Dict(values, source=str(path))] if path else []
            app.config = [*_environment(app), *file]  # what comes first wins
            return int(app(tokens, exit_on_error=False, print_error=False) or 0)
    except cyclopts.CycloptsError as error:
        return _refused(_told(error, app, tokens), 2)
    except StorageError as error:
        return _refused(error.told(), error.exit_code)
    except TinyfaceError as error:
        return _refused(str(error), error.exit_code)
    except ObjectError as error:  # of an object that no run can do without
        return _refused(f"{error}; the same command goes on.", StorageError.exit_code)
    except KeyboardInterrupt:
        return _refused(TOLD[INTERRUPTED], INTERRUPTED)
    except Terminated:
        _refused(TOLD[TERMINATED], TERMINATED)
        leave()


_EVERYWHERE = {"--help", "--version", "--config", "--log-format"}


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
    wrong = next((option for option in given if option not in known | _EVERYWHERE), None)
    if wrong is None:
        return None
    like = difflib.get_close_matches(wrong.strip("-"), [name.strip("-") for name in known], 1, 0.7)
    return f'Unknown option: "{wrong}".' + (f" Did you mean --{like[0]}?" if like else "")


def _refused(message: str, code: int) -> int:
    if current().form == "json":
        log.error(message, extra={"exit_code": code})
        return code
    Console(stderr=True, highlight=False, soft_wrap=True).print(f"[bold red]error:[/] {_plain(message)}")
    return code


def _plain(text: str) -> str:
    return text.replace("[", "\\[")


def _environment(app: App) -> list[Callable[..., Any]]:
    """What cyclopts reads values out of the environment with. Raises: SettingsError for a variable of no option."""
    prefix = variable_prefix(app.name[0])
    given = sorted(name for name in os.environ if name.startswith(prefix))
    if not given:
        return []
    options = {name for argument in app.assemble_argument_collection() for name in argument.names}
    known = {prefix + option.strip("-").replace("-", "_").upper() for option in options if option.startswith("--")}
    for name in given:
        if name not in known:
            like = difflib.get_close_matches(name.removeprefix(prefix), [one.removeprefix(prefix) for one in known], 1)
            raise SettingsError(
                f"{name}: {app.name[0]} has no such option. "
                + (f"Did you mean {prefix}{like[0]}?" if like else "Unset it.")
            )
    return [cyclopts.config.Env(prefix, command=False, show=False)]


def _config_file(tokens: list[str]) -> tuple[Path | None, dict[str, Any]]:
    """The file that `--config` names, and its values by option; the option is taken out of the tokens."""
    given = _taken(tokens, "--config")
    if given is None:
        return None, {}
    path = Path(given)
    if not path.is_file():
        raise SettingsError(f"--config {path}: no such file.")
    form = "TOML" if path.suffix == ".toml" else "YAML"
    try:
        values = (tomllib.loads if form == "TOML" else yaml.safe_load)(path.read_text())
    except (OSError, yaml.YAMLError, tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise SettingsError(f"--config {path}: cannot be read as {form}: {' '.join(str(error).split())}.") from error
    if not isinstance(values, dict):
        raise SettingsError(f"--config {path}: needs `option: value` lines.")
    for name in values:
        if str(name).replace("_", "-").startswith("no-"):
            raise SettingsError(f"--config {path}: {name}: give the option itself with true or false.")
    return path, {str(name).replace("_", "-"): value for name, value in values.items()}


def _log_form(tokens: list[str], config: dict[str, Any]) -> Form:
    """Taken out of the command line, else out of the config file, else the environment's, else text."""
    asked, in_file = _taken(tokens, "--log-format"), config.pop("log-format", None)
    found = asked if asked is not None else in_file or os.environ.get(LOG_FORMAT) or "text"
    for form in get_args(Form):
        if found == form:
            return form
    raise SettingsError(f"--log-format {found}: needs {' or '.join(get_args(Form))}.")


def _taken(tokens: list[str], option: str) -> str | None:
    """The value of an option that any job has, which goes out of the tokens; None where it is not given."""
    for position, token in enumerate(tokens):
        name, equals, value = token.partition("=")
        if name.replace("_", "-") == option:
            behind = position + (1 if equals else 2)
            value = value if equals else "".join(tokens[position + 1 : behind])
            tokens[position:] = tokens[behind:]
            return value
    return None
