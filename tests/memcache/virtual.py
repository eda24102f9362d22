"""A loop whose clock jumps, and a network in memory with scripted servers: for tests of connections and nodes."""

from __future__ import annotations

import asyncio
import functools
import selectors
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any

from rain.memcache.addresses import MemcachedHostAddress
from rain.memcache.options import Options
from rain.memcache.requests import Request
from rain.memcache.testing.answers import success
from rain.memcache.testing.framing import next_request

ADDRESS = MemcachedHostAddress("cache", 11211)

Script = Callable[[bytes], bytes | None]


class VirtualLoop(asyncio.SelectorEventLoop):
    """Does not wait for its timers: when nothing else is left to do, the clock jumps to the next one."""

    def __init__(self) -> None:
        self.now = 1000.0
        super().__init__(_JumpingSelector(self))

    def time(self) -> float:
        return self.now


class _JumpingSelector(selectors.SelectSelector):
    def __init__(self, loop: VirtualLoop) -> None:
        super().__init__()
        self._loop = loop

    def select(self, timeout: float | None = None) -> list[Any]:
        if timeout is None:
            raise AssertionError("the test waits for something that will never happen")
        self._loop.now += timeout
        return super().select(0)


def virtually(test: Callable[..., Coroutine[Any, Any, None]]) -> Callable[..., None]:
    """Run a test on a VirtualLoop; at its end no task and no timer may be left."""

    @functools.wraps(test)
    def run(*args: Any, **kwargs: Any) -> None:
        with asyncio.Runner(loop_factory=VirtualLoop) as runner:
            loop = runner.get_loop()
            failures: list[dict[str, Any]] = []
            loop.set_exception_handler(lambda _, context: failures.append(context))
            runner.run(test(*args, **kwargs))
            runner.run(turns())
            assert not failures
            assert not [timer for timer in loop._scheduled if not timer.cancelled()]  # type: ignore[attr-defined]
            assert not asyncio.all_tasks(loop)

    return run


async def turns(count: int = 20) -> None:
    """Let everything happen that needs no time."""
    for _ in range(count):
        await asyncio.sleep(0)


async def seconds(duration: float) -> None:
    """Let virtual time pass."""
    await asyncio.sleep(duration)


class Wire(asyncio.Transport):
    """The transport of one connection in memory, and the server at its other end.

    Attributes:
        chunks: what was written, one item per write.
        requests: the same as whole requests.
        script: gives the answer to a request; None: none.
        state: "open", "half" (the client sent its end of stream), "closed".
        half_closed: whether the client sent its end of stream, ever.
    """

    def __init__(
        self, protocol: asyncio.BufferedProtocol, script: Script, *, can_write_eof: bool = True, tls: bool = False
    ) -> None:
        super().__init__({"sslcontext": object()} if tls else None)
        self.protocol = protocol
        self.script = script
        self.chunks: list[bytes] = []
        self.requests: list[bytes] = []
        self.state = "open"
        self.half_closed = False
        self._can_write_eof = can_write_eof
        self._received = b""
        self._loop = asyncio.get_running_loop()

    def write(self, data: Any) -> None:
        assert self.state == "open"
        self.chunks.append(bytes(data))
        self._received += bytes(data)
        answers = b""
        while size := next_request(self._received):
            request, self._received = self._received[:size], self._received[size:]
            self.requests.append(request)
            answers += self.script(request) or b""
        if answers:
            self._loop.call_soon(self.answer, answers)

    def writelines(self, list_of_data: Any) -> None:
        self.write(b"".join(list_of_data))

    def can_write_eof(self) -> bool:
        return self._can_write_eof

    def write_eof(self) -> None:
        assert self.state == "open"
        self.state = "half"
        self.half_closed = True
        self._loop.call_soon(self.end)

    def is_closing(self) -> bool:
        return self.state == "closed"

    def close(self) -> None:
        self.abort()

    def abort(self) -> None:
        if self.state != "closed":
            self.state = "closed"
            self._loop.call_soon(self.protocol.connection_lost, None)

    def answer(self, data: bytes) -> None:
        """Deliver bytes as one read."""
        if self.state == "open" and data:
            buffer = self.protocol.get_buffer(-1)
            buffer[: len(data)] = data
            self.protocol.buffer_updated(len(data))

    def end(self) -> None:
        """The server closes."""
        if self.state != "closed" and not self.protocol.eof_received():
            self.abort()

    def reset(self) -> None:
        """The connection breaks."""
        self.state = "closed"
        self.protocol.connection_lost(ConnectionResetError("reset by peer"))


class Network:
    """Connects nodes with scripted servers.

    Attributes:
        wires: of all connections there were, in order.
        script: of new connections.
        error: raised by further attempts.
        delay: seconds that an attempt takes.
        attempts: times of all attempts.
        running, most_running: attempts at a time.
    """

    def __init__(self, script: Script = success) -> None:
        self.script = script
        self.wires: list[Wire] = []
        self.error: BaseException | None = None
        self.delay = 0.0
        self.attempts: list[float] = []
        self.running = self.most_running = 0

    async def connect(self, address: object, factory: Callable[[], asyncio.BaseProtocol], options: Options) -> None:
        """What nodes are given as `connect`."""
        self.attempts.append(asyncio.get_running_loop().time())
        self.running += 1
        self.most_running = max(self.most_running, self.running)
        try:
            await asyncio.sleep(self.delay)
        finally:
            self.running -= 1
        if self.error is not None:
            raise self.error
        protocol = factory()
        assert isinstance(protocol, asyncio.BufferedProtocol)
        wire = Wire(protocol, self.script)
        self.wires.append(wire)
        protocol.connection_made(wire)

    @property
    def open(self) -> list[Wire]:
        """The wires that are open."""
        return [wire for wire in self.wires if wire.state == "open"]


def silent(request: bytes) -> bytes | None:
    """A server that answers the handshake, and then nothing."""
    return success(request) if request in (b"version\r\n", b"mn\r\n") else None


def with_waiter(request: Request, deadline: float | None = None) -> Request:
    """A request as a node hands it to a connection."""
    request.waiter = asyncio.get_running_loop().create_future()
    request.deadline = deadline
    return request


async def outcome(awaitable: Awaitable[Any]) -> Any:
    """What an awaitable gives, or the exception it raises."""
    try:
        return await awaitable
    except Exception as error:
        return error
