"""`multiprocessing.Pool`: two processes, no server; the client drives the graph."""

from __future__ import annotations

import multiprocessing
import platform
from typing import TYPE_CHECKING, Any

from benchmarks.systems.shared import ByFunctions, drive

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.graph import Graph
    from benchmarks.systems.shared import Get


class Pool(ByFunctions):
    """One `apply_async` per task."""

    version = platform.python_version()

    def __init__(self) -> None:
        self.pool = multiprocessing.Pool(2)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One task."""
        return self.pool.apply(function, arguments)

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """One result object per task."""
        results = [self.pool.apply_async(function, (argument,)) for argument in arguments]
        return [result.get() for result in results]

    def run(self, graph: Graph) -> list[Any]:
        """Driven from here."""
        return drive(graph, self.submit)

    def submit(self, function: Callable[..., Any], values: list[Any], done: Callable[[Get], None]) -> None:
        """See `benchmarks.systems.shared.Submit`."""

        def failed(error: BaseException) -> None:
            def get() -> Any:
                raise error

            done(get)

        self.pool.apply_async(function, values, callback=lambda value: done(lambda: value), error_callback=failed)

    def role(self, command: str) -> str:
        """All children are workers."""
        return "worker"

    def close(self) -> None:
        """End the pool."""
        self.pool.close()
        self.pool.join()


class ChunkedPool(Pool):
    """`map` with its default, eight chunks for two processes."""

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """Many calls per task."""
        return self.pool.map(function, arguments)
