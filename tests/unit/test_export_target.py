"""Where an export goes: there whole or not at all, and nothing of the user's is lost."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from tinyface_core.errors import OutputError, StorageError
from tinyface_core.export.target import MARK, Target
from tinyface_core.storage import Storage

OUTPUT = "file:///somewhere/out"


def file_target(path: Path, *, overwrite: bool = False) -> Target:
    return Target(Storage(), str(path), overwrite=overwrite)


def folder_target(path: Path, *, overwrite: bool = False) -> Target:
    return Target(Storage(), str(path), suffix=".txt", overwrite=overwrite)


def put(target: Target, content: str | dict[str, str]) -> None:
    target.check(OUTPUT)
    with target.stage() as folder:
        staged = Path(folder) / "export"
        if isinstance(content, str):
            staged.write_text(content)
        else:
            staged.mkdir()
            for name, text in content.items():
                (staged / name).parent.mkdir(exist_ok=True)
                (staged / name).write_text(text)
        target.publish(staged, {"form": "wider"})


def files_in(folder: Path) -> dict[str, str]:
    found = (path for path in folder.rglob("*") if path.is_file() and path.name != MARK)
    return {path.relative_to(folder).as_posix(): path.read_text() for path in found}


def test_a_file_is_put_in_place_and_its_folder_made(tmp_path: Path) -> None:
    put(file_target(tmp_path / "new" / "x.json"), "content")
    assert files_in(tmp_path) == {"new/x.json": "content"}


def test_a_file_that_is_there_is_kept_unless_it_may_be_replaced(tmp_path: Path) -> None:
    put(file_target(tmp_path / "x.json"), "old")
    with pytest.raises(OutputError, match=r"is there already. Give --overwrite"):
        put(file_target(tmp_path / "x.json"), "new")
    assert files_in(tmp_path) == {"x.json": "old"}
    put(file_target(tmp_path / "x.json", overwrite=True), "new")
    assert files_in(tmp_path) == {"x.json": "new"}


def test_what_ends_before_it_is_put_in_place_leaves_nothing(tmp_path: Path) -> None:
    put(file_target(tmp_path / "x.json"), "old")
    with file_target(tmp_path / "x.json", overwrite=True).stage() as folder:
        (Path(folder) / "export").write_text("half")  # and here it is killed: nothing is published
    assert files_in(tmp_path) == {"x.json": "old"}
    assert [path.name for path in tmp_path.iterdir()] == ["x.json"]


@pytest.mark.parametrize("out", ["{0}", "{0}/", "{0}/new/", "s3://bucket", "s3://bucket/"])
def test_a_folder_where_a_file_is_needed_is_refused(tmp_path: Path, out: str) -> None:
    with pytest.raises(OutputError, match=r"is a folder. This form is one file"):
        Target(Storage(), out.format(tmp_path)).check(OUTPUT)


def test_a_new_or_empty_folder_takes_an_export(tmp_path: Path) -> None:
    (tmp_path / "empty").mkdir()
    for name in ("new", "empty"):
        put(folder_target(tmp_path / name), {"e/a.txt": "1"})
        assert files_in(tmp_path / name) == {"e/a.txt": "1"}
        assert json.loads((tmp_path / name / MARK).read_text()) == {"form": "wider", "complete": True}


def test_a_folder_of_the_users_is_never_replaced(tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("years of work")
    for overwrite in (False, True):
        with pytest.raises(OutputError, match=r"holds files that no export wrote \(thesis.txt\)"):
            folder_target(tmp_path, overwrite=overwrite).check(OUTPUT)


def test_an_earlier_export_is_replaced_and_what_else_lies_there_stays(tmp_path: Path) -> None:
    put(folder_target(tmp_path / "w"), {"e/a.txt": "1", "e/gone.txt": "2"})
    (tmp_path / "w" / "notes.md").write_text("mine")
    with pytest.raises(OutputError, match=r"holds an export already. Give --overwrite"):
        folder_target(tmp_path / "w").check(OUTPUT)
    put(folder_target(tmp_path / "w", overwrite=True), {"e/a.txt": "new", "f/b.txt": "3"})
    assert files_in(tmp_path / "w") == {"e/a.txt": "new", "f/b.txt": "3", "notes.md": "mine"}
    assert json.loads((tmp_path / "w" / MARK).read_text())["complete"] is True


def test_a_folder_that_was_not_replaced_to_the_end_says_so_and_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    put(folder_target(tmp_path / "w"), {"e/a.txt": "1"})
    with monkeypatch.context() as broken:
        broken.setattr("tinyface_core.export.target._in_batches", lambda *_: (_ for _ in ()).throw(OSError(28, "full")))
        with pytest.raises(StorageError, match="full"):
            put(folder_target(tmp_path / "w", overwrite=True), {"e/b.txt": "2"})
    assert json.loads((tmp_path / "w" / MARK).read_text())["complete"] is False
    put(folder_target(tmp_path / "w", overwrite=True), {"e/b.txt": "2"})
    assert files_in(tmp_path / "w") == {"e/b.txt": "2"}


def test_a_place_inside_the_output_is_refused(tmp_path: Path) -> None:
    for out in (tmp_path / "out", tmp_path / "out" / "images" / "x.parquet"):
        with pytest.raises(OutputError, match="lies inside the output"):
            file_target(out).check(f"file://{tmp_path / 'out'}")
    file_target(tmp_path / "out.json").check(f"file://{tmp_path / 'out'}")


def test_a_place_below_a_file_is_refused(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(OutputError, match="cannot be written to"):
        file_target(tmp_path / "file" / "x.json").check(OUTPUT)
