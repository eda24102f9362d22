"""Tests against real processes: each must leave nothing behind."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from rain.client import Client, LocalCluster
from rain.protocol.codec import encode
from rain.protocol.messages import Heartbeat
from rain.testing.leaks import no_leaks

encode([Heartbeat()])  # the schema is loaded once per process and keeps its file open


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if "/cluster/" in str(item.path):
            item.add_marker(pytest.mark.cluster)


@pytest.fixture(autouse=True)
def leak_check() -> Iterator[None]:
    with no_leaks():
        yield


@pytest.fixture
def cluster(leak_check: None) -> Iterator[LocalCluster]:
    """One worker with two cpus."""
    with LocalCluster(1, cpus=2, timeout=60) as cluster:
        yield cluster


@pytest.fixture
def client(cluster: LocalCluster) -> Iterator[Client]:
    with cluster.client() as client:
        yield client
