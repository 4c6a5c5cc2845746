"""The report and the page of jobs/render.py in a real browser: they open, show what they should, and call nobody."""

from __future__ import annotations

import os
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import cv2
import numpy as np
import pytest

from tests.integration.browser import CHROMIUM, DRIVER, MISSING, Browser, opened
from tests.report_sample import SamplePicture, write_unit
from tinyface_core.picture.picture import Limits
from tinyface_core.render.choose import Wanted, choose
from tinyface_core.render.drawn import Style
from tinyface_core.render.looks import looks
from tinyface_core.render.marks import read_marks
from tinyface_core.render.page import page_of, write_page
from tinyface_core.report.html import write_report
from tinyface_core.storage import Storage

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None or DRIVER is None, reason=MISSING),
]
WIDTHS = (375, 1280)
LOADED = "[...document.images].every(image => image.hidden || image.naturalWidth)"
# Once the strip of cuts has its height, the picture is fitted anew, a frame later.
FITTED = "(stage => stage.scrollHeight <= stage.clientHeight)(document.getElementById('stage'))"
ATTACK = "<img src=http:x onerror=alert(1)>.jpg"


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with opened(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


class _Quiet(SimpleHTTPRequestHandler):
    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Path, str]]:
    """A folder with a report, a rendered page and one of 10,000 pictures, and its address on this machine."""
    folder = tmp_path_factory.mktemp("site")
    write_output(folder)
    write_report(Storage(), str(folder), {"settings": {"min_score": 0.3}})
    chosen = choose(Storage(), str(folder), Wanted()).pictures
    seen = looks(Storage(), chosen, read_marks(Storage(), chosen, None), Limits(), 1)
    assert len(list(write_page(folder / "page", seen, Style(), 1500, ATTACK))) == 24
    write_large_page(folder / "large")
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(_Quiet, directory=str(folder))) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def write_output(folder: Path) -> None:
    """24 rows in eight units, committed at odd times over two hours with a stop between; three of them errors."""
    started_s = 1_790_000_000
    for unit, minutes in enumerate((0, 1, 3, 4, 110, 112, 113, 117)):
        pictures = []
        for number in range(3):
            name = ATTACK if unit == number == 0 else f"{unit}-{number}.jpg"
            pixels = np.random.default_rng(unit).integers(0, 256, (370, 530, 3), np.uint8)
            (folder / name).write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
            boxes = np.array([[10, 10, 30, 40, 0.9], [100 + 9 * unit, 100, 112 + 9 * unit, 114, 0.5]], np.float32)
            if name == ATTACK:
                boxes = np.concatenate([boxes, np.array([[200, 200, 240, 260, 0.7]], np.float32)])
            pictures.append(SamplePicture(f"file://{folder}/{name}", boxes_K5=boxes, size_hw=(370, 530)))
        if unit % 3 == 0:
            words = "<script src=//evil.example/x.js></script> " * 4
            pictures[2] = SamplePicture(f"file:///in/broken{unit}.jpg", error=("decode", "corrupt", words))
        images, _ = write_unit(folder, f"{unit}", sorted(pictures, key=lambda picture: picture.uri))
        os.utime(images, (started_s + 60 * minutes, started_s + 60 * minutes))


def write_large_page(folder: Path, pictures: int = 10_000, faces: int = 20) -> None:
    """A page as `write_page` makes it, of few pictures under many names."""
    shades = []
    for kind in ("small", "large"):
        for thousand in range((pictures - 1) // 1000 + 1):
            (folder / kind / f"{thousand:03}").mkdir(parents=True)
    for shade in range(16):
        pixels = np.full((240, 320, 3), 16 * shade, np.uint8)
        cv2.putText(pixels, f"{shade}", (90, 150), cv2.FONT_HERSHEY_SIMPLEX, 3, (0, 200, 255), 5)
        shades.append(folder / f"shade{shade}.jpg")
        shades[-1].write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
    entries = []
    draw = np.random.default_rng(0)
    for number in range(pictures):
        file = f"{number // 1000:03}/{number:06}.jpg"
        for kind in ("small", "large"):
            os.link(shades[number % 16], folder / kind / file)
        boxes = np.concatenate([draw.uniform(0, 200, (faces, 2)), draw.uniform(5, 40, (faces, 2))], axis=1).round(1)
        marks = [[*box, round(float(score), 2)] for box, score in zip(boxes.tolist(), draw.random(faces), strict=True)]
        entry = {"name": f"picture {number:05}.jpg", "path": f"/in/{number:05}.jpg", "link": None, "faces": faces}
        entry |= {"smallest": float(boxes[:, 3].min()), "file": file, "size": [320, 240], "zoom": 1, "cuts": False}
        entries.append(entry | {"left": 0, "marks": marks})
    (folder / "index.html").write_text(page_of(entries, "large", ellipses=False), "utf-8")


@pytest.mark.parametrize("dark", [False, True])
@pytest.mark.parametrize("width", WIDTHS)
def test_the_report_opens_fits_and_asks_nobody(
    site: tuple[Path, str], browser: Browser, width: int, dark: bool
) -> None:
    _, address = site
    browser.visit(f"{address}/report.html", width, dark=dark)
    assert browser.console() == []
    assert browser.requests() == {f"{address}/report.html"}
    assert browser.overflow_px() == 0
    assert browser.unseen_pictures() == []
    assert browser.run("return document.querySelectorAll('.frame rect[stroke]').length") == 43
    assert browser.run("return document.body.innerText").count(ATTACK) >= 1
    assert browser.run("return document.querySelectorAll('.chart svg').length") == 4


def test_charts_are_named_and_told_for_those_who_hear_them(site: tuple[Path, str], browser: Browser) -> None:
    browser.visit(f"{site[1]}/report.html")
    told = browser.images_told(at_least=4)
    assert any("By height" in name and "10\u201320: " in name for name in told)
    assert any("pictures/s on average" in name and "with 1 stop in between" in name for name in told)


def test_text_can_be_read_in_light_and_dark(site: tuple[Path, str], browser: Browser) -> None:
    """WCAG's 4.5 to 1, of the soft text and of chart labels, on the page's own ground."""
    script = """
    const light = colour => {
        const part = colour.match(/[\\d.]+/g).slice(0, 3).map(v => v / 255);
        const [r, g, b] = part.map(v => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
        return 0.2126 * r + 0.7152 * g + 0.0722 * b;
    };
    const ground = light(getComputedStyle(document.body).backgroundColor);
    return ['.soft', '.chart text', 'td', '.bad'].map(name => {
        const style = getComputedStyle(document.querySelector(name));
        const ink = light(name === '.chart text' ? style.fill : style.color);
        return (Math.max(ink, ground) + 0.05) / (Math.min(ink, ground) + 0.05);
    });
    """
    for dark in (False, True):
        browser.visit(f"{site[1]}/report.html", dark=dark)
        assert min(browser.run(script)) >= 4.5


@pytest.mark.parametrize("width", WIDTHS)
def test_the_page_opens_fits_and_loads_its_own_pictures_only(
    site: tuple[Path, str], browser: Browser, width: int
) -> None:
    folder, address = site
    for place in (f"{address}/page", f"file://{folder}/page"):
        browser.visit(f"{place}/index.html", width)
        browser.wait_for(LOADED)
        assert browser.console() == []
        assert all(url.startswith(f"{place}/") for url in browser.requests())
        assert browser.unseen_pictures() == []
        assert browser.overflow_px() == 0
        assert browser.run("return document.querySelector('h1').innerText") == ATTACK
        assert browser.run("return document.getElementById('counts').innerText") == "24 pictures, 43 faces, 3 not shown"


@pytest.mark.parametrize("width", WIDTHS)
def test_a_picture_opens_with_its_faces_and_keys_lead_on(site: tuple[Path, str], browser: Browser, width: int) -> None:
    folder, _ = site
    browser.visit(f"file://{folder}/page/index.html", width)
    choose_order(browser, "faces")
    browser.run("document.querySelector('.tile button').click()")
    browser.wait_for(LOADED)
    assert browser.run("return document.getElementById('viewer-name').innerText") == ATTACK
    titles = browser.run("return [...document.querySelectorAll('.sheet .face title')].map(title => title.textContent)")
    assert titles == ["score 0.70, 60 px high", "score 0.90, 30 px high", "score 0.50, 14 px high"]
    assert browser.unseen_pictures() == [], "the tiny face, cut out, is among them"
    assert browser.run("return document.getElementById('cuts').hidden") is False
    assert browser.overflow_px() <= 0
    press = "new KeyboardEvent('keydown', {key: arguments[0], bubbles: true})"
    press = f"document.getElementById('stage').dispatchEvent({press})"
    browser.wait_for(FITTED)
    before = browser.run("return document.querySelector('.sheet').clientWidth")
    browser.run(press, "+")
    assert browser.run("return document.querySelector('.sheet').clientWidth") == pytest.approx(2 * before, abs=2)
    browser.run(press, "-")
    browser.run(press, "f")
    assert browser.run("return getComputedStyle(document.querySelector('.sheet svg')).display") == "none"
    name = browser.run("return document.getElementById('viewer-name').innerText")
    browser.run(press, "ArrowRight")
    assert browser.run("return document.getElementById('viewer-name').innerText") != name
    browser.run("document.getElementById('close').click()")
    browser.wait_for("!document.getElementById('viewer').open")
    assert browser.console() == []


def choose_order(browser: Browser, value: str) -> None:
    browser.run("document.getElementById('order').value = arguments[0]", value)
    browser.run("document.getElementById('order').dispatchEvent(new Event('change'))")


def test_errors_lead_when_asked_and_tell_their_sentence_as_text(site: tuple[Path, str], browser: Browser) -> None:
    folder, _ = site
    browser.visit(f"file://{folder}/page/index.html")
    choose_order(browser, "errors")
    first = browser.run("return document.querySelector('.tile').innerText")
    assert first.startswith("corrupt\n<script src=//evil.example/x.js></script>")
    assert browser.console() == []


def test_ten_thousand_pictures_exist_only_where_they_are_seen(site: tuple[Path, str], browser: Browser) -> None:
    _, address = site
    browser.visit(f"{address}/large/index.html")
    assert browser.run("return document.getElementById('counts').innerText") == "10,000 pictures, 200,000 faces"
    seen = "[...document.querySelectorAll('.tile .name')].map(name => name.innerText)"
    assert "picture 00000.jpg" in browser.run(f"return {seen}")
    browser.run("scrollTo(0, document.documentElement.scrollHeight)")
    browser.wait_for(f"{seen}.includes('picture 09999.jpg')")
    browser.wait_for(LOADED)
    assert browser.unseen_pictures() == []
    assert browser.run("return document.querySelectorAll('.tile').length") < 150
    assert browser.metrics()["Nodes"] < 6000
    assert len(browser.requests()) < 300, "what was passed over is not loaded"
    browser.run("const f = document.getElementById('filter'); f.value = '04321'; f.dispatchEvent(new Event('input'))")
    assert browser.run(f"return {seen}") == ["picture 04321.jpg"]
    assert browser.run("return document.getElementById('counts').innerText") == "1 picture of 10,000, 20 faces"
    browser.run("document.querySelector('.tile button').click()")
    assert browser.run("return document.querySelectorAll('.sheet .face').length") == 20
    assert browser.console() == []


def test_a_page_that_does_what_is_forbidden_is_caught(site: tuple[Path, str], browser: Browser) -> None:
    """Else the tests above could not fail."""
    folder, address = site
    wide = "<div style='width:2000px'>wide</div>"
    (folder / "bad.html").write_text(f"<script>console.error('no')</script><img src='{address}/gone.png'>{wide}")
    browser.visit(f"{address}/bad.html")
    assert any("no" in line for line in browser.console())
    assert f"{address}/gone.png" in browser.requests()
    assert browser.unseen_pictures() == [f"{address}/gone.png"[:60]]
    assert browser.overflow_px() > 0
