"""Debian's Chromium, headless, driven by its own chromedriver: the tests open the pages in it."""

from __future__ import annotations

import base64
import json
import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from importlib.resources import files
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

from selenium.webdriver import Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service

PACKAGES = "chromium chromium-driver"
PHONE, DESKTOP = (360, 740), (1280, 800)
_ARGUMENTS = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--disable-quic",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--disable-extensions",
    "--hide-scrollbars",
    "--force-color-profile=srgb",
)


class Browser:
    """One browser; a page is opened with :meth:`open`, which forgets the logs of the one before."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, page: Path | str) -> None:
        """Load a file or an address and wait until it is there."""
        for log in ("browser", "performance"):
            self._log(log)
        self.driver.get(page if isinstance(page, str) else page.resolve().as_uri())

    def shape(self, size: tuple[int, int] = DESKTOP, *, dark: bool = False, scripts: bool = True) -> None:
        """Look as a screen of ``size`` CSS pixels with or without a dark theme; with or without scripts."""
        width, height = size
        self._cdp(
            "Emulation.setDeviceMetricsOverride",
            width=width,
            height=height,
            deviceScaleFactor=1,
            mobile=width < 500,
        )
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._cdp("Emulation.setEmulatedMedia", features=[scheme])
        self._cdp("Emulation.setScriptExecutionDisabled", value=not scripts)

    def run(self, script: str, *arguments: object) -> Any:
        """The value of a script's ``return``; works on pages whose own scripts are disabled as well."""
        return self.driver.execute_script(script, *arguments)

    def complaints(self) -> list[str]:
        """The console's messages: script errors, refused styles and scripts."""
        return [entry["message"] for entry in self._log("browser")]

    def requests(self) -> list[str]:
        """Addresses that were asked for, other than ``data:``."""
        urls = []
        for entry in self._log("performance"):
            message = json.loads(entry["message"])["message"]
            if message["method"] == "Network.requestWillBeSent":
                urls.append(message["params"]["request"]["url"])
        return [url for url in urls if urlsplit(url).scheme != "data"]

    def violations(self) -> list[str]:
        """The violations of WCAG 2.1 A and AA that axe-core finds, one line for each rule; nothing is
        fetched."""
        self.driver.set_script_timeout(120)
        self.driver.execute_script(files("axe_core_python").joinpath("axe.min.js").read_text("utf-8"))
        found = self.driver.execute_async_script(
            "const told = arguments[arguments.length - 1];"
            "axe.run(document, {runOnly: ['wcag2a', 'wcag2aa', 'wcag21a', 'wcag21aa', 'best-practice']})"
            ".then(result => told(result.violations), error => told([{id: String(error), nodes: []}]));"
        )
        return [f"{one['id']}: {[node['html'][:120] for node in one['nodes'][:3]]}" for one in found]

    def picture(self, file: Path, *, tallest: int = 3000) -> None:
        """The page from its top as WebP, at most ``tallest`` CSS pixels of it."""
        size = self._cdp("Page.getLayoutMetrics")["cssContentSize"]
        data = self._cdp(
            "Page.captureScreenshot",
            format="webp",
            quality=60,
            captureBeyondViewport=True,
            clip={"x": 0, "y": 0, "width": size["width"], "height": min(size["height"], tallest), "scale": 1},
        )
        file.write_bytes(base64.b64decode(data["data"]))

    def _log(self, name: str) -> list[dict[str, Any]]:
        """The entries since the last call."""
        entries: list[dict[str, Any]] = self.driver.get_log(name)  # type: ignore[no-untyped-call]
        return entries

    def _cdp(self, command: str, **parameters: Any) -> dict[str, Any]:
        answer: dict[str, Any] = self.driver.execute_cdp_cmd(command, parameters)
        return answer


@contextmanager
def chromium(profile: Path) -> Iterator[Browser]:
    """A new browser with its profile in the empty directory ``profile``."""
    program, driver = shutil.which("chromium"), shutil.which("chromedriver")
    if program is None or driver is None:
        raise FileNotFoundError(f"no browser: apt install {PACKAGES}")
    options = ChromeOptions()
    options.binary_location = program
    for argument in (*_ARGUMENTS, f"--user-data-dir={profile}"):
        options.add_argument(argument)
    options.set_capability("goog:loggingPrefs", {"browser": "ALL", "performance": "ALL"})
    session = Chrome(options=options, service=Service(driver))
    try:
        session.set_page_load_timeout(60)
        yield Browser(session)
    finally:
        session.quit()
