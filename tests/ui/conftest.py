"""The page in a real browser, shown by a real server. Run by `make test-ui`."""

from __future__ import annotations

import importlib.util
from collections.abc import Iterator
from typing import TYPE_CHECKING

import pytest

from rain.protocol.codec import encode
from rain.protocol.messages import Heartbeat
from rain.testing.leaks import no_leaks

if TYPE_CHECKING:
    from tests.ui.browser import Browser
    from tests.ui.story import Story

encode([Heartbeat()])  # the schema is loaded once per process and keeps its file open

# Other tests are run without a browser; these ones are then not chosen.
if importlib.util.find_spec("selenium") is None:
    collect_ignore_glob = ["test_*.py"]


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/tests/ui/" in str(item.path):
            item.add_marker(pytest.mark.ui)
            item.add_marker(pytest.mark.timeout(300))


@pytest.fixture(scope="session", autouse=True)
def leak_check() -> Iterator[None]:
    with no_leaks():
        yield


@pytest.fixture(scope="session")
def window(leak_check: None) -> Iterator[Browser]:
    """One browser for all tests."""
    from tests.ui.browser import chromium

    with chromium() as browser:
        yield browser


@pytest.fixture(scope="session")
def story(leak_check: None) -> Iterator[Story]:
    """A cluster on which something happened."""
    from tests.ui.story import told

    with told() as story:
        yield story


@pytest.fixture
def browser(window: Browser) -> Iterator[Browser]:
    """The browser as if new. The test fails if the page complains in the console; `complaints()` empties it."""
    window.reset()
    yield window
    assert window.complaints() == []
