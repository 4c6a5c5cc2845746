"""Command line -> frozen settings, in one style for all jobs: cyclopts reads the dataclasses below.

Options may be written with `-` or `_`; `--config FILE` (YAML) gives values that the command line overrides. Exit
codes are those of docs/job.md: 2 for whatever is wrong before the first write.
"""

from __future__ import annotations

import difflib
import logging
import math
import os
import re
import sys
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

import cyclopts
import yaml
from cyclopts import App, Group, Parameter
from rich.console import Console

from signals import INTERRUPTED, TERMINATED, TOLD, Terminated, ending_on_signals, leave
from tinyface_core.errors import OutputError, SettingsError, StorageError, TinyfaceError
from tinyface_core.storage import ObjectError, StorageOptions

_READ, _WRITE = Group("What to read", sort_key=1), Group("Where to write", sort_key=2)
_DETECT, _RUN = Group("How to detect", sort_key=3), Group("How to run", sort_key=4)
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


@Parameter(name="*")
@dataclass(frozen=True, kw_only=True)
class DetectArchive:
    """All options of jobs/detect_archive.py; None: decided by the checkpoint, the output's record, or the machine."""

    input: Annotated[Texts, many(_READ)]
    "Folder, url, glob, {a..b} braces, archive or manifest; may be repeated."
    output: Annotated[str, Parameter(group=_WRITE)]
    "Folder or prefix for the tables: empty, or an output of the same settings."
    include: Annotated[Texts, many(_READ)] = ()
    "Globs on names below the input; only these are read."
    exclude: Annotated[Texts, many(_READ)] = ()
    "Globs on names below the input that are left out."
    all_files: Annotated[bool, Parameter(group=_READ, negative=())] = False
    "Hidden names and sidecars (.json, .txt, ...) become candidates, so rows."
    carry: Annotated[Texts, many(_READ)] = ()
    "Columns of the manifest or Parquet input to carry into the images table."
    limit: Annotated[int | None, Parameter(group=_READ)] = None
    "Stop after the whole units that reach this many pictures; a later run goes on."
    dry_run: Annotated[bool, Parameter(group=_WRITE, negative=())] = False
    "Tell what would be read, by type, with sizes; write nothing."
    model: Annotated[str | None, Parameter(group=_DETECT)] = None
    "hr-resnet50, hr-mobilenetv2, or path or url of a checkpoint; None: the one of these that fits the device."
    zooms: Annotated[Texts, many(_DETECT)] = ()
    "Pyramid levels, as 0.5 1 2, or `adaptive`; none: the checkpoint's. 4 finds faces of 8-12 px."
    min_score: Annotated[float | None, Parameter(group=_DETECT)] = None
    "Faces up to this score are not written (0..1); None: the checkpoint's. The log says what to expect."
    nms_iou: Annotated[float | None, Parameter(group=_DETECT)] = None
    "Overlap above which the weaker of two boxes goes; None: the checkpoint's."
    device: Annotated[Literal["auto", "cpu", "cuda"], Parameter(group=_DETECT)] = "auto"
    "Where to compute; auto: a GPU where there is one."
    precision: Annotated[Literal["auto", "fp32", "bf16", "fp16"], Parameter(group=_DETECT)] = "auto"
    "Number format of the network; auto: bf16 where the hardware has it."
    max_pixels: Annotated[int | None, Parameter(group=_DETECT)] = None
    "Larger pictures (width x height) become error rows, before decoding; None: 500,000,000."
    decode_timeout: Annotated[float | None, Parameter(group=_DETECT)] = None
    "Seconds that decoding one picture may take; None: 60."
    actors: Annotated[str | None, Parameter(group=_RUN)] = None
    "Detectors, as 4 or 2..16; None: one a GPU, or one a CPU."
    cpus_per_actor: Annotated[int, Parameter(group=_RUN)] = 1
    "CPUs, and so threads, of each detector."
    gpus_per_actor: Annotated[float | None, Parameter(group=_RUN)] = None
    "GPUs of each detector; 0.5 puts two on one."
    unit_pictures: Annotated[int | None, Parameter(group=_RUN)] = None
    "Pictures that are committed together: what a kill can lose; None: 1,000, fewer of a small input."
    retry: Annotated[Literal["errors"] | None, Parameter(group=_RUN)] = None
    "errors: pictures that are error rows in the output are tried again, and no others."
    prune: Annotated[float | None, Parameter(group=_RUN)] = None
    "Take out rows of what no --input lists any more; refused if that is more than this share of all, as 0.05."
    max_error_share: Annotated[float | None, Parameter(group=_RUN)] = None
    "Stop with exit code 3 above this share of error rows, judged from the 200th picture on."
    ray_address: Annotated[str | None, Parameter(group=_RUN)] = None
    "Cluster to join (else RAY_ADDRESS, else one that runs here); `local` always starts one."
    config: Annotated[Path | None, Parameter(group=_RUN)] = None
    "YAML file with any of these options; the command line wins."
    report: Annotated[bool, Parameter(group=_WRITE)] = True
    "Write report.html at the end; it shows no pictures but those that --report-pictures asks for."
    report_pictures: Annotated[int, Parameter(group=_WRITE)] = 0
    "Pictures that are drawn into report.html, with their faces: the most crowded, and those with the tiniest faces."
    storage: StorageFlags = StorageFlags()

    def __post_init__(self) -> None:
        checks: list[tuple[str, object, bool, str]] = [
            ("--limit", self.limit, self.limit is None or self.limit > 0, "from 1 on"),
            ("--min-score", self.min_score, self.min_score is None or 0 <= self.min_score < 1, "from 0 up to below 1"),
            ("--nms-iou", self.nms_iou, self.nms_iou is None or 0 <= self.nms_iou <= 1, "from 0 to 1"),
            ("--unit-pictures", self.unit_pictures, self.unit_pictures is None or self.unit_pictures > 0, "from 1 on"),
            ("--max-pixels", self.max_pixels, self.max_pixels is None or self.max_pixels > 0, "from 1 on"),
            (
                "--decode-timeout",
                self.decode_timeout,
                self.decode_timeout is None or 0 < self.decode_timeout < math.inf,
                "above 0 and finite",
            ),
            ("--cpus-per-actor", self.cpus_per_actor, self.cpus_per_actor > 0, "from 1 on"),
            ("--gpus-per-actor", self.gpus_per_actor, 0 <= (self.gpus_per_actor or 0) < math.inf, "from 0 on, finite"),
            ("--report-pictures", self.report_pictures, self.report_pictures >= 0, "from 0 on"),
            ("--prune", self.prune, 0 <= (self.prune or 0) <= 1, "from 0 to 1"),
            ("--max-error-share", self.max_error_share, 0 <= (self.max_error_share or 0) <= 1, "from 0 to 1"),
        ]
        for name, value, good, needed in checks:
            if not good:
                raise SettingsError(f"{name} {value}: needs a number {needed}.")
        if self.prune is not None and self.limit is not None:
            raise SettingsError("--prune with --limit: rows in units behind the limit would stay. Give one at a time.")
        for name, texts in (("--input", self.input), ("--output", (self.output,))):
            if not all(text.strip() for text in texts):
                raise SettingsError(f"{name}: is empty. An unset variable? Give `.` for the current folder.")
        refuse_lost("--output", self.output)
        self.levels()
        self.actor_range()

    def levels(self) -> tuple[float, ...] | Literal["adaptive"] | None:
        """The zooms that were asked for; None: none were. Raises SettingsError for what is no zoom."""
        if not self.zooms:
            return None
        if self.zooms == ("adaptive",):
            return "adaptive"
        try:
            levels = tuple(sorted({float(zoom) for text in self.zooms for zoom in text.split(",")}))
        except ValueError:
            levels = (0.0,)
        if not all(0 < zoom <= 8 for zoom in levels):
            raise SettingsError(f"--zooms {' '.join(self.zooms)}: give numbers above 0 and up to 8, or `adaptive`.")
        return levels

    def actor_range(self) -> tuple[int, int] | None:
        """How many detectors, least and most; None: as many as there is room for. Raises SettingsError."""
        if self.actors is None:
            return None
        low, _, high = self.actors.partition("..")
        try:
            smallest, largest = int(low), int(high or low)
        except ValueError:
            smallest = largest = 0
        if not 1 <= smallest <= largest:
            raise SettingsError(f"--actors {self.actors}: give a number from 1 on, as 4, or a range, as 2..16.")
        return smallest, largest


def refuse_lost(option: str, path: str) -> None:
    """Raises SettingsError for a relative path to write to in a submitted job."""
    is_relative = "://" not in path and not os.path.isabs(os.path.expanduser(path))
    if is_relative and "/runtime_resources/working_dir_files/" in os.getcwd():
        raise SettingsError(
            f"{option} {path}: under `ray job submit` a relative path lies in Ray's cache of the working folder and "
            "would be lost. Give an absolute path or a url."
        )


def refuse_unwritable(option: str, file: Path | None) -> None:
    """Raises OutputError for a file of the user's that cannot be made; told before the work that fills it."""
    if file is not None and not (file.parent.is_dir() and os.access(file.parent, os.W_OK)):
        raise OutputError(f"{option} {file}: its folder does not exist or cannot be written to.")


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
