"""Which units a run works, by what is committed, what the inputs name and what the options ask for."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from changed import judge
from ray_stages import Reading
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.record import Kind, Source, Unit
from tinyface_core.archive.signed_urls import SignedUrls
from tinyface_core.errors import TooManyErrors
from tinyface_core.storage import Storage
from tinyface_core.tables.footer import CommitRecord
from tinyface_core.tables.plan import Plan, sources_hash
from tinyface_core.tables.unit_tables import UnitTotals
from to_do import ToDo

TODAY = "today's filter"
UNITS = [
    Unit((Source("file:///in/a.jpg", Kind.PICTURE, 100, "1"),)),
    Unit((Source("file:///in/b.tar", Kind.TAR, 100, "1"),), 0),
    Unit((Source("file:///in/c.tar", Kind.TAR, 100, "1"),), 0),
]
A, B, C = (unit.name for unit in UNITS)


def committed(unit: Unit, candidates: str = TODAY, errors: int = 0) -> CommitRecord:
    totals = UnitTotals(10, 5, {"corrupt": errors} if errors else {})
    mark = sources_hash(unit, "" if unit.is_loose else candidates)
    return CommitRecord("file:///none", unit.name, "commit", "settings", "model", mark, totals)


@pytest.fixture
def nothing_done(tmp_path: Path) -> Iterator[ToDo]:
    plan = Plan(Storage(), f"file://{tmp_path}")
    plan.update((source for unit in UNITS for source in unit.sources), lambda _: UNITS)
    with SignedUrls() as urls:
        yield ToDo(plan, {}, Reading(Storage(), CandidateFilter()), urls, "settings", TODAY, None)


def names(to_do: ToDo) -> list[str]:
    found = [work.unit.name for work in to_do]
    assert len(found) == to_do.units
    return sorted(found)


def test_all_that_is_not_committed_is_worked(nothing_done: ToDo) -> None:
    assert names(nothing_done) == sorted([A, B, C])
    done = replace(nothing_done, records={A: committed(UNITS[0])}, planned=0, units=0, pictures=0)
    assert names(done) == sorted([B, C])


def test_another_filter_opens_the_archives_that_are_listed_and_no_others(nothing_done: ToDo) -> None:
    """An archive that is gone would be read in vain, and lose its rows."""
    records = {unit.name: committed(unit, "another filter", errors=1) for unit in UNITS}
    fresh = {"records": records, "planned": 0, "units": 0, "pictures": 0, "totals": {}}
    assert names(replace(nothing_done, **fresh)) == sorted([B, C])
    assert names(replace(nothing_done, **fresh, unlisted=frozenset({C}))) == [B]
    assert names(replace(nothing_done, **fresh, unlisted=frozenset({B, C}))) == []
    assert names(replace(nothing_done, **fresh, unlisted=frozenset({C}), retry=True)) == sorted([A, B])


def test_what_is_not_listed_is_retried_where_the_filter_is_the_same(nothing_done: ToDo) -> None:
    records = {unit.name: committed(unit, errors=1) for unit in UNITS}
    fresh = {"records": records, "planned": 0, "units": 0, "pictures": 0, "totals": {}}
    assert names(replace(nothing_done, **fresh, unlisted=frozenset({C}), retry=True)) == sorted([A, B, C])


def test_rows_behind_the_limit_count_as_they_stand(nothing_done: ToDo) -> None:
    records = {unit.name: committed(unit, "another filter") for unit in UNITS}
    limited = replace(nothing_done, records=records, limit=1, planned=0, units=0, pictures=0, totals={})
    assert (limited.units, sum(totals.pictures for totals in limited.totals.values())) == (0, 30)


def test_an_output_of_too_many_errors_is_not_well_when_nothing_is_left_to_do() -> None:
    totals = UnitTotals(10, 3, {"corrupt": 2, "truncated": 1})
    judge(totals, None)
    judge(totals, 0.3)
    with pytest.raises(TooManyErrors, match=r"^3 of 10 pictures of the output .* --max-error-share 0\.2\. .*--retry"):
        judge(totals, 0.2)
    judge(UnitTotals(), 0.0)
