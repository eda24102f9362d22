"""The synchronous front of the client core: any number of threads ask, whoever waits reads.

Of the threads that wait for an answer one is the *reader*: it takes what arrives and wakes those whose answer came;
when it has its own answer it leaves, and another waiting thread becomes the reader. A single thread thus talks to the
socket directly. The background thread sends heartbeats, reads what comes while nobody asks, waits for answers which
somebody wants to be called for, and unkeeps what was dropped.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from array import array
from collections import deque
from contextlib import nullcontext, suppress
from typing import TYPE_CHECKING, Protocol

from rain.client.background import Signals, end, serve, take_dropped
from rain.client.core import HEARTBEAT_INTERVAL, SILENCE_LIMIT, ClientCore, Reply, Request, result_of
from rain.client.interrupts import InterruptGuard
from rain.client.site import warn_user
from rain.common.errors import RainConnectionError, RainException, RainTimeoutError
from rain.protocol.messages import GetInfos, Heartbeat, StopWaiting, UnkeepObjects

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    from rain.common.failure import Failure
    from rain.protocol.messages import Message

    Question = tuple[Callable[[int], Message], str]
    """Gives the message for a request number; what it asks for, for error texts."""

_LONGEST_WAIT = 3600.0


class BlockingLink(Protocol):
    """What the front needs of a connection; `rain.net.BlockingChannel` is one."""

    def send(self, *messages: Message) -> None:
        """Write messages; may block."""

    def receive(self, timeout: float | None) -> list[Message]:
        """What has arrived, waiting up to `timeout` seconds for the first; empty when nothing came."""

    def wait_readable(self, timeout: float | None) -> bool:
        """Wait until `receive` has something to read, without reading it."""

    def close(self) -> None:
        """End the connection."""


class _Wakeup:
    """Wakes one thread once. Not a threading.Event: that holds a lock which KeyboardInterrupt may leave locked.

    `set` is called under the lock of the connection.
    """

    __slots__ = ("_lock", "is_set")

    def __init__(self) -> None:
        self.is_set = False
        self._lock = threading.Lock()
        self._lock.acquire()

    def set(self) -> None:
        if not self.is_set:
            self.is_set = True
            self._lock.release()

    def wait(self, timeout: float) -> None:
        self._lock.acquire(timeout=timeout)


class Connection:
    """A connection to a server, for any number of threads.

    Args:
        link: the open channel.
        address: the server, for error texts.
        request_timeout: seconds for one exchange; None = without limit.
        clock: monotonic seconds.
        heartbeat_interval, silence_limit: seconds.

    Attributes:
        dropped: `(session, first id, count)` of kept objects nobody can ask for any more. Finalisers append, the
            background thread unkeeps.
    """

    def __init__(
        self,
        link: BlockingLink,
        address: str,
        *,
        request_timeout: float | None = 30.0,
        clock: Callable[[], float] = time.monotonic,
        heartbeat_interval: float = HEARTBEAT_INTERVAL,
        silence_limit: float = SILENCE_LIMIT,
    ) -> None:
        self._link = link
        self._clock = clock
        self._request_timeout = request_timeout
        self._core = ClientCore(address, clock(), silence_limit=silence_limit)
        self._lock = threading.Lock()
        self._sending = threading.Lock()
        self._being_read = False
        self._sleepers: dict[int, tuple[Request, _Wakeup]] = {}
        self._listening: set[int] = set()
        self._listener = Request(0, "listening", 0)
        self.dropped: deque[tuple[int, int, int]] = deque()
        self._pid = os.getpid()
        self._signals = Signals()
        self._finalizer = weakref.finalize(self, end, link, self._signals, self._pid)
        threading.Thread(
            target=serve,
            args=(weakref.ref(self), self._signals, heartbeat_interval),
            name="rain-client-heartbeat",
            daemon=True,
        ).start()

    @property
    def address(self) -> str:
        """The server, `HOST:PORT`."""
        return self._core.address

    def is_lost(self) -> bool:
        """True when nothing can be asked any more."""
        return self._core.lost is not None

    def at_end(self, call: Callable[[], None]) -> None:
        """Have something called when the connection is lost or closed: from any thread, and it may not refer to the
        connection."""
        self._signals.at_end.append(call)

    def close(self, reason: RainException) -> None:
        """End the connection; pending and later calls raise `reason`. Never raises, never waits."""
        with self._lock:
            self._wake(self._core.end(reason))
        self._finalizer()

    # --- asking ---------------------------------------------------------------------------------

    def ask(
        self,
        make: Callable[[int], Message],
        what: str,
        *,
        session: int = 0,
        timeout: float | None = None,
        before: tuple[Message, ...] = (),
    ) -> Reply | Failure:
        """One exchange, within the request timeout or, if shorter, `timeout` seconds.

        Args:
            make: gives the message for a request number.
            what: what is asked, for error texts, e.g. `closing session 3`.
            session: its warnings are issued by this call.
            timeout: see above.
            before: messages without an answer that are sent with this one.

        Returns:
            The answer, or the failure by which the server refuses.

        Raises:
            RainTimeoutError: no answer in time; names the request.
            RainConnectionError: the connection is lost.
            RainWarning: where warnings are errors.
        """
        limits = [limit for limit in (timeout, self._request_timeout) if limit is not None]
        return self._exchange(make, what, session, min(limits, default=None), before, is_wait=False)

    def wait(
        self, make: Callable[[int], Message], what: str, *, session: int, timeout: float | None
    ) -> Reply | Failure:
        """A question whose answer may take long; `timeout` in seconds, 0 polls once. Ctrl-C and an expired timeout stop
        the waiting only: the server is told to forget it. Returns and raises as `ask`."""
        return self._exchange(make, what, session, timeout, (), is_wait=True)

    def post(self, *messages: Message) -> None:
        """Send messages that have no answer.

        Raises:
            RainConnectionError: the connection is lost.
        """
        self.check_owner()
        with InterruptGuard() as guard:
            self._send(*messages, guard=guard)

    def abandon(self, reason: str) -> None:
        """Give the connection up; pending and later calls raise RainConnectionError."""
        self._lose(RainConnectionError(f"the connection to the server was given up: {reason}"))

    def begin(self, questions: Sequence[Question], session: int, before: tuple[Message, ...] = ()) -> list[Request]:
        """Send several questions in one go, to be ended by `finish`; `before` as in `ask`.

        Raises:
            RainConnectionError: the connection is lost.
        """
        self.check_owner()
        with self._lock:
            requests = [self._core.open(what, session) for _, what in questions]
        try:
            self._send(*before, *(make(request.seq) for (make, _), request in zip(questions, requests, strict=True)))
        except BaseException:
            with self._lock:
                for request in requests:
                    self._core.forget(request)
            raise
        return requests

    def finish(self, request: Request, timeout: float | None = None, *, is_wait: bool = True) -> Reply | Failure:
        """Wait for the answer of a request; parameters, answer and exceptions as of `wait`, or else of `ask`."""
        if request.done:  # it came with an earlier answer
            self._issue_warnings(request)
            return result_of(request)
        if not is_wait:
            timeout = self._request_timeout
        with InterruptGuard() as guard:
            return self._finish(request, timeout, guard, is_wait)

    def listen(
        self, make: Callable[[int], Message], what: str, *, session: int, on_done: Callable[[Request], None]
    ) -> Request:
        """Ask; `on_done` is called once with the request, from any thread. It must be quick and may not ask.

        Raises:
            RainConnectionError: the connection is lost.
        """
        with InterruptGuard():
            self.check_owner()
            with self._lock:
                request = self._core.open(what, session, on_done)
                self._listening.add(request.seq)
                self._signals.wake.set()
            try:
                self._send(make(request.seq))
            except BaseException:
                self.drop(request)
                raise
            return request

    def drop(self, request: Request) -> None:
        """Nobody wants the answer of a request that was begun; the server is told to forget it."""
        with self._lock:
            self._listening.discard(request.seq)
            request.on_done = None
        if not request.done:
            with InterruptGuard():
                self._give_up(request, True)

    def _exchange(
        self,
        make: Callable[[int], Message],
        what: str,
        session: int,
        timeout: float | None,
        before: tuple[Message, ...],
        *,
        is_wait: bool,
    ) -> Reply | Failure:
        with InterruptGuard() as guard:
            (request,) = self.begin([(make, what)], session, before)
            return self._finish(request, timeout, guard, is_wait)

    def _finish(
        self, request: Request, timeout: float | None, guard: InterruptGuard, is_wait: bool
    ) -> Reply | Failure:
        deadline = None if timeout is None else self._clock() + timeout
        try:
            if is_wait and timeout is not None and timeout <= 0:
                self._await_turn(request.session, guard)
            else:
                self._await(request, deadline, guard)
        finally:
            if not request.done:
                self._give_up(request, is_wait)
        if not request.done:
            raise RainTimeoutError(self._core.timeout_text(request.what, timeout, is_wait))
        return result_of(request)

    def _await_turn(self, session: int, guard: InterruptGuard) -> None:
        """Wait until the server has dealt with all that was sent: the answer to a later request follows those to
        earlier ones that can be answered at once."""
        deadline = None if self._request_timeout is None else self._clock() + self._request_timeout
        with self._lock:
            later = self._core.open("polling", session)
        try:
            self._send(GetInfos(later.seq, session, array("I")))
            self._await(later, deadline, guard)
        finally:
            with self._lock:
                self._core.forget(later)

    def check_owner(self) -> None:
        """Raises:
        RainException: this process inherited the connection by fork.
        """
        if os.getpid() != self._pid:
            raise RainException(
                "This client was inherited by fork and cannot be used in the child process; make a new Client there"
            )

    def _send(self, *messages: Message, guard: InterruptGuard | None = None) -> None:
        """Send; with a guard, Ctrl-C may interrupt it, and the rest goes out with the next message."""
        try:
            with self._sending, nullcontext() if guard is None else guard.waiting():
                self._link.send(*messages)
        except OSError as error:
            self._lose(error)
            with self._lock:
                self._core.open("sending")

    def _give_up(self, request: Request, is_wait: bool) -> None:
        with self._lock:
            self._core.forget(request)
        if is_wait and not self.is_lost():
            self.check_owner()
            with suppress(RainConnectionError):
                self._send(StopWaiting(request.seq))

    # --- waiting --------------------------------------------------------------------------------

    def _await(self, request: Request, deadline: float | None, guard: InterruptGuard) -> None:
        """Until the request is done or the deadline is over."""
        while not request.done:
            remaining = _LONGEST_WAIT if deadline is None else deadline - self._clock()
            if remaining <= 0:
                return
            if self._start_reading():
                try:
                    self._read(remaining, guard)
                finally:
                    self._stop_reading()
            else:
                self._sleep(request, remaining, guard)
            self._issue_warnings(request)
        self._issue_warnings(request)

    def _start_reading(self) -> bool:
        with self._lock:
            if self._being_read:
                return False
            self._being_read = True
            return True

    def _stop_reading(self) -> None:
        with self._lock:
            self._being_read = False
            self._wake_next_reader()

    def _wake_next_reader(self) -> None:
        for _, wakeup in self._sleepers.values():
            wakeup.set()
            break

    def _has_reader(self) -> bool:
        return self._being_read

    def _sleep(self, request: Request, timeout: float, guard: InterruptGuard) -> None:
        """Wait for the reader to bring the answer, or to leave."""
        wakeup = _Wakeup()
        with self._lock:
            if request.done or not self._being_read:
                return
            self._sleepers[request.seq] = (request, wakeup)
        try:
            with guard.waiting():
                wakeup.wait(timeout)
        finally:
            with self._lock:
                del self._sleepers[request.seq]
                if wakeup.is_set and not self._has_reader():
                    # Woken to be the next reader; if this thread leaves instead, another one must be.
                    self._wake_next_reader()

    def _read(self, timeout: float, guard: InterruptGuard) -> None:
        """Take what arrives within `timeout`; the caller is the reader."""
        if self.is_lost():
            return
        patience = self._core.patience(self._clock())
        try:
            with guard.waiting():
                readable = self._link.wait_readable(min(timeout, patience))
            messages = self._link.receive(0)
        except OSError as error:
            self._lose(error)
            return
        now = self._clock()
        with self._lock:
            if readable or messages:
                self._wake(self._core.received(messages, now))
                self._wake_warned()
            else:
                silence = self._core.silent_since(now)
                if silence is not None:
                    self._wake(self._core.lose(f"no sign of life for {silence:.0f} s"))
        if self.is_lost():
            self._finalizer()

    def _wake(self, done: list[Request]) -> None:
        for request in done:
            if request.on_done is not None:
                self._listening.discard(request.seq)
                request.on_done(request)
            sleeper = self._sleepers.get(request.seq)
            if sleeper is not None:
                sleeper[1].set()

    def _wake_warned(self) -> None:
        if not self._core.has_any_warnings:
            return
        for request, wakeup in self._sleepers.values():
            if self._core.has_warnings(request.session):
                wakeup.set()

    def _lose(self, error: OSError) -> None:
        with self._lock:
            if isinstance(error, RainConnectionError):
                self._wake(self._core.end(error))
            else:
                self._wake(self._core.lose(str(error) or type(error).__name__, error))
        self._finalizer()

    def _issue_warnings(self, request: Request) -> None:
        if request.session:
            self.issue_warnings(request.session)

    def issue_warnings(self, session: int) -> None:
        """Show what the server warned of in a session, once."""
        if self._core.has_warnings(session):
            with self._lock:
                texts = self._core.take_warnings(session)
            for text in texts:
                warn_user(text)

    # --- the background thread --------------------------------------------------------------------

    def tick(self) -> None:
        """Send a heartbeat unless somebody is sending, and read what has come if nobody else does."""
        if self.is_lost():
            return
        if not self._sending.locked():
            with suppress(RainException):
                self._send(Heartbeat())
        self._read_what_came()

    def notice_silence(self) -> None:
        """Lose a server that has been silent for too long, though nobody reads: threads may be busy with sending to it,
        or with a worker."""
        if self._core.silent_since(self._clock()) is not None:
            self._read_what_came()

    def _read_what_came(self) -> None:
        if self._start_reading():
            try:
                self._read(0, InterruptGuard())
            finally:
                self._stop_reading()

    def unkeep_dropped(self) -> None:
        """Tell the server which kept objects nobody can ask for any more; its answers interest nobody."""
        for session, ids in take_dropped(self.dropped):
            self._tell_unkept(session, ids)

    def _tell_unkept(self, session: int, ids: array[int]) -> None:
        with suppress(RainException):
            (request,) = self.begin([(lambda seq: UnkeepObjects(seq, session, ids), "unkeeping")], session)
            with self._lock:
                self._core.forget(request)

    def serve_listeners(self, seconds: float) -> None:
        """Read for those who want to be called, as long as there are any, for at most `seconds`."""
        end = time.monotonic() + seconds
        guard = InterruptGuard()
        while self._listening and not self.is_lost():
            remaining = end - time.monotonic()
            if remaining <= 0:
                return
            if self._start_reading():
                try:
                    self._read(remaining, guard)
                finally:
                    self._stop_reading()
            else:
                self._sleep(self._listener, remaining, guard)
        with self._lock:
            if not self._listening:
                self._signals.wake.clear()
