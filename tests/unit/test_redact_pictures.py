"""Pictures of a committed unit read again: the very bytes that were examined, or no copy and the reason."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest

from tests.unit.archives import tar_bytes, zip_bytes
from tests.unit.row_samples import CORRUPT, make_detections
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.read import read_unit
from tinyface_core.archive.record import Kind, Source, Unit
from tinyface_core.archive.units import whole_unit
from tinyface_core.picture.picture import Picture
from tinyface_core.redact.destination import Destination, sweep_copies
from tinyface_core.redact.pictures import Examined, examined, read_again
from tinyface_core.redact.results import (
    CHANGED,
    NOT_EXAMINED,
    RESULTS_SCHEMA,
    ResultFiles,
    end_row,
    rows_table,
    unit_results,
)
from tinyface_core.storage import Storage
from tinyface_core.tables.commit import Committer
from tinyface_core.tables.footer import CommitRecord, committed
from tinyface_core.tables.redo import UnitWork
from tinyface_core.tables.rows import RowBuilder, records_table

STORAGE = Storage()
SIZE_HW = (37, 53)


def unit_of(paths: Sequence[Path]) -> Unit:
    found = [STORAGE.stat(f"file://{path}") for path in paths]
    return Unit(tuple(Source(info.uri, Kind.PICTURE, info.size_bytes, info.version) for info in found if info))


def detect(unit: Unit, output: Path, failing: frozenset[int] = frozenset()) -> CommitRecord:
    """Commits a unit as detect_archive.py does; record i has i faces, but where decoding fails."""
    table = records_table(unit.name, list(read_unit(unit, STORAGE, CandidateFilter())))
    rows = RowBuilder(table)
    for row, _ in rows.encoded():
        if row in failing:
            rows.add(row, CORRUPT)
        else:
            rows.add(row, Picture(np.zeros((*SIZE_HW, 3), np.uint8), "jpeg"), make_detections(row, row))
    Committer(STORAGE, f"file://{output}", "s" * 32, "m" * 64).write(UnitWork.whole(unit), "h", rows.table())
    return committed(STORAGE, f"file://{output}")[unit.name]


def again(unit: Unit, output: Path, record: CommitRecord, only: frozenset[int] | None = None) -> list[Examined]:
    pictures = examined(STORAGE, record, None)
    found = list(read_again(unit, pictures, STORAGE, only))
    assert len({each.image_id for each in found}) == len(found)
    return sorted(found, key=lambda each: each.index)


@pytest.fixture
def loose(tmp_path: Path) -> list[Path]:
    paths = [tmp_path / f"{number}.jpg" for number in range(5)]
    for number, path in enumerate(paths):
        path.write_bytes(b"\xff\xd8\xff picture %d" % number)
    return paths


def test_each_picture_comes_with_its_bytes_and_its_faces(loose: list[Path], tmp_path: Path) -> None:
    unit = unit_of(loose)
    found = again(unit, tmp_path / "out", detect(unit, tmp_path / "out"))
    assert [(each.data, len(each.faces)) for each in found] == [(p.read_bytes(), n) for n, p in enumerate(loose)]
    for number, each in enumerate(found):
        assert each.size_hw == SIZE_HW
        np.testing.assert_array_equal(each.faces.boxes_K4, make_detections(number, number).boxes_K4)


def test_faces_below_the_score_are_left_out(loose: list[Path], tmp_path: Path) -> None:
    unit = unit_of(loose)
    record = detect(unit, tmp_path / "out")
    scores_K = make_detections(4, 4).scores_K
    few = examined(STORAGE, record, float(scores_K[1]))
    assert len(list(few.values())[4].faces) == 1, "exclusive"


def test_what_changed_or_went_or_was_never_examined_gets_no_copy(loose: list[Path], tmp_path: Path) -> None:
    unit = unit_of(loose)
    record = detect(unit, tmp_path / "out", frozenset([0]))
    loose[1].write_bytes(b"\xff\xd8\xff another picture")
    loose[2].unlink()
    found = again(unit, tmp_path / "out", record)
    assert [each.error and each.error[0] for each in found] == [NOT_EXAMINED, CHANGED, "unreadable", None, None]
    assert [each.data is None for each in found] == [True, True, True, False, False]
    assert found[0].error == (NOT_EXAMINED, "corrupt: bad Huffman code")


def test_bytes_that_changed_unseen_by_the_store_are_found_by_their_hash(loose: list[Path], tmp_path: Path) -> None:
    """As where the plan was brought up to date, and its pictures were not worked yet."""
    record = detect(unit_of(loose), tmp_path / "out")
    loose[3].write_bytes(b"\xff\xd8\xff newer than what was examined")
    found = again(unit_of(loose), tmp_path / "out", record)
    assert [each.error and each.error[0] for each in found] == [None, None, None, CHANGED, None]


def test_members_of_a_tar_with_names_that_repeat_and_sidecars(tmp_path: Path) -> None:
    members = [("a.jpg", b"\xff\xd8\xff first"), ("a.json", b"{}"), ("b/./c.jpg", b"\xff\xd8\xff second")]
    members += [("a.jpg", b"\xff\xd8\xff third"), (".hidden", b"x")]
    (tmp_path / "x.tar").write_bytes(tar_bytes(members))
    info = STORAGE.stat(f"file://{tmp_path / 'x.tar'}")
    assert info
    unit = whole_unit(Source(info.uri, Kind.TAR, info.size_bytes, info.version))
    record = detect(unit, tmp_path / "out")
    found = again(unit, tmp_path / "out", record)
    assert sorted(each.data or b"" for each in found) == [b"\xff\xd8\xff " + n for n in (b"first", b"second", b"third")]
    assert [each.data for each in again(unit, tmp_path / "out", record, frozenset([1]))] == [found[1].data]
    (tmp_path / "x.tar").write_bytes(tar_bytes(members[:1]))
    now = again(unit, tmp_path / "out", record)
    assert sorted(str(each.error and each.error[0]) for each in now) == ["None", CHANGED, CHANGED]
    assert [each.data for each in now if each.data] == [b"\xff\xd8\xff first"], "the bytes that were examined"


def test_what_was_only_copied_or_touched_gets_its_copy(loose: list[Path], tmp_path: Path) -> None:
    """An archive that was put on its disk anew has other times, and the same bytes; as in reports and pages."""
    unit = unit_of(loose)
    record = detect(unit, tmp_path / "out")
    for path in loose:
        os.utime(path, ns=(1, 1))
    loose[1].write_bytes(loose[1].read_bytes()[:-1] + b"x")
    loose[2].write_bytes(b"\xff\xd8\xff longer than it was")
    loose[3].unlink()
    found = again(unit, tmp_path / "out", record)
    assert [each.error and each.error[0] for each in found] == [None, CHANGED, CHANGED, "unreadable", None]
    assert [each.data for each in (found[0], found[4])] == [loose[0].read_bytes(), loose[4].read_bytes()]


@pytest.mark.parametrize("kind", [Kind.TAR, Kind.ZIP])
def test_members_of_an_archive_that_was_copied_get_their_copies(kind: Kind, tmp_path: Path) -> None:
    """Of one that was made anew those whose bytes are the same; of one that broke nobody."""
    pack = {Kind.TAR: tar_bytes, Kind.ZIP: zip_bytes}[kind]
    members = [(f"{name}.jpg", b"\xff\xd8\xff " + name.encode()) for name in "abc"]
    archive = tmp_path / f"x.{kind}"
    archive.write_bytes(pack(members))
    info = STORAGE.stat(f"file://{archive}")
    assert info
    unit = whole_unit(Source(info.uri, kind, info.size_bytes, info.version))
    record = detect(unit, tmp_path / "out")
    os.utime(archive, ns=(1, 1))
    assert [each.data for each in again(unit, tmp_path / "out", record)] == [data for _, data in members]
    archive.write_bytes(pack([("new.jpg", b"\xff\xd8\xff new"), ("a.jpg", b"\xff\xd8\xff z"), *members[1:]]))
    found = again(unit, tmp_path / "out", record)
    assert [each.error and each.error[0] for each in found] == [CHANGED, None, None]
    archive.write_bytes(b"no archive")
    assert [each.error and each.error[0] for each in again(unit, tmp_path / "out", record)] == [CHANGED] * 3
    archive.unlink()
    assert [each.error and each.error[0] for each in again(unit, tmp_path / "out", record)] == ["unreadable"] * 3


def test_results_are_one_row_a_picture_and_tell_what_is_done(loose: list[Path], tmp_path: Path) -> None:
    files = ResultFiles(STORAGE, f"file://{tmp_path / 'to'}", "s" * 32, "m" * 64)
    unit, rows = "0" * 32, []
    for index, name in enumerate(("b.jpg", "a.jpg")):
        row = {"unit": unit, "kind": "record", "index": index, "image_id": f"{index:032x}", "uri": f"file:///{name}"}
        rows.append(row | {"commit": "c" * 32, "faces_masked": 3, "status": "written", "path": f"copies/file/{name}"})
    rows[0] |= {"status": "error", "error_class": CHANGED, "error_message": "m", "path": None, "faces_masked": 0}
    results = unit_results(rows_table([*rows, end_row(unit, 2)]))
    assert results.schema == RESULTS_SCHEMA
    assert results["uri"].to_pylist() == ["file:///a.jpg", "file:///b.jpg"]
    totals = files.write(unit, "c" * 32, results)
    assert (totals.pictures, totals.faces, totals.errors) == (2, 3, {CHANGED: 1})
    footer = files.found()[unit]
    assert footer.totals == totals
    assert files.is_done(footer, "c" * 32)
    assert not files.is_done(footer, "d" * 32), "its pictures were detected anew"
    other = ResultFiles(STORAGE, files.destination_uri, "t" * 32, "m" * 64)
    assert not other.is_done(footer, "c" * 32)
    assert not files.is_done(None, "c" * 32)


def test_a_sweep_leaves_what_results_name(tmp_path: Path) -> None:
    """Of three copies, and of half of one, a result names two."""
    to = Destination(STORAGE, str(tmp_path / "to"))
    for name in ("a.jpg", "b.jpg", "c.jpg", ".b.jpg.0123.tmp"):
        STORAGE.write(to.path(f"copies/file/{name}"), b"x")
    files = ResultFiles(STORAGE, to.uri, "s" * 32, "m" * 64)
    for unit, name in ((f"{1:032x}", "a.jpg"), (f"{2:032x}", "c.jpg")):
        row = {"unit": unit, "kind": "record", "index": 0, "image_id": unit, "uri": name, "commit": "c" * 32}
        row |= {"status": "written", "faces_masked": 0, "path": f"copies/file/{name}"}
        files.write(unit, "c" * 32, unit_results(rows_table([row, end_row(unit, 1)])))
    assert sweep_copies(STORAGE, to, files.tables(["path"])) == 2
    assert sorted(path.name for path in (tmp_path / "to/copies/file").iterdir()) == ["a.jpg", "c.jpg"]
    assert sweep_copies(STORAGE, to, iter(())) == 2, "no results, no copies"
