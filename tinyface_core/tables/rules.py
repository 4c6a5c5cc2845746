"""What must be true of each row of the two tables, as SQL conditions that are true for a *wrong* row.

Knows columns and their meaning; does not know files or units. `$unit` and `$commit` are those of the file. The order
of rows, and how the two tables fit together, is not said here but in `validate.py`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

import duckdb
import numpy as np
import pyarrow as pa

from tinyface_core.errors import ErrorClass, Stage

TEMPLATES = 25
_ELLIPSE_SOURCES = ("regressed_features", "regressed_box", "inscribed")
_ELLIPSE = tuple(f"ellipse_{name}" for name in ("cx", "cy", "major", "minor", "angle"))
_FLOATS = ("x1", "y1", "x2", "y2", "score", "zoom", *_ELLIPSE)


def _one_of(column: str, values: tuple[str, ...]) -> str:
    return f"coalesce({column}, '') NOT IN ({', '.join(repr(str(value)) for value in values)})"


def _any_null(*columns: str) -> str:
    return " OR ".join(f"{column} IS NULL" for column in columns)


def _any_set(*columns: str) -> str:
    return " OR ".join(f"{column} IS NOT NULL" for column in columns)


@dataclass(frozen=True)
class Rule:
    """check: what is wrong, as a report names it. wrong: SQL, true for a wrong row. show: SQL, said with an example."""

    check: str
    wrong: str
    show: str


IMAGE_RULES = (
    Rule("image_id is no 128-bit hex", "NOT regexp_full_match(image_id, '[0-9a-f]{32}')", "image_id"),
    Rule("unit is not the file's", "unit <> $unit", "unit"),
    Rule("commit is not the file's", "commit <> $commit", "commit"),
    Rule("uri is not absolute", "NOT regexp_matches(uri, '^[a-z0-9]+://.')", "uri"),
    Rule("status is neither ok nor error", _one_of("status", ("ok", "error")), "status"),
    Rule("num_faces is negative", "num_faces < 0", "num_faces"),
    Rule("sha256 is no 256-bit hex", "sha256 IS NOT NULL AND NOT regexp_full_match(sha256, '[0-9a-f]{64}')", "sha256"),
    Rule(
        "an ok row lacks what a decoded picture has",
        f"status = 'ok' AND ({_any_null('size_bytes', 'sha256', 'format', 'zooms', 'min_face_px')})",
        "concat_ws(' ', size_bytes, sha256, format, zooms, min_face_px)",
    ),
    Rule(
        "an ok row has no size",
        "status = 'ok' AND (coalesce(width, 0) < 1 OR coalesce(height, 0) < 1)",
        "concat(width, ' x ', height)",
    ),
    Rule(
        "exif_orientation is not 1 to 8",
        "coalesce(exif_orientation, if(status = 'ok', 0, 1)) NOT BETWEEN 1 AND 8",
        "exif_orientation",
    ),
    Rule(
        "an ok row has an error",
        f"status = 'ok' AND ({_any_set('error_stage', 'error_class', 'error_message')})",
        "concat_ws(' ', error_stage, error_class, error_message)",
    ),
    Rule("an error row has faces", "status = 'error' AND num_faces <> 0", "num_faces"),
    Rule(
        "an error row has what only a decoded picture has",
        f"status = 'error' AND ({_any_set('width', 'height', 'zooms', 'min_face_px')})",
        "concat_ws(' ', width, height, zooms, min_face_px)",
    ),
    Rule(
        "error_stage is not in the list", f"status = 'error' AND {_one_of('error_stage', tuple(Stage))}", "error_stage"
    ),
    Rule(
        "error_class is not in the list",
        f"status = 'error' AND {_one_of('error_class', tuple(ErrorClass))}",
        "error_class",
    ),
    Rule("an error row has no message", "status = 'error' AND error_message IS NULL", "error_class"),
)

FACE_RULES = (
    Rule("commit is not the file's", "commit <> $commit", "commit"),
    Rule(
        "a number is not finite",
        f"NOT ({' AND '.join(f'isfinite({column})' for column in _FLOATS)})",
        f"concat_ws(' ', {', '.join(_FLOATS)})",
    ),
    Rule("an empty box", "x2 <= x1 OR y2 <= y1", "concat_ws(' ', x1, y1, x2, y2)"),
    Rule("score is not in 0..1", "score < 0 OR score > 1", "score"),
    Rule(f"template is not 0 to {TEMPLATES - 1}", f"template NOT BETWEEN 0 AND {TEMPLATES - 1}", "template"),
    Rule(
        "ellipse_angle is not in [0, pi)",
        f"ellipse_angle < 0 OR ellipse_angle::DOUBLE >= {math.pi!r}",
        "ellipse_angle",
    ),
    Rule(
        "ellipse_major < ellipse_minor, or an axis is not positive",
        "ellipse_major < ellipse_minor OR ellipse_minor <= 0",
        "concat_ws(' ', ellipse_major, ellipse_minor)",
    ),
    Rule("ellipse_source is not in the list", _one_of("ellipse_source", _ELLIPSE_SOURCES), "ellipse_source"),
)

# These see each face beside its picture, whose columns are called picture_*.
FACE_IN_PICTURE_RULES = (
    Rule(
        "a box reaches out of its picture",
        "x1 < 0 OR y1 < 0 OR x2 > picture_width OR y2 > picture_height",
        "concat_ws(' ', x1, y1, x2, y2, 'in', picture_width, 'x', picture_height)",
    ),
    Rule(
        "zoom is not one of the picture's zooms",
        "NOT coalesce(list_contains(picture_zooms, zoom), false)",
        "concat_ws(' ', zoom, 'of', picture_zooms)",
    ),
)


@dataclass(frozen=True)
class Finding:
    """One check that `count` rows of one table fail; `example` names one of them."""

    check: str
    count: int
    example: str


def broken(
    connection: duckdb.DuckDBPyConnection, rows: pa.Table, rules: tuple[Rule, ...], values: dict[str, str]
) -> list[Finding]:
    """The rules that some row of `rows` breaks. values: what `$unit` and `$commit` stand for."""
    if len(rows) == 0:
        return []
    connection.register("rows", _without_dictionaries(rows))
    counts = ", ".join(f"count(*) FILTER ({rule.wrong})" for rule in rules)
    used = {name: value for name, value in values.items() if f"${name}" in counts}
    findings = []
    for rule, count in zip(
        rules, connection.execute(f"SELECT {counts} FROM rows", used or None).fetchall()[0], strict=True
    ):
        if count:
            used = {name: value for name, value in values.items() if f"${name}" in rule.wrong}
            example = f"SELECT min(concat(image_id, ': ', {rule.show})) FROM rows WHERE {rule.wrong}"
            findings.append(Finding(rule.check, count, connection.execute(example, used or None).fetchall()[0][0]))
    connection.unregister("rows")
    return findings


def out_of_order(images: pa.Table) -> list[int]:
    """Rows of an images table that come before the row above them, by (uri, member), names by their bytes."""
    uri_N = np.array([value.encode() for value in images["uri"].to_pylist()], dtype=object)
    member_N = np.array([(value or "").encode() for value in images["member"].to_pylist()], dtype=object)
    if len(uri_N) < 2:
        return []
    falls = (uri_N[1:] < uri_N[:-1]) | ((uri_N[1:] == uri_N[:-1]) & (member_N[1:] < member_N[:-1]))
    return [int(row) + 1 for row in np.flatnonzero(falls.astype(bool))]


def _without_dictionaries(rows: pa.Table) -> pa.Table:
    """DuckDB makes an enum of a dictionary, which cannot be compared with a value that it lacks."""
    plain = [
        pa.field(field.name, field.type.value_type) if pa.types.is_dictionary(field.type) else field
        for field in rows.schema
    ]
    return rows.cast(pa.schema(plain))
