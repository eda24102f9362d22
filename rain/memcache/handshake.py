"""From an address to a connection that is ready: connect, TLS, authentication, probe."""

from __future__ import annotations

import asyncio
import re
import socket
from typing import TYPE_CHECKING, TypeAlias

from rain.memcache import requests
from rain.memcache.addresses import MemcachedUnixSocketPath
from rain.memcache.binary import BinaryDialect
from rain.memcache.client_errors import AuthenticationError
from rain.memcache.connection import Connection
from rain.memcache.deadlines import fail
from rain.memcache.dialects import ClassicDialect, MetaDialect
from rain.memcache.replies import Fault, MetaItem

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable

    from rain.memcache.addresses import Address
    from rain.memcache.dialects import Dialect
    from rain.memcache.metrics import Counters
    from rain.memcache.options import Options
    from rain.memcache.ordering import Bindings
    from rain.memcache.replies import Reply
    from rain.memcache.requests import Request

ProtocolFactory: TypeAlias = "Callable[[], asyncio.BaseProtocol]"
Connect: TypeAlias = "Callable[[Address, ProtocolFactory, Options], Awaitable[object]]"
"""Opens a transport to an address, with TLS if the options say so, and connects it with what the factory makes."""

CLASSIC_SECONDS = 600.0
"""How long a server that closes connections on the meta probe is taken for one that knows only classic commands."""

_SHORTEST_EXCHANGE = 1.0
_META_SINCE = (1, 6, 10)
_VERSION = re.compile(rb"VERSION (\d+)\.(\d+)\.(\d+)")
_SASL_HINT = 'no answer to authentication; if the server uses SASL (-S), pass protocol="binary"'


async def open_transport(address: Address, protocol_factory: ProtocolFactory, options: Options) -> None:
    """Connect over TCP or a unix socket, and begin TLS if wanted."""
    loop = asyncio.get_running_loop()
    context, name = options.ssl_context, options.server_hostname(address)
    if isinstance(address, MemcachedUnixSocketPath):
        await loop.create_unix_connection(protocol_factory, address.path, ssl=context, server_hostname=name)
        return
    transport, _ = await loop.create_connection(
        protocol_factory, address.address, address.port, ssl=context, server_hostname=name
    )
    connected = transport.get_extra_info("socket")
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    connected.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, 60)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, 10)
    connected.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, 3)


class Handshake:
    """Opens the connections of one node, one at a time.

    Attributes:
        shortcut: None, since nobody is alone before the connection is ready.

    Args:
        address: of the node.
        options: of the client.
        connect: opens a transport.
        bindings, counters: of the node, for its connections.
    """

    def __init__(
        self,
        address: Address,
        options: Options,
        connect: Connect,
        bindings: Bindings[Connection],
        counters: Counters,
    ) -> None:
        self.shortcut: Connection | None = None
        self._address = address
        self._options = options
        self._connect = connect
        self._bindings = bindings
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._closes = 0  # in a row, instead of answers to the meta probe
        self._classic_until = 0.0

    async def open(self) -> Connection:
        """Make one attempt, within `connection_timeout`.

        Returns:
            A connection that is ready; this object is its owner still.

        Raises:
            AuthenticationError: the server refused the credentials, or wants some.
            Exception: whatever else went wrong.
        """
        try:
            async with asyncio.timeout(self._options.connection_timeout):
                return await self._open()
        except TimeoutError as error:
            if error.args:
                raise
            raise TimeoutError(
                f"{self._address} was not ready within {self._options.connection_timeout} s (connection_timeout)"
            ) from error

    def connection_ended(
        self, connection: Connection, reason: Exception, in_flight: list[Request], queued: list[Request]
    ) -> None:
        """The handshake has failed."""
        for request in (*in_flight, *queued):
            fail(request, reason)

    async def _open(self) -> Connection:
        protocol = self._options.protocol
        if protocol != "auto" or self._loop.time() < self._classic_until:
            return await self._attempt(BinaryDialect() if protocol == "binary" else ClassicDialect())
        try:
            connection = await self._attempt(MetaDialect())
        except _ClosedInProbe:
            self._closes += 1
            if self._closes < 2:
                raise
        except BaseException:
            self._closes = 0
            raise
        else:
            self._closes = 0
            return connection
        connection = await self._attempt(ClassicDialect())
        self._closes = 0
        self._classic_until = self._loop.time() + CLASSIC_SECONDS
        return connection

    async def _attempt(self, dialect: Dialect) -> Connection:
        connection = Connection(self._address, self._options.timeout, dialect, self, self._bindings, self._counters)
        await self._connect(self._address, lambda: connection, self._options)
        try:
            if self._options.username is not None:
                await self._authenticate(connection)
            if dialect.name == "meta":
                await self._meta_probe(connection)
            elif dialect.name == "classic":
                await self._exchange(connection, "the probe", requests.probe())
            if connection.ended:
                raise ConnectionError("the server closed the connection as soon as it was open")
        except BaseException:
            connection.abort()
            await connection.gone
            raise
        return connection

    async def _authenticate(self, connection: Connection) -> None:
        username, password = self._options.username, self._options.password
        assert username is not None
        assert password is not None
        request = requests.authenticate(username, password)
        try:
            [reply] = await self._exchange(connection, "authentication", request)
        except (ConnectionError, TimeoutError) as error:
            if connection.dialect.name == "binary":
                raise
            raise ConnectionError(_SASL_HINT) from error
        if reply != b"STORED":
            line = reply.line.decode(errors="replace") if isinstance(reply, Fault) else repr(reply)
            raise AuthenticationError(
                f"{self._address} refused the credentials of {username!r}: {line}", reply=line, address=self._address
            )

    async def _meta_probe(self, connection: Connection) -> None:
        try:
            version, barrier = await self._exchange(
                connection, "the probe", requests.version(own=True), requests.barrier()
            )
        except ConnectionError as error:
            raise _ClosedInProbe(f"{error} instead of answering the probe") from error
        if connection.ended:
            raise _ClosedInProbe("the connection ended with the probe")
        if not (knows_meta(version) and isinstance(barrier, MetaItem)):
            connection.speak(ClassicDialect())

    async def _exchange(self, connection: Connection, what: str, *together: Request) -> list[Reply]:
        timeout = self._options.timeout
        limit = None if timeout is None else max(timeout, _SHORTEST_EXCHANGE)
        for request in together:
            request.waiter = self._loop.create_future()
            request.deadline = None if limit is None else self._loop.time() + limit
        if connection.ended:
            raise ConnectionError("the server closed the connection")
        connection.send_together(list(together))
        try:
            return [await request.waiter for request in together]
        except TimeoutError as error:
            raise TimeoutError(f"{self._address} did not answer {what} within {limit} s") from error


class _ClosedInProbe(ConnectionError):
    """The server closed the connection instead of answering the meta probe."""


def knows_meta(reply: Reply) -> bool:
    """Whether the reply to `version` is that of a server whose meta commands are as we need them."""
    match = _VERSION.match(reply) if isinstance(reply, bytes) else None
    return match is not None and tuple(map(int, match.groups())) >= _META_SINCE
