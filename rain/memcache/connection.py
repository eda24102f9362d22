"""One connection: requests are queued, handed over once per turn of the loop, and answered in order."""

from __future__ import annotations

import asyncio
from itertools import chain
from typing import TYPE_CHECKING, Any, cast

from rain.memcache import requests
from rain.memcache.client_errors import AuthenticationError
from rain.memcache.deadlines import NEVER, Alarm, expire
from rain.memcache.ends import ConnectionEnded, Overdue
from rain.memcache.outcomes import Breach, breach
from rain.memcache.replies import UNSUPPORTED, ErrorLine, UnknownLine, Violation
from rain.memcache.requests import Request, is_plain_read
from rain.memcache.shortcut import Shortcut
from rain.memcache.tls import records

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from rain.memcache.addresses import Address
    from rain.memcache.dialects import Dialect
    from rain.memcache.ends import Owner
    from rain.memcache.metrics import Counters
    from rain.memcache.ordering import Bindings
    from rain.memcache.replies import Answer, Reply

WHOLE_NODE = frozenset({"flush_all", "cache_memlimit", "verbosity"})
"""Commands that concern all keys of a node."""

MOST_UNANSWERED = 128
"""With so many requests unanswered, a connection is congested."""
MOST_MISSING = 64 * 1024
"""And with so many bytes missing of the reply that is being received."""
MOST_BOUND = 1024
"""With more loose writes than this, a barrier settles them."""

_FAULTS = frozenset({ErrorLine, UnknownLine, Violation})
_RECEIVE_BUFFER = 256 * 1024
_HEAP_KEPT = 8 << 20
"""Bytes. Once a block of this size was freed, glibc keeps as much of its heap; before that it gives memory back after
each batch of replies, and taking it again costs a page fault for every 4 KiB of values."""

bytearray(_HEAP_KEPT)  # freed at once


class Connection(asyncio.BufferedProtocol):
    """The requests of one connection, from the queue to the reply.

    Attributes:
        owner: told of the end.
        lenient: unexpected lines do not end the connection, and it is never overdue (during the handshake).
        ended: nothing may be sent any more.
        congested: another connection should be preferred.
        load: requests queued or unanswered.
        answered: replies received.
        last_used: time of the loop when something was last sent or received.
        gone: done when the transport is closed.
    """

    def __init__(
        self,
        address: Address,
        timeout: float | None,
        dialect: Dialect,
        owner: Owner,
        bindings: Bindings[Connection],
        counters: Counters,
    ) -> None:
        self._address = address
        self._timeout = timeout
        self._bindings = bindings
        self._counters = counters
        self._loop = asyncio.get_running_loop()
        self._time = self._loop.time
        self._buffer = memoryview(bytearray(_RECEIVE_BUFFER))
        self._queue: list[Request] = []
        self._silent = False  # something queued is not answered
        self._flush_due = False
        self._turn = 0  # requests of the last flush
        self._paused = False
        self._retiring = False
        self._barrier: Request | None = None
        self._alarm = Alarm(self._look)
        self._oldest_since = 0.0  # since when the oldest unanswered request has been the oldest
        self._last_received = 0.0
        self._transport: asyncio.Transport
        self._tls = False
        self._shortcut: Shortcut | None = None
        self.owner = owner
        self.lenient = True
        self.ended = False
        self.congested = False
        self.load = 0
        self.answered = 0
        self.last_used = 0.0
        self.gone: asyncio.Future[None] = self._loop.create_future()
        self.speak(dialect)

    @property
    def dialect(self) -> Dialect:
        """The dialect spoken now."""
        return self._dialect

    def speak(self, dialect: Dialect) -> None:
        """Go on in a dialect; nothing may be in flight."""
        self._dialect = dialect
        self._encode = dialect.encode
        self._feed = dialect.feed
        self._lone = dialect.lone

    # What users of the connection call

    def send(self, request: Request) -> None:
        """Queue a request; it is handed over at once if the connection is idle, else at the end of the turn."""
        self._queue.append(request)
        self.load = load = self.load + 1
        if load >= MOST_UNANSWERED:
            self.congested = True
        if request.noreply:
            self._silent = True
        deadline = request.deadline
        if deadline is None and self._timeout is not None:
            deadline = request.deadline = self._time() + self._timeout
        if deadline is not None and deadline < self._alarm.at:
            self._alarm.set(deadline)
        if not self._flush_due:
            if self._turn > 1 or self._dialect.unanswered:
                self._flush_due = True
                self._loop.call_soon(self._flush)
            else:
                self._flush()
                if self._shortcut is not None and not self.lenient:
                    self._shortcut.try_out(self.last_used)
                if not self._dialect.unanswered:  # without a reply nothing else would tell the end of the turn
                    self._flush_due = True
                    self._loop.call_soon(self._flush)

    def send_together(self, together: list[Request]) -> None:
        """Hand several requests over in one write."""
        self._flush_due = True
        for request in together:
            self.send(request)
        self._flush()
        self._turn = 0

    def ask(self, request: Request) -> Reply | None:
        """Send a request whose caller waits for nothing else, and take the reply on the spot; see `shortcut`.

        Returns:
            The reply. None if the request was not sent, or, when it has a waiter now, not answered so soon.
        """
        shortcut, lone = self._shortcut, self._lone
        assert shortcut is not None
        assert lone is not None
        now = self._time()
        data = None
        if ((shortcut.held and now < shortcut.until) or shortcut.hold(now)) and not self._bindings.active:
            data = lone.encode_lone(request)
        if data is None:
            self.owner.shortcut = None
            return None
        try:
            received = shortcut.exchange(data)
            reply = lone.lone_reply(request, received)
            if reply is None:
                lone.expect(request)
                completed = shortcut.read_on(received, self._feed)
        except BaseException as error:  # of a signal handler; the reply may be on its way, and nobody expects it
            request.carrier = self
            request.waiter = self._loop.create_future()
            request.waiter.cancel()
            self.end(ConnectionEnded(f"{type(error).__name__} interrupted a request"), [request])
            raise
        if reply is None:
            if len(completed) != 1 or completed[0][1].__class__ in _FAULTS:
                self._leave(shortcut, request, completed, now)
                return None
            reply = completed[0][1]
        self.last_used = now
        self.answered += 1
        if not request.own:
            self._counters.operations_executed += request.commands
        return reply

    def _leave(self, shortcut: Shortcut, request: Request, completed: list[Any], now: float) -> None:
        """Go on the ordinary way with a request that has taken the shortcut until now."""
        shortcut.release()
        if not completed:
            shortcut.give_up()
        self.owner.shortcut = None
        request.waiter = self._loop.create_future()
        request.carrier = self
        self.load = 1
        self.last_used = self._oldest_since = now
        if self._timeout is not None:
            if request.deadline is None:
                request.deadline = now + self._timeout
            soonest = min(request.deadline, now + self._timeout)
            if soonest < self._alarm.at:
                self._alarm.set(soonest)
        if completed:
            self._deliver(completed, now)

    def abandon(self, request: Request) -> None:
        """Nobody waits any more for a request that was handed over: a write is loose from now on."""
        self._counters.unanswered(request)
        if not is_plain_read(request):
            self._bind(request, self.answered + self._dialect.unanswered)

    def retire(self) -> None:
        """Close as soon as everything in flight is answered; nothing may be sent any more."""
        self._retiring = True
        self._finish_if_drained()

    def take_queued(self) -> list[Request]:
        """Give back the requests that were not handed over."""
        queued, self._queue = self._queue, []
        self.load = self._dialect.unanswered
        return queued

    # What the transport calls

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Begin."""
        self._transport = cast("asyncio.Transport", transport)
        self._tls = transport.get_extra_info("sslcontext") is not None
        socket = transport.get_extra_info("socket")
        selects = isinstance(self._loop, asyncio.SelectorEventLoop) and socket is not None and not self._tls
        if selects and self._lone is not None:
            self._shortcut = Shortcut(socket, self._transport.write)
        self.last_used = self._time()

    def get_buffer(self, sizehint: int) -> memoryview:
        """The one receive buffer: allocating 256 KiB for each read would cost more than the read."""
        return self._buffer

    def buffer_updated(self, nbytes: int) -> None:
        """Give the replies to their callers."""
        if self.ended:
            return
        self.last_used = self._last_received = now = self._time()
        quick = self._shortcut is not None and self._shortcut.trying and self._shortcut.judge(now)
        completed: list[Any] = self._feed(self._buffer[:nbytes])
        if completed:
            self._deliver(completed, now)
            if quick and not self.load and not self._paused and not self.ended:
                self.owner.shortcut = self
        else:
            self._measure()

    def pause_writing(self) -> None:
        """Requests stay queued from now on."""
        self._paused = self.congested = True

    def resume_writing(self) -> None:
        """Hand over what was queued meanwhile."""
        self._paused = False
        self._flush()
        self._measure()

    def eof_received(self) -> None:
        """The server closed: there will be no more replies."""
        self.end(ConnectionEnded("the server closed the connection"))

    def connection_lost(self, exc: Exception | None) -> None:
        """The transport is closed, and its socket is going to be."""
        if self._shortcut is not None:
            self._shortcut.release()
        if not self.ended:
            ended = ConnectionEnded(f"the connection was lost: {exc}" if exc else "the connection was closed")
            ended.__cause__ = exc
            self.end(ended)
        if not self.gone.done():
            self.gone.set_result(None)

    # Sending

    def _flush(self) -> None:
        self._flush_due = False
        if self._paused or not self._queue:
            self._turn = 0
            return
        queue, self._queue = self._queue, []
        batch = []
        for request in queue:
            if not request.waiter.done():
                request.carrier = self
                batch.append(request)
        self._turn = len(batch)
        self.owner.shortcut = None
        if self._shortcut is not None:
            self._shortcut.release()
        dialect = self._dialect
        self.last_used = now = self._time()
        if not dialect.unanswered:
            self._oldest_since = now
            if self._timeout is not None and self._alarm.at > now + self._timeout:
                self._alarm.set(now + self._timeout)  # it may be overdue before any deadline
        if self._tls:
            unsupported = self._write_records(batch)
        else:
            buffers, unsupported = self._encode(batch)
            if len(buffers) == 1:
                self._transport.write(buffers[0])
            elif buffers:
                self._transport.writelines(buffers)
        if self.congested:
            self._measure()
        else:
            self.load = dialect.unanswered
        for request in unsupported:
            request.carrier = None
            request.waiter.set_result(UNSUPPORTED)
        if self._silent:
            self._silent = False
            self._handed_over([request for request in batch if request.noreply and not request.waiter.done()])

    def _write_records(self, batch: list[Request]) -> list[Request]:
        """Hand a turn over so that TLS records end where requests end.

        memcached reads a value out of the record that it has decrypted. If other requests stand behind the end of the
        value in that record, it waits for its socket, where nothing more will come, and never looks at them.
        """
        unsupported: list[Request] = []
        for group in records(batch):
            buffers, unknown = self._encode(group)
            unsupported += unknown
            for buffer in buffers:
                self._transport.write(buffer)
        return unsupported

    def _handed_over(self, silent: list[Request]) -> None:
        """Requests without reply are done; they are loose until a later request is answered."""
        mark = self.answered + self._dialect.unanswered + 1
        for request in silent:
            request.carrier = None
            request.waiter.set_result(None)
            if not request.own:
                self._counters.operations_executed += 1
            self._bind(request, mark)

    def _bind(self, request: Request, mark: int) -> None:
        keys = request.keys or ((request.key,) if request.key else ())
        if not keys and request.command not in WHOLE_NODE:
            return
        self._bindings.bind(keys, self, mark)
        if self._bindings.bound_to(self) > MOST_BOUND and (self._barrier is None or self._barrier.waiter.done()):
            self._barrier = requests.barrier()
            self._barrier.waiter = self._loop.create_future()
            self._loop.call_soon(self._send_barrier, self._barrier)

    def _send_barrier(self, barrier: Request) -> None:
        if self.ended:
            barrier.waiter.cancel()
        else:
            self.send(barrier)

    def _measure(self) -> None:
        self.load = load = len(self._queue) + self._dialect.unanswered
        self.congested = self._paused or load >= MOST_UNANSWERED or self._dialect.missing() > MOST_MISSING

    # Receiving

    def _deliver(self, completed: list[Any], now: float) -> None:
        self.answered += len(completed)
        self._oldest_since = now
        executed = 0
        remaining = iter(completed)
        for request, reply in remaining:
            if reply.__class__ in _FAULTS and self._breaks(request, reply, remaining):
                break
            try:
                request.waiter.set_result(reply)
            except asyncio.InvalidStateError:  # cheaper than asking each time
                self._late(request, reply)
            else:
                if not request.own:
                    executed += request.commands
        self._counters.operations_executed += executed
        if self.ended:
            return
        if self._bindings.active:
            self._bindings.settle(self, self.answered)
        if self._dialect.unanswered or self._queue:
            self._measure()
        else:
            self.load = 0
            self.congested = self._paused
        if self._retiring:
            self._finish_if_drained()
        elif not self._flush_due and (len(completed) > 1 or self._dialect.unanswered):
            # Right behind the callers that were just woken: what they send goes out in one write, in their turn.
            self._flush_due = True
            self._loop.call_soon(self._flush)

    def _late(self, request: Request, reply: Reply) -> None:
        """A reply for which nobody waits any more."""
        self._counters.unanswered(request)  # unless `abandon` was called already
        if request.on_late is not None:
            request.on_late(request, reply)

    def _breaks(self, request: Request | None, reply: Any, following: Iterator[Answer]) -> bool:
        """Whether this reply ends the connection; then the end is done, too."""
        kind = breach(request, reply)
        if kind is None or (self.lenient and kind is Breach.OUT_OF_STEP and not isinstance(reply, Violation)):
            return False
        lost = [] if request is None else [request]
        reason: Exception
        if kind is Breach.UNAUTHENTICATED:
            line = reply.line.decode(errors="replace")
            text = f"{self._address} wants credentials ({line}): pass username= and password="
            reason = AuthenticationError(text, reply=line, address=self._address)
        else:
            reason = ConnectionEnded(f"the server sent what is no answer: {reply.line[:200]!r}")
            self._give_own(lost, reply)
        lost.extend(later for later, _ in following if later is not None)
        self.end(reason, lost)
        return True

    def _give_own(self, own: list[Request], reply: Reply) -> None:
        """The request to which a breaking reply belongs gets it."""
        while own:
            request = own.pop()
            if request.waiter.done():
                self._late(request, reply)
            else:
                request.waiter.set_result(reply)
                self._counters.operations_executed += not request.own

    # Deadlines

    def _look(self, now: float) -> float:
        expired, following = expire(chain(self._dialect.pending(), self._queue), now, self._address)
        for request in expired:
            if request.carrier is not None:
                self.abandon(request)
        self._queue = [request for request in self._queue if not request.waiter.done()]
        overdue_at = self._overdue_at()
        if overdue_at <= now:
            self.end(Overdue(f"no answer for {now - self._oldest_since:.3g} s"))
            return NEVER
        return min(following, overdue_at)

    def _overdue_at(self) -> float:
        if self._timeout is None or self.lenient or not self._dialect.unanswered:
            return NEVER
        since = self._oldest_since
        return min(max(since, self._last_received) + self._timeout, since + max(10.0, 10 * self._timeout))

    # The end

    def end(self, reason: Exception, lost: Sequence[Request] = ()) -> None:
        """Close at once and hand all requests to the owner; `lost` were in flight before those known here."""
        if self.ended:
            return
        in_flight = self._stop(lost)
        queued = self.take_queued()
        self._transport.abort()
        self.owner.connection_ended(self, reason, in_flight, queued)

    def finish(self) -> list[Request]:
        """Close after flushing what was handed over.

        Returns:
            The requests whose callers wait still; what becomes of them is up to the caller of this.
        """
        if self.ended:
            return []
        open_ends = self._dialect.unanswered > 0 or self._bindings.bound_to(self) > 0
        unfinished = [*self._stop(), *self.take_queued()]
        if open_ends and self._transport.can_write_eof():
            # The server reads all, then closes. Closing ourselves with replies unread would reset the connection.
            self._transport.write_eof()
        else:
            self._transport.close()
        return unfinished

    def abort(self) -> None:
        """Close at once; nobody is told."""
        self.ended = True
        self._alarm.cancel()
        self._transport.abort()

    def _finish_if_drained(self) -> None:
        if not self.load:
            self.finish()

    def _stop(self, lost: Sequence[Request] = ()) -> list[Request]:
        """Take no more replies; gives the requests in flight whose callers wait."""
        self.ended = True
        self._alarm.cancel()
        self._bindings.release(self)
        in_flight = [*lost, *self._dialect.take_unanswered()]
        for request in in_flight:
            if request.waiter.done():
                self._counters.unanswered(request)
        return [request for request in in_flight if not request.waiter.done()]
