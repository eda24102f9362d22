"""Questions of the dashboard to the server core, asked with the messages clients use."""

from __future__ import annotations

import asyncio
import sys
from typing import TYPE_CHECKING, Literal, Protocol

from rain.protocol.messages import Heartbeat, Refused

if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from rain.protocol.messages import Message

ANSWER_SECONDS = 10.0


class Handler(Protocol):
    """What the shell gives to a peer (`rain.server.shell.PeerHandler`)."""

    def messages_received(self, _channel: Any, messages: list[Message]) -> None:
        """The peer says this."""

    def channel_closed(self, _channel: Any, reason: str) -> None:
        """The peer is gone."""


class Shell(Protocol):
    """What is needed of the shell (`rain.server.shell.ServerShell`)."""

    def accept(self, channel: Asker, role: Literal["http"], python: str) -> Handler:
        """A peer joins."""


class RefusedError(Exception):
    """The core refused; its text says why."""


class NoAnswer(Exception):
    """The core did not answer in time, or has ended."""


class Asker:
    """A peer of the shell inside the process, seen by it as a channel. It joins with the first question.

    Args:
        shell: of the server.
        address: of the server, as clients know it.
        timeout: seconds for an answer.
    """

    def __init__(self, shell: Shell, address: str, timeout: float = ANSWER_SECONDS) -> None:
        self.peer = "dashboard"
        self.local = address
        self._shell = shell
        self._timeout = timeout
        self._handler: Handler | None = None
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._last_seq = 0

    async def ask(self, make: Callable[[int], Message]) -> Any:
        """The answer to a question.

        Args:
            make: makes it with this sequence number.

        Raises:
            RefusedError: it was refused.
            NoAnswer: there is none.
        """
        if self._handler is None:
            self._handler = self._shell.accept(self, "http", sys.version.split()[0])
        self._last_seq += 1
        seq = self._last_seq
        answer: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[seq] = answer
        try:
            self._handler.messages_received(self, [make(seq)])
            async with asyncio.timeout(self._timeout):
                reply = await answer
        except TimeoutError:
            raise NoAnswer(f"The server did not answer within {self._timeout:g} s; ask again later") from None
        finally:
            del self._waiting[seq]
        if isinstance(reply, Refused):
            raise RefusedError(str(reply.failure.get("message") or "refused"))
        return reply

    def send(self, message: Message) -> None:
        """The core says this."""
        if type(message) is Heartbeat:
            if self._handler is not None:
                self._handler.messages_received(self, [])  # a sign of life
            return
        answer = self._waiting.get(getattr(message, "seq", 0))
        if answer is not None and not answer.done():
            answer.set_result(message)

    def send_all(self, messages: list[Message]) -> None:
        """The core says all this."""
        for message in messages:
            self.send(message)

    def close(self) -> None:
        """The shell lets this peer go; the next question joins anew."""
        handler, self._handler = self._handler, None
        for answer in self._waiting.values():
            if not answer.done():
                answer.set_exception(NoAnswer("The server ended the conversation; ask again"))
        if handler is not None:
            handler.channel_closed(self, "closed")

    abort = close
