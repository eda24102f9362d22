"""What a real server ran, on every page."""

from __future__ import annotations

import time

from rain.client import blob
from tests.ui.browser import LIVE, Browser
from tests.ui.story import MANY, Story, patient

MOST_ELEMENTS = 4000
"""Of a page with any number of tasks."""


def rows(browser: Browser) -> list[str]:
    """Texts of the rows of the first table."""
    return list(browser.script("return [...document.querySelectorAll('table tbody tr')].map((row) => row.innerText)"))


def bar_under_pointer(browser: Browser) -> str:
    """Move along the first slot until there is a bar; gives what it says."""
    width = browser.wait("canvas").size["width"]
    for part in range(2, 40):
        browser.hover("canvas", width * part / 41, 62)
        found = browser.driver.find_elements("css selector", ".tip")
        if found:
            return str(found[0].text)
    raise AssertionError("there is no bar in the first slot")


class TestSessions:
    def test_lists_newest_first_with_status_and_tasks(self, browser: Browser, story: Story) -> None:
        browser.open(story.url, "table tbody tr")
        names = browser.script("return [...document.querySelectorAll('tbody td.grow a')].map((link) => link.innerText)")
        by_name = dict(zip(names, rows(browser), strict=True))
        assert [name for name in by_name if name in ("many", "failing", "census")] == ["many", "failing", "census"]
        assert "Closed" in by_name["many"]
        assert "100\u202f000/100\u202f000" in by_name["many"].replace("\n", "")
        assert "Error" in by_name["failing"]
        assert "ValueError: fold 3 is empty" in by_name["failing"]
        assert "Open" in by_name["census"]

    def test_filter_and_link(self, browser: Browser, story: Story) -> None:
        browser.open(story.url, "table tbody tr")
        browser.click("[data-filter]")
        browser.keys("cens")
        browser.until(lambda: len(rows(browser)) == 1, "only the census is listed")
        browser.click("tbody a")
        browser.wait_text(f"{story.census_tasks} of {story.census_tasks} tasks finished")

    def test_a_new_session_appears_by_itself(self, browser: Browser, story: Story) -> None:
        browser.open(story.url, "table tbody tr")
        with story.client.new_session("newcomer"):
            browser.wait_text("newcomer", LIVE)


class TestCensus:
    def test_summary(self, browser: Browser, story: Story) -> None:
        browser.open(story.page(f"sessions/{story.census}"))
        text = browser.text()
        assert "100 %" in text
        assert f"{story.census_tasks} of {story.census_tasks} tasks finished" in text
        assert "Unprocessed tasks" in text
        assert browser.script("return document.querySelector('.curve').getAttribute('d').length") > 100
        progress = browser.wait("main [role=progressbar]")
        assert progress.get_attribute("aria-valuetext").startswith(
            f"{story.census_tasks} of {story.census_tasks} finished"
        )

    def test_tasks_by_name_down_to_the_spec(self, browser: Browser, story: Story) -> None:
        browser.open(story.page(f"sessions/{story.census}/tasks"), ".group")
        groups = browser.script("return [...document.querySelectorAll('.group .name')].map((e) => e.innerText)")
        assert sorted(groups) == ["merge_parts", "parse_file"]
        browser.click(".group .twist")
        browser.click(".inner .inset tbody .twist")
        browser.wait_text("Open the page of the task")
        browser.driver.find_element("xpath", "//button[text()='Spec']").click()
        browser.wait_text('"task_type"')
        browser.driver.find_element("xpath", "//button[text()='Explanation']").click()
        browser.wait_text("is finished")
        browser.driver.find_element("xpath", "//button[text()='Log']").click()
        browser.wait(".details .none, .details .log")

    def test_tasks_by_group_and_id(self, browser: Browser, story: Story) -> None:
        browser.open(story.page(f"sessions/{story.census}/tasks"), ".group")
        browser.click("[data-filter]")
        browser.keys("merge_parts", "\ue007")
        browser.wait_text("Tasks of merge_parts")
        browser.until(lambda: all("merge_parts" in row for row in rows(browser)), "only that group is listed")
        browser.script("document.querySelector('[data-filter]').select()")
        browser.keys(str(story.census_task), "\ue007")
        browser.wait_text("History")
        assert browser.wait("h1").text == "parse_file"

    def test_tasks_by_state(self, browser: Browser, story: Story) -> None:
        browser.open(story.page(f"sessions/{story.census}/tasks?state=failed"))
        browser.wait_text("No task is in this state now.")

    def test_graph(self, browser: Browser, story: Story) -> None:
        browser.open(story.page(f"sessions/{story.census}/graph"), "canvas")
        browser.wait_text(f"{story.census_tasks} tasks, ")
        browser.until(lambda: browser.painted() > 10, "the graph is painted")
        browser.script("document.querySelector('canvas').focus()")
        browser.keys("+", "+", "-", "0", "n")
        browser.wait(".selected")

    def test_graph_opens_a_task(self, browser: Browser, story: Story) -> None:
        browser.open(story.page(f"sessions/{story.census}/graph"), "canvas")
        browser.until(lambda: browser.painted() > 10, "the graph is painted")
        browser.script("document.querySelector('canvas').focus()")
        browser.keys("n", "\ue007")
        browser.wait_text("History")
        assert "#/tasks/" in browser.driver.current_url

    def test_stream_zooms_moves_and_opens(self, browser: Browser, story: Story) -> None:
        browser.open(story.page(f"sessions/{story.census}/stream"), "canvas")
        browser.wait_text(f"{story.census_tasks} tasks")
        browser.until(lambda: browser.painted() > 4, "the stream is painted")
        whole = browser.wait(".tools .num").text
        assert "parse_file" in bar_under_pointer(browser)
        browser.wheel("canvas", -400)
        browser.until(lambda: browser.wait(".tools .num").text != whole, "the wheel zooms")
        zoomed = browser.wait(".tools .num").text
        browser.drag("canvas", (300, 80), (120, 0))
        browser.until(lambda: browser.wait(".tools .num").text != zoomed, "dragging moves")
        browser.script("document.querySelector('canvas').focus()")
        browser.keys("0")
        browser.until(lambda: browser.wait(".tools .num").text == whole, "0 shows everything")
        browser.drag("canvas", (200, 10), (300, 0))
        browser.until(lambda: browser.wait(".tools .num").text != whole, "dragging on the scale zooms")
        browser.keys("0")
        browser.until(lambda: browser.wait(".tools .num").text == whole, "0 shows everything")
        browser.keys("n", "\ue007")
        browser.wait_text("History")


class TestFailing:
    def test_summary_tells_the_first_error_and_leads_to_the_task(self, browser: Browser, story: Story) -> None:
        browser.open(story.page(f"sessions/{story.failing}"))
        text = browser.text()
        assert "Error" in text
        assert "First error" in text
        assert "ValueError: fold 3 is empty" in text
        browser.driver.find_element("link text", "train/fold/3").click()
        browser.wait_text("History")
        assert f"#/tasks/{story.failing}/{story.failed_task}" in browser.driver.current_url
        assert "ValueError: fold 3 is empty" in browser.text()
        browser.wait_text("Session 2 is closed")
        browser.complaints()  # its session was closed: the log of the task is gone, and the browser notes the 404

    def test_tree_of_names(self, browser: Browser, story: Story) -> None:
        browser.open(story.page(f"sessions/{story.failing}/tasks"), ".group")
        browser.wait_text("1 failed")
        for depth in range(1, 3):
            # not by the pointer: what is still coming would move away what it was aimed at
            browser.script("[...document.querySelectorAll('.group .twist')].at(-1).click()")
            browser.until(lambda n=depth: len(rows(browser)) > n, "the next level is shown")


class TestMany:
    def test_pages_stay_small_and_quick(self, browser: Browser, story: Story) -> None:
        for tab, told in (
            ("", "100\u202f000 tasks finished"),
            ("/graph", "1 group"),
            ("/stream", "100\u202f000 tasks"),
        ):
            start = time.monotonic()
            browser.open(story.page(f"sessions/{story.many}{tab}"))
            browser.wait_text(told)
            assert time.monotonic() - start < 10
            assert browser.dom_size() < MOST_ELEMENTS

    def test_tasks_come_in_pages(self, browser: Browser, story: Story) -> None:
        browser.open(story.page(f"sessions/{story.many}/tasks"), ".group .twist")
        browser.click(".group .twist")
        browser.wait(".inner .inset tbody tr")
        assert len(browser.driver.find_elements("css selector", ".inner .inset tbody tr")) == 100
        first = browser.wait(".inner .inset tbody a").text
        browser.driver.find_element("xpath", "//nav[@class='pager']/button[text()='Next']").click()
        browser.until(lambda: browser.wait(".inner .inset tbody a").text != first, "the next hundred is shown")
        assert browser.dom_size() < MOST_ELEMENTS
        browser.driver.find_element("xpath", "//nav[@class='pager']/button[text()='Previous']").click()
        browser.until(lambda: browser.wait(".inner .inset tbody a").text == first, "the first hundred is shown again")

    def test_stream_tells_single_tasks_when_near(self, browser: Browser, story: Story) -> None:
        browser.open(story.page(f"sessions/{story.many}/stream"), "canvas")
        browser.wait_text(f"{MANY // 1000}\u202f000 tasks")
        for _ in range(3):
            browser.wheel("canvas", -1500)
        browser.until(
            lambda: "\u202f000 tasks" not in browser.wait(".tools .num + .num").text, "fewer tasks are in the window"
        )


class TestLive:
    def test_by_websocket(self, browser: Browser, story: Story) -> None:
        browser.open(story.url)
        browser.wait(".link.good[title=Live]", LIVE)

    def test_running_and_finished_within_seconds(self, browser: Browser, story: Story) -> None:
        gate = story.folder / "gate"
        with story.client.new_session("live") as session:
            task = patient(blob(str(gate).encode()))
            session.submit()
            browser.open(story.page(f"tasks/{session.session_id}/{task.id.id}"))
            browser.wait_text("running", LIVE)
            browser.complaints()  # of the moment when the log did not have the task yet
            browser.wait_text("waiting for the file", LIVE)
            gate.touch()
            session.wait_all()
            browser.wait(".title .s-finished", LIVE)
            browser.wait_text("there it is", LIVE)

    def test_counts_of_a_session_grow(self, browser: Browser, story: Story) -> None:
        gate = story.folder / "second gate"
        with story.client.new_session("growing") as session:
            browser.open(story.page(f"sessions/{session.session_id}"))
            tasks = [patient(blob(str(gate).encode())) for _ in range(4)]
            session.submit()
            browser.wait_text("0 of 4 tasks finished", LIVE)
            browser.complaints()  # of the moment when the log did not have the session yet
            gate.touch()
            session.wait(tasks)
            browser.wait_text("4 of 4 tasks finished", LIVE)


class TestWorkersAndEvents:
    def test_workers(self, browser: Browser, story: Story) -> None:
        browser.open(story.page("workers"), ".worker")
        text = browser.text()
        assert "connected" in text
        assert "2 cpus" in text
        browser.wait(".worker .chart .curve")
        assert len(browser.driver.find_elements("css selector", ".worker .chart")) == 3

    def test_events_by_session_and_type(self, browser: Browser, story: Story) -> None:
        browser.open(story.page(f"events?session={story.failing}&type=SessionClosed"), "tbody tr")
        assert len(rows(browser)) == 1
        assert "Error: ValueError: fold 3 is empty" in rows(browser)[0]
        browser.click("tbody .twist")
        browser.wait_text('"reason": "Error"')

    def test_events_go_back_page_by_page(self, browser: Browser, story: Story) -> None:
        browser.open(story.page(f"events?session={story.census}"), "tbody tr")
        newest = rows(browser)[0]
        assert len(rows(browser)) == 100
        browser.driver.find_element("xpath", "//button[text()='Older']").click()
        browser.until(lambda: rows(browser) and rows(browser)[0] != newest, "older events are shown")
        browser.driver.find_element("xpath", "//button[text()='Newer']").click()
        browser.until(lambda: rows(browser) and rows(browser)[0] == newest, "the newest are shown again")

    def test_stream_of_all_sessions(self, browser: Browser, story: Story) -> None:
        browser.open(story.page("stream"), "canvas")
        browser.until(lambda: browser.painted() > 4, "the stream is painted")
