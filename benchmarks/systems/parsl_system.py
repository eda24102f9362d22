"""Parsl: HighThroughputExecutor, one block of two workers, tuned; graphs by passing futures."""

from __future__ import annotations

import importlib.metadata
import os
import shutil
import sys
from typing import TYPE_CHECKING, Any

import parsl
from parsl.config import Config
from parsl.executors import HighThroughputExecutor
from parsl.providers import LocalProvider

from benchmarks.systems.shared import ByFunctions, adopt_orphans, private_folder, substitute

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.graph import Graph


class Parsl(ByFunctions):
    """No encryption, tasks fetched ahead, no debug log."""

    version = importlib.metadata.version("parsl")

    def __init__(self) -> None:
        self.folder = private_folder("parsl")
        os.environ["PATH"] = f"{os.path.dirname(sys.executable)}:{os.environ['PATH']}"  # it starts scripts by name
        adopt_orphans()  # its workers, whose parent is a shell that ends
        executor = HighThroughputExecutor(
            address="127.0.0.1",
            loopback_address="127.0.0.1",
            max_workers_per_node=2,
            prefetch_capacity=64,
            encrypted=False,
            provider=LocalProvider(init_blocks=1, max_blocks=1),
        )
        self.kernel = parsl.load(Config([executor], run_dir=self.folder, initialize_logging=False))
        self.apps: dict[Callable[..., Any], Any] = {}

    def app(self, function: Callable[..., Any]) -> Any:
        """What makes a task from a plain function."""
        if function not in self.apps:
            self.apps[function] = parsl.python_app(function)
        return self.apps[function]

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One task."""
        return self.app(function)(*arguments).result()

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """One future per task."""
        call = self.app(function)
        futures = [call(argument) for argument in arguments]
        return [future.result() for future in futures]

    def run(self, graph: Graph) -> list[Any]:
        """All tasks at once."""
        made: list[Any] = []
        for function, arguments in graph.nodes:
            made.append(self.app(function)(*substitute(arguments, made)))
        return [made[index].result() for index in graph.wanted]

    def role(self, command: str) -> str:
        """The interchange serves; a pool process and the workers it forked have the same command."""
        return "server" if "interchange" in command else "worker"

    def close(self) -> None:
        """End all of it."""
        self.kernel.cleanup()
        parsl.clear()
        shutil.rmtree(self.folder)
