"""frisky: `LocalCluster` of two processes, the scheduler in the client's; graphs by passing futures."""

from __future__ import annotations

import shutil
from typing import TYPE_CHECKING, Any

import frisky

from benchmarks.systems.shared import ByFunctions, private_folder, substitute

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.graph import Graph


class Frisky(ByFunctions):
    """Used as its help describes it; a black box."""

    version: str = frisky.__version__

    def __init__(self) -> None:
        self.folder = private_folder("frisky")
        self.cluster = frisky.LocalCluster(n_workers=2, threads_per_worker=1, processes=True, silence_summary=True)
        self.client = self.cluster.get_client()

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One task."""
        return self.client.submit(function, *arguments).result()

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """One future per task."""
        results: list[Any] = self.client.gather(self.client.map(function, arguments))
        return results

    def run(self, graph: Graph) -> list[Any]:
        """All tasks at once."""
        made: list[Any] = []
        for function, arguments in graph.nodes:
            made.append(self.client.submit(function, *substitute(arguments, made)))
        results: list[Any] = self.client.gather([made[index] for index in graph.wanted])
        return results

    def role(self, command: str) -> str:
        """All children are workers."""
        return "worker"

    def close(self) -> None:
        """End client and cluster."""
        self.client.close()
        self.cluster.close()
        shutil.rmtree(self.folder)
