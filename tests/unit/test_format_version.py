"""Whoever reads tables reads today's format, and refuses another one with a sentence that says what to do."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import duckdb
import pyarrow.parquet as pq
import pytest

from compare import app as compare_app
from evaluate import app as evaluate_app
from export import app as export_app
from options import run_job
from remove import app as remove_app
from render import app as render_app
from tests.unit.compare_samples import SETTINGS, Sample, SampleOutput
from tests.unit.test_compare_outputs import FACE
from tinyface_core import __version__
from tinyface_core.errors import FormatError
from tinyface_core.evaluate.fddb_files import read_results
from tinyface_core.labels.forms import read_lines
from tinyface_core.report.summary import summarise
from tinyface_core.storage import Storage
from tinyface_core.tables import format_version
from tinyface_core.tables.footer import Footer, committed
from tinyface_core.tables.format_version import FORMAT_VERSION, check_format
from tinyface_core.tables.output import OutputFolder
from validate import app as validate_app

NEWER, OLDER = FORMAT_VERSION + 1, FORMAT_VERSION - 1


def with_format(folder: Path, version: int) -> Path:
    """An output whose footers and settings tell that format."""
    SampleOutput([[Sample("a.jpg", [FACE])]], SETTINGS | {"format_version": version}).write(folder)
    for file in folder.rglob("part-*.parquet"):
        footer = Footer.from_metadata(pq.read_metadata(file).metadata)
        assert footer is not None
        table = pq.read_table(file, partitioning=None).replace_schema_metadata(None)
        with pq.ParquetWriter(file, table.schema) as writer:
            writer.write_table(table)
            writer.add_key_value_metadata(replace(footer, format_version=version).metadata())
    (folder / "_run" / "plan").mkdir()
    (folder / "_run" / "plan" / "000001.complete").touch()
    return folder


Reader = Callable[[Path], object]
READERS: dict[str, Reader] = {
    "the report": lambda folder: summarise(Storage(), str(folder)),
    "a resumed run, by its settings": lambda folder: OutputFolder(Storage(), str(folder)).check(),
    "a resumed run, a redaction, a removal, Iceberg": lambda folder: committed(Storage(), f"file://{folder}"),
    "FDDB's protocol": lambda folder: read_results(folder),
    "training and templates": lambda folder: list(read_lines(folder)),
}
JOBS = {
    "validate": (validate_app, ["OUT"]),
    "export": (export_app, ["OUT", "--to", "coco", "--output", "TMP/faces.json"]),
    "remove": (remove_app, ["OUT", "--uri", "file:///archive/a.jpg"]),
    "render": (render_app, ["OUT", "--output", "TMP/looked"]),
    "compare, as the old one": (compare_app, ["OUT", "TMP/today"]),
    "compare, as the new one": (compare_app, ["TMP/today", "OUT"]),
    "evaluate": (evaluate_app, ["OUT", "--truth", "TMP/annotations"]),
}


@pytest.mark.parametrize("reader", READERS.values(), ids=READERS)
def test_readers(reader: Reader, tmp_path: Path) -> None:
    reader(with_format(tmp_path / "today", FORMAT_VERSION))
    with pytest.raises(FormatError, match=rf"was written in format {NEWER} by a later version.*Update tinyface"):
        reader(with_format(tmp_path / "newer", NEWER))
    with pytest.raises(FormatError, match=rf"was written in format {OLDER};.*python jobs/detect_archive.py --input"):
        reader(with_format(tmp_path / "older", OLDER))


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
@pytest.mark.parametrize("version", [NEWER, OLDER])
def test_jobs_end_with_2_and_write_nothing(
    job: tuple, version: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out, _ = with_format(tmp_path / "out", version), with_format(tmp_path / "today", FORMAT_VERSION)
    (tmp_path / "annotations").mkdir()
    line = {"image": "a.jpg", "width": 900, "height": 600, "boxes": [[100, 100, 30, 30]]}
    (tmp_path / "annotations" / "annotations.jsonl").write_text(json.dumps(line) + "\n")
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    app, tokens = job
    assert run_job(app, [token.replace("OUT", str(out)).replace("TMP", str(tmp_path)) for token in tokens]) == 2
    assert f"was written in format {version}" in capsys.readouterr().err
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before


def test_the_sentence_names_the_version_that_reads() -> None:
    with pytest.raises(FormatError, match=rf"file:///x: .*this version of tinyface \({__version__}\) reads format 1\."):
        check_format(7, "file:///x")
    with pytest.raises(FormatError, match="its format is 'one', no number"):
        check_format("one", "file:///x")


def test_an_older_format_that_can_be_migrated_is_refused_with_its_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """Made up: no format was ever replaced."""
    for name, value in (("FORMAT_VERSION", 3), ("OLDEST_READ", 2), ("MIGRATIONS", {1: "python jobs/migrate.py OUT"})):
        monkeypatch.setattr(format_version, name, value)
    check_format(2, "file:///x")
    with pytest.raises(FormatError, match=r"reads formats 2 to 3\. Migrate it: python jobs/migrate.py OUT"):
        check_format(1, "file:///x")


def test_no_format_lies_between_those_that_are_read_and_those_that_a_command_migrates() -> None:
    assert set(format_version.MIGRATIONS) == set(range(1, format_version.OLDEST_READ))


def test_one_file_of_another_format_among_many_is_found(tmp_path: Path) -> None:
    SampleOutput([[Sample("b.jpg")], [Sample("c.jpg")]]).write(tmp_path / "out")
    newer = with_format(tmp_path / "newer", NEWER)
    for table in ("images", "detections"):
        file = next((newer / table).iterdir())
        file.rename(tmp_path / "out" / table / file.name)
    with duckdb.connect() as connection, pytest.raises(FormatError, match="part-"):
        format_version.check_tables(connection, f"'{tmp_path}/out/images/**/*.parquet'")
    with pytest.raises(FormatError, match="part-"):
        summarise(Storage(), str(tmp_path / "out"))
