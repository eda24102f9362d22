"""Cancelling tasks, arrays and sessions."""

from __future__ import annotations

import pytest

from rain.client import RainException, RainTimeoutError, SessionException, TaskCancelled, TaskException, tasks
from rain.common.failure import Failure
from rain.common.states import TaskState
from rain.protocol.messages import Cancel, Cancelled, Refused, StopWaiting, Wait


@pytest.fixture
def task(session):
    made = tasks.concat([])
    session.submit()
    return made


def test_task(task, server):
    assert task.cancel() is True
    assert task.state is TaskState.cancelled
    assert list(server.all(Cancel)[0].ids) == [task.id.id]


def test_a_terminal_task(task, server):
    server.ended = {task.id.id}
    assert task.cancel() is False
    assert task.state is TaskState.notAssigned


def test_an_unsubmitted_task(session, server):
    with pytest.raises(RainException, match="not submitted"):
        tasks.concat([]).cancel()
    assert not server.all(Cancel)


def test_session(session, task, server, monkeypatch):
    monkeypatch.setattr(server, "_answer", lambda message: [Cancelled(message.seq, server_ids(task))])
    assert session.cancel() == 1
    assert task.state is TaskState.cancelled
    assert not server.all(Cancel)[0].ids


def server_ids(task):
    from array import array

    return array("I", [task.id.id])


def test_many(session, server):
    made, other = session.map(str, range(3000)), tasks.concat([])
    first, second = made[7], made[8]
    session.submit()
    server.ended = {second.id.id}
    assert made.cancel() == 2999
    assert [one.state for one in (first, second, other)] == [
        TaskState.cancelled,
        TaskState.notAssigned,
        TaskState.notAssigned,
    ]


def test_nothing_submitted(session, server):
    tasks.concat([])
    assert session.cancel() == 0
    assert not server.all(Cancel)


def test_closed_session(session, task):
    session.close()
    with pytest.raises(SessionException):
        session.cancel()
    with pytest.raises(SessionException):
        task.cancel()


def test_failed_session(session, task, server, task_failure):
    server.failures[session.session_id] = task_failure(task=task.id.id)
    assert task.cancel() is False
    assert session.cancel() == 0


def test_timeout(task, server):
    server.silent = {Cancel}
    with pytest.raises(RainTimeoutError, match="cancelling <Concat"):
        task.cancel(timeout=0.01)
    assert server.all(StopWaiting)


def test_waiting_for_what_was_cancelled(session, task, server, monkeypatch):
    failure = Failure("cancelled", "The task was cancelled", session=session.session_id, task=task.id.id)
    answer = server._answer
    monkeypatch.setattr(
        server,
        "_answer",
        lambda message: [Refused(message.seq, failure.to_map())] if isinstance(message, Wait) else answer(message),
    )
    server.states = {task.id.id: TaskState.cancelled}
    task.cancel()
    with pytest.raises(TaskCancelled, match="was cancelled") as caught:
        task.wait()
    assert isinstance(caught.value, TaskException)
    assert caught.value.task is task
    assert task.state is TaskState.cancelled


def test_states_after_wait_all(session, task, server):
    task.cancel()
    server.states = {task.id.id: TaskState.cancelled, task.output.id.id: 3}
    session.wait_all()
    assert task.state is TaskState.cancelled
    assert task.output.state.name == "aborted"
