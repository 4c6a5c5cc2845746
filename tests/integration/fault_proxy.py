"""A reverse proxy before the S3 server that makes the faults of a network, by rules, and keeps a log of requests.

Headers and the raw path go through untouched, or signatures would break. Runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import io
import random
import threading
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import aiohttp
from aiohttp import web
from yarl import URL

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}
_XML = "<?xml version='1.0'?><Error><Code>{}</Code><Message>made by the test</Message></Error>"
_REFUSALS = {
    "503": (503, "SlowDown"),
    "500": (500, "InternalError"),
    "expired": (400, "ExpiredToken"),
    "denied": (403, "AccessDenied"),
}


@dataclass
class Rule:
    """Applies `kind` to the next `count` requests whose method and path fit; of those, drawn by `seed`, to a `share`.

    kind: `503`, `500`, `expired` (credentials), `denied`, `reset` (before the answer), `truncate` (half the body, then
    the connection closes), `short_lie` (half the body, with a length that says so), `flip` (one byte), `stall` (for
    `stall_s`, then as it should be), `lost_reply` (done, but the answer does not come).
    byte: place in the object; the rule takes only answers that hold it. None: any, and the byte in their middle.
    """

    kind: str
    method: str = ""
    path_part: str = ""
    count: int = 1 << 30
    stall_s: float = 60.0
    byte: int | None = None
    share: float = 1.0
    seed: int = 0

    def __post_init__(self) -> None:
        self._random = random.Random(self.seed)

    def takes(self, request: web.Request) -> bool:
        if not self.count or self.method not in ("", request.method) or self.path_part not in request.raw_path:
            return False
        if self.byte is not None and self.byte not in _asked(request.headers.get("Range", "")):
            return False
        if self.share < 1 and self._random.random() >= self.share:
            return False
        self.count -= 1
        return True

    def damaged(self, data: bytes, asked: str) -> bytes:
        """What comes instead of the body. asked: the Range header."""
        if self.kind in ("truncate", "short_lie"):
            return data[: len(data) // 2]
        if self.kind == "flip" and data:
            place = len(data) // 2 if self.byte is None else self.byte - _asked(asked).start
            return data[:place] + bytes([data[place] ^ 0x10]) + data[place + 1 :]
        return data


def _asked(header: str) -> range:
    """The bytes that a Range header asks for, of an object of any size."""
    start, _, last = header.removeprefix("bytes=").partition("-")
    return range(int(start or 0), int(last) + 1 if last else 1 << 62)


@dataclass
class FaultProxy:
    """`with FaultProxy(upstream) as proxy:` listens at `proxy.endpoint`; `rules` may change at any time.

    log: method, raw path and Range header of each request. made: kind of each fault that was made. conditional: raw
    paths of writes with a condition.
    """

    upstream: str
    rules: list[Rule] = field(default_factory=list)
    log: list[tuple[str, str, str]] = field(default_factory=list)
    made: Counter[str] = field(default_factory=Counter)
    conditional: list[str] = field(default_factory=list)
    endpoint: str = ""

    def __enter__(self) -> FaultProxy:
        self._loop = asyncio.new_event_loop()
        started = threading.Event()
        self._thread = threading.Thread(target=self._run, args=(started.set,), daemon=True)
        self._thread.start()
        assert started.wait(20)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(20)
        self._loop.close()

    def _run(self, tell: Callable[[], None]) -> None:
        asyncio.set_event_loop(self._loop)
        self._loop.run_until_complete(self._serve(tell))

    async def _serve(self, tell: Callable[[], None]) -> None:
        self._stop = asyncio.Event()
        async with aiohttp.ClientSession(auto_decompress=False) as self._session:
            runner = web.ServerRunner(web.Server(self._handle), shutdown_timeout=0.1)
            await runner.setup()
            site = web.TCPSite(runner, "127.0.0.1", 0)
            await site.start()
            self.endpoint = f"http://127.0.0.1:{runner.addresses[0][1]}"
            tell()
            await self._stop.wait()
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        assert request.transport is not None
        self.log.append((request.method, request.raw_path, request.headers.get("Range", "")))
        if request.method in ("PUT", "POST") and ("If-None-Match" in request.headers or "If-Match" in request.headers):
            self.conditional.append(request.raw_path)
        rule = next((rule for rule in self.rules if rule.takes(request)), None)  # type: ignore[arg-type]
        kind = rule.kind if rule else ""
        if kind:
            self.made[kind] += 1
        if kind in _REFUSALS:
            status, code = _REFUSALS[kind]
            return web.Response(status=status, text=_XML.format(code), content_type="application/xml")
        if kind == "reset":
            request.transport.abort()
            return web.Response()
        if rule is not None and kind == "stall":
            await asyncio.sleep(rule.stall_s)
        headers = {key: value for key, value in request.headers.items() if key.lower() not in _HOP_BY_HOP}
        url = URL(self.upstream + request.raw_path, encoded=True)
        if headers.pop("Expect", ""):
            await request.writer.write(b"HTTP/1.1 100 Continue\r\n\r\n")
        body = await request.content.read()  # `request.read` has a limit of size
        try:
            status, data, kept = await self._forward(request.method, url, headers, body)
        except aiohttp.ClientError:  # the server is not there
            request.transport.abort()
            return web.Response()
        if kind == "lost_reply":
            request.transport.abort()
            return web.Response()
        if rule is not None and status < 300:  # an error's XML stays as it is
            data = rule.damaged(data, request.headers.get("Range", ""))
        if kind == "short_lie" and request.method == "GET":
            kept["Content-Length"] = str(len(data))
        response = web.StreamResponse(status=status, headers=kept)
        await response.prepare(request)
        await response.write(data)
        if kind == "truncate":
            request.transport.close()
        else:
            await response.write_eof()
        return response

    async def _forward(
        self, method: str, url: URL, headers: dict[str, str], body: bytes
    ) -> tuple[int, bytes, dict[str, str]]:
        """Status, body and headers of the server's answer."""
        data = io.BytesIO(body) if body else None
        async with self._session.request(method, url, headers=headers, data=data) as answer:
            kept = {key: value for key, value in answer.headers.items() if key.lower() not in _HOP_BY_HOP}
            return answer.status, await answer.read(), kept
