"""Secrets that a run is given: signed urls, keys of the store. They are used, and end up nowhere."""

from __future__ import annotations

from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.job_pictures import cloud
from tests.integration.job_runs import Ended, Job
from tests.integration.ray_head import RayHead
from tests.integration.s3_server import ACCESS_KEY, SECRET_KEY, S3Server
from tests.integration.signed_server import signed_server
from tests.unit.archives import zip_bytes
from tinyface_core.storage import Storage

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.timeout(900)]


def written(output: str) -> str:
    """All that an output holds, Parquet in plain."""
    storage, texts = Storage(), []
    for uri in sorted(info.uri for info in storage.list(output)):
        data = storage.read(uri)
        if uri.endswith(".parquet"):
            table = pq.read_table(pa.BufferReader(data))
            texts.append(repr(pq.read_metadata(pa.BufferReader(data)).metadata) + repr(table.to_pylist()))
        else:
            texts.append(data.decode(errors="replace"))
    return "\n".join(texts)


def logs_of(head: RayHead) -> str:
    """What Ray wrote to disk on its node: of drivers, workers, its own processes."""
    files = (path for path in (head.folder / "session_latest" / "logs").rglob("*") if path.is_file())
    return "\n".join(path.read_text(errors="replace") for path in files)


def test_secrets_are_used_and_stand_nowhere(
    tmp_path: Path, ray_head: RayHead, s3_server: S3Server, bucket: str, model: Path
) -> None:
    """Cut short under one signature, ended under the next: what was done stands, what is left is read."""
    (served := tmp_path / "served").mkdir()
    for number in range(3):
        (served / f"{number}.jpg").write_bytes(cloud(number))
    (served / "a.zip").write_bytes(zip_bytes([("in.jpg", cloud(4))]))
    output = f"s3://{bucket}/out"
    environment = {name: value for name, value in ray_head.environment.items() if not name.startswith("AWS_")}
    keys = ("--storage-option", f"key={ACCESS_KEY}", f"secret={SECRET_KEY}", "--endpoint-url", s3_server.endpoint)
    said: list[Ended] = []

    def rows() -> dict[str, tuple[str, str]]:
        """uri -> (error class or status, commit)."""
        tables = [
            pq.read_table(pa.BufferReader(Storage().read(info.uri))) for info in Storage().list(f"{output}/images")
        ]
        found = [row for table in tables for row in table.to_pylist()]
        return {row["uri"]: (row["error_class"] or row["status"], row["commit"]) for row in found}

    with signed_server(served) as server:

        def run(*options: str) -> dict[str, tuple[str, str]]:
            urls = [server.url(f"{number}.jpg") for number in range(3)]
            lines = [f"1, {url}" for url in (*urls, server.url("gone.jpg"))]  # the carried cell has the space too
            (tmp_path / "list.csv").write_text("\n".join(["n,url", *lines]))
            inputs = ("--input", str(tmp_path / "list.csv"), server.url("a.zip"), "--output", output, *keys)
            fixed = ("--carry", "url", "--model", str(model), "--zooms", "0.5", "--unit-pictures", "1", *options)
            said.append(Job(tmp_path / "log", environment, *inputs, *fixed).wait().expect(0))
            return rows()

        first = run("--limit", "2")
        assert len(first) == 2
        server.signature = "deed/+="
        found = run()
        assert first.items() <= found.items()
        good = {server.plain(name): "ok" for name in ("0.jpg", "1.jpg", "2.jpg", "a.zip")}
        assert {uri: status for uri, (status, _) in found.items()} == good | {server.plain("gone.jpg"): "unreadable"}
        everything = {"output": written(output), "screen": repr(said), "Ray's logs": logs_of(ray_head)}
    for place, text in everything.items():
        assert len(text) > 1000, place
        for secret in ("X-Amz-Signature", "c0ffee", "deed/", "deed%", SECRET_KEY):
            assert secret not in text, f"{secret} in {place}"
