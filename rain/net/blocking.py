"""The message channel of the synchronous client: a plain socket, driven by the calling thread."""

from __future__ import annotations

import contextlib
import socket
import struct
import threading
import time
from typing import TYPE_CHECKING

from rain.common.errors import RainConnectionError
from rain.net.sockets import as_address, format_name, open_connection
from rain.protocol import codec
from rain.protocol.framing import FrameReader
from rain.protocol.limits import ProtocolError

if TYPE_CHECKING:
    from rain.net.address import Address
    from rain.protocol.handshake import Role, Secret
    from rain.protocol.messages import Message

READ_BUFFER = 256 << 10
SEND_TIMEOUT = 15.0
"""How long the other side may take nothing of what is sent, seconds; then the connection counts as lost."""

_TIMEVAL = struct.Struct("@ll")
_SHORTEST = 1e-6


class BlockingChannel:
    """A connection to a server, after its handshake.

    One thread may send while another receives; senders among themselves, and receivers among themselves, take turns
    by their own means. `close` may be called from any thread and wakes both.

    Attributes:
        address: of the other side, as it was given.
        local: `IP:PORT` of this side.
    """

    def __init__(self, sock: socket.socket, address: Address, leftover: bytes = b"") -> None:
        self.address = address
        self.local = format_name(sock.getsockname())
        self._socket = sock
        self._buffer = memoryview(bytearray(READ_BUFFER))
        self._reader = FrameReader()
        self._leftover = leftover
        self._receive_timeout: float | None = None
        self._data: memoryview | None = None  # what is being sent
        self._sent: list[int] = []  # how much of it, write by write
        self._closing = threading.Lock()
        self._closed = False
        # timeouts in the kernel: one system call per receive, and independent of the sending thread
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, _timeval(SEND_TIMEOUT))
        if sock.family in (socket.AF_INET, socket.AF_INET6):  # also for what was written and is not confirmed
            sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, round(SEND_TIMEOUT * 1000))

    @classmethod
    def connect(
        cls, address: Address | str, role: Role, secret: Secret, *, timeout: float | None
    ) -> BlockingChannel:
        """Connect and shake hands.

        Args:
            address: of the listening side.
            role: what this side is.
            secret: what both sides know.
            timeout: seconds for all of it; None = no limit but that of the handshake.

        Raises:
            RainConnectionError: no connection, or another protocol.
            AuthenticationError: no secret, or a wrong one.
        """
        address = as_address(address)
        sock, leftover = open_connection(address, role, secret, timeout)
        return cls(sock, address, leftover)

    def send(self, *messages: Message) -> None:
        """Send these messages in one write. When it is interrupted (Ctrl-C), the next call sends the rest first.

        Raises:
            RainConnectionError: the connection is lost.
            ProtocolError: a message cannot be encoded; nothing was sent.
        """
        data = codec.encode(messages)
        if self._data is not None:  # the last call was interrupted
            data = bytes(self._data[sum(self._sent) :]) + data
        view = memoryview(data)
        self._data, self._sent = view, []
        try:
            while (position := sum(self._sent)) < len(data):
                # Ctrl-C may come at any moment: so the count is stored before Python looks for signals
                self._sent.extend(map(self._socket.send, (view[position:],)))
        except BlockingIOError as error:
            raise self._give_up(f"the other side took nothing for {SEND_TIMEOUT:g} s") from error
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from error
        self._data = None

    def receive(self, timeout: float | None) -> list[Message]:
        """Receive what is there, waiting for at least one message.

        Args:
            timeout: seconds; None waits until the connection ends.

        Returns:
            Messages in order; none if the time is over.

        Raises:
            RainConnectionError: the connection is lost, or the other side sent what is not a message.
        """
        deadline = None if timeout is None else time.monotonic() + timeout
        remaining = timeout
        while True:
            data = self._read(remaining)
            if data is None:
                return []
            try:
                messages = [codec.decode(frame) for frame in self._reader.feed(data)]
            except ProtocolError as error:
                raise self._give_up(str(error)) from error
            if messages:
                return messages
            if deadline is not None:  # a part of a message came
                remaining = max(deadline - time.monotonic(), 0.0)

    def fileno(self) -> int:
        """The socket's descriptor, for `select`; -1 once closed."""
        return self._socket.fileno()

    def close(self) -> None:
        """Close at once; a thread in `receive` or `send` gets a RainConnectionError."""
        with self._closing:
            if self._closed:
                return
            self._closed = True
            with contextlib.suppress(OSError):
                self._socket.shutdown(socket.SHUT_RDWR)
            self._socket.close()

    def _read(self, timeout: float | None) -> memoryview | None:
        """Bytes of one read, None when the time is over."""
        if self._leftover:
            leftover, self._leftover = memoryview(self._leftover), b""
            return leftover
        flags = 0
        try:
            if timeout is not None and timeout <= 0:
                flags = socket.MSG_DONTWAIT
            elif timeout != self._receive_timeout:
                self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, _timeval(timeout or 0.0))
                self._receive_timeout = timeout
            count = self._socket.recv_into(self._buffer, 0, flags)
        except BlockingIOError:
            return None
        except OSError as error:
            raise self._lost(error.strerror or str(error)) from error
        if count == 0:
            raise self._lost("the other side closed it")
        return self._buffer[:count]

    def _give_up(self, reason: str) -> RainConnectionError:
        error = self._lost(reason)
        self.close()
        return error

    def _lost(self, reason: str) -> RainConnectionError:
        if self._closed:
            return RainConnectionError(f"the connection to {self.address} is closed")
        return RainConnectionError(f"the connection to {self.address} is lost: {reason}")


def _timeval(seconds: float) -> bytes:
    """For the socket options; 0 is no timeout there, so a positive time never becomes it."""
    if seconds <= 0:
        return _TIMEVAL.pack(0, 0)
    whole, fraction = divmod(max(seconds, _SHORTEST), 1.0)
    return _TIMEVAL.pack(int(whole), int(fraction * 1e6) or (0 if whole else 1))
