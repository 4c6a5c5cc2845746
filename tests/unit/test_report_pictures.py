from __future__ import annotations

import hashlib
import io
import tarfile
import warnings
import zipfile
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tinyface_core.archive.record import image_id_of
from tinyface_core.errors import StorageError
from tinyface_core.picture.picture import Picture
from tinyface_core.report.pictures import Patience, read_pictures
from tinyface_core.report.summary import PictureFacts
from tinyface_core.storage import Storage

NAMES = ["a.png", "d/a.png", "odd [1]*?.png", ".hidden.png", "notes.txt", "d/a.png"]  # one name stands twice


def png(shade: int) -> bytes:
    return cv2.imencode(".png", np.full((37, 53, 3), shade, np.uint8))[1].tobytes()


def facts(
    uri: str, member: str | None = None, occurrence: int = 0, version: str | None = None, sha256: str | None = None
) -> PictureFacts:
    name = None if member is None else member.encode()
    return PictureFacts(image_id_of(uri, name, occurrence), uri, member, version, sha256, 53, 37, 1, 9.0, 9.0, "unused")


def archive(path: Path) -> str:
    """An archive with the picture of shade 10 * place under each of NAMES."""
    members = [(name, png(10 * place)) for place, name in enumerate(NAMES)]
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as file, warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the name that stands twice is meant
            for name, data in members:
                file.writestr(name, data)
    elif path.suffix == ".parquet":
        pq.write_table(pa.table({"path": NAMES, "image": [data for _, data in members]}), path)
    else:
        with tarfile.open(path, "w:gz" if path.suffix == ".gz" else "w") as file:
            for name, data in members:
                info = tarfile.TarInfo(name)
                info.size = len(data)
                file.addfile(info, io.BytesIO(data))
    return f"file://{path}"


def shades(wanted: list[PictureFacts], **more: Any) -> dict[str, int | str]:
    """image_id -> the shade of the picture read, or the reason."""
    read = read_pictures(Storage(), wanted, **more)
    return {f.image_id: int(p.rgb_HW3[0, 0, 0]) if isinstance(p, Picture) else p for f, p in read}


@pytest.mark.parametrize("ending", ["x.zip", "x.tar", "x.tar.gz", "x.parquet"])
def test_each_member_is_found_by_its_name_and_occurrence(tmp_path: Path, ending: str) -> None:
    uri = archive(tmp_path / ending)
    places = [0, 2, 3, 4, 5]
    wanted = [facts(uri, NAMES[place], occurrence=int(place == 5)) for place in places]
    assert shades(wanted) == {f.image_id: 10 * place for f, place in zip(wanted, places, strict=True)}


def test_loose_pictures_and_archives_may_be_mixed(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(200))
    wanted = [facts(archive(tmp_path / "x.tar"), "a.png"), facts(f"file://{tmp_path}/1.png")]
    assert sorted(shades(wanted).values()) == [0, 200]  # type: ignore[type-var]


def test_a_member_that_is_gone_has_a_reason(tmp_path: Path) -> None:
    gone = facts(archive(tmp_path / "x.tar"), "gone.png")
    assert shades([gone]) == {gone.image_id: "it is not there any more"}


def test_an_archive_that_is_gone_or_broken_has_a_reason(tmp_path: Path) -> None:
    (tmp_path / "cut.zip").write_bytes(b"PK\x03\x04 and no directory")
    cut, gone = facts(f"file://{tmp_path}/cut.zip", "a.png"), facts(f"file://{tmp_path}/gone.tar", "a.png")
    reasons = shades([cut, gone])
    assert "no directory at the end" in str(reasons[cut.image_id])
    assert "gone.tar" in str(reasons[gone.image_id])


def test_an_archive_of_another_version_is_not_used(tmp_path: Path) -> None:
    """Its boxes would lie on another picture."""
    changed = facts(archive(tmp_path / "x.zip"), "a.png", version="1-1")
    assert "changed" in str(shades([changed])[changed.image_id])


def test_the_version_that_the_run_saw_is_used(tmp_path: Path) -> None:
    uri = archive(tmp_path / "x.zip")
    info = Storage().stat(uri)
    assert info is not None
    assert list(shades([facts(uri, "a.png", version=info.version)]).values()) == [0]


@pytest.mark.parametrize("ending", ["x.zip", "x.tar"])
def test_other_bytes_than_those_examined_are_not_shown(tmp_path: Path, ending: str) -> None:
    """As where a store tells no version, or a file was replaced within the clock's resolution."""
    uri = archive(tmp_path / ending)
    (tmp_path / "1.png").write_bytes(png(200))
    known = [facts(uri, "a.png", sha256=hashlib.sha256(png(0)).hexdigest()), facts(f"file://{tmp_path}/1.png")]
    other = [facts(uri, "d/a.png", sha256="0" * 64), facts(f"file://{tmp_path}/1.png", sha256="0" * 64)]
    assert shades(known) == {known[0].image_id: 0, known[1].image_id: 200}
    assert all("these are not the bytes" in str(reason) for reason in shades(other).values())


@pytest.mark.parametrize("ending", ["x.zip", "x.tar"])
def test_a_picture_that_was_only_touched_is_shown(tmp_path: Path, ending: str) -> None:
    """As after an archive was copied to another disk."""
    uri = archive(tmp_path / ending)
    (tmp_path / "1.png").write_bytes(png(0))
    sha256 = hashlib.sha256(png(0)).hexdigest()
    touched = [
        facts(place, member, 0, "1-1", sha256) for place, member in ((uri, "a.png"), (f"file://{tmp_path}/1.png", None))
    ]
    assert shades(touched) == {each.image_id: 0 for each in touched}


def test_many_are_decoded_side_by_side_and_each_comes_once(tmp_path: Path) -> None:
    for shade in range(20):
        (tmp_path / f"{shade}.png").write_bytes(png(shade))
    wanted = [facts(f"file://{tmp_path}/{shade}.png") for shade in range(22)]
    found = shades(wanted, children=2)
    assert [found[each.image_id] for each in wanted[:20]] == list(range(20))
    assert all("22" not in str(reason) and ".png" in str(reason) for reason in list(found.values())[20:])


def test_a_large_archive_is_only_searched_where_it_has_a_directory(tmp_path: Path) -> None:
    in_zip, in_tar = facts(archive(tmp_path / "x.zip"), "a.png"), facts(archive(tmp_path / "x.tar"), "a.png")
    found = shades([in_zip, in_tar], patience=Patience(search_bytes=100))
    assert found[in_zip.image_id] == 0
    assert "would have to be read from its start" in str(found[in_tar.image_id])


def test_patience_ends(tmp_path: Path) -> None:
    (tmp_path / "1.png").write_bytes(png(200))
    late = facts(f"file://{tmp_path}/1.png")
    assert "reading the others took over" in str(shades([late], patience=Patience(-1))[late.image_id])


def test_a_store_that_cannot_be_reached_costs_the_pictures_not_the_report(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(*_: object) -> bytes:
        raise StorageError("s3://b/1.png: no route to host")

    monkeypatch.setattr(Storage, "read", unreachable)
    lost = facts(f"file://{tmp_path}/1.png")
    assert list(read_pictures(Storage(), [lost])) == [(lost, "s3://b/1.png: no route to host")]


def test_nothing_wanted_starts_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("tinyface_core.picture.guard.Child", None)
    assert list(read_pictures(Storage(), [])) == []
