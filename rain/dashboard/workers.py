"""What is known of workers."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from rain.dashboard.series import Series
from rain.dashboard.times import number

if TYPE_CHECKING:
    from collections.abc import Mapping

MOST_LOST = 200
"""Lost workers that are shown."""
MOST_NUMBERS = 1 << 16
"""Workers that are told apart in columns of runs."""

_LOOPBACK = "lo"


class WorkerView:
    """One worker; attributes as in answers. traffic: (time, bytes received, bytes sent) as told last. is_draining: it
    ends as soon as nothing runs there."""

    def __init__(self, worker_id: str, since: float) -> None:
        self.worker_id = worker_id
        self.finished = 0
        self.history = Series(6)
        self.hostname = ""
        self.pid = 0
        self.resources: Any = {}
        self.register(since, {})

    def register(self, since: float, fields: dict[str, Any]) -> None:
        """It is there, for the first time or again."""
        self.since = since
        self.lost: float | None = None
        self.reason = ""
        self.cpu = 0.0
        self.memory = 0.0
        self.store: dict[str, Any] = {"memory": 0, "disk": 0}
        self.executors: dict[str, Any] = {}
        self.net = {"rx": 0.0, "tx": 0.0}
        self.traffic: tuple[float, float, float] | None = None
        self.is_draining = False
        self.hostname = fields.get("hostname", self.hostname)
        self.pid = fields.get("pid", self.pid)
        self.resources = fields.get("resources", self.resources)

    def remove(self, time: float, reason: str) -> None:
        """It ended or was lost."""
        self.lost, self.reason = time, reason
        self.net = {"rx": 0.0, "tx": 0.0}
        self.executors = {}

    def told(self, time: float, fields: dict[str, Any]) -> None:
        """It told of itself."""
        usage = [number(cpu) for cpu in fields.get("cpu_usage") or ()]
        self.cpu = sum(usage) / len(usage) if usage else 0.0
        self.memory = number(fields.get("mem_usage"))
        self.store = dict(fields.get("store") or self.store)
        self.executors = dict(fields.get("executors") or {})
        self._take_traffic(time, fields.get("net_stat") or {})
        stored = number(self.store.get("memory")) + number(self.store.get("disk"))
        self.history.add(time, self.cpu, self.memory, self.net["rx"], self.net["tx"], stored)

    def _take_traffic(self, time: float, interfaces: Mapping[str, Any]) -> None:
        counts = [pair for name, pair in interfaces.items() if name != _LOOPBACK]
        received, sent = (sum(number(pair[side]) for pair in counts) for side in (0, 1))
        if self.traffic is not None and time > self.traffic[0]:
            before, rx, tx = self.traffic
            self.net = {
                "rx": max(received - rx, 0.0) / (time - before),
                "tx": max(sent - tx, 0.0) / (time - before),
            }
        self.traffic = (time, received, sent)

    @property
    def state(self) -> str:
        """As in answers."""
        if self.lost is not None:
            return "lost"
        return "draining" if self.is_draining else "connected"

    def answer(self, running: int) -> dict[str, Any]:
        """All of it."""
        return {
            "id": self.worker_id,
            "hostname": self.hostname,
            "pid": self.pid,
            "resources": self.resources,
            "state": self.state,
            "since": self.since,
            "lost": self.lost,
            "reason": self.reason,
            "running": running,
            "finished": self.finished,
            "cpu": self.cpu,
            "memory": self.memory,
            "store": self.store,
            "executors": self.executors,
            "net": self.net,
            "history": self.history.points(),
        }


class Workers:
    """All workers.

    Attributes:
        names: ids by number. connected, lost: by id; of those that were lost only the last.
        removals: how many were lost.
    """

    def __init__(self) -> None:
        self.names: list[str] = []
        self.connected: dict[str, WorkerView] = {}
        self.lost: dict[str, WorkerView] = {}
        self.removals = 0
        self._numbers: dict[str, int] = {}

    def number(self, worker_id: str) -> int:
        """Of a worker in columns of runs."""
        known = self._numbers.get(worker_id)
        if known is None:
            known = self._numbers[worker_id] = min(len(self.names), MOST_NUMBERS - 1)
            if known == len(self.names):
                self.names.append(worker_id)
        return known

    def get(self, worker_id: str, time: float) -> WorkerView:
        """A worker; of one never heard of something is told now."""
        view = self.connected.get(worker_id) or self.lost.get(worker_id)
        if view is None:
            view = self.connected[worker_id] = WorkerView(worker_id, time)
        return view

    def added(self, time: float, worker_id: str, fields: dict[str, Any]) -> None:
        """It registered."""
        view = self.get(worker_id, time)
        self.removals -= self.lost.pop(worker_id, None) is not None
        self.connected[worker_id] = view
        view.register(time, fields)

    def removed(self, time: float, worker_id: str, reason: str) -> None:
        """It ended or was lost."""
        view = self.get(worker_id, time)
        self.connected.pop(worker_id, None)
        self.removals += self.lost.pop(worker_id, None) is None
        self.lost[worker_id] = view
        view.remove(time, reason)
        if len(self.lost) > MOST_LOST:
            del self.lost[next(iter(self.lost))]

    def stopping(self, worker_id: str) -> None:
        """It is to end."""
        if worker_id in self.connected:
            self.connected[worker_id].is_draining = True

    def counts(self) -> dict[str, int]:
        """How many are there, and how many are not any more."""
        return {"connected": len(self.connected), "lost": self.removals}

    def cpus(self) -> int:
        """Offered by connected workers."""
        return sum(_cpus_of(view.resources) for view in self.connected.values())

    def answer(self, running: Mapping[str, int]) -> dict[str, Any]:
        """Connected ones first. running: tasks by worker id."""
        views = [*self.connected.values(), *reversed(self.lost.values())]
        return {"workers": [view.answer(running.get(view.worker_id, 0)) for view in views]}


def _cpus_of(resources: Any) -> int:
    return int(number(resources.get("cpus"))) if isinstance(resources, dict) else 0
