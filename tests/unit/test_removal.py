"""Pictures that are taken out on request: out of the tables, and out of whatever is committed later."""

from __future__ import annotations

import errno
import json
import os
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

import finish
import remove
from options import run_job
from tests.unit.archives import read, save, some_bytes, tar_bytes
from tests.unit.row_samples import CORRUPT, RGB, make_detections, make_rows, make_unit
from tinyface_core.archive.record import Kind, Part, Source, Unit, image_id_of
from tinyface_core.picture.picture import Picture
from tinyface_core.storage import Storage
from tinyface_core.tables import place
from tinyface_core.tables.commit import Committer
from tinyface_core.tables.footer import committed, read_footer
from tinyface_core.tables.output import OutputFolder
from tinyface_core.tables.plan import Plan
from tinyface_core.tables.redo import UnitWork, least_work
from tinyface_core.tables.removal import find, finish_removals
from tinyface_core.tables.removed import Removal, Removed
from tinyface_core.tables.rows import RowBuilder, records_table
from tinyface_core.tables.validate import validate

STORAGE = Storage()
UNITS = [make_unit(5, name) for name in ("a", "b", "c")]
MEMBERS = [("x/1.jpg", some_bytes(1)), ("x/2.jpg", some_bytes(2)), ("x/2.jpg", some_bytes(3)), ("y.jpg", b"broken")]


class Output:
    """A finished output of three units of loose pictures and one tar, with a report."""

    def __init__(self, folder: Path) -> None:
        self.path, self.uri = folder / "out", f"file://{folder}/out"
        self.tar = Unit((save(folder / "a.tar", tar_bytes(MEMBERS)),), 0)
        self.folder = OutputFolder(STORAGE, self.uri)
        self.folder.write_settings({"model": "m"})
        units = [*UNITS, self.tar]
        sources = (source for unit in units for source in unit.sources)
        Plan(STORAGE, self.uri).update(sources, lambda _: units)
        for unit in units:
            self.committer().write(UnitWork.whole(unit), "sources", rows_of(unit))
        (self.path / "report.html").write_text("faces")
        (self.path / "run.json").write_text("{}")
        self.folder.write_success()

    def committer(self) -> Committer:
        removed = Removed.all_of(removal.pictures for removal in self.folder.removals())
        return Committer(STORAGE, self.uri, "settings", "model", removed=removed)

    def table(self, name: str) -> pa.Table:
        return pa.concat_tables(
            [pq.ParquetFile(path).read() for path in sorted((self.path / name).glob("*.parquet"))],
            promote_options="permissive",
        )

    def failed(self, unit: Unit) -> Part | None:
        """What the unit's footer says of records that failed."""
        info = STORAGE.stat(committed(STORAGE, self.uri)[unit.name].uri)
        footer = read_footer(STORAGE, info) if info else None
        assert footer is not None
        return footer.failed

    def ids(self, name: str) -> set[str]:
        return set(self.table(name)["image_id"].to_pylist())


def rows_of(unit: Unit) -> pa.Table:
    if unit.start is None:
        return make_rows(unit)
    records, end = read(unit)
    builder = RowBuilder(records_table(unit.name, [*records, end]))
    for row, data in builder.encoded():
        builder.add(row, *((CORRUPT,) if data == b"broken" else (Picture(RGB, "jpeg"), make_detections(2, row))))
    return builder.table()


@pytest.fixture
def output(tmp_path: Path) -> Output:
    return Output(tmp_path)


def removed(output: Output, *options: str, code: int = 0) -> str:
    assert run_job(remove.app, [str(output.path), *options]) == code
    return output.uri


def test_a_picture_and_its_faces_go_and_no_others(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    uri, before, faces = UNITS[1].sources[3].uri, output.ids("images"), output.table("detections").num_rows
    removed(output, "--uri", uri)
    assert "1 picture with 2 faces in the output" in capsys.readouterr().out
    assert before - output.ids("images") == {image_id_of(uri)}
    assert output.table("detections").num_rows == faces - 2
    assert image_id_of(uri) not in output.ids("detections")
    assert validate(STORAGE, output.uri).exit_code == 0
    assert (output.path / "_SUCCESS").exists()
    assert not (output.path / "report.html").exists()
    text = b"".join(path.read_bytes() for path in (output.path / "detections").iterdir())
    assert image_id_of(uri).encode() not in text


def test_an_archive_a_member_and_an_id(output: Output) -> None:
    tar = output.tar.sources[0].uri
    last = image_id_of(UNITS[2].sources[0].uri)
    removed(output, "--uri", tar, "--member", "x/2.jpg", "--image-id", last)
    left = output.table("images")
    assert left.filter(pa.compute.equal(left["uri"], tar))["member"].to_pylist() == ["x/1.jpg", "y.jpg"]
    assert last not in output.ids("images")
    removed(output, "--uri", tar)
    assert tar not in output.table("images")["uri"].to_pylist()
    assert len(output.ids("images")) == 14


def test_an_output_with_carried_columns(tmp_path: Path) -> None:
    """The command knows their types by no option: once it took the rows out and then failed at the plan."""
    unit, label, uri = make_unit(3), pa.field("label", pa.string()), f"file://{tmp_path}/out"
    OutputFolder(STORAGE, uri).write_settings({"model": "m", "carry": ["label"]})
    Plan(STORAGE, uri, [label]).update(unit.sources, lambda _: [unit])
    rows = make_rows(unit, carried=(label,), carried_values={"label": "x"})
    Committer(STORAGE, uri, "settings", "model", (label,)).write(UnitWork.whole(unit), "sources", rows)
    assert run_job(remove.app, [f"{tmp_path}/out", "--uri", unit.sources[1].uri]) == 0
    (images,) = (tmp_path / "out" / "images").glob("*.parquet")
    left = pq.ParquetFile(images).read(columns=["uri", "label"]).to_pylist()
    assert left == [{"uri": unit.sources[place].uri, "label": "x"} for place in (0, 2)]


def test_what_is_out_stays_out_of_every_redo(output: Output) -> None:
    """Of a whole unit, of a changed picture, of a retry; and of an archive that holds it again."""
    unit, tar = UNITS[0], output.tar
    gone = {image_id_of(unit.sources[2].uri), image_id_of(tar.sources[0].uri, b"y.jpg")}
    removed(output, "--uri", unit.sources[2].uri)
    removed(output, "--uri", tar.sources[0].uri, "--member", "y.jpg")
    for each in (unit, tar):
        output.committer().write(UnitWork.whole(each), "sources 2", rows_of(each))
    assert not gone & output.ids("images")

    now = {place: replace(unit.sources[place], version="v2") for place in (2, 4)}
    sources = [now.get(place, source) for place, source in enumerate(unit.sources)]
    record = committed(STORAGE, output.uri)[unit.name]
    work = least_work(
        Unit(tuple(sources)), record, STORAGE, (), changed=True, retry=True, removed=Removed(frozenset(gone))
    )
    assert work.part.sources == (now[4],), "no inference for what is out"
    output.committer().write(work, "sources 3", make_rows(work.part))
    assert not gone & output.ids("images")


def test_a_failed_record_that_is_out_is_not_tried_again(output: Output) -> None:
    tar = output.tar
    assert output.failed(tar) == Part(frozenset({3}))
    removed(output, "--uri", tar.sources[0].uri, "--member", "y.jpg")
    assert output.failed(tar) is None, "unknown: a retry reads the tar whole"
    output.committer().write(UnitWork.whole(tar), "sources", rows_of(tar))
    assert output.failed(tar) == Part()


def test_what_is_not_there_yet_stays_out_if_it_comes(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    later = make_unit(3, "later")
    removed(output, "--uri", later.sources[1].uri)
    told = capsys.readouterr().out
    assert f"not in the output: {later.sources[1].uri}" in told
    assert "it stays out if it comes" in told
    assert "taken out" not in told
    assert (output.path / "report.html").exists(), "it tells of what is there still"
    assert (output.path / "_SUCCESS").exists()
    output.committer().write(UnitWork.whole(later), "sources", make_rows(later))
    assert image_id_of(later.sources[1].uri) not in output.ids("images")
    assert image_id_of(later.sources[0].uri) in output.ids("images")


def test_what_comes_later_under_a_name_stays_out(output: Output) -> None:
    """Members of an archive that was named, and every occurrence of a member, whatever the output held at the time."""
    bucket = Unit((save(output.path.parent / "later.tar", tar_bytes(MEMBERS)),), 0)
    removed(output, "--uri", bucket.sources[0].uri)
    output.committer().write(UnitWork.whole(bucket), "sources", rows_of(bucket))
    assert bucket.sources[0].uri not in output.table("images")["uri"].to_pylist()
    other = Unit((save(output.path.parent / "other.tar", tar_bytes(MEMBERS)),), 0)
    removed(output, "--uri", other.sources[0].uri, "--member", "x/2.jpg")
    output.committer().write(UnitWork.whole(other), "sources", rows_of(other))
    left = output.table("images")
    left = left.filter(pa.compute.equal(left["uri"], other.sources[0].uri))
    assert left["member"].to_pylist() == ["x/1.jpg", "y.jpg"]


def test_of_several_names_those_that_are_not_there_are_told(output: Output, capsys: pytest.CaptureFixture[str]) -> None:
    there, typo = UNITS[0].sources[0].uri, UNITS[0].sources[0].uri.replace(".jpg", ".jgp")
    removed(output, "--uri", there, typo)
    told = capsys.readouterr().out
    assert "taken out" in told
    assert f"not in the output: {typo}" in told
    assert f"not in the output: {there}" not in told


@pytest.mark.parametrize(
    ("below", "why"),
    [
        ("", "but a folder: the output has 4 pictures below it"),
        ("/*.jpg", "is a pattern"),
        ("/{0..9}.jpg", "is a pattern"),
        ("/[0].jpg", "is a pattern"),
    ],
)
def test_what_names_no_single_picture_is_refused(
    below: str, why: str, output: Output, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Once it was noted and called taken out, and the pictures that were meant came in with the next run."""
    folder = tmp_path / "pictures"
    unit = Unit(tuple(Source(f"file://{folder}/{number}.jpg", Kind.PICTURE, 1, "v") for number in range(4)))
    output.committer().write(UnitWork.whole(unit), "sources", make_rows(unit))
    before = {path: path.read_bytes() for path in output.path.rglob("*") if path.is_file()}
    removed(output, "--uri", unit.sources[0].uri, f"{folder}{below}", code=2)
    assert why in capsys.readouterr().err
    assert {path: path.read_bytes() for path in output.path.rglob("*") if path.is_file()} == before


def test_a_name_that_looks_like_a_pattern_is_one_where_a_picture_has_it(output: Output, tmp_path: Path) -> None:
    unit = Unit((Source(f"file://{tmp_path}/a[1].jpg", Kind.PICTURE, 1, "v"),))
    output.committer().write(UnitWork.whole(unit), "sources", make_rows(unit))
    removed(output, "--uri", unit.sources[0].uri)
    assert unit.sources[0].uri not in output.table("images")["uri"].to_pylist()


def test_an_output_that_cannot_be_written_to_is_refused(
    output: Output, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Before the first write, and with what failed first: once it was the deletion of what had not been written."""

    def read_only(**_: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr(place.tempfile, "TemporaryFile", read_only)
    removed(output, "--uri", UNITS[0].sources[0].uri, code=2)
    told = " ".join(capsys.readouterr().err.split())
    assert "cannot be written to: [Errno 30] Read-only file system" in told
    assert "goes on" not in told


@pytest.mark.parametrize("asked", [True, False])
def test_a_report_that_tells_of_other_rows_is_written_anew_or_goes(
    asked: bool, output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """After any change since it was written, also one by a run that was killed: `_SUCCESS` is not there then."""
    reports, written = output.path / "report.html", list[str]()
    monkeypatch.setattr(finish, "write_report", lambda *_, **__: written.append("anew"))
    job = SimpleNamespace(report=asked, report_pictures=0)
    reading, claim = SimpleNamespace(storage=STORAGE), SimpleNamespace(guarded=lambda: STORAGE)
    run = cast(Any, SimpleNamespace(job=job, output=output.folder, reading=reading, claim=claim))
    told = finish._report(run, {}, changed=False)
    assert told == (output.folder.path("report.html") if asked else "not asked for")
    assert reports.exists()
    assert written == []
    told = finish._report(run, {}, changed=True)
    assert written == (["anew"] if asked else [])
    assert reports.exists() == asked
    assert asked or "is deleted" in told
    assert asked or finish._report(run, {}, changed=True) == "not asked for", "there is none to delete"


def test_a_report_that_cannot_be_written_leaves_no_old_one(output: Output, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*_: object, **__: object) -> None:
        raise RuntimeError("a bug")

    monkeypatch.setattr(finish, "write_report", fails)
    job = SimpleNamespace(report=True, report_pictures=0)
    claim = SimpleNamespace(guarded=lambda: STORAGE)
    run = SimpleNamespace(job=job, output=output.folder, reading=SimpleNamespace(storage=STORAGE), claim=claim)
    assert finish._report(cast(Any, run), {}, changed=True) == "could not be written"
    assert not (output.path / "report.html").exists()


@pytest.mark.parametrize("finished", [True, False])
def test_a_removal_that_was_cut_short_is_finished_by_the_next_one(output: Output, finished: bool) -> None:
    """Of the same or of others, or by the next run; `_SUCCESS` comes back if it was there."""
    ids = frozenset({image_id_of(UNITS[0].sources[0].uri)})
    output.folder.write_removal(Removal(Removed(ids), done=False, finished=finished))
    output.folder.delete_success()
    removed(output, "--uri", UNITS[1].sources[0].uri)
    assert not ids & output.ids("images")
    assert (output.path / "_SUCCESS").exists() == finished
    assert all(json.loads(note.read_text())["done"] for note in (output.path / "_run" / "removed").iterdir())


def test_the_next_run_finishes_a_removal_and_its_report_goes(output: Output) -> None:
    ids = frozenset({image_id_of(UNITS[0].sources[0].uri)})
    output.folder.write_removal(Removal(Removed(ids), done=False, finished=True))
    assert finish_removals(STORAGE, output.folder, output.committer())
    assert not ids & output.ids("images")
    assert not (output.path / "_SUCCESS").exists(), "that is the run's to write"
    assert not (output.path / "report.html").exists()


def test_a_damaged_unit_is_worked_anew_and_the_tables_are_not_called_whole(
    output: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    record = committed(STORAGE, output.uri)[UNITS[0].name]
    Path(record.uri.removeprefix("file://")).write_bytes(b"PAR1")
    removed(output, "--uri", UNITS[1].sources[0].uri)
    assert "The tables are not whole" in capsys.readouterr().out
    assert not (output.path / "_SUCCESS").exists()
    assert UNITS[0].name not in committed(STORAGE, output.uri)
    assert len(committed(STORAGE, output.uri)) == 3


def test_a_kill_behind_a_damaged_unit_does_not_make_the_tables_whole(
    output: Output, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Who goes on finds nothing of the unit any more: the note has to tell."""
    record = committed(STORAGE, output.uri)[UNITS[0].name]
    Path(record.uri.removeprefix("file://")).write_bytes(b"PAR1")
    ids = frozenset({image_id_of(UNITS[1].sources[0].uri)})
    output.folder.write_removal(Removal(Removed(ids), done=False, finished=True))
    committer = output.committer()

    def retire_and_die(units: Sequence[str]) -> None:
        type(committer).retire(committer, units)
        raise KeyboardInterrupt

    monkeypatch.setattr(committer, "retire", retire_and_die)
    with pytest.raises(KeyboardInterrupt):
        finish_removals(STORAGE, output.folder, committer)
    assert not finish_removals(STORAGE, output.folder, output.committer())


def test_a_dry_run_writes_nothing_and_wrong_options_are_refused(
    output: Output, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.read_bytes() for path in output.path.rglob("*") if path.is_file()}
    removed(output, "--uri", UNITS[0].sources[0].uri, "--dry-run")
    assert "Nothing was written." in capsys.readouterr().out
    for options, why in (
        ([], "give --uri or --image-id"),
        (["--image-id", "12"], "is no id"),
        (["--uri", ""], "is empty"),
        (["--member", "a", "--uri", "s3://b/1", "s3://b/2"], "give exactly one --uri"),
    ):
        removed(output, *options, code=2)
        assert why in capsys.readouterr().err
    assert run_job(remove.app, [str(output.path.parent / "nothing"), "--uri", "a.jpg"]) == 2
    assert {path: path.read_bytes() for path in output.path.rglob("*") if path.is_file()} == before


def test_names_that_are_not_utf_8_are_found_as_they_are_shown(tmp_path: Path) -> None:
    raw = os.fsdecode(b"\xff.jpg")
    pictures = Removed.named(members=[("s3://b/a.tar", raw)])
    rows = pa.table(
        {
            "image_id": [image_id_of("s3://b/a.tar", b"\xff.jpg", 1), "2" * 32],
            "uri": ["s3://b/a.tar"] * 2,
            "member": ["\\xff.jpg", "x.jpg"],
        }
    )
    assert pictures.among(rows) == {rows["image_id"][0].as_py()}
    assert image_id_of("s3://b/a.tar", b"\xff.jpg") in pictures.image_ids
    folder = OutputFolder(STORAGE, str(tmp_path))
    folder.write_removal(Removal(pictures, done=True, finished=False))
    assert folder.removals() == [Removal(pictures, done=True, finished=False)]


ALIKE = ["a/b.jpg", "./a/b.jpg", "a//b.jpg", "a\\b.jpg", "/a/./b.jpg"]


@pytest.mark.parametrize("named", ALIKE)
def test_a_member_is_meant_however_its_archive_was_packed(named: str) -> None:
    """`tar cf a.tar .` puts ./ before each name: the picture came back when its tar was packed anew."""
    others = ["b.jpg", "x/a/b.jpg", "../a/b.jpg", "a/xff.jpg", "b/a.jpg", None]
    names = [*ALIKE, *others, *ALIKE]
    uris = ["s3://b/a.tar"] * (len(ALIKE) + len(others)) + ["s3://b/other.tar"] * len(ALIKE)
    ids = [f"{number:032x}" for number in range(len(names))]
    rows = pa.table({"image_id": ids, "uri": uris, "member": pa.array(names, pa.string())})
    noted = Removed.from_json({"image_ids": [], "uris": [], "members": [["s3://b/a.tar", named]]})
    assert noted.among(rows) == set(ids[: len(ALIKE)])


def test_a_byte_that_is_shown_with_a_backslash_ends_no_folder() -> None:
    rows = pa.table({"image_id": ["1" * 32], "uri": ["s3://b/a.tar"], "member": ["a/xff.jpg"]})
    assert Removed.named(members=[("s3://b/a.tar", os.fsdecode(b"a\xff.jpg"))]).among(rows) == set()


def test_found_tells_units_and_faces(output: Output) -> None:
    found = find(STORAGE, output.uri, Removed.named(uris=[output.tar.sources[0].uri]))
    assert (found.pictures, found.faces, list(found.in_units)) == (4, 6, [output.tar.name])
