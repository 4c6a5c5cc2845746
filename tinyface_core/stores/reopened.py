"""A file of any file system that goes on where it was after a fault."""

from __future__ import annotations

import io
from collections.abc import Callable
from typing import Any, TypeVar

from tinyface_core.stores.web import sends_no_parts

T = TypeVar("T")
BUFFER_BYTES = 1 << 20


class ReopenedFile(io.RawIOBase):
    """A file that is opened again, where it was, after a fault that may pass; and that never ends before its size.

    attempt: runs a call with retries, and names its faults. size_bytes: 0 where it is unknown. open_whole: opens it to
    be read from the start in one request, once the server is seen to send no parts.
    """

    def __init__(
        self,
        open_file: Callable[[], Any],
        attempt: Callable[[Callable[[], Any]], Any],
        size_bytes: int,
        open_whole: Callable[[], Any] | None = None,
    ) -> None:
        super().__init__()
        self._open, self._attempt, self._size, self._open_whole = open_file, attempt, size_bytes, open_whole
        self._position = 0
        self._file = attempt(open_file)

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return bool(self._file is None or self._file.seekable())

    def tell(self) -> int:
        return self._position

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        self._position = int(self._attempt(lambda: self._in_place(lambda file: file.seek(offset, whence))))
        return self._position

    def readinto(self, buffer: Any) -> int:
        data: bytes = self._attempt(lambda: self._in_place(lambda file: self._read(file, len(buffer))))
        buffer[: len(data)] = data
        self._position += len(data)
        return len(data)

    def close(self) -> None:
        self._drop()
        super().close()

    def _in_place(self, call: Callable[[Any], T]) -> T:
        try:
            if self._file is None:
                self._file = self._open()
                self._find_place(self._file)
            return call(self._file)
        except BaseException as error:
            self._drop()
            if self._open_whole is None or not sends_no_parts(error):
                raise
        self._open, self._open_whole = self._open_whole, None
        return self._in_place(call)

    def _find_place(self, file: Any) -> None:
        if file.seekable():
            try:
                file.seek(self._position)
                return
            except ValueError:  # fsspec's HTTP stream says that it can, and cannot
                pass
        left = self._position
        while left and (skipped := file.read(min(left, BUFFER_BYTES))):
            left -= len(skipped)

    def _read(self, file: Any, size: int) -> bytes:
        data: bytes = file.read(size)
        if size and not data and self._position < self._size:
            raise EOFError(f"ends after {self._position} of {self._size} bytes")
        return data

    def _drop(self) -> None:
        file, self._file = self._file, None
        if file is not None:
            file.close()
