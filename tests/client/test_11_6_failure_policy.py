"""on_failure="continue": what raises, and what handles know afterwards."""

from __future__ import annotations

import pytest

from rain.client import TaskException, blob, delayed, tasks
from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import WAIT_SESSION, GetCounts, GetStates, NewSession, Refused, Wait, WaitDone


@pytest.fixture
def careful(client):
    """An active session that goes on after failures."""
    with client.new_session(on_failure="continue").bind_only() as made:
        yield made
        made.close()


@pytest.fixture
def refusing(server, monkeypatch, task_failure):
    """`refusing(kinds, task)`: these kinds of messages are answered with the failure of the task."""
    answer = server._answer

    def use(kinds, task):
        def refuse(message):
            if isinstance(message, kinds):
                return [Refused(message.seq, task_failure(session=task.id.session_id, task=task.id.id).to_map())]
            return answer(message)

        monkeypatch.setattr(server, "_answer", refuse)

    return use


@pytest.fixture
def graph_of_two(careful, server):
    """A failed task and its aborted dependent, submitted, and how the server sees them."""
    bad = tasks.concat([blob(b"x")])
    after = tasks.concat([bad])
    careful.submit()
    server.states = {
        bad.id.id: TaskState.failed,
        bad.output.id.id: DataObjectState.aborted,
        after.id.id: TaskState.aborted,
        after.output.id.id: DataObjectState.aborted,
    }
    return bad, after


def test_the_policy_is_told(client, careful, server):
    assert server.all(NewSession)[-1].on_failure == "continue"
    assert careful.spec.on_failure == "continue"
    with pytest.raises(ValueError, match="on_failure"):
        client.new_session(on_failure="stop")


def test_wait_all(careful, graph_of_two, refusing):
    bad, after = graph_of_two
    refusing(Wait, bad)
    with pytest.raises(TaskException) as caught:
        careful.wait_all()
    assert caught.value.task is bad
    assert (bad.state, after.state) == (TaskState.failed, TaskState.aborted)
    assert (bad.output.state, after.output.state) == (DataObjectState.aborted, DataObjectState.aborted)
    assert bad.inputs[0].state is DataObjectState.finished
    careful.wait_all(check=False)
    assert (bad.state, after.state) == (TaskState.failed, TaskState.aborted)
    careful.submit()
    careful.update(bad.inputs[0])


def test_check_has_no_effect_in_a_session_that_fails(session, server, task_failure):
    task = tasks.concat([])
    session.submit()
    server.failures[session.session_id] = task_failure(task=task.id.id)
    with pytest.raises(TaskException):
        session.wait_all(check=False)
    assert task.state is TaskState.failed


def test_wait(careful, graph_of_two, refusing):
    bad, after = graph_of_two
    refusing(Wait, bad)
    for call in (after.wait, lambda: careful.wait([after, after.output])):
        with pytest.raises(TaskException) as caught:
            call()
        assert caught.value.task is bad
    assert after.state is TaskState.aborted
    assert after.output.state is DataObjectState.aborted


def test_wait_some(careful, graph_of_two, server):
    bad, after = graph_of_two
    server.finished = {bad.id.id, after.output.id.id}
    assert careful.wait_some([bad, after, after.output]) == ([bad], [after.output])
    assert bad.state is TaskState.failed
    assert after.output.state is DataObjectState.aborted
    assert after.state is TaskState.notAssigned


def test_members_of_arrays(careful, server, refusing):
    made = careful.map(lambda x: x, range(3))
    careful.submit()
    early = made[1]
    numbers = [task.id.id for task in made]
    server.states = {**dict.fromkeys(numbers, TaskState.finished), numbers[1]: TaskState.failed}
    refusing(Wait, early)
    with pytest.raises(TaskException) as caught:
        careful.wait_all()
    assert caught.value.task is early
    assert [task.state.name for task in made] == ["finished", "failed", "finished"]
    assert [task.output.state.name for task in made] == ["finished", "aborted", "finished"]


def test_counts(careful, server):
    assert careful.counts() == {}
    task = delayed(lambda: 0)()
    careful.submit()
    server.states = {task.id.id: TaskState.running}
    assert careful.counts() == {"running": 1}
    assert not server.all(GetCounts)[-1].firsts
    assert not server.all(GetStates)


def test_a_session_without_failures(careful, server):
    task = tasks.concat([])
    careful.submit()
    server.states = {task.id.id: TaskState.finished}
    careful.wait_all()
    assert task.state is TaskState.finished
    (message,) = server.all(Wait)
    assert message.mode == WAIT_SESSION
    assert isinstance(server(message)[0], WaitDone)
