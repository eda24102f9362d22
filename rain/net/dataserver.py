"""A data port: blocking sockets in threads, because bulk data moves several times faster that way."""

from __future__ import annotations

import contextlib
import logging
import socket
import threading
import time
from typing import TYPE_CHECKING

from rain.common.errors import RainException
from rain.net.address import Address
from rain.net.sockets import (
    as_address,
    bind_listening,
    cannot_listen,
    format_name,
    is_same_machine,
    listening_secret,
    server_handshake,
    shake_hands,
    tune,
)
from rain.protocol.data import (
    OK,
    REQUEST_SIZE,
    UNREADABLE,
    WHERE,
    DataAnswer,
    DataRequest,
    RequestReader,
    pack_answer,
)
from rain.protocol.limits import DATA_STALL_TIMEOUT, HANDSHAKE_TIMEOUT, ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.protocol.data import DataSource, Piece
    from rain.protocol.handshake import Role, Secret

_log = logging.getLogger("rain.net")

_ROLES: tuple[Role, ...] = ("data",)
_READ_SIZE = 64 * REQUEST_SIZE
_WRITE_SIZE = 1 << 20
_ACCEPT_PAUSE = 0.1
_JOIN_TIMEOUT = 5.0


class _Connection:
    """One connection and the thread that serves it.

    Attributes:
        idle_since: monotonic time since when it waits for a request; None while it is busy or in its handshake.
        proven: its handshake is over.
        begun: monotonic time of its beginning.
    """

    def __init__(self, server: DataServer, sock: socket.socket, peer: str) -> None:
        self.peer = peer
        self.idle_since: float | None = None
        self.proven = False
        self.begun = time.monotonic()
        self._server = server
        self._socket = sock
        self._closing = False
        self.thread = threading.Thread(target=self._run, name=f"rain-data-{peer}", daemon=True)

    def stop(self) -> None:
        """Make the thread end."""
        self._closing = True
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)

    def _run(self) -> None:
        try:
            leftover = self._shake_hands()
            if leftover is not None:
                self.proven = True
                self._serve(leftover)
        except ProtocolError as error:
            _log.warning("%s: closed: %s", self.peer, error)
        except TimeoutError:
            _log.warning("%s: closed: it took nothing for %g s", self.peer, DATA_STALL_TIMEOUT)
        except OSError as error:
            _log.debug("%s: %s", self.peer, error)  # peers that end within a transfer are nothing special
        finally:
            self._server.ended(self)
            self._socket.close()

    def _shake_hands(self) -> bytes | None:
        """Bytes after the handshake; None if it failed."""
        handshake = server_handshake(self._server.secret, _ROLES)
        timeout = self._server.handshake_timeout
        try:
            tune(self._socket)
            _, leftover = shake_hands(self._socket, handshake, time.monotonic() + timeout)
        except TimeoutError:
            self._refuse(f"the handshake took more than {timeout:g} s")
        except (RainException, OSError) as error:
            self._refuse(str(error))
        else:
            return leftover
        return None

    def _refuse(self, reason: str) -> None:
        if not self._closing:
            _log.warning("refused connection from %s: %s", self.peer, reason)

    def _serve(self, data: bytes) -> None:
        reader = RequestReader()
        self._socket.settimeout(DATA_STALL_TIMEOUT)
        while True:
            for request in reader.feed(data):
                self._answer(request)
            self.idle_since = time.monotonic()
            self._socket.settimeout(None)
            data = self._socket.recv(_READ_SIZE)
            self.idle_since = None
            if not data:
                return
            self._socket.settimeout(DATA_STALL_TIMEOUT)

    def _answer(self, request: DataRequest) -> None:
        status, flags, total, data = self._read(request)
        length = len(data) if status == OK else 0
        header = pack_answer(DataAnswer(request.tag, status, flags, total, length))
        if length <= _READ_SIZE:
            self._socket.sendall(header + bytes(data)[:length])
            return
        self._socket.sendall(header)
        view = memoryview(data).cast("B")
        for start in range(0, length, _WRITE_SIZE):  # the timeout is for each stretch
            self._socket.sendall(view[start : start + _WRITE_SIZE])

    def _read(self, request: DataRequest) -> Piece:
        _, session, object_id, offset, length = request
        try:
            if offset == WHERE:
                place = self._server.place if is_same_machine(self._socket) else _untold
                return place(session, object_id)
            return self._server.source.read(session, object_id, offset, length)
        except Exception:
            _log.exception("object %d/%d could not be read for %s", session, object_id, self.peer)
            return UNREADABLE, 0, 0, b""


def _untold(session: int, object_id: int) -> Piece:
    return OK, 0, 0, b""


class DataServer:
    """Serves values of a source over data connections, each in a thread of its own.

    When all connections are taken, a new one takes the place of the one that has been idle longest, else of the oldest
    one that has not finished its handshake, or is refused.

    Args:
        address: to listen on; port 0 takes a free one.
        secret: what the other side must know.
        source: of the values, called from the threads.
        insecure: demand no secret.
        place: answers where values lie, called from the threads, to peers on this machine; None: that is not told.
        connections: most connections at the same time.
        handshake_timeout: seconds.

    Raises:
        AuthenticationError: there is no secret and `insecure` is not set.
        RainException: the address cannot be bound.

    Attributes:
        address: where it listens, with the actual port.
    """

    def __init__(
        self,
        address: Address | str,
        secret: Secret,
        source: DataSource,
        *,
        insecure: bool = False,
        place: Callable[[int, int], Piece] | None = None,
        connections: int = 64,
        handshake_timeout: float = HANDSHAKE_TIMEOUT,
    ) -> None:
        address = as_address(address)
        self.secret = listening_secret(address, secret, insecure)
        self.source = source
        self.place = place or _untold
        self.handshake_timeout = handshake_timeout
        try:
            self._socket = bind_listening(address)
        except OSError as error:
            raise cannot_listen(address, error) from error
        self.address = Address(address.host, self._socket.getsockname()[1])
        self._limit = connections
        self._lock = threading.Lock()
        self._connections: set[_Connection] = set()
        self._closing = False
        self._acceptor = threading.Thread(target=self._accept, name="rain-data-accept", daemon=True)
        self._acceptor.start()

    def close(self) -> None:
        """End all connections and threads."""
        with self._lock:
            self._closing = True
            connections = list(self._connections)
        with contextlib.suppress(OSError):
            self._socket.shutdown(socket.SHUT_RDWR)  # wakes accept
        for connection in connections:
            connection.stop()
        deadline = time.monotonic() + _JOIN_TIMEOUT
        for thread in [self._acceptor, *(connection.thread for connection in connections)]:
            thread.join(max(deadline - time.monotonic(), 0.0))
        self._socket.close()

    def ended(self, connection: _Connection) -> None:
        """A connection is over."""
        with self._lock:
            self._connections.discard(connection)

    def _accept(self) -> None:
        while not self._closing:
            try:
                sock, name = self._socket.accept()
            except OSError as error:
                if not self._closing:  # out of descriptors, or the peer was gone already
                    _log.warning("data port %s: %s", self.address, error)
                    time.sleep(_ACCEPT_PAUSE)
                continue
            self._begin(sock, format_name(name))

    def _begin(self, sock: socket.socket, peer: str) -> None:
        connection = _Connection(self, sock, peer)
        with self._lock:
            room = not self._closing and self._make_room()
            if room:
                self._connections.add(connection)
        if not room:
            _log.warning("refused connection from %s: all %d data connections are busy", peer, self._limit)
            sock.close()
            return
        try:
            connection.thread.start()
        except RuntimeError as error:  # no more threads
            self.ended(connection)
            sock.close()
            _log.warning("refused connection from %s: %s", peer, error)

    def _make_room(self) -> bool:
        if len(self._connections) < self._limit:
            return True
        candidates = [(since, entry) for entry in self._connections if (since := entry.idle_since) is not None]
        if not candidates:
            candidates = [(entry.begun, entry) for entry in self._connections if not entry.proven]
        if not candidates:
            return False
        _, oldest = min(candidates, key=lambda pair: pair[0])
        self._connections.discard(oldest)
        oldest.stop()
        return True
