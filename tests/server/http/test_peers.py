"""Whose process is at the other end."""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rain.server.http import peers
from rain.server.http.peers import parse_ip, peer_uid


@contextmanager
def connected(listen: str, connect: str, kind: int) -> Iterator[tuple[socket.socket, socket.socket]]:
    """(accepted end, connecting end)."""
    family = socket.AF_INET6 if ":" in listen else socket.AF_INET
    with socket.socket(family) as listener:
        if family == socket.AF_INET6:
            listener.setsockopt(socket.IPPROTO_IPV6, socket.IPV6_V6ONLY, 0)
        listener.bind((listen, 0))
        listener.listen()
        with socket.socket(kind) as client:
            client.connect((connect, listener.getsockname()[1]))
            server, _ = listener.accept()
            with server:
                yield server, client


def uid_of(server: socket.socket) -> int | None:
    return peer_uid(server.getpeername()[:2], server.getsockname()[:2])


@pytest.mark.parametrize(
    ("listen", "connect", "kind"),
    [
        ("127.0.0.1", "127.0.0.1", socket.AF_INET),
        ("127.0.0.1", "::ffff:127.0.0.1", socket.AF_INET6),
        ("::", "127.0.0.1", socket.AF_INET),
        ("::", "::ffff:127.0.0.1", socket.AF_INET6),
        ("::1", "::1", socket.AF_INET6),
        ("0.0.0.0", "127.0.0.2", socket.AF_INET),
    ],
)
def test_own_connections(listen, connect, kind):
    with connected(listen, connect, kind) as (server, _):
        assert uid_of(server) == os.getuid()


def test_a_socket_that_nobody_holds_is_not_roots():
    """The kernel says uid 0 of a connection whose process is gone."""
    with connected("127.0.0.1", "127.0.0.1", socket.AF_INET) as (server, client):
        client.close()
        deadline = time.monotonic() + 20
        while uid_of(server) is not None:
            assert time.monotonic() < deadline
            time.sleep(0.01)
        entry = f"{server.getpeername()[1]:04X}"
        lines = [line.split() for line in Path("/proc/self/net/tcp").read_text().splitlines()]
        assert any(line[1].endswith(f":{entry}") and line[7] == "0" for line in lines)


def test_unknown_connection_and_missing_tables(monkeypatch, tmp_path):
    assert peer_uid(("127.0.0.1", 1), ("127.0.0.1", 2)) is None
    monkeypatch.setattr(peers, "_TABLES", (tmp_path / "tcp", tmp_path / "tcp6"))
    with connected("127.0.0.1", "127.0.0.1", socket.AF_INET) as (server, _):
        assert uid_of(server) is None


def test_line_of_the_table(monkeypatch, tmp_path):
    """The other end's line counts, not that of ours."""
    table = tmp_path / "tcp"
    table.write_text(
        "  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
        "   0: 0100007F:0002 0100007F:0001 01 00000000:00000000 00:00000000 00000000  1000        0 77 1 0 20 4\n"
        "   1: 0100007F:0001 0100007F:0002 01 00000000:00000000 00:00000000 00000000  1001        0 78 1 0 20 4\n"
    )
    monkeypatch.setattr(peers, "_TABLES", (table,))
    assert peer_uid(("127.0.0.1", 1), ("127.0.0.1", 2)) == 1001
    assert peer_uid(("::ffff:127.0.0.1", 2), ("127.0.0.1", 1)) == 1000
    assert peer_uid(("127.0.0.2", 1), ("127.0.0.1", 2)) is None


def test_addresses():
    assert str(parse_ip("::ffff:127.0.0.1")) == "127.0.0.1"
    assert str(parse_ip("fe80::1%eth0")) == "fe80::1"
    for wrong in ("", "localhost", "1.2.3", "[::1]"):
        with pytest.raises(ValueError, match="address"):
            parse_ip(wrong)
