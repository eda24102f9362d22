"""`concurrent.futures.ProcessPoolExecutor`: two processes, no server; the client drives the graph."""

from __future__ import annotations

import platform
import queue
from concurrent.futures import Future, ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from benchmarks.graph import Graph, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class PoolSystem:
    """Adapter."""

    version = platform.python_version()

    def __init__(self) -> None:
        self.pool = ProcessPoolExecutor(2)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One task."""
        return self.pool.submit(function, *arguments).result()

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """One future per task."""
        futures = [self.pool.submit(function, argument) for argument in arguments]
        return [future.result() for future in futures]

    def run(self, graph: Graph) -> list[Any]:
        """Submit what is ready whenever something has finished."""
        results: dict[int, Any] = {}
        consumers: dict[int, list[int]] = {}
        missing = [0] * len(graph.nodes)
        finished: queue.SimpleQueue[tuple[int, Future[Any]]] = queue.SimpleQueue()

        def submit(index: int) -> None:
            function, arguments = graph.nodes[index]
            values = [results[item.node] if isinstance(item, Result) else item for item in arguments]
            self.pool.submit(function, *values).add_done_callback(lambda future: finished.put((index, future)))

        for index, (_, arguments) in enumerate(graph.nodes):
            inputs = {item.node for item in arguments if isinstance(item, Result)}
            missing[index] = len(inputs)
            for node in inputs:
                consumers.setdefault(node, []).append(index)
        for index, count in enumerate(missing):
            if not count:
                submit(index)
        while len(results) < len(graph.nodes):
            index, future = finished.get(timeout=120)
            results[index] = future.result()
            for consumer in consumers.get(index, ()):
                missing[consumer] -= 1
                if not missing[consumer]:
                    submit(consumer)
        return [results[index] for index in graph.wanted]

    def role(self, command: str) -> str:
        """All children are workers."""
        return "workers"

    def close(self) -> None:
        """End the pool."""
        self.pool.shutdown()


def start() -> PoolSystem:
    """Start the pool."""
    return PoolSystem()
