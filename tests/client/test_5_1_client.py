"""The client object."""

from __future__ import annotations

import gc
import socket
import weakref

import pytest

from rain.client import Client, RainConnectionError, RainException, RainTimeoutError, SessionException, tasks
from rain.client.connect import Target
from rain.client.connection import Connection
from rain.common.ids import ID
from rain.net.address import Address
from rain.net.secret import Secret
from rain.protocol.messages import CloseSession, NewSession


def test_new_session(client, server):
    session = client.new_session("name")
    assert (session.session_id, session.name, session.client) == (1, "name", client)
    assert server.all(NewSession)[0].name == "name"
    assert client.new_session().name == "Unnamed Session"


def test_policies_of_other_chapters(client):
    assert client.new_session(on_failure="continue").spec.on_failure == "continue"
    with pytest.raises(RainException, match="persistent=True is not supported"):
        client.new_session("a", persistent=True)
    with pytest.raises(ValueError, match="on_failure"):
        client.new_session(on_failure="other")


def test_get_server_info(client, server):
    server.info["workers"] = [
        {"worker_id": "127.0.0.1:5", "tasks": [[1, 12]], "objects": [], "objects_to_delete": [[1, 10]], "pid": 3}
    ]
    info = client.get_server_info()
    assert info["workers"] == info["governors"]
    (entry,) = info["workers"]
    assert entry["worker_id"] == entry["governor_id"] == "127.0.0.1:5"
    assert entry["tasks"] == [(1, 12)]
    assert isinstance(entry["objects_to_delete"][0], ID)
    assert "server" in info


def test_get_server_info_tells_of_the_dashboard(client, server):
    assert client.dashboard_url is None
    client.get_server_info()
    assert client.dashboard_url is None
    server.info["server"]["http_url"] = "http://0.0.0.0:7222/"
    client.get_server_info()
    assert client.dashboard_url == "http://127.0.0.1:7222/"
    server.info["server"]["http_url"] = None
    client.get_server_info()
    assert client.dashboard_url == "http://127.0.0.1:7222/"


def test_close_closes_the_sessions(client, server, channel):
    one, two = client.new_session(), client.new_session()
    one.close()
    client.close()
    client.close()
    assert client.closed
    assert not two.active
    assert [message.session for message in server.all(CloseSession)] == [1, 2]
    assert channel.closed
    with pytest.raises(SessionException):
        tasks.concat([], session=two)
    with pytest.raises(RainException, match="is closed"):
        client.new_session()
    two.close()


def test_close_is_bounded(client, server):
    sessions = [client.new_session() for _ in range(5)]
    server.silent = {CloseSession}
    client.close(timeout=0.05)
    assert not any(session.active for session in sessions)
    assert len(server.all(CloseSession)) <= 2


def test_close_after_the_loss_of_the_server(client, channel):
    session = client.new_session()
    channel.hang_up()
    with pytest.raises(RainConnectionError):
        client.new_session()
    client.close()
    assert not session.active


def test_context_manager(client):
    with client as entered:
        assert entered is client
    assert client.closed


def test_request_timeout(channel, server):
    client = Client.__new__(Client)
    client._attach(
        Connection(channel, "127.0.0.1:7210", request_timeout=0.02),
        Target(Address("127.0.0.1", 7210), Secret(None, "test")),
    )
    server.silent = {NewSession}
    with pytest.raises(RainTimeoutError, match="opening the session 'slow'"):
        client.new_session("slow")
    client.close()


def test_dropping_the_last_reference(channel):
    client = Client.__new__(Client)
    client._attach(Connection(channel, "a:1"), Target(Address("a", 1), Secret(None, "test")))
    client.new_session()
    reference = weakref.ref(client)
    del client
    gc.collect()
    assert reference() is None
    assert channel.closed


def test_encryption_is_refused():
    for options in ({"ssl": True}, {"ssl_verify": False}, {"ssl_extra_ca": "file"}):
        with pytest.raises(RainException, match="Encrypted"):
            Client("127.0.0.1", **options)


def test_nobody_listens(free_port):
    with pytest.raises(RainConnectionError, match=f"127.0.0.1:{free_port}"):
        Client("127.0.0.1", free_port, token="0" * 64)


def test_a_silent_server():
    """That a limit is over is told by the class of the error; without one the handshake has its own."""
    with socket.create_server(("127.0.0.1", 0)) as silent:
        address = f"127.0.0.1:{silent.getsockname()[1]}"
        with pytest.raises(RainTimeoutError, match=f"cannot connect to {address}: no answer within 0.1 s"):
            Client(address, token="0" * 64, connection_timeout=0.1)


def test_no_limit_of_the_connection(free_port):
    with pytest.raises(RainConnectionError, match="Connection refused"):
        Client("127.0.0.1", free_port, token="0" * 64, connection_timeout=None)


def test_list_sessions(client, server):
    assert client.list_sessions() == []
    known = {"name": "one", "state": "failed", "tasks": {"failed": 1}}
    server.sessions = [{**known, "session": 7, "client": "c", "on_failure": "fail", "age": 1.0, "objects": {}}]
    assert client.list_sessions() == [{**known, "id": 7, "persistent": False}]
    client.close()
    with pytest.raises(RainException, match="is closed"):
        client.list_sessions()


@pytest.fixture
def free_port():
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        yield taken.getsockname()[1]
