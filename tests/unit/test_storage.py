"""Storage on disk and in memory, and the S3 store against a client that is made to fail. Real S3: tests/integration."""

from __future__ import annotations

import errno
import hashlib
import io
import itertools
import os
import pickle
import ssl
import sys
import time
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from aiohttp.client_reqrep import ConnectionKey
from botocore.exceptions import ClientError, EndpointConnectionError, FlexibleChecksumError, NoCredentialsError

from tinyface_core.errors import InputError, SettingsError, StorageError
from tinyface_core.storage import (
    ObjectChanged,
    ObjectDamaged,
    ObjectDenied,
    ObjectInfo,
    ObjectMissing,
    Storage,
    StorageOptions,
)
from tinyface_core.stores import base
from tinyface_core.stores.base import ObjectTooLarge, RangeFile, Transient, with_retries
from tinyface_core.stores.web import about_one_url, info_of_known


@pytest.fixture
def storage() -> Storage:
    return Storage()


@pytest.fixture
def no_waiting(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """Retries follow each other at once; what they would have waited is kept, on a clock of its own."""
    waited = [0.0]

    def sleep(seconds: float) -> None:
        waited[0] += seconds

    monkeypatch.setattr("tenacity.nap.time.sleep", sleep)
    real = time.monotonic
    monkeypatch.setattr("time.monotonic", lambda: real() + waited[0])
    return waited


# Uris and options


def test_a_protocol_that_cannot_be_opened_is_told_in_one_line(
    storage: Storage, monkeypatch: pytest.MonkeyPatch
) -> None:
    with pytest.raises(SettingsError, match=r"cannot open nosuch:// urls: [^\n]+$"):
        storage.stat("nosuch://a")

    with pytest.raises(SettingsError, match=r"ftp:// urls: they need --storage-option host=\.\.\."):
        storage.stat("ftp://127.0.0.1:1/a.jpg")

    def refuse(*_: object, **__: object) -> None:
        raise ConnectionRefusedError(111, "Connection\nrefused")

    monkeypatch.setattr("fsspec.filesystem", refuse)
    with pytest.raises(SettingsError, match=r"cannot open ftp:// urls: \[Errno 111\] Connection refused: check"):
        Storage(StorageOptions(extra=(("host", "127.0.0.1"),))).stat("ftp://127.0.0.1:1/a.jpg")


@pytest.mark.parametrize(
    ("url", "uri"),
    [
        ("/a b/c%20.jpg", "file:///a b/c%20.jpg"),
        ("file:///a//b/../c/", "file:///a/c"),
        ("s3://b/k k%20//x/", "s3://b/k k%20//x/"),
        ("s3a://b/k", "s3://b/k"),
        ("memory://b/k", "memory://b/k"),
        ("https://h/a?b=c", "https://h/a?b=c"),
        ("http:", None),
    ],
)
def test_canonical(storage: Storage, url: str, uri: str | None) -> None:
    assert storage.canonical(url) == (uri or "file://" + os.path.abspath(url))


def test_relative_urls_become_absolute_and_links_stay(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "real").mkdir()
    (tmp_path / "link").symlink_to("real")
    monkeypatch.chdir(tmp_path)
    assert storage.canonical("link/a.jpg") == f"file://{tmp_path}/link/a.jpg"


def test_options_for_fsspec() -> None:
    pairs = (
        ("key", "123"),
        ("requester_pays", "True"),
        ("client_kwargs.region_name", "eu"),
        ("n", "3"),
        ("j", '{"a":1}'),
    )
    assert StorageOptions(extra=pairs).for_fsspec() == {
        "key": "123", "requester_pays": True, "client_kwargs": {"region_name": "eu"}, "n": 3, "j": {"a": 1},
    }  # fmt: skip


def test_credentials_are_hidden() -> None:
    options = StorageOptions(extra=(("secret", "pa55"), ("client_kwargs.aws_secret_access_key", "w0rd"), ("n", "3")))
    text = options.hide("pa55 w0rd 3 http://u:p@h/k?X-Amz-Signature=abc&b=1&token=t s3://b/k?token=t&jwt=j")
    assert text == "*** *** 3 http://***@h/k?b=1&token=~ca73dcf5e072d4d6 s3://b/k?token=***&jwt=***"


def test_the_endpoint_travels_to_workers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://here:1")
    pickled = pickle.dumps(Storage())
    monkeypatch.delenv("AWS_ENDPOINT_URL")
    assert pickle.loads(pickled).options.endpoint_url == "http://here:1"
    assert Storage(StorageOptions(endpoint_url="http://there:2")).options.endpoint_url == "http://there:2"


# Disk


def test_write_read_list_delete(storage: Storage, tmp_path: Path) -> None:
    root = storage.canonical(str(tmp_path))
    storage.write(f"{root}/new/sub/a.bin", b"one")
    storage.write(f"{root}/new/sub/a.bin", b"three")
    info = storage.stat(f"{root}/new/sub/a.bin")
    assert info is not None
    stat = os.stat(tmp_path / "new/sub/a.bin")
    assert (info.size_bytes, info.version) == (5, f"{stat.st_mtime_ns}-5")
    assert list(storage.list(root)) == [info]
    assert storage.read(info.uri, info.version) == b"three"
    assert [path.name for path in (tmp_path / "new/sub").iterdir()] == ["a.bin"]
    storage.delete(info.uri)
    storage.delete(info.uri)
    assert storage.stat(info.uri) is None
    assert (storage.has_folder(f"{root}/new"), storage.has_folder(f"{root}/none")) == (True, False)
    assert storage.stat(f"{root}/new") is None
    assert list(storage.list(f"{root}/none")) == []
    storage.make_folder(f"{root}/x/y")
    assert (tmp_path / "x/y").is_dir()


def test_missing_and_changed(storage: Storage, tmp_path: Path) -> None:
    (tmp_path / "a").write_bytes(b"1")
    uri = f"file://{tmp_path}/a"
    for method in (storage.read, storage.open, storage.open_stream):
        with pytest.raises(ObjectMissing):
            method(uri + ".none")
        with pytest.raises(ObjectMissing):
            method(f"file://{tmp_path}")
        with pytest.raises(ObjectMissing):
            method("file:///nul\0")
        with pytest.raises(ObjectChanged, match="listed as 1-1"):
            method(uri, "1-1")


def test_a_file_that_changes_while_it_is_read_is_told(storage: Storage, tmp_path: Path) -> None:
    path = tmp_path / "a"
    path.write_bytes(bytes(5 << 20))
    os.utime(path, ns=(1, 1))
    with storage.open_stream(f"file://{path}", f"1-{5 << 20}") as file:
        assert file.read(10) == bytes(10)
        with path.open("r+b") as other:
            other.write(b"x")
        with pytest.raises(ObjectChanged):
            file.read()


def test_a_killed_write_leaves_the_old_file(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The new bytes are on disk under another name, that no glob for Parquet finds, until they are whole."""
    uri = f"file://{tmp_path}/part.parquet"
    storage.write(uri, b"old")
    seen = []

    def stop(source: str, target: str) -> None:
        seen.append(Path(source).name)
        raise KeyboardInterrupt

    monkeypatch.setattr(os, "replace", stop)
    with pytest.raises(KeyboardInterrupt):
        storage.write(uri, b"new")
    assert storage.read(uri) == b"old"
    assert seen[0].startswith(".")
    assert not seen[0].endswith(".parquet")
    assert len(list(tmp_path.iterdir())) == 1


def test_file_and_folder_are_synced_before_and_after_the_rename(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    order = []
    monkeypatch.setattr(
        os, "fsync", lambda handle: order.append("folder" if os.path.isdir(f"/proc/self/fd/{handle}") else "file")
    )
    original = os.replace
    monkeypatch.setattr(os, "replace", lambda *names: order.append("rename") or original(*names))  # type: ignore[func-returns-value]
    storage.write(f"file://{tmp_path}/a", b"1")
    assert order == ["file", "rename", "folder"]


@pytest.mark.parametrize(("code", "mend"), [(errno.ENOSPC, "free some space"), (errno.EROFS, "read-only")])
def test_a_full_disk_stops_the_run(
    storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: int, mend: str
) -> None:
    def fail(handle: int) -> None:
        raise OSError(code, os.strerror(code))

    monkeypatch.setattr(os, "fsync", fail)
    with pytest.raises(StorageError, match=mend):
        storage.write(f"file://{tmp_path}/a", b"1")
    assert list(tmp_path.iterdir()) == []


def test_a_bad_sector_is_about_one_object(storage: Storage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(b"1")

    def fail(*args: Any) -> None:
        raise OSError(errno.EIO, "Input/output error")

    monkeypatch.setattr("tinyface_core.stores.local._version", fail)
    with pytest.raises(ObjectDenied, match="Input/output"):
        storage.read(f"file://{tmp_path}/a")


# Other protocols


def test_memory(storage: Storage) -> None:
    storage.write("memory://store/x/a", b"12")
    info = storage.stat("memory://store/x/a")
    assert info is not None
    assert info.version is not None
    assert list(storage.list("memory://store")) == [info]
    assert storage.read(info.uri, info.version) == b"12"
    with storage.open(info.uri) as file:
        file.seek(1)
        assert file.read() == b"2"
    with pytest.raises(ObjectChanged):
        storage.read(info.uri, "other")
    storage.delete(info.uri)
    storage.delete(info.uri)
    with pytest.raises(ObjectMissing):
        storage.read(info.uri)
    assert storage.stat(info.uri) is None


def test_an_object_of_another_size_is_damaged_or_changed(storage: Storage, no_waiting: list[float]) -> None:
    """Longer as well as shorter; where the version tells that it is another one, it is planned again."""
    storage.write("memory://sizes/a", b"1234")
    for size, told in ((2, "more bytes came of 2"), (9, "4 bytes came of 9")):
        with pytest.raises(ObjectDamaged, match=told):
            storage.read("memory://sizes/a", None, size)
        with pytest.raises(ObjectChanged):
            storage.read("memory://sizes/a", "older", size)


def test_an_object_of_unknown_size_is_read_up_to_a_limit(storage: Storage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyface_core.stores.generic._UNTOLD_MOST_BYTES", 4)
    storage.write("memory://untold/a", b"1234")
    storage.write("memory://untold/b", b"12345")
    assert storage.read("memory://untold/b") == b"12345"  # its size is there for the asking
    assert storage.read("memory://untold/a", None, 0) == b"1234"
    with pytest.raises(ObjectTooLarge, match=r"memory://untold/b: more than 4 bytes came.*copy it"):
        storage.read("memory://untold/b", None, 0)


def test_an_unknown_protocol_or_option_is_refused() -> None:
    with pytest.raises(SettingsError, match="nonsense://"):
        Storage().stat("nonsense://x")
    with pytest.raises(SettingsError, match="--storage-option"):
        Storage(StorageOptions(extra=(("no_such_option", "1"),))).stat("s3://b/k")
    with pytest.raises(SettingsError, match="--profile"):
        Storage(StorageOptions(profile="no-such-profile")).stat("s3://b/k")


# Retries and ranges


def test_retries_end(no_waiting: list[float]) -> None:
    outcomes = iter([Transient("1"), Transient("2"), "good"])

    def attempt() -> str:
        outcome = next(outcomes)
        if isinstance(outcome, Transient):
            raise outcome
        return outcome

    assert with_retries(attempt, "reading x") == "good"
    no_waiting[0] = 0

    def never() -> None:
        raise Transient("503 SlowDown")

    with pytest.raises(StorageError, match=r"reading s3://b/k: given up after \d+ tries .*503 SlowDown"):
        with_retries(never, "reading s3://b/k")
    assert 15 < no_waiting[0] <= base.READ_PATIENCE_S


def test_errors_about_one_object_are_not_retried() -> None:
    calls = []

    def missing() -> None:
        calls.append(1)
        raise ObjectMissing("x")

    with pytest.raises(ObjectMissing):
        with_retries(missing, "reading x")
    assert len(calls) == 1


def test_a_range_file_reads_as_a_file_does() -> None:
    data = os.urandom(3 << 20)
    fetched = []

    def fetch(start: int, stop: int) -> bytes:
        fetched.append(stop - start)
        return data[start:stop]

    ours, real = RangeFile(fetch, len(data)), io.BytesIO(data)
    places = [
        (0, 10),
        (5, 300_000),
        (2_900_000, -1),
        (0, 0),
        (100, 1 << 20),
        (1 << 20, 1 << 20),
        (4 << 20, 9),
        (7, 70_000),
    ]
    for start, size in places:
        assert ours.seek(start) == real.seek(start)
        assert ours.read(size) == real.read(size)
        assert ours.tell() == real.tell()
    assert ours.seek(-5, io.SEEK_END) == real.seek(-5, io.SEEK_END)
    assert ours.read() == real.read()
    with pytest.raises(OSError, match="before the start"):
        ours.seek(-1)


def test_read_ahead_grows_in_order_and_shrinks_in_jumps() -> None:
    """In order: few requests. Header by header over large members: few bytes."""
    size = 64 << 20
    requests: list[int] = []

    def fetch(start: int, stop: int) -> bytes:
        requests.append(stop - start)
        return bytes(stop - start)

    file = RangeFile(fetch, size)
    for _ in range(size // 4096):
        file.read(4096)
    assert len(requests) < 16
    requests.clear()
    file = RangeFile(fetch, size)
    for place in range(0, size, 4 << 20):
        file.seek(place)
        file.read(512)
    assert sum(requests) < 2 << 20


# S3, by a client that answers as it is told


class Client:
    """Stands for s3fs's `_call_s3`: gives or raises what it is told, in order, and notes what it was asked."""

    def __init__(self, *answers: Any) -> None:
        self.answers = iter(answers)
        self.asked: list[tuple[str, dict[str, Any]]] = []

    async def __call__(self, method: str, **arguments: Any) -> Any:
        self.asked.append((method, arguments))
        answer = next(self.answers)
        if isinstance(answer, Exception):
            raise answer
        return answer


class Body:
    def __init__(self, *pieces: bytes | Exception) -> None:
        self.pieces = list(pieces)

    async def read(self, size: int | None = None) -> bytes:
        if not self.pieces:
            return b""
        piece = self.pieces.pop(0)
        if isinstance(piece, Exception):
            raise piece
        if size is not None and len(piece) > size:
            self.pieces.insert(0, piece[size:])
            return piece[:size]
        return piece

    def close(self) -> None:
        pass


def answered(code: str, status: int, operation: str = "GetObject") -> ClientError:
    return ClientError(
        {"Error": {"Code": code, "Message": "said so"}, "ResponseMetadata": {"HTTPStatusCode": status}},  # type: ignore[typeddict-item]
        operation,
    )


def got(*pieces: bytes | Exception, length: int | None = None, etag: str = "e1", start: int = 0) -> dict[str, Any]:
    total = sum(len(piece) for piece in pieces if isinstance(piece, bytes)) if length is None else length
    place = {"ContentRange": f"bytes {start}-{start + total - 1}/*"}
    return {"Body": Body(*pieces), "ContentLength": total, "ETag": f'"{etag}"', **place}


def head(size: int, etag: str = "e1") -> dict[str, Any]:
    return {"ContentLength": size, "ETag": f'"{etag}"', "LastModified": datetime(2026, 1, 1, tzinfo=UTC)}


@pytest.fixture(scope="module")
def s3() -> Any:
    """A function that gives a storage whose S3 client answers as told."""
    keys = (("key", "an-access-key"), ("secret", "a-secret-key"))
    storage = Storage(StorageOptions(endpoint_url="http://127.0.0.1:9", extra=keys))

    def make(*answers: Any) -> tuple[Storage, Client]:
        client = Client(*answers)
        storage._store("s3://b")._client.fs._call_s3 = client  # type: ignore[attr-defined]
        return storage, client

    return make


@pytest.mark.parametrize("code", ["SlowDown", "InternalError", "RequestTimeout", "503"])
def test_s3_tries_again_what_may_pass(s3: Any, no_waiting: list[float], code: str) -> None:
    network = EndpointConnectionError(endpoint_url="http://x")
    storage, client = s3(answered(code, 503), network, TimeoutError(), got(b"data"))
    assert storage.read("s3://b/k", "e1") == b"data"
    assert len(client.asked) == 4
    assert client.asked[0] == ("get_object", {"Bucket": "b", "Key": "k", "IfMatch": '"e1"'})


def test_s3_goes_on_by_range_after_a_cut(s3: Any, no_waiting: list[float]) -> None:
    """A large object is not read again from its start, and stays one version."""
    cut = got(b"abc", ConnectionResetError("cut"), length=8)
    storage, client = s3(head(8), cut, got(b"de", b"", length=5, start=3), got(b"fgh", start=5))
    with storage.open_stream("s3://b/k") as file:
        assert file.read() == b"abcdefgh"
    assert [arguments.get("Range") for _, arguments in client.asked[1:]] == ["bytes=0-7", "bytes=3-7", "bytes=5-7"]
    assert [arguments.get("IfMatch") for _, arguments in client.asked[1:]] == ['"e1"'] * 3


def test_s3_bytes_from_another_place_are_never_taken(s3: Any, no_waiting: list[float]) -> None:
    """A store that ignores ranges would give the start again in the middle."""
    storage, _ = s3(head(8), got(b"abc", ConnectionResetError("cut"), length=8), got(b"abcdefgh"))
    with storage.open_stream("s3://b/k") as file, pytest.raises(StorageError, match="from 3 on, came bytes 0-7"):
        file.read()


def test_s3_an_answer_that_is_short_and_says_so_is_asked_for_again(s3: Any, no_waiting: list[float]) -> None:
    """The listing knows the size. For good it is an error of this object: never a shorter picture."""
    storage, client = s3(got(b"abcd"), got(b"abcdefgh"))
    assert storage.read("s3://b/k", "e1", 8) == b"abcdefgh"
    assert [arguments.get("Range") for _, arguments in client.asked] == [None, None]
    storage, _ = s3(*[got(b"abcd") for _ in range(3)])
    with pytest.raises(ObjectDamaged, match="4 bytes came of 8"):
        storage.read("s3://b/k", "e1", 8)


def test_s3_an_etag_that_is_the_md5_tells_a_flipped_byte(no_waiting: list[float]) -> None:
    """One that only looks like an MD5 is found out by a second reading, once; an encrypted object has none."""
    md5 = hashlib.md5(b"data").hexdigest()

    def store(*answers: Any) -> tuple[Storage, Client]:
        storage = Storage(StorageOptions(endpoint_url="http://127.0.0.1:9", extra=(("key", "k"), ("secret", "s"))))
        client = storage._store("s3://b")._client.fs._call_s3 = Client(*answers)  # type: ignore[attr-defined]
        return storage, client

    storage, client = store(got(b"dXta", etag=md5), head(4, md5), got(b"data", etag=md5), got(b"data", etag=md5))
    assert [storage.read("s3://b/k") for _ in range(2)] == [b"data"] * 2
    flips = [got(b"%d" % place, etag=md5) for place in range(3)]
    storage, client = store(flips[0], head(1, md5), *flips[1:])
    with pytest.raises(ObjectDamaged, match="do not match the checksum in the ETag"):
        storage.read("s3://b/k")

    other = "0" * 32
    storage, client = store(got(b"data", etag=other), head(4, other), *[got(b"data", etag=other) for _ in range(2)])
    assert [storage.read("s3://b/k") for _ in range(2)] == [b"data"] * 2
    assert [method for method, _ in client.asked] == ["get_object", "head_object", "get_object", "get_object"]
    storage, client = store(got(b"data", etag=other) | {"ServerSideEncryption": "aws:kms"})
    assert storage.read("s3://b/k") == b"data"
    assert len(client.asked) == 1


def test_s3_a_store_that_ignores_if_match_is_found_out(s3: Any) -> None:
    storage, _ = s3(got(b"data", etag="e2"))
    with pytest.raises(ObjectChanged, match="listed as e1, now e2"):
        storage.read("s3://b/k", "e1")


@pytest.mark.parametrize(
    ("answer", "expected"),
    [
        (answered("NoSuchKey", 404), ObjectMissing),
        (answered("PreconditionFailed", 412), ObjectChanged),
        (answered("AccessDenied", 403), ObjectDenied),
        (answered("InvalidObjectState", 403), ObjectDenied),
        (answered("ExpiredToken", 400), StorageError),
        (answered("InvalidAccessKeyId", 403), StorageError),
        (answered("SignatureDoesNotMatch", 403), StorageError),
        (NoCredentialsError(), StorageError),
        (answered("Weird", 418), StorageError),
    ],
)
def test_s3_errors(s3: Any, answer: Exception, expected: type[Exception]) -> None:
    storage, client = s3(answer)
    with pytest.raises(expected, match="s3://b/k"):
        storage.read("s3://b/k", "e1")
    assert len(client.asked) == 1


def test_s3_an_object_that_is_damaged_for_good_is_an_error_of_its_own(s3: Any, no_waiting: list[float]) -> None:
    """One rotten object must not stop the run; one flipped on the way is read again."""
    damaged = FlexibleChecksumError(error_msg="did not match")
    storage, _ = s3(got(damaged, length=4), got(b"good"))
    assert storage.read("s3://b/k") == b"good"
    storage, client = s3(*[got(damaged, length=4) for _ in range(9)])
    with pytest.raises(ObjectDamaged, match="checksum"):
        storage.read("s3://b/k")
    assert len(client.asked) == 3


def test_s3_a_bug_stays_a_bug(s3: Any) -> None:
    storage, _ = s3(ZeroDivisionError())
    with pytest.raises(ZeroDivisionError):
        storage.read("s3://b/k")


def test_s3_a_head_that_says_only_403_is_asked_again_with_a_body(s3: Any) -> None:
    """An expired key must stop the run, a denied object must not; HEAD tells them not apart."""
    storage, _ = s3(answered("403", 403, "HeadObject"), answered("ExpiredToken", 400))
    with pytest.raises(StorageError, match="ExpiredToken"):
        storage.stat("s3://b/k")
    storage, _ = s3(answered("403", 403, "HeadObject"), answered("AccessDenied", 403))
    with pytest.raises(ObjectDenied):
        storage.stat("s3://b/k")


def test_s3_a_write_ends_within_20_s(s3: Any, no_waiting: list[float]) -> None:
    storage, client = s3(*[answered("SlowDown", 503)] * 100)
    started = time.monotonic()
    with pytest.raises(StorageError, match="writing s3://b/k"):
        storage.write("s3://b/k", b"1")
    assert time.monotonic() - started < 20
    assert len(client.asked) > 3


def test_s3_a_write_that_is_refused_stops_the_run(s3: Any) -> None:
    storage, _ = s3(answered("AccessDenied", 403, "PutObject"))
    with pytest.raises(StorageError, match="cannot write s3://b/k"):
        storage.write("s3://b/k", b"1")


@pytest.mark.slow
def test_s3_a_million_objects_list_in_bounded_memory(s3: Any) -> None:
    """A thousand pages of a thousand; nothing of a page is kept after it."""
    modified = datetime(2026, 1, 1, tzinfo=UTC)

    def pages() -> Any:
        keys = (f"p/{place:04}.jpg" for place in range(1000))
        contents = [{"Key": key, "Size": 10, "ETag": '"e"', "LastModified": modified} for key in keys]
        for number in range(1000):
            yield {"Contents": [*contents], "IsTruncated": number < 999, "NextContinuationToken": str(number)}

    storage, client = s3()
    client.answers = pages()
    found = storage.list("s3://b/p")
    assert next(found) == ObjectInfo("s3://b/p/0000.jpg", 10, "e", modified)
    assert sum(1 for _ in itertools.islice(found, 2000)) == 2000
    before = sys.getallocatedblocks()
    client.asked.clear()
    most = count = 0
    for count, _ in enumerate(found, start=1):
        if count % 100_000 == 0:
            client.asked.clear()
            most = max(most, sys.getallocatedblocks() - before)
    assert count == 1_000_000 - 2001
    assert most < 20_000  # a million objects would be millions


def test_s3_listing(s3: Any) -> None:
    """Folder keys are left out, keys that only begin like the folder are not asked for."""
    entry = {"Size": 0, "ETag": '"e"', "LastModified": datetime(2026, 1, 1, tzinfo=UTC)}
    storage, client = s3({"Contents": [{**entry, "Key": "a/"}, {**entry, "Key": "a//b c%"}], "IsTruncated": False})
    assert [info.uri for info in storage.list("s3://b/a")] == ["s3://b/a//b c%"]
    assert client.asked[0][1]["Prefix"] == "a/"
    storage, client = s3({}, answered("NoSuchBucket", 404), answered("AccessDenied", 403))
    assert list(storage.list("s3://b", starts_with="20")) == []
    assert client.asked[0][1]["Prefix"] == "20"
    assert list(storage.list("s3://none")) == []
    storage, client = s3({}, answered("NoSuchBucket", 404), answered("AccessDenied", 403))
    assert not storage.has_folder("s3://b/a")
    with pytest.raises(InputError, match="no such bucket: none"):
        storage.has_folder("s3://none/a")
    with pytest.raises(ObjectDenied):
        list(storage.list("s3://b"))


@pytest.mark.parametrize("url", ["http://user:s3cret@host/0.jpg", "s3://KEY:s3cret@bucket/a", "https://token@host"])
def test_a_url_with_credentials_is_refused_without_showing_them(url: str) -> None:
    with pytest.raises(InputError) as refused:
        Storage().canonical(url)
    assert "s3cret" not in str(refused.value)
    assert "KEY" not in str(refused.value)
    assert "token" not in str(refused.value)


def test_an_at_sign_in_a_key_or_a_path_is_no_credential(tmp_path: Path) -> None:
    assert Storage().canonical("s3://bucket/a@b.jpg") == "s3://bucket/a@b.jpg"
    assert Storage().canonical(f"{tmp_path}/a@b.jpg") == f"file://{tmp_path}/a@b.jpg"


def test_objects_are_copied_here_under_their_names_and_none_leads_out(tmp_path: Path) -> None:
    storage = Storage()
    for name in ("a.txt", "b/c.txt"):
        storage.write(f"file://{tmp_path}/from/{name}", name.encode())
    uris = [f"file://{tmp_path}/from/{name}" for name in ("a.txt", "b/c.txt")]
    storage.copy_here(uris, f"file://{tmp_path}/from", tmp_path / "to")
    assert (tmp_path / "to" / "a.txt").read_bytes() == b"a.txt"
    assert (tmp_path / "to" / "b" / "c.txt").read_bytes() == b"b/c.txt"
    with pytest.raises(InputError, match=r"a key with \.\."):
        storage.copy_here(["s3://bucket/x/../../a.txt"], "s3://bucket/x", tmp_path / "to")


class Info:
    """A file system that knows one thing of every url."""

    def __init__(self, fault: Exception | None, *, told_as_missing: bool = True) -> None:
        self.fault, self.told_as_missing = fault, told_as_missing

    def info(self, url: str) -> dict[str, Any]:
        if self.told_as_missing:
            raise FileNotFoundError(url) from self.fault
        return {"name": url, "size": 3}


def test_a_fault_of_the_connection_is_no_missing_object() -> None:
    """fsspec calls it so: a picture that was listed would be an error row, and the run would go on."""
    assert info_of_known(Info(None, told_as_missing=False), "http://h/a") == {"name": "http://h/a", "size": 3}
    with pytest.raises(ConnectionResetError):
        info_of_known(Info(ConnectionResetError()), "http://h/a")
    for really in (None, FileNotFoundError()):
        with pytest.raises(FileNotFoundError, match="http://h/a"):
            info_of_known(Info(really), "http://h/a")


def test_a_wrong_certificate_is_no_wrong_url() -> None:
    """Python calls it a ValueError too: then each picture would be an error row, and the run would end well."""
    key = ConnectionKey("h", 443, True, True, None, None, None)
    certificate = aiohttp.ClientConnectorCertificateError(key, ssl.SSLCertVerificationError("self-signed"))
    assert isinstance(certificate, ValueError)
    assert about_one_url(certificate, "https://h/a") is None
    assert isinstance(about_one_url(aiohttp.InvalidURL("http://[h"), "http://[h"), ObjectMissing)
