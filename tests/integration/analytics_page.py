"""docs/analytics.md's blocks, taken out of the page, and how each engine is asked with them."""

from __future__ import annotations

import ast
import re
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import s3fs

from tests.integration.analytics_answers import Row
from tests.integration.job_runs import ROOT

PAGE = (ROOT / "docs" / "analytics.md").read_text()


def section(title: str, level: int) -> str:
    """What stands below a heading, up to the next of its level or above."""
    found = re.search(
        rf"^{'#' * level} {re.escape(title)}\n(.*?)(?=^#{{1,{level}}} |\Z)", PAGE, re.DOTALL | re.MULTILINE
    )
    assert found, f"docs/analytics.md has no heading {title!r}"
    return found.group(1)


def fence(text: str, language: str) -> str:
    """The one code block of this language."""
    (block,) = re.findall(rf"^```{language}\n(.*?)^```$", text, re.DOTALL | re.MULTILINE)
    return block


QUESTIONS = re.findall(r"^### (.+)$", section("Questions", 2), re.MULTILINE)


def opening(engine: str, language: str, where: str | Path) -> str:
    return fence(section(engine, 3), language).replace("OUT", str(where))


def ask_duckdb(connection: duckdb.DuckDBPyConnection, question: str) -> list[Row]:
    found = connection.execute(fence(section(question, 3), "sql"))
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def open_duckdb(where: str | Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    if str(where).startswith("s3://"):
        connection.register_filesystem(s3fs.S3FileSystem(skip_instance_cache=True))
    connection.execute(opening("DuckDB", "sql", where))
    return connection


def ask_polars(names: dict[str, Any], question: str) -> list[Row]:
    """What the last statement of the block gives, as a notebook shows it."""
    *before, last = ast.parse(fence(section(question, 3), "python")).body
    assert isinstance(last, ast.Expr), f"{question}: the block must end with its answer"
    names = dict(names)
    exec(compile(ast.Module(before, []), "analytics.md", "exec"), names)
    return eval(compile(ast.Expression(last.value), "analytics.md", "eval"), names).to_dicts()


def open_polars(where: str | Path) -> dict[str, Any]:
    names: dict[str, Any] = {}
    exec(opening("Polars", "python", where), names)
    return names


Ask = Callable[[str], list[Row]]
OPEN: dict[str, Callable[[str | Path], Ask]] = {
    "duckdb": lambda where: partial(ask_duckdb, open_duckdb(where)),
    "polars": lambda where: partial(ask_polars, open_polars(where)),
}


def ask_spark(spark: Any, question: str) -> list[Row]:
    return [row.asDict() for row in spark.sql(fence(section(question, 3), "sql").rstrip().rstrip(";")).collect()]
