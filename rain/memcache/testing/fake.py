"""A scripted server: it records what it receives, byte by byte, and plays the answers it was given."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, cast

from rain.memcache.addresses import MemcachedHostAddress, MemcachedUnixSocketPath
from rain.memcache.testing.answers import success
from rain.memcache.testing.framing import next_request

if TYPE_CHECKING:
    import ssl
    from typing import Self

WAIT_SECONDS = 10.0
"""How long a test waits for something to arrive."""


@dataclass(frozen=True)
class Play:
    """An answer and how it is given.

    Attributes:
        data: its bytes.
        after: it is not begun before this is set.
        delay: seconds before it is begun.
        cut: only so many bytes of it are given.
        step: bytes given at a time; 0: all at once.
        pause: seconds between the steps.
        end: what happens to the connection then: it is closed, or reset, or nothing more is ever answered ("hang").
    """

    data: bytes = b""
    after: asyncio.Event | None = None
    delay: float = 0.0
    cut: int | None = None
    step: int = 0
    pause: float = 0.0
    end: str = ""


CLOSE = Play(end="close")
SILENCE = Play()

Answer = bytes | Play
Script = Answer | Callable[[bytes], Answer]


class FakeConnection(asyncio.Protocol):
    """One connection to a FakeServer.

    Attributes:
        received: all bytes.
        chunks: the same as they came, cut as the network cut them.
        requests: the same as whole requests.
        lost: set when the connection has ended.
    """

    def __init__(self, server: FakeServer) -> None:
        self.received = b""
        self.chunks: list[bytes] = []
        self.requests: list[bytes] = []
        self.lost = asyncio.Event()
        self._server = server
        self._buffer = b""
        self._plays: asyncio.Queue[Play] = asyncio.Queue()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin to answer."""
        self._transport = cast(asyncio.Transport, transport)
        self._server.connections.append(self)
        self._task = asyncio.get_running_loop().create_task(self._answer())
        self._server.changed()

    def data_received(self, data: bytes) -> None:
        """Record, and line up the answers of the requests that are complete."""
        self.chunks.append(data)
        self.received += data
        self._buffer += data
        while size := next_request(self._buffer):
            request, self._buffer = self._buffer[:size], self._buffer[size:]
            self.requests.append(request)
            self._server.requests.append(request)
            answer = self._server.answer_to(request)
            self._plays.put_nowait(Play(answer) if isinstance(answer, bytes) else answer)
        self._server.changed()

    def connection_lost(self, exc: Exception | None) -> None:
        """Answer no more."""
        self._task.cancel()
        self.lost.set()
        self._server.changed()

    @property
    def open(self) -> bool:
        """False when the connection has ended."""
        return not self.lost.is_set()

    def send(self, data: bytes) -> None:
        """Send what nobody asked for."""
        self._transport.write(data)

    def close(self) -> None:
        """Close as a server does: the peer reads an end of stream."""
        self._transport.close()

    def abort(self) -> None:
        """Drop the connection: the peer reads a reset, on unix sockets an end of stream."""
        if not self.open:
            return
        linger = struct.pack("ii", 1, 0)
        self._transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
        self._transport.abort()

    async def _answer(self) -> None:
        while True:
            play = await self._plays.get()
            if play.after is not None:
                await play.after.wait()
            if play.delay:
                await asyncio.sleep(play.delay)
            data = play.data[: play.cut]
            step = play.step or max(1, len(data))
            for start in range(0, len(data), step):
                if start:
                    await asyncio.sleep(play.pause)
                self._transport.write(data[start : start + step])
            if play.end == "close":
                self._transport.close()
            elif play.end == "reset":
                self.abort()
            elif play.end == "hang":
                return

    async def ended(self) -> None:
        """Wait for the end of the connection and of its answers."""
        await self.lost.wait()
        with contextlib.suppress(asyncio.CancelledError):
            await self._task


class FakeServer:
    """A scripted server on TCP or on a unix socket; an async context manager.

    What no rule covers is answered as `success` does: as if every command went well.

    Attributes:
        requests: whole requests, as they came on any connection.
        connections: all there were.
        rules: what `answer` and `answer_next` made, the latest first.

    Args:
        path: of a unix socket; None: TCP on 127.0.0.1 and a free port.
        default: gives the answer to a request that no rule covers.
        ssl: for TLS.
    """

    def __init__(
        self,
        path: str | Path | None = None,
        *,
        default: Callable[[bytes], Answer] = success,
        ssl: ssl.SSLContext | None = None,
    ) -> None:
        self.requests: list[bytes] = []
        self.connections: list[FakeConnection] = []
        self._rules: list[_Rule] = []
        self._path = None if path is None else str(path)
        self._default = default
        self._ssl = ssl
        self._port = 0
        self._listener: asyncio.Server | None = None
        self._change = asyncio.Event()

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.close()

    @property
    def address(self) -> MemcachedHostAddress | MemcachedUnixSocketPath:
        """Where it listens, or listened."""
        if self._path is not None:
            return MemcachedUnixSocketPath(self._path)
        return MemcachedHostAddress("127.0.0.1", self._port)

    @property
    def open_connections(self) -> list[FakeConnection]:
        """Those that have not ended."""
        return [connection for connection in self.connections if connection.open]

    async def start(self) -> None:
        """Listen; again on the same port after `stop_listening`."""
        loop = asyncio.get_running_loop()
        if self._path is not None:
            self._listener = await loop.create_unix_server(lambda: FakeConnection(self), self._path, ssl=self._ssl)
            return
        self._listener = await loop.create_server(lambda: FakeConnection(self), "127.0.0.1", self._port, ssl=self._ssl)
        self._port = self._listener.sockets[0].getsockname()[1]

    def stop_listening(self) -> None:
        """Refuse new connections; the open ones stay."""
        if self._listener is not None:
            self._listener.close()
            self._listener = None
            if self._path is not None:
                Path(self._path).unlink(missing_ok=True)

    async def close(self) -> None:
        """End everything; `start` makes it listen again, at the same address."""
        self.stop_listening()
        for connection in self.connections:
            connection.abort()
            await connection.ended()

    def answer(self, prefix: bytes, *scripts: Script) -> None:
        """Answer requests that begin with `prefix`, one script after the other; the last one is for all that follow.

        The latest rule whose prefix fits counts. A script is bytes, a Play or a function of the request that gives
        one of them.
        """
        self._rules.insert(0, _Rule(prefix, list(scripts), endless=True))

    def answer_next(self, prefix: bytes, *scripts: Script) -> None:
        """The same for the next requests only, one for each script; then other rules count again."""
        self._rules.insert(0, _Rule(prefix, list(scripts), endless=False))

    def answer_to(self, request: bytes) -> Answer:
        """The answer that is due; a rule that is used up is forgotten."""
        for rule in self._rules:
            if request.startswith(rule.prefix):
                script = rule.scripts[0]
                if len(rule.scripts) > 1:
                    del rule.scripts[0]
                elif not rule.endless:
                    self._rules.remove(rule)
                return script(request) if callable(script) else script
        return self._default(request)

    def changed(self) -> None:
        """Something arrived; told by the connections."""
        self._change.set()

    async def until(self, condition: Callable[[], object], seconds: float = WAIT_SECONDS) -> None:
        """Wait until a condition on what was recorded holds; it is looked at whenever something arrives or ends.

        Raises:
            TimeoutError: it does not hold after so many seconds; says what was recorded.
        """
        try:
            async with asyncio.timeout(seconds):
                while not condition():
                    self._change.clear()
                    await self._change.wait()
        except TimeoutError:
            raise TimeoutError(
                f"The fake server waited {seconds} s in vain; it has {len(self.open_connections)} open connections "
                f"and got {self.requests!r}"
            ) from None

    async def until_requests(self, count: int) -> None:
        """Wait until so many requests have come, those of probe and authentication included."""
        await self.until(lambda: len(self.requests) >= count)

    async def until_connections(self, count: int) -> None:
        """Wait until exactly so many connections are open."""
        await self.until(lambda: len(self.open_connections) == count)

    def asked(self, prefix: bytes) -> list[bytes]:
        """The requests that begin so."""
        return [request for request in self.requests if request.startswith(prefix)]


@dataclass
class _Rule:
    prefix: bytes
    scripts: list[Script]
    endless: bool
