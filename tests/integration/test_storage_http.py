"""Pictures on a web server: one that sends ranges, and one that cannot."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.integration.fault_proxy import FaultProxy, Rule
from tests.integration.signed_server import SignedServer, signed_server
from tests.unit.archives import good, read, some_members, tar_bytes, zip_bytes
from tinyface_core.archive.candidates import CandidateFilter, kind_of
from tinyface_core.archive.listing import list_sources
from tinyface_core.archive.record import Source
from tinyface_core.errors import ErrorClass, InputError, Stage, StorageError
from tinyface_core.storage import Storage, unsigned
from tinyface_core.stores.base import with_retries

pytestmark = pytest.mark.integration


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Python's own server, which answers every request with the whole file."""

    def log_message(self, *_: object) -> None:
        pass


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
    (tmp_path / "a.zip").write_bytes(zip_bytes(some_members(3)))
    (tmp_path / "a.tar").write_bytes(tar_bytes(some_members(3)))
    (tmp_path / "a.jpg").write_bytes(some_members(1)[0][1])
    handler = functools.partial(request.param, directory=str(tmp_path))
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}", request.param is Ranges
        server.shutdown()
        thread.join()


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
            assert Storage().read(source.uri, source.version, source.size_bytes) == some_members(1)[0][1]
        else:
            assert good(read(source)[0]) == some_members(3)
        assert proxy.made[kind] == 2


@pytest.mark.parametrize("name", ["a.jpg", "a.tar", "a.zip"])
def test_a_server_that_is_gone_stops_the_run(
    served: tuple[str, bool], name: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Not one error row a picture: the same command goes on when it is back."""
    url, sends_ranges = served
    if name == "a.zip" and not sends_ranges:
        return
    short = lambda attempt, what, patience_s: with_retries(attempt, what, 0.5)  # noqa: E731
    monkeypatch.setattr("tinyface_core.stores.generic.with_retries", short)
    with FaultProxy(url) as proxy:
        (source,) = list_sources([f"{proxy.endpoint}/{name}"], Storage(), CandidateFilter())
        proxy.rules[:] = [Rule("reset", "GET")]
        with pytest.raises(StorageError, match=f"/{name}: given up after"):
            read(source)


def test_a_picture_and_a_zip(served: tuple[str, bool]) -> None:
    """Without ranges a zip cannot be read: that is no damage, and the row says what helps."""
    url, sends_ranges = served
    (picture,) = list_sources([f"{url}/a.jpg"], Storage(), CandidateFilter())
    assert [data for _, data in good(read(picture)[0])] == [some_members(1)[0][1]]
    (archive,) = list_sources([f"{url}/a.zip"], Storage(), CandidateFilter())
    records = read(archive)[0]
    if sends_ranges:
        assert good(records) == some_members(3)
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
