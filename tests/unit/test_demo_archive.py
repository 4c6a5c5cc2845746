"""The bundled sample archive is what its script makes, holds each picture once, and has one file that is broken."""

from __future__ import annotations

import hashlib
import io
import tarfile
from pathlib import Path

from demo.make_archive import CUT_SHORT, IN_TAR, LOOSE, make_archive, tar_of

ARCHIVE = Path(__file__).resolve().parents[2] / "demo" / "archive"


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.relative_to(folder).as_posix(): path.read_bytes() for path in folder.rglob("*") if path.is_file()}


def members_of(tar: bytes) -> dict[str, bytes]:
    with tarfile.open(fileobj=io.BytesIO(tar)) as opened:
        files = {member.name: opened.extractfile(member) for member in opened}
    return {name: file.read() for name, file in files.items() if file}


def pictures() -> dict[str, bytes]:
    """The 17 pictures, by name."""
    loose = {name: (ARCHIVE / folder / name).read_bytes() for folder, names in LOOSE.items() for name in names}
    return loose | members_of((ARCHIVE / "crowds.tar").read_bytes())


def test_the_script_makes_the_bundled_archive_again_byte_for_byte(tmp_path: Path) -> None:
    flat = tmp_path / "flat"
    flat.mkdir()
    for name, data in (pictures() | {"CREDITS.md": (ARCHIVE / "CREDITS.md").read_bytes()}).items():
        (flat / name).write_bytes(data)
    make_archive(flat, tmp_path / "archive")
    assert files_in(tmp_path / "archive") == files_in(ARCHIVE)


def test_the_order_of_the_pictures_does_not_change_the_tar() -> None:
    some = {name: pictures()[name] for name in IN_TAR[:2]}
    assert tar_of(some) == tar_of(dict(reversed(some.items())))


def test_each_picture_is_stored_once_and_credited() -> None:
    found = pictures()
    assert len(found) == 17
    assert len({hashlib.sha256(data).digest() for data in found.values()}) == 17
    assert [name for name in found if name not in (ARCHIVE / "CREDITS.md").read_text()] == []


def test_the_broken_file_is_the_beginning_of_a_good_one() -> None:
    name, kept = CUT_SHORT
    assert (ARCHIVE / "broken" / "cut_short.jpg").read_bytes() == pictures()[name][:kept]
