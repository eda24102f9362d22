"""Where the HTTP port listens. Bound at the start of the server, before anything else of HTTP is needed."""

from __future__ import annotations

import errno
import logging
import socket

from rain.common.structs import dataclass
from rain.net.address import DEFAULT_HOST, DEFAULT_HTTP_PORT, Address
from rain.net.listener import bind
from rain.net.sockets import bind_listening, cannot_listen

OFF = "none"

_log = logging.getLogger("rain.server.http")


@dataclass(frozen=True, slots=True)
class BoundPort:
    """A listening socket.

    Attributes:
        address: as asked for, with the actual port.
    """

    sock: socket.socket
    address: Address


async def bind_http(listen: str | None, retry: float) -> BoundPort | None:
    """Bind the HTTP port; None if there shall be none.

    Args:
        listen: an address, or `none`; None: the default, or another free port if that is taken.
        retry: for how many seconds a given port that is taken is tried again.

    Raises:
        RainException: the address cannot be bound.
    """
    if listen == OFF:
        return None
    if listen is not None:
        address = Address.parse(listen, default_port=DEFAULT_HTTP_PORT)
        return _bound(await bind(address, retry), address.host)
    address = Address(DEFAULT_HOST, DEFAULT_HTTP_PORT)
    try:
        return _bound(_bind_or_other(address), address.host)
    except OSError as error:
        raise cannot_listen(address, error) from error


def _bind_or_other(address: Address) -> socket.socket:
    try:
        return bind_listening(address)
    except OSError as error:
        if error.errno != errno.EADDRINUSE:
            raise
    sock = bind_listening(Address(address.host, 0))
    _log.info("port %d is taken; the dashboard uses port %d", address.port, sock.getsockname()[1])
    return sock


def _bound(sock: socket.socket, host: str) -> BoundPort:
    return BoundPort(sock, Address(host, sock.getsockname()[1]))
