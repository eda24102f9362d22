"""Before the proof nothing of a peer is parsed but the handshake: the parsers are made to fail when they are used."""

from __future__ import annotations

import asyncio
import threading
from typing import Any

import pytest

from rain.net.dataserver import DataServer
from rain.net.listener import listen
from rain.net.secret import generate_secret
from rain.protocol.codec import encode
from rain.protocol.data import DataRequest, pack_request
from rain.protocol.messages import StopServer
from tests.net.hostile import fire, hello, hostile_inputs

SECRET = generate_secret()
PARSERS = (
    "rain.protocol.codec.decode",
    "rain.protocol.framing.FrameReader.feed",
    "rain.protocol.data.RequestReader.feed",
)


class NoSource:
    def read(self, session: int, object_id: int, offset: int, length: int) -> Any:
        raise AssertionError("a value was read")


@pytest.fixture
def used(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Names of the parsers that were used."""
    names: list[str] = []
    lock = threading.Lock()
    for name in PARSERS:

        def parse(*_: Any, name: str = name) -> Any:
            with lock:
                names.append(name)
            raise AssertionError(f"{name} was used before the proof")

        monkeypatch.setattr(name, parse)
    return names


def inputs() -> list[tuple[str, bytes]]:
    message, request = encode([StopServer(1)]), pack_request(DataRequest(0, 1, 10, 0, 100))
    more = [
        (f"{role} without a proof", hello(role) + rest)
        for role in ("client", "worker", "data")
        for rest in (message, request)
    ]
    proofs = [
        (f"{role} with a false proof", hello(role) + bytes(32) + message + request)
        for role in ("client", "worker", "data")
    ]
    return [*hostile_inputs(), *more, *proofs]


def test_listener(used: list[str]) -> None:
    def accept(channel: object, peer: object) -> Any:
        raise AssertionError("a channel was accepted")

    async def attack() -> None:
        listener = await listen(
            "127.0.0.1:0", SECRET, accept, roles=("client", "worker"), data_source=NoSource(), handshake_timeout=5.0
        )
        await asyncio.to_thread(fire, listener.address, inputs())
        listener.close()
        await asyncio.sleep(0)

    asyncio.run(attack())
    assert not used


def test_data_server(used: list[str]) -> None:
    server = DataServer("127.0.0.1:0", SECRET, NoSource())
    fire(server.address, inputs())
    server.close()
    assert not used
