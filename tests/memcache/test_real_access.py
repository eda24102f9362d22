"""Real servers that refuse: passwords and TLS, right and wrong."""

from __future__ import annotations

import asyncio
import ssl
from collections.abc import Callable
from pathlib import Path

import pytest

from rain.memcache.base import Client
from rain.memcache.client_errors import AuthenticationError, CommandError, NodeUnavailable
from rain.memcache.testing import Certificates, FakeServer, MemcachedServer
from tests.memcache.conftest import OpenClient, context_that_trusts, need

SECONDS = 10.0
Start = Callable[..., MemcachedServer]


async def works(client: Client) -> None:
    await client.set(b"k", b"v")
    assert (await client.get(b"k")).value == b"v"  # type: ignore[union-attr]


async def refused(client: Client, match: str) -> None:
    for _ in range(2):
        with pytest.raises(AuthenticationError, match=match) as caught:
            await client.get(b"k")
        assert isinstance(caught.value, CommandError)
        assert "secret" not in str(caught.value)


async def until_it_works(client: Client) -> None:
    async with asyncio.timeout(SECONDS):
        while True:
            try:
                return await works(client)
            except (AuthenticationError, NodeUnavailable):
                await asyncio.sleep(0.05)


# ----------------------------------------------------------------------------------------------------------- passwords


async def test_wrong_password(start_server: Start, open_client: OpenClient):
    server = start_server(users={"jo": "right"})
    await refused(await open_client(server, username="jo", password="secret"), "authentication failure")
    await refused(await open_client(server, username="al", password="right"), "authentication failure")
    await works(await open_client(server, username="jo", password="right"))


async def test_no_password(start_server: Start, open_client: OpenClient):
    server = start_server(users={"jo": "right"})
    for protocol in ("auto", "classic"):
        await refused(await open_client(server, protocol=protocol), "unauthenticated")


async def test_password_to_a_server_without_authentication(start_server: Start, open_client: OpenClient):
    server = start_server()
    await refused(await open_client(server, username="jo", password="secret"), "bad command line format")


async def test_wrong_sasl_password(start_server: Start, open_client: OpenClient):
    need("saslpasswd2")
    server = start_server(users={"jo": "right"}, sasl=True)
    await refused(await open_client(server, username="jo", password="secret", protocol="binary"), "failure")
    await works(await open_client(server, username="jo", password="right", protocol="binary"))


async def test_sasl_to_a_server_without_it(start_server: Start, open_client: OpenClient):
    client = await open_client(start_server(), username="jo", password="secret", protocol="binary")
    await refused(client, "ERROR")


async def test_ascii_credentials_to_a_sasl_server(
    start_server: Start, open_client: OpenClient, caplog: pytest.LogCaptureFixture
):
    need("saslpasswd2")
    server = start_server(users={"jo": "right"}, sasl=True)
    client = await open_client(server, username="jo", password="right", timeout=0.2)
    with pytest.raises(TimeoutError):
        await client.get(b"k")
    async with asyncio.timeout(SECONDS):
        while "cannot connect" not in caplog.text:  # noqa: ASYNC110
            await asyncio.sleep(0.05)
    with pytest.raises(NodeUnavailable, match='protocol="binary"'):
        await client.get(b"k")


@pytest.mark.parametrize("sasl", [False, True])
async def test_password_corrected_while_running(start_server: Start, open_client: OpenClient, sasl: bool):
    if sasl:
        need("saslpasswd2")
    server = start_server(users={"jo": "old"}, sasl=sasl)
    client = await open_client(server, username="jo", password="secret", protocol="binary" if sasl else "auto")
    await refused(client, "refused the credentials")
    server.set_users({"jo": "secret"})
    await until_it_works(client)


# ----------------------------------------------------------------------------------------------------------------- TLS


async def unavailable(client: Client, cause: type[BaseException]) -> None:
    with pytest.raises(NodeUnavailable) as caught:
        await client.get(b"k")
    assert isinstance(caught.value, TimeoutError)
    assert isinstance(caught.value.__cause__, cause), repr(caught.value.__cause__)


def authority(certificates: Certificates) -> str:
    return str(certificates.authority.certificate)


@pytest.mark.parametrize("protocol", ["auto", "classic"])
async def test_certificates_without_alternative_names(
    start_server: Start, open_client: OpenClient, certificates: Certificates, protocol: str
):
    """The common name counts where there is nothing else; it holds no IP address."""
    server = start_server(tls=certificates.nameless)
    options = {"ssl": True, "ssl_extra_ca": authority(certificates), "protocol": protocol}
    await works(await open_client(server, ssl_server_hostname="localhost", **options))
    await works(await open_client(server, ssl_check_hostname=False, **options))
    await unavailable(await open_client(server, **options), ssl.SSLCertVerificationError)


async def test_wrong_authority(start_server: Start, open_client: OpenClient, certificates: Certificates):
    server = start_server(tls=certificates.server)
    stranger = str(certificates.stranger.certificate)
    await unavailable(await open_client(server, ssl=True, ssl_extra_ca=stranger), ssl.SSLCertVerificationError)
    await unavailable(await open_client(server, ssl=True), ssl.SSLCertVerificationError)
    await works(await open_client(server, ssl=True, ssl_verify=False))


async def test_wrong_name(start_server: Start, open_client: OpenClient, certificates: Certificates):
    server = start_server(tls=certificates.foreign)
    options = {"ssl": True, "ssl_extra_ca": authority(certificates)}
    await unavailable(await open_client(server, **options), ssl.SSLCertVerificationError)
    await works(await open_client(server, ssl_server_hostname="example.org", **options))
    await works(await open_client(server, ssl_check_hostname=False, **options))


async def test_client_certificates(start_server: Start, open_client: OpenClient, certificates: Certificates):
    server = start_server(tls=certificates.server, client_authority=certificates.authority.certificate)
    own = {"ssl_client_cert": str(certificates.client.certificate), "ssl_client_key": str(certificates.client.key)}
    await works(await open_client(server, ssl=True, ssl_extra_ca=authority(certificates), **own))
    without = await open_client(server, ssl=True, ssl_extra_ca=authority(certificates))
    with pytest.raises(NodeUnavailable):
        await without.get(b"k")


async def test_ready_context(start_server: Start, open_client: OpenClient, certificates: Certificates):
    context = context_that_trusts(certificates.authority)
    await works(await open_client(start_server(tls=certificates.server), ssl=context))


async def test_tls_over_unix_sockets(tmp_path: Path, open_client: OpenClient, certificates: Certificates):
    """Which memcached does not have, but proxies."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificates.server.certificate, certificates.server.key)
    async with FakeServer(tmp_path / "socket", ssl=context) as server:
        options = {"ssl": True, "ssl_extra_ca": authority(certificates), "ssl_server_hostname": "localhost"}
        client = await open_client(server, **options)
        assert (await client.get(b"k")).value == b"value of k"  # type: ignore[union-attr]
        await client.close()


async def test_tls_with_passwords(start_server: Start, open_client: OpenClient, certificates: Certificates):
    server = start_server(tls=certificates.server, users={"jo": "right"})
    options = {"ssl": True, "ssl_extra_ca": authority(certificates), "username": "jo"}
    await works(await open_client(server, password="right", **options))
    await refused(await open_client(server, password="secret", **options), "authentication failure")


async def test_tls_to_a_plain_port(start_server: Start, open_client: OpenClient, certificates: Certificates):
    client = await open_client(
        start_server(), ssl=True, ssl_extra_ca=authority(certificates), timeout=5.0, connection_timeout=1.0
    )
    # What says that it is no TLS: an answer, an end, or silence.
    await unavailable(client, (ssl.SSLError, ConnectionError, TimeoutError))  # type: ignore[arg-type]


async def test_plain_text_to_a_tls_port(start_server: Start, open_client: OpenClient, certificates: Certificates):
    client = await open_client(start_server(tls=certificates.server), timeout=5.0)
    await unavailable(client, (ConnectionError, TimeoutError))  # type: ignore[arg-type]


async def test_large_values_over_tls(start_server: Start, open_client: OpenClient, certificates: Certificates):
    server = start_server(tls=certificates.server)
    client = await open_client(server, ssl=True, ssl_extra_ca=authority(certificates), timeout=SECONDS)
    values = {b"key:%d" % number: bytes([number]) * 900_000 for number in range(20)}
    await asyncio.gather(*(client.set(key, value) for key, value in values.items()))
    found = await client.get_many(values)
    assert {key: item.value for key, item in found.items()} == values


@pytest.mark.parametrize("size", [3, 100, 1000, 5000, 20_000, 70_000])
async def test_pipelined_values_over_tls(
    start_server: Start, open_client: OpenClient, certificates: Certificates, size: int
):
    """memcached forgets what stands behind a value in the same TLS record, so records must end where requests do."""
    server = start_server(tls=certificates.server)
    client = await open_client(server, ssl=True, ssl_extra_ca=authority(certificates))
    for count in range(10, 60, 7):
        values = {b"key:%d" % number: b"%d" % (number % 10) * size for number in range(count)}
        await asyncio.gather(*(client.set(key, value) for key, value in values.items()))
        assert await client.set_many(values) == {}
        found = await client.get_many(values)
        assert {key: item.value for key, item in found.items()} == values
