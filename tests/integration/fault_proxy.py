"""A reverse proxy before the S3 server that makes the faults of a network, by rules, and keeps a log of requests.

Headers and the raw path go through untouched, or signatures would break. Runs in a thread of its own.
"""

from __future__ import annotations

import asyncio
import io
import threading
from collections.abc import Callable
from dataclasses import dataclass, field
from types import TracebackType

import aiohttp
from aiohttp import web
from yarl import URL

_HOP_BY_HOP = {"connection", "keep-alive", "transfer-encoding", "te", "trailer", "upgrade", "proxy-connection"}
_XML = "<?xml version='1.0'?><Error><Code>{}</Code><Message>made by the test</Message></Error>"


@dataclass
class Rule:
    """Applies `kind` to the next `count` requests whose method and path fit.

    kind: `503`, `500`, `reset` (before the answer), `truncate` (half the body, then the connection closes), `stall`
    (for `stall_s`, then as it should be), `lost_reply` (done, but the answer does not come).
    """

    kind: str
    method: str = ""
    path_part: str = ""
    count: int = 1 << 30
    stall_s: float = 60.0

    def takes(self, request: web.Request) -> bool:
        if self.count and self.method in ("", request.method) and self.path_part in request.raw_path:
            self.count -= 1
            return True
        return False


@dataclass
class FaultProxy:
    """`with FaultProxy(upstream) as proxy:` listens at `proxy.endpoint`; `rules` may change at any time."""

    upstream: str
    rules: list[Rule] = field(default_factory=list)
    log: list[tuple[str, str, str]] = field(default_factory=list)  # method, raw path, Range header
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
        rule = next((rule for rule in self.rules if rule.takes(request)), None)  # type: ignore[arg-type]
        kind = rule.kind if rule else ""
        if kind in ("503", "500"):
            code = {"503": "SlowDown", "500": "InternalError"}[kind]
            return web.Response(status=int(kind), text=_XML.format(code), content_type="application/xml")
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
        async with self._session.request(
            request.method, url, headers=headers, data=io.BytesIO(body) if body else None
        ) as answer:
            data = await answer.read()
            if kind == "lost_reply":
                request.transport.abort()
                return web.Response()
            kept = {key: value for key, value in answer.headers.items() if key.lower() not in _HOP_BY_HOP}
            response = web.StreamResponse(status=answer.status, headers=kept)
            await response.prepare(request)
            await response.write(data[: len(data) // 2] if kind == "truncate" else data)
            if kind == "truncate":
                request.transport.close()
            else:
                await response.write_eof()
            return response
