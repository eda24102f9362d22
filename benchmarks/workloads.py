"""The workloads, named as in docs/performance.md; each checks what it gets."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from benchmarks.functions import add, increment, make_array, touch_array
from benchmarks.graph import Graph
from benchmarks.systems import System

Metrics = dict[str, float]

CHAINS = 100
WARM_UP_CALLS = 20


class WrongResult(Exception):
    """A system computed something wrong; its figures are worth nothing."""


@dataclass(frozen=True, slots=True)
class Workload:
    """A workload.

    Attributes:
        code: its short name in docs/performance.md.
        metric: the metric by which systems are compared.
        unit: of that metric.
        more_is_better: direction of that metric.
        size: default size; what it counts differs.
        measure: takes a running system and the size, returns metrics.
        sizes: sizes for systems that would take minutes.
        measures_start: the start of the system belongs to the measurement.
    """

    code: str
    about: str
    metric: str
    unit: str
    more_is_better: bool
    size: int
    measure: Callable[[System, int], Metrics]
    sizes: dict[str, int] = field(default_factory=dict)
    measures_start: bool = False

    def size_for(self, system: str) -> int:
        """The default size for a system."""
        return self.sizes.get(system, self.size)


def expect(what: str, got: object, wanted: object) -> None:
    """Raise WrongResult when a result is wrong."""
    if got != wanted:
        raise WrongResult(f"{what}: got {got!r:.200}, expected {wanted!r:.200}")


def warm_up(system: System) -> None:
    """Have all executors started and the function known."""
    expect("warm-up", system.map(increment, range(WARM_UP_CALLS)), list(range(1, WARM_UP_CALLS + 1)))


def _rate(tasks: int, seconds: float) -> Metrics:
    return {"seconds": seconds, "tasks": tasks, "tasks_per_second": tasks / seconds}


def trivial(system: System, size: int) -> Metrics:
    """Independent trivial tasks, all results fetched."""
    start = time.perf_counter()
    results = system.map(increment, range(size))
    seconds = time.perf_counter() - start
    expect("results", results, list(range(1, size + 1)))
    return _rate(size, seconds)


def latency(system: System, size: int) -> Metrics:
    """One task after the other, from the call to its result."""
    times = []
    for number in range(size):
        start = time.perf_counter()
        result = system.call(increment, number)
        times.append((time.perf_counter() - start) * 1000)
        expect("result", result, number + 1)
    times.sort()
    return {"median_ms": statistics.median(times), "p99_ms": times[int(len(times) * 0.99)], "calls": size}


def _run(system: System, graph: Graph, wanted: list[int]) -> Metrics:
    start = time.perf_counter()
    results = system.run(graph)
    seconds = time.perf_counter() - start
    expect("results", results, wanted)
    return _rate(len(graph.nodes), seconds)


def tree(system: System, size: int) -> Metrics:
    """Sum of `size` tasks' results by a tree of additions."""
    graph = Graph()
    level = [graph.node(increment, number) for number in range(size)]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [graph.node(add, *pair) for pair in pairs] + ([level[-1]] if len(level) % 2 else [])
    graph.want(level[0])
    return _run(system, graph, [size * (size + 1) // 2])


def chains(system: System, size: int) -> Metrics:
    """CHAINS chains of together `size` tasks."""
    graph = Graph()
    length = size // CHAINS
    for chain in range(CHAINS):
        last = graph.node(increment, chain)
        for _ in range(length - 1):
            last = graph.node(increment, last)
        graph.want(last)
    return _run(system, graph, [chain + length for chain in range(CHAINS)])


def chain(system: System, size: int) -> Metrics:
    """One chain: nothing can be done in parallel."""
    graph = Graph()
    last = graph.node(increment, 0)
    for _ in range(size - 1):
        last = graph.node(increment, last)
    graph.want(last)
    return _run(system, graph, [size])


def data(system: System, size: int) -> Metrics:
    """A value of `size` MiB: made by a task, read by two others, fetched by the client."""
    graph = Graph()
    array = graph.node(make_array, size)
    for result in (graph.node(touch_array, array), graph.node(touch_array, array), array):
        graph.want(result)
    start = time.perf_counter()
    first, second, value = system.run(graph)
    seconds = time.perf_counter() - start
    expect("sums", (first, second), (7 * (size << 8), 7 * (size << 8)))
    expect("value", (len(value), touch_array(value)), (size << 20, 7 * (size << 8)))
    return {"seconds": seconds, "mebibytes": size}


def startup(system: System, size: int) -> Metrics:
    """The first task of a new cluster; the time of the start is added by the caller."""
    expect("result", system.call(increment, size), size + 1)
    return {}


WORKLOADS = {
    "trivial": Workload(
        "W1", "independent trivial tasks, all results fetched", "tasks_per_second", "tasks/s", True, 100_000, trivial,
        {"dask": 5_000},
    ),
    "latency": Workload("W2", "one task, from call to result", "median_ms", "ms", False, 500, latency),
    "tree": Workload(
        "W3a", "tree of additions", "tasks_per_second", "tasks/s", True, 32_768, tree, {"dask": 8_192}
    ),
    "chains": Workload(
        "W3b", "100 chains", "tasks_per_second", "tasks/s", True, 50_000, chains, {"dask": 10_000}
    ),
    "chain": Workload(
        "W3b", "one chain of 10,000", "tasks_per_second", "tasks/s", True, 10_000, chain, {"dask": 2_000}
    ),
    "data": Workload("W5a", "256 MiB made, read twice, fetched", "seconds", "s", False, 256, data),
    "startup": Workload(
        "W7", "start of a cluster to the first result", "seconds", "s", False, 1, startup, measures_start=True
    ),
}  # fmt: skip
