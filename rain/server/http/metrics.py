"""The figures of the server in the text format of Prometheus."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import psutil

if TYPE_CHECKING:
    from collections.abc import Iterable, Mapping

    from rain.server.core.monitoring import Metrics
    from rain.server.http.lag import LoopLag

CONTENT_TYPE = "text/plain; version=0.0.4; charset=utf-8"
MOST_WORKERS = 1000
"""So many workers have figures of their own."""

_TRANSITIONS = ("submitted", "started", "finished", "failed", "cancelled", "aborted")

Sample = tuple[dict[str, str], float]


class _Page:
    """Collects lines."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def family(self, name: str, kind: str, text: str, samples: Iterable[Sample]) -> None:
        """A metric: its samples by labels."""
        self.lines += [f"# HELP {name} {text}", f"# TYPE {name} {kind}"]
        for labels, value in samples:
            self.sample(name, labels, value)

    def sample(self, name: str, labels: Mapping[str, str], value: float) -> None:
        """A line."""
        inner = ",".join(f'{label}="{_escaped(text)}"' for label, text in labels.items())
        self.lines.append(f"{name}{{{inner}}} {value!r}" if inner else f"{name} {value!r}")


def _escaped(text: str) -> str:
    return text.replace("\\", "\\\\").replace('"', '\\"').replace("\n", "\\n")


def metrics_page(metrics: Metrics, turns: tuple[int, float], lag: LoopLag, sockets: int) -> str:
    """The page.

    Args:
        metrics: what the core tells.
        turns: as in `Facts`.
        lag: of the server's event loop.
        sockets: open connections of the HTTP port.
    """
    page = _Page()
    _server(page, metrics)
    page.family("rain_server_turns_total", "counter", "How often the server took messages.", [({}, turns[0])])
    text = "Time in which it found out what to do with them, scheduling included."
    page.family("rain_server_turn_seconds_total", "counter", text, [({}, turns[1])])
    _process(page, lag, sockets)
    _workers(page, metrics.monitoring)
    return "\n".join(page.lines) + "\n"


def _by(label: str, values: Mapping[str, float]) -> list[Sample]:
    return [({label: name}, value) for name, value in values.items()]


def _server(page: _Page, metrics: Metrics) -> None:
    tasks = {name.lower(): count for name, count in metrics.tasks.items()}
    page.family("rain_server_tasks", "gauge", "Tasks of all sessions by state.", _by("state", tasks))
    page.family("rain_server_sessions", "gauge", "Sessions by state.", _by("state", metrics.sessions))
    page.family("rain_server_workers", "gauge", "Connected workers by state.", _by("state", metrics.workers))
    page.family("rain_server_clients", "gauge", "Connected clients.", [({}, metrics.clients)])
    page.family("rain_server_queued_tasks", "gauge", "Tasks waiting for a worker.", [({}, metrics.queued)])
    totals = metrics.totals
    transitions = _by("to", {name: totals[name] for name in _TRANSITIONS})
    page.family("rain_server_task_transitions_total", "counter", "What became of tasks since the start.", transitions)
    page.family("rain_server_retried_tasks_total", "counter", "Runs started anew.", [({}, totals["retried"])])
    text = "Finished tasks run again for lost data."
    page.family("rain_server_recomputed_tasks_total", "counter", text, [({}, totals["recomputed"])])
    gone = _by("reason", {"lost": totals["lost_workers"], "stopped": totals["stopped_workers"]})
    page.family("rain_server_lost_workers_total", "counter", "Workers that are gone, by reason.", gone)


def _process(page: _Page, lag: LoopLag, sockets: int) -> None:
    process = psutil.Process()
    with process.oneshot():
        times, memory = process.cpu_times(), process.memory_info()
        started = process.create_time()
    cpu = times.user + times.system
    page.family("process_cpu_seconds_total", "counter", "Cpu time of the server, user and system.", [({}, cpu)])
    page.family("process_resident_memory_bytes", "gauge", "Memory of the server.", [({}, memory.rss)])
    page.family("process_start_time_seconds", "gauge", "Start of the server, unix time.", [({}, started)])
    page.family("process_open_fds", "gauge", "Open descriptors of the server.", [({}, process.num_fds())])
    page.family("rain_server_http_connections", "gauge", "Connections of the HTTP port.", [({}, sockets)])
    name = "rain_server_loop_lag_seconds"
    page.family(name, "histogram", "How late the event loop of the server woke up.", ())
    for bound, count in lag.buckets():
        page.sample(f"{name}_bucket", {"le": bound}, count)
    page.sample(f"{name}_sum", {}, lag.sum)
    page.sample(f"{name}_count", {}, lag.count)


def _workers(page: _Page, monitoring: Mapping[str, Mapping[str, Any]]) -> None:
    told = [(worker, monitoring[worker]) for worker in sorted(monitoring)[:MOST_WORKERS] if monitoring[worker]]

    def each(part: str, label: str) -> list[Sample]:
        return [
            ({"worker": worker, label: name}, value)
            for worker, info in told
            for name, value in info.get(part, {}).items()
        ]

    cpus = [({"worker": worker}, _mean(info["cpu_usage"]) / 100) for worker, info in told if info.get("cpu_usage")]
    page.family("rain_worker_cpu_usage_ratio", "gauge", "Use of the cpus of the worker's machine, 0 to 1.", cpus)
    memory = [({"worker": worker}, info["mem_usage"] / 100) for worker, info in told if "mem_usage" in info]
    page.family("rain_worker_memory_usage_ratio", "gauge", "Use of the memory of its machine, 0 to 1.", memory)
    page.family("rain_worker_executors", "gauge", "Executor processes by state.", each("executors", "state"))
    page.family("rain_worker_store_bytes", "gauge", "Bytes in the worker's store.", each("store", "where"))
    transfers = each("transfers", "direction")
    page.family("rain_worker_transfer_bytes_total", "counter", "Bytes moved by the worker.", transfers)
    _caches(page, [(worker, info["cache"]) for worker, info in told if "cache" in info])
    network = [
        ({"worker": worker, "direction": direction}, sum(pair[index] for pair in info["net_stat"].values()))
        for worker, info in told
        if "net_stat" in info
        for index, direction in enumerate(("received", "sent"))
    ]
    page.family("rain_worker_network_bytes_total", "counter", "Bytes over the network of its machine.", network)


def _caches(page: _Page, told: list[tuple[str, Mapping[str, Any]]]) -> None:
    """What workers did with the result cache."""

    def one(name: str, **labels: str) -> list[Sample]:
        return [({"worker": worker, **labels}, counts[name]) for worker, counts in told if name in counts]

    lookups = one("hits", result="hit") + one("misses", result="miss")
    page.family("rain_worker_cache_lookups_total", "counter", "Results looked for in the result cache.", lookups)
    page.family("rain_worker_cache_stored_results_total", "counter", "Results stored in it.", one("stored"))
    page.family("rain_worker_cache_failures_total", "counter", "Requests to it that failed.", one("failures"))
    moved = one("read", direction="read") + one("written", direction="written")
    page.family("rain_worker_cache_bytes_total", "counter", "Bytes read from it and written into it.", moved)


def _mean(values: list[float]) -> float:
    return sum(values) / len(values)
