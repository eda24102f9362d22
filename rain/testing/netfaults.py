"""Faults of the network of a simulated cluster."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rain.testing.simcluster import SimCluster
    from rain.testing.simworker import SimWorker

MESSAGES = (
    "Accepted",
    "AssignTasks",
    "Cancel",
    "Cancelled",
    "CancelTasks",
    "CloseSession",
    "DataAnswer",
    "DataRequest",
    "DeleteObjects",
    "EndSession",
    "FetchObjects",
    "GetInfos",
    "GetServerInfo",
    "GetStates",
    "GetWorkerInfo",
    "Heartbeat",
    "Infos",
    "NewSession",
    "ObjectsFetched",
    "ObjectsMissing",
    "ObjectsStored",
    "Refused",
    "ServerInfo",
    "SessionCreated",
    "States",
    "StopWaiting",
    "SubmitBlock",
    "SubmitChunk",
    "SubmitCommit",
    "TaskFailed",
    "TasksDone",
    "TasksReturned",
    "TasksStarted",
    "TasksStopped",
    "UnkeepObjects",
    "Wait",
    "WaitDone",
    "WithdrawTasks",
    "WorkerDigest",
    "WorkerHello",
    "WorkerInfo",
    "WorkerMonitoring",
    "WorkerWelcome",
)
"""The types of message at each of which a connection may break."""
ASKED = ("GetServerInfo", "ServerInfo", "GetWorkerInfo", "WorkerInfo")
"""Those which real clients cause when they ask for the state of the cluster."""
SLOWEST = 30.0
"""Longest one-way delay in seconds."""


class NetworkFaults:
    """What can happen to connections.

    Attributes:
        disturbed_clients: names of clients whose connection a fault touched.
        lost_connections: faults after which the server may count a worker as lost.
    """

    def __init__(self, cluster: SimCluster) -> None:
        self.disturbed_clients: set[str] = set()
        self.lost_connections = 0
        self._cluster = cluster
        self._links: set[tuple[str, str]] = set()
        self._is_over = False
        cluster.net.sabotage.struck = self._struck

    def heal_links(self) -> None:
        """Undo cuts and delays; there will be no others."""
        self._is_over = True
        for a, b in sorted(self._links):
            self._cluster.net.heal(a, b)
        self._links.clear()

    # --- broken ---------------------------------------------------------------------------------

    def break_worker(self) -> None:
        """The connection between a worker and the server breaks."""
        worker = self._worker()
        if worker is not None:
            self.lost_connections += 1
            self._cluster.net.break_connections(worker.name, "server")

    def break_workers(self) -> None:
        """Data connections between two workers break."""
        pair = self._two_workers()
        if pair is not None:
            self._cluster.net.break_connections(*pair)

    def break_client(self) -> None:
        """The connection between a client and the server breaks."""
        name = self._client()
        if name is not None and self._rare():
            self.disturbed_clients.add(name)
            self._cluster.net.break_connections(name, "server")

    def half_open_worker(self) -> None:
        """The connection between a worker and the server carries nothing any more, and nobody says so."""
        worker = self._worker()
        if worker is not None:
            self.lost_connections += 1
            self._cluster.net.stall_connections(worker.name, "server")

    def half_open_workers(self) -> None:
        """The same between two workers."""
        pair = self._two_workers()
        if pair is not None:
            self._cluster.net.stall_connections(*pair)

    def half_open_client(self) -> None:
        """The same between a client and the server."""
        name = self._client()
        if name is not None and self._rare():
            self.disturbed_clients.add(name)
            self._cluster.net.stall_connections(name, "server")

    # --- cut ------------------------------------------------------------------------------------

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
            self._cut(pair[0], pair[1], one_way=True, shortest=16)

    def cut_workers(self) -> None:
        """Two workers cannot reach each other for a while."""
        pair = self._two_workers()
        if pair is not None:
            self._cut(*pair, one_way=False)

    def cut_client(self) -> None:
        """A client and the server cannot reach each other for a while."""
        name = self._client()
        if name is not None and self._rare():
            self.disturbed_clients.add(name)
            self._cut(name, "server", one_way=False)

    def flap_worker(self) -> None:
        """A worker and the server are cut off and connected again and again."""
        worker = self._worker()
        if worker is not None:
            self.lost_connections += 1
            self._flap(worker.name, self._cluster.loop.rng.randint(3, 15))

    def clog_workers(self) -> None:
        """Workers are cut off one by one, and connected again in another order."""
        loop, names = self._cluster.loop, [worker.name for worker in self._cluster.workers]
        if names:
            names = loop.rng.sample(names, loop.rng.randint(1, len(names)))
            self.lost_connections += len(names)
            after = 0.0
            for name in names:
                after += self._seconds(0.0, 2)
                loop.call_outside(after, self._hold, name)
            for name in loop.rng.sample(names, len(names)):
                after += self._seconds(0.0, 8)
                loop.call_outside(after, self._cluster.net.heal, name, "server")

    # --- slow -----------------------------------------------------------------------------------

    def slow_worker(self) -> None:
        """What a worker and the server send each other comes late."""
        worker = self._worker()
        if worker is not None:
            self.lost_connections += 1
            self._slow(worker.name, "server")

    def slow_workers(self) -> None:
        """The same between two workers."""
        pair = self._two_workers()
        if pair is not None:
            self._slow(*pair)

    def slow_client(self) -> None:
        """The same between a client and the server."""
        name = self._client()
        if name is not None and self._rare():
            self.disturbed_clients.add(name)
            self._slow(name, "server")

    # --- helpers --------------------------------------------------------------------------------

    def _rare(self) -> bool:
        return self._cluster.loop.rng.random() < 0.3

    def _seconds(self, least: float, most: float) -> float:
        return self._cluster.loop.rng.uniform(least, most)

    def _worker(self) -> SimWorker | None:
        workers = self._cluster.workers
        return self._cluster.loop.rng.choice(workers) if workers else None

    def _two_workers(self) -> tuple[str, str] | None:
        one, other = self._worker(), self._worker()
        return None if one is None or other is None or one is other else (one.name, other.name)

    def _client(self) -> str | None:
        names = [client.node.name for client in self._cluster.clients if client.node.process.alive]
        return self._cluster.loop.rng.choice(names) if names else None

    def _struck(self, source: str, target: str) -> None:
        """A connection breaks at a message."""
        self.disturbed_clients.update(name for name in (source, target) if name.startswith("client"))
        self.lost_connections += "server" in (source, target)

    def _cut(self, a: str, b: str, *, one_way: bool, shortest: float = 0.5) -> None:
        self._cluster.net.cut(a, b, one_way=one_way)
        self._links.add((a, b))
        self._cluster.loop.call_outside(self._seconds(shortest, 40), self._cluster.net.heal, a, b)

    def _hold(self, name: str) -> None:
        if self._is_over:
            return
        self._cluster.net.cut(name, "server")
        self._links.add((name, "server"))

    def _flap(self, name: str, left: int) -> None:
        if left:
            loop = self._cluster.loop
            self._hold(name)
            down = self._seconds(0.05, 3)
            loop.call_outside(down, self._cluster.net.heal, name, "server")
            loop.call_outside(down + self._seconds(0.05, 3), self._flap, name, left - 1)

    def _slow(self, a: str, b: str) -> None:
        most = self._cluster.loop.rng.choice((0.3, 3.0, SLOWEST))
        self._cluster.net.slow(a, b, (0.0, most))
        self._links.add((a, b))
        self._cluster.loop.call_outside(self._seconds(1, 40), self._cluster.net.heal, a, b)
