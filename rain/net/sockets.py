"""What blocking and asyncio connections share: opening, tuning, binding, and a handshake on a blocking socket."""

from __future__ import annotations

import contextlib
import math
import os
import secrets
import socket
import time
from typing import TYPE_CHECKING

from rain.common.errors import AuthenticationError, RainConnectionError, RainException
from rain.net.address import Address
from rain.protocol.handshake import NONCE_SIZE, ClientHandshake, PeerHello, Role, Secret, ServerHandshake
from rain.protocol.limits import HANDSHAKE_TIMEOUT, MAX_HANDSHAKE

if TYPE_CHECKING:
    from collections.abc import Collection
    from typing import Any

BACKLOG = 1024
_TCP_RTO_MAX_MS = 44
_LONGEST_RETRY = 2000
_KEEPALIVE_IDLE, _KEEPALIVE_INTERVAL, _KEEPALIVE_COUNT = 60, 15, 4


def as_address(address: Address | str) -> Address:
    """Parse what is not parsed yet.

    Raises:
        ValueError: not an address.
    """
    return address if isinstance(address, Address) else Address.parse(address)


def format_name(name: Any) -> str:
    """`IP:PORT` of what getsockname and getpeername return."""
    if not isinstance(name, tuple) or len(name) < 2:
        return "unknown"
    return str(Address(name[0].partition("%")[0], name[1]))


def tune(sock: socket.socket) -> None:
    """No delay of small writes; dead peers are noticed within about two minutes also where nothing is sent; the end of
    a cut is noticed within two seconds, so that it does not count as longer than it was."""
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
    sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPIDLE, _KEEPALIVE_IDLE)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPINTVL, _KEEPALIVE_INTERVAL)
    sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_KEEPCNT, _KEEPALIVE_COUNT)
    with contextlib.suppress(OSError):  # Linux before 6.15 tries again only after as long as the cut lasted
        sock.setsockopt(socket.IPPROTO_TCP, _TCP_RTO_MAX_MS, _LONGEST_RETRY)


def cannot_connect(address: Address, error: BaseException, timeout: float | None) -> RainConnectionError:
    """The error for a connection that could not be opened."""
    if isinstance(error, TimeoutError) and timeout is not None:
        return RainConnectionError(f"cannot connect to {address}: no answer within {timeout:g} s")
    number = getattr(error, "errno", None)
    # asyncio puts texts of its own, with the address again, into its errors
    reason = os.strerror(number) if number and number > 0 else getattr(error, "strerror", None) or str(error)
    return RainConnectionError(f"cannot connect to {address}: {reason or type(error).__name__}")


def client_handshake(address: Address, role: Role, secret: Secret) -> ClientHandshake:
    """A handshake of the connecting side with a fresh nonce."""
    return ClientHandshake(role, secret, nonce=secrets.token_bytes(NONCE_SIZE), address=str(address))


def server_handshake(secret: Secret, roles: Collection[Role]) -> ServerHandshake:
    """A handshake of the listening side with a fresh nonce."""
    return ServerHandshake(secret, roles, nonce=secrets.token_bytes(NONCE_SIZE))


def listening_secret(address: Address, secret: Secret, insecure: bool) -> Secret:
    """The secret a listener is to demand; without a token only if `insecure`.

    Raises:
        AuthenticationError: there is no secret and `insecure` is not set.
    """
    if insecure:
        return Secret(None, "--insecure")
    if secret.token is None:
        raise AuthenticationError(
            f"refused to listen on {address} without a secret ({secret.source}); give one, or allow it by --insecure"
        )
    return secret


def bind_listening(address: Address) -> socket.socket:
    """A listening socket.

    Raises:
        OSError: it cannot be bound.
    """
    family, kind, number, _, name = socket.getaddrinfo(
        address.host, address.port, type=socket.SOCK_STREAM, flags=socket.AI_PASSIVE
    )[0]
    sock = socket.socket(family, kind, number)
    try:
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        sock.bind(name)
        sock.listen(BACKLOG)
    except BaseException:
        sock.close()
        raise
    return sock


def is_same_machine(sock: socket.socket) -> bool:
    """Whether both ends of a connection have the same IP address; false also when it has ended."""
    try:
        return bool(sock.getsockname()[0] == sock.getpeername()[0])
    except OSError:
        return False


def cannot_listen(address: Address, error: OSError) -> RainException:
    """The error for an address that cannot be bound."""
    return RainException(f"cannot listen on {address}: {error.strerror or error}")


def open_connection(
    address: Address, role: Role, secret: Secret, timeout: float | None
) -> tuple[socket.socket, bytes]:
    """Connect and shake hands within `timeout` seconds, blocking; None = no limit but that of the handshake.

    Returns:
        The socket in blocking mode, and bytes that came after the handshake.

    Raises:
        RainConnectionError: no connection.
        AuthenticationError: no secret, or a wrong one.
    """
    deadline = math.inf if timeout is None else time.monotonic() + timeout
    try:
        sock = socket.create_connection((address.host, address.port), timeout)
    except OSError as error:
        raise cannot_connect(address, error, timeout) from error
    try:
        tune(sock)
        handshake = client_handshake(address, role, secret)
        _, leftover = shake_hands(sock, handshake, deadline)
    except TimeoutError as error:
        sock.close()
        raise cannot_connect(address, error, timeout) from error
    except OSError as error:
        sock.close()
        if isinstance(error, RainException):
            raise
        raise cannot_connect(address, error, timeout) from error
    except BaseException:
        sock.close()
        raise
    sock.settimeout(None)
    return sock, leftover


def shake_hands(
    sock: socket.socket, handshake: ClientHandshake | ServerHandshake, deadline: float
) -> tuple[PeerHello, bytes]:
    """Run a handshake on a socket until `deadline` (monotonic), at most HANDSHAKE_TIMEOUT.

    Returns:
        The peer's hello, and bytes that came after the handshake.

    Raises:
        RainException: why it failed; what the peer is to learn of it has been sent.
        OSError: the connection broke.
        TimeoutError: it took too long.
    """
    deadline = min(deadline, time.monotonic() + HANDSHAKE_TIMEOUT)
    output = handshake.start() if isinstance(handshake, ClientHandshake) else b""
    while True:
        if output:
            sock.settimeout(_remaining(deadline))
            sock.sendall(output)
        if handshake.error is not None:
            with contextlib.suppress(OSError):
                sock.shutdown(socket.SHUT_WR)
            raise handshake.error
        if handshake.done:
            assert handshake.peer is not None
            return handshake.peer, handshake.leftover
        sock.settimeout(_remaining(deadline))
        data = sock.recv(MAX_HANDSHAKE)
        if not data:
            raise RainConnectionError("the connection was closed during the handshake")
        output = handshake.feed(data)


def _remaining(deadline: float) -> float:
    remaining = deadline - time.monotonic()
    if remaining <= 0:
        raise TimeoutError("the handshake took too long")
    return remaining
