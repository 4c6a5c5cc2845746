"""A web server that answers signed urls only, as S3 does presigned ones."""

from __future__ import annotations

import functools
import http.server
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qs, quote


@dataclass
class SignedServer:
    """Its folder, and the signature that it takes today."""

    folder: Path
    port: int = 0
    signature: str = "c0ffee+/="

    def url(self, name: str) -> str:
        return f"{self.plain(name)}?X-Amz-Date=1&X-Amz-Signature={quote(self.signature, safe='')}"

    def plain(self, name: str) -> str:
        return f"http://127.0.0.1:{self.port}/{name}"


@contextmanager
def signed_server(folder: Path) -> Iterator[SignedServer]:
    served = SignedServer(folder)
    handler = functools.partial(_Handler, served)
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        served.port = server.server_address[1]
        thread = threading.Thread(target=server.serve_forever, daemon=True)
        thread.start()
        yield served
        server.shutdown()
        thread.join()


class _Handler(http.server.BaseHTTPRequestHandler):
    def __init__(self, served: SignedServer, *request: object) -> None:
        self._served = served
        super().__init__(*request)  # type: ignore[arg-type]

    def log_message(self, *_: object) -> None:
        pass

    def do_HEAD(self) -> None:
        self.send_error(403)  # it is the GET that was signed

    def do_GET(self) -> None:
        name, _, query = self.path.partition("?")
        file = self._served.folder / name.lstrip("/")
        if parse_qs(query).get("X-Amz-Signature") != [self._served.signature]:
            self.send_error(403)
        elif not file.is_file():
            self.send_error(404)
        else:
            data = file.read_bytes()
            first, _, last = self.headers.get("Range", "bytes=0-").removeprefix("bytes=").partition("-")
            part = data[int(first) : int(last) + 1 if last else None]
            self.send_response(206)
            self.send_header("Content-Range", f"bytes {first}-{int(first) + len(part) - 1}/{len(data)}")
            self.send_header("Content-Length", str(len(part)))
            self.end_headers()
            self.wfile.write(part)
