"""Trying to reach data ports: real sockets."""

from __future__ import annotations

import queue
import socket
import threading
import time
from collections.abc import Iterator

import pytest

from rain.net.dataserver import DataServer
from rain.net.secret import Secret
from rain.protocol.data import Piece
from rain.worker import probing
from rain.worker.probing import AT_ONCE, Probing

SECRET = Secret("s" * 64, "the test")
LIMIT = 20.0


class NoValues:
    def read(self, session: int, object_id: int, offset: int, length: int) -> Piece:
        raise AssertionError("nothing is asked for")


@pytest.fixture
def port() -> Iterator[DataServer]:
    server = DataServer("127.0.0.1:0", SECRET, NoValues())
    yield server
    server.close()


@pytest.fixture
def silent() -> Iterator[str]:
    """Takes connections and says nothing."""
    with socket.create_server(("127.0.0.1", 0), backlog=200) as server:
        yield f"127.0.0.1:{server.getsockname()[1]}"


def probe(*addresses: str, secret: Secret = SECRET) -> list[str]:
    results: queue.Queue[list[str]] = queue.Queue()
    Probing(addresses, secret, results.put).start()
    errors = results.get(timeout=LIMIT)
    deadline = time.monotonic() + LIMIT
    while any(thread.name.startswith("rain-probe") for thread in threading.enumerate()):
        assert time.monotonic() < deadline
        time.sleep(0.001)
    assert results.empty()
    return errors


def test_all_are_well(port: DataServer) -> None:
    assert probe(*[str(port.address)] * 3 * AT_ONCE) == [""] * 3 * AT_ONCE


def test_nothing_to_try() -> None:
    assert probe() == []


def test_nobody_listens(port: DataServer) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        free = f"127.0.0.1:{server.getsockname()[1]}"
    refused, well, wrong = probe(free, str(port.address), "nonsense")
    assert (refused, well) == (f"cannot connect to {free}: Connection refused", "")
    assert "nonsense" in wrong


def test_another_secret(port: DataServer) -> None:
    (error,) = probe(str(port.address), secret=Secret("t" * 64, "a file"))
    assert "secret" in error


def test_silent_ones(port: DataServer, silent: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Those that hang are tried at the same time, and not without end."""
    monkeypatch.setattr(probing, "SECONDS_EACH", 1.0)
    monkeypatch.setattr(probing, "SECONDS_IN_ALL", 2.5)
    start = time.monotonic()
    errors = probe(str(port.address), *[silent] * 5 * AT_ONCE)
    assert time.monotonic() - start < LIMIT / 2
    assert errors[0] == ""
    assert errors[1] == f"cannot connect to {silent}: no answer within 1 s"
    assert errors[-1] == f"{silent} was not tried: there was no time left of 2.5 s"
