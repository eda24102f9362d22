"""What the logic of the client needs of a connection, told apart from how to wait.

The logic (submitting, waiting, fetching, results, ...) is written once, as coroutines over a `Front`. The front of the
synchronous client blocks where another one suspends, so its coroutines run to their end in one go: `run` makes plain
calls of them. The front of the asyncio client suspends; its coroutines are awaited.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rain.common.errors import RainException

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Sequence
    from contextlib import AbstractContextManager
    from pathlib import Path

    from rain.client.base import BaseSession
    from rain.client.connection import Question
    from rain.client.core import Reply, Request
    from rain.common.failure import Failure
    from rain.net.address import Address
    from rain.protocol.messages import Message

T = TypeVar("T")


class Mailbox(Protocol):
    """Where answers arrive that somebody listens for."""

    def put(self, item: Any) -> None:
        """From any thread; never waits."""

    async def next(self, timeout: float) -> Any:
        """The next item.

        Raises:
            TimeoutError: none came in `timeout` seconds.
        """


class Front(Protocol):
    """A connection to a server and to the workers' data; exceptions as of `rain.client.connection.Connection`."""

    async def ask(
        self, make: Callable[[int], Message], what: str, *, session: int = 0, timeout: float | None = None
    ) -> Reply | Failure:
        """One exchange, within the request timeout or, if shorter, `timeout` seconds."""

    async def wait(
        self, make: Callable[[int], Message], what: str, *, session: int, timeout: float | None
    ) -> Reply | Failure:
        """A question whose answer may take long."""

    def ask_ahead(self, make: Callable[[int], Message], what: str, *, session: int) -> Request:
        """A question whose answer is waited for later, by `finish`; `drop` ends it."""

    async def finish(self, request: Request, timeout: float | None) -> Reply | Failure:
        """Wait for the answer of `ask_ahead`, as `wait` does."""

    async def submit(self, session: BaseSession) -> None:
        """Submit what was built in a session, one submit after another."""

    async def submit_and_wait(
        self, session: BaseSession, make: Callable[[int], Message], what: str, timeout: float | None
    ) -> Reply | Failure:
        """Submit, and ask with it a question whose answer may take long."""

    def listen(
        self, make: Callable[[int], Message], what: str, *, session: int, on_done: Callable[[Request], None]
    ) -> Request:
        """A question whose answer is given to `on_done`, in any thread; `drop` ends the listening."""

    def drop(self, request: Request) -> None:
        """Nobody wants the answer of a request any more."""

    def issue_warnings(self, session: int) -> None:
        """Show what the server warned of in a session, once."""

    def mailbox(self) -> Mailbox:
        """A place for the answers of `listen`."""

    async def read_bytes(self, holder: str, session: int, number: int) -> memoryview:
        """A value from the worker that holds it.

        Raises:
            DataUnavailable: it cannot be had there.
        """

    async def read_file(self, holder: str, session: int, number: int, path: Path) -> None:
        """The same, into an existing file.

        Raises:
            DataUnavailable: it cannot be had there.
            OSError: the file cannot be written.
        """

    async def unpack(self, archive: Path, path: Path) -> None:
        """Write the tree of a packed directory.

        Raises:
            FileExistsError: there is something else than an empty directory.
            OSError: it cannot be written.
        """


class SubmitFront(Front, Protocol):
    """What submitting needs besides."""

    async def to_its_end(self, coroutine: Coroutine[Any, Any, T], unwanted: Callable[[T], None] | None = None) -> T:
        """Run a coroutine that goes on when the caller is cancelled; then `unwanted` gets its result."""

    def uninterrupted(self) -> AbstractContextManager[object]:
        """A block that Ctrl-C does not leave before its end."""

    async def post(self, *messages: Message) -> None:
        """Send messages that have no answer; waits while much is unsent."""

    async def begin(self, questions: Sequence[Question], session: int, before: tuple[Message, ...]) -> list[Request]:
        """Send several questions in one go."""

    async def finish_asking(self, request: Request) -> Reply | Failure:
        """Wait for the answer of a request within the request timeout."""


def run(coroutine: Coroutine[Any, Any, T]) -> T:
    """The result of a coroutine that blocks where others suspend."""
    try:
        coroutine.send(None)
    except StopIteration as end:
        result: T = end.value
        return result
    coroutine.close()
    raise AssertionError("a coroutine of the synchronous client was suspended")


class NoFront:
    """Of sessions without a client: whatever is asked for raises a RainException."""

    def __getattr__(self, name: str) -> Any:
        raise RainException("This session has no client; it only serves to construct graphs")


class FrontChannel(Protocol):
    """What a front needs of its channel (`rain.net.channel.TcpChannel`)."""

    def send(self, message: Message) -> None:
        """Queue a message."""

    def send_checked(self, *messages: Message) -> None:
        """Send at once."""

    async def drained(self) -> None:
        """Wait while the peer is behind."""

    def close(self) -> None:
        """Close after writing what is queued."""

    def abort(self) -> None:
        """Close at once."""


class FrontData(Protocol):
    """What a front needs to read values (`rain.net.loopdata.LoopDataClient`)."""

    async def fetch_bytes(self, address: Address | str, session: int, object_id: int) -> memoryview:
        """Fetch a value."""

    async def fetch_file(self, address: Address | str, session: int, object_id: int, path: str | Path) -> None:
        """Fetch a value into a file."""

    def close(self) -> None:
        """Close all connections."""

    async def closed(self) -> None:
        """The same, and wait until it is done."""
