"""The Arrow schemas: the two tables that users query, and the rows that travel between the job's stages.

Schemas are constants, never inferred. The column documentation is written here, in each field's metadata, and
rendered to docs/schema.md. Coordinates are continuous pixels of the upright (EXIF-corrected) picture, origin at
the top-left corner of the top-left pixel; width = x2 - x1. Unknown is null.
"""

from __future__ import annotations

from collections.abc import Iterable

import pyarrow as pa

from tinyface_core.errors import SettingsError

CARRIED_PREFIX = "carried."  # between the stages only: a carried column may be called `index` or `data`

_dictionary = pa.dictionary(pa.int32(), pa.string())
_instant = pa.timestamp("us", tz="UTC")


def _field(name: str, kind: pa.DataType, doc: str, *, required: bool = False) -> pa.Field:
    return pa.field(name, kind, nullable=not required, metadata={"doc": doc})


_PICTURE_FIELDS = [
    _field(
        "image_id", pa.string(), "hex of blake2b-128 over uri, NUL, raw member bytes, NUL, occurrence", required=True
    ),
    _field("uri", pa.string(), "the object, absolute and not percent-encoded", required=True),
    _field("member", pa.string(), "name inside the archive; null for a loose picture; bad UTF-8 shown as \\xNN"),
    _field("size_bytes", pa.int64(), "encoded bytes of the picture"),
    _field("sha256", pa.string(), "hex, of the encoded bytes"),
    _field("source_version", pa.string(), "ETag of the object, else mtime and size"),
    _field("source_modified", _instant, "last modification of the object"),
    _field("taken_at", pa.timestamp("us"), "EXIF time, without zone"),
    _field(
        "format",
        _dictionary,
        "jpeg, png, webp, tiff, bmp, gif, heic, avif; by the first bytes, also where decoding failed",
    ),
    _field("width", pa.int32(), "px, upright"),
    _field("height", pa.int32(), "px, upright"),
    _field("exif_orientation", pa.int8(), "1..8 as found; 1 when absent"),
    _field("status", _dictionary, "ok or error", required=True),
    _field("error_stage", _dictionary, "read, archive, decode or detect"),
    _field("error_class", _dictionary, "see docs/guarantees.md for the closed list"),
    _field("error_message", pa.string(), "one sentence for a person"),
    _field("num_faces", pa.int32(), "rows of this picture in detections; 0 in error rows", required=True),
    _field("zooms", pa.list_(pa.float32()), "pyramid levels that were run"),
    _field("min_face_px", pa.float32(), "height of the smallest face that these levels and templates can find"),
]

_COMMIT_FIELDS = [
    _field("unit", pa.string(), "the unit of work that this picture was committed with", required=True),
    _field("commit", pa.string(), "hash of the unit's rows in both tables", required=True),
]

_FACE_FIELDS = [
    _field("x1", pa.float32(), "left, px", required=True),
    _field("y1", pa.float32(), "top, px", required=True),
    _field("x2", pa.float32(), "right, px", required=True),
    _field("y2", pa.float32(), "bottom, px", required=True),
    _field("score", pa.float32(), "confidence, 0..1", required=True),
    _field("template", pa.int8(), "0-based index into the model's 25 templates", required=True),
    _field("zoom", pa.float32(), "pyramid level that found it; 2 = the picture enlarged twice", required=True),
    _field("ellipse_cx", pa.float32(), "centre, px", required=True),
    _field("ellipse_cy", pa.float32(), "centre, px", required=True),
    _field("ellipse_major", pa.float32(), "longer half axis, px", required=True),
    _field("ellipse_minor", pa.float32(), "shorter half axis, px", required=True),
    _field(
        "ellipse_angle",
        pa.float32(),
        "radians of the major axis in [0, pi), from +x towards +y (down); upright = pi/2",
        required=True,
    ),
    _field(
        "ellipse_source",
        _dictionary,
        "regressed_features (by the checkpoint's regressor; may reach past the edge), "
        "regressed_box, or inscribed (in the clipped box)",
        required=True,
    ),
]

DETECTIONS_SCHEMA = pa.schema([_PICTURE_FIELDS[0], _COMMIT_FIELDS[1], *_FACE_FIELDS])


def images_schema(carried: Iterable[pa.Field] = ()) -> pa.Schema:
    """Schema of the images table; `carried` are the columns that `--carry` names, last, and may be null.

    Raises:
        SettingsError: a carried column has the name of another one. Case does not count: SQL does not see it.
    """
    own = [*_PICTURE_FIELDS, *_COMMIT_FIELDS]
    taken = {field.name.lower() for field in own}
    columns = [pa.field(field.name, _value_type(field.type)) for field in carried]
    for column in columns:
        if column.name.lower() in taken:
            raise SettingsError(f"--carry {column.name}: the images table has such a column already: rename it there")
        taken.add(column.name.lower())
    return pa.schema([*own, *columns])


def _value_type(kind: pa.DataType) -> pa.DataType:
    return kind.value_type if pa.types.is_dictionary(kind) else kind


# Between the stages. kind: "record" (one candidate), "end" (the unit is read: count, skipped as JSON) or
# "stop" (the run must end: error_message).

_ENVELOPE_FIELDS = [
    pa.field("unit", pa.string(), nullable=False),
    pa.field("kind", pa.string(), nullable=False),
    pa.field("index", pa.int32(), nullable=False),
    pa.field("count", pa.int32()),
    pa.field("skipped", pa.string()),
]


def _plain(field: pa.Field) -> pa.Field:
    """Dictionaries are made when a table is written; between stages they would only cost."""
    return pa.field(field.name, _value_type(field.type))


def _travelling(carried: Iterable[pa.Field]) -> list[pa.Field]:
    return [pa.field(CARRIED_PREFIX + field.name, _value_type(field.type)) for field in carried]


def record_schema(carried: Iterable[pa.Field] = ()) -> pa.Schema:
    """What reading gives: encoded bytes, or why not."""
    names = {"image_id", "uri", "member", "size_bytes", "sha256", "source_version", "source_modified"}
    names |= {"error_stage", "error_class", "error_message"}
    picture = [_plain(field) for field in _PICTURE_FIELDS if field.name in names]
    return pa.schema([*_ENVELOPE_FIELDS, *picture, pa.field("data", pa.large_binary()), *_travelling(carried)])


def row_schema(carried: Iterable[pa.Field] = ()) -> pa.Schema:
    """What detection gives: one row a picture, its faces as a nested list (null except in kind "record").

    detect_s: seconds that the detector took for it; for the run's summary, in no table.
    """
    faces = pa.list_(pa.struct([_plain(field) for field in _FACE_FIELDS]))
    picture = map(_plain, _PICTURE_FIELDS)
    own = [pa.field("detect_s", pa.float32()), pa.field("faces", faces)]
    return pa.schema([*_ENVELOPE_FIELDS, *picture, *own, *_travelling(carried)])
