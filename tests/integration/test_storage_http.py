"""Pictures on a web server: one that sends ranges, one that cannot, and one that answers as no server should."""

from __future__ import annotations

import functools
import re
import tracemalloc
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fault_proxy import FaultProxy, Rule
from tests.integration.odd_server import MEMBERS, Odd, Quiet, serving
from tests.integration.signed_server import SignedServer, signed_server
from tests.unit.archives import errors, good, read, some_members, tar_bytes, zip_bytes
from tinyface_core.archive.candidates import CandidateFilter, kind_of
from tinyface_core.archive.listing import list_sources
from tinyface_core.archive.loose import read_source
from tinyface_core.archive.record import Kind, Source, Unit
from tinyface_core.errors import ErrorClass, InputError, PictureError, Stage, StorageError
from tinyface_core.storage import ObjectDenied, ObjectMissing, Storage, unsigned
from tinyface_core.stores.base import with_retries

pytestmark = pytest.mark.integration


class Ranges(Quiet):
    def do_GET(self) -> None:
        data = Path(self.translate_path(self.path)).read_bytes()
        first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
        part = data[int(first) : int(last) + 1 if last else None]
        self.send_response(206)
        self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
        self.send_header("Content-Length", str(len(part)))
        self.end_headers()
        self.wfile.write(part)


@pytest.fixture(params=[Quiet, Ranges])
def served(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[tuple[str, bool]]:
    """(url of a folder with a.zip, a.tar and a.jpg, whether the server sends ranges)."""
    (tmp_path / "a.zip").write_bytes(zip_bytes(MEMBERS))
    (tmp_path / "a.tar").write_bytes(tar_bytes(MEMBERS))
    (tmp_path / "a.jpg").write_bytes(MEMBERS[0][1])
    with serving(functools.partial(request.param, directory=str(tmp_path))) as url:
        yield url, request.param is Ranges


@pytest.mark.parametrize("kind", ["503", "500", "reset", "truncate", "short_lie"])
@pytest.mark.parametrize("name", ["a.jpg", "a.tar", "a.zip"])
def test_faults_that_pass_are_not_seen(served: tuple[str, bool], kind: str, name: str) -> None:
    """Once they were error rows of archives, at the first cut."""
    url, sends_ranges = served
    if name == "a.zip" and not sends_ranges:
        return  # cannot be read at all
    if kind == "short_lie" and not sends_ranges:
        return  # a part and the whole look alike to fsspec: a tar tells by its headers
    with FaultProxy(url) as proxy:
        (source,) = list_sources([f"{proxy.endpoint}/{name}"], Storage(), CandidateFilter())
        proxy.rules[:] = [Rule(kind, "GET", name, count=2)]
        if name == "a.jpg":
            assert Storage().read(source.uri, source.version, source.size_bytes) == MEMBERS[0][1]
        else:
            assert good(read(source)[0]) == MEMBERS
        assert proxy.made[kind] == 2


def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    short = lambda attempt, what, patience_s: with_retries(attempt, what, 0.5)  # noqa: E731
    monkeypatch.setattr("tinyface_core.stores.generic.with_retries", short)


@pytest.mark.parametrize("name", ["a.jpg", "a.tar", "a.zip"])
def test_a_server_that_is_gone_stops_the_run(
    served: tuple[str, bool], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one error row a picture: the same command goes on when it is back."""
    url, sends_ranges = served
    if name == "a.zip" and not sends_ranges:
        return
    impatient(monkeypatch)
    with FaultProxy(url) as proxy:
        (source,) = list_sources([f"{proxy.endpoint}/{name}"], Storage(), CandidateFilter())
        proxy.rules[:] = [Rule("reset", "GET")]
        with pytest.raises(StorageError, match=f"/{name}: given up after"):
            read(source)


def test_a_picture_and_a_zip(served: tuple[str, bool]) -> None:
    """Without ranges a zip cannot be read: that is no damage, and the row says what helps."""
    url, sends_ranges = served
    (picture,) = list_sources([f"{url}/a.jpg"], Storage(), CandidateFilter())
    assert [data for _, data in good(read(picture)[0])] == [MEMBERS[0][1]]
    (archive,) = list_sources([f"{url}/a.zip"], Storage(), CandidateFilter())
    records = read(archive)[0]
    if sends_ranges:
        assert good(records) == MEMBERS
        return
    (record,) = records
    assert record.error is not None
    assert (record.error.stage, record.error.error_class) == (Stage.READ, ErrorClass.UNREADABLE)
    assert "cannot send a part of it" in record.error.message


@pytest.fixture
def signing(tmp_path: Path) -> Iterator[SignedServer]:
    (tmp_path / "a.zip").write_bytes(zip_bytes(some_members(3)))
    (tmp_path / "a.jpg").write_bytes(some_members(1)[0][1])
    with signed_server(tmp_path) as server:
        yield server


@pytest.mark.parametrize("name", ["a.jpg", "a.zip"])
def test_a_signed_url_is_read_and_never_shown(signing: SignedServer, name: str) -> None:
    (source,) = list_sources([signing.url(name)], Storage(), CandidateFilter())
    assert source.uri == signing.plain(name)
    records = read(source)[0]
    assert [data for _, data in good(records)] == [data for _, data in some_members(3 if name == "a.zip" else 1)]
    assert "c0ffee" not in repr((source, records))


@pytest.mark.parametrize("name", ["gone.jpg", "gone.zip"])
def test_what_is_wrong_with_a_signed_url_is_told_without_it(signing: SignedServer, name: str) -> None:
    url = signing.url(name)
    with pytest.raises(InputError) as refused:
        list(list_sources([url], Storage(), CandidateFilter()))
    (record,) = read(Source(unsigned(url), kind_of(name), signed_url=url))[0]
    denied = url.replace("Signature", "signature")
    (other,) = read(Source(unsigned(denied), kind_of(name), signed_url=denied))[0]
    assert record.error is not None
    assert other.error is not None
    for message in (str(refused.value), record.error.message, other.error.message):
        assert name in message
        assert "X-Amz" not in message
        assert "c0ffee" not in message


def test_a_query_does_not_hide_what_a_url_names(served: tuple[str, bool], tmp_path: Path) -> None:
    (tmp_path / "list.txt").write_text("a.tar?token=X\na.jpg?versionId=3\n")
    tar, picture = list_sources([f"{served[0]}/list.txt?path=/x.jpg"], Storage(), CandidateFilter())
    assert good(read(tar)[0]) == MEMBERS
    assert [data for _, data in good(read(picture)[0])] == [MEMBERS[0][1]]


@pytest.fixture
def odd() -> Iterator[tuple[str, list[str]]]:
    """(url of the server, what it was asked)."""
    asked: list[str] = []
    with serving(type("Asked", (Odd,), {"asked": asked})) as url:
        yield url, asked


GONE = ["404", "410", "414"]
REFUSED = ["400", "401", "403", "405", "406", "451", "loop.jpg", "file.jpg"]


@pytest.mark.parametrize("name", [*GONE, *REFUSED, "http://[no host/", "http://h:99999/a.jpg"])
def test_a_dead_url_costs_its_row_alone(
    odd: tuple[str, list[str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    """Not its neighbours, and no more tries: it answers the same each time."""
    impatient(monkeypatch)
    url, asked = odd
    dead = name if "://" in name else f"{url}/{name}"
    (tmp_path / "list.txt").write_text(f"{url}/a.jpg\n{dead}\n{url}/a.jpg\n")
    sources = list_sources([str(tmp_path / "list.txt")], Storage(), CandidateFilter())
    records = read(Unit(tuple(sources)))[0]
    assert len(good(records)) == 2
    assert errors(records) == [(None, "unreadable")]
    asked.clear()
    with pytest.raises(ObjectDenied if name in REFUSED else ObjectMissing, match=re.escape(dead)):
        Storage().read(dead, None, 5)
    assert name == "loop.jpg" or len(asked) <= 1


@pytest.mark.parametrize("status", ["408", "425", "429", "500", "503"])
def test_what_may_pass_is_tried_again(odd: tuple[str, list[str]], status: str, monkeypatch: pytest.MonkeyPatch) -> None:
    impatient(monkeypatch)
    url, asked = odd
    with pytest.raises(StorageError, match="given up after"):
        Storage().read(f"{url}/{status}", None, 5)
    assert len(asked) > 1


@pytest.mark.parametrize(
    ("name", "error", "message"),
    [
        ("endless.jpg", ErrorClass.TOO_LARGE, "more than 1048576 bytes came, .* copy it to disk or to S3"),
        ("packed.jpg", ErrorClass.TOO_LARGE, "more than 1048576 bytes came"),
        ("longer.jpg", ErrorClass.UNREADABLE, "more bytes came of 5"),
        ("badly_packed.jpg", ErrorClass.UNREADABLE, "cannot be unpacked"),
    ],
)
def test_a_body_is_read_no_further_than_it_may_be(
    odd: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch, name: str, error: ErrorClass, message: str
) -> None:
    monkeypatch.setattr("tinyface_core.stores.generic._UNTOLD_MOST_BYTES", 1 << 20)
    url = f"{odd[0]}/{name}"
    info = Storage().stat(url)
    assert info is not None
    tracemalloc.start()
    found = read_source(Source(url, Kind.PICTURE, info.size_bytes), Storage())
    most_bytes = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert isinstance(found, PictureError)
    assert found.error_class is error
    assert re.search(message, found.message)
    assert most_bytes < 8 << 20


def test_a_picture_costs_one_request(odd: tuple[str, list[str]]) -> None:
    url, asked = odd
    data = MEMBERS[0][1]
    for name, size_bytes in (("a.jpg", len(data)), ("untold.jpg", 0)):
        asked.clear()
        assert Storage().read(f"{url}/{name}", None, size_bytes) == data
        assert asked == [f"GET /{name}"]


def test_a_tar_needs_no_parts(served: tuple[str, bool], tmp_path: Path) -> None:
    """It is larger than what fsspec asks for at once: behind that it was an error row."""
    members = some_members(8, 1 << 20)
    (tmp_path / "large.tar").write_bytes(tar_bytes(members))
    (source,) = list_sources([f"{served[0]}/large.tar"], Storage(), CandidateFilter())
    assert good(read(source)[0]) == members


def test_archives_whose_size_is_not_told(odd: tuple[str, list[str]], monkeypatch: pytest.MonkeyPatch) -> None:
    """A tar goes on after a cut; a zip needs parts, and says so at once."""
    impatient(monkeypatch)
    url, asked = odd
    assert good(read(Source(f"{url}/cut.tar", Kind.TAR))[0]) == MEMBERS
    assert asked.count("GET /cut.tar") > 3
    (record,) = read(Source(f"{url}/untold.zip", Kind.ZIP))[0]
    assert record.error is not None
    assert "cannot send a part of it" in record.error.message
