"""Which names become rows, by DESIGN 1."""

from __future__ import annotations

import pickle

import pytest

from tinyface_core.archive.candidates import SIDECARS, CandidateFilter, extension_of, kind_of
from tinyface_core.archive.record import Kind
from tinyface_core.errors import SettingsError


@pytest.mark.parametrize(
    "name",
    [
        "a.jpg",
        "sub/a.JPEG",
        "no extension",
        "a.pdf",
        "a.mp4",
        "./a.jpg",
        "../a.jpg",
        "a.b/c",
        "a.tar",
        "x.jpg.bak",
        ".",
        "a..jpg",
    ],
)
def test_candidates(name: str) -> None:
    assert CandidateFilter().skipped_as(name) is None


@pytest.mark.parametrize(
    "name",
    [
        ".a.jpg",
        "sub/.x/a.jpg",
        "__MACOSX/a.jpg",
        "x/Thumbs.db",
        "THUMBS.DB",
        "desktop.ini",
        "_SUCCESS",
        "._a.jpg",
        "...",
        ".json",
    ],
)
def test_hidden(name: str) -> None:
    assert CandidateFilter().skipped_as(name) == "hidden"
    assert CandidateFilter(all_files=True).skipped_as(name) is None


@pytest.mark.parametrize("extension", sorted(SIDECARS))
def test_sidecars_in_any_case(extension: str) -> None:
    assert CandidateFilter().skipped_as(f"x/a{extension.upper()}") == extension
    assert CandidateFilter(all_files=True).skipped_as(f"a{extension}") is None


def test_include_and_exclude() -> None:
    names = ["a.jpg", "x/a.png", "x/y/b.jpg", "x/c.json", "x/t.tar", "old/t.tar"]

    def kept(**options: tuple[str, ...]) -> list[str]:
        return [name for name in names if CandidateFilter(**options).skipped_as(name) is None]  # type: ignore[arg-type]

    assert kept(include=("*.jpg",)) == ["a.jpg", "x/y/b.jpg", "x/t.tar", "old/t.tar"]  # archives are looked into
    assert kept(include=("x/*.png", "a.*")) == ["a.jpg", "x/a.png", "x/t.tar", "old/t.tar"]
    assert kept(include=("x/**",), exclude=("*.tar",)) == ["x/a.png", "x/y/b.jpg"]
    assert kept(exclude=("old/**", "b.???")) == ["a.jpg", "x/a.png", "x/t.tar"]
    assert CandidateFilter(include=("*.png",)).skipped_as("a.jpg") == "excluded"
    inside = CandidateFilter(include=("*.jpg",))  # what an archive holds is not opened further
    assert [inside.member_skipped_as(name) for name in ("a.jpg", "b.tar", "c.json")] == [None, "excluded", ".json"]
    assert CandidateFilter(all_files=True, exclude=("*.json",)).skipped_as("x/c.json") == "excluded"


def test_a_pattern_that_is_none_names_itself() -> None:
    with pytest.raises(SettingsError, match="a\\*\\*b"):
        CandidateFilter(include=("a**b",)).skipped_as("x.jpg")


def test_kinds_and_extensions() -> None:
    kinds = {
        "a.TAR": Kind.TAR,
        "a.tar.gz": Kind.TAR_GZ,
        "a.tgz": Kind.TAR_GZ,
        "a.Zip": Kind.ZIP,
        "a.parquet": Kind.PARQUET,
    }
    assert {name: kind_of(name) for name in kinds} == kinds
    assert {kind_of(name) for name in ("a.jpg", "a.gz", "tar", "a.7z")} == {Kind.PICTURE}
    assert [extension_of(name) for name in ("a/b.JPG", "a.b/c", ".json", "a.tar.gz")] == [".jpg", "", "", ".gz"]


@pytest.mark.parametrize("query", ["?token=X", "?versionId=3", "?path=/b/c.png", "#part", "?a=.json#.txt"])
def test_a_query_says_nothing_of_what_a_url_names(query: str) -> None:
    """Archives behind one were `unsupported` rows, and the dry run showed it as a type."""
    assert kind_of(f"https://h/t.tar{query}") is Kind.TAR
    assert kind_of(f"HTTP://h/a.jpg{query}.zip") is Kind.PICTURE
    assert kind_of(f"https://h/get{query}&file=a.zip") is Kind.ZIP  # where the path names no file
    assert extension_of(f"https://h/a.JPG{query}") == ".jpg"
    assert extension_of(f"https://h/a{query}") == ""
    assert CandidateFilter().row_skipped_as(f"https://h/a.jpg{query}") is None
    assert CandidateFilter().row_skipped_as(f"https://h/a.json{query}") == ".json"
    for glob in ("*.jpg", "https://h/*.jpg", f"https://h/a.jpg{query}"):
        chosen = CandidateFilter(include=(glob,))
        assert chosen.left_out(f"https://h/a.jpg{query}") is None
        assert chosen.left_out(f"https://h/a.png{query}") == "excluded"
    for name in ("a.tar?x", "file:///t.tar#1", "s3://b/t.tar?token=X"):  # elsewhere these are letters of the name
        assert kind_of(name) is Kind.PICTURE


def test_travels_to_workers() -> None:
    one = CandidateFilter(include=("*.jpg",))
    one.skipped_as("a.jpg")
    assert pickle.loads(pickle.dumps(one)) == one
