"""The hash of a unit's rows, that binds its two tables together.

Made of values only: not of how Arrow laid them out, so that rows read back from a file give the hash they were
written with (the validator recomputes it). Knows no column of ours.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc


def commit_of(columns: Iterable[tuple[str, pa.ChunkedArray]]) -> str:
    """Hex of blake2b-128 over (name, values) of all columns of both tables, in their order; `commit` is left out."""
    digest = hashlib.blake2b(digest_size=16)
    for name, values in columns:
        if name != "commit":
            digest.update(name.encode() + b"\0")
            _feed(digest, values.combine_chunks())
    return digest.hexdigest()


def _feed(digest: Any, array: pa.Array) -> None:
    """Which values are null, then the others, one after the other."""
    kind = array.type
    if isinstance(array, pa.ExtensionArray):
        return _feed(digest, array.storage)
    if pa.types.is_dictionary(kind):
        return _feed(digest, array.dictionary_decode())
    digest.update(b"%d %d\0" % (len(array), array.null_count))
    if array.null_count:
        digest.update(np.packbits(array.is_valid().to_numpy(zero_copy_only=False)).tobytes())
        array = array.drop_null()
    if pa.types.is_null(kind):
        return None
    if pa.types.is_struct(kind):
        for child in array.flatten():
            _feed(digest, child)
    elif pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind):
        digest.update(pc.list_value_length(array).cast(pa.int64()).to_numpy().tobytes())
        _feed(digest, array.flatten())
    elif pa.types.is_string(kind) or pa.types.is_binary(kind) or pa.types.is_large_string(kind):
        digest.update(pc.binary_length(array).cast(pa.int64()).to_numpy().tobytes())
        digest.update(_text_bytes(array))
    elif pa.types.is_boolean(kind):
        _feed(digest, array.cast(pa.uint8()))
    elif pa.types.is_primitive(kind):
        width = kind.bit_width // 8
        digest.update(memoryview(array.buffers()[1])[array.offset * width : (array.offset + len(array)) * width])
    else:  # maps, decimals and what else a carried column may hold
        digest.update(repr(array.to_pylist()).encode("utf-8", "backslashreplace"))
    return None


def _text_bytes(array: pa.Array) -> memoryview:
    _, offsets, data = array.buffers()
    offset_type = np.int64 if pa.types.is_large_string(array.type) else np.int32
    if data is None or len(array) == 0:
        return memoryview(b"")
    starts = np.frombuffer(offsets, offset_type)
    return memoryview(data)[starts[array.offset] : starts[array.offset + len(array)]]
