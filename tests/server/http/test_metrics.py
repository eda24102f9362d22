"""The page for Prometheus, read by its own parser."""

from __future__ import annotations

import asyncio
import re
from pathlib import Path

import pytest
from prometheus_client.parser import text_string_to_metric_families

from rain.server.core.core import ServerCore
from rain.server.core.monitoring import TOTALS, Metrics
from rain.server.http.lag import BOUNDS, LoopLag
from rain.server.http.metrics import MOST_WORKERS, metrics_page

MONITORING = {
    "cpu_usage": [10.0, 30],
    "mem_usage": 50.0,
    "net_stat": {"eth0": [1, 2], "eth1": [10, 20]},
    "store": {"memory": 5, "disk": 7},
    "executors": {"idle": 1, "busy": 2},
    "transfers": {"received": 3, "sent": 4, "read": 5},
    "cache": {"hits": 1, "misses": 2, "stored": 3, "failures": 4, "read": 5, "written": 6, "another": 7},
}


@pytest.fixture
async def lag():
    lag = LoopLag()
    yield lag
    lag.close()


def samples(text: str) -> dict[tuple[str, tuple[tuple[str, str], ...]], float]:
    """Value by name and labels."""
    return {
        (sample.name, tuple(sorted(sample.labels.items()))): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


def metrics(**monitoring) -> Metrics:
    return Metrics(
        tasks={"Running": 3, "Finished": 1 << 40},
        sessions={"open": 1, "failed": 0},
        workers={"connected": 2, "draining": 1},
        totals={name: number for number, name in enumerate(TOTALS, start=1)},
        queued=4,
        clients=5,
        monitoring=monitoring,
    )


async def test_server(lag):
    found = samples(metrics_page(metrics(), (7, 0.5), lag, 6))
    assert found["rain_server_tasks", (("state", "running"),)] == 3
    assert found["rain_server_tasks", (("state", "finished"),)] == 1 << 40
    assert found["rain_server_workers", (("state", "draining"),)] == 1
    assert found["rain_server_sessions", (("state", "open"),)] == 1
    for number, name in enumerate(("submitted", "started", "finished", "failed", "cancelled", "aborted"), start=1):
        assert found["rain_server_task_transitions_total", (("to", name),)] == number
    assert found["rain_server_retried_tasks_total", ()] == 7
    assert found["rain_server_recomputed_tasks_total", ()] == 8
    assert found["rain_server_lost_workers_total", (("reason", "lost"),)] == 9
    assert found["rain_server_lost_workers_total", (("reason", "stopped"),)] == 10
    assert found["rain_server_queued_tasks", ()] == 4
    assert found["rain_server_clients", ()] == 5
    assert found["rain_server_turns_total", ()] == 7
    assert found["rain_server_turn_seconds_total", ()] == 0.5
    assert found["rain_server_http_connections", ()] == 6
    assert found["process_cpu_seconds_total", ()] > 0
    assert found["process_resident_memory_bytes", ()] > 1 << 20
    assert found["process_start_time_seconds", ()] > 1e9
    assert found["process_open_fds", ()] > 2


async def test_workers(lag):
    found = samples(metrics_page(metrics(**{"10.0.0.1:1": MONITORING, "10.0.0.2:1": {}}), (0, 0.0), lag, 0))
    one = ("worker", "10.0.0.1:1")
    assert found["rain_worker_cpu_usage_ratio", (one,)] == 0.2
    assert found["rain_worker_memory_usage_ratio", (one,)] == 0.5
    assert found["rain_worker_executors", (("state", "busy"), one)] == 2
    assert found["rain_worker_store_bytes", (("where", "disk"), one)] == 7
    assert found["rain_worker_transfer_bytes_total", (("direction", "sent"), one)] == 4
    assert found["rain_worker_network_bytes_total", (("direction", "received"), one)] == 11
    assert found["rain_worker_cache_lookups_total", (("result", "hit"), one)] == 1
    assert found["rain_worker_cache_lookups_total", (("result", "miss"), one)] == 2
    assert found["rain_worker_cache_stored_results_total", (one,)] == 3
    assert found["rain_worker_cache_failures_total", (one,)] == 4
    assert found["rain_worker_cache_bytes_total", (("direction", "read"), one)] == 5
    assert found["rain_worker_cache_bytes_total", (("direction", "written"), one)] == 6
    assert not any(("worker", "10.0.0.2:1") in labels for _, labels in found)


async def test_no_more_workers_than_that(lag):
    many = {f"10.0.0.1:{number}": {"mem_usage": 1} for number in range(MOST_WORKERS + 10)}
    found = samples(metrics_page(metrics(**many), (0, 0.0), lag, 0))
    assert sum(name == "rain_worker_memory_usage_ratio" for name, _ in found) == MOST_WORKERS


async def test_labels_are_escaped(lag):
    odd = 'a"b\\c\nd'
    found = samples(metrics_page(metrics(**{odd: {"mem_usage": 1}}), (0, 0.0), lag, 0))
    assert found["rain_worker_memory_usage_ratio", (("worker", odd),)] == 0.01


async def test_names_and_types(lag):
    """Names are those of Rain or of every process, counters end in `_total`; nothing is said twice."""
    text = metrics_page(metrics(**{"10.0.0.1:1": MONITORING}), (0, 0.0), lag, 0)
    families = list(text_string_to_metric_families(text))
    assert len({family.name for family in families}) == len(families) > 15
    for family in families:
        assert family.name.startswith(("rain_server_", "rain_worker_", "process_"))
        assert family.documentation
        assert family.type in ("gauge", "counter", "histogram")
        assert (family.type == "counter") == (f"{family.name}_total " in text or f"{family.name}_total{{" in text)
        assert {label for sample in family.samples for label in sample.labels} <= {
            "state", "to", "reason", "worker", "where", "direction", "result", "le",
        }  # fmt: skip


async def test_all_are_documented(lag):
    text = metrics_page(metrics(**{"10.0.0.1:1": MONITORING}), (0, 0.0), lag, 0)
    document = (Path(__file__).parents[3] / "docs" / "http.md").read_text("utf-8")
    names = set(re.findall(r"^# TYPE (\S+)", text, re.MULTILINE))
    assert names == set(re.findall(r"`((?:rain|process)_\w+)`", document))


async def test_of_a_real_core(lag):
    found = samples(metrics_page(ServerCore().metrics(), (0, 0.0), lag, 0))
    assert found["rain_server_tasks", (("state", "finished"),)] == 0


async def test_lag_of_the_loop(lag):
    for late in (0.0, 0.002, 0.2, 100.0):
        lag._due = asyncio.get_running_loop().time() - late
        lag._timer.cancel()
        lag._measure()
    assert lag.count == 4
    assert 100.202 <= lag.sum < 101
    assert [bound for bound, _ in lag.buckets()] == [*map(str, BOUNDS), "+Inf"]
    counts = dict(lag.buckets())
    assert (counts["0.005"], counts["0.1"], counts["0.5"], counts["5.0"], counts["+Inf"]) == (2, 2, 3, 3, 4)
    found = samples(metrics_page(metrics(), (0, 0.0), lag, 0))
    assert found["rain_server_loop_lag_seconds_count", ()] == 4
    assert found["rain_server_loop_lag_seconds_bucket", (("le", "+Inf"),)] == 4
