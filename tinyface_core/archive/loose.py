"""Loose pictures: one object, one record. Reads a few ahead, as an object store answers slowly but many at once."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

from tinyface_core.archive.members import MAX_PICTURE_BYTES, Numbering
from tinyface_core.archive.record import CHANGED, DENIED, Record, Source, Unit
from tinyface_core.errors import ErrorClass, PictureError, Stage, StorageError
from tinyface_core.storage import ObjectChanged, ObjectDamaged, ObjectDenied, ObjectError, ObjectTooLarge, Storage

_AHEAD = 8
_AHEAD_BYTES = 64 << 20


def read_loose(unit: Unit, storage: Storage, numbering: Numbering) -> Iterator[Record]:
    """A record for each source, in order. Raises: StorageError."""
    pending: deque[tuple[Source, Future[bytes | PictureError] | None]] = deque()
    pool = ThreadPoolExecutor(_AHEAD, thread_name_prefix="loose")
    try:
        waiting_bytes = 0
        for place, source in enumerate(unit.present):
            wanted = numbering.only is None or place in numbering.only
            pending.append((source, pool.submit(read_source, source, storage) if wanted else None))
            waiting_bytes += source.size_bytes or 0
            while len(pending) > _AHEAD or (waiting_bytes > _AHEAD_BYTES and pending):
                waiting_bytes -= pending[0][0].size_bytes or 0
                yield from _first(pending, numbering)
        while pending:
            yield from _first(pending, numbering)
    finally:
        pool.shutdown(wait=True, cancel_futures=True)


def read_source(source: Source, storage: Storage) -> bytes | PictureError:
    """The encoded bytes of a loose picture, or why not. Raises: StorageError."""
    if source.size_bytes is not None and source.size_bytes > MAX_PICTURE_BYTES:
        message = f"{source.size_bytes} bytes, the limit is {MAX_PICTURE_BYTES} bytes"
        return PictureError(Stage.READ, ErrorClass.TOO_LARGE, message)
    try:
        return storage.read(source.url, source.version, source.size_bytes)
    except ObjectDamaged as error:
        return PictureError(Stage.READ, ErrorClass.UNREADABLE, str(error))
    except ObjectDenied as error:
        return PictureError(Stage.READ, ErrorClass.UNREADABLE, f"{DENIED}{error}")
    except ObjectChanged as error:
        return PictureError(Stage.READ, ErrorClass.UNREADABLE, f"{CHANGED}{error}")
    except ObjectTooLarge as error:
        return PictureError(Stage.READ, ErrorClass.TOO_LARGE, str(error))
    except ObjectError as error:
        return PictureError(Stage.READ, ErrorClass.UNREADABLE, str(error))
    except StorageError:
        raise
    except MemoryError:
        return PictureError(Stage.READ, ErrorClass.OUT_OF_MEMORY, f"{source.size_bytes} bytes do not fit in memory")
    except Exception as error:  # a bug costs one row, not the unit
        return PictureError(Stage.READ, ErrorClass.INTERNAL, f"{type(error).__name__}: {error}")


def _first(
    pending: deque[tuple[Source, Future[bytes | PictureError] | None]], numbering: Numbering
) -> Iterator[Record]:
    source, future = pending.popleft()
    if future is None:
        numbering.pass_over()
    else:
        yield numbering.record(source, (None, 0), future.result(), size_bytes=source.size_bytes)
