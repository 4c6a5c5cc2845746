"""jobs/export.py from a store to a store: what it writes there is what it writes on a disk."""

from __future__ import annotations

import json
from pathlib import Path

import pyarrow.parquet as pq
import pytest
from pyiceberg.catalog import load_catalog

from export import app
from options import run_job
from tests.integration.s3_server import S3Server
from tests.unit.row_samples import CORRUPT, make_rows, make_unit
from tinyface_core.evaluate.results import read_text
from tinyface_core.export import target
from tinyface_core.storage import Storage
from tinyface_core.tables.commit import Committer
from tinyface_core.tables.redo import UnitWork

pytestmark = pytest.mark.integration


@pytest.fixture
def output(bucket: str, storage: Storage) -> str:
    for name in "ab":
        unit = make_unit(40, name)
        rows = make_rows(unit, faces=3, failing={5: CORRUPT})
        Committer(storage, f"s3://{bucket}/out", "settings", "model").write(UnitWork.whole(unit), "sources", rows)
    storage.write(f"s3://{bucket}/out/_SUCCESS", b"")
    return f"s3://{bucket}/out"


def test_each_form_from_a_store_to_a_store_is_as_on_a_disk(
    output: str, bucket: str, storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(target, "_PUT_AT_ONCE_BYTES", 4096)  # so that the larger ones go in parts
    for form in ("coco", "fddb", "fiftyone", "img2dataset"):
        assert run_job(app, [output, "--to", form, "--output", f"s3://{bucket}/as/{form} 1"]) == 0
        assert run_job(app, [output, "--to", form, "--output", str(tmp_path / form)]) == 0
        assert storage.read(f"s3://{bucket}/as/{form} 1") == (tmp_path / form).read_bytes()
    assert len(json.loads((tmp_path / "coco").read_text())["annotations"]) == 2 * 39 * 3
    assert pq.read_table(tmp_path / "img2dataset").num_rows == 2 * 39
    assert sorted(info.uri for info in storage.list(f"s3://{bucket}/as/")) == [
        f"s3://{bucket}/as/{form} 1" for form in ("coco", "fddb", "fiftyone", "img2dataset")
    ]


def test_a_folder_in_a_store_is_replaced_only_when_asked(
    output: str, bucket: str, storage: Storage, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    where = f"s3://{bucket}/wider"
    asked = [output, "--to", "wider", "--output", where]
    assert run_job(app, [*asked, "--below", "file:///archive"]) == 0
    storage.write(f"{where}/a/stale.txt", b"stale\n0\n")
    storage.write(f"{where}/mine.md", b"mine")
    assert run_job(app, asked) == 2
    assert "holds an export already. Give --overwrite" in capsys.readouterr().err
    assert run_job(app, [*asked, "--overwrite"]) == 0
    names = {info.uri.removeprefix(f"{where}/") for info in storage.list(f"{where}/")}
    assert names == {f"{unit}/{n:05d}.txt" for unit in "ab" for n in range(40)} | {"_export.json", "mine.md"}
    storage.copy_here([f"{where}/{name}" for name in names], where, tmp_path / "copy")
    assert len(read_text(tmp_path / "copy")["00000"].scores_K) == 3


def test_iceberg_tables_in_a_store(output: str, bucket: str, s3_server: S3Server, tmp_path: Path) -> None:
    where = {"uri": f"sqlite:///{tmp_path}/lake.db", "warehouse": f"s3://{bucket}/lake"}
    options = [f"{key}={value}" for key, value in where.items()]
    for _ in range(2):
        assert run_job(app, [output, "--to", "iceberg", "--output", "lake.f", "--catalog-option", *options]) == 0
    catalog = load_catalog("lake", **where, **{"s3.endpoint": s3_server.endpoint})
    assert catalog.load_table("f.images").scan().to_arrow().num_rows == 80
    assert catalog.load_table("f.detections").scan().to_arrow().num_rows == 2 * 39 * 3
