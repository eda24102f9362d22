"""Leases and `get_or_set` on real servers, with and without meta: one computation, whatever happens to its caller."""

from __future__ import annotations

import asyncio
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from rain.memcache.addresses import MemcachedHostAddress
from rain.memcache.base import Client
from rain.memcache.testing import MemcachedServer
from tests.memcache.conftest import OpenClient

ROOT = Path(__file__).resolve().parents[2]
SECONDS = 30.0
PROCESSES, CLIENTS, ROUNDS = 4, 13, 200


@pytest.fixture(params=["auto", "classic"])
def protocol(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture
def server(servers: tuple[MemcachedServer, MemcachedServer]) -> MemcachedServer:
    return servers[0]


@pytest.fixture
async def client(server: MemcachedServer, open_client: OpenClient, protocol: str) -> Client:
    return await open_client(server, protocol=protocol, timeout=SECONDS)


@pytest.fixture
async def other(server: MemcachedServer, open_client: OpenClient, protocol: str) -> Client:
    return await open_client(server, protocol=protocol, timeout=SECONDS)


class Factory:
    """Makes a value when it is allowed to; counts."""

    def __init__(self, value: bytes = b"made") -> None:
        self.value = value
        self.runs = 0
        self.cancelled = 0
        self.begun = asyncio.Event()
        self.go = asyncio.Event()

    async def __call__(self) -> bytes:
        self.runs += 1
        self.begun.set()
        try:
            await self.go.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        return self.value


async def value_now(client: Client, key: bytes) -> bytes | None:
    item = await client.get(key)
    return None if item is None else item.value


async def until_won(client: Client, key: bytes) -> None:
    """The lease is free, as soon as the server has heard of it."""
    async with asyncio.timeout(SECONDS):
        while not (lease := await client.get_lease(key)).won:  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert lease.item is None
    await lease.release()


# ---------------------------------------------------------------------------------------------------- several processes


def test_one_computation_over_all_processes(server: MemcachedServer, protocol: str):
    zeros = b"".join(b"set runs:%d 0 0 1 noreply\r\n0\r\n" % number for number in range(ROUNDS))
    assert server.ask(zeros + b"set arrived 0 0 1\r\n0\r\n") == b"STORED\r\n"
    assert isinstance(server.address, MemcachedHostAddress)
    numbers = map(str, (CLIENTS, ROUNDS, PROCESSES))
    command = [
        sys.executable, "-m", "tests.memcache.lease_worker", str(server.address.port), protocol, *numbers
    ]  # fmt: skip
    children = [subprocess.Popen(command, cwd=ROOT) for _ in range(PROCESSES)]
    try:
        assert [child.wait(SECONDS * 2) for child in children] == [0] * PROCESSES
    finally:
        for child in children:
            child.kill()
            child.wait(SECONDS)
    keys = b" ".join(b"runs:%d" % number for number in range(ROUNDS))
    lines = server.ask(b"get " + keys + b"\r\n", b"END\r\n").split(b"\r\n")
    assert lines[1:-2:2] == [b"1"] * ROUNDS


@contextmanager
def holder_of_a_lease(server: MemcachedServer, protocol: str) -> Iterator[None]:
    """Another process takes the lease of `k` for a second; then it is killed."""
    assert isinstance(server.address, MemcachedHostAddress)
    program = (
        "import asyncio\n"
        "from rain.memcache.factory import create_client\n"
        "async def main():\n"
        f"    async with create_client('memcached://127.0.0.1:{server.address.port}?protocol={protocol}') as client:\n"
        "        lease = await client.get_lease(b'k', lease=1)\n"
        "        print(lease.won, flush=True)\n"
        "        await asyncio.sleep(60)\n"
        "asyncio.run(main())\n"
    )
    holder = subprocess.Popen([sys.executable, "-c", program], cwd=ROOT, stdout=subprocess.PIPE, text=True)
    try:
        assert holder.stdout is not None
        assert holder.stdout.readline() == "True\n"
        yield
    finally:
        holder.send_signal(signal.SIGKILL)
        holder.communicate()


async def test_holder_killed(server: MemcachedServer, client: Client, protocol: str):
    with holder_of_a_lease(server, protocol):
        lease = await client.get_lease(b"k")
        assert (lease.won, lease.pending) == (False, True)
    start = time.monotonic()
    assert await client.get_or_set(b"k", lambda: b"made", lease=1) == b"made"
    assert time.monotonic() - start < 1 + 2 + 1
    assert await value_now(client, b"k") == b"made"


# ----------------------------------------------------------------------------------------------- during the computation


async def test_deleted_during_computation(client: Client, other: Client, protocol: str):
    factory = Factory()
    call = asyncio.create_task(client.get_or_set(b"k", factory))
    await factory.begun.wait()
    if protocol == "auto":
        await other.delete(b"k")
    else:
        await other.delete_many([b"k"])  # nothing is there yet
    factory.go.set()
    assert await call == b"made"
    # Without meta nobody can tell.
    assert await value_now(other, b"k") == (None if protocol == "auto" else b"made")


async def test_overwritten_during_computation(client: Client, other: Client, protocol: str):
    factory = Factory()
    call = asyncio.create_task(client.get_or_set(b"k", factory))
    await factory.begun.wait()
    await other.set(b"k", b"newer")
    factory.go.set()
    assert await call == b"made"
    assert await value_now(other, b"k") == (b"newer" if protocol == "auto" else b"made")


async def test_others_wait(client: Client, other: Client):
    factory, unused = Factory(), Factory()
    call = asyncio.create_task(client.get_or_set(b"k", factory))
    await factory.begun.wait()
    lease = await other.get_lease(b"k")
    assert (lease.item, lease.won, lease.pending) == (None, False, True)
    waiting = [asyncio.create_task(other.get_or_set(b"k", unused)) for _ in range(5)]
    factory.go.set()
    assert await asyncio.gather(call, *waiting) == [b"made"] * 6
    assert (factory.runs, unused.runs) == (1, 0)


async def test_impatient_callers_compute_themselves(client: Client, other: Client):
    factory = Factory()
    call = asyncio.create_task(client.get_or_set(b"k", factory))
    await factory.begun.wait()
    assert await other.get_or_set(b"k", lambda: b"own", wait=0) == b"own"
    assert await other.get_or_set(b"k", lambda: b"own", wait=0.05) == b"own"
    factory.go.set()
    assert await call == b"made"
    assert await value_now(other, b"k") == b"made"


async def test_factory_raises(client: Client, other: Client):
    def fail() -> bytes:
        raise LookupError("no such thing")

    results = await asyncio.gather(*(client.get_or_set(b"k", fail) for _ in range(3)), return_exceptions=True)
    assert [type(result) for result in results] == [LookupError] * 3
    await until_won(other, b"k")


# --------------------------------------------------------------------------------------------------------- cancellation


@pytest.mark.parametrize("cancelled", range(4))
async def test_callers_of_a_flight_cancelled_in_turn(client: Client, other: Client, cancelled: int):
    factory = Factory()
    calls = [asyncio.create_task(client.get_or_set(b"k", factory)) for _ in range(4)]
    await factory.begun.wait()
    calls[cancelled].cancel()
    with pytest.raises(asyncio.CancelledError):
        await calls[cancelled]
    rest = [call for call in calls if call is not calls[cancelled]]
    assert not any(call.done() for call in rest)
    factory.go.set()
    assert await asyncio.gather(*rest) == [b"made"] * 3
    assert (factory.runs, factory.cancelled) == (1, 0)
    assert await value_now(other, b"k") == b"made"


async def test_all_callers_of_a_flight_cancelled(client: Client, other: Client):
    factory = Factory()
    calls = [asyncio.create_task(client.get_or_set(b"k", factory)) for _ in range(4)]
    await factory.begun.wait()
    for call in calls:
        call.cancel()
    results = await asyncio.gather(*calls, return_exceptions=True)
    assert {type(result) for result in results} == {asyncio.CancelledError}
    await until_won(other, b"k")
    assert (factory.runs, factory.cancelled) == (1, 1)


@pytest.mark.parametrize("call", ["get_lease", "get_or_set"])
async def test_cancelled_at_the_lease(server: MemcachedServer, client: Client, other: Client, call: str):
    """The reply that comes after the cancellation says that the lease was won; it is given back."""
    await asyncio.gather(client.get(b"ready"), other.get(b"ready"))
    factory = Factory()
    server.pause()
    try:
        wanted = client.get_lease(b"k") if call == "get_lease" else client.get_or_set(b"k", factory)
        task = asyncio.create_task(wanted)
        for _ in range(10):
            await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
    finally:
        server.resume()
    await until_won(other, b"k")
    assert factory.runs == 0
    assert await client.get_or_set(b"k", lambda: b"made") == b"made"


# ------------------------------------------------------------------------------------------------------ stale, and down


async def test_refresh_under_load(server: MemcachedServer, client: Client, other: Client, protocol: str):
    await client.set(b"k", b"old", exptime=30)
    factory = Factory(b"new")
    factory.go.clear()
    callers = (client, other) * 50
    old = await asyncio.gather(*(caller.get_or_set(b"k", factory, ttl=100, stale=60) for caller in callers))
    assert old == [b"old"] * len(callers)
    if protocol == "classic":
        assert factory.runs == 0  # there is no refresh
        return
    async with asyncio.timeout(SECONDS):
        await factory.begun.wait()
        assert await other.get_or_set(b"k", factory, ttl=100, stale=60) == b"old"
        factory.go.set()
        while await value_now(other, b"k") != b"new":  # noqa: ASYNC110
            await asyncio.sleep(0.01)
    assert factory.runs == 1
    assert await other.get_or_set(b"k", factory, ttl=100, stale=60) == b"new"


async def test_cache_down(server: MemcachedServer, client: Client):
    server.kill()
    assert await client.get_or_set(b"k", lambda: b"made") == b"made"
    server.start()
    async with asyncio.timeout(SECONDS):
        while server.ask(b"get k\r\n", b"END\r\n") == b"END\r\n":
            assert await client.get_or_set(b"k", lambda: b"made") == b"made"
            await asyncio.sleep(0.05)


async def test_cache_goes_down_during_computation(server: MemcachedServer, client: Client):
    factory = Factory()
    call = asyncio.create_task(client.get_or_set(b"k", factory))
    await factory.begun.wait()
    server.kill()
    factory.go.set()
    assert await call == b"made"
