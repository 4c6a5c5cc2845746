"""The validator: a sound output passes, and each way of breaking one is found, alone and by its name.

Rows are changed before they are written, with the commit hash of the changed rows, so that exactly one thing is wrong.
"""

from __future__ import annotations

import math
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.row_samples import CORRUPT, UNREADABLE, make_rows, make_unit
from tinyface_core.archive.record import Unit
from tinyface_core.storage import Storage
from tinyface_core.tables import check_files, check_unit, validate
from tinyface_core.tables.commit import Committer, encode
from tinyface_core.tables.digest import commit_of
from tinyface_core.tables.footer import Footer, detections_uri, images_uri
from tinyface_core.tables.redo import UnitWork
from tinyface_core.tables.rules import FACE_IN_PICTURE_RULES, FACE_RULES, IMAGE_RULES
from tinyface_core.tables.unit_tables import UnitTotals, unit_tables
from tinyface_core.tables.validate import Report

STORAGE = Storage()
UNITS = [make_unit(6, name) for name in ("a", "b", "c")]
BROKEN = UNITS[1]  # the unit that a test breaks

Change = Callable[[pa.Table], pa.Table]
Place = tuple[str, str]  # (folder of the file, check)


def uri(folder: Path) -> str:
    return STORAGE.canonical(str(folder))


def rows_of(unit: Unit) -> pa.Table:
    """Six pictures, 2 with errors, 3 faces each in the others."""
    return make_rows(unit, faces=3, failing={1: CORRUPT, 3: UNREADABLE}, skipped={".json": 1})


def finish(folder: Path) -> None:
    (folder / "_run").mkdir()
    (folder / "_run" / "log.txt").write_text("")
    (folder / "run.json").write_text("{}")
    (folder / "report.html").write_text("")
    (folder / "_SUCCESS").write_text("")


@pytest.fixture(scope="module")
def sound_output(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sound") / "out"
    committer = Committer(STORAGE, uri(folder), "settings", "model")
    for unit in UNITS:
        committer.write(UnitWork.whole(unit), "sources", rows_of(unit))
    finish(folder)
    return folder


@pytest.fixture
def output(sound_output: Path, tmp_path: Path) -> Path:
    """A finished run of three units: 18 pictures, 6 with errors, 36 faces."""
    return Path(shutil.copytree(sound_output, tmp_path / "out"))


def check(folder: Path, **options: Any) -> Report:
    return validate.validate(STORAGE, uri(folder), **options)


def found(report: Report) -> set[Place]:
    return {(violation.file.split("/")[0], violation.check) for violation in report.violations}


def as_it_is(table: pa.Table) -> pa.Table:
    return table


def setting(column: str, row: int, value: Any) -> Change:
    """A change of one cell."""

    def change(table: pa.Table) -> pa.Table:
        values = table[column].to_pylist()
        values[row] = value
        field = table.schema.field(column)
        return table.set_column(table.schema.get_field_index(column), field, pa.array(values, field.type))

    return change


@dataclass(frozen=True)
class Breakage:
    """Changes to the rows and footers of one unit. raw: done to the bytes of one of its files."""

    images: Change = as_it_is
    detections: Change = as_it_is
    footer: dict[str, Any] = field(default_factory=dict)
    detections_footer: dict[str, Any] = field(default_factory=dict)
    totals: UnitTotals | None = None
    raw: tuple[str, Callable[[bytes], bytes]] | None = None


def rewrite(folder: Path, unit: Unit = BROKEN, breakage: Breakage | None = None, **changes: Any) -> None:
    """Writes a unit as a driver with a bug would: apart from the breakage, hash, footers and names all agree."""
    breakage = breakage or Breakage(**changes)
    tables = unit_tables(unit.name, rows_of(unit))
    changed = [breakage.images(tables.images), breakage.detections(tables.detections)]
    commit = commit_of((name, table[name]) for table in changed for name in table.column_names)
    with_commit = []
    for table in changed:
        if "commit" in table.column_names:
            column = [commit if old == tables.commit else old for old in table["commit"].to_pylist()]
            place = table.schema.get_field_index("commit")
            table = table.set_column(place, table.schema.field(place), pa.array(column, pa.string()))
        with_commit.append(table)
    totals = UnitTotals(len(changed[0]), len(changed[1]), {"corrupt": 1, "unreadable": 1}, {".json": 1})
    values: dict[str, Any] = {"unit": unit.name, "commit": commit, "settings_hash": "settings", "model_hash": "model"}
    record = {**values, "sources_hash": "sources", "totals": breakage.totals or totals, **breakage.footer}
    for old in (folder / "detections").glob(f"part-{unit.name}-*"):
        old.unlink()
    files = {
        "images": (images_uri(uri(folder), unit.name), encode(with_commit[0], Footer(**record), ())),
        "detections": (
            detections_uri(uri(folder), unit.name, commit),
            encode(with_commit[1], Footer(**{**values, **breakage.detections_footer}), ()),
        ),
    }
    for table, (where, data) in files.items():
        raw = breakage.raw
        STORAGE.write(where, raw[1](data) if raw and raw[0] == table else data)


def flip_a_bit(data: bytes) -> bytes:
    """Flips one that only a checksum tells: the file can still be read, with other values."""
    start = pq.ParquetFile(pa.BufferReader(data)).metadata.row_group(0).column(0).data_page_offset
    for place in range(start + 30, len(data)):
        flipped = data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :]
        try:
            if not pq.read_table(pa.BufferReader(flipped)).equals(pq.read_table(pa.BufferReader(data))):
                return flipped
        except (OSError, pa.ArrowException):
            continue
    raise AssertionError("no such bit")


PICTURES = [  # each breaks one rule on pictures
    (setting("unit", 0, "0" * 32), "unit is not the file's"),
    (setting("commit", 0, "0" * 32), "commit is not the file's"),
    (setting("status", 1, "fine"), "status is neither ok nor error"),
    (setting("sha256", 0, "abc"), "sha256 is no 256-bit hex"),
    (setting("sha256", 0, None), "an ok row lacks what a decoded picture has"),
    (setting("size_bytes", 0, None), "an ok row lacks what a decoded picture has"),
    (setting("format", 0, None), "an ok row lacks what a decoded picture has"),
    (setting("min_face_px", 0, None), "an ok row lacks what a decoded picture has"),
    (setting("height", 0, None), "an ok row has no size"),
    (setting("exif_orientation", 0, 9), "exif_orientation is not 1 to 8"),
    (setting("exif_orientation", 0, None), "exif_orientation is not 1 to 8"),
    (setting("error_stage", 0, "decode"), "an ok row has an error"),
    (setting("error_message", 0, "but why"), "an ok row has an error"),
    (setting("width", 1, 53), "an error row has what only a decoded picture has"),
    (setting("zooms", 3, [1.0]), "an error row has what only a decoded picture has"),
    (setting("error_stage", 1, "lunch"), "error_stage is not in the list"),
    (setting("error_stage", 1, None), "error_stage is not in the list"),
    (setting("error_message", 1, None), "an error row has no message"),
    (setting("num_faces", 0, 2), check_unit.WRONG_COUNT),
    (setting("num_faces", 0, 2**30), check_unit.WRONG_COUNT),
]
FACES = [  # each breaks one rule on faces
    (setting("commit", 0, "0" * 32), "commit is not the file's"),
    (setting("x1", 0, -0.5), "a box reaches out of its picture"),
    (setting("y1", 0, -0.5), "a box reaches out of its picture"),
    (setting("x2", 0, 53.01), "a box reaches out of its picture"),
    (setting("y2", 0, 37.01), "a box reaches out of its picture"),
    (setting("x2", 0, 0.0), "an empty box"),
    (setting("y2", 0, 0.0), "an empty box"),
    (setting("score", 0, 1.01), "score is not in 0..1"),
    (setting("score", 2, -0.01), "score is not in 0..1"),
    (setting("score", 1, 1.0), check_unit.WRONG_SCORE_ORDER),
    (setting("template", 0, 25), "template is not 0 to 24"),
    (setting("template", 0, -1), "template is not 0 to 24"),
    (setting("zoom", 0, 4.0), "zoom is not one of the picture's zooms"),
    (setting("ellipse_cx", 0, math.nan), "a number is not finite"),
    (setting("ellipse_cy", 0, math.inf), "a number is not finite"),
    (setting("ellipse_angle", 0, math.pi), "ellipse_angle is not in [0, pi)"),
    (setting("ellipse_angle", 0, -0.01), "ellipse_angle is not in [0, pi)"),
    (setting("ellipse_major", 0, 0.5), "ellipse_major < ellipse_minor, or an axis is not positive"),
    (setting("ellipse_minor", 0, 0.0), "ellipse_major < ellipse_minor, or an axis is not positive"),
    (setting("ellipse_source", 0, "guess"), "ellipse_source is not in the list"),
    (lambda table: table.take(pa.array([0, 3, 1, 2, *range(4, len(table))])), check_unit.WRONG_FACE_ORDER),
    (lambda table: table.take(pa.array([3, 4, 5, 0, 1, 2, *range(6, len(table))])), check_unit.WRONG_FACE_ORDER),
]
TWO_RULES: list[tuple[Breakage, set[Place]]] = [
    (
        Breakage(images=setting("image_id", 0, "X" * 32)),
        {
            ("images", "image_id is no 128-bit hex"),
            ("images", check_unit.WRONG_COUNT),
            ("detections", check_unit.NO_PICTURE),
        },
    ),
    (
        Breakage(images=setting("uri", 0, "zzz.jpg")),
        {("images", "uri is not absolute"), ("images", check_unit.WRONG_IMAGE_ORDER)},
    ),
    (
        Breakage(images=setting("error_class", 0, "corrupt")),
        {("images", "an ok row has an error"), ("images", check_files.WRONG_TOTALS)},
    ),
    (
        Breakage(images=setting("error_class", 1, "boring")),
        {("images", "error_class is not in the list"), ("images", check_files.WRONG_TOTALS)},
    ),
    (
        Breakage(images=setting("num_faces", 0, -1)),
        {("images", "num_faces is negative"), ("images", check_unit.WRONG_COUNT)},
    ),
    (
        Breakage(images=setting("num_faces", 1, 1)),
        {("images", "an error row has faces"), ("images", check_unit.WRONG_COUNT)},
    ),
    (
        Breakage(images=setting("width", 0, 0)),
        {("images", "an ok row has no size"), ("detections", "a box reaches out of its picture")},
    ),
    (
        Breakage(detections=setting("image_id", 0, "0" * 32)),
        {("detections", check_unit.NO_PICTURE), ("images", check_unit.WRONG_COUNT)},
    ),
    (Breakage(detections=lambda table: table.slice(1)), {("images", check_unit.WRONG_COUNT)}),
    (
        Breakage(detections=lambda table: pa.concat_tables([table, table.slice(len(table) - 1)])),
        {("images", check_unit.WRONG_COUNT)},
    ),
    (
        Breakage(images=lambda table: table.take(pa.array([0, 3, 2, 1, 4, 5]))),  # 1 and 3 have no faces
        {("images", check_unit.WRONG_IMAGE_ORDER)},
    ),
    (
        Breakage(  # one object, members falling; a null comes first
            images=lambda table: setting("member", 4, "b")(
                table.set_column(1, table.schema.field("uri"), pa.array(["file:///a"] * 2 + ["file:///b"] * 4))
            )
        ),
        {("images", check_unit.WRONG_IMAGE_ORDER)},
    ),
]
FOOTERS: list[tuple[Breakage, set[Place]]] = [
    (
        Breakage(footer={"unit": "0" * 32}),
        {("images", check_files.OTHER_UNIT), ("detections", check_files.OTHER_FOOTER)},
    ),
    (
        Breakage(footer={"format_version": 2}, detections_footer={"format_version": 2}),
        {("images", check_files.OTHER_FORMAT)},
    ),
    (Breakage(detections_footer={"settings_hash": "x"}), {("detections", check_files.OTHER_FOOTER)}),
    (Breakage(detections_footer={"commit": "x"}), {("detections", check_files.OTHER_FOOTER)}),
    (Breakage(totals=UnitTotals(5, 12, {"corrupt": 1, "unreadable": 1})), {("images", check_files.WRONG_TOTALS)}),
    (Breakage(totals=UnitTotals(6, 13, {"corrupt": 1, "unreadable": 1})), {("images", check_files.WRONG_TOTALS)}),
    (Breakage(totals=UnitTotals(6, 12, {"corrupt": 2})), {("images", check_files.WRONG_TOTALS)}),
    (Breakage(footer={"totals": None}), {("images", check_files.NO_RECORD), ("detections", validate.ORPHAN)}),
    (Breakage(footer={"sources_hash": None}), {("images", check_files.NO_RECORD), ("detections", validate.ORPHAN)}),
]
SCHEMAS: list[Change] = [
    lambda table: table.drop_columns([table.column_names[-1]]),
    lambda table: table.rename_columns(["id", *table.column_names[1:]]),
    lambda table: table.set_column(0, "image_id", table["image_id"].cast(pa.large_string())),
    lambda table: table.cast(pa.schema([column.with_nullable(True) for column in table.schema])),
    lambda table: table.select([*table.column_names[1:], table.column_names[0]]),
]
FILES: list[tuple[Breakage, set[Place]]] = [
    *((Breakage(images=change), {("images", check_files.WRONG_SCHEMA)}) for change in SCHEMAS),
    *((Breakage(detections=change), {("detections", check_files.WRONG_SCHEMA)}) for change in SCHEMAS),
    (
        Breakage(detections=lambda table: table.append_column("year", pa.array([1911] * len(table)))),
        {("detections", check_files.WRONG_SCHEMA)},
    ),
    *(
        (Breakage(raw=("images", change)), {("images", check_files.UNREADABLE), ("detections", validate.ORPHAN)})
        for change in (
            lambda _: b"",
            lambda _: b"PAR1",
            lambda _: b"PAR1" + b"\xff" * 50 + b"PAR1",
            lambda data: data[:-20],
        )
    ),
    (Breakage(raw=("detections", lambda _: b"PAR1")), {("detections", check_files.UNREADABLE)}),
    (Breakage(raw=("images", flip_a_bit)), {("images", check_files.ROWS_UNREADABLE)}),
    (Breakage(raw=("detections", flip_a_bit)), {("images", check_files.ROWS_UNREADABLE)}),
]
CASES: list[tuple[Breakage, set[Place]]] = [
    *((Breakage(images=change), {("images", expected)}) for change, expected in PICTURES),
    *((Breakage(detections=change), {("detections", expected)}) for change, expected in FACES),
    *TWO_RULES,
    *FOOTERS,
    *FILES,
]
CASE_UNITS = [make_unit(6, f"case{i}") for i in range(len(CASES))]


@pytest.fixture(scope="module")
def broken_report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """One output with a unit for each case, validated once."""
    folder = tmp_path_factory.mktemp("broken") / "out"
    for unit, (breakage, _) in zip(CASE_UNITS, CASES, strict=True):
        rewrite(folder, unit, breakage)
    finish(folder)
    return check(folder)


@pytest.mark.parametrize("case", range(len(CASES)))
def test_each_breakage_is_found_and_nothing_else(broken_report: Report, case: int) -> None:
    """The unit has the expected violations, each naming its file, with an example where rows are meant."""
    violations = [each for each in broken_report.violations if CASE_UNITS[case].name in each.file]
    assert {(each.file.split("/")[0], each.check) for each in violations} == CASES[case][1]
    for each in violations:
        assert each.count == 1 or case >= len(PICTURES)
        assert each.example or each.check in (check_files.NO_RECORD, validate.ORPHAN)


def test_every_rule_has_a_case_that_breaks_it() -> None:
    expected = {check for _, places in CASES for _, check in places}
    assert {rule.check for rule in (*IMAGE_RULES, *FACE_RULES, *FACE_IN_PICTURE_RULES)} <= expected


def test_broken_units_do_not_spoil_others(broken_report: Report) -> None:
    """All violations belong to some case, and the exit code says that there are any."""
    names = {unit.name for unit in CASE_UNITS}
    assert all(any(name in violation.file for name in names) for violation in broken_report.violations)
    assert broken_report.exit_code == 1


def test_a_sound_output_is_valid(output: Path) -> None:
    report = check(output)
    assert (report.exit_code, report.violations, report.finished, report.pending) == (0, [], True, 0)
    assert report.units == 3
    assert report.totals == UnitTotals(18, 36, {"corrupt": 3, "unreadable": 3}, {".json": 3})
    assert "18 pictures (6 with errors), 36 faces, 3 units: valid" in str(report)


def test_rewriting_without_a_change_is_sound(output: Path) -> None:
    """The other tests stand on this: what `rewrite` writes is wrong only in what they change."""
    rewrite(output)
    assert check(output).violations == []


def test_carried_columns_and_units_without_rows_are_sound(tmp_path: Path) -> None:
    carried = (pa.field("year", pa.int16()), pa.field("tags", pa.list_(pa.string())), pa.field("at", pa.date32()))
    committer = Committer(STORAGE, uri(tmp_path / "out"), "settings", "model", carried)
    values = {"year": 1911, "tags": ["march", None], "at": None}
    for name, size in (("a", 4), ("none", 0)):
        unit = make_unit(size, name)
        committer.write(UnitWork.whole(unit), "sources", make_rows(unit, carried=carried, carried_values=values))
    (tmp_path / "out" / "_SUCCESS").write_text("")
    (tmp_path / "out" / "run.json").write_text("{}")
    assert check(tmp_path / "out").violations == []


def test_the_largest_angle_and_the_picture_borders_are_allowed(output: Path) -> None:
    below_pi = 3.1415925  # the float32 below pi
    rewrite(
        output,
        detections=lambda table: setting("x2", 0, 53.0)(
            setting("x1", 0, 0.0)(setting("ellipse_angle", 0, below_pi)(setting("score", 0, 1.0)(table)))
        ),
    )
    assert check(output).violations == []


def test_order_and_faces_are_checked_across_batches(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in units larger than a batch: the same findings whatever the size of a batch."""
    monkeypatch.setattr(check_unit, "BATCH_PICTURES", 2)
    monkeypatch.setattr(check_unit, "BATCH_FACES", 4)
    assert check(output).violations == []
    rewrite(output, images=lambda table: table.take(pa.array([0, 2, 1, 3, 4, 5])))
    assert ("images", check_unit.WRONG_IMAGE_ORDER) in found(check(output))
    rewrite(output, detections=setting("x1", 11, -1.0))
    assert found(check(output)) == {("detections", "a box reaches out of its picture")}
    rewrite(output, detections=lambda table: pa.concat_tables([table] * 2))
    assert found(check(output)) == {("images", check_unit.WRONG_COUNT)}


def test_a_changed_value_does_not_fit_the_commit(output: Path) -> None:
    """A value that breaks no rule: only the hash tells."""
    path = output / "images" / f"part-{BROKEN.name}.parquet"
    file = pq.ParquetFile(path)
    footer = Footer.from_metadata(file.metadata.metadata)
    assert footer is not None
    path.write_bytes(encode(setting("size_bytes", 0, 77)(file.read()), footer, ()))
    assert found(check(output)) == {("images", check_unit.WRONG_HASH)}


def test_files_of_one_output_have_one_settings_one_model_and_the_same_columns(output: Path) -> None:
    rewrite(output, images=lambda table: table.append_column("year", pa.array([1911] * 6)))
    assert found(check(output)) == {("images", check_files.MIXED_CARRIED)}
    for key in ("settings_hash", "model_hash"):
        rewrite(output, footer={key: "x"}, detections_footer={key: "x"})
        assert found(check(output)) == {("images", check_files.MIXED_SETTINGS)}


def test_an_id_in_two_units_is_found(output: Path) -> None:
    """The picture of unit a again in unit b, with its faces: each unit by itself is sound."""
    twin = unit_tables(UNITS[0].name, rows_of(UNITS[0])).images["image_id"][0].as_py()
    own = unit_tables(BROKEN.name, rows_of(BROKEN)).images["image_id"][0].as_py()

    def renamed(table: pa.Table) -> pa.Table:
        ids = [twin if each == own else each for each in table["image_id"].to_pylist()]
        return table.set_column(0, table.schema.field("image_id"), pa.array(ids, pa.string()))

    rewrite(output, images=renamed, detections=renamed)
    report = check(output)
    assert found(report) == {("images", validate.REPEATED_ID)}
    [violation] = report.violations
    assert twin in violation.example
    assert {UNITS[0].name, BROKEN.name} == {
        name for name in (UNITS[0].name, BROKEN.name) if name in violation.file + violation.example
    }


def test_an_id_twice_in_one_unit_is_found(output: Path) -> None:
    own = unit_tables(BROKEN.name, rows_of(BROKEN)).images["image_id"][1].as_py()  # an error row, without faces
    rewrite(output, images=setting("image_id", 3, own))
    assert found(check(output)) == {("images", validate.REPEATED_ID)}


def test_missing_and_spare_files(output: Path) -> None:
    [name] = [name for name in os.listdir(output / "detections") if BROKEN.name in name]
    os.rename(output / "detections" / name, output / "detections" / f"part-{BROKEN.name}-{'0' * 32}.parquet")
    assert found(check(output)) == {("images", check_files.NO_DETECTIONS), ("detections", validate.ORPHAN)}


@pytest.mark.parametrize(
    "name",
    [
        "images/other.parquet",
        "detections/notes.txt",
        f"images/part-{'0' * 32}-{'1' * 32}.parquet",
        f"detections/part-{'0' * 32}.parquet",
        f"images/deeper/part-{'0' * 32}.parquet",
        "images/_SUCCESS",
        "copy/part.parquet",
    ],
)
def test_stray_files(output: Path, name: str) -> None:
    (output / name).parent.mkdir(exist_ok=True)
    (output / name).write_bytes(b"")
    report = check(output)
    assert [(violation.file, violation.check) for violation in report.violations] == [(name, validate.STRAY)]


def test_a_large_file_is_read_by_ranges(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(check_files, "_IN_MEMORY_BYTES", 0)
    monkeypatch.delattr(Storage, "read")
    assert check(output).violations == []


def test_an_unfinished_output(output: Path) -> None:
    """Without _SUCCESS: a violation, unless allowed; then files that the next sweep removes are only counted."""
    os.unlink(output / "_SUCCESS")
    os.unlink(output / "run.json")
    (output / "detections" / f"part-{'0' * 32}-{'1' * 32}.parquet").write_bytes(b"")
    (output / "images" / f".part-{'0' * 32}.parquet.{'2' * 32}.tmp").write_bytes(b"")
    assert found(check(output)) == {
        ("_SUCCESS", validate.NOT_FINISHED),
        ("detections", validate.ORPHAN),
        ("images", validate.ORPHAN),
    }
    report = check(output, unfinished_ok=True)
    assert (report.exit_code, report.violations, report.pending, report.finished) == (0, [], 2, False)
    assert "USING (image_id, commit)" in str(report)


def test_a_finished_output_has_run_json_and_nothing_pending(output: Path) -> None:
    os.unlink(output / "run.json")
    (output / "images" / f".part-{'0' * 32}.parquet.{'2' * 32}.tmp").write_bytes(b"")
    assert found(check(output, unfinished_ok=True)) == {
        ("run.json", validate.NO_RUN_JSON),
        ("images", validate.ORPHAN),
    }


def test_an_empty_folder_is_no_output(tmp_path: Path) -> None:
    report = check(tmp_path)
    assert found(report) == {("images", validate.NO_IMAGES), ("_SUCCESS", validate.NOT_FINISHED)}
    assert report.exit_code == 1


def test_the_report_stays_short(output: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(validate, "LISTED_VIOLATIONS", 2)
    for i in range(5):
        (output / f"stray{i}").write_text("")
    report = check(output)
    assert (len(report.violations), report.violations_total) == (2, 5)
    assert "... and 3 more" in str(report)
