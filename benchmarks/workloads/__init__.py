"""The workloads, named as in docs/performance.md; each checks what it gets."""

from __future__ import annotations

from benchmarks.systems import CALL, DATA, GRAPH, PROGRAM
from benchmarks.workloads.base import Metrics, Workload, WrongResult, expect, warm_up
from benchmarks.workloads.calls import latency, programs, sleeps, startup, trivial
from benchmarks.workloads.graphs import CHAINS, chain, chains, fan_in, grid, short_chains, tree
from benchmarks.workloads.own import array_memory, fetch, memory, sessions, transfer
from benchmarks.workloads.values import data, gather

__all__ = [
    "CHAINS",
    "WORKLOADS",
    "Metrics",
    "Workload",
    "WrongResult",
    "chain",
    "chains",
    "expect",
    "latency",
    "tree",
    "trivial",
    "warm_up",
]

_RATE = ("tasks_per_second", "tasks/s", True)
_SPEED = ("megabytes_per_second", "MB/s", True)
_SECONDS = ("seconds", "s", False)
_BYTES = ("server_bytes", "B/task", False)
_RAIN = ("rain",)
_BOTH = ("rain", "rain_delayed")

WORKLOADS = {
    "trivial": Workload(
        "W1", "independent trivial tasks, all results fetched", *_RATE, 100_000, trivial, batched=False, smallest=500
    ),
    "map": Workload(
        "W1", "the same calls as one array or in chunks", *_RATE, 1_000_000, trivial, batched=True, smallest=1000
    ),
    "latency": Workload(
        "W2", "one task, from call to result", "median_ms", "ms", False, 1000, latency, CALL, smallest=20
    ),
    "tree": Workload("W3a", "tree of additions", *_RATE, 32_768, tree, GRAPH),
    "chains": Workload("W3b", "100 chains", *_RATE, 50_000, chains, GRAPH),
    "chain": Workload("W3b", "one chain of 10,000", *_RATE, 10_000, chain, GRAPH),
    "grid": Workload("W3c", "grid, three inputs each", *_RATE, 30_000, grid, GRAPH),
    "fan-in": Workload("W3d", "10,000 tasks into one", *_RATE, 10_000, fan_in, GRAPH),
    "million": Workload(
        "W3e", "a million tasks in one graph: chains of 10", *_RATE, 1_000_000, short_chains, GRAPH, unasked=_BOTH,
        smallest=0, once=True,
    ),
    "sleeps": Workload("W4", "tasks of 5 ms: ideal time / time", "efficiency", "", True, 400, sleeps),
    "data": Workload("W5a", "256 MiB made, read twice, fetched", *_SECONDS, 256, data, DATA, smallest=0),
    "gather": Workload("W5b", "1,000 values of 1 MiB into one task", *_SPEED, 1000, gather, DATA, smallest=50),
    "transfer": Workload("W5c", "256 MiB from worker to worker by TCP", *_SPEED, 256, transfer, only=_RAIN, smallest=0),
    "fetch": Workload(
        "W5d", "100,000 small results fetched", "results_per_second", "results/s", True, 100_000, fetch, only=_RAIN
    ),
    "programs": Workload("W6", "/bin/true, each time a task", *_RATE, 3000, programs, PROGRAM),
    "startup": Workload(
        "W7", "start of a cluster to the first result", *_SECONDS, 1, startup, smallest=0, measures_start=True
    ),
    "memory": Workload("W8", "memory at the server per waiting task", *_BYTES, 300_000, memory, only=_RAIN, smallest=0),
    "array-memory": Workload(
        "W8", "memory at the server per waiting member of an array", *_BYTES, 1_000_000, array_memory, only=_RAIN,
        smallest=0,
    ),
    "sessions": Workload(
        "W9", "2,000 sessions of 10 tasks", "sessions_per_second", "sessions/s", True, 2000, sessions, only=_RAIN
    ),
}  # fmt: skip
