"""The client's half of the conversation with a server, without I/O.

A front (synchronous or asyncio) owns the connection. It opens a `Request` here, sends the message that carries the
request's number, and feeds what arrives to `received`, which says which requests are answered. Time comes in as an
argument. Nothing here locks: a front with several threads guards the core with a lock of its own.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, TypeAlias

from rain.common.errors import RainConnectionError, RainException
from rain.common.failure import Failure
from rain.protocol.messages import (
    Accepted,
    Cancelled,
    Counts,
    Explained,
    Heartbeat,
    Infos,
    ObjectList,
    ObjectsFetched,
    Refused,
    ServerInfo,
    SessionCreated,
    SessionList,
    SessionWarning,
    Specs,
    States,
    TaskList,
    ValuesFetched,
    WaitDone,
)

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rain.protocol.messages import Message

Reply: TypeAlias = (
    "SessionCreated | Accepted | Refused | WaitDone | ObjectsFetched | ValuesFetched | Infos | States | Counts | "
    "Cancelled | Explained | ServerInfo | SessionList | TaskList | ObjectList | Specs"
)
_REPLIES = (
    SessionCreated, Accepted, Refused, WaitDone, ObjectsFetched, ValuesFetched, Infos, States, Counts, Cancelled,
    Explained, ServerInfo, SessionList, TaskList, ObjectList, Specs,
)  # fmt: skip

HEARTBEAT_INTERVAL = 5.0
"""Seconds between signs of life."""
SILENCE_LIMIT = 15.0
"""Seconds without a sign of life after which the server counts as lost."""


def expired_text(what: str, timeout: float | None) -> str:
    """The error for a wait that was not over in time."""
    return f"Timeout of {_rounded(timeout)} s expired while {what}; the work goes on"


def _rounded(timeout: float | None) -> float | None:
    """A part of what the user gave may have gone by before."""
    return None if timeout is None else round(timeout, 3)


class Request:
    """A question under way.

    Attributes:
        seq: its number on the connection.
        what: what it asks for, for error texts.
        session: the session it is about, 0 if none; warnings of that session are its business.
        reply: the answer; None until it came.
        error: why no answer will come any more; None while it may.
        on_done: called once when the request is done; None where somebody waits for it.
    """

    __slots__ = ("error", "on_done", "reply", "seq", "session", "what")

    def __init__(
        self, seq: int, what: str, session: int, on_done: Callable[[Request], None] | None = None
    ) -> None:
        self.seq = seq
        self.what = what
        self.session = session
        self.on_done = on_done
        self.reply: Reply | None = None
        self.error: RainException | None = None

    @property
    def done(self) -> bool:
        """True when there is an answer, or none can come any more."""
        return self.reply is not None or self.error is not None


class ClientCore:
    """Requests under way, warnings not yet shown, and whether the server is alive.

    Attributes:
        address: the server, for error texts.
        lost: why nothing can be asked any more; None while connected.
    """

    def __init__(
        self,
        address: str,
        now: float,
        *,
        silence_limit: float = SILENCE_LIMIT,
    ) -> None:
        self.address = address
        self.lost: RainException | None = None
        self._silence_limit = silence_limit
        self._last_heard = now
        self._last_seq = 0
        self._open: dict[int, Request] = {}
        self._warnings: dict[int, list[str]] = {}

    def open(self, what: str, session: int = 0, on_done: Callable[[Request], None] | None = None) -> Request:
        """Begin a request; the caller sends a message with its `seq`.

        Raises:
            RainException: the connection is lost or closed.
        """
        if self.lost is not None:
            raise again(self.lost)
        self._last_seq += 1
        request = Request(self._last_seq, what, session, on_done)
        self._open[request.seq] = request
        return request

    def forget(self, request: Request) -> None:
        """Nobody waits for the answer any more; a late one is dropped."""
        self._open.pop(request.seq, None)

    @property
    def waiting(self) -> int:
        """Number of requests under way."""
        return len(self._open)

    def received(self, messages: Iterable[Message], now: float) -> list[Request]:
        """Take what arrived; returns the requests that are done now.

        An answer to a request that was given up is dropped. A message that no server sends to a client ends the
        connection.
        """
        self._last_heard = now
        done: list[Request] = []
        for message in messages:
            if isinstance(message, _REPLIES):
                request = self._open.pop(message.seq, None)
                if request is not None:
                    request.reply = message
                    done.append(request)
            elif isinstance(message, SessionWarning):
                self._warnings.setdefault(message.session, []).append(message.text)
            elif not isinstance(message, Heartbeat):
                kind = type(message).__name__
                done += self.lose(f"the server sent a {kind} message, which no client expects")
        return done

    def lose(self, reason: str, cause: BaseException | None = None) -> list[Request]:
        """The connection is lost; returns the requests that fail by it. A second loss changes nothing."""
        error = RainConnectionError(f"Connection to the Rain server at {self.address} lost: {reason}")
        error.__cause__ = cause
        return self.end(error)

    def end(self, error: RainException) -> list[Request]:
        """Fail all requests under way and all later ones with `error`."""
        if self.lost is None:
            self.lost = error
        ended = list(self._open.values())
        self._open.clear()
        for request in ended:
            request.error = self.lost
        return ended

    def timeout_text(self, what: str, timeout: float | None, is_wait: bool) -> str:
        """The error for a question that was not answered in time."""
        if is_wait:
            return expired_text(what, timeout)
        return f"The server at {self.address} did not answer within {_rounded(timeout)} s while {what}"

    def silent_since(self, now: float) -> float | None:
        """Seconds of silence if they exceed the limit, else None."""
        silence = now - self._last_heard
        return silence if silence >= self._silence_limit else None

    def patience(self, now: float) -> float:
        """Seconds until the silence would be too long, at least 0."""
        return max(0.0, self._last_heard + self._silence_limit - now)

    @property
    def has_any_warnings(self) -> bool:
        """Whether the server warned and nobody was told."""
        return bool(self._warnings)

    def has_warnings(self, session: int) -> bool:
        """Whether the server warned about the session and nobody was told."""
        return session in self._warnings

    def take_warnings(self, session: int) -> list[str]:
        """The warnings of a session that were not shown yet; they are shown once."""
        return self._warnings.pop(session, [])


def result_of(request: Request) -> Reply | Failure:
    """The answer of a request that is done; a refusal comes back as its `Failure`.

    Raises:
        RainException: there is no answer, because the connection is lost or closed.
    """
    if request.reply is None:
        assert request.error is not None
        raise again(request.error)
    if isinstance(request.reply, Refused):
        return Failure.from_map(request.reply.failure)
    return request.reply


def again(error: RainException) -> RainException:
    """A fresh copy of an exception that is raised many times, so that tracebacks do not pile up on one object."""
    fresh = type(error)(*error.args)
    fresh.__cause__ = error.__cause__
    return fresh
