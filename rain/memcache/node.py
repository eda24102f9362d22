"""The connections of one server: opened, chosen, grown, purged, replaced; the state of the node; its requests."""

from __future__ import annotations

import asyncio
import logging
import random as random_module
from collections import deque
from typing import TYPE_CHECKING

from rain.memcache import requests
from rain.memcache.addresses import node_text
from rain.memcache.client_errors import AuthenticationError, NodeUnavailable
from rain.memcache.connection import WHOLE_NODE, Connection
from rain.memcache.deadlines import Alarm, describe, expire, fail
from rain.memcache.ends import Overdue
from rain.memcache.handshake import Handshake, open_transport
from rain.memcache.metrics import Counters
from rain.memcache.ordering import Bindings
from rain.memcache.requests import Request, is_plain_read

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.memcache.addresses import Address
    from rain.memcache.base import ConnectionPoolMetrics
    from rain.memcache.handshake import Connect
    from rain.memcache.options import Options
    from rain.memcache.replies import Reply

_log = logging.getLogger(__name__)

BACKOFF = (1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0)
"""Seconds from a failed attempt to the next; the last one for ever."""
BACKOFF_JITTER = 0.1
"""Share of a wait that may be left out."""
HASTE = 1.0
"""Seconds from a failed attempt to the next when traffic asks for it, and after a connection that did not last."""
UNHEALTHY_FAILURES = 3
CLOSE_SECONDS = 1.0


class Node:
    """One memcached server.

    It must be made while its loop runs; nothing happens before `start`.

    Attributes:
        address: of the server.
        healthy: False after failures in a row, until a connection opens again.
        closed: True when closed or removed.
        shortcut: the connection that may answer the next request on the spot, or None.

    Args:
        address: of the server.
        options: of the client.
        on_health: called when `healthy` has changed.
        connect: opens a transport.
        random: gives numbers from 0 to below 1.
    """

    def __init__(
        self,
        address: Address,
        options: Options,
        *,
        on_health: Callable[[Node], None],
        connect: Connect = open_transport,
        random: Callable[[], float] = random_module.random,
    ) -> None:
        self.address = address
        self.healthy = True
        self.closed = False
        self.shortcut: Connection | None = None
        self._options = options
        self._on_health = on_health
        self._random = random
        self._loop = asyncio.get_running_loop()
        self._create_future = self._loop.create_future
        self._bindings: Bindings[Connection] = Bindings()
        self._counters = Counters()
        self._handshake = Handshake(address, options, connect, self._bindings, self._counters)
        self._connections: list[Connection] = []  # open and in use, in order of opening
        self._first: Connection | None = None
        self._opened_at: dict[Connection, float] = {}  # until the transport is closed, in use or not
        self._waiting: deque[Request] = deque()
        self._alarm = Alarm(self._look)
        self._move: Callable[[Request], None] | None = None
        self._attempt: asyncio.Task[None] | None = None
        self._error: Exception | None = None  # of the last attempt, if it failed
        self._failed_at = 0.0
        self._failures = 0  # in a row, for health
        self._backoff = 0  # failed attempts in a row
        self._retry: asyncio.TimerHandle | None = None
        self._purge_timer: asyncio.TimerHandle | None = None

    def __repr__(self) -> str:
        return node_text(self.address, closed=self.closed)

    @property
    def meta(self) -> bool | None:
        """Whether the open connections speak meta; None while there is none."""
        return None if self._first is None else self._first.dialect.name == "meta"

    @property
    def drained(self) -> bool:
        """Whether nothing is left of a node that was closed or removed."""
        attempted = self._attempt is None or self._attempt.done()
        return self.closed and attempted and all(connection.gone.done() for connection in self._opened_at)

    def start(self) -> None:
        """Begin to open connections, in the background."""
        self._open_missing()
        if self._options.purge_unused_connections_after is not None:
            self._purge_timer = self._loop.call_later(self._options.purge_unused_connections_after, self._purge)

    def metrics(self) -> ConnectionPoolMetrics:
        """The counters as they are now."""
        return self._counters.snapshot(len(self._connections))

    # Requests

    def submit(self, request: Request) -> asyncio.Future[Reply]:
        """Send a request, or queue it until a connection is open.

        Returns:
            The reply; None for `noreply` when the request is handed over. It fails with `NodeUnavailable` or
            `AuthenticationError` (at once when the node is down), with `TimeoutError` at the request's deadline, with
            `RuntimeError` when the client is closed. Who stops waiting for it must call `abandon`.
        """
        waiter: asyncio.Future[Reply] = self._create_future()
        request.waiter = waiter
        first = self._first
        if first is not None and not first.congested and not self._bindings.active:
            first.send(request)
        else:
            self.resubmit(request)
        return waiter

    def resubmit(self, request: Request) -> None:
        """The same for a request that has its waiter already."""
        if self._connections:
            self._choose(request).send(request)
        elif self._move is not None:
            self._move(request)
        elif self.closed:
            self._fail(request, RuntimeError("client is closed"))
        elif self._error is not None:
            self._hasten()
            self._fail(request, self._unavailable(request, self._error))
        else:
            self._waiting.append(request)
            self._counters.operations_waited += not request.own
            if request.deadline is not None and request.deadline < self._alarm.at:
                self._alarm.set(request.deadline)
            self._open()

    async def execute(self, request: Request) -> Reply:
        """Send a request and wait for the reply; see `submit`. A command for the whole node waits for its turn."""
        if request.command in WHOLE_NODE and len(self._connections) > 1:
            await self._settle(request.deadline)
        reply = None if self.shortcut is None else self.shortcut.ask(request)
        if reply is not None:
            return reply
        waiter: asyncio.Future[Reply] = request.waiter or self.submit(request)
        try:
            return await waiter
        except asyncio.CancelledError:
            self.abandon(request)
            raise

    def abandon(self, request: Request) -> None:
        """The caller of a request was cancelled: nobody waits for the reply any more."""
        waiter = request.waiter
        waiter.cancel()
        if not waiter.cancelled():  # it has ended, and the caller was cancelled before it could learn that
            if request.on_late is not None and waiter.exception() is None:
                request.on_late(request, waiter.result())
        elif request.carrier is not None:
            request.carrier.abandon(request)
        else:
            self._counters.unanswered(request)

    def parts(self, keys: list[bytes]) -> list[list[bytes]]:
        """Split keys so that each part can travel in one command: by the connections to which they are bound."""
        return self._bindings.split(keys)

    async def _settle(self, deadline: float | None) -> None:
        """Wait until no write is loose."""
        waiters: list[asyncio.Future[Reply]] = []
        for connection in self._bindings.connections():
            barrier = requests.barrier()
            barrier.deadline = deadline
            barrier.waiter = self._loop.create_future()
            waiters.append(barrier.waiter)
            connection.send(barrier)
        if waiters:
            await asyncio.wait(waiters)

    def _choose(self, request: Request) -> Connection:
        if self._bindings.active:
            bound = self._bindings.find(request.keys or (request.key,))
            if bound is not None:
                return bound
        for connection in self._connections:
            if not connection.congested:
                return connection
        if len(self._connections) < self._options.max_connections:
            self._open()
        return min(self._connections, key=lambda connection: connection.load)

    def _unavailable(self, request: Request, cause: Exception) -> Exception:
        """The failure of one request, each with an exception object of its own."""
        error: Exception
        if isinstance(cause, AuthenticationError):
            error = AuthenticationError(*cause.args, reply=cause.reply, command=request.command, address=self.address)
        else:
            sent = request.carrier is not None or request.sent_before
            lost = "was lost with its connection to" if sent else "was not sent to"
            hint = "it may have been executed" if sent else "check that a server runs there; connecting is tried again"
            text = f"{describe(request)} {lost} {self.address}: {str(cause) or type(cause).__name__} ({hint})"
            error = NodeUnavailable(text, address=self.address, sent=sent)
        error.__cause__ = cause
        return error

    def _fail(self, request: Request, error: Exception) -> None:
        if not request.waiter.done():
            fail(request, error)
        self._counters.unanswered(request)

    def _look(self, now: float) -> float:
        expired, following = expire(self._waiting, now, self.address)
        for request in expired:
            self._counters.unanswered(request)
        self._waiting = deque(request for request in self._waiting if not request.waiter.done())
        return following

    # Opening connections

    def _open_missing(self) -> None:
        if len(self._connections) < self._options.min_connections or self._waiting:
            self._open()

    def _open(self) -> None:
        """Start an attempt, unless one runs, or the last one failed a moment ago."""
        if self._attempt is None and self._retry is None and not self.closed:
            self._attempt = self._loop.create_task(self._try_to_open(), name=f"connect to {self.address}")

    async def _try_to_open(self) -> None:
        started = self._loop.time()
        try:
            connection = await self._handshake.open()
        except Exception as error:  # whatever it is, it is a failed attempt
            self._attempt = None
            self._attempt_failed(error)
        else:
            self._attempt = None
            self._attempt_succeeded(connection, started)

    def _attempt_succeeded(self, connection: Connection, started: float) -> None:
        now = self._loop.time()
        self._error = None
        self._failures = self._backoff = 0
        self._counters.created(now - started)
        connection.owner = self
        connection.lenient = False
        self._connections.append(connection)
        self._first = self._connections[0]
        self._opened_at[connection] = now
        connection.gone.add_done_callback(lambda _: self._opened_at.pop(connection))
        _log.info("%s: connection opened (%s)", self.address, connection.dialect.name)
        if not self.healthy:
            self.healthy = True
            _log.warning("%s is healthy again", self.address)
            self._on_health(self)
        waiting, self._waiting = self._waiting, deque()
        self._alarm.cancel()
        for request in waiting:
            if not request.waiter.done():
                self.resubmit(request)
        self._open_missing()

    def _attempt_failed(self, error: Exception) -> None:
        self._counters.connections_created_with_error += 1
        self._error = error
        self._failed_at = self._loop.time()
        if not isinstance(error, AuthenticationError):
            self._failures += 1
        if self._backoff == 0:
            _log.warning("cannot connect to %s: %s; it is tried again", self.address, str(error) or repr(error))
        wait = BACKOFF[min(self._backoff, len(BACKOFF) - 1)]
        self._backoff += 1
        self._retry_after(wait * (1 - BACKOFF_JITTER * self._random()))
        if not self._connections:
            self._fail_waiting(error)
        self._judge_health()

    def _fail_waiting(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, deque()
        self._alarm.cancel()
        for request in waiting:
            self._fail(request, self._unavailable(request, error))

    def _retry_after(self, seconds: float) -> None:
        if self._retry is not None:
            self._retry.cancel()
        self._retry = self._loop.call_later(seconds, self._retry_now)

    def _retry_now(self) -> None:
        self._retry = None
        if not self._connections:
            self._open()
        else:
            self._open_missing()

    def _hasten(self) -> None:
        """Traffic speeds up recovery."""
        if self._retry is None or (self.healthy and not isinstance(self._error, AuthenticationError)):
            return
        soon = max(self._failed_at + HASTE, self._loop.time())
        if soon < self._retry.when():
            self._retry_after(soon - self._loop.time())

    def _judge_health(self) -> None:
        if self.healthy and self._failures >= UNHEALTHY_FAILURES and not self._connections:
            self.healthy = False
            _log.warning("%s is unhealthy: %s", self.address, self._error)
            self._on_health(self)

    # Losing and closing connections

    def connection_ended(
        self, connection: Connection, reason: Exception, in_flight: list[Request], queued: list[Request]
    ) -> None:
        """Replace a connection that was lost, and decide what becomes of its requests."""
        if connection in self._connections:
            self._remove(connection)
            _log.warning("%s: connection lost: %s", self.address, reason)
            if isinstance(reason, Overdue):
                self._failures += 1
            elif self._loop.time() - self._opened_at[connection] < HASTE:
                self._did_not_last(reason)
        refused = isinstance(reason, AuthenticationError)
        again = []
        for request in in_flight:
            if refused or request.sent_before or not self._options.retry_reads or not is_plain_read(request):
                self._fail(request, self._unavailable(request, reason))
            else:
                request.sent_before = True
                request.carrier = None
                again.append(request)
        self._open_missing()
        for request in (*again, *queued):
            if request.waiter.done():
                self._counters.unanswered(request)
            elif refused:
                self._fail(request, self._unavailable(request, reason))
            else:
                self.resubmit(request)
        self._judge_health()

    def _did_not_last(self, reason: Exception) -> None:
        """Without a pause, a server that closes connections at once would be asked for new ones all the time."""
        if not self._connections:
            self._error = reason
            self._failed_at = self._loop.time()
        if self._retry is None and self._attempt is None:
            self._retry_after(HASTE)

    def _remove(self, connection: Connection) -> None:
        """Use a connection no more."""
        self._connections.remove(connection)
        self.shortcut = None
        self._first = self._connections[0] if self._connections else None
        self._bindings.release(connection)
        self._counters.connections_closed += 1

    def _purge(self) -> None:
        period = self._options.purge_unused_connections_after
        assert period is not None
        self._purge_timer = self._loop.call_later(period, self._purge)
        if len(self._connections) <= self._options.min_connections:
            return
        unused_since = self._loop.time() - period
        unused = [each for each in self._connections if not each.load and each.last_used <= unused_since]
        if unused:
            connection = min(unused, key=lambda each: each.last_used)
            self._remove(connection)
            self._counters.connections_purged += 1
            _log.info("%s: connection closed that was not used for %s s", self.address, period)
            connection.finish()

    async def quit(self) -> None:
        """Send `quit` on each open connection and wait until the server has closed them; then open new ones.

        Raises:
            TimeoutError: the server did not close them within the timeout; they are lost then.
        """
        leaving = list(self._connections)
        for connection in leaving:
            self._remove(connection)
            request = requests.quit_()
            request.waiter = self._loop.create_future()
            connection.send(request)
        try:
            if leaving:
                await asyncio.wait([connection.gone for connection in leaving], timeout=self._options.timeout)
            slow = [connection for connection in leaving if not connection.gone.done()]
            if slow:
                late = TimeoutError(f"quit: {self.address} did not close its connections within the timeout")
                for connection in slow:
                    connection.end(late)
                raise late
        finally:
            self._open_missing()

    def drain(self, move: Callable[[Request], None]) -> None:
        """The node was removed: what was handed over may finish, all other requests are given to `move`."""
        self._stop()
        self._move = move
        moved = [*self._waiting]
        self._waiting.clear()
        for connection in list(self._connections):
            moved.extend(connection.take_queued())
            self._remove(connection)
            connection.retire()
        for request in moved:
            if not request.waiter.done():
                move(request)

    async def close(self) -> None:
        """Fail all requests, flush what was handed over, close the connections."""
        attempt = self._attempt
        self._stop()
        self._move = None
        unfinished = [*self._waiting]
        self._waiting.clear()
        closing = list(self._opened_at)
        for connection in closing:
            unfinished.extend(connection.finish())
        for connection in list(self._connections):
            self._remove(connection)
        for request in unfinished:
            self._fail(request, RuntimeError("client is closed"))
        if attempt is not None:
            await asyncio.wait([attempt])
        await self._gone(closing)

    async def _gone(self, closing: list[Connection]) -> None:
        if closing:
            _, slow = await asyncio.wait([connection.gone for connection in closing], timeout=CLOSE_SECONDS)
            for connection in closing:
                connection.abort()
            if slow:
                await asyncio.wait(slow)

    def _stop(self) -> None:
        """Open and purge nothing any more."""
        self.closed = True
        self._alarm.cancel()
        for timer in (self._retry, self._purge_timer):
            if timer is not None:
                timer.cancel()
        self._retry = self._purge_timer = None
        if self._attempt is not None:
            self._attempt.cancel()
