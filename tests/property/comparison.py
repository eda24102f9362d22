"""What a server core shows, compared with the reference model."""

from __future__ import annotations

from array import array
from typing import TYPE_CHECKING

import msgpack

from rain.common.failure import Failure
from rain.common.states import DataObjectState, TaskState
from rain.protocol import messages as m
from rain.server.core.numbering import spans

if TYPE_CHECKING:
    from tests.property.fakes import Assignment, Key
    from tests.property.server_machine import ServerWorld


def compare_sessions(world: ServerWorld) -> None:
    """States and infos of all tasks and objects."""
    having = world.having()
    for number, session in world.reference.sessions.items():
        client = world.client_of[number]
        ids = sorted([*session.tasks, *session.objects])
        answer = world.silently(client, m.GetInfos(world.new_seq(), number, array("I", ids)))
        if session.failed is not None:
            assert isinstance(answer, m.Refused)
            failure = Failure.from_map(answer.failure)
            assert failure.kind == "task"
            assert failure.task == session.failed
            continue
        assert isinstance(answer, m.Infos), answer
        for position, one in enumerate(ids):
            info = answer.infos[position]
            if one in session.tasks:
                _compare_task(world, (number, one), TaskState(answer.states[position]), info, having)
            else:
                _compare_object(world, (number, one), answer.states[position], info)
        states = world.silently(client, m.GetStates(world.new_seq(), number, array("I")))
        wanted = bytes(answer.states[k] for k, one in enumerate(ids) if one in session.tasks)
        assert states.states == wanted, "GetStates does not agree with GetInfos"
        objects = bytes(answer.states[k] for k, one in enumerate(ids) if one not in session.tasks)
        parts = list(spans(array("I", ids))) if len(wanted) % 2 else []  # or all tasks
        firsts, counts = array("I", [first for first, _ in parts]), array("I", [stop - first for first, stop in parts])
        told = world.silently(client, m.GetCounts(world.new_seq(), number, firsts, counts))
        assert list(told.tasks) == [wanted.count(state) for state in TaskState]
        assert not parts or list(told.objects) == [objects.count(status) for status in DataObjectState]
        assert bool(told.failure) == (TaskState.failed in wanted), told.failure
    _compare_copies(world)


def _compare_copies(world: ServerWorld) -> None:
    """No worker keeps a copy that the server has forgotten."""
    for worker in world.workers.values():
        for number, one in worker.copies:
            session = world.reference.sessions[number]
            known = session.failed is not None or worker.name in session.objects[one].copies
            assert known, f"{worker.name} was not told to delete its copy of {number}/{one}"


def _compare_task(
    world: ServerWorld, key: Key, state: TaskState, info: bytes | None, having: dict[Key, Assignment]
) -> None:
    allowed = world.reference.allowed_task_states(*key)
    assert state in allowed, f"task {key}: {state.name}, allowed {[s.name for s in allowed]}"
    assignment = having.get(key)
    assert bool(assignment) == (state in (TaskState.assigned, TaskState.running)), (key, state)
    if assignment is not None:
        assert assignment.started == (state is TaskState.running), (key, state)
    if state is TaskState.finished:
        known = msgpack.unpackb(info or b"")
        assert abs(known["duration"] - world.durations[key]) < 1e-6, f"{key} took {known['duration']} s"
        assert 1 <= known["attempts"] <= world.last_run[key], f"{key}: {known['attempts']} attempts"


def _compare_object(world: ServerWorld, key: Key, state: int, info: bytes | None) -> None:
    expected = world.reference.object_state(*key)
    kinds = {expected}
    if expected is DataObjectState.aborted and not world.reference.sessions[key[0]].objects[key[1]].kept:
        kinds.add(DataObjectState.removed)  # it was lost when the last task that needed it was aborted
    assert state in kinds, f"object {key}: {DataObjectState(state).name}, expected {expected.name}"
    if expected is DataObjectState.removed:
        left = [w.name for w in world.workers.values() if key in w.copies]
        assert not left, f"object {key} is removed, {left} were not told to delete it"
    elif state == DataObjectState.finished and key in world.sizes:
        size = msgpack.unpackb(info or b"")["size"]
        assert size == world.sizes[key], f"object {key} has {size} bytes"


def compare_idle(world: ServerWorld) -> None:
    """No worker idles while a task waits which it could run (a reservation may hold it for ten seconds' sake)."""
    idle = [w for w in world.workers.values() if w.incarnation and not w.assigned and not w.stopping]
    if not idle or world.now > 10:
        return
    taken = world.having()
    for number, session in world.reference.sessions.items():
        for task in session.tasks if session.failed is None else ():
            if session.runnable(task) and (number, task) not in taken and not session.may_wait(task):
                cpus = world.cpus_of[number, task]
                assert all(worker.cpus < cpus for worker in idle), f"{number}/{task} waits, a worker idles"
