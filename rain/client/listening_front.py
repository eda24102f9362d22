"""The front for coroutines in any asyncio loop that await things of a synchronous client.

The background thread of the connection reads the answers; what would block is done in threads. Cancelling a coroutine
tells the server to forget its question.
"""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

from rain.client.core import expired_text, result_of
from rain.client.front import run
from rain.client.loop_mailbox import LoopMailbox
from rain.common.errors import RainTimeoutError

if TYPE_CHECKING:
    from collections.abc import Callable
    from pathlib import Path

    from rain.client.base import BaseSession
    from rain.client.blocking_front import BlockingFront
    from rain.client.core import Reply, Request
    from rain.common.failure import Failure
    from rain.protocol.messages import Message


class ListeningFront:
    """See `rain.client.front.Front`; for any number of loops.

    Args:
        blocking: the front of the synchronous client.
    """

    def __init__(self, blocking: BlockingFront) -> None:
        self._blocking = blocking
        self.listen = blocking.listen
        self.issue_warnings = blocking.issue_warnings
        self._mailboxes: dict[int, LoopMailbox] = {}

    async def ask(
        self, make: Callable[[int], Message], what: str, *, session: int = 0, timeout: float | None = None
    ) -> Reply | Failure:
        """One exchange."""
        return await asyncio.to_thread(self._blocking.connection.ask, make, what, session=session, timeout=timeout)

    async def wait(
        self, make: Callable[[int], Message], what: str, *, session: int, timeout: float | None
    ) -> Reply | Failure:
        """A question whose answer may take long."""
        return await self.finish(self.ask_ahead(make, what, session=session), timeout)

    def ask_ahead(self, make: Callable[[int], Message], what: str, *, session: int) -> Request:
        """A question whose answer is waited for later."""
        mailbox = LoopMailbox()
        request = self.listen(make, what, session=session, on_done=mailbox.put)
        self._mailboxes[request.seq] = mailbox
        return request

    async def finish(self, request: Request, timeout: float | None) -> Reply | Failure:
        """Wait for the answer of `ask_ahead`."""
        try:
            if timeout == 0:
                return await asyncio.to_thread(self._blocking.connection.finish, request, 0)
            return result_of(await self._mailboxes[request.seq].next(timeout))
        except TimeoutError as error:
            raise RainTimeoutError(expired_text(request.what, timeout)) from error
        finally:
            self.drop(request)

    def drop(self, request: Request) -> None:
        """Nobody wants the answer of a request any more."""
        self._mailboxes.pop(request.seq, None)
        if not request.done:
            self._blocking.drop(request)

    async def submit(self, session: BaseSession) -> None:
        """Submit what was built in a session."""
        await asyncio.sleep(0)  # others that were awaited at the same time mark theirs as kept first
        if session._has_unsubmitted:
            await asyncio.to_thread(run, self._blocking.submit(session))

    async def submit_and_wait(
        self, session: BaseSession, make: Callable[[int], Message], what: str, timeout: float | None
    ) -> Reply | Failure:
        """Submit, then ask a question whose answer may take long."""
        await self.submit(session)
        return await self.wait(make, what, session=session.session_id, timeout=timeout)

    def mailbox(self) -> LoopMailbox:
        """A place for the answers of `listen`."""
        return LoopMailbox()

    async def read_bytes(self, holder: str, session: int, number: int) -> memoryview:
        """A value from the worker that holds it."""
        return await asyncio.to_thread(run, self._blocking.read_bytes(holder, session, number))

    async def read_file(self, holder: str, session: int, number: int, path: Path) -> None:
        """The same, into an existing file."""
        await asyncio.to_thread(run, self._blocking.read_file(holder, session, number, path))

    async def unpack(self, archive: Path, path: Path) -> None:
        """Write the tree of a packed directory."""
        await asyncio.to_thread(run, self._blocking.unpack(archive, path))
