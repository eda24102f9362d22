"""What a dump tells of a worker: counts, states and ids; no values, arguments or contents of environments.

Everything in it is JSON. Lists are cut to `LISTED` entries; the counts beside them are complete.
"""

from __future__ import annotations

from collections import Counter
from itertools import islice
from typing import TYPE_CHECKING, Any

from rain.worker.core.model import EXPECTED, FETCHING, PRESENT, WAITING

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping

    from rain.worker.core.dispatch import Dispatcher
    from rain.worker.core.events import ObjectKey, TaskKey
    from rain.worker.core.executors import Executor
    from rain.worker.core.model import DataObject, Session, Task
    from rain.worker.core.queues import Env
    from rain.worker.core.resources import ResourcePool

LISTED = 50
"""Entries of a list."""
INPUTS = 5
"""Missing inputs named per waiting task."""


def full_state(
    sessions: Mapping[int, Session], dispatcher: Dispatcher, delete_list: Mapping[DataObject, float], now: float
) -> dict[str, Any]:
    """All that the core knows, as far as it helps to find out why something does not go on.

    Args:
        sessions: those of the worker.
        dispatcher: its queues, executors, built-in tasks and stops.
        delete_list: unneeded objects.
        now: unix seconds; times are told as seconds before it.
    """
    fetching = [obj for session in sessions.values() for obj in session.objects.values() if obj.state == FETCHING]
    stopping = dispatcher.stops.pending
    return {
        "resources": _resources(dispatcher.pool),
        "executors": [_executor(executor, now) for executor in dispatcher.executors.all.values()],
        "builtins": [
            {"run": run_name(key), "type": task.template.data.get("task_type"), "seconds": _ago(start, now)}
            for key, (task, _, start) in islice(dispatcher.builtins.items(), LISTED)
        ],
        "queues": [
            {
                "type": queue.type or "built-in",
                "environment": _names(queue.env),
                "request": str(queue.request),
                "ready": queue.count,
                "in_flight": queue.in_flight,
                "executors": [executor.id for executor in queue.busy],
            }
            for queue in islice(dispatcher.queues.queues.values(), LISTED)
        ],
        "queue_count": len(dispatcher.queues.queues),
        "sessions": [_session(session) for session in islice(sessions.values(), LISTED)],
        "session_count": len(sessions),
        "stopping": {
            "count": len(stopping),
            "runs": [
                {"run": run_name(key), "grace": stop.grace, "fails": stop.verdict is not None}
                for key, stop in islice(stopping.items(), LISTED)
            ],
            "builtins": [run_name(key) for key in islice(dispatcher.stopping_builtins, LISTED)],
        },
        "transfers": {
            "count": len(fetching),
            "bytes": sum(obj.size for obj in fetching),
            "objects": [{"object": object_name(obj.key), "bytes": obj.size} for obj in fetching[:LISTED]],
        },
        "delete_list": len(delete_list),
    }


def run_name(key: TaskKey) -> str:
    """`1/12 run 1`."""
    session, task, run = key
    return f"{session}/{task} run {run}"


def object_name(key: ObjectKey) -> str:
    """`1/10`."""
    return f"{key[0]}/{key[1]}"


def _names(env: Env) -> list[str]:
    """The variables without their values, which may be secrets."""
    return [name for name, _ in env]


def _ago(start: float, now: float) -> float:
    return round(max(0.0, now - start), 3)


def _resources(pool: ResourcePool) -> dict[str, Any]:
    return {
        "offered": str(pool.amounts),
        "cpus": {"free": pool.free_cpus, "total": pool.cpus},
        "places_without_cpus": {"free": pool.free_places, "total": pool.places},
        "gpus": {"free": list(pool.free_gpus), "total": list(pool.gpus)},
        "memory": {"free": pool.free_memory, "total": pool.memory},
        "custom_units": {name: {"free": pool.free_custom[name], "total": units} for name, units in pool.custom.items()},
    }


def _executor(executor: Executor, now: float) -> dict[str, Any]:
    first = executor.line[0] if executor.line else None
    return {
        "id": executor.id,
        "type": executor.kind[0],
        "environment": _names(executor.kind[1]),
        "state": executor.state,
        "spare": executor.spare,
        "gpus": list(executor.gpus),
        "starts_for": None if executor.bound is None else run_name(executor.bound.key),
        "runs": None if first is None else run_name(first.key),
        "seconds": None if first is None else _ago(executor.head_since, now),
        "in_line": len(executor.line),
        "cached_objects": len(executor.cached),
        "to_be_confirmed": [run_name(key) for key in executor.unconfirmed[:LISTED]],
    }


def _session(session: Session) -> dict[str, Any]:
    tasks: Counter[str] = Counter()
    for task in session.tasks.values():
        tasks[task.state] += max(task.members, 1)
    objects: Counter[str] = Counter()
    sizes: Counter[str] = Counter()
    for obj in session.objects.values():
        objects[obj.state] += 1
        sizes[obj.state] += obj.size
    return {
        "session": session.id,
        "tasks": dict(tasks),
        "objects": {state: {"count": objects[state], "bytes": sizes[state]} for state in sorted(objects)},
        "templates": len(session.templates),
        "waiting": [_waiting(task) for task in islice(_waiting_tasks(session.tasks.values()), LISTED)],
    }


def _waiting_tasks(tasks: Iterable[Task]) -> Iterator[Task]:
    return (task for task in tasks if task.state == WAITING)


def _waiting(task: Task) -> dict[str, Any]:
    missing = [obj for obj in task.inputs if obj.state != PRESENT]
    return {"run": run_name(task.key), "missing": len(missing), "inputs": [_input(obj) for obj in missing[:INPUTS]]}


def _input(obj: DataObject) -> str:
    if obj.state == EXPECTED and obj.producer is not None:
        return f"{object_name(obj.key)} is expected from {run_name(obj.producer.key)}, which is {obj.producer.state}"
    return f"{object_name(obj.key)} is {obj.state}"
