"""executorlib: SingleNodeExecutor with two processes that stay; graphs by passing futures."""

from __future__ import annotations

import importlib.metadata
from typing import TYPE_CHECKING, Any

from executorlib import SingleNodeExecutor

from benchmarks.systems.shared import ByFunctions, substitute

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.graph import Graph


class Executorlib(ByFunctions):
    """Block allocation: not a new process per task, which is the default."""

    version = importlib.metadata.version("executorlib")

    def __init__(self) -> None:
        self.executor = SingleNodeExecutor(max_workers=2, block_allocation=True)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One task."""
        return self.executor.submit(function, *arguments).result()

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """One future per task."""
        futures = [self.executor.submit(function, argument) for argument in arguments]
        return [future.result() for future in futures]

    def run(self, graph: Graph) -> list[Any]:
        """All tasks at once."""
        made: list[Any] = []
        for function, arguments in graph.nodes:
            made.append(self.executor.submit(function, *substitute(arguments, made)))
        return [made[index].result() for index in graph.wanted]

    def role(self, command: str) -> str:
        """All children are workers."""
        return "worker"

    def close(self) -> None:
        """End the processes."""
        self.executor.shutdown()
