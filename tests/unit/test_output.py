"""Whose an output folder is, that looking at it changes nothing, and that one output has one setting."""

from __future__ import annotations

import os
import re
import tempfile
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import pytest

from tinyface_core.errors import InputError, OutputError, SettingsError, StorageError
from tinyface_core.storage import Storage
from tinyface_core.tables import output, place
from tinyface_core.tables.output import OutputFolder, OutputState, settings_hash

ASKED: dict[str, Any] = {"min_score": 0.5, "zooms": [0.5, 1.0, 2.0], "model_hash": "abc", "carry": None}


def folder(path: Path) -> OutputFolder:
    return OutputFolder(Storage(), str(path))


def put(root: Path, *names: str) -> None:
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text("x")


def tree(root: Path) -> set[str]:
    return {str(path.relative_to(root)) for path in root.rglob("*")}


def test_a_folder_that_does_not_exist_is_empty_and_checking_it_does_not_make_it(tmp_path: Path) -> None:
    out = folder(tmp_path / "a b" / "out")
    assert out.uri == f"file://{tmp_path}/a b/out"
    assert out.state() is OutputState.EMPTY
    assert out.check() is OutputState.EMPTY
    assert list(tmp_path.iterdir()) == []


def test_what_a_killed_first_run_left_and_what_file_managers_leave_is_not_foreign(tmp_path: Path) -> None:
    put(tmp_path, "_run/claims/0123", "_run/.settings.json.0123.tmp", ".DS_Store", "images/Thumbs.db")
    before = tree(tmp_path)
    assert folder(tmp_path).check() is OutputState.EMPTY
    assert tree(tmp_path) == before


@pytest.mark.parametrize(
    "names", [["holiday.jpg"], ["images/part-1.parquet"], ["_run/plan/000001.complete"], ["_SUCCESS"], [".git/config"]]
)
def test_foreign_files_are_named_and_left_alone(names: list[str], tmp_path: Path) -> None:
    """A lost settings.json makes an output foreign too: what it was made with cannot be told."""
    put(tmp_path, *names)
    assert folder(tmp_path).state() is OutputState.FOREIGN
    with pytest.raises(OutputError, match=re.escape(names[0])):
        folder(tmp_path).check()
    assert {name for name in tree(tmp_path) if (tmp_path / name).is_file()} == set(names)


def test_what_is_no_output_to_read_is_told_from_one_to_write_to(tmp_path: Path) -> None:
    """A typo in TABLES is not told as one in --output."""
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "a.jpg").touch()
    for name, why in (
        ("none", "none: nothing is there."),
        ("in", "in: holds a.jpg, and no _run/settings.json."),
        ("in/a.jpg", "a.jpg: is a file: give the folder."),
    ):
        with pytest.raises(InputError, match=re.escape(why)):
            folder(tmp_path / name).refuse_none()


def test_of_many_foreign_files_a_few_are_named(tmp_path: Path) -> None:
    put(tmp_path, *(f"{number}.jpg" for number in range(50)))
    with pytest.raises(OutputError) as caught:
        folder(tmp_path).check()
    assert str(caught.value).count(".jpg") == 3


def test_an_output_with_settings_is_ours_and_with_tables_but_without_a_plan_refused(tmp_path: Path) -> None:
    out, part = folder(tmp_path), f"detections/part-{'1' * 32}-{'2' * 32}.parquet"
    out.write_settings(ASKED)
    assert out.check() is OutputState.OURS  # killed before its plan: goes on
    put(tmp_path, "_run/plan/000001-0.parquet", part)
    with pytest.raises(OutputError, match=rf"{part}.*no plan"):
        out.check()
    put(tmp_path, "_run/plan/000001.complete")
    assert out.check() is OutputState.OURS


@pytest.mark.parametrize(
    "name",
    ["images/old.parquet", "images/2024/part-{0}.parquet", "detections/part-{0}.parquet", "images/part-.parquet"],
)
def test_tables_that_queries_would_read_too_are_named(name: str, tmp_path: Path) -> None:
    out, one = folder(tmp_path), "0" * 32
    out.write_settings(ASKED)
    put(tmp_path, "_run/plan/000001.complete", f"images/part-{one}.parquet", f"detections/part-{one}-{one}.parquet")
    put(tmp_path, "images/notes.txt")  # which no glob of ours matches
    assert out.check() is OutputState.OURS
    put(tmp_path, name.format(one))
    with pytest.raises(OutputError, match=re.escape(name.format(one))):
        out.check()


class Asked(Storage):
    """The local disk; `looked_for`: what was asked for of other folders than the output's."""

    looked_for: list[str]

    def stat(self, uri: str) -> Any:
        if uri.endswith(output.SETTINGS):
            self.looked_for.append(uri)
        return super().stat(uri)


@pytest.mark.parametrize("inside", ["images/x", "detections", "_run/a/b", "images/_run/x"])
def test_an_output_inside_another_one_is_refused(inside: str, tmp_path: Path) -> None:
    """Queries over the outer one would read its tables, and the outer one's next run be refused."""
    folder(tmp_path / "outer").write_settings(ASKED)
    with pytest.raises(OutputError, match=f"lies inside the output file://{tmp_path}/outer,"):
        folder(tmp_path / "outer" / inside).check()
    assert folder(tmp_path / "outer" / "faces").check() is OutputState.EMPTY
    assert folder(tmp_path / "other" / inside).check() is OutputState.EMPTY


def test_only_a_folder_that_can_be_inside_another_output_costs_requests() -> None:
    with tempfile.TemporaryDirectory(dir="/tmp") as root:  # pytest's own folders may be called anything
        for name, requests in (("out", 1), ("images/out", 2), ("images/" * 9 + "out", 4)):
            store = Asked()
            store.looked_for = []
            OutputFolder(store, f"{root}/{name}").look()
            assert len(store.looked_for) == requests


def test_an_output_that_is_a_file_is_refused(tmp_path: Path) -> None:
    put(tmp_path, "out")
    with pytest.raises(OutputError, match="is a file"):
        folder(tmp_path / "out").check()
    with pytest.raises(OutputError, match="cannot be written"):
        folder(tmp_path / "out" / "deeper").check()


@pytest.mark.parametrize("inner", ["", "_run", "images"])
def test_a_folder_without_the_right_to_write_is_refused(inner: str) -> None:
    """Also for root, which may write anywhere: it plays another user for a moment."""
    user = os.geteuid()
    with tempfile.TemporaryDirectory() as root:
        out = Path(root) / "out"
        (out / inner).mkdir(parents=True)
        Path(root).chmod(0o755)
        (out / inner).chmod(0o555)
        try:
            if user == 0:
                os.chown(out, 65534, 65534)
                os.chown(out / inner, 65534, 65534)
                os.seteuid(65534)
            with pytest.raises(OutputError, match=r"cannot be written.*[Pp]ermission"):
                folder(out).check()
        finally:
            os.seteuid(user)
            (out / inner).chmod(0o755)


def test_a_full_disk_is_found_by_the_probe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def full(**_: Any) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(place.tempfile, "TemporaryFile", full)
    with pytest.raises(OutputError, match="No space left"):
        folder(tmp_path).check()


class ObjectStore(Storage):
    """An object store in memory that may refuse to write."""

    def __init__(self, *, writable: bool) -> None:
        super().__init__()
        self.writable = writable
        self.objects: dict[str, bytes] = {}
        self.writes = 0

    def canonical(self, url: str) -> str:
        return url

    def stat(self, uri: str) -> None:
        return None

    def list(self, *_: Any, **__: Any) -> Any:
        return iter(())

    def write(self, uri: str, data: bytes) -> None:
        self.writes += 1
        if not self.writable:
            raise StorageError(f"{uri}: 403")
        self.objects[uri] = data

    def delete(self, uri: str) -> None:
        self.objects.pop(uri, None)


def test_on_an_object_store_the_probe_writes_and_deletes() -> None:
    store = ObjectStore(writable=True)
    assert OutputFolder(store, "s3://bucket/out/").check() is OutputState.EMPTY
    assert (store.writes, store.objects) == (1, {})
    with pytest.raises(OutputError, match=r"s3://bucket/out.*403"):
        OutputFolder(ObjectStore(writable=False), "s3://bucket/out").check()


def test_a_first_run_takes_what_is_asked_and_a_later_one_what_is_recorded(tmp_path: Path) -> None:
    out = folder(tmp_path)
    assert out.settings() is None
    assert out.resolve(ASKED, {"min_score"}) == ASKED
    assert tree(tmp_path) == set()
    out.write_settings(ASKED)
    later = ASKED | {"min_score": 0.3, "zooms": (1, 2), "model_hash": "def"}
    assert out.resolve(later, set()) == ASKED
    assert out.resolve(later | {"min_score": 0.5}, {"min_score", "carry"}) == ASKED
    out.write_settings(out.resolve(later, set()))


def test_another_explicit_value_is_refused_by_name(tmp_path: Path) -> None:
    out = folder(tmp_path)
    out.write_settings(ASKED)
    with pytest.raises(SettingsError, match=r"min_score = 0\.5.*--min-score asks for 0\.3.*another --output"):
        out.resolve(ASKED | {"min_score": 0.3}, {"min_score"})
    with pytest.raises(SettingsError, match=r"carry = unset.*--carry asks for a b"):
        out.resolve(ASKED | {"carry": ("a", "b")}, {"carry"})
    assert out.resolve(ASKED | {"zooms": (0.5, 1, 2)}, {"zooms"})["zooms"] == [0.5, 1.0, 2.0]


def test_a_fact_cannot_take_the_recorded_value(tmp_path: Path) -> None:
    out = folder(tmp_path)
    out.write_settings(ASKED)
    with pytest.raises(SettingsError, match=r"model_hash = abc, model_hash is now def"):
        out.resolve(ASKED | {"model_hash": "def"}, set(), facts={"model_hash"})


@pytest.mark.parametrize("asked", [ASKED | {"fresh": 1}, {name: ASKED[name] for name in ("zooms", "carry")}])
def test_settings_of_another_version_are_refused(asked: dict[str, Any], tmp_path: Path) -> None:
    out = folder(tmp_path)
    out.write_settings(ASKED)
    with pytest.raises(SettingsError, match="this version of tinyface"):
        out.resolve(asked, set())


def test_recorded_settings_are_never_replaced_and_a_hand_that_changed_them_is_seen(tmp_path: Path) -> None:
    out = folder(tmp_path)
    out.write_settings(ASKED)
    with pytest.raises(SettingsError, match="min_score"):
        out.write_settings(ASKED | {"min_score": 0.3})
    file = tmp_path / output.SETTINGS
    file.write_text(file.read_text().replace("0.5", "0.4", 1))
    with pytest.raises(OutputError, match="was changed"):
        out.settings()
    file.write_text("{")
    with pytest.raises(OutputError, match="is not JSON"):
        out.settings()


def test_the_settings_hash_sees_values_and_not_their_spelling() -> None:
    same = [{"a": 1, "b": [1, 2.5], "c": None}, {"c": None, "b": (1.0, 2.5), "a": 1.0}]
    assert len({settings_hash(value) for value in same}) == 1
    other: list[dict[str, Any]] = [{"a": True}, {"a": 1}, {"a": "1"}, {"a": [1]}, {"a": None}, {}, {"a": {"b": 1}}]
    assert len({settings_hash(value) for value in other}) == len(other)
    with pytest.raises(ValueError, match="JSON compliant"):
        settings_hash({"a": float("nan")})


def test_success_comes_and_goes(tmp_path: Path) -> None:
    out = folder(tmp_path)
    out.delete_success()
    out.write_success()
    assert (tmp_path / "_SUCCESS").read_bytes() == b""
    out.delete_success()
    assert not (tmp_path / "_SUCCESS").exists()


def test_each_run_is_kept_and_the_latest_is_run_json(tmp_path: Path) -> None:
    out = folder(tmp_path)
    out.write_run({"pictures": 1}, datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC))
    out.write_run({"pictures": 2}, datetime(2026, 1, 2, 3, 4, 5, 6, tzinfo=UTC))
    assert out.read_json("run.json") == {"pictures": 2}
    assert len(list((tmp_path / "_run/runs").iterdir())) == 2
    assert out.read_json("_run/runs/20260102T030405.000000Z.json") == {"pictures": 1}


def test_attempts_are_kept_by_unit_and_record_until_the_unit_is_committed(tmp_path: Path) -> None:
    out = folder(tmp_path)
    assert out.attempts() == {}
    out.write_attempts("u1", {7: 2, 0: 1})
    out.write_attempts("u2", {3: 1})
    assert folder(tmp_path).attempts() == {"u1": {7: 2, 0: 1}, "u2": {3: 1}}
    out.write_attempts("u1", {})
    assert out.attempts() == {"u2": {3: 1}}
