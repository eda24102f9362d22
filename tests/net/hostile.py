"""Hostile and broken input for every port of Rain, to be fired at unit-test listeners and at real clusters alike."""

from __future__ import annotations

import contextlib
import os
import random
import socket
import struct
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from rain.net.address import Address
from rain.protocol.codec import encode
from rain.protocol.data import DataRequest, pack_request
from rain.protocol.handshake import ClientHandshake, Secret
from rain.protocol.messages import StopServer

encode([StopServer(1)])  # the schema is loaded once per process and keeps its file open

TIMEOUT = 9.0
_HEAD = struct.Struct("<4sHH")


def hello(role: str = "client", *, protocol: int = 1, nonce: bytes = b"n" * 32) -> bytes:
    """A valid first message."""
    return ClientHandshake(role, Secret(None, ""), nonce=nonce, protocol=protocol).start()  # type: ignore[arg-type]


def hostile_inputs() -> list[tuple[str, bytes]]:
    """Name and bytes of everything that no port may accept, the same in each run."""
    source = random.Random(11)
    inputs = [
        ("nothing", b""),
        ("one byte", b"R"),
        ("half a magic", b"RA"),
        ("wrong magic", b"RAIM" + bytes(60)),
        ("magic alone", b"RAIN"),
        ("zeros", bytes(1000)),
        ("ones", b"\xff" * 1000),
        ("http", b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"),
        ("tls", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03" + source.randbytes(500)),
        ("ssh", b"SSH-2.0-OpenSSH_9.6\r\n"),
        ("half a hello", hello()[:20]),
        ("empty hello", _HEAD.pack(b"RAIN", 1, 0)),
        ("short hello", _HEAD.pack(b"RAIN", 1, 10) + bytes(10)),
        ("hello without versions", _HEAD.pack(b"RAIN", 1, 33) + b"\x01" + bytes(32)),
        ("version beyond its hello", _HEAD.pack(b"RAIN", 1, 35) + b"\x01" + bytes(32) + b"\xff0"),
        ("version that is no text", _HEAD.pack(b"RAIN", 1, 37) + b"\x01" + bytes(32) + b"\x01\n\x01\xff"),
        ("huge hello", _HEAD.pack(b"RAIN", 1, 0xFFFF) + bytes(70_000)),
        ("unknown role", hello()[:8] + b"\x63" + hello()[9:]),
        ("old protocol", hello(protocol=0)),
        ("future protocol", hello(protocol=999)),
        ("hello and silence", hello()),
        ("hello and zeros", hello() + bytes(32)),
        ("hello and a message", hello() + encode([StopServer(1)]) * 4),
        ("message without a hello", encode([StopServer(1)])),
        ("data hello and a request", hello("data") + pack_request(DataRequest(0, 1, 10, 0, 100))),
        ("data request without a hello", pack_request(DataRequest(0, 1, 10, 0, 100))),
        ("huge frame without a hello", struct.pack("<II", 0, 0xFFFFFFFF)),
        ("megabyte", source.randbytes(1 << 20)),
    ]
    inputs += [(f"random {number}", source.randbytes(source.randrange(1, 5000))) for number in range(20)]
    for number in range(20):
        damaged = bytearray(hello() + source.randbytes(32))
        damaged[source.randrange(8)] ^= 1 << source.randrange(8)
        inputs.append((f"damaged hello {number}", bytes(damaged)))
    return inputs


def fire(address: Address | str, inputs: list[tuple[str, bytes]] | None = None, *, timeout: float = TIMEOUT) -> int:
    """Send each input over a connection of its own and check that the port closes it.

    Args:
        address: of the port.
        inputs: by default all of `hostile_inputs`.
        timeout: seconds for each.

    Returns:
        How many were sent.

    Raises:
        AssertionError: the port kept a connection open, or did not take it.
    """
    target = address if isinstance(address, Address) else Address.parse(address)
    chosen = hostile_inputs() if inputs is None else inputs
    for name, data in chosen:
        assert fire_one(target, data, timeout=timeout), f"{target} kept a connection open after {name!r}"
    return len(chosen)


def fire_one(address: Address, data: bytes, *, timeout: float = TIMEOUT, end: bool = True) -> bool:
    """Send bytes (and the end of the stream if `end`); return whether the port closed the connection in time."""
    deadline = time.monotonic() + timeout
    with socket.create_connection((address.host, address.port), timeout) as sock:
        with contextlib.suppress(OSError):  # it may close before it has read everything
            sock.sendall(data)
            if end:
                sock.shutdown(socket.SHUT_WR)
        while (remaining := deadline - time.monotonic()) > 0:
            sock.settimeout(remaining)
            try:
                if not sock.recv(4096):
                    return True
            except TimeoutError:
                return False
            except ConnectionError:
                return True
    return False


def recorded_handshake(address: Address, secret: Secret, role: str = "client") -> bytes:
    """Shake hands properly and return every byte that was sent, to be replayed."""
    machine = ClientHandshake(role, secret, nonce=os.urandom(32))  # type: ignore[arg-type]
    with socket.create_connection((address.host, address.port), TIMEOUT) as sock:
        sent = output = machine.start()
        while not machine.done:
            sock.sendall(output)
            output = machine.feed(sock.recv(4096))
            assert machine.error is None
            sent += output
    return sent


def descriptors() -> set[str]:
    """What this process has open."""
    found = set()
    for entry in os.listdir("/proc/self/fd"):
        with contextlib.suppress(OSError):
            found.add(f"{entry} {os.readlink(f'/proc/self/fd/{entry}')}")
    return {name for name in found if "/proc/" not in name}


@contextmanager
def nothing_left(timeout: float = TIMEOUT) -> Iterator[None]:
    """Check that no thread and no descriptor that was not there before is left after the block."""
    threads, files = set(threading.enumerate()), descriptors()
    yield
    deadline = time.monotonic() + timeout
    while True:
        left = [*(set(threading.enumerate()) - threads), *(descriptors() - files)]
        if not left:
            return
        assert time.monotonic() < deadline, f"left behind: {left}"
        time.sleep(0.01)
