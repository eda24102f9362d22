"""A browser without a window, and what tests ask of a page."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from selenium.common.exceptions import ElementClickInterceptedException, StaleElementReferenceException
from selenium.webdriver import ActionChains, Chrome, ChromeOptions
from selenium.webdriver.chrome.service import Service
from selenium.webdriver.common.actions.wheel_input import ScrollOrigin
from selenium.webdriver.support.ui import WebDriverWait

CHROMIUM = "/usr/bin/chromium"
CHROMEDRIVER = "/usr/bin/chromedriver"
SWITCHES = (
    "--headless=new",
    "--no-sandbox",
    "--disable-gpu",
    "--disable-quic",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
)
PATIENCE = 20
LIVE = 15
"""Seconds within which what happened must be on the page; it promises two."""

REPLACED = (StaleElementReferenceException, ElementClickInterceptedException)
"""An element was found, but the page has moved on since."""


@contextmanager
def chromium(width: int = 1280, height: int = 860) -> Iterator[Browser]:
    """A fresh browser with a profile of its own."""
    with TemporaryDirectory(prefix="rain-ui-") as profile:
        options = ChromeOptions()
        options.binary_location = CHROMIUM
        for switch in (*SWITCHES, f"--user-data-dir={profile}", f"--window-size={width},{height}"):
            options.add_argument(switch)
        options.set_capability("goog:loggingPrefs", {"browser": "ALL"})
        driver = Chrome(options=options, service=Service(CHROMEDRIVER))
        try:
            yield Browser(driver)
        finally:
            driver.quit()


class Browser:
    """One window."""

    def __init__(self, driver: Chrome) -> None:
        self.driver = driver

    def open(self, url: str, until: str = "h1, .empty, .problem") -> None:
        """Load a page afresh and wait for what a selector finds, and for the first answers."""
        self.driver.get("about:blank")
        self.driver.get(url)
        self.wait(until)
        self.until(lambda: not self.driver.find_elements("css selector", ".loading"), "everything is there")

    def wait(self, selector: str, timeout: float = PATIENCE) -> Any:
        """The first element of a selector, once there is one."""
        what = f"{selector} on {self.driver.current_url}"
        return WebDriverWait(self.driver, timeout, 0.1).until(
            lambda d: d.find_elements("css selector", selector), what
        )[0]

    def wait_text(self, text: str, timeout: float = PATIENCE) -> None:
        """Wait until the page shows a text."""
        self.until(lambda: text in self.text(), f"the page shows {text!r}", timeout)

    def until(self, condition: Callable[[], Any], what: str, timeout: float = PATIENCE) -> None:
        """Wait until a condition holds; an element that is replaced while it is looked at is looked for again."""
        try:
            WebDriverWait(self.driver, timeout, 0.1, REPLACED).until(lambda _: condition())
        except Exception as error:
            raise AssertionError(f"not within {timeout} s: {what}. The page says:\n{self.text()}") from error

    def text(self) -> str:
        """What a reader sees."""
        return str(self.driver.execute_script("return document.body.innerText"))

    def module(self, name: str, code: str, *arguments: Any) -> Any:
        """Run code with a module of the page, called `m`; `arguments` are `a`, `b`, ..."""
        names = "abcdef"[: len(arguments)]
        wrapped = f"""
            const [{", ".join([*names, "give"])}] = arguments;
            import("./static/js/{name}.js").then((m) => give({{value: (() => {{ {code} }})()}}))
                .catch((error) => give({{error: String(error.stack)}}));"""
        answer = self.driver.execute_async_script(wrapped, *arguments)
        assert "error" not in answer, answer["error"]
        return answer["value"]

    def hover(self, selector: str, x: float, y: float) -> None:
        """Move the pointer to a place on an element, from its upper left corner."""
        self._at(selector, x, y).perform()

    def click_at(self, selector: str, x: float, y: float) -> None:
        """Click there."""
        self._at(selector, x, y).click().perform()

    def drag(self, selector: str, start: tuple[float, float], by: tuple[float, float]) -> None:
        """Press there, move, let go."""
        self._at(selector, *start).click_and_hold().move_by_offset(*by).release().perform()

    def _at(self, selector: str, x: float, y: float) -> ActionChains:
        element = self.wait(selector)
        width, height = element.size["width"], element.size["height"]
        return ActionChains(self.driver).move_to_element_with_offset(element, x - width / 2, y - height / 2)

    def wheel(self, selector: str, delta: int) -> None:
        """Turn the wheel over the middle of an element."""
        origin = ScrollOrigin.from_element(self.wait(selector))
        ActionChains(self.driver).scroll_from_origin(origin, 0, delta).perform()

    def script(self, code: str, *arguments: Any) -> Any:
        """Run JavaScript and give what it returns."""
        return self.driver.execute_script(code, *arguments)

    def click(self, selector: str) -> None:
        """Click on the first element of a selector."""

        def clicked() -> bool:
            self.wait(selector).click()
            return True

        self.until(clicked, f"a click on {selector}")

    def keys(self, *keys: str) -> None:
        """Press keys, to what has the focus."""
        for key in keys:
            ActionChains(self.driver).send_keys(key).perform()

    def colours(self, scheme: str) -> None:
        """Say what the system prefers: `light` or `dark`."""
        features = [{"name": "prefers-color-scheme", "value": scheme}]
        self.driver.execute_cdp_cmd("Emulation.setEmulatedMedia", {"features": features})

    def reset(self) -> None:
        """Usual size and colours, no memory, an empty console."""
        self.driver.execute_cdp_cmd("Emulation.clearDeviceMetricsOverride", {})
        self.colours("light")
        if self.driver.current_url.startswith("http"):
            self.script("window.localStorage.clear()")
        self.driver.get("about:blank")
        self.complaints()

    def resize(self, width: int, height: int, mobile: bool = False) -> None:
        """Give the page a size in css pixels."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": mobile}
        self.driver.execute_cdp_cmd("Emulation.setDeviceMetricsOverride", metrics)

    def complaints(self) -> list[str]:
        """What the console complained of since the last call, but for what tests cause by looking at pixels."""
        found = [
            entry["message"] for entry in self.driver.get_log("browser") if entry["level"] in ("SEVERE", "WARNING")
        ]
        return [message for message in found if "getImageData" not in message]

    def overflow(self) -> int:
        """Pixels by which the page is wider than the window."""
        return int(self.script("return document.documentElement.scrollWidth - window.innerWidth"))

    def dom_size(self) -> int:
        """Elements on the page."""
        return int(self.script("return document.getElementsByTagName('*').length"))

    def painted(self, selector: str = "canvas") -> int:
        """How many different colours a canvas shows: one or two mean that nothing was drawn."""
        code = """
            const c = document.querySelector(arguments[0]);
            const pixels = new Uint32Array(c.getContext("2d").getImageData(0, 0, c.width, c.height).data.buffer);
            return new Set(pixels).size;"""
        return int(self.script(code, selector))

    def save(self, path: Path) -> None:
        """A picture of the window."""
        path.write_bytes(self.driver.get_screenshot_as_png())

    def __repr__(self) -> str:
        return f"Browser({json.dumps(self.driver.current_url)})"
