"""Between the values of the core (records, pictures, detections) and the Arrow rows that travel between stages.

Knows the schemas of `schema.py` and builds every column with its declared type: nothing is inferred. Does not know
where rows go, how units are collected, or what a file looks like.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from tinyface_core.archive.record import Record, UnitEnd
from tinyface_core.detect.detections import Detections
from tinyface_core.detect.ellipse import Ellipses, inscribed
from tinyface_core.errors import ErrorClass, InputError, PictureError, Stage
from tinyface_core.picture.magic import format_of
from tinyface_core.picture.picture import Picture
from tinyface_core.tables.schema import CARRIED_PREFIX, record_schema, row_schema

MESSAGE_CHARACTERS = 500  # a decoder's message may quote its whole input

_FROM_RECORD: dict[str, Callable[[Record], Any]] = {
    "index": lambda record: record.index,
    "image_id": lambda record: record.image_id,
    "uri": lambda record: record.uri,
    "member": lambda record: record.member,
    "size_bytes": lambda record: record.size_bytes,
    "sha256": lambda record: record.sha256,
    "source_version": lambda record: record.source_version,
    "source_modified": lambda record: record.source_modified,
    "error_stage": lambda record: record.error.stage.value if record.error else None,
    "error_class": lambda record: record.error.error_class.value if record.error else None,
    "error_message": lambda record: _short(record.error.message) if record.error else None,
    "data": lambda record: record.data,
}


def records_table(unit_name: str, records: Sequence[Record | UnitEnd], carried: Iterable[pa.Field] = ()) -> pa.Table:
    """Rows of `record_schema(carried)`, one a value, in order; a UnitEnd becomes a row of kind "end", index -1.

    Raises:
        InputError: a carried value that its column's type cannot hold.
    """
    schema = record_schema(carried)
    columns = []
    for field in schema:
        if field.name.startswith(CARRIED_PREFIX):
            columns.append(_carried_column(field, records))
        else:
            columns.append(_array([_record_value(field.name, unit_name, record) for record in records], field.type))
    return pa.Table.from_arrays(columns, schema=schema)


def stop_table(unit_name: str, message: str, schema: pa.Schema) -> pa.Table:
    """One row of kind "stop", of `record_schema` or `row_schema`: the run must end, and why."""
    values = {"unit": unit_name, "kind": "stop", "index": -1, "error_message": _short(message)}
    columns = [_array([values.get(field.name)], field.type) for field in schema]
    return pa.Table.from_arrays(columns, schema=schema)


def _record_value(name: str, unit_name: str, record: Record | UnitEnd) -> Any:
    if name == "unit":
        return unit_name
    if isinstance(record, UnitEnd):
        return {
            "kind": "end",
            "index": -1,
            "count": record.count,
            "skipped": json.dumps(record.skipped, sort_keys=True),
        }.get(name)
    if name == "kind":
        return "record"
    return _FROM_RECORD[name](record) if name in _FROM_RECORD else None


def _carried_column(field: pa.Field, records: Sequence[Record | UnitEnd]) -> pa.Array:
    name = field.name.removeprefix(CARRIED_PREFIX)
    values = [record.carried.get(name) if isinstance(record, Record) else None for record in records]
    try:
        return _array(values, field.type)
    except (pa.ArrowException, TypeError, ValueError, OverflowError) as error:
        raise InputError(
            f"--carry {name}: a value does not fit the column's type {field.type}: {error}. "
            "Give the column one type in all manifests, or leave it out."
        ) from error


def _array(values: list[Any], kind: pa.DataType) -> pa.Array:
    try:
        return pa.array(values, type=kind)
    except UnicodeEncodeError:  # half a surrogate pair, as in a name that was not UTF-8
        return pa.array([shown_text(value) if isinstance(value, str) else value for value in values], type=kind)


def shown_text(text: str) -> str:
    """`text` with what UTF-8 cannot hold spelled out: a raw byte as \\xNN, other lone surrogates as \\uNNNN."""
    try:
        return text.encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    except UnicodeEncodeError:
        return text.encode("utf-8", "backslashreplace").decode()


def _short(message: str) -> str:
    return message if len(message) <= MESSAGE_CHARACTERS else message[: MESSAGE_CHARACTERS - 1] + "…"


@dataclass(frozen=True)
class _Outcome:
    """What became of one picture; holds no pixels, so that these may go while a batch is still worked."""

    format: str | None
    size_hw: tuple[int, int] | None = None
    exif_orientation: int | None = None
    taken_at: datetime | None = None
    detections: Detections | None = None
    error: PictureError | None = None
    detect_s: float | None = None


_PICTURE_COLUMNS: dict[str, Callable[[_Outcome], Any]] = {
    "taken_at": lambda outcome: outcome.taken_at,
    "format": lambda outcome: outcome.format,
    "width": lambda outcome: outcome.size_hw[1] if outcome.size_hw else None,
    "height": lambda outcome: outcome.size_hw[0] if outcome.size_hw else None,
    "exif_orientation": lambda outcome: outcome.exif_orientation,
    "status": lambda outcome: "error" if outcome.error else "ok",
    "error_stage": lambda outcome: outcome.error.stage.value if outcome.error else None,
    "error_class": lambda outcome: outcome.error.error_class.value if outcome.error else None,
    "error_message": lambda outcome: _short(outcome.error.message) if outcome.error else None,
    "num_faces": lambda outcome: len(outcome.detections) if outcome.detections is not None else 0,
    "zooms": lambda outcome: outcome.detections.zooms if outcome.detections is not None else None,
    "min_face_px": lambda outcome: outcome.detections.min_face_px if outcome.detections is not None else None,
    "detect_s": lambda outcome: outcome.detect_s,
}


class RowBuilder:
    """Turns one table of records into the table of their rows, as the pictures' outcomes come in, in any order.

    Rows that failed in reading, and those of kind "end" and "stop", need no outcome. A record with data whose
    outcome was never added is left out of the result: the unit is then not whole and settling tries it again.
    """

    def __init__(self, records: pa.Table, carried: Iterable[pa.Field] = ()) -> None:
        """records: of `record_schema(carried)`, rows of any units."""
        self._records = records
        self._schema = row_schema(carried)
        self._kinds: list[str] = records["kind"].to_pylist()
        self._read = records["data"].is_valid().to_pylist()
        self._outcomes: dict[int, _Outcome] = {}
        errors = (records[name].to_pylist() for name in ("error_stage", "error_class", "error_message"))
        for row, error in enumerate(zip(*errors, strict=True)):
            if self._kinds[row] == "record" and not self._read[row]:
                self._outcomes[row] = _Outcome(None, error=_read_error(*error))

    def encoded(self) -> Iterator[tuple[int, bytes]]:
        """(row, encoded bytes) of the records that need an outcome, in order."""
        for row, read in enumerate(self._read):
            if read:
                yield row, self._records["data"][row].as_py()

    def add(
        self,
        row: int,
        picture: Picture | PictureError,
        detections: Detections | PictureError | None = None,
        detect_s: float | None = None,
    ) -> None:
        """The outcome of `row`.

        Args:
            row: as `encoded` gave it.
            picture: a Picture, or the PictureError of decoding. Its pixels are not kept.
            detections: needed with a Picture; a PictureError where detection failed. detect_s: what they took.
        """
        if isinstance(picture, PictureError):
            told = format_of(self._records["data"][row].as_py())
            self._outcomes[row] = _Outcome(told if isinstance(told, str) else None, error=picture)
        elif isinstance(detections, PictureError):
            self._outcomes[row] = _Outcome(picture.format, error=detections, detect_s=detect_s)
        elif detections is None:
            raise ValueError(f"row {row}: a decoded picture needs its detections, or the error that took their place")
        else:
            size_hw, exif = (picture.height, picture.width), picture.exif_orientation
            self._outcomes[row] = _Outcome(
                picture.format, size_hw, exif, picture.taken_at, detections, detect_s=detect_s
            )

    def table(self) -> pa.Table:
        """Rows of `row_schema(carried)`, in the order of the records."""
        kept = [row for row, kind in enumerate(self._kinds) if kind != "record" or row in self._outcomes]
        outcomes = [self._outcomes.get(row) for row in kept]
        given = self._records.drop_columns(["data"])
        if len(kept) < len(self._kinds):
            given = given.take(pa.array(kept, pa.int64()))
        columns = []
        for field in self._schema:
            if field.name == "faces":
                columns.append(_faces_column(outcomes, field.type))
            elif field.name in _PICTURE_COLUMNS:
                column = _outcome_column(field, outcomes)
                # The message of a "stop" row stands in the same column.
                columns.append(pc.coalesce(column, given[field.name]) if field.name in given.column_names else column)
            else:
                columns.append(given[field.name])
        return pa.Table.from_arrays(columns, schema=self._schema)


def _read_error(stage: str | None, error_class: str | None, message: str | None) -> PictureError:
    if stage is None or error_class is None:
        return PictureError(Stage.READ, ErrorClass.INTERNAL, "the reader gave neither bytes nor a reason")
    return PictureError(Stage(stage), ErrorClass(error_class), message or "")


def _outcome_column(field: pa.Field, outcomes: list[_Outcome | None]) -> pa.Array:
    value = _PICTURE_COLUMNS[field.name]
    return _array([value(outcome) if outcome else None for outcome in outcomes], field.type)


def _faces_column(outcomes: list[_Outcome | None], kind: pa.DataType) -> pa.Array:
    """list<struct> of all faces, null where there is no picture; built from whole arrays, not face by face."""
    # "is not None" everywhere: Detections without faces are false.
    each_N = [outcome.detections if outcome is not None else None for outcome in outcomes]
    found = [detections for detections in each_N if detections is not None]
    lengths = [len(detections) if detections is not None else 0 for detections in each_N]
    boxes_K4 = np.concatenate([np.empty((0, 4), np.float32), *(each.boxes_K4 for each in found)])
    ellipses = Ellipses.joined([each.ellipses or inscribed(each.boxes_K4) for each in found])
    sources = ["inscribed" if each.ellipses is None else "regressed_features" for each in found]
    by_name = {
        **dict(zip(("x1", "y1", "x2", "y2"), np.ascontiguousarray(boxes_K4.T), strict=True)),
        "score": np.concatenate([np.empty(0, np.float32), *(each.scores_K for each in found)]),
        "template": np.concatenate([np.empty(0, np.int8), *(each.template_K for each in found)]),
        "zoom": np.concatenate([np.empty(0, np.float32), *(each.zoom_K for each in found)]),
        "ellipse_cx": ellipses.cx_K,
        "ellipse_cy": ellipses.cy_K,
        "ellipse_major": ellipses.major_K,
        "ellipse_minor": ellipses.minor_K,
        "ellipse_angle": ellipses.angle_K,
        "ellipse_source": np.repeat(np.array(sources, object), [len(each) for each in found]),
    }
    fields = [kind.value_type.field(position) for position in range(kind.value_type.num_fields)]
    arrays = [pa.array(by_name[field.name], type=field.type) for field in fields]
    faces = pa.StructArray.from_arrays(arrays, fields=fields)
    offsets = pa.array(np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32))
    missing = pa.array([outcome is None for outcome in outcomes], pa.bool_())
    return pa.ListArray.from_arrays(offsets, faces, type=kind, mask=missing)
