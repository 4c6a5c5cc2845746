from __future__ import annotations

from pathlib import Path

import duckdb
import numpy as np
import pytest

from tests.report_sample import SamplePicture, write_unit
from tinyface_core.report.queries import queries_for
from tinyface_core.storage import Storage

FACES = np.array([[0, 0, 8, 10, 0.9], [0, 0, 30, 40, 0.9], [5, 5, 13, 15, 0.5]], np.float32)


@pytest.mark.parametrize("name", ["out", "it's here", "a [b] c*", "what?", "ünï 写"])
def test_each_query_answers_in_duckdb_whatever_the_folder_is_called(tmp_path: Path, name: str) -> None:
    folder = tmp_path / name
    good = SamplePicture("file:///in/1.jpg", boxes_K5=FACES)
    bad = SamplePicture("file:///in/2.jpg", error=("decode", "corrupt", "bad"))
    write_unit(folder, "a", [good, bad])
    write_unit(folder, "b", [SamplePicture("file:///in/x.tar", "3.jpg")])
    with duckdb.connect() as db:
        status, crowded, small = (
            db.sql(query.sql).fetchall() for query in queries_for(Storage().canonical(str(folder)))
        )
    assert sorted(status) == [("error", "corrupt", 1, 0), ("ok", None, 2, 3)]
    assert crowded[0] == (3, 53, 37, "file:///in/1.jpg", None)
    assert small == [("file:///in/1.jpg", None, 1, 10.0)]


def test_the_queries_work_on_an_output_without_faces(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [SamplePicture("file:///in/1.jpg")])
    with duckdb.connect() as db:
        answers = [db.sql(query.sql).fetchall() for query in queries_for(Storage().canonical(str(tmp_path)))]
    assert answers == [[("ok", None, 1, 0)], [(0, 53, 37, "file:///in/1.jpg", None)], []]


def test_s3_asks_for_the_extension_and_the_endpoint_without_its_password() -> None:
    setup, status, *_ = queries_for("s3://bucket/out", "http://me:hunter2@127.0.0.1:8333")
    assert "INSTALL httpfs" in setup.sql
    assert "ENDPOINT '127.0.0.1:8333', URL_STYLE 'path', USE_SSL false" in setup.sql
    assert "hunter2" not in setup.sql
    assert "FROM 's3://bucket/out/images/**/*.parquet'" in status.sql


def test_aws_itself_needs_no_endpoint() -> None:
    assert "ENDPOINT" not in queries_for("s3://bucket/out")[0].sql
