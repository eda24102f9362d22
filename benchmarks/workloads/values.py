"""Workloads of large values."""

from __future__ import annotations

from typing import TYPE_CHECKING

from benchmarks.functions import first_bytes, load_numpy, make_array, make_bytes, touch_array
from benchmarks.graph import Graph
from benchmarks.workloads.base import SLOTS, Metrics, expect, fresh, timed

if TYPE_CHECKING:
    from benchmarks.systems import System

MEBIBYTE = 1 << 20


def data(system: System, size: int) -> Metrics:
    """A value of `size` MiB: made by a task, read by two others, fetched by the client. All processes have numpy loaded
    before: its import takes longer than the work of some systems."""
    numbers = range(2 * SLOTS)
    expect("numpy", system.map(load_numpy, numbers), [load_numpy(number) for number in numbers])
    graph = Graph()
    array = graph.node(make_array, size)
    for result in (graph.node(touch_array, array), graph.node(touch_array, array), array):
        graph.want(result)
    seconds, (first, second, value) = timed(system.run, graph)
    expect("sums", (first, second), (7 * (size << 8), 7 * (size << 8)))
    expect("value", (len(value), touch_array(value)), (size * MEBIBYTE, 7 * (size << 8)))
    return {"seconds": seconds, "mebibytes": size}


def gather(system: System, size: int) -> Metrics:
    """`size` values of 1 MiB, each made by a task, all read by one."""
    graph = Graph()
    first = fresh()
    numbers = range(first, first + size)
    graph.want(graph.node(first_bytes, *[graph.node(make_bytes, number) for number in numbers]))
    seconds, results = timed(system.run, graph)
    expect("values", results, [(size * MEBIBYTE, sum(number % 256 for number in numbers))])
    return {
        "seconds": seconds,
        "mebibytes": size,
        "tasks": size + 1,
        "megabytes_per_second": size * MEBIBYTE / 1e6 / seconds,
    }
