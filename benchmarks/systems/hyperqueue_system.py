"""HyperQueue: server and worker as threads of the client's process, an interpreter per function, values in files."""

from __future__ import annotations

import importlib.metadata
import shutil
import sys
import tempfile
from typing import TYPE_CHECKING, Any

from hyperqueue import Job, LocalCluster
from hyperqueue.cluster import WorkerConfig
from hyperqueue.task.function import PythonEnv

from benchmarks.graph import Graph, Result
from benchmarks.systems.hyperqueue_parts import finish, load, run_node
from benchmarks.systems.shared import PROGRAM, private_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence


class HyperQueue:
    """One job per call, map or graph; outputs of programs are not kept."""

    version = importlib.metadata.version("hyperqueue")

    def __init__(self) -> None:
        self.folder = private_folder("hyperqueue")
        self.cluster = LocalCluster(f"{self.folder}/server", WorkerConfig(cores=2))
        self.client = self.cluster.client(python_env=PythonEnv(python_bin=sys.executable))

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One task."""
        return self.run(Graph([(function, arguments)], [0]))[0]

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """One task per argument."""
        return self.run(Graph([(function, (argument,)) for argument in arguments], list(range(len(arguments)))))

    def run(self, graph: Graph) -> list[Any]:
        """The whole graph at once."""
        with tempfile.TemporaryDirectory(dir=self.folder) as folder:
            job, tasks = Job(folder), list[Any]()
            for index, (function, arguments) in enumerate(graph.nodes):
                inputs = [tasks[item.node] for item in arguments if isinstance(item, Result)]
                call = (function, arguments, folder, index)
                tasks.append(job.function(run_node, args=call, deps=inputs, stdout=None, stderr=None))
            finish(self.client, job)
            return [load(folder, index) for index in graph.wanted]

    def program(self, count: int) -> None:
        """Its native tasks."""
        job = Job(self.folder)
        for _ in range(count):
            job.program([PROGRAM], stdout=None, stderr=None)
        finish(self.client, job)

    def role(self, command: str) -> str:
        """All children are tasks."""
        return "task"

    def close(self) -> None:
        """End server and worker."""
        self.cluster.stop()
        shutil.rmtree(self.folder)
