"""Chaos: real processes are killed, paused and starved under load; each test must leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rain.protocol.codec import encode
from rain.protocol.messages import Heartbeat
from rain.testing.leaks import no_leaks

encode([Heartbeat()])  # the schema is loaded once per process and keeps its file open


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/chaos/" in str(item.path):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(autouse=True)
def leak_check() -> Iterator[None]:
    with no_leaks():
        yield
