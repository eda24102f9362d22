"""One adapter per system: at most 80 lines each, loaded only in the process that measures it."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from benchmarks.graph import Graph


@dataclass(frozen=True, slots=True)
class Entry:
    """What is known of a system without loading it.

    Attributes:
        place: `module:class` in benchmarks.systems; the class is the adapter.
        about: how it is set up and used, for the report.
        environment: folder of benchmarks/.envs; empty: the environment of Rain itself.
        can: what it can do besides `map`, of CALL, GRAPH, DATA and PROGRAM; it is left out of workloads that need more.
        batched: `map` sends many calls as one task, so that its figures are not figures per task.
    """

    place: str
    about: str
    environment: str = ""
    can: frozenset[str] = frozenset(("call", "graph", "data", "program"))
    batched: bool = False


CALL, GRAPH, DATA, PROGRAM = "call", "graph", "data", "program"
"""Capabilities: one task at a time; dependencies between tasks; large values among them; programs as tasks."""

MAP_ONLY: frozenset[str] = frozenset()

SYSTEMS = {
    "rain": Entry("rain_system:Rain", "`remote` functions; embedded cluster, synchronous client"),
    "rain_delayed": Entry("rain_delayed_system:RainDelayed", "`delayed` functions; the same cluster and client"),
    "rain_embedded": Entry(
        "rain_delayed_system:RainEmbedded", "`delayed` functions; `Client()`: server and worker in one process"
    ),
    "rain_aio": Entry("rain_aio_system:RainAio", "`delayed` functions; the same cluster, asyncio client"),
    "rain_map": Entry("rain_delayed_system:RainMap", "`session.map`: one task array", can=MAP_ONLY, batched=True),
    "frisky": Entry("frisky_system:Frisky", "LocalCluster of two processes, scheduler in the client", "frisky"),
    "dask": Entry("dask_system:Dask", "distributed, LocalCluster with its defaults", "dask"),
    "dask_best": Entry(
        "dask_system:TunedDask",
        "distributed, scheduler in a process of its own, no nannies, worker-saturation inf, no stealing or profiling",
        "dask",
    ),
    "ray": Entry("ray_system:Ray", "remote functions, no dashboard", "ray"),
    "parsl": Entry("parsl_system:Parsl", "HighThroughputExecutor, not encrypted, prefetching 64, no log", "parsl"),
    "executorlib": Entry("executorlib_system:Executorlib", "SingleNodeExecutor, block allocation", "executorlib"),
    "hyperqueue": Entry(
        "hyperqueue_system:HyperQueue", "Python API; an interpreter per function, values in files", "hyperqueue"
    ),
    "ppe": Entry("ppe_system:Pool", "concurrent.futures.ProcessPoolExecutor, one future per task"),
    "ppe_chunked": Entry("ppe_system:ChunkedPool", "the same, `map` in chunks", can=MAP_ONLY, batched=True),
    "mp_pool": Entry("mp_pool_system:Pool", "multiprocessing.Pool, one `apply_async` per task"),
    "mp_pool_chunked": Entry("mp_pool_system:ChunkedPool", "the same, `map` in chunks", can=MAP_ONLY, batched=True),
    "joblib": Entry("joblib_system:Loky", "joblib's executor (loky), one future per task", "joblib"),
    "joblib_batched": Entry(
        "joblib_system:Batched", "`joblib.Parallel`, which makes batches", "joblib", can=MAP_ONLY, batched=True
    ),
}
"""All systems by name."""

NAMES = tuple(SYSTEMS)


class System(Protocol):
    """What a workload needs of a system; the constructor starts it with two executor slots.

    A system has the methods that belong to what it `can`, and `map`, `role` and `close`.
    """

    version: str

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """Run one task and return its result."""

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """Run one task per argument and return all results in order."""

    def run(self, graph: Graph) -> list[Any]:
        """Run a graph and return the results of `graph.wanted`."""

    def program(self, count: int) -> None:
        """Run the program /bin/true so many times, each time as a task of its own."""

    def role(self, command: str) -> str:
        """The role of a child process with this command line."""

    def close(self) -> None:
        """End everything: afterwards no process and no file of the system is left."""


def start(name: str) -> System:
    """Start the system with this name (of NAMES)."""
    module, _, adapter = SYSTEMS[name].place.partition(":")
    system: System = getattr(importlib.import_module(f"benchmarks.systems.{module}"), adapter)()
    return system
