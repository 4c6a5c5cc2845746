"""The same pictures in every form of archive, on disk and on a real S3: the same detections from each."""

from __future__ import annotations

from collections import defaultdict
from datetime import datetime
from pathlib import Path
from typing import Any

import duckdb
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import s3fs

from tests.integration.job_pictures import cloud, photo
from tests.integration.job_runs import Job, Tables
from tests.integration.ray_head import RayHead
from tests.integration.s3_server import S3Server
from tests.unit.archives import Members, parquet_bytes, tar_bytes, zip_bytes
from tinyface_core.storage import Storage
from tinyface_core.tables.validate import validate

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]

COUNT = 7
FORMS = ("loose", "shard.parquet", "shard.tar", "shard.tar.gz", "shard.zip")
Faces = dict[str, tuple[str, tuple[Any, ...]]]


def pictures() -> Members:
    """Five photographs, a small picture that is not square, and one that is cut short."""
    good = [(f"day 1/photo {number}.jpg", photo(number)) for number in range(5)]
    return [*good, ("day 2/ä#%41.jpg", cloud(1)), ("day 2/cut.jpg", photo(5)[:1500])]


def forms(**columns: list[object]) -> dict[str, bytes]:
    """Name below the input -> content. columns: of the Parquet form, beside the pictures."""
    members = pictures()
    return {f"loose/{name}": data for name, data in members} | {
        "shard.tar": tar_bytes(members),
        "shard.tar.gz": tar_bytes(members, "w:gz"),
        "shard.zip": zip_bytes(members),
        "shard.parquet": parquet_bytes(members, **columns),
    }


def by_form(rows: list[tuple[Any, ...]], prefix: str) -> dict[str, Faces]:
    """From (uri, sha256, status, x1, y1, x2, y2, score) of all faces: form -> sha256 -> (status, its faces)."""
    found: dict[str, dict[str, tuple[str, list[Any]]]] = defaultdict(dict)
    for uri, sha256, status, *face in rows:
        assert uri.startswith(prefix), uri
        form = uri.removeprefix(prefix).split("/")[0]
        found[form].setdefault(sha256, (status, []))[1].append(tuple(face))
    return {form: {sha: (status, tuple(sorted(faces))) for sha, (status, faces) in of.items()}
            for form, of in found.items()}  # fmt: skip


FACES = """
    SELECT uri, sha256, coalesce(error_class, status), x1, y1, x2, y2, score
    FROM IMAGES LEFT JOIN DETECTIONS USING (image_id) WHERE uri LIKE '%/in/%'
"""


@pytest.fixture(scope="module")
def on_disk(tmp_path_factory: pytest.TempPathFactory, ray_head: RayHead, model: Path) -> Tables:
    """The output of one run over a folder of all forms and a Parquet manifest."""
    folder = tmp_path_factory.mktemp("disk")
    labels: list[object] = [f"label {number}" for number in range(COUNT)]
    counts = pa.array([*range(COUNT - 1), None], pa.int16())
    times = pa.array([datetime(2020, 1, 1 + number) for number in range(COUNT)], pa.timestamp("ms"))
    for name, data in forms(label=labels, count=counts, when=times).items():  # type: ignore[arg-type]
        (folder / "in" / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / "in" / name).write_bytes(data)
    (folder / "more").mkdir()
    for number in (2, 3):
        (folder / "more" / f"{number}.jpg").write_bytes(cloud(100 + number))
    columns = {
        "uri": [f"file://{folder}/more/2.jpg", "more/3.jpg", "more/absent.jpg"],
        "label": ["two", "three", None],
        "count": pa.array([2, 3, None], pa.int16()),
        "when": pa.array([datetime(2021, 2, 2), None, None], pa.timestamp("ms")),
    }
    pq.write_table(pa.table(columns), folder / "list.parquet")
    options = ["--input", "in", "list.parquet", "--output", "out", "--model", str(model)]
    carry = ["--carry", "label", "--carry", "count", "when", "--zooms", "0.5", "--no-report"]
    Job(folder / "log", ray_head.environment, *options, *carry, cwd=folder).wait().expect(0)
    return Tables(folder / "out").validated()


def test_every_form_on_disk_gives_the_same_detections(on_disk: Tables) -> None:
    found = by_form(on_disk.query(FACES), f"file://{on_disk.folder.parent}/in/")
    assert tuple(sorted(found)) == FORMS
    loose = found["loose"]
    assert len(loose) == COUNT
    assert sorted(status for status, _ in loose.values()) == [*["ok"] * 6, "truncated"]
    assert sum(len(faces) for _, faces in loose.values()) > len(loose), "few faces: the comparison says little"
    assert [form for form in FORMS if found[form] != loose] == []


def test_carried_columns_arrive_with_their_types(on_disk: Tables) -> None:
    described = on_disk.query('DESCRIBE SELECT label, count, "when" FROM IMAGES')
    assert [row[1] for row in described] == ["VARCHAR", "SMALLINT", "TIMESTAMP"]
    rows = on_disk.query(
        """SELECT member, label, count, "when" FROM IMAGES WHERE label LIKE 'label %' ORDER BY label"""
    )
    names = [name for name, _ in pictures()]
    assert rows == [
        (names[n], f"label {n}", n if n < COUNT - 1 else None, datetime(2020, 1, 1 + n)) for n in range(COUNT)
    ]
    sql = """SELECT status, label, count, "when" FROM IMAGES WHERE uri LIKE '%/more/%' ORDER BY uri"""
    assert on_disk.query(sql) == [
        ("ok", "two", 2, datetime(2021, 2, 2)), ("ok", "three", 3, None), ("error", None, None, None)
    ]  # fmt: skip


def test_the_same_on_s3_with_an_output_there(
    tmp_path: Path, on_disk: Tables, s3_server: S3Server, bucket: str, ray_head: RayHead, model: Path
) -> None:
    """Keys with spaces and `%`, the endpoint given as an option, a list of urls, and DuckDB reading the bucket."""
    client = s3_server.client()
    for name, data in forms().items():
        client.put_object(Bucket=bucket, Key=f"a b/in/{name}", Body=data)
    for number in range(2):
        client.put_object(Bucket=bucket, Key=f"more/{number}.jpg", Body=cloud(200 + number))
    urls = ["more/0.jpg", "", f"s3://{bucket}/more/1.jpg", "more/absent.jpg"]
    client.put_object(Bucket=bucket, Key="list.txt", Body="\n".join(urls).encode())

    environment = {key: value for key, value in ray_head.environment.items() if key != "AWS_ENDPOINT_URL"}
    where = ["--input", f"s3://{bucket}/a b/in/", f"s3://{bucket}/list.txt", "--output", f"s3://{bucket}/some out/"]
    options = ["--endpoint-url", s3_server.endpoint, "--model", str(model), "--zooms", "0.5"]
    Job(tmp_path / "log", environment, *where, *options).wait().expect(0)

    report = validate(Storage(), f"s3://{bucket}/some out")
    assert report.exit_code == 0, str(report)
    with duckdb.connect() as connection:
        connection.register_filesystem(s3fs.S3FileSystem(skip_instance_cache=True))
        sql = FACES.replace("IMAGES", f"'s3://{bucket}/some out/images/**/*.parquet'")
        rows = connection.execute(sql.replace("DETECTIONS", f"'s3://{bucket}/some out/detections/**/*.parquet'"))
        found = by_form(rows.fetchall(), f"s3://{bucket}/a b/in/")
        listed = (
            f"SELECT uri, status, error_class FROM 's3://{bucket}/some out/images/*.parquet' WHERE uri LIKE '%/more/%'"
        )
        assert sorted(connection.execute(listed).fetchall()) == [
            (f"s3://{bucket}/more/0.jpg", "ok", None),
            (f"s3://{bucket}/more/1.jpg", "ok", None),
            (f"s3://{bucket}/more/absent.jpg", "error", "unreadable"),
        ]
    loose = by_form(on_disk.query(FACES), f"file://{on_disk.folder.parent}/in/")["loose"]
    assert tuple(sorted(found)) == FORMS
    assert [form for form in FORMS if found[form] != loose] == []
    names = {key.removeprefix("some out/") for key in keys_of(client, bucket) if key.startswith("some out/")}
    assert {"_SUCCESS", "run.json", "report.html"} <= names
    assert not [name for name in names if "claims" in name or "probe" in name]


def keys_of(client: Any, bucket: str) -> list[str]:
    pages = client.get_paginator("list_objects_v2").paginate(Bucket=bucket)
    return [item["Key"] for page in pages for item in page.get("Contents", [])]
