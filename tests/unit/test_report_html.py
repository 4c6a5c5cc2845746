from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.report_sample import SamplePicture, write_unit
from tinyface_core.report import html
from tinyface_core.report.html import write_report
from tinyface_core.storage import Storage

ATTACKS = [
    "<script>alert(1)</script>.jpg",
    "<img src=x onerror=alert(1)>.jpg",
    "\" onmouseover=alert(1) x='.jpg",
    "</style><script>alert(1)</script>",
    "{{ 7 * 7 }}{% raw %}.jpg",
    "javascript:alert(1)",
    "</title><svg onload=alert(1)>",
]
RUN: dict[str, Any] = {
    "finished_at": "2026-11-24T14:03:10+00:00",
    "wall_s": 200.0,
    "pictures_per_s": 12.34,
    "inputs": ["/in/"],
    "skipped": {".json": 12, "hidden": 3},
    "settings": {"model": "hr-resnet50", "device": "cpu", "precision": "fp32", "zooms": [0.5, 1.0], "min_score": 0.3},
    "versions": {"python": "3.11.7"},
}


class Page(HTMLParser):
    """The elements, attributes and text of a report."""

    def __init__(self, source: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.words: list[str] = []
        self.feed(source)
        self.close()

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    handle_startendtag = handle_starttag

    def handle_data(self, data: str) -> None:
        self.words.append(data)

    @property
    def text(self) -> str:
        return re.sub(r"[ \n\u00a0]+", " ", "".join(self.words))

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def report_of(folder: Path, run: dict[str, Any] | None = None, **more: int) -> Page:
    uri = write_report(Storage(), str(folder), RUN if run is None else run, **more)
    assert uri == f"file://{folder}/report.html"
    return Page((folder / "report.html").read_text("utf-8"))


def photo(path: Path, faces: int = 2, name: str | None = None) -> SamplePicture:
    """A real JPEG of 37 x 53 on disk, and its row with made-up faces."""
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(len(path.name)).integers(0, 256, (37, 53, 3), np.uint8)
    path.write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    boxes = np.array([[2 + k % 30, 3, 12 + k % 30, 15, 0.9] for k in range(faces)], np.float32).reshape(-1, 5)
    return SamplePicture(f"file://{path}", boxes_K5=boxes)


def failed(name: str, message: str = "bad data") -> SamplePicture:
    return SamplePicture(f"file:///in/{name}", error=("decode", "corrupt", message))


def test_the_head_tells_what_the_run_did(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [SamplePicture("file:///in/1.jpg"), failed("2.jpg")])
    text = report_of(tmp_path).text
    for words in ("24 Nov 2026, 14:03 UTC", "12.3", "3 min 20 s", "hr-resnet50", "cpu, fp32", "0.5, 1", "/in/"):
        assert words in text
    assert ".json 12 · hidden 3" in text
    assert re.search(r"pictures ?2 ?faces ?0 ?error ?1", text)


def test_pictures_come_with_their_boxes_and_captions(tmp_path: Path) -> None:
    few, many = photo(tmp_path / "in" / "few.jpg", 1), photo(tmp_path / "in" / "d" / "many.jpg", 40)
    write_unit(tmp_path, "a", [few, many])
    page = report_of(tmp_path)
    assert [image["alt"] for image in page.all("img")] == ["many.jpg", "few.jpg"]
    assert all((image["src"] or "").startswith("data:image/jpeg;base64,/9j/") for image in page.all("img"))
    assert sum(1 for box in page.all("rect") if box.get("stroke")) == 41
    assert "score 0.90, 12 px high" in page.text
    assert "many.jpg · 40 faces · smallest 12 px, median 12 px" in page.text
    assert "few.jpg · 1 face · 12 px high" in page.text
    assert f"{tmp_path}/in/d/many.jpg" in page.text
    assert {link["href"] for link in page.all("a")} == {few.uri, many.uri}


def test_no_picture_is_shown_twice_and_not_more_than_asked_for(tmp_path: Path) -> None:
    """All faces are equally small: the two lists take turns."""
    write_unit(tmp_path, "a", [photo(tmp_path / "in" / f"{n}.jpg", n) for n in range(9)])
    assert [image["alt"] for image in report_of(tmp_path, max_pictures=5).all("img")] == [
        *("8.jpg", "6.jpg", "4.jpg"),
        *("7.jpg", "5.jpg"),
    ]


def test_a_portrait_is_not_among_the_tiniest_faces_however_few_pictures_there_are(tmp_path: Path) -> None:
    crowd, portrait = photo(tmp_path / "in" / "crowd.jpg", 9), photo(tmp_path / "in" / "portrait.jpg", 1)
    portrait.boxes_K5[:, 3] += 20
    write_unit(tmp_path, "a", [crowd, portrait])
    page = report_of(tmp_path)
    assert "The tiniest faces" not in page.text
    assert len(page.all("img")) == 2


def test_no_pictures_at_all_when_none_are_wanted(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [photo(tmp_path / "in" / "1.jpg")])
    assert report_of(tmp_path, max_pictures=0).all("img") == []


def test_pictures_that_cannot_be_read_again_are_listed_with_the_reason(tmp_path: Path) -> None:
    gone, broken, good = (photo(tmp_path / "in" / f"{n}.jpg") for n in ("gone", "broken", "good"))
    changed = photo(tmp_path / "in" / "changed.jpg")
    changed.source_version = "1-1"
    (tmp_path / "in" / "gone.jpg").unlink()
    (tmp_path / "in" / "broken.jpg").write_bytes(b"no longer a picture")
    write_unit(tmp_path, "a", [gone, broken, good, changed])
    page = report_of(tmp_path)
    assert [image["alt"] for image in page.all("img")] == ["good.jpg"]
    listed = page.text.partition("could not be read again")[2]
    assert all(f"{name}.jpg" in listed for name in ("gone", "broken", "changed"))
    assert "2 faces" in listed


def test_errors_are_counted_and_listed(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [failed(f"{n:03}.jpg", f"message {n}") for n in range(250)])
    text = report_of(tmp_path).text
    assert re.search(r"corrupt ?decode ?250", text)
    assert "message 199" in text
    assert "message 200" not in text
    assert "The first 200 of 250" in text


def test_nothing_that_a_file_or_a_run_is_called_becomes_markup(tmp_path: Path) -> None:
    """In every place where text of a user is printed; the page has no script and no event handler whatever it is."""
    joined = "".join(ATTACKS)
    out = tmp_path / joined.replace("/", "_")
    photos = [photo(tmp_path / "in" / attack.replace("/", "_")) for attack in ATTACKS]
    errors = [
        SamplePicture("s3://b/" + attack, "x" + attack, error=("decode", "corrupt", attack)) for attack in ATTACKS
    ]
    write_unit(out, "a", photos + errors)
    run = dict.fromkeys(("finished_at", "inputs", "model", "device", "precision", "zooms", "min_score"), joined)
    page = report_of(out, {**run, "skipped": {joined: 3}, "settings": {joined: {joined: joined}}, "versions": RUN})
    assert {tag for tag, _ in page.elements} <= {
        *("html", "head", "meta", "link", "title", "style", "body", "header", "section", "footer", "div", "span"),
        *("h1", "h2", "h3", "p", "dl", "dt", "dd", "table", "thead", "tr", "th", "td", "pre", "code", "bdi", "wbr"),
        *("details", "summary", "a", "figure", "figcaption", "label", "input", "img"),
        *("svg", "g", "path", "rect", "line", "text", "defs", "lineargradient", "stop", "desc"),
    }
    names = {name for _, attributes in page.elements for name in attributes}
    assert not [name for name in names if name.startswith("on")]
    assert all((link["href"] or "").startswith("file:///") for link in page.all("a"))
    assert {image["alt"] for image in page.all("img")} == {attack.replace("/", "_") for attack in ATTACKS}
    for attack in ATTACKS:  # and each is shown as it is: file, archive and member, message, and what the run says
        assert page.text.count(attack) >= 10


def test_the_page_allows_no_script_and_no_request(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [photo(tmp_path / "in" / "1.jpg")])
    page = report_of(tmp_path)
    policy = next(meta["content"] for meta in page.all("meta") if meta.get("http-equiv") == "Content-Security-Policy")
    assert policy is not None
    assert policy.startswith("default-src 'none'; img-src data:; style-src 'unsafe-inline'")
    fetched = [e.get("src") or e.get("href") for tag, e in page.elements if tag in ("img", "link", "script", "iframe")]
    assert all((address or "").startswith("data:") for address in fetched)
    assert "url(" not in (tmp_path / "report.html").read_text().replace("url(#confidence)", "")


@pytest.mark.parametrize(
    "run",
    [
        {},
        {"settings": None, "versions": [], "skipped": "many", "inputs": 3, "zooms": None, "pictures_per_s": "fast"},
        {"min_score": float("nan"), "wall_s": -1, "pictures_per_s": float("inf"), "finished_at": 12},
    ],
)
def test_a_run_that_tells_little_or_nonsense_still_gives_a_report(tmp_path: Path, run: dict[str, Any]) -> None:
    write_unit(tmp_path, "a", [photo(tmp_path / "in" / "1.jpg")])
    page = report_of(tmp_path, run)
    assert len(page.all("img")) == 1
    assert not re.search(r"\b(None|nan|inf)\b", page.text)


def test_an_empty_output_gives_a_report_that_says_so(tmp_path: Path) -> None:
    text = report_of(tmp_path).text
    assert "This output holds no pictures." in text
    assert "None: every picture was read" not in text


def test_pictures_without_faces_give_a_report_that_says_so(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [SamplePicture("file:///in/1.jpg")])
    text = report_of(tmp_path).text
    assert "No face was found in any picture." in text
    assert "None: every picture was read" in text


def test_an_output_of_errors_alone_draws_no_empty_chart(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [failed("file:///a.jpg"), failed("file:///b.jpg")])
    page = report_of(tmp_path)
    assert "No picture could be examined" in page.text
    assert [section["id"] for section in page.all("section")] == ["pictures", "errors", "query", "settings"]
    write_unit(tmp_path, "b", [SamplePicture("file:///in/1.jpg")])
    assert {"class": "charts alone"} in report_of(tmp_path).all("div"), "one chart is not as wide as the page"


def test_units_that_are_being_redone_are_said(tmp_path: Path) -> None:
    write_unit(tmp_path, "a", [SamplePicture("file:///in/1.jpg")])
    _, faces = write_unit(tmp_path, "b", [SamplePicture("file:///in/2.jpg")])
    faces.unlink()
    assert "1 of 2 units are being redone" in report_of(tmp_path).text


def test_the_size_of_the_file_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Noise, of which each picture alone would take the whole, with boxes that cannot be made smaller."""
    monkeypatch.setattr(html, "MAX_GALLERY_BYTES", 1_000_000)
    rng = np.random.default_rng(1)
    data = cv2.imencode(".jpg", rng.integers(0, 256, (1000, 1400, 3), np.uint8))[1].tobytes()
    pictures = []
    for n in range(6):
        (tmp_path / f"{n}.jpg").write_bytes(data)
        corners = rng.uniform(0, 900, (300, 2))
        boxes = np.hstack([corners, corners + 10, rng.uniform(0.3, 1, (300, 1))]).astype(np.float32)
        pictures.append(SamplePicture(f"file://{tmp_path}/{n}.jpg", boxes_K5=boxes, size_hw=(1000, 1400)))
    write_unit(tmp_path, "a", pictures)
    assert len(report_of(tmp_path).all("img")) == 6
    assert 700_000 < (tmp_path / "report.html").stat().st_size < 1_050_000
