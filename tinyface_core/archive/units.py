"""Cuts sources into units of work: neighbouring pictures that are read, committed and redone together.

Looks into archives only as far as their directory, headers or footer. An archive that cannot be opened is one unit:
reading it then gives the error row. Streamed: keeps one unit of loose pictures and some archives' ranges.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Hashable, Iterable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice

from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.record import Kind, Source, Unit
from tinyface_core.archive.split import UnitLimits, split_parquet, split_tar, split_zip
from tinyface_core.errors import StorageError
from tinyface_core.storage import Storage

_THREADS = 8  # archives that are looked into at a time: the answers of an object store take long, not much
_AHEAD = 64
HELD_UNITS, HELD_VALUES = 64, 10_000  # of pictures that wait for others of their value

UNIT_PICTURES = 1000
SMALL_UNITS, SMALLEST_UNIT = 64, 25  # of a small input: so many units, of so many pictures at least


def unit_size_for(sources: Iterable[Source], pictures_of: Callable[[Source], int]) -> tuple[int, Iterator[Source]]:
    """How many pictures a unit of these sources should have, and all of the sources.

    UNIT_PICTURES; fewer of an input that would be a few units, so that it is committed often, and shared by many.
    pictures_of: how many a source counts as. Looks at UNIT_PICTURES * SMALL_UNITS sources ahead at most.
    """
    following = iter(sources)
    ahead = list(islice(following, UNIT_PICTURES * SMALL_UNITS))
    pictures = sum(map(pictures_of, ahead))
    size = max(SMALLEST_UNIT, min(UNIT_PICTURES, -(-pictures // SMALL_UNITS)))
    return size, chain(ahead, following)


def cut_units(
    sources: Iterable[Source],
    storage: Storage,
    candidates: CandidateFilter,
    *,
    unit_pictures: int = UNIT_PICTURES,
    unit_bytes: int = 1 << 30,
    value_of: Callable[[Source], Hashable] | None = None,
) -> Iterator[Unit]:
    """Units of at most about `unit_pictures` candidates and `unit_bytes` encoded bytes.

    sources: in the order that decides who are neighbours. Archives come as they are met; loose pictures gather across
    them. value_of: pictures of two values are never in one unit. Raises: StorageError.
    """
    limits = UnitLimits(unit_pictures, unit_bytes)
    look = partial(_split, storage=storage, candidates=candidates, limits=limits)
    gathered: dict[Hashable, _Loose] = {}
    held = 0
    for source, units in _looked_into(sources, look, unit_bytes):
        if source.kind is not Kind.PICTURE:
            yield from units
            continue
        loose = gathered.setdefault(value_of(source) if value_of else None, _Loose())
        if not loose.has_room(source, limits):
            held -= len(loose.sources)
            yield loose.as_unit()
        loose.add(source)
        held += 1
        if held > HELD_UNITS * unit_pictures or len(gathered) > HELD_VALUES:  # the largest go before they are full
            largest = max(gathered, key=lambda value: len(gathered[value].sources))
            held -= len(gathered[largest].sources)
            yield gathered.pop(largest).as_unit()
    yield from (loose.as_unit() for loose in gathered.values())


@dataclass
class _Loose:
    """Loose pictures on their way to be a unit."""

    sources: list[Source] = field(default_factory=list)
    bytes: int = 0

    def has_room(self, source: Source, limits: UnitLimits) -> bool:
        full = len(self.sources) >= limits.pictures or self.bytes + (source.size_bytes or 0) > limits.bytes
        return not (self.sources and full)

    def add(self, source: Source) -> None:
        self.sources.append(source)
        self.bytes += source.size_bytes or 0

    def as_unit(self) -> Unit:
        unit, self.sources, self.bytes = Unit(tuple(self.sources)), [], 0
        return unit


def _looked_into(
    sources: Iterable[Source], look: Callable[[Source], list[Unit]], unit_bytes: int
) -> Iterator[tuple[Source, list[Unit]]]:
    """Each source with its units (none for a picture), in order; looks into several archives at a time."""
    pending: deque[tuple[Source, Future[list[Unit]] | list[Unit]]] = deque()
    with ThreadPoolExecutor(_THREADS, thread_name_prefix="units") as pool:
        try:
            for source in sources:
                if source.kind in (Kind.ZIP, Kind.PARQUET) or _is_split(source, unit_bytes):
                    pending.append((source, pool.submit(look, source)))
                else:
                    pending.append((source, [] if source.kind is Kind.PICTURE else [whole_unit(source)]))
                while pending and (len(pending) > _AHEAD or isinstance(pending[0][1], list)):
                    yield _done(*pending.popleft())
            while pending:
                yield _done(*pending.popleft())
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _done(source: Source, units: Future[list[Unit]] | list[Unit]) -> tuple[Source, list[Unit]]:
    return source, units if isinstance(units, list) else units.result()


def _is_split(source: Source, unit_bytes: int) -> bool:
    return source.kind is Kind.TAR and (source.size_bytes or 0) > unit_bytes


def whole_unit(source: Source) -> Unit:
    """All of a source as one unit."""
    return Unit((source,), start=None if source.kind is Kind.PICTURE else 0)


def _split(source: Source, storage: Storage, candidates: CandidateFilter, limits: UnitLimits) -> list[Unit]:
    try:
        match source.kind:
            case Kind.ZIP:
                return split_zip(source, storage, candidates, limits)
            case Kind.PARQUET:
                return split_parquet(source, storage, limits)
            case _:
                return split_tar(source, storage, candidates, limits)
    except StorageError:
        raise
    except Exception:  # damaged archives make the libraries raise anything: reading tells, with an error row
        return [whole_unit(source)]
