"""TLS contexts, and TLS connections to scripted servers."""

from __future__ import annotations

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from rain.memcache.handshake import Handshake, open_transport
from rain.memcache.metrics import Counters
from rain.memcache.options import Options
from rain.memcache.ordering import Bindings
from rain.memcache.testing import Certificates, FakeServer
from rain.memcache.testing.certificates import Certificate
from rain.memcache.tls import client_context


@asynccontextmanager
async def tls_server(
    certificate: Certificate, *, path: Path | None = None, client_authority: Certificate | None = None
) -> AsyncIterator[FakeServer]:
    """A scripted server with a certificate; with `client_authority` it wants one of its clients, too."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(certificate.certificate, certificate.key)
    if client_authority is not None:
        context.load_verify_locations(client_authority.certificate)
        context.verify_mode = ssl.CERT_REQUIRED
    async with FakeServer(path, ssl=context) as server:
        yield server


async def connect(server: FakeServer, **options: Any) -> None:
    """Open a connection with these options, and close it."""
    given = Options(ssl=True, **options)
    ready = replace(given, ssl_context=client_context(given))
    connection = await Handshake(server.address, ready, open_transport, Bindings(), Counters()).open()
    connection.finish()
    await connection.gone


def test_without_tls():
    assert client_context(Options()) is None


def test_a_context_of_the_user_is_used_as_it_is():
    context = ssl.create_default_context()
    assert client_context(Options(ssl=context)) is context


def test_verification():
    context = client_context(Options(ssl=True))
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert context.check_hostname
    context = client_context(Options(ssl=True, ssl_check_hostname=False))
    assert context is not None
    assert context.verify_mode is ssl.CERT_REQUIRED
    assert not context.check_hostname
    context = client_context(Options(ssl=True, ssl_verify=False))
    assert context is not None
    assert context.verify_mode is ssl.CERT_NONE
    assert not context.check_hostname


def test_files(certificates: Certificates, tmp_path: Path):
    context = client_context(Options(ssl=True, ssl_extra_ca=str(certificates.authority.certificate)))
    assert context is not None
    assert not context.verify_flags & ssl.VERIFY_X509_STRICT
    with pytest.raises(FileNotFoundError):
        client_context(Options(ssl=True, ssl_extra_ca=str(tmp_path / "none")))
    with pytest.raises(ssl.SSLError):
        client_context(Options(ssl=True, ssl_client_cert=str(certificates.client.key)))


def test_a_key_with_a_password_is_refused_and_not_asked_for(certificates: Certificates, tmp_path: Path):
    encrypted = tmp_path / "key.pem"
    algorithm = "DEK-Info: AES-128-CBC,0123456789ABCDEF0123456789ABCDEF"
    lines = ["-----BEGIN EC PRIVATE KEY-----", "Proc-Type: 4,ENCRYPTED", algorithm, "", "A" * 64]
    encrypted.write_text("\n".join([*lines, "-----END EC PRIVATE KEY-----", ""]))
    certificate = str(certificates.client.certificate)
    with pytest.raises(ssl.SSLError):
        client_context(Options(ssl=True, ssl_client_cert=certificate, ssl_client_key=str(encrypted)))


async def test_a_server_that_is_who_it_claims_to_be(certificates: Certificates):
    authority = str(certificates.authority.certificate)
    async with tls_server(certificates.server) as server:
        await connect(server, ssl_extra_ca=authority)
        await connect(server, ssl_extra_ca=authority, ssl_server_hostname="localhost")
    async with tls_server(certificates.nameless) as server:
        await connect(server, ssl_extra_ca=authority, ssl_server_hostname="localhost")


async def test_certificates_that_do_not_fit(certificates: Certificates):
    authority = str(certificates.authority.certificate)
    async with tls_server(certificates.server) as server:
        for options in (
            {},
            {"ssl_extra_ca": str(certificates.stranger.certificate)},
            {"ssl_extra_ca": authority, "ssl_server_hostname": "example.org"},
        ):
            with pytest.raises(ssl.SSLCertVerificationError):
                await connect(server, **options)
        await connect(server, ssl_verify=False)
    async with tls_server(certificates.foreign) as server:
        with pytest.raises(ssl.SSLCertVerificationError):
            await connect(server, ssl_extra_ca=authority)
        await connect(server, ssl_extra_ca=authority, ssl_check_hostname=False)
        await connect(server, ssl_extra_ca=authority, ssl_server_hostname="example.org")


async def test_client_certificates(certificates: Certificates):
    own = {
        "ssl_client_cert": str(certificates.client.certificate),
        "ssl_client_key": str(certificates.client.key),
        "ssl_extra_ca": str(certificates.authority.certificate),
    }
    async with tls_server(certificates.server, client_authority=certificates.authority) as server:
        await connect(server, **own)
        with pytest.raises(OSError, match=r"closed|lost|reset|alert"):
            await connect(server, ssl_extra_ca=own["ssl_extra_ca"])


async def test_unix_sockets(certificates: Certificates, tmp_path: Path):
    authority = str(certificates.authority.certificate)
    async with tls_server(certificates.server, path=tmp_path / "socket") as server:
        await connect(server, ssl_extra_ca=authority, ssl_server_hostname="localhost")
        await connect(server, ssl_verify=False)


async def test_plain_text_on_a_tls_port_and_the_reverse(certificates: Certificates, fake: FakeServer):
    with pytest.raises((OSError, TimeoutError)):
        await connect(fake, ssl_verify=False, timeout=0.2, connection_timeout=1.0)
    async with tls_server(certificates.server) as server:
        opener = Handshake(server.address, Options(), open_transport, Bindings(), Counters())
        with pytest.raises(OSError, match="probe"):
            await opener.open()
