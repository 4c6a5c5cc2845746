"""The page and the folder: every chosen picture is in them once, with its faces or with the reason."""

from __future__ import annotations

import base64
import csv
import hashlib
import json
import re
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.report_sample import SamplePicture, write_unit
from tests.unit.render_samples import HEIGHT, WIDTH, failed, photo
from tinyface_core.picture.picture import Limits
from tinyface_core.render import page
from tinyface_core.render.choose import Wanted, choose
from tinyface_core.render.drawn import Style
from tinyface_core.render.folder import write_pictures
from tinyface_core.render.looks import Look, looks
from tinyface_core.render.marks import read_marks
from tinyface_core.render.page import fair_share, page_of, write_page
from tinyface_core.storage import Storage

STORAGE = Storage()
ATTACK = "</script><script>alert(1)</script><img src=x onerror=alert(1)>"


def seen(folder: Path, min_score: float | None = None) -> list[Look]:
    chosen = choose(STORAGE, str(folder), Wanted(min_score=min_score)).pictures
    return list(looks(STORAGE, chosen, read_marks(STORAGE, chosen, min_score), Limits(), 1))


@pytest.fixture
def output(tmp_path: Path) -> Path:
    """By name: a.png with two faces, broken, changed since, gone, none.png without a face."""
    changed = photo(tmp_path / "in" / "changed.png", [1, 1, 9, 9])
    photo(tmp_path / "in" / "changed.png", shade=7)
    pictures = [
        photo(tmp_path / "in" / "a.png", [4, 6, 24, 30], [30, 8, 36, 15]),
        failed(f"file://{tmp_path}/in/broken.jpg", "bad Huffman code"),
        changed,
        SamplePicture(f"file://{tmp_path}/in/gone.png"),
        photo(tmp_path / "in" / "none.png"),
    ]
    write_unit(tmp_path / "out", "a", pictures)
    return tmp_path / "out"


def data_of(html: str) -> dict[str, Any]:
    found = re.search(r'<script type="application/json" id="data">(.*?)</script>', html, re.DOTALL)
    assert found
    return dict(json.loads(found[1]))


def test_each_picture_comes_once_with_its_faces_or_the_reason(output: Path) -> None:
    by_place = sorted(seen(output), key=lambda look: look.place)
    assert [look.picture is not None for look in by_place] == [True, False, False, False, True]
    assert [look.facts for look in by_place[:2]] == ["2 faces, smallest 7\u00a0px", "corrupt"]
    assert by_place[4].facts == "no face"
    assert by_place[1].why == ("corrupt", "bad Huffman code")
    why = [look.why[1] for look in by_place[2:4] if look.why]
    assert "these are not the bytes in which faces were sought" in why[0]
    assert "gone.png" in why[1]


def test_a_picture_that_decodes_to_another_size_is_not_shown(tmp_path: Path) -> None:
    odd = photo(tmp_path / "in" / "a.png", [4, 6, 24, 30])
    odd.size_hw = (HEIGHT + 1, WIDTH)
    write_unit(tmp_path, "a", [odd])
    (look,) = seen(tmp_path)
    assert look.why == ("cannot be shown", "it decodes to another size: 53 x 37 px now, 53 x 38 px then")


@pytest.mark.parametrize("ellipses", [False, True])
def test_the_page_holds_what_the_table_holds(output: Path, tmp_path: Path, ellipses: bool) -> None:
    assert len(list(write_page(tmp_path / "page", seen(output), Style(ellipses), 1500, "x"))) == 5
    data = data_of((tmp_path / "page" / "index.html").read_text("utf-8"))
    first, broken, changed, gone, none = data["pictures"]
    assert (first["name"], first["faces"], first["smallest"], first["size"]) == ("a.png", 2, 7.0, [WIDTH, HEIGHT])
    if ellipses:
        assert [mark[-2:] for mark in first["marks"]] == [[24.0, 0.9], [7.0, 0.9]]
    else:
        assert first["marks"] == [[4.0, 6.0, 20.0, 24.0, 0.9], [30.0, 8.0, 6.0, 7.0, 0.9]]
    assert first["link"] == f"file://{tmp_path}/in/a.png"
    assert broken["why"] == ["corrupt", "bad Huffman code"]
    assert changed["why"][0] == gone["why"][0] == "cannot be shown"
    assert (none["faces"], none["smallest"], none["marks"], none["cuts"]) == (0, None, [], False)
    files = {file.relative_to(tmp_path / "page").as_posix() for file in (tmp_path / "page").rglob("*.jpg")}
    both = {f"{kind}/{entry['file']}" for kind in ("small", "large") for entry in (first, none)}
    assert files == both | {f"cuts/{first['file']}"}
    large = cv2.imread(str(tmp_path / "page" / "large" / first["file"]))
    assert abs(large.astype(int) - 128).max() < 3, "no faces are drawn into it: the browser does"


def test_a_height_is_rounded_once(tmp_path: Path) -> None:
    """16.47 px are 16 in the report and in SQL; a tenth that is rounded again would make them 17."""
    write_unit(tmp_path, "a", [photo(tmp_path / "in" / "a.png", [4, 6, 24, 22.47])])
    list(write_page(tmp_path / "page", seen(tmp_path), Style(), 1500, "x"))
    (entry,) = data_of((tmp_path / "page" / "index.html").read_text("utf-8"))["pictures"]
    assert round(entry["smallest"]) == 16


def test_marks_are_in_pixels_of_the_large_file(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [photo(tmp_path / "in" / "a.png", [4, 6, 24, 30])])
    list(write_page(tmp_path / "page", seen(tmp_path), Style(longest_px=26), 1500, "x"))
    (entry,) = data_of((tmp_path / "page" / "index.html").read_text("utf-8"))["pictures"]
    assert entry["size"] == [26, 18]
    assert entry["marks"] == [[2.0, 2.9, 9.8, 11.7, 0.9]]
    assert round(entry["marks"][0][3] / entry["zoom"]) == 24, "the height in the original is told"


def test_faces_are_shared_out_so_that_the_page_stays_small(monkeypatch: pytest.MonkeyPatch) -> None:
    assert fair_share([10, 1000, 2000]) == 1500
    monkeypatch.setattr(page, "MOST_FACES", 300)
    assert fair_share([10, 1000, 2000]) == 145
    assert fair_share([]) == 1500
    assert fair_share([1] * 1000) == 1, "each picture keeps its surest face"


def test_the_least_certain_faces_are_left_out_and_told(tmp_path: Path) -> None:
    sample = photo(tmp_path / "in" / "a.png", [4, 6, 24, 30], [1, 1, 9, 9], [30, 8, 36, 15])
    sample.boxes_K5[:, 4] = [0.5, 0.9, 0.7]
    write_unit(tmp_path, "a", [sample])
    list(write_page(tmp_path / "page", seen(tmp_path), Style(), 2, "x"))
    (entry,) = data_of((tmp_path / "page" / "index.html").read_text("utf-8"))["pictures"]
    assert (entry["faces"], entry["left"], [mark[-1] for mark in entry["marks"]]) == (3, 1, [0.9, 0.7])


def test_no_name_or_message_becomes_markup_and_only_our_script_may_run(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [failed(f"file:///in/{ATTACK}", ATTACK), failed("file:///in/b\u202e.jpg")])
    list(write_page(tmp_path / "page", seen(tmp_path), Style(), 2, ATTACK))
    html = (tmp_path / "page" / "index.html").read_text("utf-8")
    scripts = re.findall(r"<script>(.*?)</script>", html, re.DOTALL)
    assert len(scripts) == 1
    digest = base64.b64encode(hashlib.sha256(scripts[0].encode()).digest()).decode()
    assert f"script-src 'sha256-{digest}'; base-uri 'none'" in html
    assert "default-src 'none'" in html
    assert html.count("<script") == 2
    assert "<img src=x" not in html
    entry = data_of(html)["pictures"][0]
    assert entry["why"] == ["corrupt", ATTACK]
    assert "\\u202e" in data_of(html)["pictures"][1]["name"], "what turns the direction of writing is seen"


def test_an_empty_page_is_a_page() -> None:
    assert data_of(page_of([], "nothing", ellipses=False))["pictures"] == []


def test_the_folder_mirrors_where_pictures_lie_and_lists_all(output: Path, tmp_path: Path) -> None:
    assert len(list(write_pictures(tmp_path / "drawn", seen(output), Style()))) == 5
    with (tmp_path / "drawn" / "pictures.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert [row["uri"].rpartition("/")[2] for row in rows] == [
        "a.png",
        "broken.jpg",
        "changed.png",
        "gone.png",
        "none.png",
    ]
    assert [(row["faces"], row["error_class"]) for row in rows[:2]] == [("2", ""), ("0", "corrupt")]
    assert rows[1]["file"] == f"file{tmp_path}/in/broken.jpg"
    files = sorted(file.relative_to(tmp_path / "drawn").as_posix() for file in (tmp_path / "drawn").rglob("*.jpg"))
    assert files == sorted(row["file"] for row in rows), "tiles for those that cannot be shown"
    sheet = cv2.cvtColor(cv2.imread(str(tmp_path / "drawn" / rows[0]["file"])), cv2.COLOR_BGR2RGB)
    assert sheet.shape[1] >= 460
    assert np.abs(sheet[20, 10].astype(int) - 128).max() < 40, "a face stays as it is"
    assert np.ptp(sheet[6:30, 3:26].astype(int), axis=(0, 1)).max() > 80, "and its frame is there"
