"""What is special about web servers: options, bodies that may never end, and answers that will not change.

Knows fsspec's HTTP file system and aiohttp, on which that rests; decides nothing about retries.
"""

from __future__ import annotations

import inspect
from typing import Any

import aiohttp
import fsspec
from aiohttp.http_exceptions import ContentEncodingError, HttpProcessingError
from fsspec.asyn import sync

from tinyface_core.stores.base import Damaged, ObjectDenied, ObjectError, ObjectMissing

PROTOCOLS = ("http", "https")
_GONE = (404, 410, 414)
_MAY_PASS = (408, 425, 429)  # of the statuses 400 to 499, which say that the request is at fault
_NO_RANGES = "the server cannot send a part of it, which zip and Parquet need: copy it to disk or to S3"
_NO_PARTS = ("range requests", "Cannot seek")  # fsspec's words, which speak of its own arguments


def own_options(arguments: dict[str, Any]) -> dict[str, Any]:
    """Those that are for web servers, where a run reads from one and writes to another store: http takes no S3 keys."""
    takers = (fsspec.get_filesystem_class("http").__init__, aiohttp.ClientSession._request)
    names = {name for taker in takers for name in inspect.signature(taker).parameters}
    return {name: value for name, value in arguments.items() if name in names}


def body_of(file_system: Any, url: str, most_bytes: int) -> bytes:
    """What one GET brings, unpacked where the server packed it; once that is more than `most_bytes`, no more is read.

    Raises: what aiohttp raises, also for a status from 400 on.
    """

    async def read() -> bytes:
        session = await file_system.set_session()
        async with session.get(file_system.encode_url(url), **file_system.kwargs) as response:
            response.raise_for_status()
            data = bytearray()
            async for piece in response.content.iter_any():
                data += piece
                if len(data) > most_bytes:
                    break
            return bytes(data)

    data: bytes = sync(file_system.loop, read)
    return data


def info_of_known(file_system: Any, url: str) -> dict[str, Any]:
    """Its `info` of what was there before. That calls every fault a missing file; here it is raised as what it is."""
    try:
        found: dict[str, Any] = file_system.info(url)
    except FileNotFoundError as error:
        if error.__cause__ is None or isinstance(error.__cause__, FileNotFoundError):
            raise
        raise error.__cause__ from None
    return found


def sends_no_parts(error: BaseException) -> bool:
    """Whether a server, asked for a part of an object, was seen to send none."""
    return isinstance(error, ValueError) and any(words in str(error) for words in _NO_PARTS)


def about_one_url(error: Exception, uri: str) -> ObjectError | Damaged | None:
    """What is wrong with this url alone, and will be at the next try; None for what may pass, and for dead servers.

    An answer that is no HTTP has a status too, which aiohttp made up.
    """
    if sends_no_parts(error):
        return ObjectDenied(f"{uri}: cannot be read: {_NO_RANGES}")
    if isinstance(error, aiohttp.TooManyRedirects):
        return ObjectDenied(f"{uri}: its redirects do not end")
    if isinstance(error, aiohttp.RedirectClientError):
        return ObjectDenied(f"{uri}: leads on to what is no http url, which is not followed")
    if isinstance(error, ValueError) and not isinstance(error, OSError):  # a wrong certificate is both
        return ObjectMissing(f"{uri}: no server can be asked for such a url: check its spelling")
    if isinstance(error.__cause__, ContentEncodingError):
        return Damaged("what came cannot be unpacked as its Content-Encoding says")
    if not isinstance(error, aiohttp.ClientResponseError) or isinstance(error.__cause__, HttpProcessingError):
        return None
    if error.status in _GONE:
        return ObjectMissing(f"{uri}: no such object ({error.status})")
    if 400 <= error.status < 500 and error.status not in _MAY_PASS:
        return ObjectDenied(f"{uri}: the server answers {error.status} {error.message}".rstrip())
    return None
