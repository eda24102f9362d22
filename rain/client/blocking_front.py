"""The front of the synchronous client: its coroutines block the calling thread and never suspend."""

from __future__ import annotations

import queue
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypeVar, cast

from rain.client.interrupts import InterruptGuard
from rain.client.submitting import submit
from rain.common.data_instance import DataInstance
from rain.common.data_type import DataType

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterator, Sequence
    from pathlib import Path

    from rain.client.base import BaseSession
    from rain.client.connection import Connection, Question
    from rain.client.core import Reply, Request
    from rain.client.session import Session
    from rain.common.failure import Failure
    from rain.net.dataclient import DataClient
    from rain.protocol.messages import Message

T = TypeVar("T")


class BlockingFront:
    """See `rain.client.front.Front`; for any number of threads.

    Args:
        connection: to the server.
        data: to the workers.
    """

    def __init__(self, connection: Connection, data: DataClient) -> None:
        self.connection = connection
        self.data = data
        self.listen = connection.listen
        self.drop = connection.drop
        self.issue_warnings = connection.issue_warnings

    async def ask(
        self, make: Callable[[int], Message], what: str, *, session: int = 0, timeout: float | None = None
    ) -> Reply | Failure:
        """One exchange."""
        return self.connection.ask(make, what, session=session, timeout=timeout)

    async def wait(
        self, make: Callable[[int], Message], what: str, *, session: int, timeout: float | None
    ) -> Reply | Failure:
        """A question whose answer may take long."""
        return self.connection.wait(make, what, session=session, timeout=timeout)

    def ask_ahead(self, make: Callable[[int], Message], what: str, *, session: int) -> Request:
        """A question whose answer is waited for later."""
        (request,) = self.connection.begin([(make, what)], session)
        return request

    async def finish(self, request: Request, timeout: float | None) -> Reply | Failure:
        """Wait for the answer of `ask_ahead`."""
        return self.connection.finish(request, timeout)

    async def submit(self, session: BaseSession) -> None:
        """Submit what was built in a session."""
        with cast("Session", session)._submitting:
            await submit(self, session)

    async def submit_and_wait(
        self, session: BaseSession, make: Callable[[int], Message], what: str, timeout: float | None
    ) -> Reply | Failure:
        """Submit, and ask with it a question whose answer may take long."""
        with cast("Session", session)._submitting:
            request = await submit(self, session, (make, what))
        assert request is not None
        return self.connection.finish(request, timeout)

    async def to_its_end(self, coroutine: Coroutine[Any, Any, T], unwanted: Callable[[T], None] | None = None) -> T:
        """Nothing can cancel it."""
        return await coroutine

    @contextmanager
    def uninterrupted(self) -> Iterator[None]:
        """A block that Ctrl-C does not leave before its end; a second one gives the connection up."""
        with InterruptGuard(once=True):
            try:
                yield
            except KeyboardInterrupt:
                self.connection.abandon("interrupted twice while the server did not answer")
                raise

    async def post(self, *messages: Message) -> None:
        """Send messages that have no answer."""
        self.connection.post(*messages)

    async def begin(self, questions: Sequence[Question], session: int, before: tuple[Message, ...]) -> list[Request]:
        """Send several questions in one go."""
        return self.connection.begin(questions, session, before)

    async def finish_asking(self, request: Request) -> Reply | Failure:
        """Wait for the answer of a request within the request timeout."""
        return self.connection.finish(request, is_wait=False)

    def mailbox(self) -> QueueMailbox:
        """A place for the answers of `listen`."""
        return QueueMailbox()

    async def read_bytes(self, holder: str, session: int, number: int) -> memoryview:
        """A value from the worker that holds it."""
        value, _ = self.data.fetch_bytes(holder, session, number)
        return memoryview(value).toreadonly()

    async def read_file(self, holder: str, session: int, number: int, path: Path) -> None:
        """The same, into an existing file."""
        self.data.fetch_file(holder, session, number, path)

    async def unpack(self, archive: Path, path: Path) -> None:
        """Write the tree of a packed directory."""
        DataInstance(DataType.DIRECTORY, path=archive).write(path)


class QueueMailbox:
    """A mailbox for a thread that blocks."""

    def __init__(self) -> None:
        self._items: queue.SimpleQueue[Any] = queue.SimpleQueue()
        self.put = self._items.put

    async def next(self, timeout: float) -> Any:
        """The next item."""
        try:
            return self._items.get(timeout=timeout)
        except queue.Empty:
            raise TimeoutError from None
