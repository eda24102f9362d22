"""What workers tell of themselves from time to time, and the figures of the server for monitoring systems."""

from __future__ import annotations

from collections import Counter
from math import isfinite
from typing import TYPE_CHECKING, Any

from rain.common.states import TaskState
from rain.common.structs import dataclass
from rain.server.core import recording
from rain.server.core.counts import count_tasks
from rain.server.core.lies import ReportError

if TYPE_CHECKING:
    from rain.protocol.messages import WorkerMonitoring
    from rain.server.core.state import ServerState
    from rain.server.core.workers import Worker

_MOST_PARTS = 4096
_LONGEST_NAME = 256


@dataclass(frozen=True, slots=True)
class Metrics:
    """Figures of the server at one moment.

    Attributes:
        tasks: of all sessions, by name of TaskState. sessions: `open` and `failed`. workers: `connected`, `draining`.
        totals: since the start, only growing: submitted started finished failed cancelled aborted retried recomputed
            (tasks), lost_workers, stopped_workers.
        queued: tasks that wait for a worker. clients: connected ones.
        monitoring: the last WorkerMonitoring by worker id.
    """

    tasks: dict[str, int]
    sessions: dict[str, int]
    workers: dict[str, int]
    totals: dict[str, int]
    queued: int
    clients: int
    monitoring: dict[str, dict[str, Any]]


TOTALS = (
    "submitted",
    "started",
    "finished",
    "failed",
    "cancelled",
    "aborted",
    "retried",
    "recomputed",
    "lost_workers",
    "stopped_workers",
)


def metrics(state: ServerState) -> Metrics:
    """The figures as they are now."""
    tasks = Counter({status.name: 0 for status in TaskState})
    for session in state.sessions.values():
        for status, count in enumerate(count_tasks(session.graph)):
            tasks[TaskState(status).name] += count
    failed = sum(session.failure is not None for session in state.sessions.values())
    draining = sum(worker.draining is not None for worker in state.workers.values())
    return Metrics(
        tasks=dict(tasks),
        sessions={"open": len(state.sessions) - failed, "failed": failed},
        workers={"connected": len(state.workers) - draining, "draining": draining},
        totals={name: state.totals[name] for name in TOTALS},
        queued=sum(session.ready for session in state.sessions.values()),
        clients=sum(not client.is_own for client in state.clients.values()),
        monitoring={worker.worker_id: worker.told_of_itself for worker in state.workers.values()},
    )


def worker_monitoring(state: ServerState, worker: Worker, message: WorkerMonitoring) -> None:
    """Record and remember what a worker told of itself."""
    worker.told_of_itself = _checked(message.info)
    fields = {**recording.worker_fields(worker.worker_id), **worker.told_of_itself}
    recording.happened(state, "Monitoring", None, fields)


def _checked(info: dict[str, Any]) -> dict[str, Any]:
    """The figures a worker may tell, in the shape they must have: others read them.

    Raises:
        ReportError: something else is in there.
    """
    sound = (
        _are_numbers(info.get("cpu_usage", []))
        and _is_number(info.get("mem_usage", 0))
        and _is_map(info.get("net_stat", {}), lambda pair: len(pair) == 2 and _are_numbers(pair))
        and all(_is_map(info.get(name, {}), _is_number) for name in ("store", "executors", "transfers", "cache"))
    )
    if not sound:
        raise ReportError("its monitoring is not well formed")
    names = ("cpu_usage", "mem_usage", "net_stat", "store", "executors", "transfers", "cache")
    return {name: info[name] for name in names if name in info}


def _is_number(value: Any) -> bool:
    return type(value) is int or (type(value) is float and isfinite(value))


def _are_numbers(values: Any) -> bool:
    return type(values) is list and len(values) <= _MOST_PARTS and all(map(_is_number, values))


def _is_map(value: Any, is_sound: Any) -> bool:
    if type(value) is not dict or len(value) > _MOST_PARTS:
        return False
    names = all(type(name) is str and len(name) <= _LONGEST_NAME and name.isprintable() for name in value)
    return names and all(type(part) in (int, float, list) and is_sound(part) for part in value.values())
