"""Debian's Chromium, driven through its own driver: for tests of the page, and for pictures of it.

python tests/report/chromium.py REPORT.html FOLDER   # light, dark, narrow and printed, to look at
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

NEEDED = ("chromium", "chromedriver")


def require_chromium() -> None:
    """Fail, or skip on a newcomer's machine, where no browser can be started."""
    missing = [tool for tool in NEEDED if not shutil.which(tool)]
    reason = f"{', '.join(missing)} missing: sudo apt-get install chromium chromium-driver"
    if missing and os.environ.get("CI"):
        pytest.fail(f"the page cannot be tested: {reason}", pytrace=False)
    if missing:
        pytest.skip(reason)


class Browser:
    """One window. What it asked of the network and said on its console is kept until asked for."""

    def __init__(self, driver: Any) -> None:
        self.driver = driver

    def open(self, page: Path) -> None:
        self.driver.get(page.resolve().as_uri())

    def run(self, script: str, *arguments: object) -> Any:
        return self.driver.execute_script(script, *arguments)

    def requests(self) -> list[str]:
        """Addresses asked for since the last call, data: left out."""
        messages = [json.loads(entry["message"])["message"] for entry in self.driver.get_log("performance")]
        asked = [each["params"]["request"]["url"] for each in messages if each["method"] == "Network.requestWillBeSent"]
        return [url for url in asked if not url.startswith("data:")]

    def console(self) -> list[str]:
        """Errors and warnings since the last call, those against the content security policy among them."""
        return [f"{entry['level']} {entry['message']}" for entry in self.driver.get_log("browser")]

    def hover(self, element: Any) -> None:
        from selenium.webdriver import ActionChains

        ActionChains(self.driver).move_to_element(element).perform()

    def resize(self, width_px: int, height_px: int) -> None:
        shape = {"width": width_px, "height": height_px, "deviceScaleFactor": 1, "mobile": width_px < 640}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", shape)

    def prefer(self, scheme: str) -> None:
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def picture(self, path: Path) -> None:
        """A PNG of the whole page."""
        size = self.driver.execute_cdp_cmd("Page.getLayoutMetrics", {})["cssContentSize"]
        asked = {"captureBeyondViewport": True, "clip": {**size, "scale": 1}}
        taken = self.driver.execute_cdp_cmd("Page.captureScreenshot", asked)
        path.write_bytes(base64.b64decode(taken["data"]))

    def print(self, path: Path) -> None:
        path.write_bytes(base64.b64decode(self.driver.execute_cdp_cmd("Page.printToPDF", {"landscape": True})["data"]))


@contextmanager
def chromium() -> Iterator[Browser]:
    """A browser without a window. The driver is named, so that selenium looks for none and tells nobody."""
    os.environ["SE_AVOID_STATS"] = os.environ["SE_OFFLINE"] = "true"
    from selenium import webdriver
    from selenium.webdriver.chrome.service import Service

    options = webdriver.ChromeOptions()
    options.binary_location = shutil.which("chromium")
    for argument in (
        "--headless=new", "--no-sandbox", "--disable-gpu", "--disable-dev-shm-usage", "--window-size=1280,900",
        "--disable-background-networking", "--disable-component-update", "--no-first-run",
    ):  # fmt: skip
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"performance": "ALL", "browser": "WARNING"})
    driver = webdriver.Chrome(options=options, service=Service(shutil.which("chromedriver")))
    try:
        yield Browser(driver)
    finally:
        driver.quit()


def save_pictures(page: Path, folder: Path) -> None:
    """light.png, dark.png, narrow.png (the whole page) and printed.pdf."""
    folder.mkdir(parents=True, exist_ok=True)
    with chromium() as browser:
        for name, scheme, width_px in (("light", "light", 1280), ("dark", "dark", 1280), ("narrow", "light", 390)):
            browser.prefer(scheme)
            browser.resize(width_px, 900)
            browser.open(page)
            browser.picture(folder / f"{name}.png")
        browser.print(folder / "printed.pdf")


if __name__ == "__main__":
    save_pictures(Path(sys.argv[1]), Path(sys.argv[2]))
