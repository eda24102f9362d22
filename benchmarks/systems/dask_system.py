"""Dask: `LocalCluster` of two processes with one thread each; graphs as one low-level graph through `Client.get`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import distributed
from dask._task_spec import Task, TaskRef

from benchmarks.graph import Graph, Result

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class DaskSystem:
    """Adapter."""

    version: str = distributed.__version__

    def __init__(self) -> None:
        self.cluster = distributed.LocalCluster(
            n_workers=2, threads_per_worker=1, processes=True, dashboard_address=None, silence_logs="ERROR"
        )
        self.client = distributed.Client(self.cluster)
        self.rounds = 0

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One task."""
        return self.client.submit(function, *arguments, pure=False).result()

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """One future per task."""
        futures = self.client.map(function, arguments, pure=False)
        results: list[Any] = self.client.gather(futures)
        return results

    def run(self, graph: Graph) -> list[Any]:
        """The whole graph at once."""
        self.rounds += 1
        prefix = f"round{self.rounds}"
        tasks = {}
        for index, (function, arguments) in enumerate(graph.nodes):
            key = (prefix, index)
            values = [TaskRef((prefix, item.node)) if isinstance(item, Result) else item for item in arguments]
            tasks[key] = Task(key, function, *values)
        results: list[Any] = self.client.get(tasks, [(prefix, index) for index in graph.wanted])
        return results

    def role(self, command: str) -> str:
        """The scheduler lives in the client's process."""
        return "workers"

    def close(self) -> None:
        """End client and cluster."""
        self.client.close()
        self.cluster.close()


def start() -> DaskSystem:
    """Start the cluster."""
    return DaskSystem()
