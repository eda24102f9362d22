"""One adapter per system: at most 80 lines each, loaded only in the process that measures it."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.graph import Graph

NAMES = ("rain", "dask", "ppe")


class System(Protocol):
    """What a workload needs of a system; the constructor starts it with two executor slots."""

    version: str

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run one task and return its result."""

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """Run one task per argument and return all results in order."""

    def run(self, graph: Graph) -> list[Any]:
        """Run a graph and return the results of `graph.wanted`."""

    def role(self, command: str) -> str:
        """The role of a child process with this command line."""

    def close(self) -> None:
        """End everything."""


def start(name: str) -> System:
    """Start the system with this name (of NAMES)."""
    module = importlib.import_module(f"benchmarks.systems.{name}_system")
    system: System = module.start()
    return system
