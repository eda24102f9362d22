"""Where the port listens."""

from __future__ import annotations

import socket

import pytest

from rain.common.errors import RainException
from rain.server.http import binding
from rain.server.http.binding import bind_http


@pytest.fixture
def taken(monkeypatch):
    """A port that is taken, made the default."""
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        sock.listen()
        monkeypatch.setattr(binding, "DEFAULT_HTTP_PORT", sock.getsockname()[1])
        yield sock.getsockname()[1]


async def test_none():
    assert await bind_http("none", 0.0) is None


async def test_default_port_taken(taken, caplog):
    caplog.set_level("INFO")
    port = await bind_http(None, 0.0)
    with port.sock:
        assert port.address.host == "127.0.0.1"
        assert port.address.port == port.sock.getsockname()[1] != taken
        assert f"port {taken} is taken; the dashboard uses port {port.address.port}" in caplog.text


async def test_given_port_taken(taken):
    with pytest.raises(RainException, match=rf"cannot listen on 127\.0\.0\.1:{taken}: Address already in use"):
        await bind_http(f"127.0.0.1:{taken}", 0.0)


async def test_default_port_of_a_host(taken):
    with pytest.raises(RainException, match=rf"cannot listen on 127\.0\.0\.1:{taken}"):
        await bind_http("127.0.0.1", 0.0)


async def test_no_address_of_this_machine():
    with pytest.raises(RainException, match=r"cannot listen on 192\.0\.2\.1:80"):
        await bind_http("192.0.2.1:80", 0.0)


async def test_any_port():
    port = await bind_http("[::1]:0", 0.0)
    with port.sock:
        assert str(port.address) == f"[::1]:{port.sock.getsockname()[1]}"
