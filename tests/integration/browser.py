"""A real headless Chromium, driven by Selenium: what a page asks for, says on its console, and shows.

Debian's `chromium` and `chromium-driver`. It keeps a profile of its own and calls nobody.
"""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from selenium import webdriver
from selenium.webdriver.chrome.service import Service

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
DRIVER = shutil.which("chromedriver")
MISSING = "chromium or chromedriver is not installed (Debian: chromium, chromium-driver)"
_FLAGS = [
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--enable-precise-memory-info",
]


class Browser:
    """One tab. Use `with opened(profile) as browser`."""

    def __init__(self, driver: webdriver.Chrome) -> None:
        self.driver = driver

    def visit(self, url: str, width: int = 1280, height: int = 900, *, dark: bool = False) -> None:
        """Opens a page in a window of this size (CSS pixels), and waits until it has loaded."""
        self.resize(width, height)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": [scheme]})
        self.console(), self.requests()  # those of the page before
        self.driver.get(url)

    def resize(self, width: int, height: int) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def run(self, script: str, *arguments: object) -> Any:
        """What a piece of JavaScript returns."""
        return self.driver.execute_script(script, *arguments)

    def wait_for(self, condition: str, seconds: float = 30) -> Any:
        """Waits until an expression holds, and returns its value. Raises TimeoutException."""
        from selenium.webdriver.support.wait import WebDriverWait

        def holds(driver: webdriver.Chrome) -> Any:
            return driver.execute_script(f"return {condition}")

        return WebDriverWait(self.driver, seconds, 0.05).until(holds, condition)

    def console(self) -> list[str]:
        """What was said since it was last asked: by scripts, and by the browser of a page (a policy, a failed load)."""
        return [f"{entry['level']} {entry['message']}" for entry in self.driver.get_log("browser")]

    def requests(self) -> set[str]:
        """Addresses that pages asked for since it was last asked; `data:` is none, nor are the browser's own tabs."""
        events = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = {e["params"]["request"]["url"] for e in events if e["method"] == "Network.requestWillBeSent"}
        return {url for url in asked if not url.startswith(("data:", "chrome:"))}

    def images_told(self, at_least: int, seconds: float = 30) -> list[str]:
        """Names of images as a screen reader tells them, once there are so many: Chromium fills the tree late."""
        from selenium.webdriver.support.wait import WebDriverWait

        self.driver.execute_cdp_cmd("Accessibility.enable", {})

        def told(driver: webdriver.Chrome) -> list[str]:
            nodes = driver.execute_cdp_cmd("Accessibility.getFullAXTree", {})["nodes"]
            images = [node for node in nodes if node.get("role", {}).get("value") in ("image", "img")]
            return [node["name"]["value"] for node in images] if len(images) >= at_least else []

        return WebDriverWait(self.driver, seconds, 0.05).until(told, f"{at_least} images told")

    def metrics(self) -> dict[str, float]:
        """`Nodes`, `JSHeapUsedSize`, ... as the browser counts them."""
        self.driver.execute_cdp_cmd("Performance.enable", {})
        found = self.driver.execute_cdp_cmd("Performance.getMetrics", {})["metrics"]
        return {metric["name"]: metric["value"] for metric in found}

    def picture(self, file: Path, *, whole: bool = False) -> None:
        """A PNG of what is seen, or of the whole page."""
        shot = self.driver.execute_cdp_cmd("Page.captureScreenshot", {"captureBeyondViewport": whole})
        file.write_bytes(base64.b64decode(shot["data"]))

    def overflow_px(self) -> int:
        """By how much the page is wider than the window."""
        return int(self.run("return document.documentElement.scrollWidth - document.documentElement.clientWidth"))

    def unseen_pictures(self) -> list[str]:
        """Sources (the first 60 characters) of images that are not loaded, or take no room."""
        return list(
            self.run(
                "return [...document.images].filter(image => !image.hidden && (!image.complete || !image.naturalWidth"
                " || image.getBoundingClientRect().width < 2)).map(image => image.src.slice(0, 60))"
            )
        )


@contextmanager
def opened(profile: Path) -> Iterator[Browser]:
    """A Chromium with an empty profile in this folder, ended at the end."""
    options = webdriver.ChromeOptions()
    options.binary_location = str(CHROMIUM)
    for flag in (*_FLAGS, f"--user-data-dir={profile}"):
        options.add_argument(flag)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    driver = webdriver.Chrome(options, Service(str(DRIVER)))
    try:
        yield Browser(driver)
    finally:
        driver.quit()
