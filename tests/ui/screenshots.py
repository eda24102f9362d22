"""Makes the pictures of docs/dashboard.md from a real run.

python -m tests.ui.screenshots FOLDER
"""

from __future__ import annotations

import sys
import time
from pathlib import Path

from rain.client import blob
from tests.ui.browser import Browser, chromium
from tests.ui.story import Story, fold, patient, told

LARGEST = 300_000
"""Bytes of a picture."""


def started(story: Story, gate: Path) -> tuple[object, int]:
    """A session in the middle of its work: steps that are done, two that run, and what waits for them."""
    session = story.client.new_session("training", on_failure="continue")
    with session.bind_only():
        tasks = []
        for n in range(1, 13):
            tasks.append(fold(blob(str(n).encode())))
            tasks[-1].spec.name = f"train/fold/{n:02d}"
        done = list(tasks)
        for n in range(6):
            tasks.append(patient(blob(str(gate).encode())))
            tasks[-1].spec.name = f"evaluate/part/{n}"
        session.submit()
        session.wait_some(done)
        for task in done:
            while not task.done():
                time.sleep(0.05)
    return session, session.session_id


def pictures(story: Story, number: int) -> dict[str, str]:
    """Names of pictures, and the pages they show."""
    return {
        "dashboard-sessions": "sessions",
        "dashboard-session": f"sessions/{number}",
        "dashboard-tasks": f"sessions/{number}/tasks",
        "dashboard-graph": f"sessions/{story.census}/graph",
        "dashboard-stream": f"sessions/{story.census}/stream",
        "dashboard-task": f"tasks/{story.failing}/{story.failed_task}",
        "dashboard-workers": "workers",
        "dashboard-events": f"events?session={story.failing}",
    }


def shoot(browser: Browser, story: Story, number: int, folder: Path) -> None:
    """Save every picture."""
    browser.driver.execute_cdp_cmd("Emulation.setScrollbarsHidden", {"hidden": True})
    browser.resize(1180, 760)
    for name, page in pictures(story, number).items():
        browser.open(story.page(page), "h1")
        if name == "dashboard-tasks":
            browser.click(".group .twist")
            time.sleep(0.5)
        if name == "dashboard-graph":
            browser.drag("canvas", (600, 200), (-90, 20))
            browser.wheel("canvas", -420)
        if name == "dashboard-stream":
            browser.wheel("canvas", -600)
        time.sleep(1)
        save(browser, folder / f"{name}.png")
    browser.open(story.page(f"sessions/{story.census}/graph"), "canvas")
    browser.colours("dark")
    time.sleep(1)
    save(browser, folder / "dashboard-dark.png")
    browser.colours("light")
    browser.resize(390, 760, mobile=True)
    browser.open(story.page(f"sessions/{number}"), "h1")
    time.sleep(1)
    save(browser, folder / "dashboard-phone.png")


def save(browser: Browser, path: Path) -> None:
    """One picture."""
    browser.save(path)
    size = path.stat().st_size
    print(f"{path} {size // 1000} kB")
    if size > LARGEST:
        raise SystemExit(f"{path} is larger than {LARGEST // 1000} kB")


def main() -> None:
    """Run the story and take the pictures."""
    folder = Path(sys.argv[1])
    folder.mkdir(parents=True, exist_ok=True)
    with told() as story, chromium(1180, 900) as browser:
        gate = story.folder / "gate"
        session, number = started(story, gate)
        try:
            time.sleep(16)  # a few measurements of the worker
            shoot(browser, story, number, folder)
        finally:
            gate.touch()
            session.close()  # type: ignore[attr-defined]


if __name__ == "__main__":
    main()
