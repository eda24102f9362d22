"""Rain: an embedded cluster of one worker with two cpus, and the synchronous client."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import rain
from benchmarks.systems.shared import PROGRAM, substitute
from rain.client import LocalCluster, gather, remote, tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.graph import Graph
    from rain.client import Task

    Maker = Callable[..., Task]


ROLES = {"rain.executor": "executor", "rain worker": "worker", "rain server": "server", "guard_main": "guard"}


class Rain:
    """Every task is a call of a `remote` function."""

    version = rain.__version__

    def __init__(self) -> None:
        self.cluster = LocalCluster(cpus=2)
        self.client = self.cluster.client()
        self.default = self.client.new_session("calls", default=True)
        self.made: dict[Callable[..., Any], Maker] = {}

    def make(self, function: Callable[..., Any]) -> Maker:
        """What makes tasks from a plain function."""
        options = remote(auto_load=True, auto_encode="pickle5", name=function.__name__)
        return options(lambda ctx, *values: function(*values))

    def maker(self, function: Callable[..., Any]) -> Maker:
        """The same one for the same function."""
        return self.made.get(function) or self.made.setdefault(function, self.make(function))

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One task, in a session that stays."""
        return self.maker(function)(*arguments).result()

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """One task per argument, submitted together."""
        call = self.maker(function)
        with self.client.new_session("map"):
            return list(gather([call(argument) for argument in arguments]))

    def run(self, graph: Graph) -> list[Any]:
        """The whole graph at once; only the wanted results are kept."""
        with self.client.new_session("graph"):
            return list(gather(self.build(graph)))

    def build(self, graph: Graph) -> list[Task]:
        """Make the tasks of a graph; the wanted ones."""
        made: list[Task] = []
        for function, arguments in graph.nodes:
            made.append(self.maker(function)(*substitute(arguments, made)))
        return [made[index] for index in graph.wanted]

    def program(self, count: int) -> None:
        """`Execute`, for which the worker starts the programs itself."""
        with self.client.new_session("programs") as session:
            for _ in range(count):
                tasks.Execute((PROGRAM,))
            session.submit()
            session.wait_all()

    def role(self, command: str) -> str:
        """Guards end the other processes when their owner dies."""
        return next((role for part, role in ROLES.items() if part in command), "other")

    def close(self) -> None:
        """End client and cluster."""
        self.client.close()
        self.cluster.close()
