"""Sessions: submit, wait, fetch, update, close."""

from __future__ import annotations

import os
import signal
import warnings

import pytest

from rain.client import (
    DataObject,
    InvalidRequestError,
    RainConnectionError,
    RainException,
    RainTimeoutError,
    RainWarning,
    SessionException,
    Task,
    TaskException,
    as_completed,
    blob,
    gather,
    tasks,
)
from rain.client.session import Session
from rain.common.states import DataObjectState, TaskState
from rain.protocol.messages import (
    WAIT_ALL,
    WAIT_SESSION,
    Cancel,
    CloseSession,
    FetchObjects,
    GetInfos,
    SessionWarning,
    StopWaiting,
    SubmitChunk,
    SubmitCommit,
    UnkeepObjects,
    Wait,
)


@pytest.fixture
def task(session) -> Task:
    made = tasks.concat([blob("a"), blob("b")])
    made.keep_outputs()
    return made


def test_counts_are_of_unsubmitted_things(session, task):
    assert (session.task_count, session.dataobj_count) == (1, 3)
    session.submit()
    assert (session.task_count, session.dataobj_count) == (0, 0)
    blob("c")
    assert (session.task_count, session.dataobj_count) == (0, 1)


def test_states_by_submit_and_wait(session, task, server):
    assert task.state is None
    assert task.output.state is None
    session.submit()
    assert task.state is TaskState.notAssigned
    assert task.output.state is DataObjectState.unfinished
    session.wait(task)
    assert task.state is TaskState.finished
    assert task.output.state is DataObjectState.unfinished
    assert task.info is None
    wait = server.all(Wait)[-1]
    assert (wait.mode, list(wait.ids)) == (WAIT_ALL, [task.id.id])


def test_wait_all_sets_all_states(session, task, server):
    session.submit()
    later = tasks.sleep(0, task)
    session.wait_all()
    assert server.all(Wait)[-1].mode == WAIT_SESSION
    assert task.state is TaskState.finished
    assert task.output.state is DataObjectState.finished
    assert later.state is None
    session.submit()
    assert later.state is TaskState.notAssigned


def test_wait_all_with_nothing_submitted(session, task, server):
    session.wait_all()
    assert not server.all(Wait)


def test_submit_of_nothing(session, server):
    session.submit()
    assert not server.all(SubmitCommit)


def test_wait_some(session, server):
    first, second = tasks.concat([]), tasks.concat([])
    session.submit()
    server.finished = {first.id.id, second.output.id.id}
    found = session.wait_some([first, second], [first.output, second.output])
    assert found == ([first], [second.output])
    assert first.state is TaskState.finished
    assert second.state is TaskState.notAssigned
    assert session.wait_some([]) == ([], [])


def test_update(session, task, server, pack):
    session.submit()
    number = task.id.id
    server.states[number] = 3
    server.infos[number] = pack({"governor": "127.0.0.1:5", "start_time": 1.5, "duration": 2.0, "attempts": 1})
    server.infos[task.output.id.id] = pack({"size": 7, "content_type": "text"})
    session.update([task, task.output])
    assert task.state is TaskState.running
    assert task.info.worker == "127.0.0.1:5"
    assert task.info.start_time == "1970-01-01T00:00:01.500000Z"
    assert task.attributes["info"]["duration"] == 2000
    assert task.output.state is DataObjectState.finished
    assert (task.output.size, task.output.content_type) == (7, "text")
    session.wait_all()
    assert task.state is TaskState.finished


def test_fetch(session, task, server, pack):
    session.submit()
    server.values[task.output.id.id] = b"ab"
    server.infos[task.output.id.id] = pack({"content_type": "text"})
    instance = task.output.fetch()
    assert instance.get_bytes() == b"ab"
    assert instance.load() == "ab"
    assert instance.object_id == task.output.id
    assert task.output.size == 2
    assert session.fetch(task).get_bytes() == b"ab"
    assert [one.get_bytes() for one in task.fetch_outputs()] == [b"ab"]


def test_fetch_to_file(session, task, server, tmp_path):
    session.submit()
    target = tmp_path / "value"
    target.write_bytes(b"old")
    instance = session.fetch(task.output, to=target)
    assert target.read_bytes() == b"value"
    assert instance.get_bytes() == b"value"


def test_fetch_of_a_constant(session, server):
    constant = blob(b"data")
    constant.keep()
    session.submit()
    assert constant.fetch().get_bytes() == b"data"


def test_unkeep(session, task, server):
    local = blob("x")
    local.keep()
    session.unkeep(local)
    assert not local.is_kept()
    assert not server.all(UnkeepObjects)
    session.submit()
    task.unkeep_outputs()
    assert list(server.all(UnkeepObjects)[0].ids) == [task.output.id.id]
    assert not task.output.is_kept()


def test_keep_all(session, task):
    session.keep_all()
    assert all(dataobj.is_kept() for dataobj in task.inputs)


def test_failed_session_raises_each_time(session, task, server, task_failure):
    session.submit()
    kept = blob("later")
    server.failures[session.session_id] = task_failure(task=task.id.id)
    calls = [
        lambda: session.wait(task),
        lambda: session.wait_some([task]),
        session.wait_all,
        lambda: session.fetch(task.output),
        lambda: session.update(task),
        lambda: session.unkeep(task.output),
        session.submit,
    ]
    for call in calls * 2:
        with pytest.raises(TaskException) as raised:
            call()
        assert raised.value.task is task
        assert raised.value.task_id == task.id
        assert raised.value.attempts == 2
    assert task.output.is_kept()
    assert kept.state is None
    assert session.dataobj_count == 1
    session.close()


def test_session_failed_without_task(session, task, server, task_failure):
    session.submit()
    failure = task_failure(task=0)
    server.failures[session.session_id] = type(failure)("session", "lost", session=session.session_id)
    with pytest.raises(SessionException, match="lost") as raised:
        session.wait_all()
    assert not isinstance(raised.value, TaskException)


def test_refused_submit_leaves_things_unsubmitted(session, task, server, task_failure):
    failure = task_failure()
    server.failures[session.session_id] = type(failure)("invalid", "id 1/10 is already in use")
    with pytest.raises(InvalidRequestError, match="1/10"):
        session.submit()
    assert session.task_count == 1
    server.failures.clear()
    session.submit()
    chunks = server.all(SubmitChunk)
    assert chunks[0].templates == chunks[1].templates
    assert session.task_count == 0


def test_foreign_objects_are_refused_at_submit(session, client, server):
    with client.new_session().bind_only() as other:
        foreign = blob("x")
    task = tasks.concat([blob("a"), foreign])
    with pytest.raises(InvalidRequestError, match=str(foreign.id)):
        session.submit()
    assert server.all(SubmitCommit)[-1].discard
    assert task.state is None
    other.close()


def test_interrupted_commit_is_known_to_the_client(session, task, server):
    answer = server._answer

    def interrupt_at_commit(message):
        if isinstance(message, SubmitCommit):
            os.kill(os.getpid(), signal.SIGINT)
        return answer(message)

    server._answer = interrupt_at_commit
    with pytest.raises(KeyboardInterrupt):
        session.submit()
    assert not server.all(SubmitCommit)[0].discard
    assert task.state is TaskState.notAssigned
    assert session.task_count == 0


def test_interrupted_chunk_is_taken_back(session, task, server, monkeypatch):
    monkeypatch.setattr("rain.client.submit.MAX_NODES", 1)
    answer = server._answer

    def interrupt_at_chunk(message):
        if isinstance(message, SubmitChunk):
            os.kill(os.getpid(), signal.SIGINT)
        return answer(message)

    server._answer = interrupt_at_chunk
    with pytest.raises(KeyboardInterrupt):
        session.submit()
    assert server.all(SubmitCommit) == []
    assert session.task_count == 1
    server._answer = answer
    session.submit()
    assert [commit.discard for commit in server.all(SubmitCommit)] == [True, False]
    assert session.task_count == 0


def test_a_second_interrupt_gives_up_a_server_that_does_not_answer(session, task, server):
    answer = server._answer

    def interrupt_twice(message):
        if not isinstance(message, SubmitCommit):
            return answer(message)
        os.kill(os.getpid(), signal.SIGINT)
        os.kill(os.getpid(), signal.SIGINT)
        return []

    server._answer = interrupt_twice
    with pytest.raises(KeyboardInterrupt):
        session.submit()
    with pytest.raises(RainConnectionError, match="given up: interrupted twice"):
        session.submit()


def test_timeout_stops_the_waiting_only(session, task, server):
    session.submit()
    server.silent = {Wait, FetchObjects}
    for timeout in (0, 0.02):
        with pytest.raises(RainTimeoutError, match="waiting for"):
            session.wait(task, timeout=timeout)
        with pytest.raises(RainTimeoutError, match="fetching"):
            task.output.fetch(timeout=timeout)
    waits = server.all(Wait) + server.all(FetchObjects)
    assert {stop.waiting for stop in server.all(StopWaiting)} == {wait.seq for wait in waits}
    server.silent = set()
    session.wait(task, timeout=0)
    session.wait_all(timeout=0)


LIMITED = {
    "session.wait": lambda session, task, timeout: session.wait(task, timeout=timeout),
    "session.wait_some": lambda session, task, timeout: session.wait_some([task], timeout=timeout),
    "session.wait_all": lambda session, task, timeout: session.wait_all(timeout),
    "session.progress": lambda session, task, timeout: session.progress(timeout),
    "session.fetch": lambda session, task, timeout: session.fetch(task.output, timeout=timeout),
    "session.cancel": lambda session, task, timeout: session.cancel(timeout),
    "task.wait": lambda session, task, timeout: task.wait(timeout),
    "task.result": lambda session, task, timeout: task.result(timeout),
    "task.exception": lambda session, task, timeout: task.exception(timeout),
    "task.cancel": lambda session, task, timeout: task.cancel(timeout),
    "object.wait": lambda session, task, timeout: task.output.wait(timeout),
    "object.fetch": lambda session, task, timeout: task.output.fetch(timeout=timeout),
    "object.result": lambda session, task, timeout: task.output.result(timeout),
    "array.wait": lambda session, task, timeout: session.known.wait(timeout),
    "array.result": lambda session, task, timeout: session.known.result(timeout),
    "array.cancel": lambda session, task, timeout: session.known.cancel(timeout),
    "as_completed": lambda session, task, timeout: list(as_completed([task], timeout)),
    "gather": lambda session, task, timeout: gather(task, timeout=timeout),
}


@pytest.mark.parametrize("name", LIMITED)
def test_timeouts_may_be_texts(session, task, server, name):
    """As all durations; errors tell seconds."""
    session.known = session.map(str, range(3))
    session.submit()
    server.silent = {Wait, FetchObjects, Cancel}
    with pytest.raises(RainTimeoutError, match=r"Timeout of 0\.02 s expired while"):
        LIMITED[name](session, task, "20 ms")
    with pytest.raises(ValueError, match="'soon' is not a duration"):
        LIMITED[name](session, task, "soon")


def test_warnings_of_the_server(session, task, channel):
    session.submit()
    channel.say(SessionWarning(session.session_id, "no worker is connected"), SessionWarning(99, "other"))
    with pytest.warns(RainWarning, match="no worker is connected") as told:
        session.wait(task)
    assert told[0].filename == __file__
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session.wait(task)


def test_a_warning_does_not_hide_that_a_submit_was_taken(session, task, channel):
    channel.say(SessionWarning(session.session_id, "no worker is connected"))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        session.submit()
        assert task.state is TaskState.notAssigned
        with pytest.raises(RainWarning, match="no worker"):
            session.wait(task)


def test_pending_wait_warns(session, task, server, channel):
    session.submit()
    server.silent = {Wait}
    channel.say(SessionWarning(session.session_id, "no worker is connected"))
    with pytest.raises(RainWarning, match="no worker"):
        session.wait(task)
    assert server.all(StopWaiting)


def test_close(session, task, server, client):
    session.close()
    session.close()
    assert not session.active
    assert len(server.all(CloseSession)) == 1
    assert (session.task_count, session.dataobj_count) == (0, 0)
    with pytest.raises(SessionException, match="Session is closed"):
        session.submit()
    assert task.id.id == 13


def test_close_of_a_lost_server(session, channel):
    channel.hang_up()
    session.close()
    assert not session.active


def test_session_without_client(graph):
    task = tasks.concat([])
    for call in (graph.submit, graph.wait_all, lambda: graph.wait([]), lambda: graph.wait_some([])):
        with pytest.raises(RainException, match="no client"):
            call()
    for call in (lambda: graph.wait(task), lambda: graph.update(task), lambda: graph.fetch(task)):
        with pytest.raises(RainException):
            call()
    graph.close()


def test_static_attributes(session, client):
    assert session.active
    assert session.client is client
    assert session.session_id == 1
    assert session.name == "test"
    assert Session(None, 4).name == "Unnamed Session"
    assert isinstance(blob("x"), DataObject)


def test_wait_of_foreign_things(session, client):
    with client.new_session().bind_only() as other:
        task = tasks.concat([])
        other.submit()
    with pytest.raises(RainException, match="belongs to session 2"):
        session.wait(task)
    client.update([task])
    other.close()


def test_items_of_update_through_the_client(session, client, server):
    task = tasks.concat([])
    session.submit()
    client.update(task)
    assert list(server.all(GetInfos)[-1].ids) == [task.id.id]
    with pytest.raises(TypeError):
        client.update([3])
