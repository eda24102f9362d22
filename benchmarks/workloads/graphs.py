"""Workloads of tasks that depend on each other: only a few results are fetched."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from benchmarks.functions import add, add_all, increment, mix
from benchmarks.graph import Graph
from benchmarks.workloads.base import Metrics, after, expect, fresh, rate, timed

if TYPE_CHECKING:
    from benchmarks.graph import Result
    from benchmarks.systems import System

CHAINS = 100
SHORT_CHAIN = 10
WIDTH = 100


def _run(system: System, graph: Graph, wanted: list[int]) -> Metrics:
    seconds, results = timed(system.run, graph)
    expect("results", results, wanted)
    return rate(len(graph.nodes), seconds)


def tree(system: System, size: int) -> Metrics:
    """Sum of `size` tasks' results by a tree of additions."""
    graph = Graph()
    first = fresh()
    numbers = range(first, first + size)
    level = [graph.node(increment, number) for number in numbers]
    while len(level) > 1:
        pairs = zip(level[::2], level[1::2], strict=False)
        level = [graph.node(add, *pair) for pair in pairs] + ([level[-1]] if len(level) % 2 else [])
    graph.want(level[0])
    return _run(system, graph, [sum(after(numbers))])


def _chain(graph: Graph, number: int, length: int) -> Result:
    last = graph.node(increment, number)
    for _ in range(length - 1):
        last = graph.node(increment, last)
    return last


def chains(system: System, size: int) -> Metrics:
    """CHAINS chains of together `size` tasks."""
    graph = Graph()
    length = size // CHAINS
    first = fresh()
    for number in range(CHAINS):
        graph.want(_chain(graph, first + number * length, length))
    return _run(system, graph, [first + (number + 1) * length for number in range(CHAINS)])


def chain(system: System, size: int) -> Metrics:
    """One chain: nothing can be done in parallel."""
    graph = Graph()
    first = fresh()
    graph.want(_chain(graph, first, size))
    return _run(system, graph, [first + size])


def short_chains(system: System, size: int) -> Metrics:
    """Very many chains of SHORT_CHAIN tasks in one graph."""
    graph = Graph()
    first = fresh()
    starts = range(first, first + size, SHORT_CHAIN)
    for number in starts:
        graph.want(_chain(graph, number, SHORT_CHAIN))
    return _run(system, graph, [number + SHORT_CHAIN for number in starts])


def grid(system: System, size: int) -> Metrics:
    """Rows of cells; each cell is made of three cells of the row before, the ends of a row being neighbours."""
    graph = Graph()
    width = max(3, min(WIDTH, math.isqrt(size)))
    first = fresh()
    nodes = [graph.node(increment, number) for number in range(first, first + width)]
    values = after(range(first, first + width))
    for _ in range(size // width - 1):
        nodes = [graph.node(mix, nodes[x - 1], nodes[x], nodes[(x + 1) % width]) for x in range(width)]
        values = [mix(values[x - 1], values[x], values[(x + 1) % width]) for x in range(width)]
    for node in nodes:
        graph.want(node)
    return _run(system, graph, values)


def fan_in(system: System, size: int) -> Metrics:
    """One task with `size` inputs, each made by a task."""
    graph = Graph()
    first = fresh()
    numbers = range(first, first + size)
    graph.want(graph.node(add_all, *[graph.node(increment, number) for number in numbers]))
    return _run(system, graph, [sum(after(numbers))])
