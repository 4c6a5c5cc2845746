"""Web servers of the tests: Python's own, and one that answers as no server should."""

from __future__ import annotations

import contextlib
import gzip
import http.server
import threading
from collections.abc import Callable, Iterator

from tests.unit.archives import some_members, tar_bytes, zip_bytes

MEMBERS = some_members(3, 60_000)  # a zip of more than its reader takes from the end at once
PACKED = gzip.compress(bytes(64 << 20), 1)


@contextlib.contextmanager
def serving(handler: Callable[..., http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    """The url of a server that answers with `handler`."""
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
        thread.start()
        yield f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


class Quiet(http.server.SimpleHTTPRequestHandler):
    """Python's own server, which answers every request with the whole file."""

    def log_message(self, *_: object) -> None:
        pass


class Odd(Quiet):
    """Answers by the path: a number is the status, other names are in `answer`."""

    protocol_version = "HTTP/1.1"
    asked: list[str]  # methods and paths

    def do_HEAD(self) -> None:
        self.answer()

    do_GET = do_HEAD

    def handle(self) -> None:
        with contextlib.suppress(OSError):  # the reader hung up, as it should
            super().handle()

    def answer(self) -> None:
        self.asked.append(f"{self.command} {self.path}")
        name = self.path.strip("/")
        match name:
            case "a.jpg":
                self.reply(200, [MEMBERS[0][1]], length=True)
            case "longer.jpg":
                self.reply(200, [b"12345"] if self.command == "HEAD" else [b"123456789"], length=True)
            case "loop.jpg" | "file.jpg":
                self.reply(302, [], length=True, Location="/loop.jpg" if name == "loop.jpg" else "file:///etc/passwd")
            case "untold.jpg":
                self.reply(200, [MEMBERS[0][1]])
            case "untold.zip":
                self.reply(200, [zip_bytes(MEMBERS)])
            case "endless.jpg":
                self.reply(200, [bytes(1 << 16)] * 10_000)
            case "packed.jpg":
                self.reply(200, [PACKED], length=True, **{"Content-Encoding": "gzip"})
            case "badly_packed.jpg":
                self.reply(200, [b"no gzip"], length=True, **{"Content-Encoding": "gzip"})
            case "cut.tar":
                data = tar_bytes(MEMBERS)
                is_cut = self.asked.count("GET /cut.tar") in (2, 3)  # the first only asks for the size
                self.reply(200, [data[:100_000]] if is_cut else [data], is_cut=is_cut)
            case status:
                self.reply(int(status), [], length=True)

    def reply(
        self, status: int, pieces: list[bytes], *, length: bool = False, is_cut: bool = False, **headers: str
    ) -> None:
        """length: told beforehand; else the pieces come as chunks, the last of which ends it."""
        self.send_response(status)
        self.send_header(
            *(("Content-Length", str(sum(map(len, pieces)))) if length else ("Transfer-Encoding", "chunked"))
        )
        for name, value in headers.items():
            self.send_header(name, value)
        self.end_headers()
        if self.command == "HEAD":
            return
        for piece in pieces:
            self.wfile.write(piece if length else b"%x\r\n%b\r\n" % (len(piece), piece))
        if is_cut:
            self.close_connection = True
        elif not length:
            self.wfile.write(b"0\r\n\r\n")
