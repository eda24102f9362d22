"""Sessions that are opened, used and closed leave nothing in server, worker and client."""

from __future__ import annotations

import gc
import os
from collections.abc import Callable

import pytest

from rain.client import Client, LocalCluster, blob, delayed, tasks
from rain.testing.usage import Usage, usage

WARM_UP = 150
LOOKS = 5
"""Memory goes up and down by what waits for the event log and the garbage collector: the least of so many counts."""
BETWEEN = 30
"""Sessions from one look to the next."""
MAX_GROWTH = 5_000_000
"""Bytes of resident memory per process."""


def add(a: int, b: int) -> int:
    return a + b


def use_session(client: Client, number: int) -> None:
    """A Python task, a built-in one, a large value, an array; kept and dropped objects."""
    with client.new_session(f"session {number}") as session:
        total = delayed(add)(number, 1)
        large = tasks.concat([blob(os.urandom(50_000)), blob(b"x" * 30_000)])
        large.keep_outputs()
        squares = session.map(add, range(20), range(20))
        session.submit()
        assert total.result(timeout=60) == number + 1
        assert len(large.output.fetch(timeout=60).get_bytes()) == 80_000
        assert squares.result(timeout=60) == list(range(0, 40, 2))


def processes(cluster: LocalCluster) -> dict[str, int]:
    return {"client": os.getpid(), **{process.name: process.popen.pid for process in cluster._group.processes}}


def measure(cluster: LocalCluster, client: Client) -> dict[str, Usage]:
    looks: list[dict[str, Usage]] = []
    for look in range(LOOKS):
        for number in range(BETWEEN):
            use_session(client, look * BETWEEN + number)
        gc.collect()
        looks.append({name: usage(pid) for name, pid in processes(cluster).items()})
    return {name: min((look[name] for look in looks), key=lambda found: found.rss) for name in looks[0]}


def check_growth(sessions: int) -> None:
    with LocalCluster(1, cpus=1, timeout=60) as cluster, cluster.client() as client:
        for number in range(WARM_UP):
            use_session(client, number)
        before = measure(cluster, client)
        for number in range(sessions):
            use_session(client, WARM_UP + number)
        after = measure(cluster, client)
        assert client.get_server_info()["server"]["sessions"] == 0
    for name, now in after.items():
        old = before[name]
        print(f"{name}: {(now.rss - old.rss) / 1e6:+.2f} MB, {now.rss / 1e6:.0f} MB; {old} {now}")
    for name, now in after.items():
        old = before[name]
        assert now.rss - old.rss < MAX_GROWTH, f"{name} grew by {now.rss - old.rss:,} bytes in {sessions} sessions"
        assert now.threads <= old.threads, name
        assert now.descriptors <= old.descriptors, name


def test_five_hundred() -> None:
    check_growth(500)


@pytest.mark.slow
@pytest.mark.timeout(0)
def test_ten_thousand(record_property: Callable[[str, object], None]) -> None:
    record_property("sessions", 10_000)
    check_growth(10_000)
