"""`task.explain()`."""

from __future__ import annotations

import asyncio
from array import array

import pytest

from rain.client import RainException, RainTimeoutError, SessionException, TaskException, tasks
from rain.common.errors import RainConnectionError
from rain.protocol.messages import Explain, Explained
from tests.client.aio_rig import scripted


@pytest.fixture
def answers(server, monkeypatch):
    """The server explains everything; the rest is as always."""
    usual = server._answer

    def answer(message):
        if isinstance(message, Explain):
            return [Explained(message.seq, [f"{message.session}/{number} is ready" for number in message.ids])]
        return usual(message)

    monkeypatch.setattr(server, "_answer", answer)


def test_submitted(session, server, answers):
    task = tasks.concat([])
    session.submit()
    assert task.explain() == f"{task.id} is ready"
    (asked,) = server.all(Explain)
    assert (asked.session, asked.ids) == (session.session_id, array("I", [task.id.id]))


def test_a_member_of_an_array(session, server, answers):
    made = session.map(str, range(100))
    session.submit()
    assert made[7].explain() == f"{made[7].id} is ready"


def test_unsubmitted(session, server):
    with pytest.raises(RainException, match=r"not submitted.*session\.submit"):
        tasks.concat([]).explain()
    assert not server.all(Explain)


def test_without_client(graph):
    with pytest.raises(RainException):
        tasks.concat([]).explain()


def test_closed(session, server, answers):
    task = tasks.concat([])
    session.submit()
    session.close()
    with pytest.raises(SessionException):
        task.explain()


def test_refused(session, server, task_failure):
    task = tasks.concat([])
    session.submit()
    server.failures[session.session_id] = task_failure(task=task.id.id)
    with pytest.raises(TaskException):
        task.explain()


def test_no_answer(session, server, client):
    task = tasks.concat([])
    session.submit()
    server.silent.add(Explain)
    client._connection._request_timeout = 0.05
    with pytest.raises(RainTimeoutError, match="asking why"):
        task.explain()


def test_lost_server(session, channel, answers):
    task = tasks.concat([])
    session.submit()
    channel.hang_up()
    with pytest.raises(RainConnectionError):
        task.explain()


async def test_in_a_loop(server, answers):
    async with scripted(server) as client, client.new_session() as session:
        task = tasks.concat([])
        with pytest.raises(RainException, match="not submitted"):
            await task.explain()
        await session.submit()
        assert await task.explain() == f"{task.id} is ready"
        assert await asyncio.gather(task.explain(), task.explain()) == [f"{task.id} is ready"] * 2
