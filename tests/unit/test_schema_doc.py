"""docs/schema.md says what the code says."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pytest

from tinyface_core.tables.schema import DETECTIONS_SCHEMA, images_schema
from tinyface_core.tables.schema_doc import render


def test_the_committed_page_is_the_rendered_one() -> None:
    page = Path(__file__).parents[2] / "docs" / "schema.md"
    assert page.read_text() == render(), "run `make docs`"


@pytest.mark.parametrize("schema", [images_schema(), DETECTIONS_SCHEMA])
def test_every_column_is_documented_and_rendered(schema: pa.Schema) -> None:
    text = render()
    for column in schema:
        assert len(column.metadata[b"doc"]) > 3
        assert f"| `{column.name}` |" in text
