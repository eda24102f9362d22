"""A simulated worker: the real core and shell over pretended store, executors, transfers and built-in tasks."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING, Any

from rain.common.errors import RainConnectionError
from rain.protocol.messages import WorkerHello
from rain.testing.simdata import DataServer
from rain.testing.siminquiries import SimInquiries
from rain.testing.simparts import CpuMeter, Functions, SimExecutors
from rain.testing.simresults import SimResults
from rain.testing.simstore import SimStore
from rain.testing.simtasks import SimBuiltins, SimTransfers
from rain.worker.core.core import WorkerCore
from rain.worker.core.events import StoreFailed
from rain.worker.parts import Parts
from rain.worker.shell import WorkerShell

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    from rain.protocol.messages import WorkerWelcome
    from rain.testing.simloop import SimLoop
    from rain.testing.simnet import SimChannel, SimNode
    from rain.worker.core.actions import WorkerAction
    from rain.worker.core.events import WorkerEvent

DATA_PORT = 9000


class CheckedWorkerCore:
    """A worker core whose invariants are walked after every `every`-th batch of events.

    Attributes:
        core: the core.
    """

    def __init__(self, core: WorkerCore, every: int) -> None:
        self.core = core
        self._every = every
        self._batches = 0

    def handle(self, events: Iterable[WorkerEvent], now: float) -> Sequence[WorkerAction]:
        """Hand on, then check."""
        actions = self.core.handle(events, now)
        self._batches += 1
        if self._batches % self._every == 0:
            self.core.sanity_check()
        return actions

    def next_deadline(self) -> float | None:
        """Hand on."""
        return self.core.next_deadline()


class SimWorker:
    """A worker on a node of the simulated network.

    Args:
        loop: the loop of the simulation.
        node: its node.
        server: address of the server.
        functions: what tasks do.
        cpus: cpus it offers.
        wall_clock: unix seconds, which may jump; like a real worker it looks once, when it starts.
        delete_timeout: seconds for which values not needed are kept.
        check_every: batches of events from one walk through the invariants to the next.

    Attributes:
        exit_code: set when the worker has ended by itself.
        incarnations: those the server gave it.
    """

    def __init__(
        self,
        loop: SimLoop,
        node: SimNode,
        server: str,
        functions: Functions,
        *,
        cpus: int = 2,
        wall_clock: float = 0.0,
        delete_timeout: float = 1.0,
        check_every: int = 1,
    ) -> None:
        self.node = node
        self.cpus = cpus
        self.store = SimStore()
        self.exit_code: int | None = None
        self.incarnations: list[int] = []
        self._loop = loop
        self._began = wall_clock - loop.time()
        self._server = server
        self._data = DataServer(self._read)
        self._channel: SimChannel | None = None
        resources: dict[str, Any] = {"cpus": cpus, "gpus": [], "memory": 8 << 30}
        self._resources = resources
        self.core = WorkerCore(resources=resources, delete_timeout=delete_timeout)
        self.shell = WorkerShell(
            CheckedWorkerCore(self.core, check_every), loop=loop, clock=self._clock, supervisor=self
        )
        meter, shell = CpuMeter(cpus), self.shell
        self.executors = SimExecutors(loop, self.store, functions, meter, self._clock, shell.report, shell.hear)
        self.transfers = SimTransfers(node, self.store, self.shell.report)
        builtins = SimBuiltins(self.executors)
        results = SimResults(loop, self.store, functions.results, self._clock, self.shell.report)
        self.shell.equip(Parts(self.store, self.executors, self.transfers, builtins, results, SimInquiries()))

    @property
    def name(self) -> str:
        """Name of its node."""
        return self.node.name

    def start(self) -> None:
        """Start it, inside its process."""
        self.node.process.run(self.node.listen, DATA_PORT, lambda _channel, _hello: self._data)
        self.node.process.spawn(self._connect(), f"{self.name} connects")

    def holds_nothing(self) -> bool:
        """No task, object or value is left."""
        info = self.core.info()
        return not self.store.values and not any(info.values()) and not self.core.sessions

    def stop(self) -> None:
        """End as after SIGTERM: everything is stopped, the connection closed, then the process is gone."""
        self.node.process.run(self._stop)
        self.node.crash()

    def _stop(self) -> None:
        self.shell.close()
        if self._channel is not None:
            self._channel.close()

    def disturb_data(self, delay: float, short: float) -> None:
        """Other nodes get values late, or only the beginning."""
        self._data.delay, self._data.short = delay, short

    def damage(self, key: tuple[int, int]) -> None:
        """A stored value turns out to be unreadable."""
        self.store.damaged.add(key)
        self.node.process.run(self.shell.report, StoreFailed(key, "damaged"))

    # --- what the shell tells its supervisor ---

    def registered(self, welcome: WorkerWelcome) -> None:
        """The server has taken this worker."""
        self.incarnations.append(welcome.incarnation)

    def server_lost(self, reason: str) -> None:
        """Look for the server again, as a new incarnation."""
        self._loop.note(f"{self.name} lost the server: {reason}")
        assert not self.store.values, f"{self.name} keeps values without a server: {sorted(self.store.values)}"
        self._loop.create_task(self._connect(), name=f"{self.name} connects again")

    def leave(self, code: int) -> None:
        """The process ends."""
        self.exit_code = code
        self.node.crash()

    # --- inside ---

    def _clock(self) -> float:
        return self._began + self._loop.time()

    async def _connect(self) -> None:
        while True:
            try:
                channel = await self.node.connect(self._server, "worker", self.shell)
            except RainConnectionError:
                await asyncio.sleep(0.5)
                continue
            hello = WorkerHello(f"{self.node.ip}:{DATA_PORT}", self._resources, self.name, 1, "3.11.4")
            self._channel = channel
            self.shell.attach(channel, hello)
            return

    async def _read(self, key: tuple[int, int]) -> bytes | None:
        return self.store.read(key)
