"""How a command finds its server, and what becomes of the answer."""

from __future__ import annotations

import argparse
import socket

import pytest

from rain.cli import connection
from rain.cli.connection import KnownServer, Talk, ask, find_server
from rain.common.errors import InvalidRequestError, RainConnectionError, RainException, RainTimeoutError
from rain.common.failure import Failure
from rain.net import blocking
from rain.net.access import AccessFile, write_access_file
from rain.net.address import Address
from rain.net.secret import Secret
from rain.protocol.messages import Accepted, GetServerInfo, Heartbeat, Refused, ServerInfo, StopServer

SERVER = KnownServer(Address("127.0.0.1", 7210), Secret("secret", "test"))


def options(**given):
    """Options of a management verb."""
    return argparse.Namespace(**{"server": None, "token_file": None, "access_file": None, **given})


@pytest.fixture
def environment(tmp_path):
    """An environment with one access file, of a server on port 7001."""
    environment = {"RAIN_ACCESS_DIR": str(tmp_path / "access")}
    write(environment, 7001, "first", created=1.0)
    return environment


def write(environment, port, token, created, path=None):
    """Write an access file."""
    access = AccessFile(
        server_id=token,
        hostname=socket.gethostname(),
        addresses=["127.0.0.1"],
        port=port,
        http_port=None,
        token=token,
        tls_fingerprint=None,
        pid=1,
        created=created,
    )
    return write_access_file(access, environment, path)


def found(options, environment):
    """Address and token of what is found."""
    server = find_server(options, environment)
    return str(server.address), server.secret.token


def test_newest_access_file(environment):
    """Without any hint the last started server is meant."""
    write(environment, 7002, "second", created=2.0)
    assert found(options(), environment) == ("127.0.0.1:7002", "second")


def test_address_with_the_secret_from_its_access_file(environment):
    """An address is enough; option before environment."""
    write(environment, 7002, "second", created=2.0)
    assert found(options(server="7001"), environment) == ("127.0.0.1:7001", "first")
    assert found(options(), {**environment, "RAIN_ADDRESS": "localhost:7001"}) == ("localhost:7001", "first")


def test_access_file_named(environment, tmp_path):
    """It tells the address, too."""
    path = write(environment, 7003, "third", created=0.0, path=tmp_path / "named.json")
    assert found(options(access_file=str(path)), environment) == ("127.0.0.1:7003", "third")
    assert found(options(), {**environment, "RAIN_ACCESS_FILE": str(path)}) == ("127.0.0.1:7003", "third")
    assert found(options(server="7009", access_file=str(path)), environment) == ("127.0.0.1:7009", "third")


def test_nothing_known(tmp_path):
    """The error says what to do."""
    with pytest.raises(RainException, match="rain start --simple"):
        find_server(options(), {"RAIN_ACCESS_DIR": str(tmp_path)})


def test_no_address(environment):
    """A wrong address is an error of Rain, not a traceback."""
    with pytest.raises(RainException, match="not an address"):
        find_server(options(server="a b"), environment)


class FakeChannel:
    """A channel with a script of what arrives; an exception in it is raised."""

    def __init__(self, *script):
        self.script = list(script)
        self.sent = []
        self.closed = False

    def send(self, *messages):
        self.sent += messages

    def receive(self, timeout):
        assert timeout > 0
        item = self.script.pop(0) if self.script else []
        if isinstance(item, Exception):
            raise item
        return item

    def close(self):
        self.closed = True


@pytest.fixture
def channel(monkeypatch):
    """Install a fake channel with a script."""

    def install(*script):
        fake = FakeChannel(*script)
        monkeypatch.setattr(blocking.BlockingChannel, "connect", lambda *_, **__: fake)
        return fake

    return install


def test_answer(channel):
    """What comes in between is passed over; the channel is closed."""
    fake = channel([Heartbeat()], [], [ServerInfo(1, {"server": {}})])
    assert ask(SERVER, GetServerInfo(1), ServerInfo, 10.0).info == {"server": {}}
    assert fake.sent == [GetServerInfo(1)]
    assert fake.closed


def test_refusal(channel):
    """The server's reason is the error."""
    fake = channel([Refused(1, Failure("invalid", "not now").to_map())])
    with pytest.raises(InvalidRequestError, match="not now"):
        ask(SERVER, StopServer(1), Accepted, 10.0)
    assert fake.closed


def test_until_closed(channel):
    """Stopping is done when the connection ends."""
    fake = channel([Accepted(1)], [], [Heartbeat()], RainConnectionError("gone"))
    assert ask(SERVER, StopServer(1), Accepted, 10.0, until_closed=True) == Accepted(1)
    assert fake.script == []


def test_timeout(channel):
    """A server that never answers costs no more than the timeout."""
    fake = channel()
    with pytest.raises(RainTimeoutError, match="has not answered"):
        ask(SERVER, GetServerInfo(1), ServerInfo, 0.05)
    assert fake.closed


def test_several_questions(channel):
    """Each answer belongs to its question, also when a late one comes in between."""
    fake = channel(
        [Accepted(1)], [Accepted(1), ServerInfo(2, {"a": 1})], [Refused(1, Failure("invalid", "old").to_map())]
    )
    with Talk(SERVER, 10.0) as talk:
        assert talk.ask(StopServer, Accepted) == Accepted(1)
        assert talk.ask(GetServerInfo, ServerInfo).info == {"a": 1}
        fake.script.append([Refused(3, Failure("invalid", "not now").to_map())])
        with pytest.raises(InvalidRequestError, match="not now"):
            talk.ask(GetServerInfo, ServerInfo)
    assert fake.sent == [StopServer(1), GetServerInfo(2), GetServerInfo(3)]
    assert fake.closed


def test_signs_of_life(channel, monkeypatch):
    """A server that takes its time hears that somebody waits."""
    monkeypatch.setattr(connection, "HEARTBEAT_SECONDS", 1e-9)
    fake = channel([], [], [Accepted(1)])
    with Talk(SERVER, 10.0) as talk:
        assert talk.ask(StopServer, Accepted) == Accepted(1)
    assert fake.sent == [StopServer(1), Heartbeat(), Heartbeat()]


def test_the_timeout_is_for_everything(channel):
    """Until it is renewed; what is said then is up to the verb."""
    channel([Accepted(1)], [Accepted(3)])
    with Talk(SERVER, 10.0) as talk:
        talk.ask(StopServer, Accepted)
        talk.timeout = 0.0
        talk.renew()
        with pytest.raises(RainTimeoutError, match="too many of them; give a larger --timeout"):
            talk.ask(StopServer, Accepted, "too many of them")
        talk.timeout = 10.0
        talk.renew()
        assert talk.ask(StopServer, Accepted) == Accepted(3)
