"""Every query of docs/analytics.md, taken out of the page and run on the output of a real run of the job.

The model is a bundled one. Each answer is held against `analytics_answers.py`; what the input alone
decides (days, copies, errors) is told here by number.
"""

from __future__ import annotations

import shutil
from collections import Counter
from collections.abc import Callable, Iterator
from datetime import date
from pathlib import Path
from typing import Any

import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.analytics_answers import ANSWERS, Row, Truth, total
from tests.integration.analytics_input import (
    CARRIED_TWINS,
    as_left_by_a_killed_redo,
    as_partitioned,
    roll_of,
    write_input,
)
from tests.integration.analytics_page import OPEN, QUESTIONS, Ask, ask_spark, open_duckdb, open_polars, opening
from tests.integration.job_runs import Job, Tables
from tests.integration.ray_head import RayHead
from tests.integration.s3_server import S3Server
from tests.unit.row_samples import CORRUPT, make_rows, make_unit
from tinyface_core.storage import Storage
from tinyface_core.tables.commit import Committer
from tinyface_core.tables.redo import UnitWork

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]


@pytest.fixture(scope="module")
def output(tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead) -> Tables:
    """The output of one run, whole, in several units."""
    folder = tmp_path_factory.mktemp("analytics")
    write_input(folder)
    options = [
        "--input",
        "list.parquet",
        "--input",
        "in/copies 2017-02-29",
        "--output",
        "out",
        "--carry",
        "album",
        *CARRIED_TWINS,
        "--no-report",
    ]
    model = ["--model", "hr-mobilenetv2", "--zooms", "0.5", "1", "2", "--min-score", "0.3", "--unit-pictures", "4"]
    Job(folder / "log", ray_head.environment, *options, *model, cwd=folder).wait().expect(0)
    return Tables(folder / "out").validated()


@pytest.fixture(scope="module")
def while_redone(output: Tables, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The same, with what a killed redo leaves."""
    folder = tmp_path_factory.mktemp("redone") / "out"
    as_left_by_a_killed_redo(output.folder, folder)
    return Tables(folder)


@pytest.fixture(scope="module")
def partitioned(output: Tables, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    folder = tmp_path_factory.mktemp("partitioned") / "out"
    as_partitioned(output.folder, folder)
    return Tables(folder)


@pytest.fixture(scope="module")
def truth(output: Tables) -> Truth:
    return Truth(output.folder)


@pytest.fixture(scope="module", params=["duckdb", "polars"])
def open_with(request: pytest.FixtureRequest) -> Callable[[str | Path], Ask]:
    """Opens an output in this engine, and gives what answers a question there."""
    return OPEN[request.param]


@pytest.fixture(scope="module")
def spark(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    """A local Spark, where pyspark is installed."""
    sql = pytest.importorskip("pyspark.sql", reason="pyspark, 500 MB, is not part of the tests' setup: extra `spark`")
    folder = tmp_path_factory.mktemp("spark")
    settings = {
        "spark.driver.bindAddress": "127.0.0.1", "spark.driver.host": "127.0.0.1", "spark.ui.enabled": "false",
        "spark.sql.shuffle.partitions": "2", "spark.sql.warehouse.dir": str(folder), "spark.local.dir": str(folder),
    }  # fmt: skip
    session = sql.SparkSession.builder.master("local[1]").config(map=settings).getOrCreate()
    yield session
    session.stop()


def assert_same(answer: list[Row], wanted: list[Row]) -> None:
    """The same columns in the same order, and the same rows in the same order; floats but for rounding."""
    assert wanted, "an empty answer says nothing: the input needs something to ask for"
    assert [list(row) for row in answer[:1]] == [list(row) for row in wanted[:1]]
    assert answer == [{name: near(value) for name, value in row.items()} for row in wanted]


def near(value: Any) -> Any:
    return pytest.approx(value, rel=1e-5) if isinstance(value, float) else value


def test_each_question_of_the_page_is_asked_here() -> None:
    assert list(ANSWERS) == QUESTIONS


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_answer_is_what_the_rows_say(
    output: Tables, truth: Truth, open_with: Callable[[str | Path], Ask], question: str
) -> None:
    assert_same(open_with(output.folder)(question), truth.answer(question))


@pytest.mark.parametrize("question", QUESTIONS)
def test_faces_of_another_writing_change_no_answer(
    while_redone: Tables, truth: Truth, open_with: Callable[[str | Path], Ask], question: str
) -> None:
    """Plain globs see them, so that this test can fail."""
    ((seen,),) = while_redone.query("SELECT count(*) FROM IMAGES JOIN DETECTIONS USING (image_id)")
    assert seen == 2 * len(truth.faces)
    assert_same(open_with(while_redone.folder)(question), truth.answer(question))


def test_an_output_of_errors_alone_and_of_an_odd_name_is_answered(
    tmp_path: Path, open_with: Callable[[str | Path], Ask]
) -> None:
    """Without a picture a share is of nothing: null, and no division by 0 in engines that refuse it."""
    unit, carried, odd = make_unit(3, "a"), (pa.field("album", pa.string()),), tmp_path / "run [1] what?"
    rows = make_rows(unit, carried=carried, carried_values={"album": "a"}, failing=dict.fromkeys(range(3), CORRUPT))
    Committer(Storage(), f"file://{odd}", "s", "m", carried).write(UnitWork.whole(unit), "sources", rows)
    ask = open_with(str(odd).replace("[", "[[]").replace("?", "[?]"))
    answers = {question: ask(question) for question in QUESTIONS}
    assert answers["Is what I read whole?"] == [{"told": 0, "found": 0}]
    assert answers["What share of pictures has no face?"] == [{"pictures": 0, "without_faces": 0, "share": None}]
    assert answers["What share of each archive are error rows, and why?"][0]["share"] == 1.0
    assert answers["How high are the faces?"] == []


def test_faces_that_are_missing_show(
    while_redone: Tables, truth: Truth, tmp_path: Path, open_with: Callable[[str | Path], Ask]
) -> None:
    shutil.copytree(while_redone.folder, tmp_path / "out")
    lost = max((tmp_path / "out" / "detections").glob("*[1-9a-f].parquet"), key=lambda path: path.stat().st_size)
    count = pq.read_metadata(lost).num_rows
    assert count
    lost.unlink()
    answer = open_with(tmp_path / "out")("Is what I read whole?")
    assert answer == [{"told": len(truth.faces), "found": len(truth.faces) - count}]


def test_the_same_on_s3(
    output: Tables, truth: Truth, s3_server: S3Server, bucket: str, monkeypatch: pytest.MonkeyPatch,
    open_with: Callable[[str | Path], Ask],
) -> None:  # fmt: skip
    client = s3_server.client()
    for path in output.folder.rglob("*.parquet"):
        client.upload_file(str(path), bucket, f"my faces/{path.relative_to(output.folder)}")
    monkeypatch.setenv("AWS_ALLOW_HTTP", "true")
    ask = open_with(f"s3://{bucket}/my faces")
    for question in QUESTIONS:
        assert_same(ask(question), truth.answer(question))


@pytest.mark.parametrize("question", QUESTIONS)
def test_a_partitioned_output_gives_the_same(
    partitioned: Tables, truth: Truth, open_with: Callable[[str | Path], Ask], question: str
) -> None:
    assert_same(open_with(partitioned.folder)(question), truth.answer(question))


def test_the_key_of_a_partitioned_output_is_a_column_of_each_table(partitioned: Tables, truth: Truth) -> None:
    def counted(rows: list[Row]) -> dict[str | None, int]:
        return dict(Counter(roll_of(row["unit"]) for row in rows))

    wanted = {"images": counted(truth.images), "detections": counted(truth.faces), "faces": counted(truth.faces)}
    assert set(wanted["faces"]) == {"a b", None}
    connection, polars = open_duckdb(partitioned.folder), open_polars(partitioned.folder)
    for name, counts in wanted.items():
        assert dict(connection.execute(f"SELECT roll, count(*) FROM {name} GROUP BY roll").fetchall()) == counts
        assert dict(polars[name].group_by("roll").len().collect().rows()) == counts


@pytest.mark.parametrize("question", QUESTIONS)
def test_the_sql_gives_the_same_in_spark(
    spark: Any, output: Tables, while_redone: Tables, partitioned: Tables, truth: Truth, question: str
) -> None:
    for tables in (output, while_redone, partitioned):
        exec(opening("Spark", "python", tables.folder), {"spark": spark})
        assert_same(ask_spark(spark, question), truth.answer(question))


def test_what_the_input_alone_decides(output: Tables, truth: Truth) -> None:
    """The counts that need no table, so that the answers above are not merely equal, but right."""

    def answer(question: str, *columns: str) -> list[tuple[Any, ...]]:
        return [tuple(row[name] for name in columns) for row in truth.answer(question)]

    may = date(2016, 5, 3), date(2016, 5, 4)
    assert len(truth.images) == 27
    assert total(truth.images) == len(truth.faces) > 300, "few faces: the answers say little"
    assert answer("How many faces are there a day?", "day", "pictures") == [(None, 9), (may[0], 7), (may[1], 6)]
    question = "What day was it, where there is no EXIF time?"
    assert answer(question, "day", "pictures", "without_exif_time") == [
        (None, 2, 2), (date(1989, 11, 10), 2, 2), (may[0], 7, 0), (may[1], 11, 5)
    ]  # fmt: skip
    assert answer("What share of pictures has no face?", "pictures") == [(22,)]
    question = "How many faces has each value of a carried column?"
    assert answer(question, "album", "pictures") == [(None, 5), ("crowds", 6), ("staff", 11)]
    question = "What share of each archive are error rows, and why?"
    here = f"file://{output.folder.parent}/"
    assert answer(question, "archive", "error_class", "pictures", "share") == [
        (here, "unreadable", 1, 1.0),
        (f"{here}in/half.zip", "truncated", 1, 1.0),
        (f"{here}in/letters.tar.gz", "not_an_image", 1, 1.0),
        (f"{here}in/copies 2017-02-29/", "not_an_image", 1, 1 / 4),
        (f"{here}in/Crowds.TAR", "truncated", 1, 1 / 7),
    ]
    assert answer("How many faces are there if copies count once?", "pictures", "pictures_once") == [(22, 19)]


def test_a_carried_column_called_like_a_faces_leaves_the_faces_alone(output: Tables, truth: Truth) -> None:
    """In all answers above, too: those that were carried are -1 in each row that has them."""
    assert {row["score"] for row in truth.images} == {row["X1"] for row in truth.images} == {-1.0, None}
    lowest = min(face["score"] for face in truth.faces)
    assert lowest > 0
    assert open_duckdb(output.folder).execute("SELECT min(score) FROM faces").fetchall() == [(lowest,)]
    assert open_polars(output.folder)["faces"].select(pl.col("score").min()).collect().item() == lowest


def test_polars_sums_faces_in_64_bits(output: Tables) -> None:
    """It sums int32 in int32, and wraps silently: 2,147,483,647 faces are 10^8 pictures of crowds."""
    assert open_polars(output.folder)["images"].collect_schema()["num_faces"] == pl.Int64
