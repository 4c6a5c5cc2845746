"""The file that readers follow: moved in one step, by one writer at a time, and never taken from somebody else."""

from __future__ import annotations

import json
from pathlib import Path

import duckdb
import polars as pl
import pytest

from tests.unit.compare_samples import Sample, SampleOutput
from tinyface_core.compare import pointer as pointer_module
from tinyface_core.compare.pointer import Pointer
from tinyface_core.errors import ClaimError, OutputError, StopRun
from tinyface_core.storage import Storage
from tinyface_core.tables.claim import Claim

OLD, NEW = "file:///somewhere/old", "file:///somewhere/new"


def at(path: Path) -> Pointer:
    return Pointer.at(Storage(), str(path), (OLD, NEW))


def test_it_is_made_then_moved_and_left_alone_where_it_names_the_new_one(tmp_path: Path) -> None:
    file = tmp_path / "current.json"
    assert at(file).output() is None
    assert at(file).move(NEW, OLD, {}) is True
    assert at(file).move(OLD, NEW, {"pictures": {"compared": 2}}) is True
    content = json.loads(file.read_text())
    assert {**content, "accepted_at": None} == {
        "output": NEW, "before": OLD, "accepted_at": None, "pictures": {"compared": 2},
    }  # fmt: skip
    before = file.stat().st_mtime_ns
    assert at(file).move(OLD, NEW, {}) is False
    assert file.stat().st_mtime_ns == before
    assert not list((tmp_path / ".current.json" / "_run" / "claims").iterdir())


def test_what_another_one_accepted_meanwhile_is_not_written_over(tmp_path: Path) -> None:
    file = tmp_path / "current.json"
    mine = at(file)
    file.write_text(json.dumps({"output": "file:///third"}))
    with pytest.raises(StopRun, match="names file:///third by now"):
        mine.move(OLD, NEW, {})
    assert json.loads(file.read_text()) == {"output": "file:///third"}


def test_a_second_writer_is_refused_while_the_first_holds_the_claim(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    file = tmp_path / "current.json"

    class Impatient(Claim):
        def _acquire(self) -> None:
            raise ClaimError("held")

    monkeypatch.setattr(pointer_module, "Claim", Impatient)
    with pytest.raises(ClaimError):
        at(file).move(OLD, NEW, {})
    assert not file.exists()


def test_it_looks_again_under_the_claim(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Another writer moves it between our look and our claim."""
    file = tmp_path / "current.json"

    class Late(Claim):
        def __enter__(self) -> Claim:
            file.write_text(json.dumps({"output": "file:///third"}))
            return super().__enter__()

    monkeypatch.setattr(pointer_module, "Claim", Late)
    with pytest.raises(StopRun):
        at(file).move(OLD, NEW, {})
    assert "third" in file.read_text()


@pytest.mark.parametrize("text", ["", "words", "[]", "{}", '{"output": 1}'])
def test_another_file_is_never_taken_for_a_pointer(text: str, tmp_path: Path) -> None:
    (tmp_path / "mine.json").write_text(text)
    with pytest.raises(OutputError, match="is no pointer"):
        at(tmp_path / "mine.json")


def test_a_pointer_to_a_third_output_is_refused(tmp_path: Path) -> None:
    (tmp_path / "current.json").write_text(json.dumps({"output": "s3://b/third"}))
    with pytest.raises(OutputError, match="names s3://b/third, which is neither"):
        at(tmp_path / "current.json")


@pytest.mark.parametrize("name", ["out/current.json", "out/images/current.json"])
def test_it_does_not_lie_in_an_output(name: str, tmp_path: Path) -> None:
    uri = SampleOutput([[Sample("a")]]).write(tmp_path / "out")
    with pytest.raises(OutputError, match="lies in an output"):
        Pointer.at(Storage(), str(tmp_path / name), (uri, NEW))
    with pytest.raises(OutputError, match="is a folder"):
        at(tmp_path / "out")


def test_duckdb_and_polars_follow_it(tmp_path: Path) -> None:
    """As docs/compare.md has it; the path holds what a url would spell otherwise."""
    folder = tmp_path / "its own & more"
    sides = [SampleOutput([[Sample(name)]]).write(folder / name) for name in ("old", "new")]
    pointer = Pointer.at(Storage(), str(folder / "current.json"), (sides[0], sides[1]))
    for before, after in ((sides[1], sides[0]), (sides[0], sides[1])):
        pointer.move(before, after, {})
        with duckdb.connect() as connection:
            connection.execute(f"SET VARIABLE faces = (SELECT output FROM read_json('{folder}/current.json'))")
            connection.execute(
                "CREATE VIEW images AS FROM read_parquet(getvariable('faces') || '/images/**/*.parquet')"
            )
            assert connection.execute("SELECT uri FROM images").fetchall() == [(f"file:///archive/{after[-3:]}",)]
        faces = json.loads((folder / "current.json").read_text())["output"]
        read = pl.scan_parquet(f"{faces}/images/**/*.parquet").select("uri").collect()["uri"].to_list()
        assert read == [f"file:///archive/{after[-3:]}"]
