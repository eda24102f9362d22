"""Dask's `distributed`: two worker processes with one thread each; graphs as one low-level graph."""

from __future__ import annotations

import os
import shutil
from typing import TYPE_CHECKING, Any

import dask
import distributed
from dask._task_spec import Task, TaskRef

from benchmarks.graph import Graph, Result
from benchmarks.systems.shared import ByFunctions, private_folder

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

TWO: dict[str, Any] = {"n_workers": 2, "threads_per_worker": 1, "dashboard_address": ":0", "silence_logs": "ERROR"}
TUNED = {"SCHEDULER__WORKER_SATURATION": "inf", "SCHEDULER__WORK_STEALING": "False", "ADMIN__LOW_LEVEL_LOG_LENGTH": "0",
         "DIAGNOSTICS__COMPUTATIONS__NFRAMES": "0", "WORKER__PROFILE__ENABLED": "False"}  # fmt: skip


class Dask(ByFunctions):
    """The defaults: `LocalCluster`, whose scheduler lives in the client's process."""

    version: str = distributed.__version__

    def __init__(self) -> None:
        self.folder = private_folder("dask")
        self.cluster, self.client = self.open()
        self.rounds = 0

    def open(self) -> tuple[Any, Any]:
        """Cluster and client."""
        cluster = distributed.LocalCluster(processes=True, **TWO)
        return cluster, distributed.Client(cluster)

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
            values = [TaskRef((prefix, item.node)) if isinstance(item, Result) else item for item in arguments]
            tasks[prefix, index] = Task((prefix, index), function, *values)
        results: list[Any] = self.client.get(tasks, [(prefix, index) for index in graph.wanted])
        return results

    def role(self, command: str) -> str:
        """The scheduler, if it has a process of its own; workers; a process that cleans up after them."""
        return "server" if "Scheduler" in command else "helpers" if "resource_tracker" in command else "worker"

    def close(self) -> None:
        """End client and cluster."""
        self.client.close()
        self.cluster.close()
        shutil.rmtree(self.folder)


class TunedDask(Dask):
    """Workers get all tasks at once and keep them; nothing is profiled or logged; the scheduler has its own process."""

    def open(self) -> tuple[Any, Any]:
        """Cluster and client."""
        # By the environment, for the scheduler does not inherit the configuration of this process.
        os.environ.update({f"DASK_DISTRIBUTED__{name}": value for name, value in TUNED.items()})
        dask.config.refresh()
        cluster = distributed.SubprocessCluster(worker_class="distributed.Worker", **TWO)
        return cluster, distributed.Client(cluster, direct_to_workers=True)
