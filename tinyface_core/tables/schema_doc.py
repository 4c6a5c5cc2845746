"""Renders docs/schema.md from `schema.py`: `python -m tinyface_core.tables.schema_doc > docs/schema.md`.

Knows how a schema reads as Markdown; every word about a column is in the schema itself.
"""

from __future__ import annotations

import sys

import pyarrow as pa

from tinyface_core.archive.record import Part
from tinyface_core.tables.footer import Footer
from tinyface_core.tables.format_version import FORMAT_VERSION
from tinyface_core.tables.schema import DETECTIONS_SCHEMA, images_schema
from tinyface_core.tables.unit_tables import UnitTotals

_HEAD = f"""\
# The tables

Rendered from `tinyface_core/tables/schema.py` by `make docs`; edit it there. Format version {FORMAT_VERSION}.

Coordinates are continuous pixels of the upright (EXIF-corrected) picture. The origin is the top-left corner of the
top-left pixel, x points right, y points down, width = x2 - x1. Unknown is null in every column that may be null.
"""

_IMAGES = """\
## `images`: one row a picture

Every candidate of the input has one row, also when it could not be read: then `status` is `error` and `num_faces`
is 0. Sorted by (`uri`, `member`) within a file. Columns named by `--carry` follow, with the types of the input.
"""

_DETECTIONS = """\
## `detections`: one row a face

Rows of one picture stand together, best score first, in the order of the pictures. Join with `images` on `image_id`
when `_SUCCESS` is there, and `USING (image_id, commit)` at any time.
"""

_FILES = """\
## Files

`images/part-<unit>.parquet` and `detections/part-<unit>-<commit>.parquet`: Parquet, zstd, with page checksums. Names
with a leading `_` are not data. Key-value metadata of each file (DuckDB: `parquet_kv_metadata`):
"""

_METADATA = {
    "format_version": "of these tables",
    "unit": "as in the column",
    "commit": "as in the column; names the detections file of the unit",
    "settings_hash": "of all settings that decide what is found",
    "model_hash": "of the checkpoint",
    "sources_hash": "images only: of what the unit was read from, with versions",
    "pictures": "images only: rows of images",
    "faces": "images only: rows of detections",
    "errors": "images only: error rows by class, as JSON",
    "skipped": "images only: files and members that are no candidates, by extension, as JSON",
    "failed": "images of an archive only: which of the unit's records are error rows, as JSON: their indexes, and from "
    "where on the archive could not be read",
    "check": "a sum over the other values",
}


def render() -> str:
    """docs/schema.md."""
    parts = [_HEAD, _IMAGES, _columns(images_schema()), _DETECTIONS, _columns(DETECTIONS_SCHEMA), _FILES, _metadata()]
    return "\n".join(parts)


def _columns(schema: pa.Schema) -> str:
    rows = [
        f"| `{column.name}` | {_type(column.type)} | {'' if not column.nullable else 'yes'} | {_doc(column)} |"
        for column in schema
    ]
    return "\n".join(["| column | type | null | |", "|---|---|---|---|", *rows]) + "\n"


def _type(kind: pa.DataType) -> str:
    if pa.types.is_dictionary(kind):
        return f"{kind.value_type} (dictionary)"
    if pa.types.is_list(kind):
        return f"list of {_type(kind.value_type)}"
    return {"float": "float32", "timestamp[us]": "timestamp[us], no zone"}.get(str(kind), str(kind))


def _doc(column: pa.Field) -> str:
    return str(column.metadata[b"doc"].decode()).replace("|", "\\|")


def _metadata() -> str:
    written = Footer("", "", "", "", sources_hash="", totals=UnitTotals(), failed=Part()).metadata()
    rows = [f"| `{key}` | {_METADATA[key.removeprefix('tinyface.')]} |" for key in written]
    return "\n".join(["| key | |", "|---|---|", *rows]) + "\n"


if __name__ == "__main__":
    sys.stdout.write(render())
