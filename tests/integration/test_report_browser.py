"""The report in a real browser: it opens without a word on the console and without a request."""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from tests.report_sample import SamplePicture, write_unit
from tinyface_core.report.html import write_report
from tinyface_core.storage import Storage

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
FLAGS = [
    "--headless",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-logging=stderr",
    "--virtual-time-budget=5000",
]

pytestmark = [
    pytest.mark.integration,
    pytest.mark.skipif(CHROMIUM is None, reason="chromium is not installed"),
]


class Visit:
    """A page opened in headless Chromium: `dom` after loading, `console` lines, `requests` that the page made."""

    def __init__(self, url: str, profile: Path) -> None:
        log = profile / "net.json"
        command = [str(CHROMIUM), *FLAGS, f"--user-data-dir={profile}", f"--log-net-log={log}", "--dump-dom", url]
        result = subprocess.run(command, capture_output=True, text=True, timeout=120, check=True)
        self.dom = result.stdout
        self.console = [line for line in result.stderr.splitlines() if "CONSOLE" in line]
        self.requests = sorted(_asked_by_pages(json.loads(log.read_text())))


def _asked_by_pages(net_log: dict[str, Any]) -> set[str]:
    """Addresses that some page asked for; the browser's own calls home, and the visit itself, have no origin."""
    start = net_log["constants"]["logEventTypes"]["URL_REQUEST_START_JOB"]
    asked = [event.get("params", {}) for event in net_log["events"] if event["type"] == start]
    return {request["url"] for request in asked if request.get("initiator", "not an origin") != "not an origin"}


@pytest.fixture
def site(tmp_path: Path) -> Iterator[tuple[Path, str]]:
    """A folder and its address on this machine, on a port that the system chose."""
    folder = tmp_path / "site"
    folder.mkdir()
    handler = partial(SimpleHTTPRequestHandler, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        yield folder, f"http://127.0.0.1:{server.server_address[1]}"
        server.shutdown()
        thread.join()


def write_sample_report(folder: Path) -> None:
    pictures = []
    for name in ("<img src=http:x onerror=alert(1)>.jpg", "plain.jpg"):
        pixels = np.random.default_rng(0).integers(0, 256, (370, 530, 3), np.uint8)
        (folder / name).write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
        boxes = np.array([[10, 10, 30, 40, 0.9], [100, 100, 130, 140, 0.5]], np.float32)
        pictures.append(SamplePicture(f"file://{folder}/{name}", boxes_K5=boxes, size_hw=(370, 530)))
    error = ("decode", "corrupt", "<script src=//evil.example/x.js></script>")
    write_unit(folder, "a", [*pictures, SamplePicture("file:///in/broken.jpg", error=error)])
    write_report(Storage(), str(folder), {"settings": {"min_score": 0.3}})


def test_the_report_opens_without_console_message_and_without_request(site: tuple[Path, str], tmp_path: Path) -> None:
    folder, address = site
    write_sample_report(folder)
    visit = Visit(f"{address}/report.html", tmp_path / "profile")
    assert "&lt;img src=http:x onerror=alert(1)&gt;.jpg" in visit.dom
    assert len(re.findall(r"<rect [^>]*stroke=", visit.dom)) == 4
    assert visit.console == []
    assert visit.requests == []


def test_a_page_that_does_both_is_caught(site: tuple[Path, str], tmp_path: Path) -> None:
    """Else the test above could not fail."""
    folder, address = site
    (folder / "bad.html").write_text(f"<script>console.error('no')</script><img src='{address}/picture.png'>")
    visit = Visit(f"{address}/bad.html", tmp_path / "profile")
    assert len(visit.console) >= 1
    assert f"{address}/picture.png" in visit.requests
