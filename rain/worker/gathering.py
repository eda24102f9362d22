"""What a worker tells of its machine and of itself from time to time."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from collections.abc import Sequence

    from rain.worker.executors import ExecutorPool
    from rain.worker.result_cache import ResultCache
    from rain.worker.store import Store
    from rain.worker.transfers import StoreSource, Transfers

_FIRST_SPAN = 0.1  # seconds over which the usage is measured the first time

CpuTimes = list[tuple[float, float]]
"""Per cpu: seconds in all, and those in which it was idle."""


class Gatherer:
    """Gathers the figures of a WorkerMonitoring.

    Args:
        store, executors, transfers, source, results: those of the worker.
    """

    def __init__(
        self, store: Store, executors: ExecutorPool, transfers: Transfers, source: StoreSource, results: ResultCache
    ) -> None:
        self._store = store
        self._executors = executors
        self._transfers = transfers
        self._source = source
        self._results = results
        self._before: CpuTimes | None = None

    def parts(self) -> dict[str, dict[str, int]]:
        """Figures of the worker's parts; quick, and to be called in the loop."""
        return {
            "executors": dict(self._executors.conditions()),
            "transfers": {"received": self._transfers.received, "sent": self._source.sent},
            "cache": dict(self._results.counts),
        }

    def machine(self) -> dict[str, Any]:
        """Figures of the machine and the store, for a thread: the kernel may take a while for some of them. One call
        at a time."""
        import psutil  # takes as long as all the rest of a worker's start

        if self._before is None:
            self._before = _cpu_times(psutil.cpu_times(percpu=True))
            time.sleep(_FIRST_SPAN)
        now = _cpu_times(psutil.cpu_times(percpu=True))
        usage, self._before = cpu_usage(self._before, now), now
        interfaces = psutil.net_io_counters(pernic=True).items()
        self._store.give_back()
        memory, disk = self._store.usage()
        return {
            "cpu_usage": usage,
            "mem_usage": float(psutil.virtual_memory().percent),
            "net_stat": {name: [io.bytes_recv, io.bytes_sent] for name, io in interfaces},
            "store": {"memory": memory, "disk": disk},
        }


def _cpu_times(cpus: Sequence[Any]) -> CpuTimes:
    # The time of guests is part of that of users.
    return [(sum(cpu) - cpu.guest - cpu.guest_nice, cpu.idle + cpu.iowait) for cpu in cpus]


def cpu_usage(before: CpuTimes, now: CpuTimes) -> list[float]:
    """Per cpu, percent of the time between two looks in which it was busy; zeros if their number changed."""
    if len(before) != len(now):
        return [0.0] * len(now)
    return [
        _percent(now_all - all_before, now_idle - idle_before)
        for (all_before, idle_before), (now_all, now_idle) in zip(before, now, strict=True)
    ]


def _percent(total: float, idle: float) -> float:
    return round(min(max(100.0 * (total - idle) / total, 0.0), 100.0), 1) if total > 0.0 else 0.0
