"""Partitions between real processes on several hosts. The scenes run at the same time: most of it is waiting."""

from __future__ import annotations

from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor

import pytest

from rain.protocol.codec import encode
from rain.protocol.messages import Heartbeat
from rain.testing.leaks import GRACE, Snapshot, snapshot
from rain.testing.netns import leftovers, obstacle, remove_leftovers
from tests.net.partition.cluster import await_true
from tests.net.partition.scenes import SCENES

pytestmark = [pytest.mark.cluster, pytest.mark.timeout(240)]


@pytest.fixture(scope="module")
def outcomes(request: pytest.FixtureRequest) -> Iterator[dict[str, Future[None]]]:
    """The ended scenes that were asked for."""
    reason = obstacle()
    if reason is not None:
        pytest.skip(f"partitions are not tested: {reason}")
    remove_leftovers()
    encode([Heartbeat()])  # the schema is loaded once per process and keeps its file open
    asked = {
        item.callspec.params.get("name")
        for item in request.session.items
        if isinstance(item, pytest.Function) and hasattr(item, "callspec")
    }
    chosen = [name for name in SCENES if name in asked]
    before = snapshot()
    with ThreadPoolExecutor(len(chosen), "scene") as pool:
        futures = {name: pool.submit(SCENES[name].run) for name in chosen}
    yield futures
    assert not leftovers()
    if all(future.exception() is None for future in futures.values()):
        await_true(lambda: not new_since(before), GRACE, f"the end of {new_since(before)}")


def new_since(before: Snapshot) -> dict[str, list[str]]:
    """What belongs to this process and was not there before; for files each scene looks itself."""
    grown = snapshot().new_since(before)
    return {kind: grown[kind] for kind in ("processes", "threads", "descriptors") if kind in grown}


@pytest.mark.parametrize("name", SCENES)
def test_scene(outcomes: dict[str, Future[None]], name: str) -> None:
    outcomes[name].result()
