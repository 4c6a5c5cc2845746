"""Storage and the readers behind a network that fails: what passes is not seen, what lasts is named.

The faults are made by a proxy before two servers. What only SeaweedFS can show is in test_storage_damage.py, what the
whole job does about them in test_job_storage.py.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Callable, Iterator
from unittest import mock

import boto3
import pytest
from botocore.config import Config
from botocore.exceptions import ClientError

from tests.integration.fault_proxy import FaultProxy, Rule
from tests.integration.faulty import through
from tests.integration.moto_server import MotoServer
from tests.integration.s3_server import S3Server
from tests.unit.archives import (
    errors,
    good,
    read,
    some_bytes,
    source_of,
    tar_bytes,
    whole,
    zip_bytes,
)
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.read import read_unit
from tinyface_core.archive.record import Record
from tinyface_core.errors import StorageError
from tinyface_core.storage import Storage

pytestmark = pytest.mark.integration

ALL = CandidateFilter()


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
def waits(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    """What retries would have waited, in order; no time passes, but on the clock that bounds them it does."""
    waited: list[float] = []
    real = time.monotonic
    monkeypatch.setattr("tenacity.nap.time.sleep", waited.append)
    monkeypatch.setattr("time.monotonic", lambda: real() + sum(waited))
    return waited


# Faults that pass


@pytest.mark.parametrize("kind", ["503", "500", "reset", "truncate"])
def test_faults_that_pass_are_not_seen(proxy: FaultProxy, bucket: str, kind: str) -> None:
    storage = through(proxy)
    data = os.urandom(3 << 20)
    storage.write(f"s3://{bucket}/a.bin", data)
    for method in ("GET", "HEAD", "PUT", "DELETE"):
        proxy.rules[:] = [Rule(kind, method, "a.bin", count=2)]
        storage.write(f"s3://{bucket}/a.bin", data)
        info = storage.stat(f"s3://{bucket}/a.bin")
        assert info is not None
        assert storage.read(info.uri, info.version) == data
        proxy.rules[:] = [Rule(kind, method, "a.bin", count=2)]
        with storage.open_stream(info.uri, info.version) as file:
            assert file.read() == data
        proxy.rules[:] = [Rule(kind, method, "list-type", count=2)]
        assert len(list(storage.list(f"s3://{bucket}"))) == 1
        storage.delete(info.uri)
    assert storage.stat(f"s3://{bucket}/a.bin") is None


def test_a_stream_goes_on_where_it_was_cut(proxy: FaultProxy, bucket: str) -> None:
    """Half the body each time: the tar is read once, not from its start again."""
    storage = through(proxy)
    members = [(f"{number}.jpg", some_bytes(number, 50_000)) for number in range(40)]
    storage.write(f"s3://{bucket}/a.tar", tar_bytes(members))
    source = source_of(f"s3://{bucket}/a.tar", storage)
    proxy.rules[:] = [Rule("truncate", "GET", "a.tar", count=4)]
    proxy.log.clear()
    assert good(read(source, storage=storage)[0]) == members
    ranges = [asked for method, _, asked in proxy.log if method == "GET"]
    assert len(ranges) == 5
    first, *starts = [int(asked.removeprefix("bytes=").split("-")[0]) for asked in ranges]
    assert first == 0
    assert starts == sorted(starts)
    assert starts[0] > 0  # how much of what had come is lost with the connection is up to the client


def test_a_reply_that_is_lost_is_written_again(proxy: FaultProxy, bucket: str) -> None:
    storage = through(proxy)
    proxy.rules[:] = [Rule("lost_reply", "PUT", "a.bin", count=1)]
    storage.write(f"s3://{bucket}/a.bin", b"once")
    assert storage.read(f"s3://{bucket}/a.bin") == b"once"
    assert [method for method, _, _ in proxy.log] == ["PUT", "PUT", "GET"]


def test_a_conditional_put_whose_reply_is_lost_is_refused_although_it_was_done(proxy: FaultProxy, bucket: str) -> None:
    """By any client that tries again, which is why no write of ours has a condition (test_job_storage.py)."""
    client = boto3.client("s3", endpoint_url=proxy.endpoint, config=Config(retries={"total_max_attempts": 2}))
    proxy.rules[:] = [Rule("lost_reply", "PUT", "a.bin", count=1)]
    with pytest.raises(ClientError, match="PreconditionFailed"):
        client.put_object(Bucket=bucket, Key="a.bin", Body=b"mine", IfNoneMatch="*")
    assert through(proxy).read(f"s3://{bucket}/a.bin") == b"mine"
    assert len(proxy.conditional) == 2


# Faults that last


ACTIONS: dict[str, Callable[[Storage, str], object]] = {
    "reading": lambda storage, uri: storage.read(uri),
    "asking for": lambda storage, uri: storage.stat(uri),
    "listing": lambda storage, uri: list(storage.list(uri.rpartition("/")[0])),
    "writing": lambda storage, uri: storage.write(uri, b"2"),
    "deleting": lambda storage, uri: storage.delete(uri),
}


@pytest.mark.parametrize(
    ("kind", "named", "actions"),
    [
        ("503", r"SlowDown|503", list(ACTIONS)),
        ("500", r"InternalError|500", ["reading", "writing"]),
        ("reset", r"Connection|Disconnected", list(ACTIONS)),
        ("truncate", r"[Pp]ayload|Connection|ended early|IncompleteRead", ["reading", "listing"]),
        ("stall", r"[Tt]imeout|no answer in time", ["reading"]),
    ],
)
def test_what_lasts_is_given_up_after_bounded_tries_with_jitter_and_named(
    proxy: FaultProxy, bucket: str, waits: list[float], kind: str, named: str, actions: list[str]
) -> None:
    """s3fs alone asks 250 times, for 222 s. The waits grow, never past 5 s, and no two runs have the same ones."""
    storage = through(proxy, **{"config_kwargs.read_timeout": "0.2"} if kind == "stall" else {})
    uri = f"s3://{bucket}/a/b.bin"
    through(proxy).write(uri, os.urandom(1 << 20))
    for action in actions:
        proxy.rules[:] = [Rule(kind)]
        proxy.log.clear()
        waits.clear()
        with pytest.raises(StorageError, match=f"{action} s3://{bucket}/a.*given up after .* tries") as caught:
            ACTIONS[action](storage, uri)
        assert 4 <= len(proxy.log) <= 60, action
        assert 10 < sum(waits) <= 30, action
        assert max(waits) <= 5, action
        assert len(set(waits)) == len(waits), action
        assert re.search(named, str(caught.value)), str(caught.value)
    proxy.rules.clear()


def test_credentials_that_expire_stop_at_once_and_are_named(proxy: FaultProxy, bucket: str, waits: list[float]) -> None:
    """Asking again cannot help. A HEAD has no body to say so: the client looks for another region, we ask by GET."""
    storage, uri = through(proxy), f"s3://{bucket}/a/b.bin"
    storage.write(uri, b"1")
    proxy.rules[:] = [Rule("expired")]
    for action in ACTIONS:
        proxy.log.clear()
        with pytest.raises(StorageError, match=r"s3://.*ExpiredToken.*AWS_ACCESS_KEY_ID"):
            ACTIONS[action](storage, uri)
        assert len(proxy.log) == (3 if action == "asking for" else 1), action
    assert waits == []
    proxy.rules.clear()
    assert storage.read(uri) == b"1"


# Objects that go or change in between


def test_missing_objects_are_error_rows_not_stops(storage: Storage, bucket: str) -> None:
    storage.write(f"s3://{bucket}/a.jpg", b"1")
    source = source_of(f"s3://{bucket}/a.jpg", storage)
    storage.delete(source.uri)
    records, end = read(source, storage=storage)
    assert (errors(records), end.count) == ([(None, "unreadable")], 1)


@pytest.mark.parametrize("name", ["a.tar", "a.zip"])
@pytest.mark.parametrize("change", ["deleted", "replaced"])
def test_an_archive_that_goes_while_it_is_read_keeps_its_rows_so_far_and_says_why(
    proxy: FaultProxy, bucket: str, name: str, change: str
) -> None:
    """Never rows of two versions: the rest is one error row, which a changed source has planned again."""
    storage, uri = through(proxy), f"s3://{bucket}/{name}"
    members = [(f"{number:02}.jpg", some_bytes(number, 200_000)) for number in range(20)]
    make = tar_bytes if name == "a.tar" else zip_bytes
    storage.write(uri, make(members))
    source = source_of(uri, storage)
    # Each answer, as the first may break before a byte of it is taken; the next one asks for what has gone.
    proxy.rules[:] = [Rule("truncate", "GET", name)] if name == "a.tar" else []
    records = read_unit(whole(source), storage, ALL)
    seen = [next(records)]
    if change == "deleted":
        storage.delete(uri)
    else:
        storage.write(uri, make(members[::-1]))
    *rest, _ = records
    seen += [record for record in rest if isinstance(record, Record)]  # type: ignore[misc]
    so_far = good(seen)  # type: ignore[arg-type]
    assert so_far == members[: len(so_far)]
    assert 0 < len(so_far) < len(members)
    assert errors(seen) == [(None, "unreadable")]  # type: ignore[arg-type]
    message = seen[-1].error.message  # type: ignore[union-attr]
    assert ("no such object" if change == "deleted" else "changed meanwhile") in message
