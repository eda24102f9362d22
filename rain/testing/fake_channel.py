"""A connection without sockets, at the level of messages: what the client sends, a script answers.

channel = FakeChannel(server)     # server(message) -> the messages it answers with
...
channel.check()                   # fails on messages nobody looked at
"""

from __future__ import annotations

import asyncio
import threading
import time
from collections import deque
from typing import TYPE_CHECKING, TypeVar

from rain.common.errors import RainConnectionError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rain.net.channel import ChannelHandler
    from rain.protocol.messages import Message

M = TypeVar("M")

_POLL = 0.0005


class FakeChannel:
    """The client's end of a pair; the other end are `sent`, `say`, `expect` and `hang_up`.

    Args:
        server: called with each message the client sends; what it returns arrives at the client. Without it messages
            are kept for `expect`.
    """

    def __init__(self, server: Callable[[Message], Iterable[Message]] | None = None) -> None:
        self.peer = "127.0.0.1:7210"
        self.closed = False
        self._server = server
        self._changed = threading.Condition()
        self._to_client: deque[Message] = deque()
        self._to_server: deque[Message] = deque()
        self._ended: str | None = None

    # --- the client's end -----------------------------------------------------------------------

    def send(self, *messages: Message) -> None:
        with self._changed:
            self._check_open()
            for message in messages:
                if self._server is None:
                    self._to_server.append(message)
                else:
                    self._to_client.extend(self._server(message))
            self._changed.notify_all()

    def receive(self, timeout: float | None) -> list[Message]:
        self.wait_readable(timeout)
        with self._changed:
            messages = list(self._to_client)
            self._to_client.clear()
            if not messages:
                self._check_open()
            return messages

    def wait_readable(self, timeout: float | None) -> bool:
        # No lock: a KeyboardInterrupt, which may be raised here, would leave it locked.
        deadline = None if timeout is None else time.monotonic() + timeout
        while not (self._to_client or self._ended is not None or self.closed):
            if deadline is not None and time.monotonic() >= deadline:
                return False
            time.sleep(_POLL)
        return True

    def close(self) -> None:
        with self._changed:
            self.closed = True
            self._changed.notify_all()

    def _check_open(self) -> None:
        if self._ended is not None:
            raise RainConnectionError(self._ended)
        if self.closed:
            raise RainConnectionError("the channel is closed")

    # --- the server's end -----------------------------------------------------------------------

    def say(self, *messages: Message) -> None:
        """Send messages to the client."""
        with self._changed:
            self._to_client.extend(messages)
            self._changed.notify_all()

    def expect(self, kind: type[M], timeout: float = 5.0) -> M:
        """The next message of the client, which must be of this kind."""
        with self._changed:
            if not self._changed.wait_for(lambda: bool(self._to_server), timeout):
                raise AssertionError(f"the client sent no {kind.__name__}")
            message = self._to_server.popleft()
        assert isinstance(message, kind), f"expected {kind.__name__}, the client sent {message}"
        return message

    def hang_up(self, reason: str = "closed by the server") -> None:
        """End the connection from the server's side; what was said before still arrives."""
        with self._changed:
            self._ended = reason
            self._changed.notify_all()

    def check(self) -> None:
        """Fail if there are messages nobody took."""
        assert not self._to_server, f"messages of the client that nobody read: {list(self._to_server)}"
        assert not self._to_client, f"messages to the client that it did not read: {list(self._to_client)}"


class FakeLoopChannel:
    """The same for the asyncio client: a channel of `rain.net.channel` whose other end is a script.

    What the server answers arrives in a later turn of the loop.

    Args:
        handler: gets what arrives.
        server: called with each message the client sends; what it returns arrives at the client.

    Attributes:
        closed: whether either side ended it.
    """

    def __init__(self, handler: ChannelHandler, server: Callable[[Message], Iterable[Message]]) -> None:
        self.peer = "127.0.0.1:7210"
        self.local = "127.0.0.1:1"
        self.closed = False
        self._handler = handler
        self._server = server
        self._loop = asyncio.get_running_loop()

    # --- the client's end -----------------------------------------------------------------------

    def send(self, message: Message) -> None:
        self.send_checked(message)

    def send_all(self, messages: list[Message]) -> None:
        self.send_checked(*messages)

    def send_checked(self, *messages: Message) -> None:
        if not self.closed:
            for message in messages:
                answers = list(self._server(message))
                if answers:
                    self.say(*answers)

    async def drained(self) -> None:
        await asyncio.sleep(0)

    def close(self) -> None:
        self.hang_up("closed by this side")

    def abort(self) -> None:
        self.hang_up("closed by this side")

    # --- the server's end -----------------------------------------------------------------------

    def say(self, *messages: Message) -> None:
        """Send messages to the client."""
        self._loop.call_soon(self._deliver, list(messages))

    def hang_up(self, reason: str = "closed by the other side") -> None:
        """End the connection."""
        if not self.closed:
            self.closed = True
            self._loop.call_soon(self._handler.channel_closed, self, reason)

    def _deliver(self, messages: list[Message]) -> None:
        if not self.closed:
            self._handler.messages_received(self, messages)
