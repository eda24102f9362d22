"""joblib and the executor it is built on (loky): two processes, no server; the client drives the graph."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import joblib
from joblib.externals import loky

from benchmarks.systems.shared import ByFunctions, drive, of_future

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.graph import Graph


class Loky(ByFunctions):
    """The executor alone: one future per task."""

    version: str = joblib.__version__

    def __init__(self) -> None:
        self.executor = loky.get_reusable_executor(max_workers=2)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One task."""
        return self.executor.submit(function, *arguments).result()

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """One future per task."""
        futures = [self.executor.submit(function, argument) for argument in arguments]
        return [future.result() for future in futures]

    def run(self, graph: Graph) -> list[Any]:
        """Driven from here."""
        return drive(graph, of_future(self.executor.submit))

    def role(self, command: str) -> str:
        """Workers, and a process that cleans up after them."""
        return "helpers" if "resource_tracker" in command else "worker"

    def close(self) -> None:
        """End the processes."""
        self.executor.shutdown(wait=True)


class Batched(Loky):
    """`Parallel` with its default: batches that grow as long as they are short."""

    def __init__(self) -> None:
        self.parallel = joblib.Parallel(n_jobs=2)
        self.parallel.__enter__()
        self.executor = loky.get_reusable_executor(reuse=True)

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """Many calls per task."""
        call = joblib.delayed(function)
        return list(self.parallel(call(argument) for argument in arguments))

    def close(self) -> None:
        """End the processes, which are those of the executor."""
        self.parallel.__exit__(None, None, None)
        super().close()
