"""Faults of a simulated cluster, each a method named as in `FAULTS`."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rain.testing.simcluster import SimCluster
    from rain.testing.simworker import SimWorker

FAULTS = (
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


class FaultPlayer:
    """Plays the faults of the plan.

    Attributes:
        disturbed_clients: names of clients whose connection a fault touched.
        lost_connections: faults after which the server may count a worker as lost.
    """

    def __init__(self, cluster: SimCluster) -> None:
        self.disturbed_clients: set[str] = set()
        self.lost_connections = 0
        self._cluster = cluster
        self._cuts: set[tuple[str, str]] = set()
        self._later: list[asyncio.Task[None]] = []

    async def play(self) -> None:
        """All faults at their times; returns when the last has passed and lost workers are replaced."""
        loop = self._cluster.loop
        for due, name in self._cluster.plan.faults:
            await asyncio.sleep(max(0.0, due - loop.time()))
            loop.note(f"fault {name}")
            getattr(self, name)()
        for task in self._later:
            await task

    def heal_all(self) -> None:
        """Undo what lasts."""
        for a, b in sorted(self._cuts):
            self._cluster.net.heal(a, b)
        self._cuts.clear()
        for node in (self._cluster.server.node, *(worker.node for worker in self._cluster.workers)):
            node.resume()

    # --- the faults -----------------------------------------------------------------------------

    def worker_crash(self) -> None:
        """A worker's process ends; another one joins later."""
        self._lose_worker(silent=False)

    def worker_dead_host(self) -> None:
        """A worker's host dies: nobody hears of it; another one joins later."""
        self._lose_worker(silent=True)

    def client_crash(self) -> None:
        """A client's process ends."""
        clients = [client for client in self._cluster.clients if client.node.process.alive]
        if clients and self._rare():
            client = self._cluster.loop.rng.choice(clients)
            self.disturbed_clients.add(client.node.name)
            client.node.crash()

    def executor_crash(self) -> None:
        """An executor is killed."""
        worker = self._worker()
        if worker is not None:
            worker.node.process.run(worker.executors.fault)

    def transfers_fail(self) -> None:
        """Half of a worker's transfers fail for some seconds."""
        worker = self._worker()
        if worker is not None:
            worker.transfers.fails = 0.5

            def end() -> None:
                worker.transfers.fails = 0.0

            self._cluster.loop.call_outside(self._seconds(1, 20), end)

    def break_worker(self) -> None:
        """The connection between a worker and the server breaks."""
        worker = self._worker()
        if worker is not None:
            self.lost_connections += 1
            self._cluster.net.break_connections(worker.name, "server")

    def break_workers(self) -> None:
        """Data connections between two workers break."""
        one, other = self._worker(), self._worker()
        if one is not None and other is not None and one is not other:
            self._cluster.net.break_connections(one.name, other.name)

    def break_client(self) -> None:
        """The connection between a client and the server breaks."""
        name = self._client()
        if name is not None and self._rare():
            self.disturbed_clients.add(name)
            self._cluster.net.break_connections(name, "server")

    def cut_worker(self) -> None:
        """A worker and the server cannot reach each other for a while."""
        worker = self._worker()
        if worker is not None:
            self.lost_connections += 1
            self._cut(worker.name, "server", one_way=False)

    def cut_worker_one_way(self) -> None:
        """Only one direction works, for longer than the silence limit."""
        worker = self._worker()
        if worker is not None:
            self.lost_connections += 1
            pair = [worker.name, "server"]
            self._cluster.loop.rng.shuffle(pair)
            self._cut(pair[0], pair[1], one_way=True, shortest=16.0)

    def cut_workers(self) -> None:
        """Two workers cannot reach each other for a while."""
        one, other = self._worker(), self._worker()
        if one is not None and other is not None and one is not other:
            self._cut(one.name, other.name, one_way=False)

    def cut_client(self) -> None:
        """A client and the server cannot reach each other for a while."""
        name = self._client()
        if name is not None and self._rare():
            self.disturbed_clients.add(name)
            self._cut(name, "server", one_way=False)

    def pause_worker(self) -> None:
        """A worker stands still, perhaps for longer than the silence limit."""
        worker = self._worker()
        if worker is not None and not worker.node.process.paused:
            self.lost_connections += 1
            worker.node.pause()
            self._cluster.loop.call_outside(self._seconds(0.5, 40), worker.node.resume)

    def pause_server(self) -> None:
        """The server stands still for less than the silence limit."""
        node = self._cluster.server.node
        if not node.process.paused:
            node.pause()
            self._cluster.loop.call_outside(self._seconds(0.5, 8), node.resume)

    def damage(self) -> None:
        """A stored value cannot be read any more."""
        worker = self._worker()
        if worker is not None and worker.store.values:
            worker.damage(self._cluster.loop.rng.choice(sorted(worker.store.values)))

    # --- helpers --------------------------------------------------------------------------------

    def _rare(self) -> bool:
        return self._cluster.loop.rng.random() < 0.3

    def _seconds(self, least: float, most: float) -> float:
        return self._cluster.loop.rng.uniform(least, most)

    def _worker(self) -> SimWorker | None:
        workers = self._cluster.workers
        return self._cluster.loop.rng.choice(workers) if workers else None

    def _client(self) -> str | None:
        names = [client.node.name for client in self._cluster.clients if client.node.process.alive]
        return self._cluster.loop.rng.choice(names) if names else None

    def _lose_worker(self, *, silent: bool) -> None:
        worker = self._worker()
        if worker is None:
            return
        self.lost_connections += 1
        position = self._cluster.workers.index(worker)
        del self._cluster.workers[position]
        worker.node.crash(silent=silent)
        cpus = worker.cpus
        self._later.append(self._cluster.loop.create_task(self._replace(cpus), name="replacement of a worker"))

    async def _replace(self, cpus: int) -> None:
        await asyncio.sleep(self._seconds(0.1, 5))
        self._cluster.add_worker(cpus)

    def _cut(self, a: str, b: str, *, one_way: bool, shortest: float = 0.5) -> None:
        self._cluster.net.cut(a, b, one_way=one_way)
        self._cuts.add((a, b))
        self._cluster.loop.call_outside(self._seconds(shortest, 40), self._cluster.net.heal, a, b)
