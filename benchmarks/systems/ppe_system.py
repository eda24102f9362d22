"""`concurrent.futures.ProcessPoolExecutor`: two processes, no server; the client drives the graph."""

from __future__ import annotations

import platform
from concurrent.futures import ProcessPoolExecutor
from typing import TYPE_CHECKING, Any

from benchmarks.systems.shared import ByFunctions, drive, of_future

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.graph import Graph

LARGEST_CHUNK = 1000
CHUNKS_AT_LEAST = 8


class Pool(ByFunctions):
    """One future per task."""

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
        """Driven from here."""
        return drive(graph, of_future(self.pool.submit))

    def role(self, command: str) -> str:
        """All children are workers."""
        return "worker"

    def close(self) -> None:
        """End the pool."""
        self.pool.shutdown()


class ChunkedPool(Pool):
    """`map` with a chunk size; chunks are smaller where there would be too few of them for two processes."""

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """Many calls per task."""
        chunk = max(1, min(LARGEST_CHUNK, len(arguments) // CHUNKS_AT_LEAST))
        return list(self.pool.map(function, arguments, chunksize=chunk))
