"""The folder that redact.py writes to: the copies, the table of results, and who may write there.

    copies/...    results/part-<unit>.parquet    run.json    _SUCCESS
    _run/         redaction.json (the settings), claims/, runs/<time>.json

Knows names of these and what a copy may be that no result names; not how copies are made.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pyarrow as pa

from tinyface_core.redact.names import COPIES
from tinyface_core.storage import Storage
from tinyface_core.tables.footer import THREADS, batches
from tinyface_core.tables.output import OutputFolder
from tinyface_core.tables.place import refuse_among


class Destination(OutputFolder):
    """Never an output of detect_archive.py, nor that an output of this: each knows its own by another settings file."""

    settings_name = "_run/redaction.json"

    def refuse_among(self, inputs: Iterable[str]) -> None:
        """Raises OutputError where copies would lie in a folder that is an input: they would be detected in turn."""
        refuse_among(self.uri, inputs, self.option, "copies")


def sweep_copies(storage: Storage, destination: OutputFolder, results: Iterable[pa.Table]) -> int:
    """Deletes whatever lies under copies/ and is named by no result; gives how much that was.

    A run that was killed leaves copies without a row, and what has no copy any more (taken out of the output, changed)
    leaves its old one. In memory: eight bytes for each copy.

    Args:
        results: all rows, in tables with the column `path`. storage: checks the claim before each delete.
    """
    named = np.concatenate([np.empty(0, np.uint64), *(_hashes(table["path"].to_pylist()) for table in results)])
    named.sort()
    swept = 0
    with ThreadPoolExecutor(THREADS) as pool:
        for some in batches(storage.list(destination.path(f"{COPIES}/")), 4096):
            uris = [info.uri for info in some]
            here = _hashes([uri.removeprefix(f"{destination.uri}/") for uri in uris])
            place = np.minimum(np.searchsorted(named, here), max(0, len(named) - 1))
            known = named[place] == here if len(named) else np.zeros(len(here), bool)
            doomed = [uri for uri, stays in zip(uris, known, strict=True) if not stays]
            list(pool.map(storage.delete, doomed))
            swept += len(doomed)
    return swept


def _hashes(paths: Iterable[str | None]) -> np.ndarray[tuple[int], np.dtype[np.uint64]]:
    digests = (hashlib.blake2b(path.encode(), digest_size=8).digest() for path in _present(paths))
    return np.frombuffer(b"".join(digests), np.uint64)


def _present(paths: Iterable[str | None]) -> Iterator[str]:
    return (path for path in paths if path is not None)
