"""What an input holds, listed once: how much of each kind, and a random part of it. In bounded memory."""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice

from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.read import read_unit
from tinyface_core.archive.record import Kind, Record, Source, Unit
from tinyface_core.archive.units import whole_unit
from tinyface_core.picture.guard import DecodePool
from tinyface_core.picture.picture import Limits, Picture
from tinyface_core.storage import Storage

PICTURES, ARCHIVES = 48, 6  # sources that are looked at
EACH = 8  # pictures of each of these archives


@dataclass
class InputSample:
    """counts, sizes: objects and encoded bytes of each kind. Every source has the same chance to be in the sample."""

    most_pictures: int = PICTURES
    counts: Counter[Kind] = field(default_factory=Counter)
    sizes: Counter[Kind] = field(default_factory=Counter)
    _kept: dict[bool, list[Source]] = field(default_factory=lambda: {True: [], False: []})
    _random: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - the same sample each time

    @classmethod
    def of(cls, sources: Iterable[Source], pictures: int = PICTURES) -> InputSample:
        """Of a whole listing; pictures: loose ones, at most."""
        sample = cls(most_pictures=pictures)
        for source in sources:
            sample.add(source)
        return sample

    def add(self, source: Source) -> None:
        """One more source of the listing (Vitter's algorithm R for pictures and for archives)."""
        self.counts[source.kind] += 1
        self.sizes[source.kind] += source.size_bytes or 0
        is_picture = source.kind is Kind.PICTURE
        kept, most = self._kept[is_picture], self.most_pictures if is_picture else ARCHIVES
        met = self.pictures if is_picture else self.archives
        if len(kept) < most:
            kept.append(source)
        elif (place := self._random.randrange(met)) < most:
            kept[place] = source

    @property
    def pictures(self) -> int:
        """Loose ones."""
        return self.counts[Kind.PICTURE]

    @property
    def archives(self) -> int:
        return self.counts.total() - self.pictures

    @property
    def archive_bytes(self) -> int:
        return self.sizes.total() - self.sizes[Kind.PICTURE]

    def units(self) -> list[Unit]:
        """The sample as units of one source each."""
        return [whole_unit(source) for kept in self._kept.values() for source in kept]


def decoded(
    units: Iterable[Unit], storage: Storage, candidates: CandidateFilter, limits: Limits | None = None
) -> Iterator[Picture]:
    """The pictures of a sample that can be decoded: loose ones, the first EACH of each archive. Raises StorageError."""
    with DecodePool(1, limits or Limits()) as decoders:
        for unit in units:
            records = (record for record in read_unit(unit, storage, candidates) if isinstance(record, Record))
            for record in islice(records, EACH):
                for _, picture in decoders.decode_ahead([(0, record.data)] if record.data else []):
                    if isinstance(picture, Picture):
                        yield picture
