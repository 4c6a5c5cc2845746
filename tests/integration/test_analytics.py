"""Every query of docs/analytics.md, taken out of the page and run on the output of a real run of the job.

The pictures are those of the demo, made small, so that many faces are small; the model is a bundled one. What each
query must answer is counted here in plain Python from the rows that pyarrow reads, and what the input alone decides
(days, copies, errors) is told by number.
"""

from __future__ import annotations

import ast
import io
import re
import shutil
import tarfile
from collections import Counter, defaultdict
from collections.abc import Callable, Iterator
from datetime import date
from functools import partial
from pathlib import Path
from typing import Any

import duckdb
import polars as pl
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq
import pytest
import s3fs
from PIL import Image, ImageOps

from tests.integration.job_pictures import DEMO
from tests.integration.job_runs import ROOT, Job, Tables
from tests.integration.ray_head import RayHead
from tests.integration.s3_server import S3Server
from tests.picture_samples import saved
from tests.unit.archives import tar_bytes, zip_bytes

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

PAGE = (ROOT / "docs" / "analytics.md").read_text()
Row = dict[str, Any]


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


# --- the input: 27 candidates ---------------------------------------------------------------------------------------

TAKEN = ["2016:05:03 23:59:58", "2016:05:04 00:00:01", None]  # in turn
ABSENT = "absent.jpg"

LONGEST = {"treaty_signing_1949.jpg": 960, "astronaut_portrait.png": 800}  # px; others 640: faces of all heights
CROPS = {"strip.jpg": (0, 124, 640, 184), "narrow.jpg": (200, 100, 340, 400)}  # x1, y1, x2, y2 in all_hands_2016.jpg


def resized(name: str, picture: Image.Image) -> Image.Image:
    longest = LONGEST.get(name, 640)
    return ImageOps.contain(picture.convert("RGB"), (longest, longest))


def jpeg(picture: Image.Image, taken: str | None = None) -> bytes:
    exif = Image.Exif()
    if taken is not None:
        exif[306] = taken
    return saved(picture, "JPEG", quality=90, exif=exif)


def photographs() -> tuple[dict[str, bytes], dict[str, bytes]]:
    """Loose ones (11, and 2 crops whose edges cut faces) and those of the tar (6): name -> content."""
    loose = sorted(path for path in DEMO.rglob("*") if path.suffix in (".jpg", ".png") and path.parent.name != "broken")
    pictures = {path.name: resized(path.name, Image.open(path)) for path in loose}
    with tarfile.open(DEMO / "crowds.tar") as tar:
        for member in tar:
            file = tar.extractfile(member)
            assert file
            pictures[member.name] = resized(member.name, Image.open(io.BytesIO(file.read())))
    crops = {name: jpeg(pictures["all_hands_2016.jpg"].crop(box)) for name, box in CROPS.items()}
    data = {name: jpeg(picture, TAKEN[number % 3]) for number, (name, picture) in enumerate(pictures.items())}
    return {path.name: data.pop(path.name) for path in loose} | crops, data


def write_input(folder: Path) -> None:
    """`in/`, and `list.parquet`, which gives most of it an album."""
    loose, crowds = photographs()
    one, two, *_ = crowds.values()
    members = [(f"1989-11-10/{name}", data) for name, data in crowds.items()]
    letter = b"%PDF-1.7\n1 0 obj\n<<>>\nendobj\n"
    files = {f"in/2015/staff 2015-12-31 to 2016-05-04/{name}": data for name, data in loose.items()}
    files |= {
        "in/Crowds.TAR": tar_bytes([*members, ("1989-11-10/cut.jpg", one[: len(one) // 2])]),
        "in/letters.tar.gz": tar_bytes([("letter.pdf", letter)], "w:gz"),
        "in/half.zip": zip_bytes([("a.jpg", one), ("b.jpg", two)])[:-40],
        "in/copies 2017-02-29/one.jpg": one,  # no day of that year
        "in/copies 2017-02-29/one again.jpg": one,
        "in/copies 2017-02-29/two.jpg": two,
        "in/copies 2017-02-29/letter.pdf": letter,
    }
    for name, data in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_bytes(data)
    names = [name for name in files if "copies" not in name]
    albums = [None if "portrait" in name else "staff" if name.endswith(("jpg", "png")) else "crowds" for name in names]
    pq.write_table(pa.table({"uri": [*names, ABSENT], "album": [*albums, "staff"]}), folder / "list.parquet")


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
        "--no-report",
    ]
    model = ["--model", "hr-mobilenetv2", "--zooms", "0.5", "1", "2", "--min-score", "0.3", "--unit-pictures", "4"]
    Job(folder / "log", ray_head.environment, *options, *model, cwd=folder).wait().expect(0)
    return Tables(folder / "out").validated()


@pytest.fixture(scope="module")
def while_redone(output: Tables, tmp_path_factory: pytest.TempPathFactory) -> Tables:
    """The same, with what a killed redo leaves: another writing's faces beside those that count, in every unit."""
    folder = tmp_path_factory.mktemp("redone") / "out"
    shutil.copytree(output.folder, folder)
    (folder / "_SUCCESS").unlink()
    for path in sorted((folder / "detections").glob("*.parquet")):
        table = pq.read_table(path)
        table = table.set_column(1, table.schema.field("commit"), pa.array(["0" * 32] * len(table), pa.string()))
        pq.write_table(table, path.with_name(f"{path.name.rsplit('-', 1)[0]}-{'0' * 32}.parquet"))
    return Tables(folder)


# --- the answers, from the rows themselves --------------------------------------------------------------------------


class Truth:
    """The rows of a whole output, faces with the columns of their picture and `px`, their height; and each answer."""

    def __init__(self, folder: Path) -> None:
        self.images: list[Row] = rows_of(folder / "images")
        pictures = {row["image_id"]: row for row in self.images}
        detections = rows_of(folder / "detections")
        self.faces: list[Row] = [pictures[row["image_id"]] | row | {"px": height_px(row)} for row in detections]
        self.ok = [row for row in self.images if row["status"] == "ok"]

    def faces_of(self) -> list[list[Row]]:
        """The faces of each picture that has some."""
        found = defaultdict(list)
        for face in self.faces:
            found[face["image_id"]].append(face)
        return list(found.values())

    def answer(self, question: str) -> list[Row]:
        return ANSWERS[question](self)


def rows_of(folder: Path) -> list[Row]:
    files = sorted(folder.glob("*.parquet"))
    return [row for path in files for row in pq.read_table(path).to_pylist()]


def height_px(face: Row) -> float:
    """In float32, as the columns are."""
    return pc.subtract(pa.scalar(face["y2"], pa.float32()), pa.scalar(face["y1"], pa.float32())).as_py()


def grouped(rows: list[Row], key: Callable[[Row], Any]) -> list[tuple[Any, list[Row]]]:
    """Sorted by key, None first."""
    found = defaultdict(list)
    for row in rows:
        found[key(row)].append(row)
    return sorted(found.items(), key=lambda item: (item[0] is not None, item[0]))


def total(rows: list[Row]) -> int:
    return sum(row["num_faces"] for row in rows)


def taken_on(row: Row) -> date | None:
    return row["taken_at"] and row["taken_at"].date()


def whole(truth: Truth) -> list[Row]:
    return [{"told": total(truth.images), "found": len(truth.faces)}]


def by_day(truth: Truth) -> list[Row]:
    return [
        {"day": day, "pictures": len(rows), "faces": total(rows), "largest_crowd": max(r["num_faces"] for r in rows)}
        for day, rows in grouped(truth.ok, taken_on)
    ]


def by_day_or_name(truth: Truth) -> list[Row]:
    def day(row: Row) -> date | None:
        dates = re.findall(r"\d{4}-\d\d-\d\d", f"{row['uri']}/{row['member'] or ''}")
        return taken_on(row) or (date.fromisoformat(dates[-1]) if dates and dates[-1] != "2017-02-29" else None)

    return [
        {"day": day, "pictures": len(rows), "without_exif_time": sum(row["taken_at"] is None for row in rows),
         "faces": total(rows)}
        for day, rows in grouped(truth.ok, day)
    ]  # fmt: skip


def first(rows: list[tuple[float, Row]], columns: str, count: int = 10) -> list[Row]:
    """The rows with the largest numbers, ties by id."""
    rows = sorted(rows, key=lambda item: (-item[0], item[1]["image_id"]))[:count]
    return [{name: row[name] for name in columns.split()} for _, row in rows]


def crowded(truth: Truth) -> list[Row]:
    return first([(row["num_faces"], row) for row in truth.images], "uri member width height num_faces")


def dense(truth: Truth) -> list[Row]:
    found = []
    for faces in truth.faces_of():
        area_px = faces[0]["width"] * faces[0]["height"]
        density = len(faces) / (area_px / 1e6)
        covered = sum((face["x2"] - face["x1"]) * (face["y2"] - face["y1"]) for face in faces) / area_px
        if min(faces[0]["width"], faces[0]["height"]) >= 200:
            found.append((density, faces[0] | {"faces_per_megapixel": density, "covered": covered}))
    return first(found, "uri member num_faces faces_per_megapixel covered")


def by_height(truth: Truth) -> list[Row]:
    bands = {"under 10 px": (0, 10), "10-20 px": (10, 20), "20-40 px": (20, 40), "40-140 px": (40, 140)}
    answer = []
    for band, (low, high) in (bands | {"140 px and more": (140, 10**9)}).items():
        faces = [face for face in truth.faces if low <= face["px"] < high]
        mean_score = sum(face["score"] for face in faces) / len(faces)
        answer.append({"band": band, "lowest_px": min(face["px"] for face in faces), "found": len(faces),
                       "share": len(faces) / len(truth.faces), "mean_score": mean_score})  # fmt: skip
    return answer


def under_15_px(truth: Truth) -> list[Row]:
    found = []
    for faces in truth.faces_of():
        px = [face["px"] for face in faces if face["px"] < 15 and face["y1"] > 0 and face["y2"] < face["height"]]
        if px:
            found.append((len(px), faces[0] | {"small_faces": len(px), "smallest_px": min(px)}))
    return first(found, "uri member small_faces smallest_px", len(found))


def limits(truth: Truth) -> list[Row]:
    return [
        {"min_face_px": limit, "pictures_with_faces": len({face["image_id"] for face in faces}), "found": len(faces),
         "smallest_px": min(face["px"] for face in faces),
         "share_near_limit": sum(face["px"] < 1.5 * limit for face in faces) / len(faces)}
        for limit, faces in grouped(truth.faces, lambda face: face["min_face_px"])
    ]  # fmt: skip


def without_faces(truth: Truth) -> list[Row]:
    without = sum(row["num_faces"] == 0 for row in truth.ok)
    return [{"pictures": len(truth.ok), "without_faces": without, "share": without / len(truth.ok)}]


def by_album(truth: Truth) -> list[Row]:
    return [
        {"album": album, "pictures": len(rows), "faces": total(rows), "faces_per_picture": total(rows) / len(rows)}
        for album, rows in grouped(truth.ok, lambda row: row["album"])
    ]


def error_shares(truth: Truth) -> list[Row]:
    def archive(row: Row) -> str:
        return (
            row["uri"] if row["uri"].lower().endswith((".tar", ".zip", ".gz")) else row["uri"].rpartition("/")[0] + "/"
        )

    answer = []
    for name, rows in grouped(truth.images, archive):
        classes = Counter(row["error_class"] for row in rows if row["error_class"])
        for kind, count in classes.items():
            answer.append({"archive": name, "error_class": kind, "pictures": count, "share": count / len(rows)})
    return sorted(answer, key=lambda row: (-row["share"], row["archive"], row["error_class"]))


def by_score(truth: Truth) -> list[Row]:
    cuts = sorted({int(face["score"] * 20) for face in truth.faces})
    left = {cut: sum(face["score"] >= cut / 20 for face in truth.faces) for cut in cuts}
    return [{"cut": cut / 20, "faces_left": left[cut], "share": left[cut] / len(truth.faces)} for cut in cuts]


def unsure(truth: Truth) -> list[Row]:
    found = []
    for faces in truth.faces_of():
        count = sum(face["score"] < 0.7 for face in faces)
        if count:
            found.append((count, faces[0] | {"unsure": count, "share": count / len(faces)}))
    return first(found, "uri member num_faces unsure share")


def copies(truth: Truth) -> list[Row]:
    once = {row["sha256"]: row["num_faces"] for row in truth.ok}
    return [{"pictures": len(truth.ok), "pictures_once": len(once),
             "faces": total(truth.ok), "faces_once": sum(once.values())}]  # fmt: skip


ANSWERS: dict[str, Callable[[Truth], list[Row]]] = {
    "Is what I read whole?": whole,
    "How many faces are there a day?": by_day,
    "What day was it, where there is no EXIF time?": by_day_or_name,
    "Which pictures are the most crowded?": crowded,
    "Where do faces stand closest?": dense,
    "How high are the faces?": by_height,
    "Which pictures have faces under 15 px?": under_15_px,
    "How small a face could have been found at all?": limits,
    "What share of pictures has no face?": without_faces,
    "How many faces has each value of a carried column?": by_album,
    "What share of each archive are error rows, and why?": error_shares,
    "Where should I cut by score?": by_score,
    "Which pictures should a person look at?": unsure,
    "How many faces are there if copies count once?": copies,
}


@pytest.fixture(scope="module")
def truth(output: Tables) -> Truth:
    return Truth(output.folder)


# --- the engines ----------------------------------------------------------------------------------------------------


def opening(engine: str, language: str, where: str | Path) -> str:
    return fence(section(engine, 3), language).replace("OUT", str(where))


def ask_duckdb(connection: duckdb.DuckDBPyConnection, question: str) -> list[Row]:
    found = connection.execute(fence(section(question, 3), "sql"))
    names = [column[0] for column in found.description]
    return [dict(zip(names, row, strict=True)) for row in found.fetchall()]


def open_duckdb(where: str | Path) -> duckdb.DuckDBPyConnection:
    connection = duckdb.connect()
    if str(where).startswith("s3://"):
        connection.register_filesystem(s3fs.S3FileSystem())
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


@pytest.fixture(scope="module", params=["duckdb", "polars"])
def open_with(request: pytest.FixtureRequest) -> Callable[[str | Path], Ask]:
    """Opens an output in this engine, and gives what answers a question there."""
    if request.param == "polars":
        return lambda where: partial(ask_polars, open_polars(where))
    return lambda where: partial(ask_duckdb, open_duckdb(where))


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


def ask_spark(spark: Any, question: str) -> list[Row]:
    return [row.asDict() for row in spark.sql(fence(section(question, 3), "sql").rstrip().rstrip(";")).collect()]


def assert_same(answer: list[Row], wanted: list[Row]) -> None:
    """The same columns in the same order, and the same rows in the same order; floats but for rounding."""
    assert wanted, "an empty answer says nothing: the input needs something to ask for"
    assert [list(row) for row in answer[:1]] == [list(row) for row in wanted[:1]]
    assert answer == [{name: near(value) for name, value in row.items()} for row in wanted]


def near(value: Any) -> Any:
    return pytest.approx(value, rel=1e-5) if isinstance(value, float) else value


# --- the tests ------------------------------------------------------------------------------------------------------


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
def test_the_sql_gives_the_same_in_spark(
    spark: Any, output: Tables, while_redone: Tables, truth: Truth, question: str
) -> None:
    for tables in (output, while_redone):
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


def test_polars_sums_faces_in_64_bits(output: Tables) -> None:
    """It sums int32 in int32, and wraps silently: 2,147,483,647 faces are 10^8 pictures of crowds."""
    assert open_polars(output.folder)["images"].collect_schema()["num_faces"] == pl.Int64
