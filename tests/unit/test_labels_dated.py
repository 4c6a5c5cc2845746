"""Rows of a span of time: half open, in UTC, in each form of a manifest; each picture once."""

from __future__ import annotations

import json
from datetime import UTC, date, datetime, timedelta, timezone
from itertools import pairwise
from pathlib import Path
from typing import Any

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from tinyface_core.errors import InputError
from tinyface_core.labels.dated import Dated, Window, instant, read_dated
from tinyface_core.storage import Storage

SINCE, UNTIL = datetime(2026, 11, 1, tzinfo=UTC), datetime(2026, 11, 8, tzinfo=UTC)
WINDOW = Window(SINCE, UNTIL)


def picture(name: str, x: float = 1.0) -> dict[str, Any]:
    return {"image": name, "width": 90, "height": 80, "boxes": [[x, 2, 30, 40]], "attrs": [[0] * 6]}


def pictures(folder: Path, *dated: tuple[str, str]) -> Path:
    """annotations.jsonl of pictures by (name, date)."""
    folder.mkdir(parents=True, exist_ok=True)
    lines = [json.dumps(picture(name) | {"date": when}) for name, when in dated]
    (folder / "annotations.jsonl").write_text("\n".join([*lines, ""]))
    return folder


def source(folder: Path, *names: str) -> Path:
    """A labelled source without dates."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "annotations.jsonl").write_text("\n".join(json.dumps(picture(name)) for name in names))
    return folder


def read(manifest: Path, window: Window = WINDOW, base: str | None = None) -> Dated:
    return read_dated(str(manifest), window, base, Storage())


def names(found: Dated, folder: Path) -> list[str]:
    return [line.uri.removeprefix(f"file://{folder}/") for line in found.lines]


@pytest.mark.parametrize(
    ("value", "expected"),
    [
        ("2026-11-29T03:00Z", datetime(2026, 11, 29, 3, tzinfo=UTC)),
        (" 2026-11-29 ", datetime(2026, 11, 29, tzinfo=UTC)),
        ("2026-11-29T03:00", datetime(2026, 11, 29, 3, tzinfo=UTC)),
        ("2026-11-29T03:00:00+02:00", datetime(2026, 11, 29, 1, tzinfo=UTC)),
        (date(2026, 11, 29), datetime(2026, 11, 29, tzinfo=UTC)),
        (datetime(2026, 11, 29, 3, tzinfo=timezone(timedelta(hours=-1))), datetime(2026, 11, 29, 4, tzinfo=UTC)),
    ],
)
def test_times_are_in_utc(value: Any, expected: datetime) -> None:
    assert instant(value) == expected
    assert instant(value).tzinfo is UTC


def test_the_window_takes_its_first_moment_and_not_its_last(tmp_path: Path) -> None:
    dates = ["2026-10-31T23:59:59Z", "2026-11-01", "2026-11-07T23:59:59.9Z", "2026-11-08T00:00Z"]
    folder = pictures(tmp_path, *((f"{number}.jpg", when) for number, when in enumerate(dates)))
    found = read(folder)
    assert names(found, folder) == ["1.jpg", "2.jpg"]
    assert (found.before, found.within, found.after) == (1, 2, 1)


def test_windows_side_by_side_share_no_row_and_lose_none(tmp_path: Path) -> None:
    days = [f"2026-11-{day:02}T{hour:02}:00Z" for day in range(1, 9) for hour in (0, 12)]
    folder = pictures(tmp_path, *((when, when) for when in days))
    edges = [None, *(datetime(2026, 11, day, tzinfo=UTC) for day in (3, 4, 7, 20))]
    parts = [read(folder, Window(since, until)) for since, until in pairwise(edges) if until]
    assert [name for part in parts for name in names(part, folder)] == days


def test_a_picture_that_was_labelled_again_counts_once_by_its_latest_row(tmp_path: Path) -> None:
    rows = [picture("a.jpg", 5) | {"date": "2026-11-05"}, picture("b.jpg") | {"date": "2026-11-03"},
            picture("a.jpg", 9) | {"date": "2026-11-02"}]  # fmt: skip
    (tmp_path / "labels.jsonl").write_text("\n".join(map(json.dumps, rows)))
    found = read(tmp_path / "labels.jsonl")
    assert found.within == 3
    assert {Path(line.uri).name: line.boxes_K4[0, 0] for line in found.lines} == {"a.jpg": 5, "b.jpg": 1}


@pytest.mark.parametrize("form", ["csv", "parquet", "jsonl"])
def test_sources_in_each_form_relative_ones_beside_the_manifest(tmp_path: Path, form: str) -> None:
    source(tmp_path / "labels" / "first", "1.jpg", "2.jpg")
    source(tmp_path / "labels" / "second", "3.jpg")
    source(tmp_path / "elsewhere", "4.jpg")
    rows = [
        {"source": "first", "date": "2026-11-02", "pictures": None},
        {"source": str(tmp_path / "labels" / "second"), "date": "2026-11-09", "pictures": None},
        {"source": "../elsewhere", "date": "2026-11-03", "pictures": "first"},
    ]
    manifest = tmp_path / "labels" / f"manifest.{form}"
    if form == "csv":
        lines = [",".join(str(row[name] or "") for name in ("source", "date", "pictures")) for row in rows]
        manifest.write_text("\n".join(["\ufeffsource,date,pictures", *lines, ""]))
    elif form == "parquet":
        typed = [row | {"date": date.fromisoformat(str(row["date"]))} for row in rows]
        pq.write_table(pa.Table.from_pylist(typed), manifest)
    else:
        manifest.write_text("\n".join(map(json.dumps, rows)))
    found = read(manifest)
    assert names(found, tmp_path / "labels") == ["first/1.jpg", "first/2.jpg", "first/4.jpg"]
    assert (found.within, found.after) == (2, 1)


def test_the_hash_is_that_of_the_manifest(tmp_path: Path) -> None:
    folder = pictures(tmp_path, ("a.jpg", "2026-11-02"))
    before = read(folder).sha256
    assert read(folder).sha256 == before
    pictures(tmp_path, ("a.jpg", "2026-11-03"))
    assert read(folder).sha256 != before


def test_pictures_may_lie_elsewhere(tmp_path: Path) -> None:
    folder = pictures(tmp_path / "labels", ("a.jpg", "2026-11-02"))
    assert names(read(folder, base=str(tmp_path / "shots")), tmp_path) == ["shots/a.jpg"]


@pytest.mark.parametrize(
    ("name", "text", "why"),
    [
        ("m.jsonl", '{"image": "a.jpg"}\n', r"m\.jsonl:1: a row needs a date .* only 'image'"),
        ("m.jsonl", '\n{"image": "a.jpg", "date": "soon"}\n', r"m\.jsonl:2: .* 'soon'"),
        (
            "m.jsonl",
            '{"image": "a.jpg", "date": "2026-11-02"}\n',
            r"m\.jsonl:1: not an annotation \(KeyError: 'boxes'\)",
        ),
        ("m.jsonl", '{"date": "2026-11-02"}\n', "needs a source"),
        ("m.jsonl", "[1]\n", r"m\.jsonl:1: not a JSON object"),
        ("m.jsonl", "{", r"m\.jsonl:1: not JSON"),
        ("m.jsonl", '{"date": "2026-11-02", "source": 7}\n', r"m\.jsonl:1: a source is a path or url, not 7"),
        ("m.csv", "source\nfirst\n", r"m\.csv:2: a row needs a date .* only 'source'"),
        ("m.csv", "source;date\nfirst;2026-11-02\n", "it has only 'source;date'"),
        ("m.csv", "source,date\nnothing,2026-11-02\n", r"m\.csv:2: .*nothing"),
        ("m.csv", "", "is empty"),
        ("m.parquet", "no table", "cannot be read"),
        ("m.txt", "", "no manifest"),
    ],
)
def test_what_is_no_row_is_named_with_its_place(tmp_path: Path, name: str, text: str, why: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(InputError, match=why):
        read(tmp_path / name)


@pytest.mark.parametrize("number", ["null", "NaN", "Infinity"])
def test_a_box_with_what_is_no_number_is_named(tmp_path: Path, number: str) -> None:
    """As pandas writes an empty cell: such a face could never be found, and would count as missed."""
    row = json.dumps(picture("a.jpg") | {"date": "2026-11-02"}).replace("30", number)
    (tmp_path / "m.jsonl").write_text(row)
    with pytest.raises(InputError, match=r"m\.jsonl:1: not an annotation .*a box with what is no number: \[1.0, 2, "):
        read(tmp_path / "m.jsonl")
