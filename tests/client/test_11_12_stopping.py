"""`client.terminate_server()`."""

from __future__ import annotations

import threading

import pytest

from rain.client import RainConnectionError, RainException, RainTimeoutError, SessionException, tasks
from rain.protocol.messages import CloseSession, StopServer
from tests.client.aio_rig import make_client


def test_terminate_server(client, server, channel):
    session = client.new_session()
    server.on_heartbeat = channel.hang_up  # a sign of life follows the answer
    client.terminate_server()
    assert len(server.all(StopServer)) == 1
    assert client.closed
    assert channel.closed
    assert not session.active
    assert not server.all(CloseSession)
    client.close()
    with pytest.raises(SessionException):
        tasks.concat([], session=session)
    with pytest.raises(RainException, match="is closed"):
        client.terminate_server()
    assert len(server.all(StopServer)) == 1


@pytest.mark.parametrize("timeout", [0.05, "50 ms", 0])
def test_the_server_does_not_confirm(client, server, timeout):
    server.silent = {StopServer}
    with pytest.raises(RainTimeoutError, match=r"stopping the server 127\.0\.0\.1:7210"):
        client.terminate_server(timeout=timeout)
    assert client.closed


def test_the_server_stays_after_its_answer(client, server):
    with pytest.raises(RainTimeoutError, match=r"stopping the server 127\.0\.0\.1:7210, which confirmed it"):
        client.terminate_server(timeout=0.05)
    assert client.closed


def test_the_server_goes_away_without_an_answer(client, server, channel):
    server.silent = {StopServer}
    timer = threading.Timer(0.05, channel.hang_up)
    timer.start()
    with pytest.raises(RainConnectionError):
        client.terminate_server()
    timer.join()
    assert client.closed


def test_wrong_timeout(client, server):
    with pytest.raises(ValueError, match="soon"):
        client.terminate_server(timeout="soon")
    assert not client.closed
    assert not server.all(StopServer)


async def test_aio(server):
    client, channel = make_client(server)
    session = await client.new_session()
    server.on_heartbeat = channel.hang_up
    await client.terminate_server()
    assert server.all(StopServer)
    assert client.closed
    assert not session.active
    with pytest.raises(RainException, match="is closed"):
        await client.terminate_server()


async def test_aio_late(server):
    server.silent = {StopServer}
    client, _ = make_client(server)
    with pytest.raises(RainTimeoutError, match="stopping the server"):
        await client.terminate_server(0.05)
    assert client.closed
