"""The units that a run has to work: the plan brought up to date, less what is committed under today's settings."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, field, replace
from itertools import islice

from prepare import Run, share_model
from ray_stages import Reading
from tinyface_core.archive.record import Source, Unit
from tinyface_core.archive.signed_urls import SignedUrls
from tinyface_core.archive.units import cut_units, unit_size_for, whole_unit
from tinyface_core.report.text import counted
from tinyface_core.storage import ObjectError, Storage
from tinyface_core.tables.footer import THREADS, CommitRecord, batches, committed
from tinyface_core.tables.plan import Plan, PlanChange, expected_pictures, sources_hash, take
from tinyface_core.tables.redo import UnitWork, least_work
from tinyface_core.tables.removal import finish_removals
from tinyface_core.tables.removed import Removed
from tinyface_core.tables.unit_tables import UnitTotals

log = logging.getLogger(__name__)
TRIED = 20  # committed sources, to tell a denied object from denied credentials
LOOKED_AT = 64  # units whose tables are asked at once what of them stands


@dataclass
class ToDo:
    """Iterates over the units to work, streamed from the plan, always in the same order.

    retry: whether error rows are tried again. planned, units, pictures: counts of the plan's units, of those to do,
    and of their pictures at most (estimated for archives). totals: unit -> counts of all that is committed; the commit
    loop adds to it. unlisted: units of archives that no input names today; their rows stay as they are.
    """

    plan: Plan
    records: dict[str, CommitRecord]
    reading: Reading
    urls: SignedUrls
    settings_hash: str
    filter_id: str
    limit: int | None
    retry: bool = False
    removed: Removed = Removed()
    unlisted: frozenset[str] = frozenset()
    totals: dict[str, UnitTotals] = field(default_factory=dict)
    planned: int = 0
    units: int = 0
    pictures: int = 0

    def __post_init__(self) -> None:
        done = again = retried = reached = 0
        for unit in self.plan.units():  # one pass: parsing 10^8 sources takes minutes
            self.planned += 1
            expected = expected_pictures(unit)
            within, reached = self.limit is None or reached < self.limit, reached + expected
            if (record := self.records.get(unit.name)) is not None:
                self.totals[unit.name] = record.totals
            if self._is_done(unit):
                if not (within and self._is_retried(unit)):
                    done += 1
                    continue
                retried += 1
            if within:
                again += unit.name in self.records
                self.units += 1
                self.pictures += self._expected(unit)
        if again > retried:
            log.warning(
                "%s brought up to date: sources or carried values changed, or, for archives, --include, --exclude or "
                "--all-files",
                counted(again - retried, "committed unit"),
            )
        if retried:
            log.info("%s with error rows: they are tried again", counted(retried, "unit"))
        if done:
            log.info("%d of %d units are committed under these settings: skipped", done, self.planned)

    def __iter__(self) -> Iterator[UnitWork]:
        planned = take(self.plan.units(), self.limit)
        with ThreadPoolExecutor(THREADS) as pool:
            open_units = (self.urls.signed_unit(unit) for unit in planned if not self._is_settled(unit))
            for few in batches(open_units, LOOKED_AT):
                yield from pool.map(self._work_of, few)

    def _work_of(self, unit: Unit) -> UnitWork:
        record, work = self.records.get(unit.name), UnitWork.whole(unit)
        if record is not None and record.settings_hash == self.settings_hash:
            where, changed = (self.reading.storage, self.reading.carried), not self._is_done(unit)
            work = least_work(unit, record, *where, changed=changed, retry=self.retry, removed=self.removed)
        return replace(work, expected=self._expected(unit))

    def _expected(self, unit: Unit) -> int:
        """How many pictures of a unit that is to be worked are to be worked, at most."""
        return sum(self.totals[unit.name].errors.values()) if self._is_done(unit) else expected_pictures(unit)

    def commits(self) -> dict[str, str]:
        """unit -> commit of what was committed before this run."""
        return {name: record.commit for name, record in self.records.items()}

    def hash_of(self, unit: Unit) -> str:
        """What the unit's rows depend on besides the settings; loose pictures were filtered when they were listed."""
        return sources_hash(unit, "" if unit.is_loose else self.filter_id)

    def reads_committed(self, storage: Storage) -> bool:
        """Whether the source of a unit that is committed can be read today; a few are tried."""
        done = (unit for unit in self.plan.units() if self._is_done(unit))
        return any_is_read(storage, (self.urls.signed(unit.present[0]).url for unit in done))

    def _is_settled(self, unit: Unit) -> bool:
        return self._is_done(unit) and not self._is_retried(unit)

    def _is_retried(self, unit: Unit) -> bool:
        return self.retry and bool(self.records[unit.name].totals.errors) and not self._is_left(unit)

    def _is_done(self, unit: Unit) -> bool:
        record = self.records.get(unit.name)
        if record is None:
            return False
        return record.is_done(self.settings_hash, self.hash_of(unit)) or self._is_left(unit)

    def _is_left(self, unit: Unit) -> bool:
        """Whether its archive is not listed today, and its rows are of another candidate filter."""
        record = self.records[unit.name]
        if unit.name not in self.unlisted or record.settings_hash != self.settings_hash:
            return False
        return record.sources_hash != self.hash_of(unit)


def find_to_do(run: Run, sources: Iterable[Source], *, again: bool = False) -> ToDo:
    """Brings the plan up to date with the listing, removes what no plan names, and finds what is not committed.

    again: later in the same run, with some sources that changed; error rows were tried already.

    The first write (settings, before the first plan) comes after the whole listing was read without an error.
    """
    output, reading, guarded = run.output, run.reading, run.claim.guarded()
    plan = Plan(guarded, output.uri, reading.carried)

    def cut(sorted_sources: Iterable[Source]) -> Iterator[Unit]:
        output.write_settings(run.decided.settings)
        share_model(run.decided.model, output, guarded)
        size = run.job.unit_pictures
        if size is None:
            size, sorted_sources = unit_size_for(sorted_sources, lambda source: expected_pictures(whole_unit(source)))
        signed = map(run.urls.signed, sorted_sources)
        partition = run.decided.partition
        value_of = (lambda source: partition.folder(source.uri)) if partition else None
        yield from cut_units(signed, reading.storage, reading.candidates, unit_pictures=size, value_of=value_of)

    def retire(names: Sequence[str]) -> None:
        output.delete_success()
        output.delete_report()  # it tells of them, and may show them
        run.committer.retire(names)

    prune = None if again else run.job.prune
    change = plan.update(sources, cut, retire=retire, prune=prune)
    if not again:
        log.info(_told(change, pruned=prune is not None))
    finish_removals(reading.storage, output, run.committer)
    to_do = ToDo(
        plan,
        committed(reading.storage, output.uri),
        reading,
        run.urls,
        run.decided.hash,
        json.dumps(asdict(reading.candidates), sort_keys=True),
        run.job.limit,
        run.job.retry == "errors" and not again,
        run.removed,
        change.unlisted,
    )
    if change.units_unchanged or change.retired:
        run.committer.sweep(plan.names(), to_do.commits())
    return to_do


def _told(change: PlanChange, *, pruned: bool) -> str:
    new, changed, same, gone = (
        f"{count:,}"
        for count in (change.sources_new, change.sources_changed, change.sources_unchanged, change.sources_gone)
    )
    listed = f"sources: {new} new, {changed} changed, {same} as before"
    what = "their rows go" if pruned else "their rows stay; --prune takes them out"
    return listed + (f", {gone} no longer listed ({what})" if change.sources_gone else "")


def any_is_read(storage: Storage, urls: Iterable[str]) -> bool:
    """Whether one of the first few objects can be read. Raises: StorageError."""
    for url in islice(urls, TRIED):
        try:
            with storage.open_stream(url) as stream:
                stream.read(1)
            return True
        except ObjectError:
            continue
    return False
