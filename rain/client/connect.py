"""How a client finds its server and opens the connection."""

from __future__ import annotations

import math
import select
from contextlib import suppress
from dataclasses import field
from typing import TYPE_CHECKING
from urllib.parse import quote

from rain.client.connection import Connection
from rain.common.errors import AuthenticationError, RainConnectionError, RainException, RainTimeoutError
from rain.common.structs import dataclass
from rain.common.units import parse_duration
from rain.net.access import newest_access_file, read_access_file
from rain.net.address import Address
from rain.net.blocking import BlockingChannel
from rain.net.secret import Secret, find_secret

if TYPE_CHECKING:
    from collections.abc import Mapping
    from pathlib import Path

    from rain.net.access import AccessFile
    from rain.protocol.messages import Message


@dataclass(frozen=True, slots=True)
class Target:
    """A server, and what proves to it that we may talk to it. dashboard_url: None if not known; may hold the secret."""

    address: Address
    secret: Secret
    dashboard_url: str | None = field(default=None, repr=False)


def find_target(
    address: str | None,
    port: int | str | None,
    *,
    token: str | None = None,
    token_file: str | Path | None = None,
    access_file: str | Path | None = None,
    environ: Mapping[str, str],
) -> Target | None:
    """The server that the arguments or the environment name, None if they name none.

    Raises:
        ValueError: a malformed address, or a port given twice and different.
        AuthenticationError: a file named cannot be used.
    """
    access: AccessFile | None = None
    if address is None and port is not None:
        found = Address.parse(port)
    elif address is not None:
        found = Address.parse(address, port)
    elif access_file is not None:
        access = read_access_file(access_file)
        found = access.address
    elif text := environ.get("RAIN_ADDRESS"):
        found = Address.parse(text)
    elif path := environ.get("RAIN_ACCESS_FILE"):
        access = read_access_file(path)
        found = access.address
        access_file = path if token is None and token_file is None else None
    else:
        return None
    secret = find_secret(found, token=token, token_file=token_file, access_file=access_file, environ=environ)
    if access is None:
        access = _access_of(found, secret, access_file, environ)
    if access is None or access.http_port is None:
        return Target(found, secret)
    return Target(found, secret, dashboard_url(found.host, access.http_port, secret))


def _access_of(
    found: Address, secret: Secret, access_file: str | Path | None, environ: Mapping[str, str]
) -> AccessFile | None:
    """The access file of a server whose address was given; only one with the same secret is."""
    path = access_file or environ.get("RAIN_ACCESS_FILE")
    with suppress(AuthenticationError):  # it tells no more than where the dashboard is
        newest = None if path else newest_access_file(environ, found)
        access = read_access_file(path) if path else newest[1] if newest else None
        if access is not None and (access.port, access.token) == (found.port, secret.token):
            return access
    return None


def dashboard_url(host: str, port: int, secret: Secret) -> str:
    """The address of a dashboard. It has the secret in it unless the server takes requests from this machine without:
    an opened page then keeps it in a cookie."""
    address = Address(host, port)
    query = "" if secret.token is None or address.is_loopback else f"?token={quote(secret.token, safe='')}"
    return f"http://{address}/{query}"


def check_unencrypted(ssl: object, ssl_verify: bool, ssl_extra_ca: object) -> None:
    """Raises:
    RainException: an encrypted connection is asked for.
    """
    if ssl is not None or not ssl_verify or ssl_extra_ca is not None:
        raise RainException("Encrypted connections are not supported: leave ssl, ssl_verify and ssl_extra_ca out")


def dashboard_url_of(access: AccessFile) -> str | None:
    """The address of the dashboard of a server on this machine, None if it has none."""
    if access.http_port is None:
        return None
    return f"http://{Address(access.address.host, access.http_port)}/"


def open_connection(
    target: Target, *, timeout: float | str | None, connection_timeout: float | str | None
) -> Connection:
    """Connect.

    Args:
        target: the server.
        timeout: seconds for each exchange later; None = no limit.
        connection_timeout: seconds to connect; None = no limit but that of the handshake.

    Raises:
        RainTimeoutError: `connection_timeout` seconds are over.
        RainConnectionError: no connection.
        AuthenticationError: no secret, or a wrong one.
    """
    limit = None if connection_timeout is None else parse_duration(connection_timeout)
    try:
        channel = BlockingChannel.connect(target.address, "client", target.secret, timeout=limit)
    except RainConnectionError as error:
        if isinstance(error.__cause__, TimeoutError):
            raise RainTimeoutError(str(error)) from error.__cause__
        raise
    return Connection(
        PolledChannel(channel),
        str(target.address),
        request_timeout=None if timeout is None else parse_duration(timeout),
    )


class PolledChannel:
    """A blocking channel whose waiting can be told from its reading."""

    def __init__(self, channel: BlockingChannel) -> None:
        self._channel = channel
        self._poll = select.poll()
        self._poll.register(channel.fileno(), select.POLLIN)
        self._early = channel.receive(0)
        self.send = channel.send
        self.close = channel.close

    def receive(self, timeout: float | None) -> list[Message]:
        """What has arrived."""
        if self._early:
            early, self._early = self._early, []
            return early
        return self._channel.receive(timeout)

    def wait_readable(self, timeout: float | None) -> bool:
        """Wait for something to read, the end of the connection included."""
        if self._early:
            return True
        return bool(self._poll.poll(None if timeout is None else math.ceil(timeout * 1000)))
