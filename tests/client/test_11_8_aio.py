"""The asyncio client against a scripted server."""

from __future__ import annotations

import asyncio
import gc
import inspect
import os
import threading
import time
import warnings
import weakref
from array import array
from collections.abc import AsyncIterator

import pytest

from rain.client import Client, RainTimeoutError, TaskException, aio, as_completed, blob, delayed, gather, tasks
from rain.client.active import get_active_session
from rain.client.aio import AsyncClient, AsyncSession
from rain.client.connection import Connection
from rain.client.session import Session
from rain.client.task import Task
from rain.common import fs
from rain.common.errors import (
    InvalidRequestError,
    RainConnectionError,
    RainException,
    RainWarning,
    SessionException,
)
from rain.common.failure import Failure
from rain.common.states import DataObjectState, TaskState
from rain.net.dataclient import DataUnavailable
from rain.protocol.limits import ProtocolError
from rain.protocol.messages import (
    Cancel,
    CloseSession,
    FetchObjects,
    GetServerInfo,
    Heartbeat,
    NewSession,
    ObjectsFetched,
    SessionWarning,
    StopWaiting,
    SubmitCommit,
    UnkeepObjects,
    Wait,
)
from rain.testing.fake_channel import FakeChannel
from tests.client.aio_rig import TARGET, make_client, scripted


@pytest.fixture
async def client(server) -> AsyncIterator[AsyncClient]:
    async with scripted(server) as made:
        yield made
    assert asyncio.all_tasks() == {asyncio.current_task()}


@pytest.fixture
async def session(client) -> AsyncIterator[AsyncSession]:
    made = await client.new_session("test")
    with made.bind_only():
        yield made
    await made.close()


def kept() -> Task:
    task = tasks.concat([])
    task.output.keep()
    return task


async def until(condition, limit: float = 5.0) -> None:
    async with asyncio.timeout(limit):
        while not condition():  # noqa: ASYNC110
            await asyncio.sleep(0.001)


# --- names and parameters ------------------------------------------------------------------------------


def test_parameters_are_those_of_the_synchronous_client():
    assert _parameters(aio.create_client) == _parameters(Client)
    for ours, theirs in ((AsyncClient, Client), (AsyncSession, Session)):
        for name, method in inspect.getmembers(theirs, inspect.isfunction):
            if not name.startswith("_"):
                assert _parameters(getattr(ours, name)) == _parameters(method), name


def _parameters(function) -> list[tuple[str, object, object]]:
    return [
        (one.name, one.kind, one.default)
        for one in inspect.signature(function).parameters.values()
        if one.name != "self"
    ]


def test_blocking_methods_are_coroutine_functions():
    blocking = "submit wait wait_some wait_all fetch unkeep update close cancel counts tasks objects"
    assert all(inspect.iscoroutinefunction(getattr(AsyncSession, name)) for name in blocking.split())
    for name in ("get_server_info", "list_sessions", "update", "close", "terminate_server"):
        assert inspect.iscoroutinefunction(getattr(AsyncClient, name))
    assert not issubclass(AsyncSession, Session)


# --- sessions ------------------------------------------------------------------------------------------


async def test_new_session_is_awaited_or_entered(client, server):
    session = await client.new_session("one", on_failure="continue")
    assert (session.name, session.session_id, session.client) == ("one", 1, client)
    assert server.all(NewSession)[0].on_failure == "continue"
    async with client.new_session("two") as entered:
        assert isinstance(entered, AsyncSession)
        assert get_active_session() is entered
        with session.bind_only() as bound:
            assert bound is get_active_session() is session
            async with client.new_session() as inner:
                assert get_active_session() is inner
            assert get_active_session() is session
        assert get_active_session() is entered
    assert not entered.active
    assert [message.session for message in server.all(CloseSession)] == [3, 2]
    async with session as again:
        assert again is session
    with pytest.raises(SessionException):
        async with session:
            pass
    task = asyncio.create_task(client.new_session("as a task"))
    assert (await task).name == "as a task"
    with pytest.raises(ValueError, match="on_failure"):
        await client.new_session(on_failure="other")
    with pytest.raises(RainException, match="persistent"):
        await client.new_session(persistent=True)


async def test_an_opening_that_nobody_wants_does_nothing(client, server):
    client.new_session().close()
    opening = client.new_session()
    del opening
    gc.collect()
    assert not server.all(NewSession)


async def test_default_session(client):
    session = await client.new_session(default=True)
    assert tasks.concat([]).session is session
    await session.close()
    with pytest.raises(RainException, match="No active session"):
        tasks.concat([])


async def test_each_asyncio_task_has_its_own_stack(client):
    async def work(name: str) -> str:
        async with client.new_session(name) as session:
            await asyncio.sleep(0)
            assert get_active_session() is session
            await session.submit()
            return tasks.concat([]).session.name

    assert await asyncio.gather(work("a"), work("b")) == ["a", "b"]


async def test_a_session_closes_when_its_block_raises(client, server):
    with pytest.raises(ZeroDivisionError):
        async with client.new_session() as session:
            raise ZeroDivisionError
    assert not session.active
    await session.close()
    assert len(server.all(CloseSession)) == 1
    with pytest.raises(SessionException):
        tasks.concat([], session=session)
    with pytest.raises(SessionException):
        await session.submit()


# --- calls ---------------------------------------------------------------------------------------------


async def test_calls_of_a_session(session, server):
    a, b = kept(), kept()
    assert (a.state, session.task_count) == (None, 2)
    await session.submit()
    assert a.state is TaskState.notAssigned
    await session.wait([a, b.output], timeout=20)
    assert (a.state, b.output.state) == (TaskState.finished, DataObjectState.finished)
    assert await session.wait_some([a], [b.output]) == ([a], [b.output])
    assert await session.wait_some([]) == ([], [])
    await session.wait_all(timeout=20, check=False)
    assert b.state is TaskState.finished
    assert (await session.fetch(a, timeout=20)).get_bytes() == b"value"
    await session.update([a, a.output])
    server.states = {a.id.id: 4, b.id.id: 3}
    assert await session.counts() == {"finished": 1, "running": 1}
    await session.unkeep(a.output)
    assert not a.output.is_kept()
    assert await session.cancel() == 0
    assert server.all(Cancel)


async def test_calls_of_tasks_and_objects(session, server):
    task, bare = kept(), Task("a/b")
    assert await task.done() is False
    await session.submit()
    await task.wait(timeout=20)
    await task.output.wait()
    await task.update()
    await task.output.update()
    assert [one.get_bytes() for one in await task.fetch_outputs()] == [b"value"]
    assert (await task.output.fetch(timeout=20)).get_bytes() == b"value"
    assert [await task.result(), await task.output.result(), await task, await task.output] == [b"value"] * 4
    assert await bare is None
    assert await task.exception() is None
    assert await bare.cancel() is True
    server.states = {task.id.id: TaskState.finished, task.output.id.id: DataObjectState.finished}
    assert await task.done()
    assert await task.output.done()
    await task.unkeep_outputs()
    assert not task.output.is_kept()
    other = kept()
    await other.output.unkeep()
    with pytest.raises(RainException, match="not kept"):
        await other.output.unkeep()


async def test_calls_of_arrays(session, server):
    made = session.map(str, range(3))
    assert await made.done() is False
    assert await made.counts() == {}
    assert await made == [b"value"] * 3
    assert await made.result(timeout=20) == [b"value"] * 3
    assert [value async for value in made.iter_results()] == [b"value"] * 3
    assert [value async for value in made.iter_results(ordered=False)] == [b"value"] * 3
    await made.wait(timeout=20)
    assert made[1].state is TaskState.finished
    server.states = dict.fromkeys(made._task_numbers(), TaskState.finished)
    assert await made.done()
    assert await made.counts() == {"finished": 3}
    assert await made.cancel() == 3
    await made.unkeep()
    with pytest.raises(RainException, match="not kept"):
        await made.unkeep()
    unsubmitted = session.map(str, range(3))
    unsubmitted.keep()
    await unsubmitted.unkeep()
    with pytest.raises(RainException, match="not submitted"):
        await unsubmitted.wait()


async def test_results_submit(session, server):
    made = [tasks.concat([]) for _ in range(3)]
    assert await asyncio.gather(*(task.result() for task in made)) == [b"value"] * 3
    assert len(server.all(SubmitCommit)) == 1
    assert await delayed(str)(1).result() == b"value"
    with pytest.raises(RainException, match="not submitted"):
        await session.fetch(kept())


async def test_arguments_are_checked_as_in_the_synchronous_client(session, client):
    task = tasks.concat([])
    with pytest.raises(TypeError):
        await session.wait([1])
    with pytest.raises(TypeError):
        await session.unkeep([task])
    with pytest.raises(RainException, match="not kept"):
        await session.fetch(task)
    with pytest.raises(RainException, match="not submitted"):
        await task.wait()
    with pytest.raises(RainException, match="not submitted"):
        await task.cancel()
    await session.submit()
    with pytest.raises(RainException, match="not kept"):
        await task.result()
    with pytest.raises(RainException, match="keep"):
        task.keep_outputs()
    with pytest.raises(TypeError):
        await client.update([None])
    await client.update(task)


async def test_calls_of_a_client(client, server):
    assert (await client.get_server_info())["governors"] == []
    assert await client.list_sessions() == []
    assert client.address == "127.0.0.1:7210"
    assert (client.cluster, client.dashboard_url, client.closed) == (None, None, False)
    session = await client.new_session()
    await client.close()
    await client.close(timeout="1 s")
    assert client.closed
    assert not session.active
    assert len(server.all(CloseSession)) == 1
    for call in (client.get_server_info, client.new_session, session.submit):
        with pytest.raises(RainException):
            await call()


# --- gather and as_completed ---------------------------------------------------------------------------


async def test_gather(client, session, server):
    other = await client.new_session()
    made = [tasks.concat([]), delayed(str)(1), tasks.concat([], session=other).output]
    array_ = session.map(str, range(2))
    found = await aio.gather({"a": made, "b": (1, array_)})
    assert found == {"a": [b"value"] * 3, "b": (1, [b"value"] * 2)}
    assert await aio.gather(*made) == [b"value"] * 3
    assert await aio.gather(made[0]) == [b"value"]
    assert await aio.gather([]) == []
    assert await aio.gather(Task("a/b"), timeout=20) == [None]


async def test_gather_of_failures(session, server, task_failure):
    bad = tasks.concat([])
    answer = server._answer
    failure = task_failure(task=11)

    def failing(message):
        from rain.protocol.messages import Refused

        return [Refused(message.seq, failure.to_map())] if isinstance(message, FetchObjects) else answer(message)

    server._answer = failing
    with pytest.raises(TaskException) as caught:
        await aio.gather([bad])
    assert caught.value.task is bad
    (first,) = await aio.gather([bad], return_exceptions=True)
    assert isinstance(first, TaskException)
    assert isinstance(await bad.exception(), TaskException)
    server._answer = answer


async def test_gather_gives_up(client, session, server):
    made = [tasks.concat([]), tasks.concat([], session=await client.new_session())]
    server.silent = {Wait, FetchObjects}
    for things in (made, made[:1]):
        for timeout in (0, 0.01):
            with pytest.raises(RainTimeoutError):
                await aio.gather(things, timeout=timeout)


async def test_as_completed(client, session, server):
    made = [tasks.concat([]), delayed(str)(1), tasks.concat([], session=await client.new_session()).output]
    array_ = session.map(str, range(3))
    found = [thing async for thing in aio.as_completed([*made, made[0], array_])]
    assert set(found) == {*made, *array_}
    assert len(found) == 6
    assert {thing async for thing in as_completed(made)} == set(made)
    assert [thing async for thing in aio.as_completed([])] == []
    server.silent = {Wait}
    for timeout in (0, 0.01):
        with pytest.raises(RainTimeoutError):
            [thing async for thing in aio.as_completed(made, timeout=timeout)]
    assert {stop.waiting for stop in server.all(StopWaiting)} >= {server.all(Wait)[-1].seq}


async def test_leaving_as_completed_early(session, server):
    made = [tasks.concat([]) for _ in range(2)]
    answer = server._answer
    server.finished = {made[0].id.id}

    def answer_once(message):
        server.silent = {Wait} if isinstance(message, Wait) else server.silent
        return answer(message)

    server._answer = answer_once
    found = []
    async for task in aio.as_completed(made):
        found.append(task)
        break
    assert found == made[:1]
    gc.collect()
    await until(lambda: len(server.all(StopWaiting)) == len(server.all(Wait)) - 1)
    await until(lambda: len(asyncio.all_tasks()) == 1)
    server._answer, server.silent, server.finished = answer, set(), None
    assert await made[1].result() == b"value"


async def test_synchronous_forms_refuse_things_of_asyncio_sessions(session):
    task = tasks.concat([])
    with pytest.raises(RainException, match=r"rain\.client\.aio\.gather"):
        gather(task)
    with pytest.raises(RainException, match="async for"):
        next(as_completed([task]))


async def test_both_kinds_of_sessions_together(server, session, client):
    plain = Client.__new__(Client)
    plain._attach(Connection(FakeChannel(server), "127.0.0.1:7210", request_timeout=5.0), TARGET)
    try:
        other = await asyncio.to_thread(plain.new_session)
        made = [tasks.concat([]), tasks.concat([], session=other)]
        assert await aio.gather(made) == [b"value"] * 2
        assert {thing async for thing in aio.as_completed(made)} == set(made)
        assert await asyncio.gather(*made) == [b"value"] * 2
    finally:
        await asyncio.to_thread(plain.close)


# --- limits of time ------------------------------------------------------------------------------------


async def test_timeouts(session, server):
    task = kept()
    await session.submit()
    server.silent = {Wait, FetchObjects, Cancel}
    calls = [task.wait, task.result, task.exception, task.cancel, session.wait_all, session.cancel, task.output.fetch]
    for call in calls:
        for timeout in (0, 0.01):
            with pytest.raises(RainTimeoutError, match="Timeout of"):
                await call(timeout=timeout)
    waits = server.all(Wait) + server.all(FetchObjects) + server.all(Cancel)
    assert {stop.waiting for stop in server.all(StopWaiting)} == {wait.seq for wait in waits}
    server.silent = set()
    assert await task.result(timeout=0) == b"value"
    await session.wait_all(timeout=0)


async def test_a_server_that_does_not_answer(server):
    async with scripted(server, request_timeout=0.02) as client:
        session = await client.new_session()
        tasks.concat([], session=session)
        server.silent = {GetServerInfo, SubmitCommit}
        with pytest.raises(RainTimeoutError, match=r"did not answer within 0.02 s while asking for the server's info"):
            await client.get_server_info()
        with pytest.raises(TimeoutError):
            await session.submit()
        server.silent = set()
        await client.get_server_info()
        await session.submit()


async def test_silence_loses_the_server(server):
    client, channel = make_client(lambda message: [], silence_limit=0.05, heartbeat_interval=0.02, request_timeout=None)
    with pytest.raises(RainConnectionError, match=r"127.0.0.1:7210 lost: no sign of life"):
        await client.get_server_info()
    await client.close()
    assert channel.closed


async def test_heartbeats_are_sent(server):
    beats = []
    client, _ = make_client(lambda message: beats.append(message) or [], heartbeat_interval=0.01)
    await until(lambda: sum(isinstance(message, Heartbeat) for message in beats) > 1)
    await client.close()


async def test_a_busy_loop_does_not_lose_a_server_that_spoke(server):
    client, channel = make_client(server, silence_limit=0.8, heartbeat_interval=0.1)
    channel.say(Heartbeat())
    time.sleep(1.2)  # noqa: ASYNC251
    channel.say(Heartbeat())
    await client.get_server_info()
    await client.close()


# --- failures ------------------------------------------------------------------------------------------


async def test_failed_sessions(session, server, task_failure):
    task = kept()
    await session.submit()
    server.failures[1] = task_failure(task=task.id.id)
    calls = [session.submit, session.wait_all, task.wait, task.result, task.update, task.output.unkeep, session.counts]
    for call in calls:
        for _ in range(2):
            with pytest.raises(TaskException) as caught:
                await call()
            assert caught.value.task is task
    assert task.output.is_kept()
    assert await task.done()
    assert await task.cancel() is False
    assert isinstance(await task.exception(), TaskException)
    assert task.state is TaskState.failed


async def test_refused_submits(session, server):
    task = kept()
    server.failures[1] = Failure("invalid", "unknown id 99", session=1)
    for _ in range(2):
        with pytest.raises(InvalidRequestError, match="unknown id 99"):
            await session.submit()
    assert task.state is None
    del server.failures[1]
    assert await task.result() == b"value"


async def test_a_lost_server(server):
    client, channel = make_client(server)
    session = await client.new_session()
    task = tasks.concat([], session=session)
    task.output.keep()
    await session.submit()
    server.silent = {Wait, GetServerInfo}
    pending = [asyncio.create_task(call) for call in (task.wait(), client.get_server_info(), session.wait_all())]
    watching = asyncio.create_task(anext(aio.as_completed([task])))
    await until(lambda: len(server.all(Wait)) == 3)
    channel.hang_up("the power is off")
    for call in [*pending, watching]:
        with pytest.raises(RainConnectionError, match=r"127\.0\.0\.1:7210 lost: the power is off"):
            await call
    for call in (session.submit, task.done, client.get_server_info, client.new_session):
        with pytest.raises(RainConnectionError):
            await call()
    await session.close()
    await client.close()


async def test_a_warning_does_not_hide_that_a_submit_was_taken(server):
    client, channel = make_client(server)
    async with client, client.new_session() as session:
        task = tasks.concat([])
        channel.say(SessionWarning(session.session_id, "no worker is connected"))
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await session.submit()
            assert task.state is TaskState.notAssigned
            with pytest.raises(RainWarning, match="no worker"):
                await session.wait(task)


async def test_warnings_of_the_server(server):
    client, channel = make_client(server)
    async with client, client.new_session() as session:
        task = tasks.concat([])
        await session.submit()
        channel.say(SessionWarning(session.session_id, "no worker is connected"))
        with pytest.warns(RainWarning, match="no worker is connected") as told:
            await session.wait(task)
        assert told[0].filename == __file__
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            await session.wait(task)
            server.silent = {Wait}
            pending = asyncio.create_task(session.wait(task))
            await until(lambda: len(server.all(Wait)) == 3)
            channel.say(SessionWarning(session.session_id, "needs cpus=8"))
            with pytest.raises(RainWarning, match="cpus=8"):
                await pending
            channel.say(SessionWarning(session.session_id, "needs gpus=8"))
            with pytest.raises(RainWarning, match="gpus=8"):
                await anext(aio.as_completed([task]))


# --- cancelling ----------------------------------------------------------------------------------------


async def _steps_of(call, steps: int) -> bool:
    """Cancel a call after some turns of the loop; tells whether it ended before."""
    task = asyncio.ensure_future(call)
    for _ in range(steps):
        await asyncio.sleep(0)
    if task.done():
        await task
        return True
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    return False


CALLS = {
    "result": lambda session: tasks.concat([]).result(),
    "await": lambda session: _awaited(tasks.concat([])),
    "delayed": lambda session: delayed(str)(1).result(),
    "array": lambda session: session.map(str, range(3)).result(),
    "submit": lambda session: session.submit(),
    "gather": lambda session: aio.gather([tasks.concat([]), session.map(str, range(3))]),
    "completed": lambda session: _all_completed([tasks.concat([]), Task("a/b")]),
    "update": lambda session: session.update(session.known),
    "wait": lambda session: session.wait(session.known, timeout="3 s"),
    "poll": lambda session: session.wait(session.known, timeout=0),
    "wait_all": lambda session: session.wait_all(),
    "cancel": lambda session: session.known.cancel(),
    "unkeep": lambda session: _unkept(session.known.output),
    "info": lambda session: session.client.get_server_info(),
    "new": lambda session: session.client.new_session(),
}


async def _awaited(thing):
    return await thing


async def _all_completed(things):
    return [thing async for thing in aio.as_completed(things)]


async def _unkept(dataobj):
    if dataobj.is_kept():
        await dataobj.unkeep()


@pytest.mark.parametrize("name", CALLS)
async def test_cancelling_at_any_point_leaves_the_connection_usable(client, session, server, name):
    session.known = kept()
    await session.submit()
    for steps in range(100):
        cancelled = not await _steps_of(CALLS[name](session), steps)
        assert await tasks.concat([]).result() == b"value"
        if not cancelled:
            break
    else:
        raise AssertionError("it never came to an end")
    assert steps > 0
    await session.submit()
    assert session.task_count == 0
    assert not client._loop_front._core.waiting
    await until(lambda: not client._loop_front._background)
    opened, closed = len(server.all(NewSession)), {message.session for message in server.all(CloseSession)}
    assert {one.session_id for one in client._sessions.values()} | closed >= set(range(1, opened))


async def test_a_submit_that_has_begun_goes_on(session, server):
    task = kept()
    server.silent = {SubmitCommit}
    pending = asyncio.create_task(session.submit())
    await until(lambda: server.all(SubmitCommit))
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    assert task.state is None
    commit = server.all(SubmitCommit)[0]
    server.silent = set()
    session._front._channel.say(*server._answer(commit))
    await until(lambda: task.state is TaskState.notAssigned)
    assert await task.result() == b"value"
    assert len(server.all(SubmitCommit)) == 1


async def test_cancelled_waits_are_taken_back(session, server):
    task = kept()
    await session.submit()
    server.silent = {Wait, FetchObjects}
    for call in (task.wait, task.result, session.wait_all):
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(call(), 0.01)
    waits = server.all(Wait) + server.all(FetchObjects)
    assert {stop.waiting for stop in server.all(StopWaiting)} == {wait.seq for wait in waits}
    assert not server.all(Cancel)


async def test_a_session_whose_opening_was_cancelled_is_closed(client, server):
    server.silent = {NewSession}
    pending = asyncio.ensure_future(client.new_session())
    await until(lambda: server.all(NewSession))
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    client._loop_front._channel.say(*server._answer(server.all(NewSession)[0]))
    await until(lambda: server.all(CloseSession))
    assert not client._sessions


async def test_a_close_that_is_cancelled_closes(server):
    client, channel = make_client(server)
    session = await client.new_session()
    server.silent = {CloseSession}
    pending = asyncio.create_task(client.close())
    await until(lambda: server.all(CloseSession))
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    assert client.closed
    assert not session.active
    assert channel.closed


# --- many tasks, loops and threads ---------------------------------------------------------------------


async def test_many_tasks_use_a_client_at_once(client, server):
    async def work(n: int) -> list[bytes]:
        async with client.new_session(f"{n}") as session:
            made = [kept() for _ in range(3)]
            await session.submit()
            found = await aio.gather(made)
            await asyncio.gather(*(session.wait_all() for _ in range(3)))
            return found

    assert await asyncio.gather(*(work(n) for n in range(20))) == [[b"value"] * 3] * 20
    assert client._loop_front._core.waiting == 0


async def test_submits_of_a_session_follow_one_another(session, server):
    async def build(n: int) -> bytes:
        task = kept()
        if n % 2:
            await session.submit()
        return await task.result()

    assert await asyncio.gather(*(build(n) for n in range(10))) == [b"value"] * 10
    assert session.task_count == 0


def test_another_loop_is_refused(server):
    async def main():
        return make_client(server)[0]

    with asyncio.Runner() as runner:
        client = runner.run(main())
        calls = [client.get_server_info, client.close, lambda: client.new_session()]
        for call in calls:
            with pytest.raises(RainException, match="belongs to the event loop in which it was made"):
                asyncio.run(_awaited(call()))
        with pytest.raises(RainException, match="outside of a loop"):
            client.get_server_info().send(None)
        session = runner.run(client.new_session())
        task = tasks.concat([], session=session)
        for call in (session.submit, task.result, lambda: aio.gather(task)):
            with pytest.raises(RainException, match="belongs to the event loop"):
                asyncio.run(_awaited(call()))
        assert runner.run(_awaited(task)) == b"value"
        runner.run(client.close())


async def test_a_forked_child_cannot_use_it(client, session, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(client._loop_front, "_pid", os.getpid() + 1)
        for call in (client.get_server_info, session.submit, client.new_session):
            with pytest.raises(RainException, match="inherited by fork"):
                await call()
    await client.get_server_info()


async def test_no_thread_is_started(client, session):
    before = threading.active_count()
    await tasks.concat([]).result()
    assert threading.active_count() == before


async def test_dropped_results_are_unkept_by_the_loop(session, server):
    made = [delayed(str)(n) for n in range(3)]
    array_ = session.map(str, range(5))
    await aio.gather(made, array_)
    numbers = {one.output.id.id for one in made} | set(array_._output_numbers(0, 5))
    del made, array_
    gc.collect()
    await until(lambda: server.all(UnkeepObjects))
    assert {number for message in server.all(UnkeepObjects) for number in message.ids} == numbers
    await session.client.get_server_info()


async def test_a_client_that_nobody_refers_to_is_disconnected(server):
    client, channel = make_client(server)
    session = await client.new_session()
    seen = weakref.ref(client)
    del client, session
    gc.collect()
    assert seen() is None
    await until(lambda: channel.closed)


async def test_messages_that_cannot_be_sent_are_errors_of_the_call(client, session):
    front = client._loop_front
    with pytest.raises(ProtocolError):
        await front.ask(_unsendable, "asking")
    assert front._core.waiting == 0
    await client.get_server_info()


def _unsendable(seq):
    raise ProtocolError("too large")


async def test_constants_have_results(session, server):
    constant = blob(b"x" * 10)
    constant.keep()
    joined = tasks.concat([constant])
    assert await joined.result() == b"value"
    assert await constant.result() == b"x" * 10


class Holders:
    """Workers that hold values; asked is what was asked for."""

    def __init__(self, values):
        self.values = values
        self.asked = []

    async def fetch_bytes(self, holder, session, number):
        await asyncio.sleep(0)
        self.asked.append(holder)
        if holder not in self.values:
            raise DataUnavailable("gone", holder, "missing")
        return memoryview(self.values[holder])

    async def fetch_file(self, holder, session, number, path):
        path.write_bytes(await self.fetch_bytes(holder, session, number))

    def close(self):
        pass

    async def closed(self):
        pass


async def test_large_values_come_from_workers(client, session, server, tmp_path):
    task, packed = kept(), tasks.make_directory({})
    packed.output.keep()
    (tmp_path / "source/inner").mkdir(parents=True)
    (tmp_path / "source/inner/file").write_bytes(b"content")
    tar = fs.pack_directory(tmp_path / "source")
    await session.submit()
    holders = client._loop_front._data = Holders({"w2:1": b"large"})
    answer = server._answer

    def far(message):
        if not isinstance(message, FetchObjects):
            return answer(message)
        count = len(message.ids)
        return [ObjectsFetched(message.seq, array("Q", [5] * count), [], [], [], [["w1:1", "w2:1"]] * count)]

    server._answer = far
    assert await task.result() == b"large"
    assert holders.asked == ["w1:1", "w2:1"]
    await task.output.fetch(to=tmp_path / "value")
    assert (tmp_path / "value").read_bytes() == b"large"
    holders.values["w2:1"] = tar
    await packed.output.fetch(to=tmp_path / "tree")
    assert (tmp_path / "tree/inner/file").read_bytes() == b"content"
    with pytest.raises(FileExistsError):
        await packed.output.fetch(to=tmp_path / "tree")
    holders.values.clear()
    with pytest.raises(RainConnectionError, match="could not be read from any holder"):
        await task.result()
    pending = asyncio.create_task(task.result())
    await asyncio.sleep(0)
    pending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await pending
    server._answer = answer
    assert await task.result() == b"value"
    assert sorted(path.name for path in tmp_path.iterdir()) == ["source", "tree", "value"]
