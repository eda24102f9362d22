"""result(), done() and exception()."""

from __future__ import annotations

import asyncio
from collections import namedtuple

import pytest

from rain.client import (
    OutputDir,
    RainException,
    RainTimeoutError,
    RainWarning,
    Remote,
    Task,
    TaskException,
    as_completed,
    blob,
    gather,
    pickled,
    tasks,
)
from rain.common.content_type import encode_value
from rain.protocol.messages import Cancel, FetchObjects, GetStates, SessionWarning, StopWaiting, SubmitCommit, Wait


def test_auto_submit(session, server):
    task = Remote(lambda ctx: None)()
    server.values[task.output.id.id] = b"raw"
    assert task.result() == b"raw"
    assert task.output.is_kept()
    assert len(server.all(SubmitCommit)) == 1
    assert task.result() == b"raw"
    assert len(server.all(SubmitCommit)) == 1
    assert task.info is None


def test_values_are_decoded(session, server, pack):
    task = Remote(lambda ctx: None)()
    server.values[task.output.id.id] = encode_value([1], "pickle")
    server.infos[task.output.id.id] = pack({"content_type": "pickle"})
    assert task.result() == [1]
    assert task.output.result() == [1]


def test_constants(session):
    assert blob("text").result() == "text"
    assert pickled({"a": 1}).result() == {"a": 1}
    assert blob(b"raw").result() == b"raw"
    assert blob(b"raw", content_type="user/x").result() == b"raw"


def test_no_and_several_outputs(session, server):
    assert Task("a/b").result() is None
    task = Task("a/b", outputs=2)
    server.values.update({output.id.id: b"%d" % output.id.id for output in task.outputs})
    assert task.result() == [b"%d" % output.id.id for output in task.outputs]
    assert len(server.all(FetchObjects)) == 1


def test_directory(session, server):
    from rain.common.fs import empty_directory

    task = Task("a/b", outputs=[OutputDir("d")])
    server.values[task.output.id.id] = empty_directory()
    assert task.result().data_type.value == "dir"


def test_submitted_and_not_kept(session):
    task = tasks.concat([])
    session.submit()
    for thing in (task, task.output):
        with pytest.raises(RainException, match=r"call keep\(\) before submit"):
            thing.result()


def test_failure(session, server, task_failure):
    task = tasks.concat([])
    task.keep_outputs()
    session.submit()
    server.failures[1] = task_failure(task=task.id.id)
    with pytest.raises(TaskException):
        task.result()
    assert isinstance(task.exception(), TaskException)
    assert task.exception().task is task
    assert isinstance(task.output.exception(), TaskException)
    assert task.done()


def test_timeout(session, server):
    task = tasks.concat([])
    server.silent = {FetchObjects}
    with pytest.raises(RainTimeoutError):
        task.result(timeout=0.01)
    with pytest.raises(RainTimeoutError):
        task.exception(timeout=0)


def test_done(session, server):
    task = tasks.concat([])
    assert not task.done()
    assert not task.output.done()
    assert not server.all(GetStates)
    session.submit()
    server.states = {task.id.id: 3, task.output.id.id: 0}
    assert not task.done()
    assert not task.output.done()
    server.states = {task.id.id: 4, task.output.id.id: 2}
    assert task.done()
    assert task.output.done()
    assert task.state == 0
    assert task.exception() is None or isinstance(task.exception(), RainException)


def test_exception_of_a_good_task(session):
    assert Remote(lambda ctx: None)().exception() is None


def test_lost_server(session, channel):
    task = tasks.concat([])
    session.submit()
    channel.hang_up()
    with pytest.raises(ConnectionError):
        task.done()


# --- as_completed, gather, await --------------------------------------------------------------------


def test_as_completed_submits_and_keeps(session, server):
    tasks_ = [tasks.concat([]) for _ in range(3)]
    found = as_completed([*tasks_, tasks_[0]])
    assert len(server.all(SubmitCommit)) == 1
    assert list(found) == tasks_
    assert all(task.output.is_kept() for task in tasks_)
    assert [task.state for task in tasks_] == [0, 0, 0]
    assert list(as_completed([])) == []
    assert list(as_completed(tasks_[0])) == [tasks_[0]]


def test_as_completed_in_order_of_completion(session, server):
    made = [tasks.concat([]) for _ in range(4)]
    rounds = iter([{made[2].id.id}, {made[0].id.id, made[3].id.id}, {made[1].id.id}])
    answer = server._answer

    def step(message):
        if isinstance(message, Wait):
            server.finished = next(rounds)
        return answer(message)

    server._answer = step
    assert list(as_completed(made)) == [made[2], made[0], made[3], made[1]]
    assert [len(message.ids) for message in server.all(Wait)] == [4, 3, 1]


def test_as_completed_of_arrays_and_several_sessions(client, session):
    other = client.new_session()
    array = session.map(str, range(3))
    task = tasks.concat([], session=other)
    found = list(as_completed([array, task]))
    assert set(found) == {*array, task}
    assert len(found) == 4


def test_as_completed_of_a_failed_session(session, server, task_failure):
    made = [tasks.concat([]) for _ in range(2)]
    session.submit()
    server.failures[session.session_id] = task_failure(task=made[0].id.id)
    assert list(as_completed(made)) == made


def test_as_completed_gives_up(session, server, channel):
    made = [tasks.concat([]) for _ in range(2)]
    server.silent = {Wait}
    with pytest.raises(RainTimeoutError):
        next(as_completed(made, timeout=0.01))
    assert server.all(StopWaiting)
    with pytest.raises(TypeError):
        as_completed([5])
    server.silent = set()
    assert list(as_completed(made, timeout=0)) == made
    channel.hang_up()
    with pytest.raises(ConnectionError):
        list(as_completed(made))


def test_gather(session, server, pack):
    a, b = (tasks.concat([]) for _ in range(2))
    array = session.map(str, range(2))
    Pair = namedtuple("Pair", "left right")
    nest = {"k": [a, 1, (b, "x")], "l": Pair(a, None), "m": array}
    assert gather(nest) == {"k": [b"value", 1, (b"value", "x")], "l": (b"value", None), "m": [b"value"] * 2}
    assert gather(nest)["l"].left == b"value"
    assert len(server.all(SubmitCommit)) == 1
    assert gather(a) == [b"value"]
    assert gather(a, b) == [b"value"] * 2
    assert gather(array) == [b"value"] * 2
    assert gather([]) == []
    assert gather() == []
    assert gather(5) == 5


def test_gather_over_sessions(client, session, server):
    other = client.new_session()
    made = [tasks.concat([]), tasks.concat([], session=other), Task("a/b")]
    assert gather(made) == [b"value", b"value", None]
    assert {message.session for message in server.all(FetchObjects)} == {session.session_id, other.session_id}


def test_gather_fails_at_once(client, session, server, task_failure):
    other = client.new_session()
    slow, bad = tasks.concat([]), tasks.concat([], session=other)
    session.submit()
    bad.keep_outputs()
    other.submit()
    server.failures[other.session_id] = task_failure(session=other.session_id, task=bad.id.id)
    answer = server._answer
    server._answer = lambda message: (
        [] if isinstance(message, Wait) and message.session == session.session_id else answer(message)
    )
    with pytest.raises(TaskException):
        gather(slow, bad)
    assert server.all(StopWaiting)
    server._answer = answer
    first, second = gather(bad, [bad.output], return_exceptions=True)
    assert isinstance(first, TaskException)
    assert isinstance(second[0], TaskException)


def test_gather_gives_up(client, session, server):
    made = [tasks.concat([]), tasks.concat([], session=client.new_session())]
    server.silent = {Wait, FetchObjects}
    for things in (made, made[:1]):
        with pytest.raises(RainTimeoutError):
            gather(things, timeout=0.01)


def test_await(session, server):
    a, b = tasks.concat([]), tasks.concat([])
    array = session.map(str, range(3))
    bare = Task("a/b")

    async def main():
        assert await asyncio.gather(a, b, a.output) == [b"value"] * 3
        assert await array == [b"value"] * 3
        assert await bare is None

    asyncio.run(main())
    assert len(server.all(SubmitCommit)) == 1


def test_cancelled_await_leaves_the_connection_usable(session, server):
    task = tasks.concat([])
    session.submit()
    task.output._keep = True

    async def main():
        server.silent = {FetchObjects}
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(task, 0.05)
        assert server.all(StopWaiting)
        assert not server.all(Cancel)
        server.silent = set()
        assert await task == b"value"

    asyncio.run(main())
    assert task.result() == b"value"


def test_await_of_failures(session, server, task_failure, channel):
    task = tasks.concat([])
    session.keep_all()
    session.submit()

    async def main():
        server.failures[1] = task_failure(task=task.id.id)
        with pytest.raises(TaskException):
            await task
        channel.hang_up()
        with pytest.raises(ConnectionError):
            await task

    asyncio.run(main())


def test_asynchronous_as_completed(session, server):
    made = [tasks.concat([]) for _ in range(3)]

    async def main():
        found = as_completed(made)
        assert not server.all(SubmitCommit)
        assert [task async for task in found] == made
        server.silent = {Wait}
        with pytest.raises(RainTimeoutError):
            [task async for task in as_completed(made, timeout=0.01)]

    asyncio.run(main())


def test_warnings_while_waiting(session, server, channel):
    task = tasks.concat([])
    server.silent = {Wait}
    found = as_completed([task])
    channel.say(SessionWarning(session.session_id, "no worker is connected"))
    with pytest.raises(RainWarning, match="no worker is connected"):
        next(found)
