"""Rain's asyncio client with `delayed` functions; the loop runs only while something is asked."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

import rain
from benchmarks.systems.rain_delayed_system import RainDelayed
from benchmarks.systems.shared import PROGRAM
from rain.client import LocalCluster, aio, tasks

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence

    from benchmarks.graph import Graph
    from benchmarks.systems.rain_system import Maker


class RainAio(RainDelayed):
    """Every task is a call of a `delayed` function."""

    version = rain.__version__

    def __init__(self) -> None:
        self.cluster = LocalCluster(cpus=2)
        self.loop = asyncio.new_event_loop()
        self.made: dict[Callable[..., Any], Maker] = {}
        self.wait(self.open())

    def wait(self, work: Coroutine[Any, Any, Any]) -> Any:
        """Run a coroutine."""
        return self.loop.run_until_complete(work)

    async def open(self) -> None:
        """Connect."""
        self.front = await aio.create_client(self.cluster.address, access_file=self.cluster.access_file)
        self.calls = await self.front.new_session("calls", default=True)

    def call(self, function: Callable[..., Any], *arguments: Any) -> Any:
        """One task, in a session that stays."""
        return self.wait(self.one(function, arguments))

    async def one(self, function: Callable[..., Any], arguments: tuple[Any, ...]) -> Any:
        """As a coroutine."""
        return await self.maker(function)(*arguments)

    def map(self, function: Callable[[Any], Any], arguments: Sequence[Any]) -> list[Any]:
        """One task per argument, submitted together."""
        call = self.maker(function)
        return list(self.wait(self.results(lambda: [call(argument) for argument in arguments])))

    def run(self, graph: Graph) -> list[Any]:
        """The whole graph at once; only the wanted results are kept."""
        return list(self.wait(self.results(lambda: self.build(graph))))

    async def results(self, make: Callable[[], list[Any]]) -> Any:
        """The results of the tasks that `make` makes, in a session of their own."""
        async with self.front.new_session("tasks"):
            return await aio.gather(make())

    def program(self, count: int) -> None:
        """`Execute`, for which the worker starts the programs itself."""
        self.wait(self.programs(count))

    async def programs(self, count: int) -> None:
        """As a coroutine."""
        async with self.front.new_session("programs") as session:
            for _ in range(count):
                tasks.Execute((PROGRAM,))
            await session.submit()
            await session.wait_all()

    def close(self) -> None:
        """End client, loop and cluster."""
        self.wait(self.front.close())
        self.loop.close()
        self.cluster.close()
