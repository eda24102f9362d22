"""Hosts in network namespaces: who hears whom, and that nothing is left."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator

import pytest

from rain.testing.leaks import no_leaks
from rain.testing.netns import Network, leftovers, obstacle

pytestmark = pytest.mark.cluster


@pytest.fixture(autouse=True)
def possible() -> None:
    reason = obstacle()
    if reason is not None:
        pytest.skip(f"network namespaces are not tested: {reason}")


@pytest.fixture
def network(possible: None) -> Iterator[Network]:
    with no_leaks():
        with Network(("a", "b")) as network:
            yield network
        assert not leftovers()


def heard(network: Network, source: str, target: str) -> bool:
    """Whether a datagram from one host comes to the other within a moment."""
    with network[target].entered():
        listener = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        listener.bind((network[target].address, 0))
    with listener:
        with network[source].entered():
            sender = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
        with sender:
            sender.sendto(b"hello", listener.getsockname())
        listener.settimeout(0.3)
        try:
            return listener.recv(100) == b"hello"
        except TimeoutError:
            return False


def both_ways(network: Network) -> tuple[bool, bool]:
    return heard(network, "a", "b"), heard(network, "b", "a")


def test_cut_and_heal(network: Network) -> None:
    assert both_ways(network) == (True, True)
    network.cut("a", "b")
    network.cut("a", "b")
    assert both_ways(network) == (False, True)
    network.heal("a", "b")
    assert both_ways(network) == (True, True)
    network.isolate("b")
    assert both_ways(network) == (False, False)
    network.heal_all()
    assert both_ways(network) == (True, True)


def test_unplugged(network: Network) -> None:
    network.unplug("a")
    assert both_ways(network) == (False, False)
    network.plug("a")
    end = time.monotonic() + 10
    while both_ways(network) != (True, True):  # the kernel takes a moment to notice
        assert time.monotonic() < end


def test_limited_rate(network: Network) -> None:
    """A megabyte at 4 Mbit/s takes two seconds; without the limit much less."""
    network.limit("a", "4mbit")
    assert _seconds_to_send(network, 1 << 20) > 1
    network.unlimit("a")
    assert _seconds_to_send(network, 1 << 20) < 1


def test_long_wire() -> None:
    """Data comes as it was sent, after a while each way."""
    with no_leaks(), Network(("a", "b"), {"a": 0.1}) as network:
        assert _seconds_to_send(network, 1000) > 0.3  # the connection is made in three ways, then the data travels
        assert _seconds_to_send(network, 8 << 20) < 10
    assert not leftovers()


def _seconds_to_send(network: Network, size: int) -> float:
    with network["b"].entered():
        listener = socket.create_server((network["b"].address, 0))
    with listener:
        with network["a"].entered():
            start = time.monotonic()
            sender = socket.create_connection(listener.getsockname(), timeout=5)
        receiver, _ = listener.accept()
        with sender, receiver:
            data = bytes(range(250)) * (size // 250)
            sending = threading.Thread(target=sender.sendall, args=(data,))
            sending.start()
            received = bytearray()
            while len(received) < len(data):
                received += receiver.recv(1 << 16)
            sending.join()
            assert received == data
            return time.monotonic() - start
