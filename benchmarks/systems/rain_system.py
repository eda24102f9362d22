"""Rain: the embedded cluster of `Client()` with two cpus; every task is a call of a `remote` function."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rain
from benchmarks.graph import Graph, Result
from rain.client import LocalCluster, Remote, Session, Task, remote

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


def arity(function: Callable[..., Any]) -> int:
    """Number of parameters."""
    return function.__code__.co_argcount


class RainSystem:
    """Adapter."""

    version = rain.__version__

    def __init__(self) -> None:
        self.cluster = LocalCluster(cpus=2)
        self.client = self.cluster.client()
        self.default = self.client.new_session("calls", default=True)
        self.remotes: dict[Callable[..., Any], Remote] = {}

    def remote(self, function: Callable[..., Any]) -> Remote:
        """The remote function for a plain one."""
        if function not in self.remotes:
            fixed = (lambda ctx, a: function(a)) if arity(function) == 1 else (lambda ctx, a, b: function(a, b))
            self.remotes[function] = remote(auto_load=True, auto_encode="pickle5", name=function.__name__)(fixed)
        return self.remotes[function]

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One task."""
        return self.remote(function)(*arguments).result()

    def results(self, session: Session, tasks: Sequence[Task]) -> list[Any]:
        """Keep, submit and fetch, all at once."""
        outputs = [task.output for task in tasks]
        for output in outputs:
            output.keep()
        session.submit()
        return [instance.load() for instance in session._fetch_all(outputs)]

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """One task per argument, submitted together."""
        call = self.remote(function)
        with self.client.new_session("map") as session:
            return self.results(session, [call(argument) for argument in arguments])

    def run(self, graph: Graph) -> list[Any]:
        """The whole graph at once."""
        tasks: list[Task] = []
        with self.client.new_session("graph") as session:
            for function, arguments in graph.nodes:
                values = [tasks[item.node] if isinstance(item, Result) else item for item in arguments]
                tasks.append(self.remote(function)(*values))
            return self.results(session, [tasks[index] for index in graph.wanted])

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
