"""From inputs to sources: all is found once, the rest is counted, and a wrong input says what and how to mend."""

from __future__ import annotations

import itertools
import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tests.unit.archives import parquet_bytes, some_members, tar_bytes
from tinyface_core.archive.candidates import CandidateFilter
from tinyface_core.archive.listing import carried_fields, list_sources
from tinyface_core.archive.record import Kind, Source
from tinyface_core.errors import InputError
from tinyface_core.storage import ObjectInfo, Storage


def listed(*inputs: object, skipped: Counter[str] | None = None, **options: Any) -> list[Source]:
    counter = Counter() if skipped is None else skipped

    def count(key: str) -> None:
        counter[key] += 1

    options.setdefault("candidates", CandidateFilter())
    return list(list_sources([str(one) for one in inputs], Storage(), on_skip=count, **options))


def names(sources: list[Source], root: Path) -> list[str]:
    return sorted(source.uri.removeprefix(f"file://{root}/") for source in sources)


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    for name in (
        "a.jpg", "b c%20.JPG", "sub/c.png", "sub/deep/d.jpg", "sub/x.tar", "sub/y.tar.gz", "z.zip", "note.TXT",
        "sub/e.json", ".hidden/f.jpg", "sub/.g.jpg", "Thumbs.db", "movie.mp4", "2024-01/h.jpg", "2024-02/i.jpg",
        "2024-02/k.png",
    ):  # fmt: skip
        path = tmp_path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(b"data")
    return tmp_path


PICTURES = [
    "2024-01/h.jpg", "2024-02/i.jpg", "2024-02/k.png", "a.jpg", "b c%20.JPG", "movie.mp4", "sub/c.png",
    "sub/deep/d.jpg",
]  # fmt: skip
ARCHIVES = ["sub/x.tar", "sub/y.tar.gz", "z.zip"]


def test_a_folder_recursively(folder: Path) -> None:
    skipped: Counter[str] = Counter()
    sources = listed(folder, skipped=skipped)
    assert names(sources, folder) == sorted(PICTURES + ARCHIVES)
    assert skipped == {".txt": 1, ".json": 1, "hidden": 3}
    kinds = {source.uri.rsplit("/", 1)[1]: source.kind for source in sources}
    assert (kinds["x.tar"], kinds["y.tar.gz"], kinds["z.zip"], kinds["a.jpg"]) == (
        Kind.TAR, Kind.TAR_GZ, Kind.ZIP, Kind.PICTURE,
    )  # fmt: skip
    one = next(source for source in sources if source.uri.endswith("a.jpg"))
    stat = os.stat(folder / "a.jpg")
    assert (one.size_bytes, one.version) == (4, f"{stat.st_mtime_ns}-4")
    assert one.modified is not None
    assert one.modified.tzinfo is not None


def test_all_files_and_include(folder: Path) -> None:
    assert len(listed(folder, candidates=CandidateFilter(all_files=True))) == 16
    only = listed(folder, candidates=CandidateFilter(include=("*.png",), exclude=("*.tar*", "*.zip")))
    assert names(only, folder) == ["2024-02/k.png", "sub/c.png"]


def test_hidden_is_judged_below_the_input_only(folder: Path) -> None:
    assert names(listed(folder / ".hidden"), folder) == [".hidden/f.jpg"]
    assert names(listed(folder / "sub/.g.jpg"), folder) == ["sub/.g.jpg"]


@pytest.mark.parametrize(
    ("pattern", "expected"),
    [
        ("*.jpg", ["a.jpg"]),
        ("**/*.jpg", ["2024-01/h.jpg", "2024-02/i.jpg", "a.jpg", "sub/deep/d.jpg"]),
        ("2024-*", ["2024-01/h.jpg", "2024-02/i.jpg", "2024-02/k.png"]),
        ("2024-0[2-9]/*", ["2024-02/i.jpg", "2024-02/k.png"]),
        ("2024-0?/?.jpg", ["2024-01/h.jpg", "2024-02/i.jpg"]),
        ("sub/**/d.*", ["sub/deep/d.jpg"]),
        ("2024-{01,02}/*.jpg", ["2024-01/h.jpg", "2024-02/i.jpg"]),
        ("2024-{01..02}", ["2024-01/h.jpg", "2024-02/i.jpg", "2024-02/k.png"]),
        ("{a.jpg,z.zip}", ["a.jpg", "z.zip"]),
    ],
)
def test_globs_and_braces(folder: Path, pattern: str, expected: list[str]) -> None:
    assert names(listed(folder / pattern), folder) == expected


def test_a_glob_does_not_walk_folders_that_it_cannot_match(folder: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    scanned = []
    original = os.scandir
    monkeypatch.setattr(os, "scandir", lambda path: scanned.append(path) or original(path))  # type: ignore[func-returns-value]
    listed(folder / "2024-*/*.jpg")
    assert {Path(path).name for path in scanned} == {folder.name, "2024-01", "2024-02"}


def test_names_that_look_like_patterns_are_taken_as_they_are(tmp_path: Path) -> None:
    for name in ("a[1].jpg", "{x}.jpg", "b?.jpg", "a1.jpg"):
        (tmp_path / name).write_bytes(b"1")
    for name in ("a[1].jpg", "{x}.jpg", "b?.jpg"):
        assert names(listed(tmp_path / name), tmp_path) == [name]


def test_a_name_that_is_not_utf8_can_be_read_by_its_uri(tmp_path: Path) -> None:
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/caf\xe9.jpg")).write_bytes(b"latin")
    (source,) = listed(tmp_path)
    assert source.uri.endswith("/caf\\xe9.jpg")
    assert Storage().read(source.uri, source.version) == b"latin"


def test_two_names_never_share_a_uri(tmp_path: Path) -> None:
    """A raw byte, and the same byte written out in a name: both are pictures of their own, and both can be read."""
    Path(os.fsdecode(os.fsencode(tmp_path) + b"/bad\xff.jpg")).write_bytes(b"byte")
    (tmp_path / "bad\\xff.jpg").write_bytes(b"written out")
    (tmp_path / "in\\x5cner").mkdir()
    (tmp_path / "in\\x5cner" / "a.jpg").write_bytes(b"inner")
    sources = listed(tmp_path)
    read = {source.uri.removeprefix(f"file://{tmp_path}/"): Storage().read(source.uri) for source in sources}
    assert read == {
        "bad\\xff.jpg": b"byte", "bad\\x5cxff.jpg": b"written out", "in\\x5cx5cner/a.jpg": b"inner",
    }  # fmt: skip
    for source in sources:  # as a query gives it, and as a shell does
        assert listed_uris(source.uri) == [source.uri]
    assert listed_uris(str(tmp_path / "in\\x5cner")) == [f"file://{tmp_path}/in\\x5cx5cner/a.jpg"]


def listed_uris(url: str) -> list[str]:
    return [source.uri for source in list_sources([url], Storage(), CandidateFilter())]


def test_links_are_followed_but_not_in_circles(tmp_path: Path) -> None:
    (tmp_path / "in").mkdir()
    (tmp_path / "out").mkdir()
    (tmp_path / "out/a.jpg").write_bytes(b"1")
    (tmp_path / "in/folder").symlink_to(tmp_path / "out")
    (tmp_path / "in/circle").symlink_to(tmp_path / "in")
    (tmp_path / "in/gone.jpg").symlink_to(tmp_path / "nowhere")
    os.mkfifo(tmp_path / "in/pipe.jpg")
    sources = listed(tmp_path / "in")
    assert names(sources, tmp_path / "in") == ["folder/a.jpg", "gone.jpg"]  # a dead link ends as an error row


def test_the_output_below_the_input_is_left_out(folder: Path) -> None:
    skipped: Counter[str] = Counter()
    leave_out = [f"file://{folder}/2024-01", f"file://{folder}/sub/"]
    sources = listed(folder, skipped=skipped, leave_out=leave_out)
    assert names(sources, folder) == ["2024-02/i.jpg", "2024-02/k.png", "a.jpg", "b c%20.JPG", "movie.mp4", "z.zip"]
    assert skipped == {".txt": 1, "hidden": 2}


def test_parquet_under_a_folder_is_pictures_or_skipped(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(parquet_bytes(some_members(2)))
    (tmp_path / "broken.parquet").write_bytes(b"PAR1")
    pq.write_table(pa.table({"uri": ["a.jpg"]}), tmp_path / "m.parquet")
    skipped: Counter[str] = Counter()
    sources = listed(tmp_path, skipped=skipped)
    assert names(sources, tmp_path) == ["broken.parquet", "p.parquet"]  # what cannot be read ends as an error row
    assert {source.kind for source in sources} == {Kind.PARQUET}
    assert skipped == {".parquet": 1}


# Manifests


def test_a_text_of_urls(folder: Path) -> None:
    absolute = f"{folder}/z.zip\nfile://{folder}/sub/e.json\ns3://b/k k.jpg\n"
    (folder / "list.txt").write_text(
        f"\ufeffa.jpg\r\n\n# those below\n#\n./sub/../sub/c.png\n{absolute}gone.jpg\n b c%20.JPG "
    )
    manifest = [source for source in listed(folder / "list.txt") if not source.uri.startswith("s3:")]
    assert [source.uri.removeprefix(f"file://{folder}/") for source in manifest] == [
        "a.jpg", "sub/c.png", "z.zip", "sub/e.json", "gone.jpg", "b c%20.JPG",
    ]  # fmt: skip
    assert [source.size_bytes for source in manifest] == [4, 4, 4, 4, None, 4]
    assert manifest[2].kind is Kind.ZIP


@pytest.fixture(autouse=True)
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    original = Storage.stat
    monkeypatch.setattr(
        Storage,
        "stat",
        lambda self, uri: None if uri.startswith(("s3:", "http")) else original(self, uri),
        raising=True,
    )


@pytest.mark.parametrize("separator", [",", ";", "\t"])
def test_a_csv_with_carried_columns(folder: Path, separator: str) -> None:
    rows = [["id", "Image", "who"], ["1", "a.jpg", '"Ann, B."'], ["2", "sub/c.png", ""], ["3", "gone.jpg"]]
    (folder / "list.csv").write_text("\n".join(separator.join(row) for row in rows))
    sources = listed(folder / "list.csv", carry=["who", "id"])
    assert [source.carried for source in sources] == [
        {"who": "Ann, B.", "id": "1"}, {"who": None, "id": "2"}, {"who": None, "id": "3"},
    ]  # fmt: skip
    assert carried_fields([str(folder / "list.csv")], Storage(), ["who"]) == [pa.field("who", pa.string())]


@pytest.mark.parametrize("form", ["csv", "parquet"])
def test_no_carried_column_holds_a_signature(tmp_path: Path, form: str) -> None:
    """However the cell is spaced, whichever column it is: and so a manifest that is signed anew says the same."""
    entry, page, note = "https://h/a.jpg?w=1", "https://h/page", " https://h/ as it stands?"

    def carried(signature: str) -> dict[str, Any]:
        signed = f"X-Amz-Credential=K&X-Amz-Signature={signature}"
        rows = {"n": ["1"], "url": [f" {entry}&{signed} "], "page": [f"{page}?{signed}"], "note": [note]}
        if form == "parquet":
            pq.write_table(pa.table(rows), tmp_path / "m.parquet")
        else:
            make(tmp_path / "m.csv", "\n".join([",".join(rows), ",".join(cell for (cell,) in rows.values())]))
        (source,) = listed(tmp_path / f"m.{form}", carry=["url", "page", "note"])
        assert source.uri == entry
        assert signature in source.url
        return source.carried

    assert carried("c0ffee") == carried("deed") == {"url": entry, "page": page, "note": note}


def test_entries_without_a_url_are_counted(folder: Path) -> None:
    pq.write_table(pa.table({"uri": ["a.jpg", None, "", "sub/c.png"]}), folder / "m.parquet")
    (folder / "list.csv").write_text("uri,who\na.jpg,x\n,y\n\n")
    for name, count, missing in (("m.parquet", 2, 2), ("list.csv", 1, 1)):
        skipped: Counter[str] = Counter()
        assert len(listed(folder / name, skipped=skipped)) == count
        assert skipped == {"no url": missing}
    (folder / "none.csv").write_text("uri,who\n,y\n")
    with pytest.raises(InputError, match=r"none\.csv names no inputs: its entries \(1\) have no url"):
        listed(folder / "none.csv")


def test_a_parquet_manifest_keeps_types(folder: Path) -> None:
    table = pa.table(
        {
            "n": pa.array([1, None], pa.int16()),
            "url": ["a.jpg", "sub/c.png"],
            "tag": pa.array(["x", "y"]).dictionary_encode(),
        }
    )
    pq.write_table(table, folder / "m.parquet")
    sources = listed(folder / "m.parquet", carry=["n", "tag"])
    assert [source.carried for source in sources] == [{"n": 1, "tag": "x"}, {"n": None, "tag": "y"}]
    fields = carried_fields([str(folder / "m.parquet")], Storage(), ["n", "tag"])
    assert fields == [pa.field("n", pa.int16()), pa.field("tag", pa.string())]


def test_carried_columns_of_parquet_pictures(tmp_path: Path) -> None:
    (tmp_path / "p.parquet").write_bytes(parquet_bytes(some_members(2), label=[1, 2]))
    for given in (tmp_path, tmp_path / "p.parquet", tmp_path / "*.parquet"):
        assert carried_fields([str(given)], Storage(), ["label"]) == [pa.field("label", pa.int64())]
    assert carried_fields([str(tmp_path)], Storage(), []) == []


def test_includes_apply_to_entries(folder: Path) -> None:
    (folder / "list.txt").write_text("a.jpg\nsub/c.png")
    skipped: Counter[str] = Counter()
    sources = listed(folder / "list.txt", candidates=CandidateFilter(include=("*.png",)), skipped=skipped)
    assert (names(sources, folder), skipped) == (["sub/c.png"], {"excluded": 1})


# What is wrong is told in one sentence that names the thing and the mend


def make(path: Path, data: bytes | str = b"") -> Path:
    path.write_bytes(data.encode() if isinstance(data, str) else data)
    return path


def table(path: Path, *, cut: bool = False, **columns: Any) -> Path:
    """cut: with the pages of its first column damaged, the footer sound."""
    pq.write_table(pa.table(columns), path, compression="none", use_dictionary=False)
    if cut:
        path.write_bytes(b"PAR1" + b"\xff" * 60 + path.read_bytes()[64:])
    return path


WRONG: list[tuple[Callable[[Path], object], str, dict[str, Any]]] = [
    (lambda root: root / "nowhere", "no such input: .*nowhere.*spelling", {}),
    (lambda root: root / "a{1,2}.jpg", "no such input: .*a1.jpg", {}),
    (lambda root: root / "*.none", "matches nothing", {}),
    (lambda root: root / "a{1", "braces do not pair", {}),
    (lambda root: root / "x**y" / "*", "not a pattern", {}),
    (lambda root: root, "is empty", {}),
    (lambda root: make(root / "a.json").parent, r"files that were looked at .1. were skipped.*--all-files", {}),
    (lambda root: make(root / "a.json"), r"\.json files hold no pictures.*manifest", {}),
    (lambda root: make(root / "m.txt"), "empty manifest", {}),
    (lambda root: make(root / "m.csv", "a,b\n1,2"), "column of urls.*has: a, b", {}),
    (lambda root: table(root / "m.parquet", a=[1]), "neither a binary column .* nor .*has: a", {}),
    (lambda root: make(root / "m.csv", "uri,b\n1,2"), "--carry c: .* no such column.*has: uri, b", {"carry": ["c"]}),
    (lambda root: table(root / "m.parquet", uri=["1" * 99] * 9, cut=True), "manifest cannot be read", {}),
    (lambda root: table(root / "m.parquet", uri=["1"]), "--carry c: .*has: uri", {"carry": ["c"]}),
    (
        lambda root: make(root / "p.parquet", parquet_bytes(some_members(1))).parent,
        "--carry c: .*has: image",
        {"carry": ["c"]},
    ),
    (lambda root: make(root / "a.jpg", b"1"), "--carry c: no input is a manifest", {"carry": ["c"]}),
    (lambda root: make(root / "m.txt", "a.jpg"), "--carry c: .*has: none", {"carry": ["c"]}),
]


@pytest.mark.parametrize(("build", "message", "options"), WRONG)
def test_wrong_inputs(tmp_path: Path, build: Callable[[Path], object], message: str, options: dict[str, Any]) -> None:
    with pytest.raises(InputError, match=message):
        listed(build(tmp_path), **options)


def test_wrong_inputs_are_told_before_the_listing_begins(tmp_path: Path) -> None:
    with pytest.raises(InputError, match="no such input"):
        list_sources([str(tmp_path / "nowhere")], Storage(), CandidateFilter())
    with pytest.raises(InputError, match="--input"):
        list_sources([], Storage(), CandidateFilter())


def test_columns_of_two_types_are_told(tmp_path: Path) -> None:
    first = table(tmp_path / "1.parquet", uri=["a"], n=[1])
    second = table(tmp_path / "2.parquet", uri=["a"], n=["x"])
    with pytest.raises(InputError, match=r"--carry n: string in .*2\.parquet, but int64"):
        carried_fields([str(first), str(second)], Storage(), ["n"])


def test_no_permission(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Root may read everything, so the refusal is made."""
    make(tmp_path / "a.jpg", b"1")
    (tmp_path / "locked").mkdir()
    original = os.scandir

    def refuse(path: str) -> Any:
        if str(path).endswith("locked"):
            raise PermissionError(13, "Permission denied")
        return original(path)

    monkeypatch.setattr(os, "scandir", refuse)
    with pytest.raises(InputError, match=r"no permission below .*locked.*--exclude 'folder/\*\*'"):
        listed(tmp_path)
    for exclude in ("locked/**", "lock*/**"):
        assert names(listed(tmp_path, candidates=CandidateFilter(exclude=(exclude,))), tmp_path) == ["a.jpg"]
    with pytest.raises(InputError, match="no permission"):  # there may be other names below
        listed(tmp_path, candidates=CandidateFilter(exclude=("locked/**/*.png", "locked/*")))


def test_nothing_but_the_output(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    make(tmp_path / "out/images.jpg", b"1")
    with pytest.raises(InputError, match="nothing but the output"):
        listed(tmp_path, leave_out=[f"file://{tmp_path}/out"])


@pytest.mark.slow
def test_a_million_objects_in_bounded_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    """The listing keeps nothing of what it gave: what the store itself keeps is tested in test_storage.py."""

    def endless(self: Storage, prefix: str, **hints: Any) -> Iterator[ObjectInfo]:
        return (ObjectInfo(f"s3://b/{number:07}.jpg", 10, "v", None) for number in range(1_000_000))

    monkeypatch.setattr(Storage, "list", endless)
    monkeypatch.setattr(Storage, "has_folder", lambda self, uri: True)
    sources = list_sources(["s3://b/"], Storage(), CandidateFilter())
    assert sum(1 for _ in itertools.islice(sources, 1000)) == 1000
    before = sys.getallocatedblocks()
    assert sum(1 for _ in itertools.islice(sources, 100_000)) == 100_000
    assert sys.getallocatedblocks() - before < 5000


def test_an_archive_named_directly(tmp_path: Path) -> None:
    make(tmp_path / "a.tar", tar_bytes(some_members(1)))
    (source,) = listed(tmp_path / "a.tar")
    assert source.kind is Kind.TAR
