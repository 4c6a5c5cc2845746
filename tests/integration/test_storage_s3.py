"""Storage and the readers against two S3 servers over HTTP: SeaweedFS, and moto for a second opinion.

Faults of the network are in test_storage_faults.py. moto checks no credentials: those are there too.
"""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Iterator
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from unittest import mock

import pytest

from tests.integration.moto_server import MotoServer
from tests.integration.s3_server import S3Server
from tests.unit.archives import (
    parquet_bytes,
    read,
    save,
    some_bytes,
    source_of,
    tar_bytes,
    zip_bytes,
)
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.listing import list_sources
from tinyface_core.archive.record import Unit
from tinyface_core.archive.units import cut_units
from tinyface_core.errors import InputError, StorageError
from tinyface_core.storage import ObjectChanged, ObjectMissing, Storage, StorageOptions

pytestmark = pytest.mark.integration

ALL = CandidateFilter()
ODD_KEYS = ["a b/é+%&=?#.jpg", "日本/語.jpg", "quote'\"<>.jpg", "a/b", "a/b/c.jpg", "x%2Fy.jpg", "~tilde!(1).jpg"]


@pytest.fixture(scope="module", params=["seaweedfs", "moto"])
def s3_server(
    request: pytest.FixtureRequest, s3_server: S3Server, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[S3Server]:
    """Every test of this file runs on both."""
    if request.param == "seaweedfs":
        yield s3_server
        return
    with MotoServer(tmp_path_factory.mktemp("moto")) as moto, mock.patch.dict(os.environ, moto.environment()):
        yield moto


@pytest.fixture
def storage(s3_server: S3Server) -> Storage:
    return Storage()


def test_keys_are_taken_as_they_are(storage: Storage, bucket: str) -> None:
    uris = [f"s3://{bucket}/{key}" for key in ODD_KEYS]
    for number, uri in enumerate(uris):
        storage.write(uri, some_bytes(number))
    assert sorted(info.uri for info in storage.list(f"s3://{bucket}")) == sorted(uris)
    for number, uri in enumerate(uris):
        info = storage.stat(uri)
        assert info is not None
        assert (info.uri, info.size_bytes) == (uri, 703)
        assert storage.read(uri, info.version) == some_bytes(number)
        with storage.open(uri, info.version) as file:
            file.seek(600)
            assert file.read() == some_bytes(number)[600:]
        storage.delete(uri)
        storage.delete(uri)
        assert storage.stat(uri) is None


def test_listing_pages_and_folders(storage: Storage, s3_server: S3Server, bucket: str) -> None:
    client = s3_server.client()
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda n: client.put_object(Bucket=bucket, Key=f"in/{n:04}.jpg", Body=b"x"), range(1100)))
    client.put_object(Bucket=bucket, Key="in/folder/", Body=b"")
    client.put_object(Bucket=bucket, Key="index.jpg", Body=b"x")
    uris = [info.uri for info in storage.list(f"s3://{bucket}/in")]
    assert uris == [f"s3://{bucket}/in/{number:04}.jpg" for number in range(1100)]
    assert len(list(storage.list(f"s3://{bucket}/in", starts_with="10"))) == 100
    assert len(list(storage.list(f"s3://{bucket}"))) == 1101
    assert list(storage.list("s3://no-such-bucket-here/x")) == []
    assert storage.has_folder(f"s3://{bucket}/in")
    assert not storage.has_folder(f"s3://{bucket}/i")


def test_another_version_is_not_read(storage: Storage, bucket: str) -> None:
    uri = f"s3://{bucket}/a"
    storage.write(uri, b"one")
    before = storage.stat(uri)
    assert before is not None
    storage.write(uri, b"two")
    for method in (storage.read, storage.open, storage.open_stream):
        with pytest.raises(ObjectChanged):
            method(uri, before.version)
        with pytest.raises(ObjectMissing):
            method(uri + ".none", before.version)
    assert storage.read(uri) == b"two"


def test_a_file_that_changes_while_its_ranges_are_read_is_told(storage: Storage, bucket: str) -> None:
    uri = f"s3://{bucket}/a"
    storage.write(uri, os.urandom(4 << 20))
    file = storage.open(uri)
    file.read(10)
    storage.write(uri, os.urandom(4 << 20))
    with pytest.raises(ObjectChanged):
        file.read()


def test_profiles(s3_server: S3Server, bucket: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    keys = s3_server.environment()
    (tmp_path / "credentials").write_text(
        f"[mine]\naws_access_key_id={keys['AWS_ACCESS_KEY_ID']}\naws_secret_access_key={keys['AWS_SECRET_ACCESS_KEY']}\n"
    )
    monkeypatch.setenv("AWS_SHARED_CREDENTIALS_FILE", str(tmp_path / "credentials"))
    monkeypatch.delenv("AWS_ACCESS_KEY_ID")
    monkeypatch.delenv("AWS_SECRET_ACCESS_KEY")
    Storage(StorageOptions(profile="mine")).write(f"s3://{bucket}/a", b"1")
    with pytest.raises(StorageError, match="credentials"):
        Storage().read(f"s3://{bucket}/a")


def test_many_threads_share_one_storage(storage: Storage, bucket: str) -> None:
    storage = Storage()
    uris = [f"s3://{bucket}/{number}" for number in range(60)]
    with ThreadPoolExecutor(16) as pool:
        list(pool.map(lambda uri: storage.write(uri, uri.encode()), uris))
        assert list(pool.map(storage.read, uris)) == [uri.encode() for uri in uris]


@pytest.mark.filterwarnings("ignore::DeprecationWarning")  # to fork with threads is what this is about
def test_a_child_process_makes_its_own_connections(storage: Storage, bucket: str) -> None:
    storage.write(f"s3://{bucket}/a", b"1")
    with ProcessPoolExecutor(1, get_context("fork")) as pool:
        assert pool.submit(storage.read, f"s3://{bucket}/a").result() == b"1"


# The four archive forms, from disk and from S3


@pytest.mark.parametrize("name", ["a.tar", "a.tar.gz", "a.zip", "a.parquet"])
def test_an_archive_gives_the_same_records_from_s3(storage: Storage, bucket: str, tmp_path: Path, name: str) -> None:
    """More than one read-ahead of data, whole and in units; ids differ as the uri does."""
    members = [(f"d{number % 3}/{number}.jpg", some_bytes(number, 60_000)) for number in range(60)]
    make = {"a.tar": tar_bytes, "a.zip": zip_bytes, "a.parquet": lambda m: parquet_bytes(m, 10)}
    data = tar_bytes(members, "w:gz") if name == "a.tar.gz" else make[name](members)
    local = save(tmp_path / name, data)
    storage.write(f"s3://{bucket}/{name}", data)
    remote = source_of(f"s3://{bucket}/{name}", storage)

    def seen(unit: Unit) -> list[tuple[str | None, str | None, int | None]]:
        return [(record.member, record.sha256, record.size_bytes) for record in read(unit, storage=storage)[0]]

    whole = seen(Unit((local,), 0))
    assert len(whole) == 60
    units = list(cut_units([remote], storage, ALL, unit_pictures=15, unit_bytes=1 << 20))
    assert len(units) > 1 or name == "a.tar.gz"
    assert [row for unit in units for row in seen(unit)] == whole == seen(Unit((remote,), 0))
    wanted, end = read(units[-1], storage=storage, only={2})
    assert (len(wanted), wanted[0].index) == (1, 2)
    assert wanted[0].source_version == remote.version
    assert end.count == len(seen(units[-1]))


def test_inputs_on_s3(storage: Storage, bucket: str) -> None:
    for name in ("2024-01/a.jpg", "2024-01/b.json", "2024-02/c.jpg", "2025/d.jpg", "t/0.tar", "t/1.tar", "out/x.jpg"):
        storage.write(f"s3://{bucket}/{name}", b"data")
    storage.write(f"s3://{bucket}/lists/m.csv", b"url,who\n../2025/d.jpg,Ann\ns3://%s/gone.jpg,Bob" % bucket.encode())

    def listed(*urls: str, **options: object) -> list[str]:
        urls = tuple(f"s3://{bucket}/{url}" for url in urls)
        sources = list_sources(urls, storage, ALL, on_skip=skipped.update, **options)  # type: ignore[arg-type]
        return [source.uri.removeprefix(f"s3://{bucket}/") for source in sources]

    skipped: Counter[str] = Counter()
    assert listed("", leave_out=[f"s3://{bucket}/out"]) == [
        "2024-01/a.jpg", "2024-02/c.jpg", "2025/d.jpg", "t/0.tar", "t/1.tar",
    ]  # fmt: skip
    assert listed("2024-*") == ["2024-01/a.jpg", "2024-02/c.jpg"]
    assert listed("t/{0..1}.tar", "2025/") == ["t/0.tar", "t/1.tar", "2025/d.jpg"]
    assert listed("**/?.jpg") == ["2024-01/a.jpg", "2024-02/c.jpg", "2025/d.jpg", "out/x.jpg"]
    assert listed("lists/m.csv", carry=["who"]) == ["2025/d.jpg", "gone.jpg"]
    for wrong, message in (
        ("none/", "no such input"),
        ("t/{0..2}.tar", r"no such input: .*2\.tar"),
        ("*.bmp", "matches nothing"),
    ):
        with pytest.raises(InputError, match=message):
            listed(wrong)
    with pytest.raises(InputError, match="no such bucket: no-such-bucket-here"):
        list_sources(["s3://no-such-bucket-here/x"], storage, ALL)
