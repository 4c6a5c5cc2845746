"""Does the page of jobs/render.py stay quick with many pictures?

    python benchmarks/page.py [--pictures 10000] [--faces 20] [--json FILE]

A page as jobs/render.py writes it, of made-up pictures (320 x 240 and 1600 x 1200 px; faces drawn at random), is opened
from the disk in headless Chromium at 1280 x 900. Prints a Markdown table: the page's size, time until it has loaded and
until the first pictures are seen, memory, frames while it is scrolled for ten seconds, at two screens a second and
through the whole page, and how long a search and a sort take. Needs Debian's chromium and chromium-driver. One run;
close other programs.
"""

from __future__ import annotations

import os
import sys
import tempfile
import time
from pathlib import Path
from typing import Annotated, Any

import cv2
import numpy as np
import psutil
from cyclopts import App, Parameter
from figures import finish

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from tests.integration.browser import MISSING, Browser, opened  # noqa: E402
from tinyface_core.render.page import page_of  # noqa: E402

SCROLL_S = 10
KINDS = {"small": (240, 320), "large": (1200, 1600)}
app = App(help=__doc__)

# Frames as they come while the page moves down at an even speed.
SCROLL = """
const [seconds, screens, done] = arguments, frames = [];
const height = screens ? screens * innerHeight : document.documentElement.scrollHeight - innerHeight;
let start, last;
const step = now => {
    start ??= now;
    if (last !== undefined) frames.push(now - last);
    last = now;
    scrollTo(0, height * Math.min(1, (now - start) / 1000 / seconds));
    now - start < seconds * 1000 ? requestAnimationFrame(step) : done(frames);
};
requestAnimationFrame(step);
"""
# From the event to the frame that shows what came of it.
ACT = """
const [id, value, event, done] = arguments, element = document.getElementById(id), start = performance.now();
element.value = value;
element.dispatchEvent(new Event(event));
requestAnimationFrame(() => setTimeout(() => done(performance.now() - start)));
"""


def write_page(folder: Path, pictures: int, faces: int) -> None:
    """16 pictures under many names: each name is a file of its own to the browser."""
    draw = np.random.default_rng(0)
    for kind, (height, width) in KINDS.items():
        for thousand in range((pictures - 1) // 1000 + 1):
            (folder / kind / f"{thousand:03}").mkdir(parents=True)
        files = []
        for number in range(16):
            rough_HW3 = draw.integers(0, 256, (height // 20, width // 20, 3), np.uint8)
            pixels = cv2.resize(rough_HW3, (width, height), interpolation=cv2.INTER_CUBIC)
            files.append(folder / f"{kind}{number}.jpg")
            files[-1].write_bytes(cv2.imencode(".jpg", pixels)[1].tobytes())
        for number in range(pictures):
            os.link(files[number % 16], folder / kind / f"{number // 1000:03}/{number:06}.jpg")
    height, width = KINDS["large"]
    entries: list[dict[str, Any]] = []
    for number in range(pictures):
        corners_K2, sides_K2 = draw.uniform(0, 1000, (faces, 2)), draw.uniform(5, 60, (faces, 2))
        boxes = np.concatenate([corners_K2, sides_K2], axis=1).round(1).tolist()
        marks = [[*box, round(float(score), 2)] for box, score in zip(boxes, draw.random(faces), strict=True)]
        path = f"/archive/{number // 100:05}/picture {number:08}.jpg"
        entry = {"name": path.rpartition("/")[2], "path": path, "link": f"file://{path}", "faces": faces, "left": 0}
        entry |= {"smallest": min(box[3] for box in boxes) if boxes else None, "size": [width, height], "zoom": 1.0}
        entries.append(entry | {"file": f"{number // 1000:03}/{number:06}.jpg", "cuts": False, "marks": marks})
    (folder / "index.html").write_text(page_of(entries, f"{pictures:,} pictures", ellipses=False), "utf-8")


def measured(browser: Browser, page: Path) -> dict[str, float]:
    started = time.monotonic()
    browser.visit(f"file://{page}/index.html")
    browser.wait_for("document.images.length > 1 && [...document.images].every(i => i.hidden || i.naturalWidth)")
    seen_s = time.monotonic() - started
    loaded_ms = browser.run("return performance.getEntriesByType('navigation')[0].loadEventEnd")
    after_load, loaded_bytes = browser.metrics(), renderer_bytes()
    act = browser.driver.execute_async_script
    slow, fast = (np.array(act(SCROLL, SCROLL_S, screens)) for screens in (2 * SCROLL_S, 0))
    after_scroll = browser.metrics()
    return {
        "page, MB": (page / "index.html").stat().st_size / 1e6,
        "loaded, ms": loaded_ms,
        "first pictures seen (by the driver, asking every 50 ms), ms": seen_s * 1000,
        "DOM nodes": after_load["Nodes"],
        "script memory, MB": after_load["JSHeapUsedSize"] / 1e6,
        "script memory after scrolling through, MB": after_scroll["JSHeapUsedSize"] / 1e6,
        "memory of the page's process when it has loaded, MB": loaded_bytes / 1e6,
        "memory of the page's process after scrolling, MB": renderer_bytes() / 1e6,
        "frames a second at two screens a second": 1000 / float(slow.mean()),
        "longest of these frames, ms": float(slow.max()),
        "frames a second through the whole page": 1000 / float(fast.mean()),
        "longest of those frames, ms": float(fast.max()),
        "search by a name, ms": act(ACT, "filter", "4321", "input"),
        "all again, ms": act(ACT, "filter", "", "input"),
        "sort by faces, ms": act(ACT, "order", "faces", "change"),
    }


def renderer_bytes() -> int:
    """Resident, of the largest of this program's Chromium processes that show pages."""
    mine = psutil.Process().children(recursive=True)
    return max((p.memory_info().rss for p in mine if "--type=renderer" in p.cmdline()), default=0)


@app.default
def main(pictures: int = 10_000, faces: int = 20, json_file: Annotated[Path | None, Parameter("--json")] = None) -> int:
    """Builds, opens, measures.

    Parameters
    ----------
    json_file
        Write the figures there too.
    """
    try:
        with tempfile.TemporaryDirectory() as folder, opened(Path(folder) / "profile") as browser:
            browser.driver.set_script_timeout(SCROLL_S + 60)
            write_page(Path(folder) / "page", pictures, faces)
            figures = measured(browser, Path(folder) / "page")
    except Exception as error:
        print(f"{type(error).__name__}: {error}. {MISSING}?", file=sys.stderr)
        return 1
    print(f"| {pictures:,} pictures of {faces} faces | |\n|---|---:|")
    for name, value in figures.items():
        print(f"| {name} | {value:,.1f} |" if value < 100 else f"| {name} | {value:,.0f} |")
    finish(figures, json_file)
    return 0


if __name__ == "__main__":
    sys.exit(app())
