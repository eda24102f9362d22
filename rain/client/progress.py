"""Waiting with a progress bar."""

from __future__ import annotations

import time
from array import array
from contextlib import suppress
from typing import TYPE_CHECKING, Any, TypeVar

from rain.client.core import expired_text, result_of
from rain.client.deadlines import deadline_of, remaining
from rain.client.progress_bar import Bar
from rain.client.states import by_name
from rain.common.errors import RainException, RainTimeoutError, TaskCancelled, TaskException
from rain.common.failure import Failure
from rain.common.lines import one_line
from rain.protocol.messages import Counts, GetCounts

if TYPE_CHECKING:
    from collections.abc import Callable, Coroutine, Iterable

    from rain.client.base import BaseSession
    from rain.client.core import Reply, Request
    from rain.client.front import Front
    from rain.protocol.messages import Message

T = TypeVar("T")

INTERVAL = 0.5
"""Seconds between two questions."""
PATIENCE = 5.0
"""Seconds for the last answer."""


async def with_bar(
    session: BaseSession, title: str, numbers: Iterable[int], wait: Callable[[Front], Coroutine[Any, Any, T]]
) -> T:
    """Wait over a front that shows a progress bar.

    Args:
        session: whose tasks are waited for.
        title: of the bar.
        numbers: what is waited for; empty: all tasks of the session.
        wait: the waiting.

    Raises:
        RainException: tqdm is not installed; what `wait` raises.
    """
    session._check_connected()
    bar = Bar(title)
    try:
        front = WatchingFront(session, numbers, bar)
        try:
            result = await wait(front)
        except TaskException as error:
            with suppress(RainException):  # the reason why the waiting ended is of more interest
                await front.look()
            if not isinstance(error, TaskCancelled):
                bar.fail(f"Task {error.task or error.task_id} failed: {one_line(error.message)}")
            raise
        await front.look()
        return result
    finally:
        bar.close()


class WatchingFront:
    """The front of a session whose waits show how far things are; everything else is as always.

    The server is asked twice a second, for numbers only. A question without an answer delays nothing.

    Args:
        session: whose tasks are waited for.
        numbers: what is shown; empty: all tasks of the session.
        bar: where it is shown.
    """

    def __init__(self, session: BaseSession, numbers: Iterable[int], bar: Bar) -> None:
        self._session = session
        self._front = session._front
        self._bar = bar
        self._firsts, self._counts = stretches(numbers)
        self._next_look = 0.0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._front, name)

    async def wait(
        self, make: Callable[[int], Message], what: str, *, session: int, timeout: float | None
    ) -> Reply | Failure:
        """A question whose answer may take long."""
        if timeout is not None and timeout <= 0:
            return await self._front.wait(make, what, session=session, timeout=timeout)
        deadline = deadline_of(timeout)
        mailbox = self._front.mailbox()
        request = self._front.listen(make, what, session=session, on_done=mailbox.put)
        look: Request | None = None
        try:
            while not request.done:
                left = remaining(deadline)
                if left == 0:
                    raise RainTimeoutError(expired_text(what, timeout))
                if look is None and time.monotonic() >= self._next_look:
                    self._next_look = time.monotonic() + INTERVAL
                    look = self._front.listen(self._question, "counting", session=session, on_done=mailbox.put)
                with suppress(TimeoutError):
                    pause = INTERVAL if look is not None else max(0.0, self._next_look - time.monotonic())
                    await mailbox.next(pause if left is None else min(pause, left))
                self._front.issue_warnings(session)
                if look is not None and look.done:
                    if not request.done:
                        self._show(result_of(look))
                    look = None
        finally:
            for one in (request, look):
                if one is not None:
                    self._front.drop(one)
        return result_of(request)

    async def look(self) -> None:
        """Show how far things are now, unless the server is too busy to tell."""
        number = self._session.session_id
        with suppress(RainTimeoutError):
            what = f"counting the tasks of session {number}"
            self._show(await self._front.ask(self._question, what, session=number, timeout=PATIENCE))

    def _question(self, seq: int) -> GetCounts:
        return GetCounts(seq, self._session.session_id, self._firsts, self._counts)

    def _show(self, reply: Reply | Failure) -> None:
        if isinstance(reply, Failure):
            assert reply.kind != "invalid", reply.message
            return  # the session has failed, and the wait tells why
        assert isinstance(reply, Counts)
        self._bar.show(reply.tasks, reply.objects)
        if not self._firsts:  # of single things the wait ends with the first failure
            self._session._note_counts(by_name(reply), reply.failure)
            self._bar.fail(reply.failure)


def stretches(numbers: Iterable[int]) -> tuple[array[int], array[int]]:
    """Numbers as rising stretches of neighbours: their firsts and lengths."""
    if isinstance(numbers, range) and numbers.step == 1:
        return array("I", numbers[:1]), array("I", [len(numbers)] if numbers else [])
    firsts, counts = array("I"), array("I")
    end = -1
    for number in sorted(set(numbers)):
        if number == end:
            counts[-1] += 1
        else:
            firsts.append(number)
            counts.append(1)
        end = number + 1
    return firsts, counts
