"""Servers, and the check that nothing is left behind. These tests know no other part of Rain."""

from __future__ import annotations

import inspect
import os
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack, ExitStack
from dataclasses import dataclass
from pathlib import Path

import pytest

from rain.memcache.base import Client
from rain.memcache.factory import create_client
from rain.memcache.testing import (
    Certificate,
    Certificates,
    FakeServer,
    LeakCheck,
    MemcachedServer,
    loop_leaks,
    make_certificates,
    missing_program,
    settled,
)

IN_CI = bool(os.environ.get("CI"))


def need(*programs: str) -> None:
    """Skip the test, but not in continuous integration, when a program is missing."""
    if reason := missing_program(*programs):
        if IN_CI:
            pytest.fail(reason)
        pytest.skip(reason)


@pytest.fixture(autouse=True)
def no_leaks() -> Iterator[None]:
    """No test leaves a process or a descriptor."""
    with LeakCheck():
        yield


@pytest.fixture(autouse=True)
def no_loop_leaks(request: pytest.FixtureRequest, no_leaks: None) -> None:
    """No asynchronous test leaves a task or timer; apart from `no_leaks`, which must outlive the loop."""
    if inspect.iscoroutinefunction(request.function):
        request.getfixturevalue("quiet_loop")


@pytest.fixture
async def quiet_loop() -> AsyncIterator[None]:
    """The loop is as empty at the end as at the beginning."""
    before = loop_leaks()
    yield
    await settled(before)


@pytest.fixture
async def fake() -> AsyncIterator[FakeServer]:
    """A scripted server on a TCP port."""
    async with FakeServer() as server:
        yield server


@pytest.fixture
async def fakes() -> AsyncIterator[list[FakeServer]]:
    """Three scripted servers."""
    async with FakeServer() as first, FakeServer() as second, FakeServer() as third:
        yield [first, second, third]


@pytest.fixture
async def unix_fake(tmp_path: Path) -> AsyncIterator[FakeServer]:
    """A scripted server on a unix socket."""
    async with FakeServer(tmp_path / "fake") as server:
        yield server


@pytest.fixture(scope="session")
def certificates(tmp_path_factory: pytest.TempPathFactory) -> Certificates:
    """Certificates, made for this run."""
    need("openssl")
    return make_certificates(tmp_path_factory.mktemp("certificates"))


@pytest.fixture
def memcached() -> None:
    """The program is installed, or the test is skipped."""
    need("memcached")


@pytest.fixture
def start_server(memcached: None) -> Iterator[Callable[..., MemcachedServer]]:
    """Starts real servers, with the arguments of MemcachedServer; they may be stopped and killed."""
    with ExitStack() as stack:
        yield lambda **options: stack.enter_context(MemcachedServer(**options))


@pytest.fixture
def servers(start_server: Callable[..., MemcachedServer]) -> tuple[MemcachedServer, MemcachedServer]:
    """Two real servers on TCP ports; they may be stopped and killed."""
    return start_server(), start_server()


@pytest.fixture
def unix_servers(start_server: Callable[..., MemcachedServer]) -> tuple[MemcachedServer, MemcachedServer]:
    """Two real servers on unix sockets; they may be stopped and killed."""
    return start_server(unix=True), start_server(unix=True)


def context_that_trusts(authority: Certificate) -> ssl.SSLContext:
    """A client's context for certificates that are home-made, which Python 3.13 does not like by itself."""
    context = ssl.create_default_context(cafile=str(authority.certificate))
    context.verify_flags &= ~ssl.VERIFY_X509_STRICT
    return context


OpenClient = Callable[..., Awaitable[Client]]


@pytest.fixture
async def open_client() -> AsyncIterator[OpenClient]:
    """Makes clients of servers, real or scripted, with the options of `create_client`; closes them at the end."""
    async with AsyncExitStack() as stack:

        async def open_(*servers: MemcachedServer | FakeServer, **options: object) -> Client:
            addresses = [server.address for server in servers]
            return await stack.enter_async_context(create_client(addresses, **options))

        yield open_


@dataclass
class Setup:
    """Two real servers of one kind, and what a client must be told to talk to them."""

    kind: str
    servers: list[MemcachedServer]
    options: dict[str, object]


PASSWORD = "se:cret-ä"

KINDS = ("tcp", "unix", "tls", "classic", "password", "classic password", "sasl")


@pytest.fixture(params=KINDS)
def setup(request: pytest.FixtureRequest) -> Setup:
    """Servers of every kind in turn."""
    kind = request.param
    if kind in ("tcp", "classic"):
        options = {"protocol": "classic"} if kind == "classic" else {}
        return Setup(kind, [*request.getfixturevalue("servers")], options)
    if kind == "unix":
        return Setup(kind, [*request.getfixturevalue("unix_servers")], {})
    start = request.getfixturevalue("start_server")
    if kind == "tls":
        certificates = request.getfixturevalue("certificates")
        options = {"ssl": True, "ssl_extra_ca": str(certificates.authority.certificate)}
        return Setup(kind, [start(tls=certificates.server) for _ in range(2)], options)
    sasl = kind == "sasl"
    if sasl:
        need("saslpasswd2")
    options = {"username": "jo", "password": PASSWORD, "protocol": "binary" if sasl else "auto"}
    if kind == "classic password":
        options["protocol"] = "classic"
    return Setup(kind, [start(users={"jo": PASSWORD}, sasl=sasl) for _ in range(2)], options)


@pytest.fixture
async def client(setup: Setup, open_client: OpenClient) -> Client:
    """A client of two real servers of every kind in turn."""
    return await open_client(*setup.servers, **setup.options)
