"""States that are hard to produce: made up by the fake server."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.ui.browser import LIVE, Browser
from tests.ui.fake_server import World, fake_server


@pytest.fixture
def world() -> World:
    return World()


@pytest.fixture
def url(world: World) -> Iterator[str]:
    with fake_server(world) as port:
        yield f"http://127.0.0.1:{port}/"


def test_a_server_that_goes_and_comes_back(browser: Browser, world: World) -> None:
    with fake_server(world) as port:
        browser.open(f"http://127.0.0.1:{port}/", "table")
        browser.wait(".link.good")
    browser.wait_text("The server is gone.", LIVE)
    assert "training" in browser.text()
    world.sessions[2]["name"] = "training again"
    with fake_server(world, port):
        browser.wait_text("training again", 2 * LIVE)
        browser.until(lambda: "The server is gone." not in browser.text(), "the notice is away", LIVE)
        browser.complaints()  # the browser notes each connection that was refused
        browser.driver.get("about:blank")


def test_asks_each_second_without_a_websocket(world: World, url: str, browser: Browser) -> None:
    browser.driver.get("about:blank")
    blocked = {
        "source": "window.WebSocket = class { constructor() { setTimeout(() => this.onclose(), 10); } close() {} };"
    }
    script = browser.driver.execute_cdp_cmd("Page.addScriptToEvaluateOnNewDocument", blocked)
    try:
        browser.open(url, "table")
        browser.wait(".link.good")
        world.sessions[0]["name"] = "polled"
        world.last_event += 1
        browser.wait_text("polled", LIVE)
    finally:
        browser.driver.execute_cdp_cmd("Page.removeScriptToEvaluateOnNewDocument", script)


def test_a_log_of_the_past(world: World, url: str, browser: Browser) -> None:
    world.live = False
    browser.open(url, "table")
    browser.wait_text("A log of the past.")
    browser.wait_text("Log of the past")
    browser.open(f"{url}#/tasks/2/12")
    browser.wait_text("This is a log of the past: there is no server that could be asked.")


def test_errors_of_the_api_are_shown(world: World, url: str, browser: Browser) -> None:
    world.fail["workers"] = (503, "The event log cannot be read: disk full")
    browser.open(f"{url}#/workers", ".problem")
    assert "The event log cannot be read: disk full" in browser.text()
    del world.fail["workers"]
    world.last_event += 1
    browser.wait(".worker", LIVE)
    browser.complaints()  # the browser notes the 503


def test_without_the_secret(world: World, url: str, browser: Browser) -> None:
    world.fail["status"] = world.fail["sessions"] = (401, "This needs the secret")
    browser.open(url, ".problem")
    browser.wait_text("The server wants the secret.")
    assert "This needs the secret" in browser.text()
    browser.driver.get("about:blank")
    browser.complaints()  # the browser notes each 401


def test_an_unknown_session(url: str, browser: Browser) -> None:
    browser.open(f"{url}#/sessions/99", ".problem")
    assert "There is nothing at sessions/99." in browser.text()
    browser.complaints()  # the browser notes the 404


def test_nothing_yet(world: World, url: str, browser: Browser) -> None:
    world.sessions = []
    world.workers = lambda arguments: {"workers": []}  # type: ignore[method-assign]
    browser.open(url, ".empty")
    assert "No session yet" in browser.text()
    browser.open(f"{url}#/workers", ".empty")
    assert "rain worker 127.0.0.1:7210" in browser.text()


def test_a_session_without_tasks(url: str, browser: Browser) -> None:
    browser.open(f"{url}#/sessions/5/graph", ".empty")
    assert "session.submit()" in browser.text()


def test_a_lost_worker_says_why(url: str, browser: Browser) -> None:
    browser.open(f"{url}#/workers", ".worker")
    assert "no heartbeat for 15 s" not in browser.text()
    browser.driver.find_element("xpath", "//button[starts-with(text(), 'All')]").click()
    browser.wait_text("no heartbeat for 15 s")
    browser.wait(".worker .s-lost")


def test_a_graph_of_groups(url: str, browser: Browser) -> None:
    browser.open(f"{url}#/sessions/3/graph", "canvas")
    browser.wait_text("5 groups")
    browser.script("document.querySelector('canvas').focus()")
    browser.keys("n")
    browser.wait_text("240 of 240 tasks finished")


def test_a_large_graph_moves_quickly(url: str, browser: Browser) -> None:
    browser.open(f"{url}#/sessions/4/graph", "canvas")
    browser.until(lambda: browser.painted() > 10, "the graph is painted")
    browser.script("document.querySelector('canvas').focus()")
    code = """
        const give = arguments[arguments.length - 1];
        const canvas = document.querySelector("canvas");
        const start = performance.now();
        let left = 20;
        const step = () => {
            if (!left--) { give((performance.now() - start) / 20); return; }
            canvas.dispatchEvent(new KeyboardEvent("keydown", {key: left % 2 ? "ArrowLeft" : "+", bubbles: true}));
            requestAnimationFrame(step);
        };
        requestAnimationFrame(step);"""
    assert browser.driver.execute_async_script(code) < 250


def test_a_long_log_shows_its_end_first(url: str, browser: Browser) -> None:
    browser.open(f"{url}#/tasks/2/12", ".log")
    browser.wait_text("epoch 5999")
    assert "epoch   0 " not in browser.text()
    for _ in range(2):
        browser.driver.find_element("xpath", "//button[text()='Show what came before']").click()
    browser.wait_text("epoch   0 ")
    text = browser.script("return document.querySelector('.log').textContent")
    assert text.splitlines() == [f"epoch {i:3d}  loss {1 / (i + 1):.4f}" for i in range(6000)]
    browser.driver.find_element("xpath", "//button[text()='stderr']").click()
    browser.wait_text("The task wrote nothing to stderr.")
