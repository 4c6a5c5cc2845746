"""How a process logs: lines for a person, or one JSON object a line; what a line is about; secrets stay out of it.

A job's driver calls `Logs.set_up`. Its workers get the same `Logs`, a small value, and call `Logs.take_over`. Knows
nothing of what is logged, and nothing of Ray but the names of its loggers.
"""

from __future__ import annotations

import logging
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from typing import Any, Literal

from pythonjsonlogger.json import JsonFormatter

Form = Literal["text", "json"]
Hide = Callable[[str], str]

_FIELDS = {"levelname": "level", "name": "logger", "exc_info": "exception", "stack_info": "stack"}
_NOISY = ("aiobotocore", "botocore", "pyiceberg")  # tell at INFO what they found where, again and again
_about: ContextVar[tuple[tuple[str, Any], ...]] = ContextVar("about", default=())
_hiding: list[Hide] = []


@dataclass(frozen=True)
class Logs:
    """How all processes of one run log. run: its id, in each JSON line."""

    form: Form = "text"
    run: str = ""

    def set_up(self) -> None:
        """The root logger of this process writes to stderr from INFO on; one that has handlers keeps them."""
        global _current
        _current = self
        handler = logging.StreamHandler()
        handler.setFormatter(self.formatter())
        handler.addFilter(_add_context)
        logging.basicConfig(level=logging.INFO, handlers=[handler])
        _quieten()
        logging.captureWarnings(True)

    def take_over(self, *loggers: str) -> None:
        """Where another library (Ray, in a worker) set up the streams of these loggers, and the root's, for lines:
        they get JSON lines as ours are. Nothing to do for text; twice is fine."""
        global _current
        _current = self
        if self.form == "text":
            return
        for handler in {handler for name in ("", *loggers) for handler in logging.getLogger(name).handlers}:
            ours = isinstance(handler.formatter, _JsonLines) and handler.formatter.run == self.run
            if _writes_to_a_stream(handler) and not ours:
                handler.setFormatter(self.formatter())
                handler.addFilter(_add_context)
        _quieten()

    def formatter(self) -> logging.Formatter:
        """Of this form."""
        return _JsonLines(self.run) if self.form == "json" else _TextLines()


_current = Logs()


def current() -> Logs:
    """As this process was set up last; plain text before."""
    return _current


def new_run_id() -> str:
    """16 hex digits that no other run has."""
    return uuid.uuid4().hex[:16]


def hide_by(hide: Hide) -> None:
    """From now on this process logs no text that `hide` has not seen."""
    _hiding.append(hide)


@contextmanager
def about(**what: str | int) -> Iterator[None]:
    """JSON lines that are logged inside, in this thread, have these fields too, as `unit` and `index`."""
    token = _about.set((*_about.get(), *what.items()))
    try:
        yield
    finally:
        _about.reset(token)


def _add_context(record: logging.LogRecord) -> bool:
    for name, value in _about.get():
        setattr(record, name, value)
    return True


def _hidden(text: str) -> str:
    for hide in _hiding:
        text = hide(text)
    return text


def _writes_to_a_stream(handler: logging.Handler) -> bool:
    """To stderr or stdout; what goes to files of a library's own stays as it has it."""
    return isinstance(handler, logging.StreamHandler) and not isinstance(handler, logging.FileHandler)


def _quieten() -> None:
    for name in _NOISY:
        logging.getLogger(name).setLevel(logging.WARNING)


class _TextLines(logging.Formatter):
    def __init__(self) -> None:
        super().__init__("%(asctime)s %(levelname)s %(message)s", datefmt="%H:%M:%S")

    def format(self, record: logging.LogRecord) -> str:
        return _hidden(super().format(record))


class _JsonLines(JsonFormatter):
    """time (RFC 3339, UTC), level, logger, message, run; what the line is about; exception, where there is one."""

    def __init__(self, run: str) -> None:
        super().__init__(
            ["levelname", "name", "message"],
            rename_fields=_FIELDS,
            static_fields={"run": run} if run else {},
            timestamp="time",
        )
        self.run = run

    def process_log_record(self, log_data: dict[str, Any]) -> dict[str, Any]:
        shown = {name: _hidden(value) if isinstance(value, str) else value for name, value in log_data.items()}
        return {"time": shown.pop("time", None), **shown}
