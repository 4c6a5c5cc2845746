"""The job on a store that fails: what passes costs nothing, what lasts stops it with a sentence, and it goes on later.

Over HTTP, by a proxy before SeaweedFS; the store itself is killed; a disk is full, and read-only.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.fault_proxy import FaultProxy, Rule
from tests.integration.job_pictures import cloud, deadly
from tests.integration.job_runs import Job, Tables, everything_in
from tests.integration.ray_head import RayHead
from tests.integration.s3_server import S3Server
from tests.unit.archives import parquet_bytes, tar_bytes, zip_bytes
from tinyface_core.storage import Storage
from tinyface_core.tables.validate import validate

pytestmark = [pytest.mark.integration, pytest.mark.slow, pytest.mark.chaos, pytest.mark.timeout(900)]

SLOW = (250, 1, 5)  # a first pixel at which the detector takes 0.2 s (tests/faults)
UNIT = 4
LOOSE = {f"in/{number:02}.png": deadly(SLOW, 61 + number) for number in range(28)}
MEMBERS = [(f"{number}.jpg", cloud(number)) for number in range(5)]
ARCHIVES = {
    "in/a.tar": tar_bytes(MEMBERS),
    "in/b.tar.gz": tar_bytes(MEMBERS, "w:gz"),
    "in/c.zip": zip_bytes(MEMBERS),
    "in/d.parquet": parquet_bytes(MEMBERS),
}
WANTED = {(name, None, hashlib.sha256(data).hexdigest()) for name, data in LOOSE.items()} | {
    (name, member, hashlib.sha256(data).hexdigest()) for name in ARCHIVES for member, data in MEMBERS
}


class OnS3:
    """A bucket with the archive, and the command that works it behind the proxy."""

    def __init__(
        self, server: S3Server, proxy: FaultProxy, bucket: str, head: RayHead, model: Path, folder: Path
    ) -> None:
        self.proxy, self._bucket, self._client = proxy, bucket, server.client()
        for name, data in (LOOSE | ARCHIVES).items():
            self._client.put_object(Bucket=bucket, Key=name, Body=data)
        self._environment = {key: value for key, value in head.environment.items() if key != "AWS_ENDPOINT_URL"}
        self._folder, self.output = folder, f"s3://{bucket}/out"
        where = ["--input", f"s3://{bucket}/in/", "--output", self.output, "--endpoint-url", proxy.endpoint]
        fixed = ["--model", str(model), "--zooms", "0.5", "--unit-pictures", str(UNIT), "--no-report", "--actors", "1"]
        self._options = [*where, *fixed]

    def start(self) -> Job:
        return Job(self._folder, self._environment, *self._options)

    def commits(self) -> dict[str, str]:
        """Key of each commit record -> its ETag, asked of the store itself."""
        page = self._client.list_objects_v2(Bucket=self._bucket, Prefix="out/images/")
        return {entry["Key"]: entry["ETag"] for entry in page.get("Contents", ())}

    def written(self) -> list[str]:
        """Keys of the output."""
        page = self._client.list_objects_v2(Bucket=self._bucket, Prefix="out/")
        return [entry["Key"] for entry in page.get("Contents", ())]

    def check_exact(self) -> None:
        """Every picture once, with the bytes that it has; the validator has nothing to say."""
        report = validate(Storage(), self.output)
        assert report.exit_code == 0, str(report)
        bodies = [self._client.get_object(Bucket=self._bucket, Key=key)["Body"].read() for key in self.commits()]
        rows: list[dict[str, Any]] = [
            row for data in bodies for row in pq.read_table(pa.BufferReader(data)).to_pylist()
        ]
        prefix = f"s3://{self._bucket}/"
        found = Counter((row["uri"].removeprefix(prefix), row["member"], row["sha256"]) for row in rows)
        assert found == Counter(WANTED)
        assert {row["status"] for row in rows} == {"ok"}


@pytest.fixture
def on_s3(s3_server: S3Server, bucket: str, ray_head: RayHead, model: Path, tmp_path: Path) -> Iterator[OnS3]:
    with FaultProxy(s3_server.endpoint) as proxy:
        yield OnS3(s3_server, proxy, bucket, ray_head, model, tmp_path)


def test_a_network_that_fails_now_and_then_costs_no_picture_and_doubles_none(on_s3: OnS3) -> None:
    """Input, claim, plan and commits behind it. No write is conditional: one whose reply is lost would be refused."""
    proxy = on_s3.proxy
    kinds = {"503": 0.04, "500": 0.04, "reset": 0.04, "truncate": 0.04}
    proxy.rules[:] = [
        Rule("flip", "GET", "/in/0", count=2, share=0.3, seed=1),
        Rule("short_lie", "GET", "/in/", count=2, share=0.2, seed=2),
        Rule("lost_reply", "PUT", "/out/", share=0.1, seed=3),
        Rule("stall", count=3, share=0.04, stall_s=1.0, seed=4),
        *(Rule(kind, share=share, seed=5 + number) for number, (kind, share) in enumerate(kinds.items())),
    ]
    on_s3.start().wait().expect(0)
    proxy.rules.clear()
    assert proxy.made.keys() == {*kinds, "flip", "short_lie", "lost_reply", "stall"}
    assert proxy.conditional == []
    on_s3.check_exact()


def test_an_output_that_may_not_be_written_credentials_that_expire_and_a_store_that_dies_lose_no_commit(
    on_s3: OnS3, s3_server: S3Server
) -> None:
    on_s3.proxy.rules[:] = [Rule("denied", "PUT", "/out/")]
    refused = on_s3.start().wait().expect(2)
    assert f"cannot write {on_s3.output}/" in refused.err
    assert "AccessDenied" in refused.err
    assert on_s3.written() == []
    on_s3.proxy.rules.clear()

    first = on_s3.start()
    first.wait_until(lambda: len(on_s3.commits()) >= 2, "two units are committed")
    on_s3.proxy.rules[:] = [Rule("expired")]
    ended = first.wait().expect(1)
    assert "ExpiredToken" in ended.err
    assert "AWS_ACCESS_KEY_ID" in ended.err
    assert "The same command goes on from here." in ended.err
    assert "Traceback" not in ended.err
    on_s3.proxy.rules.clear()
    before = on_s3.commits()
    assert 2 <= len(before) < len(LOOSE) / UNIT + len(ARCHIVES)

    second = on_s3.start()
    second.wait_until(lambda: len(on_s3.commits()) > len(before), "one more unit is committed")
    s3_server.kill()
    s3_server.restart()
    ended = second.wait()
    if ended.code:  # the store was away for longer than a write may last
        assert ended.expect(1).err.count("given up after") >= 1
        assert "Traceback" not in ended.err
        on_s3.start().wait().expect(0)
    assert before.items() <= on_s3.commits().items(), "a unit that was committed was worked again"
    on_s3.check_exact()


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    """A disk of 48 MB of its own, in memory."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=48m", "tmpfs", disk], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"this user may not mount a disk: {mounted.stderr.strip()}")
    try:
        yield disk
    finally:
        subprocess.run(["umount", "--lazy", disk], check=True)


def test_a_disk_that_fills_up_stops_the_run_and_a_read_only_one_refuses_it_where_mounting_is_allowed(
    small_disk: Path, tmp_path: Path, ray_head: RayHead, model: Path
) -> None:
    """Each message says what to do; with space again the same command finishes what was begun."""
    for name, data in (LOOSE | ARCHIVES).items():
        (tmp_path / name).parent.mkdir(exist_ok=True)
        (tmp_path / name).write_bytes(data)
    tables = Tables(small_disk / "out")
    options = ["--input", "in", "--output", str(tables.folder), "--model", str(model), "--zooms", "0.5"]
    options += ["--unit-pictures", str(UNIT), "--no-report", "--actors", "1"]

    def start() -> Job:
        return Job(tmp_path / "log", ray_head.environment, *options, cwd=tmp_path)

    job = start()
    job.wait_until(lambda: len(tables.committed()) >= 2, "two units are committed")
    fill(small_disk / "others")
    ended = job.wait().expect(1)
    assert f"cannot write file://{tables.folder}/" in ended.err
    assert "No space left on device: free some space" in ended.err
    assert "The same command goes on from here." in ended.err
    assert "Traceback" not in ended.err
    before = everything_in(tables.folder / "images")
    assert len(before) >= 2

    (small_disk / "others").unlink()
    start().wait().expect(0)
    assert before.items() <= everything_in(tables.folder / "images").items(), "a committed unit was written again"
    rows = tables.validated().query("SELECT uri, member, sha256 FROM IMAGES WHERE status = 'ok'")
    prefix = f"file://{tmp_path}/"
    assert Counter((uri.removeprefix(prefix), *rest) for uri, *rest in rows) == Counter(WANTED)
    assert tables.whole()

    subprocess.run(["mount", "-o", "remount,ro", small_disk], check=True)
    before = everything_in(small_disk)
    ended = start().wait().expect(2)
    assert str(tables.folder) in ended.err
    assert "Read-only file system" in ended.err
    assert "Traceback" not in ended.err
    assert everything_in(small_disk) == before


def fill(path: Path) -> None:
    """Takes all the space that is left on its disk."""
    with path.open("wb", buffering=0) as file:
        for size in (1 << 20, 4096, 1):
            try:
                while file.write(os.urandom(size)) == size:
                    pass
            except OSError:
                continue
