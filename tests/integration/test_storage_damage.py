"""What only a server that checks can show: bytes that change on the way, signatures, a store that dies.

SeaweedFS behind a proxy; moto checks no signature, MD5 or CRC, and forgets everything when it ends.
"""

from __future__ import annotations

import threading
import time
from collections.abc import Callable

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.integration.fault_proxy import FaultProxy, Rule
from tests.integration.faulty import put_bare, through
from tests.integration.s3_server import S3Server
from tests.unit.archives import (
    errors,
    good,
    parquet_bytes,
    read,
    some_members,
    source_of,
    tar_bytes,
    zip_bytes,
)
from tests.unit.row_samples import make_rows, make_unit
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.listing import list_sources
from tinyface_core.archive.record import Unit
from tinyface_core.errors import InputError, StopRun, StorageError
from tinyface_core.storage import ObjectDenied, Storage, StorageOptions
from tinyface_core.tables.commit import Committer
from tinyface_core.tables.footer import committed, detections_uri, images_uri
from tinyface_core.tables.redo import UnitWork, committed_tables

pytestmark = pytest.mark.integration

ALL = CandidateFilter()


def test_a_server_that_comes_back_is_waited_for(s3_server: S3Server, bucket: str) -> None:
    storage = Storage()
    storage.write(f"s3://{bucket}/a", b"1")
    s3_server.kill()
    restart = threading.Timer(2.0, s3_server.restart)
    restart.start()
    assert storage.read(f"s3://{bucket}/a") == b"1"
    restart.join()


def test_wrong_credentials_stop_the_run_and_are_hidden(storage: Storage, bucket: str) -> None:
    uri = f"s3://{bucket}/a"
    storage.write(uri, b"1")
    wrong = Storage(StorageOptions(extra=(("key", "tinyface-test"), ("secret", "wrong-secret-0815"))))
    for action in (lambda: wrong.read(uri), lambda: wrong.stat(uri), lambda: list(wrong.list(f"s3://{bucket}"))):
        with pytest.raises(StorageError, match="AWS_ACCESS_KEY_ID") as caught:
            action()
        assert "0815" not in str(caught.value)
    anonymous = Storage(StorageOptions(anonymous=True))
    with pytest.raises(ObjectDenied):
        anonymous.read(uri)
    with pytest.raises(InputError, match="no permission"):
        list_sources([f"s3://{bucket}/a"], anonymous, ALL)


@pytest.mark.slow
def test_a_write_that_hangs_stops_within_20_s(proxy: FaultProxy, bucket: str) -> None:
    """By the clock on the wall, with a second try: the lease of the driver rests on it."""
    proxy.rules[:] = [Rule("stall")]
    began = time.monotonic()
    with pytest.raises(StorageError, match="writing s3://"):
        through(proxy).write(f"s3://{bucket}/a.bin", b"1")
    assert time.monotonic() - began < 20
    assert [method for method, _, _ in proxy.log] == ["PUT", "PUT"]


# Bytes that are not those of the store: what each container can tell


MEMBERS = some_members(6, 3000)
ARCHIVES: dict[str, bytes] = {
    "a.tar": tar_bytes(MEMBERS),
    "a.tar.gz": tar_bytes(MEMBERS, "w:gz", compresslevel=0),  # so that their bytes can be found in it
    "a.zip": zip_bytes(MEMBERS),
    "a.parquet": parquet_bytes(MEMBERS),
}


def byte_of(name: str, member: int) -> int:
    """A place within a member's bytes, which are random: no container packs them."""
    data = ARCHIVES[name]
    place = data.find(MEMBERS[member][1][1000:1032])
    assert place > 0
    return place


@pytest.mark.parametrize("name", ["a.jpg", *ARCHIVES])
def test_an_answer_that_is_short_and_says_so_is_never_a_shorter_picture(
    proxy: FaultProxy, s3_server: S3Server, bucket: str, name: str
) -> None:
    """Half the body with a length that fits it, three times: the rest is asked for, whole read or ranged."""
    wanted = MEMBERS if name in ARCHIVES else [("", MEMBERS[0][1])]
    uri = put_bare(s3_server, bucket, name, ARCHIVES.get(name, MEMBERS[0][1]))
    storage = through(proxy)
    source = source_of(uri, storage)
    proxy.rules[:] = [Rule("short_lie", "GET", name, count=2)]
    assert good(read(source, storage=storage)[0]) == wanted
    assert proxy.made == {"short_lie": 2}


def test_a_loose_picture_that_comes_short_for_good_is_an_error_row_beside_its_neighbours(
    proxy: FaultProxy, s3_server: S3Server, bucket: str
) -> None:
    storage = through(proxy)
    for number, (_, data) in enumerate(MEMBERS[:3]):
        put_bare(s3_server, bucket, f"{number}.jpg", data)
    sources = tuple(source_of(f"s3://{bucket}/{number}.jpg", storage) for number in range(3))
    proxy.rules[:] = [Rule("short_lie", "GET", "/1.jpg")]
    records, _ = read(Unit(sources), storage=storage)
    assert [data for _, data in good(records)] == [MEMBERS[0][1], MEMBERS[2][1]]
    (error,) = [record.error for record in records if record.error is not None]
    assert (error.error_class, "bytes came of 3004" in error.message or error.message) == ("unreadable", True)


@pytest.mark.parametrize("bare", [False, True], ids=["checksum stored", "MD5 in the ETag"])
def test_a_byte_that_flips_on_the_way_to_a_loose_picture_is_read_again(
    proxy: FaultProxy, s3_server: S3Server, bucket: str, bare: bool
) -> None:
    storage, uri = through(proxy), f"s3://{bucket}/a.jpg"
    data = MEMBERS[0][1]
    if bare:
        put_bare(s3_server, bucket, "a.jpg", data)
    else:
        storage.write(uri, data)
    proxy.rules[:] = [Rule("flip", "GET", "a.jpg", count=1)]
    assert storage.read(uri) == data
    assert proxy.made == {"flip": 1}


def test_a_loose_picture_that_flips_for_good_is_an_error_row_where_a_checksum_is_stored(
    proxy: FaultProxy, s3_server: S3Server, bucket: str
) -> None:
    """Without one nothing can tell: an ETag may look like an MD5 and be none, so what comes twice is believed."""
    storage = through(proxy)
    for number, (_, data) in enumerate(MEMBERS[:3]):
        storage.write(f"s3://{bucket}/{number}.jpg", data)
    bare = put_bare(s3_server, bucket, "bare.jpg", MEMBERS[3][1])
    sources = [source_of(f"s3://{bucket}/{number}.jpg", storage) for number in range(3)]
    proxy.rules[:] = [Rule("flip", "GET", name, byte=100) for name in ("/1.jpg", "bare.jpg")]
    records, _ = read(Unit((*sources, source_of(bare, storage))), storage=storage)
    (error,) = [record.error for record in records if record.error is not None]
    assert error.error_class == "unreadable"
    assert "checksum" in error.message
    assert [data for _, data in good(records)] == [MEMBERS[0][1], MEMBERS[2][1], flipped(MEMBERS[3][1], 100)]


def flipped(data: bytes, place: int) -> bytes:
    return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]


CORRUPT = [(None, "corrupt")]
# (archive, place of the flip) -> how many members stand from the first on, and which rows tell
FLIPS: dict[str, tuple[str, Callable[[bytes], int], int, list[tuple[str | None, str]]]] = {
    "the header of a tar's member": ("a.tar", lambda data: data.find(MEMBERS[3][0].encode()), 3, CORRUPT),
    "a zip's directory": ("a.zip", lambda data: data.rfind(b"PK\x01\x02"), 0, CORRUPT),
    "a page of a Parquet file": ("a.parquet", lambda data: byte_of("a.parquet", 3), 2, CORRUPT),
    "the footer of a Parquet file": ("a.parquet", lambda data: len(data) - 6, 0, CORRUPT),
}


@pytest.mark.parametrize("case", FLIPS)
def test_a_flipped_byte_is_told_by_what_the_container_checks(proxy: FaultProxy, bucket: str, case: str) -> None:
    """The rows before it stand, and one error row says where the archive breaks."""
    name, place, stand, told = FLIPS[case]
    storage, uri = through(proxy), f"s3://{bucket}/{name}"
    storage.write(uri, ARCHIVES[name])
    source = source_of(uri, storage)
    proxy.rules[:] = [Rule("flip", "GET", name, byte=place(ARCHIVES[name]))]
    records, _ = read(source, storage=storage)
    assert proxy.made["flip"] > 0
    assert good(records) == MEMBERS[:stand]
    assert errors(records) == told


def test_a_flipped_byte_in_a_zips_member_costs_one_row(proxy: FaultProxy, bucket: str) -> None:
    storage, uri = through(proxy), f"s3://{bucket}/a.zip"
    storage.write(uri, ARCHIVES["a.zip"])
    source = source_of(uri, storage)
    proxy.rules[:] = [Rule("flip", "GET", "a.zip", byte=byte_of("a.zip", 3))]
    records, _ = read(source, storage=storage)
    assert good(records) == MEMBERS[:3] + MEMBERS[4:]
    assert errors(records) == [(MEMBERS[3][0], "member_corrupt")]


def test_a_flipped_byte_in_a_gzipped_tar_is_told_behind_its_last_member(proxy: FaultProxy, bucket: str) -> None:
    """The sum stands at the end: which member it was nobody can tell, and its row stands."""
    storage, uri = through(proxy), f"s3://{bucket}/a.tar.gz"
    storage.write(uri, ARCHIVES["a.tar.gz"])
    source = source_of(uri, storage)
    proxy.rules[:] = [Rule("flip", "GET", "a.tar.gz", byte=byte_of("a.tar.gz", 3))]
    records, _ = read(source, storage=storage)
    assert [name for name, _ in good(records)] == [name for name, _ in MEMBERS]
    assert errors(records) == [(None, "corrupt")]


@pytest.mark.parametrize("name", ["a.tar", "unchecked.parquet"])
def test_a_flipped_byte_in_a_plain_tars_member_or_an_unchecked_page_is_what_nothing_can_tell(
    proxy: FaultProxy, bucket: str, name: str
) -> None:
    """Neither container has a sum over it, and a range has none of the store: docs/guarantees.md says so."""
    if name == "a.tar":
        data, place = ARCHIVES[name], byte_of(name, 3)
    else:
        buffer = pa.BufferOutputStream()
        names, bodies = zip(*MEMBERS, strict=True)
        pq.write_table(pa.table({"path": names, "image": bodies}), buffer, compression="none")
        data = buffer.getvalue().to_pybytes()
        place = data.find(MEMBERS[3][1][1000:1032])
    storage, uri = through(proxy), f"s3://{bucket}/{name}"
    storage.write(uri, data)
    source = source_of(uri, storage)
    proxy.rules[:] = [Rule("flip", "GET", name, byte=place)]
    records, _ = read(source, storage=storage)
    assert errors(records) == []
    wrong = [seen for seen, member in zip(good(records), MEMBERS, strict=True) if seen != member]
    assert wrong == [(MEMBERS[3][0], flipped(MEMBERS[3][1], 1000))]


# Our own tables, read back


def test_rows_that_are_read_back_are_those_that_were_committed_or_stop_the_run(
    proxy: FaultProxy, s3_server: S3Server, bucket: str
) -> None:
    """Each byte may flip for good: the commit's hash tells it, where it is not one that no row depends on."""
    storage, unit = through(proxy), make_unit(5)
    output = f"s3://{bucket}/out"
    Committer(storage, output, "settings", "model").write(UnitWork.whole(unit), "sources", make_rows(unit, faces=2))
    (record,) = committed(storage, output).values()
    sound = committed_tables(storage, record)
    files = images_uri(output, unit.name), detections_uri(output, unit.name, record.commit)
    proxy.rules[:] = [Rule("flip", "GET", "part-", count=1)]
    assert committed_tables(storage, record) == sound

    stopped = 0
    for uri in files:
        data = storage.read(uri)
        put_bare(s3_server, bucket, uri.removeprefix(f"s3://{bucket}/"), data)
        for place in range(0, len(data), len(data) // 12):
            proxy.rules[:] = [Rule("flip", "GET", uri.rpartition("/")[2], byte=place)]
            try:
                read_back = committed_tables(storage, record)
            except StopRun as error:
                stopped += record.uri in str(error)
            else:
                found = [table.to_pylist() for table in read_back]
                assert found == [table.to_pylist() for table in sound], f"byte {place} of {uri}"
    assert stopped > 8


def test_a_commit_record_that_flips_never_names_rows_of_another_commit(proxy: FaultProxy, bucket: str) -> None:
    """A footer has no sum: at worst the unit is not done, and is worked again."""
    storage, unit = through(proxy), make_unit(3)
    output = f"s3://{bucket}/out"
    Committer(storage, output, "settings", "model").write(UnitWork.whole(unit), "sources", make_rows(unit))
    (record,) = committed(storage, output).values()
    data = storage.read(record.uri)
    names = [data.rfind(record.commit.encode()) + place for place in (0, 17, 31)]
    names += [data.rfind(record.unit.encode()), len(data) - 1, len(data) - 7, len(data) - 100]
    for place in names:
        proxy.rules[:] = [Rule("flip", "GET", "images/part-", byte=place)]
        assert all(found.commit == record.commit for found in committed(storage, output).values()), place
