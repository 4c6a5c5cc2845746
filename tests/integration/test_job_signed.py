"""A run over signed urls: they are used, and end up nowhere; a new signature is no new picture."""

from __future__ import annotations

from pathlib import Path

import pyarrow.parquet as pq
import pytest

from tests.integration.job_pictures import cloud
from tests.integration.job_runs import Job, Tables
from tests.integration.ray_head import RayHead
from tests.integration.signed_server import signed_server
from tests.unit.archives import zip_bytes

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]


def written(folder: Path) -> str:
    """All that an output holds, Parquet in plain."""
    texts = []
    for file in sorted(path for path in folder.rglob("*") if path.is_file()):
        if file.suffix == ".parquet":
            texts.append(repr(pq.read_metadata(file).metadata) + repr(pq.read_table(file).to_pylist()))
        else:
            texts.append(file.read_text(errors="replace"))
    return "\n".join(texts)


def test_signed_urls_are_worked_and_stand_nowhere(tmp_path: Path, ray_head: RayHead, model: Path) -> None:
    """Cut short under one signature, ended under the next: what was done stands, what is left is read."""
    (served := tmp_path / "served").mkdir()
    for number in range(3):
        (served / f"{number}.jpg").write_bytes(cloud(number))
    (served / "a.zip").write_bytes(zip_bytes([("in.jpg", cloud(4))]))
    with signed_server(served) as server:

        def run(*options: str) -> Tables:
            urls = [server.url(f"{number}.jpg") for number in range(3)]
            (tmp_path / "list.csv").write_text("\n".join(["url", *urls, server.url("gone.jpg")]))
            inputs = ("--input", str(tmp_path / "list.csv"), server.url("a.zip"), "--output", str(tmp_path / "out"))
            fixed = ("--model", str(model), "--zooms", "0.5", "--unit-pictures", "1", *options)
            said.append(Job(tmp_path / "log", ray_head.environment, *inputs, *fixed).wait().expect(0))
            return Tables(tmp_path / "out")

        said: list[object] = []
        first = run("--limit", "2").query("SELECT uri, commit FROM IMAGES")
        assert len(first) == 2
        server.signature = "deed/+="
        tables = run()

        found = dict(tables.query("SELECT uri, coalesce(error_class, status) FROM IMAGES"))
        good = {server.plain(name): "ok" for name in ("0.jpg", "1.jpg", "2.jpg", "a.zip")}
        assert found == good | {server.plain("gone.jpg"): "unreadable"}
        assert set(first) <= set(tables.query("SELECT uri, commit FROM IMAGES"))
        everything = written(tmp_path / "out") + repr(said)
        for secret in ("X-Amz-Signature", "c0ffee", "deed/", "deed%"):
            assert secret not in everything
