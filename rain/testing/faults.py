"""Faults of a simulated cluster, each a method named as in `FAULTS`."""

from __future__ import annotations

import asyncio
import errno
from collections import Counter
from typing import TYPE_CHECKING

from rain.protocol.messages import StopWorkers
from rain.testing.netfaults import NetworkFaults
from rain.testing.simblocks import INLINE_LIMIT

if TYPE_CHECKING:
    from rain.testing.simcluster import SimCluster

FIRST_FAULTS = (
    "worker_crash",
    "worker_crash",
    "worker_dead_host",
    "client_crash",
    "executor_crash",
    "executor_crash",
    "transfers_fail",
    "break_worker",
    "break_workers",
    "break_client",
    "cut_worker",
    "cut_worker_one_way",
    "cut_workers",
    "cut_client",
    "pause_worker",
    "pause_server",
    "damage",
)
"""Seeds that failed when there were no others are played with these."""
FAULTS = (
    *FIRST_FAULTS,
    "clock_jump",
    "clog_workers",
    "disk_error",
    "disk_full",
    "executor_hangs",
    "flap_worker",
    "half_open_client",
    "half_open_worker",
    "half_open_workers",
    "memory_exceeded",
    "pause_server_for_long",
    "slow_client",
    "slow_data",
    "slow_worker",
    "slow_workers",
    "worker_stops",
)
DRAIN = "drain_worker"
"""Played in some seeds besides these, so that older seeds stay what they are."""
HOUR = 3600.0
DRAIN_SECONDS = 30.0
"""A worker that was told to end and is still there after so long had lost its connection: it is ended otherwise."""


class FaultPlayer(NetworkFaults):
    """Plays the faults of the plan.

    Attributes:
        played: how many, by name.
    """

    def __init__(self, cluster: SimCluster) -> None:
        super().__init__(cluster)
        self.played: Counter[str] = Counter()
        self._later: list[asyncio.Task[None]] = []

    async def play(self) -> None:
        """All faults at their times; returns when the last has passed and lost workers are replaced."""
        loop = self._cluster.loop
        for due, name in self._cluster.plan.faults:
            await asyncio.sleep(max(0.0, due - loop.time()))
            loop.note(f"fault {name}")
            self.played[name] += 1
            getattr(self, name)()
        for task in self._later:
            await task

    def heal_all(self) -> None:
        """Undo what lasts."""
        self.heal_links()
        for worker in self._cluster.workers:
            worker.store.trouble = 0
            worker.transfers.fails = 0.0
            worker.disturb_data(0.0, 0.0)
        for node in (self._cluster.server.node, *(worker.node for worker in self._cluster.workers)):
            node.resume()

    # --- workers --------------------------------------------------------------------------------

    def worker_crash(self) -> None:
        """A worker's process ends; another one joins later."""
        self._lose_worker("crash")

    def worker_dead_host(self) -> None:
        """A worker's host dies: nobody hears of it; another one joins later."""
        self._lose_worker("silent")

    def worker_stops(self) -> None:
        """A worker is told to end; another one joins later."""
        self._lose_worker("stop")

    def drain_worker(self) -> None:
        """A worker ends after its tasks are finished and its objects copied; another one joins later."""
        worker = self._worker()
        if worker is None:
            return
        known = self._cluster.server.core.state.workers
        if not worker.incarnations or worker.incarnations[-1] not in known:
            return
        self.lost_connections += 1
        self._cluster.workers.remove(worker)
        loop = self._cluster.loop
        name = known[worker.incarnations[-1]].worker_id
        self._cluster.server.ask(StopWorkers(1, [name], now=loop.rng.random() < 0.2))
        self._later.append(loop.create_task(self._replace(worker.cpus), name="replacement of a worker"))

        def end() -> None:
            if worker.node.process.alive:
                worker.node.crash()

        loop.call_outside(DRAIN_SECONDS, end)

    def pause_worker(self) -> None:
        """A worker stands still, perhaps for longer than the silence limit."""
        worker = self._worker()
        if worker is not None and not worker.node.process.paused:
            self.lost_connections += 1
            worker.node.pause()
            self._cluster.loop.call_outside(self._seconds(0.5, 40), worker.node.resume)

    def executor_crash(self) -> None:
        """An executor ends by a signal, or by itself."""
        worker = self._worker()
        if worker is not None:
            reason = "killed by signal 9"
            if not self._cluster.plan.is_first:
                reason = self._cluster.loop.rng.choice((reason, "killed by signal 11", "exit code 0", "exit code 3"))
            worker.node.process.run(worker.executors.fault, reason)

    def executor_hangs(self) -> None:
        """A run does not end for a while, perhaps for longer than its time limit."""
        worker = self._worker()
        if worker is not None:
            worker.node.process.run(worker.executors.hang, self._seconds(1, 40))

    def memory_exceeded(self) -> None:
        """A run uses more memory than it may."""
        worker = self._worker()
        if worker is not None:
            worker.node.process.run(worker.executors.exceed)

    def transfers_fail(self) -> None:
        """Half of a worker's transfers fail for some seconds."""
        worker = self._worker()
        if worker is not None:
            worker.transfers.fails = 0.5

            def end() -> None:
                worker.transfers.fails = 0.0

            self._cluster.loop.call_outside(self._seconds(1, 20), end)

    def slow_data(self) -> None:
        """Values leave a worker late, some not whole."""
        worker = self._worker()
        if worker is not None:
            worker.disturb_data(self._seconds(0.1, 8), 0.3)
            self._cluster.loop.call_outside(self._seconds(1, 20), worker.disturb_data, 0.0, 0.0)

    def damage(self) -> None:
        """A stored value cannot be read any more."""
        worker = self._worker()
        if worker is not None and worker.store.values:
            worker.damage(self._cluster.loop.rng.choice(sorted(worker.store.values)))

    def disk_full(self) -> None:
        """A worker's disk takes nothing for a while."""
        self._disk_refuses(errno.ENOSPC)

    def disk_error(self) -> None:
        """Writing to a worker's disk fails for a while."""
        self._disk_refuses(errno.EIO)

    # --- server, client, clocks -----------------------------------------------------------------

    def pause_server(self) -> None:
        """The server stands still for less than the silence limit."""
        self._pause_server(0.5, 8)

    def pause_server_for_long(self) -> None:
        """The server stands still for longer than the silence limit: everybody gives it up."""
        if self._rare():
            self.lost_connections += len(self._cluster.workers)
            self.disturbed_clients.update(client.node.name for client in self._cluster.clients)
            self._pause_server(16, 40)

    def client_crash(self) -> None:
        """A client's process ends."""
        clients = [client for client in self._cluster.clients if client.node.process.alive]
        if clients and self._rare():
            client = self._cluster.loop.rng.choice(clients)
            self.disturbed_clients.add(client.node.name)
            client.node.crash()

    def clock_jump(self) -> None:
        """The clock on the wall jumps by an hour, for everybody."""
        self._cluster.clock.jump(self._cluster.loop.rng.choice((-HOUR, HOUR)))

    # --- helpers --------------------------------------------------------------------------------

    def _pause_server(self, least: float, most: float) -> None:
        node = self._cluster.server.node
        if not node.process.paused:
            node.pause()
            self._cluster.loop.call_outside(self._seconds(least, most), node.resume)

    def _disk_refuses(self, number: int) -> None:
        worker = self._worker()
        if worker is not None:
            store = worker.store
            store.trouble = number
            store.refused_from = self._cluster.loop.rng.choice((0, INLINE_LIMIT, INLINE_LIMIT))

            def end() -> None:
                store.trouble = 0

            self._cluster.loop.call_outside(self._seconds(0.1, 10), end)

    def _lose_worker(self, how: str) -> None:
        worker = self._worker()
        if worker is None:
            return
        self.lost_connections += 1
        position = self._cluster.workers.index(worker)
        del self._cluster.workers[position]
        if how == "stop" and not worker.node.process.paused:
            worker.stop()
        else:
            worker.node.crash(silent=how == "silent")
        cpus = worker.cpus
        self._later.append(self._cluster.loop.create_task(self._replace(cpus), name="replacement of a worker"))

    async def _replace(self, cpus: int) -> None:
        await asyncio.sleep(self._seconds(0.1, 5))
        self._cluster.add_worker(cpus)
