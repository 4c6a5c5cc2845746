"""The commit protocol and the validator on a real S3 server: no rename there, and one PUT is all that is atomic."""

from __future__ import annotations

from concurrent.futures import ThreadPoolExecutor

import pytest

from tests.unit.row_samples import make_rows, make_unit
from tinyface_core.storage import Storage
from tinyface_core.tables.commit import Committer, Swept
from tinyface_core.tables.footer import committed, detections_uri
from tinyface_core.tables.redo import UnitWork
from tinyface_core.tables.unit_tables import UnitTotals, sum_totals, unit_tables
from tinyface_core.tables.validate import validate

pytestmark = pytest.mark.integration


def test_commit_redo_sweep_and_validate_on_s3(bucket: str) -> None:
    """Units committed by threads, one redone with other rows, one orphan: exact before and after the sweep."""
    storage = Storage()
    output = f"s3://{bucket}/some where/out"
    committer = Committer(storage, output, "settings", "model")
    units = [make_unit(5, f"u{i}") for i in range(20)]
    names = {unit.name for unit in units}
    with ThreadPoolExecutor(8) as pool:
        list(pool.map(lambda unit: committer.write(UnitWork.whole(unit), "sources", make_rows(unit, faces=2)), units))
    committer.write(UnitWork.whole(units[0]), "sources", make_rows(units[0], faces=4))
    lost = make_unit(5, "lost")
    orphan = detections_uri(output, lost.name, unit_tables(lost.name, make_rows(lost)).commit)
    storage.write(orphan, b"of a driver that died before its record")

    records = committed(storage, output)
    assert records.keys() == names
    assert sum_totals(record.totals for record in records.values()) == UnitTotals(100, 5 * (19 * 2 + 4))
    assert committer.sweep(names | {lost.name}) == Swept(detections=2)
    assert storage.stat(orphan) is None

    report = validate(storage, output, unfinished_ok=True)
    assert report.violations == []
    assert (report.units, report.totals.pictures, report.totals.faces, report.pending) == (20, 100, 210, 0)
    committer.retire([units[1].name])
    assert committed(storage, output).keys() == names - {units[1].name}
    assert committer.sweep(names - {units[2].name}) == Swept(images=1, detections=2)
    assert validate(storage, output, unfinished_ok=True).totals == UnitTotals(90, 190)
