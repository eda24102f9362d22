"""The front of the asyncio client: it lives in one event loop, which reads, sends heartbeats and unkeeps."""

from __future__ import annotations

import asyncio
import os
import socket
import time
import weakref
from array import array
from collections import deque
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, TypeVar, cast

from rain.client.background import UNKEEP_INTERVAL, take_dropped
from rain.client.core import HEARTBEAT_INTERVAL, SILENCE_LIMIT, ClientCore, Reply, Request, result_of
from rain.client.loop_mailbox import LoopMailbox
from rain.client.site import warn_user
from rain.client.submitting import submit
from rain.common.data_instance import check_free
from rain.common.errors import RainConnectionError, RainException, RainTimeoutError
from rain.common.fs import unpack_members
from rain.net.address import Address
from rain.net.channel import connect
from rain.net.loopdata import LoopDataClient
from rain.net.silence import AVOID
from rain.protocol.messages import GetInfos, Heartbeat, StopWaiting, UnkeepObjects

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path
    from typing import Any

    from rain.client.aio import AsyncSession
    from rain.client.base import BaseSession
    from rain.client.connect import Target
    from rain.client.connection import Question
    from rain.client.front import FrontChannel, FrontData
    from rain.common.failure import Failure
    from rain.net.channel import Channel, TcpChannel
    from rain.protocol.messages import Message

T = TypeVar("T")

_LONGEST_TURN = 0.01
"""Seconds after which unpacking lets others run."""


class Receiver:
    """What the channel reports to. It does not hold the front: a client that nobody refers to is disconnected."""

    def __init__(self) -> None:
        self.front: Callable[[], LoopFront | None] = lambda: None
        self.ended = asyncio.get_running_loop().create_future()

    def messages_received(self, channel: Channel, messages: list[Message]) -> None:
        """All messages of one read."""
        front = self.front()
        if front is not None:
            front.received(messages)

    def channel_closed(self, channel: Channel, reason: str) -> None:
        """The connection ended."""
        self.ended.set_result(None)
        front = self.front()
        if front is not None:
            front.lose(reason)


class LoopFront:
    """See `rain.client.front.SubmitFront`; to be made and used in one running loop.

    Args:
        channel: to the server.
        receiver: the handler of the channel.
        data: to the workers.
        address: the server, for error texts.
        request_timeout: seconds for one exchange; None = without limit.
        clock: monotonic seconds.
        heartbeat_interval, silence_limit: seconds.

    Attributes:
        dropped: `(session, first id, count)` of kept objects nobody can ask for any more.
    """

    def __init__(
        self,
        channel: FrontChannel,
        receiver: Receiver,
        data: FrontData,
        address: str,
        *,
        request_timeout: float | None = 30.0,
        clock: Callable[[], float] = time.monotonic,
        heartbeat_interval: float = HEARTBEAT_INTERVAL,
        silence_limit: float = SILENCE_LIMIT,
    ) -> None:
        self.dropped: deque[tuple[int, int, int]] = deque()
        self._loop = asyncio.get_running_loop()
        self._pid = os.getpid()
        self._channel = channel
        self._data = data
        self._clock = clock
        self._request_timeout = request_timeout
        self._core = ClientCore(address, clock(), silence_limit=silence_limit)
        self._sleepers: dict[int, tuple[Request, asyncio.Future[None]]] = {}
        self._background: set[asyncio.Task[Any]] = set()
        self._receiver = receiver
        receiver.front = weakref.ref(self)
        upkeep = _Upkeep(self, self._loop, heartbeat_interval)
        self._finalizer = weakref.finalize(self, _end, self._loop, channel, data, upkeep, self._pid)

    # --- the connection ---------------------------------------------------------------------------

    def check_usable(self) -> None:
        """Raises:
        RainException: not in the loop in which the client was made, or in a forked child.
        """
        if os.getpid() != self._pid:
            raise RainException(
                "This client was inherited by fork and cannot be used in the child process; make a new one there"
            )
        try:
            loop = asyncio.get_running_loop()
        except RuntimeError:
            loop = None
        if loop is not self._loop:
            raise RainException(
                "An AsyncClient belongs to the event loop in which it was made; "
                f"it cannot be used {'outside of a loop' if loop is None else 'in another loop'}"
            )

    def received(self, messages: list[Message]) -> None:
        """Messages have come."""
        self._wake(self._core.received(messages, self._clock()))
        if self._core.has_any_warnings:
            for request, future in self._sleepers.values():
                if self._core.has_warnings(request.session):
                    _set(future)
        if self._core.lost is not None:
            self._finalizer()

    def lose(self, reason: str) -> None:
        """The connection is lost."""
        self._wake(self._core.lose(reason))
        self._finalizer()

    async def close(self, reason: RainException, timeout: float) -> None:
        """End the connection; pending and later calls raise `reason`. Nothing is left when this returns."""
        self._wake(self._core.end(reason))
        self._finalizer()
        await asyncio.wait((self._receiver.ended,), timeout=timeout)
        self._channel.abort()
        await self._data.closed()
        await asyncio.wait((self._receiver.ended,))
        if self._background:  # they got the reason
            await asyncio.wait(self._background)

    def _wake(self, done: list[Request]) -> None:
        for request in done:
            if request.on_done is not None:
                request.on_done(request)
            sleeper = self._sleepers.get(request.seq)
            if sleeper is not None:
                _set(sleeper[1])

    def tick(self, is_late: bool) -> None:
        """Unkeep what was dropped, and see whether the server is still there.

        Args:
            is_late: the loop was busy, so what the server sent may be unread.
        """
        for session, ids in take_dropped(self.dropped):
            self._tell_unkept(session, ids)
        silence = None if is_late else self._core.silent_since(self._clock())
        if silence is not None:
            self.lose(f"no sign of life for {silence:.0f} s")

    def _tell_unkept(self, session: int, ids: array[int]) -> None:
        self.tell(lambda seq: UnkeepObjects(seq, session, ids), "unkeeping")

    def beat(self) -> None:
        """Send a sign of life."""
        self._channel.send(Heartbeat())

    def tell(self, make: Callable[[int], Message], what: str) -> None:
        """A question whose answer interests nobody; nothing happens if the connection is lost."""
        with suppress(RainException):
            request = self._core.open(what)
            self._core.forget(request)
            self._channel.send_checked(make(request.seq))

    # --- asking -------------------------------------------------------------------------------------

    async def ask(
        self, make: Callable[[int], Message], what: str, *, session: int = 0, timeout: float | None = None
    ) -> Reply | Failure:
        """One exchange."""
        limits = [limit for limit in (timeout, self._request_timeout) if limit is not None]
        (request,) = self._open([(make, what)], session)
        return await self._finish(request, min(limits, default=None), is_wait=False)

    async def wait(
        self, make: Callable[[int], Message], what: str, *, session: int, timeout: float | None
    ) -> Reply | Failure:
        """A question whose answer may take long; when it is cancelled the server is told to forget it."""
        (request,) = self._open([(make, what)], session)
        return await self._finish(request, timeout, is_wait=True)

    def listen(
        self, make: Callable[[int], Message], what: str, *, session: int, on_done: Callable[[Request], None]
    ) -> Request:
        """A question whose answer is given to `on_done`."""
        (request,) = self._open([(make, what)], session)
        request.on_done = on_done
        return request

    def ask_ahead(self, make: Callable[[int], Message], what: str, *, session: int) -> Request:
        """A question whose answer is waited for later."""
        (request,) = self._open([(make, what)], session)
        return request

    async def finish(self, request: Request, timeout: float | None) -> Reply | Failure:
        """Wait for the answer of `ask_ahead`."""
        return await self._finish(request, timeout, is_wait=True)

    def drop(self, request: Request) -> None:
        """Nobody wants the answer of a request any more."""
        request.on_done = None
        if not request.done:
            self._give_up(request, is_wait=True)

    def mailbox(self) -> LoopMailbox:
        """A place for the answers of `listen`."""
        return LoopMailbox()

    def _open(self, questions: Sequence[Question], session: int, before: tuple[Message, ...] = ()) -> list[Request]:
        self.check_usable()
        requests = [self._core.open(what, session) for _, what in questions]
        try:
            messages = [make(request.seq) for (make, _), request in zip(questions, requests, strict=True)]
            self._channel.send_checked(*before, *messages)
        except BaseException:
            for request in requests:
                self._core.forget(request)
            raise
        return requests

    async def _finish(self, request: Request, timeout: float | None, *, is_wait: bool) -> Reply | Failure:
        deadline = None if timeout is None else self._clock() + timeout
        try:
            if is_wait and timeout is not None and timeout <= 0:
                await self._await_turn(request)
            else:
                await self._await(request, deadline)
        finally:
            if not request.done:
                self._give_up(request, is_wait)
        if not request.done:
            raise RainTimeoutError(self._core.timeout_text(request.what, timeout, is_wait))
        return result_of(request)

    async def _await_turn(self, request: Request) -> None:
        """Wait until the server has dealt with all that was sent: the answer to a later request follows those to
        earlier ones that can be answered at once."""
        session = request.session
        (later,) = self._open([(lambda seq: GetInfos(seq, session, array("I")), "polling")], session)
        deadline = None if self._request_timeout is None else self._clock() + self._request_timeout
        try:
            await self._await(later, deadline)
        finally:
            self._core.forget(later)

    async def _await(self, request: Request, deadline: float | None) -> None:
        """Until the request is done or the deadline is over."""
        while not request.done:
            remaining = None if deadline is None else deadline - self._clock()
            if remaining is not None and remaining <= 0:
                return
            woken: asyncio.Future[None] = self._loop.create_future()
            timer = None if remaining is None else self._loop.call_later(remaining, _set, woken)
            self._sleepers[request.seq] = (request, woken)
            try:
                await woken
            finally:
                del self._sleepers[request.seq]
                if timer is not None:
                    timer.cancel()
            self.issue_warnings(request.session)
        self.issue_warnings(request.session)

    def _give_up(self, request: Request, is_wait: bool) -> None:
        self._core.forget(request)
        if is_wait and self._core.lost is None:
            self._channel.send(StopWaiting(request.seq))

    def issue_warnings(self, session: int) -> None:
        """Show what the server warned of in a session, once."""
        if session and self._core.has_warnings(session):
            for text in self._core.take_warnings(session):
                warn_user(text)

    # --- submitting -----------------------------------------------------------------------------------

    async def submit(self, session: BaseSession) -> None:
        """Submit what was built in a session. A submit that has begun goes on when its caller is cancelled."""
        await self.to_its_end(self._submit(session, None))

    async def submit_and_wait(
        self, session: BaseSession, make: Callable[[int], Message], what: str, timeout: float | None
    ) -> Reply | Failure:
        """Submit, and ask with it a question whose answer may take long."""
        await asyncio.sleep(0)  # others that were awaited at the same time mark theirs as kept first
        request = await self.to_its_end(self._submit(session, (make, what)), self._drop_following)
        assert request is not None
        return await self._finish(request, timeout, is_wait=True)

    async def _submit(self, session: BaseSession, then: Question | None) -> Request | None:
        async with cast("AsyncSession", session)._submitting:
            if then is not None and not session._has_unsubmitted:  # somebody else submitted it meanwhile
                return self._open([then], session.session_id)[0]
            return await submit(self, session, then)

    def _drop_following(self, request: Request | None) -> None:
        if request is not None:
            self.drop(request)

    async def to_its_end(self, coroutine: Coroutine[Any, Any, T], unwanted: Callable[[T], None] | None = None) -> T:
        """Run a coroutine that goes on when the caller is cancelled; then `unwanted` gets its result."""
        try:
            self.check_usable()
        except RainException:
            coroutine.close()
            raise
        task = self._loop.create_task(coroutine)
        self._background.add(task)
        task.add_done_callback(self._background.discard)

        def settle(ended: asyncio.Task[T]) -> None:
            # Its failure needs no telling: the next call of the caller meets the same.
            if not ended.cancelled() and ended.exception() is None and unwanted is not None:
                unwanted(ended.result())

        try:
            return await asyncio.shield(task)
        except asyncio.CancelledError:
            task.add_done_callback(settle)
            raise

    def uninterrupted(self) -> AbstractContextManager[object]:
        """Nothing: submits are shielded from cancellation as a whole."""
        return nullcontext()

    async def post(self, *messages: Message) -> None:
        """Send messages that have no answer; waits while much is unsent."""
        if self._core.lost is not None:
            self._core.open("sending")
        self._channel.send_checked(*messages)
        await self._channel.drained()

    async def begin(self, questions: Sequence[Question], session: int, before: tuple[Message, ...]) -> list[Request]:
        """Send several questions in one go."""
        return self._open(questions, session, before)

    async def finish_asking(self, request: Request) -> Reply | Failure:
        """Wait for the answer of a request within the request timeout."""
        return await self._finish(request, self._request_timeout, is_wait=False)

    # --- data -------------------------------------------------------------------------------------------

    async def read_bytes(self, holder: str, session: int, number: int) -> memoryview:
        """A value from the worker that holds it."""
        return await self._data.fetch_bytes(holder, session, number)

    async def read_file(self, holder: str, session: int, number: int, path: Path) -> None:
        """The same, into an existing file."""
        await self._data.fetch_file(holder, session, number, path)

    async def unpack(self, archive: Path, path: Path) -> None:
        """Write the tree of a packed directory, letting others run in between."""
        began = time.monotonic()
        for _ in _unpacking(archive, path):
            if time.monotonic() - began > _LONGEST_TURN:
                await asyncio.sleep(0)
                began = time.monotonic()


class _Upkeep:
    """Calls `tick` and `beat` of a front as long as somebody holds it."""

    def __init__(self, front: LoopFront, loop: asyncio.AbstractEventLoop, heartbeat_interval: float) -> None:
        self._front = weakref.ref(front)
        self._loop = loop
        self._interval = heartbeat_interval
        self._next_beat = loop.time() + heartbeat_interval
        self._schedule()

    def cancel(self) -> None:
        """No more calls; in the loop."""
        self._timer.cancel()

    def _schedule(self) -> None:
        self._due = self._loop.time() + min(self._interval, UNKEEP_INTERVAL)
        self._timer = self._loop.call_at(self._due, self._run)

    def _run(self) -> None:
        front = self._front()
        if front is None:
            return
        now = self._loop.time()
        if now >= self._next_beat:
            self._next_beat = now + self._interval
            front.beat()
        is_late = now - self._due > UNKEEP_INTERVAL
        self._schedule()
        front.tick(is_late)


def _unpacking(archive: Path, path: Path) -> Iterator[None]:
    check_free(path)
    with archive.open("rb") as source:
        yield from unpack_members(source, path)


def _set(future: asyncio.Future[None]) -> None:
    if not future.done():
        future.set_result(None)


def _end(loop: asyncio.AbstractEventLoop, channel: FrontChannel, data: FrontData, upkeep: _Upkeep, pid: int) -> None:
    """Close what belongs to a front; called in any thread, as a garbage collection may happen anywhere."""
    if os.getpid() != pid or loop.is_closed():
        return

    def close() -> None:
        upkeep.cancel()
        data.close()
        channel.close()

    with suppress(RuntimeError):  # the loop was closed this moment
        loop.call_soon_threadsafe(close)


async def open_front(target: Target, *, timeout: float | None, connection_timeout: float | None) -> LoopFront:
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
    receiver = Receiver()
    try:
        channel = await _connect(target, receiver, connection_timeout)
    except RainConnectionError as error:
        if isinstance(error.__cause__, TimeoutError):
            raise RainTimeoutError(str(error)) from error.__cause__
        raise
    data = LoopDataClient(target.secret, avoid=AVOID, maps=True)
    return LoopFront(channel, receiver, data, str(target.address), request_timeout=timeout)


async def _connect(target: Target, receiver: Receiver, timeout: float | None) -> TcpChannel:
    """A loop looks host names up in a thread; for the name of this machine that is not needed."""
    hosts = [target.address.host]
    if hosts == ["localhost"]:
        found = socket.getaddrinfo("localhost", target.address.port, type=socket.SOCK_STREAM)
        hosts = [str(name[0]) for *_, name in found]
    for host in hosts[:-1]:
        with suppress(RainConnectionError):
            return await connect(Address(host, target.address.port), "client", target.secret, receiver, timeout=timeout)
    return await connect(Address(hosts[-1], target.address.port), "client", target.secret, receiver, timeout=timeout)
