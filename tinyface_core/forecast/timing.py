"""How long each step takes on some pictures: reading, decoding, detecting, each by itself, as the job does them."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice

from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.read import read_unit
from tinyface_core.archive.record import Record, Unit
from tinyface_core.forecast.sample import EACH
from tinyface_core.picture.guard import DecodePool
from tinyface_core.picture.picture import Limits, Picture
from tinyface_core.storage import Storage


@dataclass(frozen=True)
class PictureTimes:
    """One picture. read_s, decode_s, detect_s: by the clock; 0 for what an error row does without. in_archive: whether
    it is an archive's member."""

    in_archive: bool
    size_bytes: int
    pixels: int
    read_s: float
    decode_s: float
    detect_s: float


def time_pictures(
    units: Sequence[Unit],
    storage: Storage,
    candidates: CandidateFilter,
    carry: Sequence[str],
    limits: Limits,
    detect: Callable[[Picture], object],
) -> list[PictureTimes]:
    """Each loose picture of the units, and the first EACH of each archive. The detector sees the first one twice.

    Raises: StorageError.
    """
    times, warm = list[PictureTimes](), False
    with DecodePool(1, limits) as decoders:
        for unit in units:
            records = read_unit(unit, storage, candidates, carry=carry)
            for record, read_s in islice(_timed(records), EACH):
                if not isinstance(record, Record):
                    break
                data = record.data or b""
                began = time.perf_counter()
                picture = next(iter(decoders.decode_ahead([(0, data)])))[1] if data else None
                decode_s, pixels, detect_s = time.perf_counter() - began, 0, 0.0
                if isinstance(picture, Picture):
                    if not warm:
                        detect(picture)  # prepares the network, once in a run
                        warm = True
                    began = time.perf_counter()
                    detect(picture)
                    pixels, detect_s = picture.height * picture.width, time.perf_counter() - began
                times.append(PictureTimes(not unit.is_loose, len(data), pixels, read_s, decode_s, detect_s))
    return times


def _timed(records: Iterable[object]) -> Iterator[tuple[object, float]]:
    """Each value, and how long it took to come."""
    following = iter(records)
    while True:
        began = time.perf_counter()
        try:
            value = next(following)
        except StopIteration:
            return
        yield value, time.perf_counter() - began
