"""The plan of an output: which units of work there are, as append-only generations of Parquet files.

A later row for a unit replaces the earlier one, a tombstone takes it out. Knows not how sources become units (`cut`
is given), nor which units are done.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from tinyface_core.archive.record import Source, Unit
from tinyface_core.errors import SettingsError
from tinyface_core.storage import Storage
from tinyface_core.tables.plan_diff import PlanDiff
from tinyface_core.tables.plan_files import PlanFiles
from tinyface_core.tables.plan_rows import units_from

TYPICAL_BYTES = 150_000  # of a picture, to guess how many an archive holds that does not tell
LAST_RANGE = 1000  # at most, of an archive that was split: its size is that of all ranges

Cut = Callable[[Iterable[Source]], Iterable[Unit]]


@dataclass(frozen=True)
class PlanChange:
    """What one `Plan.update` did.

    generation: None when nothing was new. sources_gone: planned, but not in today's listing; they stay, or were pruned.
    units_changed: written again under their name with new versions. retired: names of the units taken out because
    an archive changed (its new units may bear the same names). unlisted: of the units that stay, those of archives that
    the listing does not name.
    """

    generation: int | None
    sources_new: int
    sources_changed: int
    sources_unchanged: int
    sources_gone: int
    units_new: int
    units_changed: int
    units_unchanged: int
    retired: tuple[str, ...]
    unlisted: frozenset[str] = frozenset()


class Plan:
    """The plan of one output.

    Args:
        carried: the columns of `--carry` with their types, the same in every run on this output.
        memory_bytes: what sorting and joining may take before it spills to the local temporary folder.
    """

    def __init__(
        self, storage: Storage, output_uri: str, carried: Iterable[pa.Field] = (), *, memory_bytes: int = 128 << 20
    ) -> None:
        self._carried = tuple(carried)
        self._files = PlanFiles(storage, output_uri, self._carried)
        self._memory_bytes = memory_bytes

    def exists(self) -> bool:
        """Whether any generation is complete."""
        return bool(self._files.generations())

    def update(
        self,
        sources: Iterable[Source],
        cut: Cut,
        *,
        retire: Callable[[Sequence[str]], None] | None = None,
        prune: float | None = None,
    ) -> PlanChange:
        """Adds a generation for what is new or changed in the listing; streams, and keeps no source in memory.

        New sources are cut into new units. A loose picture of another version, or other carried values, rewrites
        its unit under the same name. A changed archive loses its units and is cut again. Sources that are no
        longer listed stay, unless they are pruned.

        Args:
            sources: the whole listing, in any order; of a uri named twice the first counts.
            cut: takes sources sorted by uri, gives units of them.
            retire: told the names of units to be taken out, before the generation counts: their images files
                must be gone by then, since the new units may hold the same pictures under other names.
            prune: sources that are no longer listed are taken out, up to this share of all that are planned.
        Raises:
            InputError: a carried value is not of its column's type.
            SettingsError: more is gone than `prune` allows; nothing was written.
        """
        with tempfile.TemporaryDirectory(prefix="tinyface-plan-") as spool:
            diff = PlanDiff(Path(spool), self._carried, self._memory_bytes)
            try:
                diff.add_listing(sources)
                names: list[str] = []
                diff.add_planned(self._planned_sources(names))
                return self._append(diff, names, cut, retire, prune)
            finally:
                diff.close()

    def _planned_sources(self, names: list[str]) -> Iterator[pa.ListArray]:
        """The sources of all units; `names` takes the units' names meanwhile."""
        for table in self._live_rows():
            for batch in table.to_batches():
                names.extend(batch.column("unit").to_pylist())
                yield batch.column("sources")

    def _append(
        self,
        diff: PlanDiff,
        names: list[str],
        cut: Cut,
        retire: Callable[[Sequence[str]], None] | None,
        prune: float | None,
    ) -> PlanChange:
        counts = diff.compare(prune=prune is not None)
        planned = counts.changed + counts.unchanged + counts.gone
        if prune is not None and counts.gone > prune * planned:
            raise SettingsError(
                f"--prune {prune:g}: {counts.gone:,} of {planned:,} sources are no longer listed, a larger share. Name "
                " every --input of this output; if they are really gone, give a larger share (1 for any)."
            )
        retired = tuple(names[number] for number in diff.dead())
        generation = None
        changed = new = 0
        if counts.new or counts.changed or (counts.gone and prune is not None) or not self.exists():
            writer = self._files.next_generation()
            writer.add_tombstones(retired)
            for unit_sources in diff.touched():
                writer.add(Unit(unit_sources))
                changed += 1
            for unit in cut(diff.to_cut()):
                writer.add(unit)
                new += 1
            if retire is not None and retired:
                retire(retired)
            writer.complete()
            generation = writer.generation
        return PlanChange(
            generation=generation,
            sources_new=counts.new,
            sources_changed=counts.changed,
            sources_unchanged=counts.unchanged,
            sources_gone=counts.gone,
            units_new=new,
            units_changed=changed,
            units_unchanged=len(names) - changed - len(retired),
            retired=retired,
            unlisted=frozenset(names[number] for number in diff.unlisted) - set(retired),
        )

    def units(self, *, any_carried: bool = False) -> Iterator[Unit]:
        """All units that are planned, always in the same order; keeps the names of the units in memory.

        any_carried: whatever columns their sources carry.
        """
        for table in self._live_rows(any_carried=any_carried):
            yield from units_from(table)

    def names(self) -> set[str]:
        """The names of all units that are planned, whatever their sources carry."""
        return set(self._last_rows())

    def _last_rows(self) -> dict[str, int]:
        """Planned unit -> number of its row, counted over all files."""
        rows: dict[str, int] = {}
        number = 0
        for file in self._files.read(any_carried=True):
            table = file.read(columns=["unit", "gone"])
            for name, gone in zip(table["unit"].to_pylist(), table["gone"].to_pylist(), strict=True):
                if gone:
                    rows.pop(name, None)
                else:
                    rows[name] = number
                number += 1
        return rows

    def _live_rows(self, *, any_carried: bool = False) -> Iterator[pa.Table]:
        live = np.sort(np.fromiter(self._last_rows().values(), np.int64))
        first = 0
        for file in self._files.read(any_carried=any_carried):
            for group in range(file.num_row_groups):
                stop = first + file.metadata.row_group(group).num_rows
                wanted = live[np.searchsorted(live, first) : np.searchsorted(live, stop)] - first
                if len(wanted):
                    yield file.read_row_group(group).take(pa.array(wanted))
                first = stop


def expected_pictures(unit: Unit) -> int:
    """How many pictures the unit counts as before it is read: known for loose pictures and bounded ranges."""
    if unit.is_loose:
        return len(unit.present)
    if unit.stop is not None:
        return unit.stop - (unit.start or 0)
    guess = max(1, sum(source.size_bytes or 0 for source in unit.sources) // TYPICAL_BYTES)
    return min(guess, LAST_RANGE) if unit.start else guess


def take(units: Iterable[Unit], limit: int | None) -> Iterator[Unit]:
    """Whole units until `limit` pictures are reached (None: all); a later run without a limit goes on."""
    taken = 0
    for unit in units:
        if limit is not None and taken >= limit:
            return
        yield unit
        taken += expected_pictures(unit)


def sources_hash(unit: Unit, filter_id: str) -> str:
    """Hex of blake2b-128 over what the unit's rows depend on besides the settings.

    That is uri, version and carried values of its sources, the member range and the candidate filter.
    """
    sources = [
        (source.uri, source.version, [(name, _canonical(value)) for name, value in _known(source.carried)])
        for source in unit.present
    ]
    text = json.dumps([filter_id, unit.start, unit.stop, sources])
    return hashlib.blake2b(text.encode(), digest_size=16).hexdigest()


def _known(carried: dict[str, Any]) -> list[tuple[str, Any]]:
    return [(name, value) for name, value in sorted(carried.items()) if value is not None]


def _canonical(value: Any) -> Any:
    """`value` in JSON, equal values equally; times as instants, whatever zone they are told in."""
    if isinstance(value, dict):
        return [[str(key), _canonical(inner)] for key, inner in sorted(value.items())]
    if isinstance(value, list | tuple):
        return [_canonical(inner) for inner in value]
    if isinstance(value, datetime):
        value = value.astimezone(UTC) if value.tzinfo else value
    if isinstance(value, date):
        return value.isoformat()
    return value if value is None or isinstance(value, bool | int | float | str) else repr(value)
