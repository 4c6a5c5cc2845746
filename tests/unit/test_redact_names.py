"""Names of copies: they mirror where a picture lies, are safe, and belong to one picture each."""

from __future__ import annotations

import random

import pytest

from tinyface_core.archive.record import image_id_of
from tinyface_core.redact.names import copy_name


def name_of(uri: str, member: str | None = None, occurrence: int = 0, copied_as: str = "jpeg") -> str:
    return copy_name(uri, member, image_id_of(uri, None if member is None else member.encode(), occurrence), copied_as)


@pytest.mark.parametrize(
    ("uri", "member", "copied_as", "expected"),
    [
        ("file:///home/a b/x.jpg", None, "jpeg", "copies/file/home/a b/x.jpg"),
        ("s3://bucket/é/IMG #1.JPEG", None, "jpeg", "copies/s3/bucket/é/IMG #1.JPEG"),
        ("s3://bucket/day1.tar", "beach/12.png", "png", "copies/s3/bucket/day1.tar!/beach/12.png"),
        ("s3://b/p.parquet", "17.webp", "webp", "copies/s3/b/p.parquet!/17.webp"),
    ],
)
def test_a_plain_place_is_mirrored(uri: str, member: str | None, copied_as: str, expected: str) -> None:
    assert name_of(uri, member, copied_as=copied_as) == expected


@pytest.mark.parametrize(
    ("uri", "member", "start"),
    [
        ("file:///a.tar", "../../etc/passwd", "copies/file/a.tar!/.._/.._/etc/passwd~"),
        ("file:///a.tar", "/etc/x.jpg", "copies/file/a.tar!/etc/x.jpg~"),
        ("file:///a.tar", "./x.jpg", "copies/file/a.tar!/x.jpg~"),
        ("file:///a.tar", "C:\\x.jpg", "copies/file/a.tar!/C__x.jpg~"),
        ("file:///a.tar", "bad \\xff.jpg", "copies/file/a.tar!/bad _xff.jpg~"),
        ("file:///a.tar", "turn\u202egpj.jpg", "copies/file/a.tar!/turn_gpj.jpg~"),
        ("file:///scan.tif", None, "copies/file/scan.tif~"),
        ("https://host/get?file=x.jpg", None, "copies/https/host/get_file=x.jpg~"),
        ("s3://b/x.jpg/y.jpg", None, "copies/s3/b/x.jpg_/y.jpg~"),  # beside an object s3://b/x.jpg
        ("s3://b/a.tar!/y.jpg", None, "copies/s3/b/a.tar!_/y.jpg~"),  # beside an archive s3://b/a.tar
        ("s3://b/" + "x" * 400 + ".jpg", None, "copies/s3/b/" + "x" * 180 + "~"),
        ("s3://b/" + "folder/" * 200 + "x.jpg", None, "copies/s3/long~"),
    ],
)
def test_any_other_is_made_safe_and_has_the_id(uri: str, member: str | None, start: str) -> None:
    name = name_of(uri, member)
    assert name == f"{start}{image_id_of(uri, None if member is None else member.encode())}.jpg"
    assert all(len(part.encode()) <= 255 for part in name.split("/"))
    assert len(name.encode()) < 1000


def test_a_second_member_of_a_name_has_a_name_of_its_own() -> None:
    assert name_of("file:///a.tar", "x.jpg") == "copies/file/a.tar!/x.jpg"
    assert name_of("file:///a.tar", "x.jpg", 1).startswith("copies/file/a.tar!/x.jpg~")


def test_no_two_of_hostile_places_share_a_name_and_no_file_is_another_ones_folder() -> None:
    """Seeded: names of few parts, so that they meet often."""
    draw = random.Random(7)
    parts = ["a", "a.jpg", "a.jpg_", "t.tar", "t.tar!", "t.tar!_", "..", ".", "", "_", "x:y", "x_y", "A.JPG", " ", "é"]
    parts += ["a.jpg~" + image_id_of("file:///a/a.jpg") + ".jpg", "a\\", "a.png"]
    places: set[tuple[str, str | None, int]] = set()
    for _ in range(20_000):
        uri = "s3://b/" + "/".join(draw.choices(parts, k=draw.randint(1, 3)))
        member = "/".join(draw.choices(parts, k=draw.randint(1, 3))) if draw.random() < 0.6 else None
        places.add((uri, member or None, draw.randint(0, 1) if member else 0))
    names = [name_of(*place) for place in places]
    assert len(set(names)) == len(names)
    files = set(names)
    folders = {"/".join(name.split("/")[:depth]) for name in names for depth in range(1, name.count("/") + 1)}
    assert not files & folders
    assert not [name for name in names if {"", ".", ".."} & set(name.split("/"))]
