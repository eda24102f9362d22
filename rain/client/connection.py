"""The synchronous front of the client core: any number of threads ask, whoever waits reads.

Of the threads that wait for an answer one is the *reader*: it takes what arrives and wakes those whose answer came;
when it has its own answer it leaves, and another waiting thread becomes the reader. A single thread thus talks to the
socket directly. The background thread only sends heartbeats, and reads what comes while nobody asks.
"""

from __future__ import annotations

import os
import threading
import time
import weakref
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Protocol
from warnings import warn

from rain.client.core import HEARTBEAT_INTERVAL, SILENCE_LIMIT, ClientCore, Reply, Request, result_of
from rain.client.interrupts import InterruptGuard
from rain.common.errors import RainConnectionError, RainException, RainTimeoutError, RainWarning
from rain.protocol.messages import GetInfos, Heartbeat, StopWaiting

if TYPE_CHECKING:
    from collections.abc import Callable

    from rain.common.failure import Failure
    from rain.protocol.messages import Message

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
        self._pid = os.getpid()
        self._stop = threading.Event()
        self._finalizer = weakref.finalize(self, _drop, link, self._stop, self._pid)
        threading.Thread(
            target=_keep_alive,
            args=(weakref.ref(self), self._stop, heartbeat_interval),
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
        with InterruptGuard():
            self._send(*messages)

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
            self.check_owner()
            deadline = None if timeout is None else self._clock() + timeout
            with self._lock:
                request = self._core.open(what, session)
            try:
                self._send(*before, make(request.seq))
                if is_wait and timeout is not None and timeout <= 0:
                    self._await_turn(session, guard)
                else:
                    self._await(request, deadline, guard)
            finally:
                if not request.done:
                    self._give_up(request, is_wait)
            if not request.done:
                raise RainTimeoutError(self._timeout_text(what, timeout, is_wait))
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

    def _send(self, *messages: Message) -> None:
        self.check_owner()
        try:
            with self._sending:
                self._link.send(*messages)
        except OSError as error:
            self._lose(error)
            with self._lock:
                self._core.open("sending")

    def _give_up(self, request: Request, is_wait: bool) -> None:
        with self._lock:
            self._core.forget(request)
        if is_wait and not self.is_lost():
            with suppress(RainConnectionError):
                self._send(StopWaiting(request.seq))

    def _timeout_text(self, what: str, timeout: float | None, is_wait: bool) -> str:
        if is_wait:
            return f"Timeout of {timeout} s expired while {what}; the work goes on"
        return f"The server at {self.address} did not answer within {timeout} s while {what}"

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
            sleeper = self._sleepers.get(request.seq)
            if sleeper is not None:
                sleeper[1].set()

    def _wake_warned(self) -> None:
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
        if request.session and self._core.has_warnings(request.session):
            with self._lock:
                texts = self._core.take_warnings(request.session)
            for text in texts:
                warn(RainWarning(text), stacklevel=7)

    # --- the background thread --------------------------------------------------------------------

    def tick(self) -> None:
        """Send a heartbeat, and read what has come if nobody else does."""
        if self.is_lost():
            return
        with suppress(RainException):
            self._send(Heartbeat())
        if self._start_reading():
            try:
                self._read(0, InterruptGuard())
            finally:
                self._stop_reading()


def _keep_alive(reference: weakref.ref[Connection], stop: threading.Event, interval: float) -> None:
    while not stop.wait(interval):
        connection = reference()
        if connection is None or connection.is_lost():
            return
        connection.tick()
        del connection


def _drop(link: BlockingLink, stop: threading.Event, pid: int) -> None:
    stop.set()
    if os.getpid() == pid:
        link.close()
