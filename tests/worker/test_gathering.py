"""The figures a worker tells of itself and its machine."""

from __future__ import annotations

import os
import time
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from rain.worker.gathering import Gatherer, cpu_usage
from rain.worker.shell import MONITORING_INTERVAL
from rain.worker.store import Store


@pytest.mark.parametrize(
    ("before", "now", "usage"),
    [
        ([(100.0, 50.0), (100.0, 50.0)], [(110.0, 55.0), (110.0, 50.0)], [50.0, 100.0]),
        ([(100.0, 50.0)], [(100.0, 50.0)], [0.0]),
        ([(100.0, 50.0)], [(101.0, 52.0)], [0.0]),
        ([(100.0, 50.0)], [(101.0, 49.0)], [100.0]),
        ([(100.0, 50.0)], [(110.0, 55.0), (1.0, 1.0)], [0.0, 0.0]),
    ],
)
def test_cpu_usage(before: Any, now: Any, usage: list[float]) -> None:
    assert cpu_usage(before, now) == usage


def test_figures(tmp_path: Path) -> None:
    store = Store(str(tmp_path), memory_budget=8 << 20)
    executors: Any = SimpleNamespace(conditions=lambda: Counter(busy=2, idle=1))
    transfers: Any = SimpleNamespace(received=5)
    source: Any = SimpleNamespace(sent=7)
    results: Any = SimpleNamespace(counts={"hits": 3})
    gatherer = Gatherer(store, executors, transfers, source, results)
    store.put((1, 1), b"x" * 1000)
    store.put((1, 2), b"x" * 100_000)
    assert gatherer.parts() == {
        "executors": {"busy": 2, "idle": 1},
        "transfers": {"received": 5, "sent": 7},
        "cache": {"hits": 3},
    }
    for _ in range(2):
        figures = gatherer.machine()
        assert len(figures["cpu_usage"]) == os.cpu_count()
        assert all(0.0 <= usage <= 100.0 for usage in figures["cpu_usage"])
        assert 0.0 < figures["mem_usage"] < 100.0
        assert all(len(pair) == 2 and min(pair) >= 0 for pair in figures["net_stat"].values())
        assert figures["store"] == {"memory": 101_000, "disk": 0}
    store.close()


def test_a_look_costs_little(tmp_path: Path) -> None:
    """Far below a percent of a cpu."""
    store = Store(str(tmp_path), memory_budget=0)
    nothing: Any = None
    gatherer = Gatherer(store, nothing, nothing, nothing, nothing)
    gatherer.machine()
    start = time.thread_time()
    for _ in range(10):
        gatherer.machine()
    assert (time.thread_time() - start) / 10 < 0.01 * MONITORING_INTERVAL
    store.close()


def test_usage_of_the_store(tmp_path: Path) -> None:
    """What several objects share counts once."""
    store = Store(str(tmp_path), memory_budget=0)
    store.put((1, 1), b"x" * 1000)
    store.put((1, 2), b"x" * 100_000)
    store.share((1, 2), (1, 3))
    tree = Path(store.new_tree())
    tree.mkdir()
    (tree / "file").write_bytes(b"x" * 200_000)
    store.put_tree((1, 4), str(tree))
    assert store.usage() == (1000, 300_000)
    store.delete([(1, 1), (1, 2)])
    assert store.usage() == (0, 300_000)
    store.delete([(1, 3), (1, 4)])
    assert store.usage() == (0, 0)
    store.close()
