"""Attempts to open a connection: probe, authentication, time limits; over memory and over real sockets."""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest

from rain.memcache.client_errors import AuthenticationError
from rain.memcache.handshake import CLASSIC_SECONDS, Handshake, knows_meta, open_transport
from rain.memcache.metrics import Counters
from rain.memcache.options import Options
from rain.memcache.ordering import Bindings
from rain.memcache.replies import ErrorLine, Reply
from rain.memcache.testing import FakeServer, success
from tests.memcache.virtual import ADDRESS, Network, outcome, seconds, turns, virtually

PROBE = b"version\r\nmn\r\n"
USER = Options(username="me", password="secret")


def handshake(network: Network, options: Options = Options()) -> Handshake:  # noqa: B008 (frozen)
    """Attempts over a network in memory."""
    return Handshake(ADDRESS, options, network.connect, Bindings(), Counters())


def answers(**lines: bytes) -> Callable[[bytes], bytes | None]:
    """A server that answers commands by their first word, and others not at all."""
    return lambda request: lines.get(request.split()[0].decode(errors="replace"))


async def dialect_with(script: Callable[[bytes], bytes | None], options: Options = Options()) -> str:  # noqa: B008
    """What a connection to a server speaks."""
    network = Network(script)
    connection = await handshake(network, options).open()
    connection.abort()
    return connection.dialect.name


@virtually
async def test_meta():
    network = Network()
    connection = await handshake(network).open()
    assert connection.dialect.name == "meta"
    assert network.wires[0].chunks == [PROBE]
    connection.abort()


@pytest.mark.parametrize(
    ("version", "meta"),
    [
        (b"VERSION 1.6.10", True),
        (b"VERSION 1.6.9", False),
        (b"VERSION 1.7.0", True),
        (b"VERSION 2.0.0-beta", True),
        (b"VERSION 1.6.18_7_gabc", True),
        (b"VERSION 1.5.22", False),
        (b"VERSION unknown", False),
        (b"HELLO", False),
        (ErrorLine(b"ERROR"), False),
    ],
)
def test_versions(version: Reply, meta: bool):
    assert knows_meta(version) is meta


@pytest.mark.parametrize(
    ("version", "barrier"),
    [
        (b"VERSION 1.6.18", b"ERROR"),
        (b"VERSION 1.4.39", b"ERROR"),
        (b"VERSION 1.4.39", b"MN"),
        (b"ERROR", b"ERROR"),
        (b"SERVER_ERROR busy", b"MN"),
        (b"WHAT", b"MN"),
    ],
)
@virtually
async def test_any_other_answers_mean_classic(version: bytes, barrier: bytes):
    assert await dialect_with(answers(version=version + b"\r\n", mn=barrier + b"\r\n")) == "classic"


@pytest.mark.parametrize(
    "answer", [b"END\r\n", b"ERROR\r\n", b"SERVER_ERROR no\r\n", b"VALUE rain:probe 0 5\r\nEND\r\n\r\nEND\r\n"]
)
@virtually
async def test_the_classic_probe_takes_any_answer(answer: bytes):
    assert await dialect_with(answers(get=answer), Options(protocol="classic")) == "classic"


@virtually
async def test_a_server_that_wants_credentials():
    network = Network(answers(version=b"CLIENT_ERROR unauthenticated\r\n"))
    with pytest.raises(AuthenticationError, match=r"cache:11211 wants credentials \(CLIENT_ERROR unauthenticated\)"):
        await handshake(network).open()
    network.script = answers(get=b"CLIENT_ERROR unauthenticated\r\n")
    with pytest.raises(AuthenticationError):
        await handshake(network, Options(protocol="classic")).open()
    assert network.open == []


@pytest.mark.parametrize("protocol", ["auto", "classic"])
@virtually
async def test_authentication(protocol: Any):
    network = Network()
    connection = await handshake(network, replace(USER, protocol=protocol)).open()
    assert network.wires[0].requests[0] == b"set _ _ _ 9\r\nme secret\r\n"
    assert network.wires[0].chunks[1] == (PROBE if protocol == "auto" else b"get rain:probe\r\n")
    connection.abort()


@virtually
async def test_authentication_in_binary_mode():
    network = Network()
    connection = await handshake(network, replace(USER, protocol="binary")).open()
    assert connection.dialect.name == "binary"
    assert b"\0me\0secret" in network.wires[0].requests[0]
    assert len(network.wires[0].requests) == 1
    connection.abort()


@pytest.mark.parametrize(
    "line", [b"CLIENT_ERROR authentication failure", b"CLIENT_ERROR bad command line format", b"WHAT"]
)
@virtually
async def test_refused_credentials(line: bytes):
    network = Network(answers(set=line + b"\r\n"))
    with pytest.raises(AuthenticationError, match="cache:11211 refused the credentials of 'me'") as caught:
        await handshake(network, USER).open()
    assert caught.value.reply == line.decode()
    assert "secret" not in str(caught.value)
    assert network.open == []


@virtually
async def test_a_reply_to_authentication_that_is_none():
    network = Network(lambda request: b"\x81" * 24 + b"\r\n")
    with pytest.raises(AuthenticationError):
        await handshake(network, USER).open()


def closes_on(word: bytes) -> Callable[[bytes], bytes | None]:
    """A server that closes on a command."""
    networks: list[Network] = []

    def script(request: bytes) -> bytes | None:
        if request.split()[0] == word:
            asyncio.get_running_loop().call_soon(networks[0].wires[-1].end)
            return None
        return success(request)

    script.networks = networks  # type: ignore[attr-defined]
    return script


def closing_network(word: bytes) -> Network:
    """A network of servers that close on a command."""
    script: Any = closes_on(word)
    network = Network(script)
    script.networks.append(network)
    return network


@pytest.mark.parametrize("how", ["silent", "closes"])
@virtually
async def test_no_answer_to_authentication(how: str):
    network = closing_network(b"set") if how == "closes" else Network(answers())
    with pytest.raises(ConnectionError, match=r'if the server uses SASL \(-S\), pass protocol="binary"'):
        await handshake(network, USER).open()
    assert network.open == []
    network = Network(answers())
    with pytest.raises(TimeoutError, match=r"did not answer authentication within 1.0 s"):
        await handshake(network, replace(USER, protocol="binary")).open()


@pytest.mark.parametrize(("timeout", "limit"), [(0.1, 1.0), (2.0, 2.0)])
@virtually
async def test_an_exchange_has_its_own_limit(timeout: float, limit: float):
    network = Network(answers(version=b"VERSION 1.6.18\r\n"))
    with pytest.raises(TimeoutError, match=f"cache:11211 did not answer the probe within {limit} s"):
        await handshake(network, Options(timeout=timeout)).open()
    assert asyncio.get_running_loop().time() == pytest.approx(1000 + limit)
    assert network.open == []


@virtually
async def test_the_whole_attempt_has_a_limit():
    network = Network(answers())
    with pytest.raises(TimeoutError, match=r"cache:11211 was not ready within 5.0 s \(connection_timeout\)"):
        await handshake(network, Options(timeout=None)).open()
    assert network.open == []
    network.delay = 6.0
    with pytest.raises(TimeoutError, match="connection_timeout"):
        await handshake(network).open()
    assert len(network.wires) == 1


@virtually
async def test_no_limits_at_all():
    network = Network(answers())
    attempt = asyncio.create_task(handshake(network, Options(timeout=None, connection_timeout=None)).open())
    await seconds(1e5)
    assert not attempt.done()
    attempt.cancel()
    await asyncio.wait([attempt])
    assert network.open == []


@virtually
async def test_an_answer_that_comes_slowly_is_good():
    network = Network(answers())
    attempt = asyncio.create_task(handshake(network).open())
    await turns()
    for byte in b"VERSION 1.6.18\r\nMN\r\n":
        await seconds(0.01)
        network.wires[0].answer(bytes([byte]))
    connection = await attempt
    assert connection.dialect.name == "meta"
    connection.abort()


@virtually
async def test_two_closes_in_a_row_mean_classic_for_a_while():
    network = closing_network(b"mn")
    opener = handshake(network)
    with pytest.raises(ConnectionError, match="instead of answering the probe"):
        await opener.open()
    assert len(network.wires) == 1
    connection = await opener.open()
    assert connection.dialect.name == "classic"
    assert [wire.chunks for wire in network.wires] == [[PROBE], [PROBE], [b"get rain:probe\r\n"]]
    connection.abort()
    connection = await opener.open()
    assert network.wires[-1].chunks == [b"get rain:probe\r\n"]
    connection.abort()
    await seconds(CLASSIC_SECONDS + 1)
    with pytest.raises(ConnectionError):
        await opener.open()
    assert network.wires[-1].chunks == [PROBE]


@virtually
async def test_one_close_is_a_restart():
    network = closing_network(b"mn")
    opener = handshake(network)
    with pytest.raises(ConnectionError):
        await opener.open()
    network.error = ConnectionRefusedError("down")
    with pytest.raises(ConnectionRefusedError):
        await opener.open()
    network.error = None
    with pytest.raises(ConnectionError):
        await opener.open()
    assert len(network.wires) == 2
    network.script = success
    connection = await opener.open()
    assert connection.dialect.name == "meta"
    connection.abort()


@virtually
async def test_an_answer_to_the_probe_that_breaks_the_protocol():
    network = Network(answers(version=b"VERSION 1.6.18\r\n", mn=b"WHAT\r\n", get=b"END\r\n"))
    opener = handshake(network)
    with pytest.raises(ConnectionError):
        await opener.open()
    connection = await opener.open()
    assert connection.dialect.name == "classic"
    connection.abort()


@virtually
async def test_a_server_that_closes_on_everything():
    network = Network(answers())

    def script(request: bytes) -> None:
        asyncio.get_running_loop().call_soon(network.wires[-1].end)

    network.script = script
    opener = handshake(network)
    for _ in range(4):
        with pytest.raises(ConnectionError):
            await opener.open()
    assert network.open == []


@virtually
async def test_closed_at_once():
    network = Network()

    async def connect(address: object, factory: Any, options: Options) -> None:
        await network.connect(address, factory, options)
        network.wires[-1].reset()

    opener = Handshake(ADDRESS, Options(), connect, Bindings(), Counters())
    assert isinstance(await outcome(opener.open()), ConnectionError)


@pytest.mark.parametrize(
    ("protocol", "answer", "text"),
    [
        ("auto", b"VERSION 1.6.18\r\nMN\r\n", "the connection ended with the probe"),
        ("classic", b"END\r\n", "as soon as it was open"),
    ],
)
@virtually
async def test_an_end_in_the_turn_of_the_last_answer_fails_the_attempt(protocol: Any, answer: bytes, text: str):
    network = Network(answers())
    attempt = asyncio.create_task(handshake(network, Options(protocol=protocol)).open())
    await turns()
    network.wires[0].answer(answer)
    network.wires[0].end()
    with pytest.raises(ConnectionError, match=text):
        await attempt


async def test_tcp_options(fake: FakeServer):
    opener = Handshake(fake.address, Options(), open_transport, Bindings(), Counters())
    connection = await opener.open()
    connected = connection._transport.get_extra_info("socket")
    assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
    assert connected.getsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE)
    assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE) == 60
    assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL) == 10
    assert connected.getsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT) == 3
    connection.abort()
    await connection.gone


async def test_unix_sockets(unix_fake: FakeServer):
    opener = Handshake(unix_fake.address, Options(), open_transport, Bindings(), Counters())
    connection = await opener.open()
    assert connection.dialect.name == "meta"
    connection.abort()
    await connection.gone


async def test_nobody_listens(fake: FakeServer):
    fake.stop_listening()
    opener = Handshake(fake.address, Options(), open_transport, Bindings(), Counters())
    with pytest.raises(ConnectionRefusedError):
        await opener.open()
