"""Rain: the embedded cluster of `Client()` with two cpus; every task is a call of a `remote` function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rain
from benchmarks.graph import Graph, Result
from rain.client import LocalCluster, gather, remote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class RainSystem:
    """Adapter."""

    version = rain.__version__

    def __init__(self) -> None:
        self.cluster = LocalCluster(cpus=2)
        self.client = self.cluster.client()
        self.session = self.client.new_session("benchmark", default=True)
        self.remotes: dict[Callable[..., Any], Any] = {}

    def remote(self, function: Callable[..., Any]) -> Any:
        """The remote function for a plain one."""
        if function not in self.remotes:

            def call(ctx: Any, *arguments: Any) -> Any:
                return function(*arguments)

            self.remotes[function] = remote(auto_load=True, auto_encode="pickle5", name=function.__name__)(call)
        return self.remotes[function]

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One task."""
        return self.remote(function)(*arguments).result()

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """One task per argument, submitted together."""
        call = self.remote(function)
        results: list[Any] = gather([call(argument) for argument in arguments])
        return results

    def run(self, graph: Graph) -> list[Any]:
        """The whole graph at once."""
        tasks: list[Any] = []
        for function, arguments in graph.nodes:
            values = [tasks[item.node] if isinstance(item, Result) else item for item in arguments]
            tasks.append(self.remote(function)(*values))
        results: list[Any] = gather([tasks[index] for index in graph.wanted])
        return results

    def role(self, command: str) -> str:
        """Server, worker or executors."""
        for role in ("executor", "worker", "server"):
            if f"rain.{role}" in command or f"rain {role}" in command:
                return role
        return "other"

    def close(self) -> None:
        """End client and cluster."""
        self.client.close()
        self.cluster.close()


def start() -> RainSystem:
    """Start the cluster."""
    return RainSystem()
