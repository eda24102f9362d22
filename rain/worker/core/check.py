"""The invariants of the worker core, walked by `WorkerCore.sanity_check`."""

from __future__ import annotations

from collections import Counter
from typing import TYPE_CHECKING

from rain.worker.core.batching import MAX_BATCH, MAX_BATCHES
from rain.worker.core.executors import BUSY, COMING, IDLE, STOPPING
from rain.worker.core.model import (
    EXPECTED,
    FETCHING,
    GONE,
    IN_BATCH,
    LOOKING,
    PRESENT,
    READY,
    RUNNING,
    STARTING,
    WAITING,
)
from rain.worker.core.objects import MAX_DELETE_LIST

if TYPE_CHECKING:
    from rain.worker.core.dispatch import Dispatcher
    from rain.worker.core.executors import Executor
    from rain.worker.core.model import DataObject, Session, Task
    from rain.worker.core.objects import ObjectTable


def check(objects: ObjectTable, dispatcher: Dispatcher) -> None:
    """Assert everything that must hold between two `handle` calls."""
    for number, session in objects.sessions.items():
        assert session.id == number
        _check_session(session, objects, dispatcher)
    _check_delete_list(objects)
    _check_queues(objects, dispatcher)
    _check_executors(objects, dispatcher)
    _check_resources(dispatcher)
    _check_limits(objects, dispatcher)
    _check_stops(objects, dispatcher)


def _check_session(session: Session, objects: ObjectTable, dispatcher: Dispatcher) -> None:
    assert session.solo <= set(session.tasks)
    users: Counter[DataObject] = Counter()
    for number, task in session.tasks.items():
        assert task.key[:2] == (session.id, number)
        if task.members:
            _check_block(task)
        users.update(task.inputs)
        users.update(task.outputs)
        _TASK_CHECKS[task.state](task, dispatcher)
    for number, obj in session.objects.items():
        assert obj.key == (session.id, number)
        assert obj.users == users[obj], f"{obj.key}: {obj.users} users noted, {users[obj]} there"
        _check_object(obj, session, objects)
    _check_consumers(session)


def _check_block(task: Task) -> None:
    template = task.template
    assert template.queue.batched
    assert template.timeout is None
    assert task.args is not None
    assert not task.outputs
    if task.link is not None:
        assert task.link.template(0)[0] == template.number
        assert len(task.link.which) in (0, task.members)
        assert all(template.session.templates[number].queue is template.queue for number, _ in task.link.templates)
    if task.executor is not None and task.executor.line:
        assert _batch_of(task, task.executor) == [task]


def _batch_of(task: Task, executor: Executor) -> list[Task]:
    """What is left of the batch in which a task was sent."""
    line, start = list(executor.line), 0
    for count in executor.batches:
        if task in line[start : start + count]:
            return line[start : start + count]
        start += count
    return []


def _check_consumers(session: Session) -> None:
    """Waiting tasks stand at each missing input, once per occurrence."""
    waiting = [task for task in session.tasks.values() if task.state == WAITING]
    wanted = Counter((task, obj) for task in waiting for obj in task.inputs if obj.state != PRESENT)
    noted = Counter(
        (task, obj) for obj in session.objects.values() for task in obj.consumers or () if task.state == WAITING
    )
    assert wanted == noted


def _check_object(obj: DataObject, session: Session, objects: ObjectTable) -> None:
    assert obj.state != GONE
    if obj.producer is not None:
        assert session.tasks[obj.producer.key[1]] is obj.producer
        assert obj in obj.producer.outputs
    if obj.state == EXPECTED:
        assert obj.producer is not None
    elif obj.state == FETCHING:
        assert obj.users
    if obj.state == PRESENT:
        assert obj.consumers is None
        assert (obj in objects.delete_list) == (obj.unneeded and not obj.users)
    else:
        assert not obj.cached_by
    for executor in obj.cached_by or ():
        assert obj.key in executor.cached


def _missing(task: Task) -> int:
    return sum(obj.state != PRESENT for obj in task.inputs)


def _check_waiting(task: Task, dispatcher: Dispatcher) -> None:
    assert task.missing == _missing(task) > 0
    assert task.executor is None


def _check_looking(task: Task, dispatcher: Dispatcher) -> None:
    assert task.template.cached
    assert not task.looked
    assert task.missing == _missing(task) == 0
    assert task.executor is None


def _check_ready(task: Task, dispatcher: Dispatcher) -> None:
    assert task.missing == _missing(task) == 0
    assert task.executor is None


def _check_starting(task: Task, dispatcher: Dispatcher) -> None:
    assert _missing(task) == 0
    assert task.executor is not None
    assert task.executor.bound is task
    assert task.executor.state == COMING


def _check_running(task: Task, dispatcher: Dispatcher) -> None:
    if task.executor is None:
        assert dispatcher.builtins[task.key][0] is task
    else:
        assert task.executor.line[0] is task


def _check_in_batch(task: Task, dispatcher: Dispatcher) -> None:
    assert task.executor is not None
    assert task in list(task.executor.line)[1:]


_TASK_CHECKS = {
    WAITING: _check_waiting,
    LOOKING: _check_looking,
    READY: _check_ready,
    STARTING: _check_starting,
    RUNNING: _check_running,
    IN_BATCH: _check_in_batch,
}


def _check_delete_list(objects: ObjectTable) -> None:
    assert len(objects.delete_list) <= MAX_DELETE_LIST
    for obj in objects.delete_list:
        assert obj.state == PRESENT
        assert obj.unneeded
        assert objects.find(obj.key) is obj
    deadlines = list(objects.delete_list.values())
    assert deadlines == sorted(deadlines)


def _check_queues(objects: ObjectTable, dispatcher: Dispatcher) -> None:
    ready = {task for session in objects.sessions.values() for task in session.tasks.values() if task.state == READY}
    queued: list[Task] = []
    templates = Counter(
        template.queue for session in objects.sessions.values() for template in session.templates.values()
    )
    queues = dispatcher.queues.queues.values()
    assert set(queues) == set(templates)
    for queue in queues:
        members = list(queue)
        assert len(members) == queue.count
        assert all(task.template.queue is queue for task in members)
        assert queue.templates == templates[queue]
        assert queue.in_flight == sum(len(executor.line) for executor in queue.busy)
        queued += members
    assert len(queued) == len(ready)
    assert set(queued) == ready
    assert dispatcher.queues.next(dispatcher.pool) is None, "a ready task fits and was not started"


def _check_executors(objects: ObjectTable, dispatcher: Dispatcher) -> None:
    dispatcher.executors.check()
    for executor in dispatcher.executors.all.values():
        if executor.queue is not None:
            assert executor in executor.queue.busy
        assert (executor.queue is not None) == (executor.state == BUSY or executor.bound is not None)
        for key in executor.cached:
            obj = objects.find(key)
            assert obj is not None
            assert obj.cached_by is not None
            assert executor in obj.cached_by
        _check_line(executor)
    for queue in dispatcher.queues.queues.values():
        assert all(dispatcher.executors.all[executor.id] is executor for executor in queue.busy)


def _check_line(executor: Executor) -> None:
    assert (executor.state == BUSY) == bool(executor.line)
    assert sum(executor.batches) == len(executor.line)
    assert all(0 < count <= MAX_BATCH for count in executor.batches)
    assert len(executor.batches) <= MAX_BATCHES
    if executor.line:
        assert executor.line[0].state == RUNNING
        assert executor.announced is executor.line[0]
    else:
        assert executor.announced is None
    assert executor.state in (COMING, IDLE, BUSY, STOPPING)
    assert (executor.held is not None) == (executor.state == STOPPING)
    assert (executor.state == STOPPING) == bool(executor.unconfirmed)
    if executor.state == STOPPING:
        assert not executor.cached
    for position, task in enumerate(executor.line):
        assert task.state == GONE or (task.executor is executor and (task.state == RUNNING) == (position == 0))


def _check_resources(dispatcher: Dispatcher) -> None:
    pool = dispatcher.pool
    held = [(task.template.queue.request, gpus) for task, gpus, _ in dispatcher.builtins.values()]
    held += [(task.template.queue.request, gpus) for task, gpus in dispatcher.stopping_builtins.values()]
    held += [executor.held for executor in dispatcher.executors.all.values() if executor.held is not None]
    held += [(e.queue.request, e.gpus) for e in dispatcher.executors.all.values() if e.queue is not None]
    assert pool.free_cpus + sum(request.cpus for request, _ in held) == pool.cpus
    assert pool.free_places + sum(request.cpus == 0 for request, _ in held) == pool.places
    assert pool.free_memory + sum(request.memory for request, _ in held) == pool.memory
    gpus = sorted([*pool.free_gpus, *(gpu for _, indices in held for gpu in indices)])
    assert gpus == list(pool.gpus)
    used: Counter[str] = Counter()
    for request, _ in held:
        used.update(dict(request.custom))
    assert {name: steps + used[name] for name, steps in pool.free_custom.items()} == pool.custom
    assert min(pool.free_cpus, pool.free_places, pool.free_memory, *pool.free_custom.values(), 0) == 0


def _check_limits(objects: ObjectTable, dispatcher: Dispatcher) -> None:
    tasks = [task for session in objects.sessions.values() for task in session.tasks.values()]
    limited = {task for task in tasks if task.state == RUNNING and task.template.timeout is not None}
    assert set(dispatcher.deadlines.until) == limited
    for task in tasks:
        if task.template.timeout is not None and task.executor is not None and task.state != STARTING:
            assert list(task.executor.line) == [task]


def _check_stops(objects: ObjectTable, dispatcher: Dispatcher) -> None:
    """Whatever the server is to hear of has an end that will be told."""
    unconfirmed = set(dispatcher.stopping_builtins)
    for executor in dispatcher.executors.all.values():
        unconfirmed.update(executor.unconfirmed)
        unconfirmed.update(task.key for task in executor.line if task.state == GONE)
        if executor.state == STOPPING:
            assert executor.unconfirmed[0][0] in objects.sessions
    assert set(dispatcher.stops.pending) <= unconfirmed
    assert all(key[0] in objects.sessions for key in dispatcher.stops.pending)
    assert all(key[0] in objects.sessions for key in dispatcher.stopping_builtins)
