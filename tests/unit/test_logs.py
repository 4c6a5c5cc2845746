"""Lines of a log: for a person, and as JSON for machines."""

from __future__ import annotations

import io
import json
import logging
from collections.abc import Iterator
from contextlib import contextmanager
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from tinyface_core import logs
from tinyface_core.logs import Logs, about, current, hide_by, new_run_id
from tinyface_core.stores.base import StorageOptions


class Told:
    """A logger of one test, whose lines go into a text."""

    def __init__(self, form: logs.Form) -> None:
        self._stream = io.StringIO()
        handler = logging.StreamHandler(self._stream)
        handler.setFormatter(Logs(form, "r1").formatter())
        handler.addFilter(logs._add_context)
        self.log = logging.Logger("tinyface_core.detect")
        self.log.addHandler(handler)

    @property
    def text(self) -> str:
        return self._stream.getvalue()

    @property
    def line(self) -> dict[str, Any]:
        """The only one."""
        (line,) = self.text.splitlines()
        return json.loads(line)


@pytest.fixture(autouse=True)
def _nothing_hidden(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(logs, "_hiding", [])


@contextmanager
def root_with(*handlers: logging.Handler) -> Iterator[None]:
    """The root logger with these and no others, as a library may have left it."""
    root = logging.getLogger()
    before, level, set_up = root.handlers[:], root.level, logs._current
    root.handlers[:] = handlers
    try:
        yield
    finally:
        root.handlers[:], logs._current = before, set_up
        root.setLevel(level)


def test_a_json_line_says_when_what_and_in_which_run() -> None:
    told = Told("json")
    told.log.warning("%s of %d", "three", 4)
    line = told.line
    assert next(iter(line)) == "time"
    assert abs(datetime.fromisoformat(line.pop("time")) - datetime.now(UTC)) < timedelta(minutes=1)
    assert line == {"level": "WARNING", "logger": "tinyface_core.detect", "message": "three of 4", "run": "r1"}


def test_what_a_line_is_about_is_told_of_lines_inside_and_of_no_others() -> None:
    told = Told("json")
    with about(unit="u7"):
        with about(index=3):
            told.log.warning("inner")
        told.log.warning("outer", extra={"exit_code": 1})
    told.log.warning("after")
    found = [json.loads(line) for line in told.text.splitlines()]
    assert [(line.get("unit"), line.get("index"), line.get("exit_code")) for line in found] == [
        ("u7", 3, None),
        ("u7", None, 1),
        (None, None, None),
    ]


def test_an_exception_stays_in_its_line() -> None:
    told = Told("json")
    try:
        raise RuntimeError("no luck")
    except RuntimeError:
        told.log.exception("failed")
    line = told.line
    assert line["message"] == "failed"
    assert line["exception"].splitlines()[-1] == "RuntimeError: no luck"
    assert "exc_info" not in line


@pytest.mark.parametrize("form", ["text", "json"])
def test_secrets_stay_out_of_messages_and_exceptions(form: logs.Form) -> None:
    told = Told(form)
    hide_by(StorageOptions(extra=(("secret", 'pa"ss'), ("requester_pays", "true"))).hide)
    try:
        raise ValueError('sent with pa"ss')
    except ValueError:
        told.log.exception('s3://user:word@host/key?X-Amz-Signature=c0ffee with pa"ss is true')
    for secret in ('pa"ss', 'pa\\"ss', "user:word", "c0ffee"):
        assert secret not in told.text
    assert "*** is true" in told.text


def test_a_text_line_is_as_it_always_was() -> None:
    told = Told("text")
    with about(unit="u7"):
        told.log.info("done")
    assert told.text[8:] == " INFO done\n"


def test_a_worker_takes_over_the_streams_that_ray_set_up_once() -> None:
    handler = logging.StreamHandler(stream := io.StringIO())
    with root_with(handler):
        for _ in range(2):
            Logs("json", "r2").take_over()
        assert current() == Logs("json", "r2")
        with about(unit="u1"):
            logging.getLogger("tinyface_core.x").warning("from a worker")
    line = json.loads(stream.getvalue())
    assert (line["message"], line["run"], line["unit"]) == ("from a worker", "r2", "u1")
    assert len(handler.filters) == 1


def test_text_takes_nothing_over() -> None:
    with root_with(logging.StreamHandler(io.StringIO())):
        Logs("text", "r2").take_over()
        assert logging.getLogger().handlers[0].formatter is None


def test_a_process_is_set_up_to_write_to_stderr(capsys: pytest.CaptureFixture[str]) -> None:
    with root_with():
        Logs("json", "r3").set_up()
        logging.getLogger("any").info("hello")
        logging.getLogger("aiobotocore.credentials").info("Found credentials")
    logging.captureWarnings(False)
    (line,) = capsys.readouterr().err.splitlines()
    assert json.loads(line)["message"] == "hello"


def test_each_run_has_an_id_of_its_own() -> None:
    assert len({new_run_id() for _ in range(100)}) == 100
    assert len(new_run_id()) == 16
