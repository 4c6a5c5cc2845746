"""Works what is to do; what was another version when it was read than the plan says is planned and worked again."""

from __future__ import annotations

import logging
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

from prepare import Run
from ray_start import Pool
from tinyface_core.archive.record import Source
from tinyface_core.errors import ResourceError, StopRun, TooManyErrors
from tinyface_core.report.text import counted
from tinyface_core.storage import ObjectError, Storage
from tinyface_core.tables.unit_tables import UnitTotals, sum_totals
from to_do import ToDo, find_to_do
from work import CHANGED_MOST, Worked, work

log = logging.getLogger(__name__)

AGAIN = 3  # times a run; what changes on and on stays an error row
ASKED_AT_ONCE = 32


def work_all(run: Run, sources: Iterable[Source], choose: Callable[[], Pool]) -> tuple[ToDo, Worked]:
    """The plan as it is at the end, and all that was worked. choose: the detectors, asked only when there is work."""
    to_do, worked = find_to_do(run, sources), Worked()
    run.start_up.passed("plan")
    for again in range(1 + AGAIN):
        if not to_do.units:
            break
        this = work(run, to_do, _chosen(choose).at_most(to_do.pictures))
        worked = worked.and_then(this)
        changed = as_they_are_now(this.changed, run.reading.storage) if again < AGAIN else []
        if not changed:
            break
        log.warning("%s changed between listing and reading: planned again", counted(len(changed), "source"))
        to_do = find_to_do(run, changed, again=True)
    if len(worked.changed) >= CHANGED_MOST:
        log.warning("more sources changed while they were read than one run takes up: run the same command again")
    judge(sum_totals(to_do.totals.values()), run.job.max_error_share)
    return to_do, worked


def judge(totals: UnitTotals, most: float | None) -> None:
    """The whole output: a run that failed must not be well when it is run again, with nothing to do.

    Raises TooManyErrors: more than this share are error rows.
    """
    errors = sum(totals.errors.values())
    if most is not None and errors > most * totals.pictures:
        raise TooManyErrors(
            f"{errors} of {totals.pictures} pictures of the output are error rows, above --max-error-share {most:g}. "
            "See error_class in the images table, mend the cause and run it again with --retry errors."
        )


def _chosen(choose: Callable[[], Pool]) -> Pool:
    """The detectors; that there is no room for them is no refusal any more, as rows may have gone already."""
    try:
        return choose()
    except ResourceError as error:
        raise StopRun(str(error)) from error


def as_they_are_now(sources: Iterable[Source], storage: Storage) -> list[Source]:
    """Those that can be asked, and are another version than planned; what is gone keeps its error row."""

    def now(source: Source) -> Source | None:
        try:
            found = storage.stat(source.url)
        except ObjectError:
            return None
        if found is None or found.version == source.version:
            return None
        return replace(source, size_bytes=found.size_bytes, version=found.version, modified=found.modified)

    with ThreadPoolExecutor(ASKED_AT_ONCE) as pool:
        return [source for source in pool.map(now, sources) if source is not None]
