"""Every listening port of real processes against everything but the right secret: promise P10."""

from __future__ import annotations

import contextlib
import re
import socket
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psutil
import pytest

from rain.client import Client, remote
from rain.common.errors import AuthenticationError, RainConnectionError
from rain.net.address import Address
from rain.net.blocking import BlockingChannel
from rain.net.dataclient import DataClient, DataUnavailable
from rain.net.secret import Secret, generate_secret
from rain.protocol.limits import HANDSHAKE_TIMEOUT, MAX_UNPROVEN
from rain.testing.leaks import GRACE
from tests.net.hostile import fire, fire_one, hello, hostile_inputs, recorded_handshake
from tests.security.conftest import Target

pytestmark = pytest.mark.cluster

ROLES = ("client", "worker", "data")


@remote()
def double(ctx: object, number: int) -> bytes:
    return b"%d" % (2 * number)


@contextmanager
def served(target: Target) -> Iterator[None]:
    """A client works all the time; each of its tasks must succeed, in time."""
    stop = threading.Event()
    done: list[int] = []
    errors: list[BaseException] = []

    def work() -> None:
        try:
            with target.client() as client, client.new_session():
                while not stop.is_set() or not done:
                    assert double(len(done)).result(timeout=10) == b"%d" % (2 * len(done))
                    done.append(1)
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=work)
    thread.start()
    try:
        yield
    finally:
        stop.set()
        thread.join()
    assert not errors
    assert done


def until(condition: Callable[[], bool]) -> None:
    """Wait for what comes a moment later, as log lines do."""
    deadline = time.monotonic() + GRACE
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def listening(process: psutil.Process) -> set[str]:
    return {
        f"{entry.laddr.ip}:{entry.laddr.port}"
        for entry in process.net_connections(kind="inet")
        if entry.status == psutil.CONN_LISTEN
    }


def refusals(log: str) -> list[str]:
    return re.findall(r"refused connection from 127\.0\.0\.1:\d+: .*", log)


def test_nothing_else_listens(target: Target) -> None:
    """Only known ports, all of them on loopback."""
    with target.client() as client, client.new_session():
        double(1).result(timeout=10)
        found = set().union(*map(listening, target.processes()))
    known = {target.address, target.data_address}
    if target.cluster.http_url:
        known.add(target.cluster.http_url.split("/")[2])
    assert found <= known
    assert known - found == set()
    assert {address.rpartition(":")[0] for address in found} == {"127.0.0.1"}


@pytest.mark.parametrize("port", ["address", "data_address"])
def test_garbage(target: Target, port: str) -> None:
    """Each input is answered by closing, and by one line with the peer; who has the secret notices nothing."""
    before = refusals(target.log())
    with served(target):
        count = fire(getattr(target, port), timeout=GRACE)
    until(lambda: len(refusals(target.log())) >= len(before) + count)
    lines = refusals(target.log())[len(before) :]
    assert len(lines) == count
    assert all(line.isprintable() for line in lines)
    assert "Traceback" not in target.log()
    assert target.secret not in target.log()


@pytest.mark.parametrize("port", ["address", "data_address"])
def test_no_end_of_the_stream(target: Target, port: str) -> None:
    """What can be refused is refused at once, also while the peer keeps its side open."""
    names = (
        "wrong magic",
        "http",
        "tls",
        "ssh",
        "huge hello",
        "old protocol",
        "hello and zeros",
        "hello and a message",
    )
    inputs = dict(hostile_inputs())
    for name in (*names, "data hello and a request", "huge frame without a hello", "megabyte"):
        assert fire_one(Address.parse(getattr(target, port)), inputs[name], timeout=GRACE, end=False), name


@pytest.mark.parametrize("port", ["address", "data_address"])
@pytest.mark.parametrize("protocol", [0, 2, 999])
def test_other_protocol(target: Target, port: str, protocol: int) -> None:
    assert fire_one(Address.parse(getattr(target, port)), hello(protocol=protocol), timeout=GRACE)
    until(lambda: f"it speaks protocol {protocol}, this side protocol 1" in target.log())


@pytest.mark.parametrize("port", ["address", "data_address"])
@pytest.mark.parametrize("role", ROLES)
def test_replayed_handshake(target: Target, port: str, role: str) -> None:
    """Every byte of a good handshake, heard on the wire, is worth nothing on another connection."""
    served_here = role == "data" if port == "data_address" else True
    secret = Secret(target.secret, "test")
    address = Address.parse(getattr(target, port))
    try:
        recorded = recorded_handshake(address, secret, role)
    except AssertionError:
        assert not served_here
        return
    assert served_here
    assert fire_one(address, recorded + b"more", timeout=GRACE, end=False)
    until(lambda: "wrong secret" in target.log())


def test_proof_of_one_port_at_another(target: Target) -> None:
    secret = Secret(target.secret, "test")
    recorded = recorded_handshake(Address.parse(target.address), secret, "data")
    assert fire_one(Address.parse(target.data_address), recorded, timeout=GRACE, end=False)


def test_wrong_secret(target: Target) -> None:
    wrong = generate_secret()
    assert wrong.token is not None
    started = time.monotonic()
    with pytest.raises(AuthenticationError, match="token"):
        Client(target.address, token=wrong.token)
    for role in ROLES:
        with pytest.raises(AuthenticationError, match="it is not the server's secret"):
            BlockingChannel.connect(target.address, role, wrong, timeout=GRACE)  # type: ignore[arg-type]
    client = DataClient(wrong)
    for address in (target.address, target.data_address):
        with pytest.raises(DataUnavailable, match="it is not the server's secret"):
            client.fetch_bytes(address, 1, 1)
    client.close()
    assert time.monotonic() - started < GRACE
    until(lambda: len(re.findall(r"refused connection from 127\.0\.0\.1:\d+: wrong secret", target.log())) >= 6)
    assert wrong.token not in target.log()


def test_no_secret(target: Target) -> None:
    for role in ROLES:
        with pytest.raises(AuthenticationError, match="demands a secret and there is none: nothing was found"):
            BlockingChannel.connect(
                target.address,
                role,  # type: ignore[arg-type]
                Secret(None, "nothing was found"),
                timeout=GRACE,
            )


def test_role_at_the_wrong_port(target: Target) -> None:
    for role in ("client", "worker"):
        with pytest.raises(RainConnectionError, match="is the port right"):
            BlockingChannel.connect(target.data_address, role, Secret(target.secret, "test"), timeout=GRACE)  # type: ignore[arg-type]


@pytest.mark.parametrize("port", ["address", "data_address"])
def test_many_silent_connections(target: Target, port: str) -> None:
    """More than are admitted: who has the secret is served all the same, and descriptors come back."""
    address = Address.parse(getattr(target, port))
    owners = target.processes()
    descriptors = sum(process.num_fds() for process in owners)
    with contextlib.ExitStack() as stack:
        for number in range(MAX_UNPROVEN + 50):
            sock = stack.enter_context(socket.create_connection((address.host, address.port), GRACE))
            with contextlib.suppress(ConnectionError):  # the oldest have been closed
                sock.sendall(hello()[: number % 40])
        with served(target):
            pass
        client = DataClient(Secret(target.secret, "test"))
        with pytest.raises(DataUnavailable, match="it is not there"):
            client.fetch_bytes(target.data_address, 9999, 1)
        client.close()
    until(lambda: sum(process.num_fds() for process in owners) <= descriptors + 10)


@pytest.mark.slow
@pytest.mark.parametrize("port", ["address", "data_address"])
def test_silence_ends(target: Target, port: str) -> None:
    """With the real limit: each stage of a handshake in which nothing more comes."""
    address = Address.parse(getattr(target, port))
    stages = [b"", b"RA", hello()[:20], hello("data"), hello("data") + bytes(31)]
    ends: list[bool] = []
    threads = [
        threading.Thread(
            target=lambda data=data: ends.append(fire_one(address, data, timeout=HANDSHAKE_TIMEOUT + 2, end=False))
        )
        for data in stages
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert ends == [True] * len(stages)
    until(lambda: "the handshake took more than 10 s" in target.log())


def test_nothing_grows(target: Target) -> None:
    processes = [process for process in target.processes() if listening(process)]
    for _ in range(2):  # the first round fills what is kept
        before = [(process.num_fds(), process.num_threads(), process.memory_info().rss) for process in processes]
        for address in (target.address, target.data_address):
            fire(address, timeout=GRACE)
    for process, (descriptors, threads, memory) in zip(processes, before, strict=True):
        assert process.num_fds() <= descriptors + 5
        assert process.num_threads() <= threads + 3
        assert process.memory_info().rss < memory + (8 << 20)
