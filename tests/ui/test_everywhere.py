"""What holds on every page: size, colours, keyboard, names for screen readers, any path."""

from __future__ import annotations

import re
from collections.abc import Callable

import pytest

from tests.ui.browser import LIVE, Browser
from tests.ui.proxy import below
from tests.ui.story import Story

ESCAPE, ENTER, RIGHT, END, HOME, TAB = "\ue00c", "\ue007", "\ue014", "\ue010", "\ue011", "\ue004"

PAGES: dict[str, Callable[[Story], str]] = {
    "sessions": lambda story: "sessions",
    "summary": lambda story: f"sessions/{story.failing}",
    "tasks": lambda story: f"sessions/{story.census}/tasks?group=parse_file",
    "graph": lambda story: f"sessions/{story.census}/graph",
    "stream": lambda story: f"sessions/{story.census}/stream",
    "workers": lambda story: "workers",
    "events": lambda story: "events",
    "task": lambda story: f"tasks/{story.census}/{story.census_task}",
}

NAMELESS = """
    const named = (e) => e.getAttribute("aria-label") || e.getAttribute("aria-labelledby") || e.textContent.trim()
        || e.closest("label") || e.title;
    const wanted = "a, button, input, select, canvas, svg[role], [role=progressbar], [role=meter], [role=tablist]";
    return [...document.querySelectorAll(wanted)].filter((e) => !named(e)).map((e) => e.outerHTML.slice(0, 100));"""


@pytest.mark.parametrize("page", PAGES)
def test_fits_a_phone(page: str, browser: Browser, story: Story) -> None:
    browser.resize(390, 844, mobile=True)
    browser.open(story.page(PAGES[page](story)), "h1")
    assert browser.overflow() <= 0


def test_a_traceback_fits_a_phone(browser: Browser, story: Story) -> None:
    browser.resize(390, 844, mobile=True)
    browser.open(story.page(f"tasks/{story.failing}/{story.failed_task}"), ".trouble")
    browser.wait_text("Session 2 is closed")
    assert browser.overflow() <= 0
    browser.complaints()  # its session was closed: the log of the task is gone, and the browser notes the 404


@pytest.mark.parametrize("page", PAGES)
def test_everything_has_a_name(page: str, browser: Browser, story: Story) -> None:
    browser.open(story.page(PAGES[page](story)), "h1")
    assert browser.script(NAMELESS) == []
    assert browser.script("return document.querySelectorAll('h1').length") == 1


class TestColours:
    def ground(self, browser: Browser) -> int:
        """How bright the page is, 0 to 255."""
        colour = browser.script("return getComputedStyle(document.documentElement).backgroundColor")
        return int(re.findall(r"\d+", colour)[0])

    def test_follow_the_system(self, browser: Browser, story: Story) -> None:
        browser.open(story.url)
        browser.until(lambda: self.ground(browser) > 200, "the page is light")
        browser.colours("dark")
        browser.until(lambda: self.ground(browser) < 60, "the page is dark")

    def test_a_choice_stays(self, browser: Browser, story: Story) -> None:
        browser.open(story.url)
        browser.keys("d", "d")
        browser.until(lambda: self.ground(browser) < 60, "the page is dark")
        browser.open(story.page("workers"))
        browser.until(lambda: self.ground(browser) < 60, "the page is dark")
        browser.click("button[aria-label^=Theme]")
        browser.until(lambda: self.ground(browser) > 200, "the page is light")

    def test_canvases_change_too(self, browser: Browser, story: Story) -> None:
        browser.open(story.page(f"sessions/{story.census}/stream"), "canvas")
        corner = "return [...document.querySelector('canvas').getContext('2d').getImageData(3, 3, 1, 1).data]"
        browser.until(lambda: browser.script(corner)[0] > 200, "the canvas is light")
        browser.colours("dark")
        browser.until(lambda: browser.script(corner)[0] < 60, "the canvas is dark")


class TestKeyboard:
    def focused(self, browser: Browser, what: str) -> str:
        return str(browser.script(f"return document.activeElement.{what}"))

    def test_pages(self, browser: Browser, story: Story) -> None:
        browser.open(story.url)
        for key, title in (("w", "Workers"), ("t", "Stream"), ("e", "Events"), ("s", "Sessions")):
            browser.keys("g", key)
            heading = "return document.querySelector('h1')?.innerText"
            browser.until(lambda t=title, h=heading: browser.script(h) == t, f"g {key} shows {title}")

    def test_help(self, browser: Browser, story: Story) -> None:
        browser.open(story.url)
        browser.keys("?")
        browser.wait("dialog[open]")
        assert "Move between tabs" in browser.text()
        browser.keys(ESCAPE)
        browser.until(lambda: not browser.driver.find_elements("css selector", "dialog"), "the list is closed")

    def test_slash_goes_to_the_filter(self, browser: Browser, story: Story) -> None:
        browser.open(story.url, "[data-filter]")
        browser.keys("/")
        assert self.focused(browser, "type") == "search"
        browser.keys("d", "?")
        assert not browser.driver.find_elements("css selector", "dialog")
        assert self.focused(browser, "value") == "d?"

    def test_tabs_by_arrows(self, browser: Browser, story: Story) -> None:
        browser.open(story.page(f"sessions/{story.census}"), "[role=tab]")
        browser.script("document.querySelector('[role=tab]').focus()")
        browser.keys(RIGHT)
        browser.wait("[data-tab=tasks][aria-selected=true]")
        assert self.focused(browser, "dataset.tab") == "tasks"
        browser.keys(END)
        browser.wait("[data-tab=stream][aria-selected=true]")
        browser.keys(RIGHT)
        browser.wait("[data-tab=summary][aria-selected=true]")

    def test_first_tab_stop_skips_to_the_content(self, browser: Browser, story: Story) -> None:
        browser.open(story.url)
        browser.keys(TAB)
        assert self.focused(browser, "className") == "skip"
        browser.keys(ENTER)
        assert self.focused(browser, "id") == "main"

    def test_focus_is_seen(self, browser: Browser, story: Story) -> None:
        browser.open(story.url)
        browser.keys(TAB, TAB)
        outline = browser.script("return getComputedStyle(document.activeElement).outlineStyle")
        assert outline == "solid"


class TestPath:
    def test_below_a_prefix(self, browser: Browser, story: Story) -> None:
        with below(story.url, "/user/me/proxy/7222") as (url, strays):
            for page in PAGES.values():
                browser.open(f"{url}#/{page(story)}", "h1")
            browser.wait(".link.good[title=Live]")
            with story.client.new_session("through the proxy"):
                browser.open(f"{url}#/sessions", "table")
                browser.wait_text("through the proxy", LIVE)
            browser.driver.get("about:blank")
            assert strays == []

    def test_any_path_shows_the_page(self, browser: Browser, story: Story) -> None:
        browser.open(f"{story.url}some/old/link", "h1")
        browser.wait("table tbody tr")

    def test_unknown_page(self, browser: Browser, story: Story) -> None:
        browser.open(story.page("nowhere"))
        assert "There is no such page" in browser.text()
