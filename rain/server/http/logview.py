"""The event log as the HTTP port sees it. All reading, and all work of the overview, is done in one thread."""

from __future__ import annotations

import asyncio
import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, Protocol, TypeVar

from rain.common.errors import RainException

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Callable, Iterable

T = TypeVar("T")

_log = logging.getLogger("rain.server.http")

WATCHED_SECONDS = 30.0
"""How long after the last look the overview is kept up to date."""
FOLLOW_SECONDS = 1.0
PATIENCE_SECONDS = 2.0
"""How long a question waits for an overview that is behind."""
CHUNK_BYTES = 256 << 10
CHUNK_SECONDS = 0.2

_ENDS = "The server ends"


class Event(Protocol):
    """An event of the log."""

    @property
    def id(self) -> int:
        """Its number."""

    @property
    def time_text(self) -> str:
        """When it was logged."""

    @property
    def event(self) -> dict[str, Any]:
        """What it says."""


class Reader(Protocol):
    """What is needed of the log (`rain.eventlog.reader.EventReader`)."""

    def events(self, criteria: Any, *, after: int, before: int | None) -> Iterable[Event]:
        """Events by id, lazily."""

    def last_id(self) -> int:
        """Of the newest event."""

    def close(self) -> None:
        """Close the file."""


class Overview(Protocol):
    """What is needed of the overview (`rain.dashboard.overview.Overview`), besides a method per answer."""

    is_behind: bool

    def catch_up(self) -> int:
        """Read on, a bounded piece; returns the id of the last event read."""


class Unavailable(Exception):
    """The log cannot be read; its text says why."""


class LogView:
    """Answers from the event log.

    Args:
        open_log: makes the reader and the overview; called in the thread, at the first question.
        told: called in the loop with the id of the newest event when the log has grown and somebody looks.

    Attributes:
        last_id: of the newest event the overview knows.
    """

    def __init__(self, open_log: Callable[[], tuple[Reader, Overview]], told: Callable[[int], None]) -> None:
        self._open_log = open_log
        self._told = told
        self._thread = ThreadPoolExecutor(1, "rain-http-log")
        self._log: tuple[Reader, Overview] | None = None  # the thread's
        self._watchers: set[object] = set()
        self._last_look = 0.0
        self.last_id = 0
        self._problem: str | None = None
        self._following: asyncio.Task[None] | None = None
        self._caught_up = asyncio.Event()
        self._closed = False

    def close(self) -> None:
        """Answer no more."""
        self._closed = True
        if self._following is not None:
            self._following.cancel()
        self._thread.submit(self._close_log)
        self._thread.shutdown(wait=False)

    def watch(self, watcher: object) -> None:
        """Somebody looks until `unwatch`."""
        self._watchers.add(watcher)
        self._look()

    def unwatch(self, watcher: object) -> None:
        """He does not look any more."""
        self._watchers.discard(watcher)

    async def answer(self, question: Callable[[Any], T]) -> T:
        """Ask the overview.

        Args:
            question: gets it; called in the thread.

        Raises:
            Unavailable: the log cannot be read.
        """
        self._look()
        try:
            async with asyncio.timeout(PATIENCE_SECONDS):
                await self._caught_up.wait()
        except TimeoutError:
            pass  # a long log: what is known so far
        if self._problem is not None:
            raise Unavailable(self._problem)
        return await self._in_thread(lambda: question(self._opened()[1]))

    async def events(self, criteria: Any) -> AsyncIterator[bytes]:
        """The events up to now that fit, as the pieces of a JSON list.

        No piece keeps the log open for the next one, so a slow reader costs nothing. Times between pieces are the
        caller's.

        Raises:
            Unavailable: the log cannot be read.
        """
        before = await self._in_thread(lambda: self._opened()[0].last_id() + 1)
        after: int | None = 0
        lead = b"["
        while after is not None:
            piece, after = await self._in_thread(partial(self._piece, criteria, after, before))
            if piece:
                yield lead + piece
                lead = b",\n"
        yield b"]" if lead != b"[" else b"[]"

    def _piece(self, criteria: Any, after: int, before: int) -> tuple[bytes, int | None]:
        """Some events from `after` on, and where to go on; None: there are no more."""
        parts: list[str] = []
        size, deadline = 0, time.monotonic() + CHUNK_SECONDS
        for event in self._opened()[0].events(criteria, after=after, before=before):
            parts.append(json.dumps({"id": event.id, "time": event.time_text, "event": event.event}))
            size += len(parts[-1])
            if size >= CHUNK_BYTES or time.monotonic() >= deadline:
                return ",\n".join(parts).encode(), event.id
        return ",\n".join(parts).encode(), None

    def _opened(self) -> tuple[Reader, Overview]:
        if self._log is None:
            self._log = self._open_log()
        return self._log

    def _close_log(self) -> None:
        if self._log is not None:
            self._log[0].close()

    async def _in_thread(self, work: Callable[[], T]) -> T:
        if self._closed:
            raise Unavailable(_ENDS)
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, self._unless_closed, work)
        except RainException as error:
            raise Unavailable(str(error)) from error

    def _unless_closed(self, work: Callable[[], T]) -> T:
        if self._closed:  # meanwhile: what waits must not keep the process
            raise Unavailable(_ENDS)
        return work()

    # --- keeping up ---

    def _look(self) -> None:
        loop = asyncio.get_running_loop()
        self._last_look = loop.time()
        if self._following is None and not self._closed:
            self._caught_up.clear()
            self._following = loop.create_task(self._follow())

    async def _follow(self) -> None:
        """Catch up while somebody looks, at most once a second."""
        loop = asyncio.get_running_loop()
        try:
            while self._watchers or loop.time() - self._last_look < WATCHED_SECONDS:
                turn = loop.time() + FOLLOW_SECONDS
                while await self._step() and loop.time() < turn:
                    pass
                await asyncio.sleep(max(turn - loop.time(), 0.0))
        finally:
            self._following = None

    async def _step(self) -> bool:
        """Read a piece of the log; whether there is more."""
        try:
            last, is_behind = await self._in_thread(self._catch_up)
        except Unavailable as error:
            self._trouble(str(error))
            return False
        except Exception as error:
            self._trouble("The overview of the event log is broken: an internal error, see the server's log", error)
            return False
        self._problem = None
        if not is_behind:
            self._caught_up.set()
        if last != self.last_id:
            self.last_id = last
            self._told(last)
        return is_behind

    def _catch_up(self) -> tuple[int, bool]:
        overview = self._opened()[1]
        return overview.catch_up(), overview.is_behind

    def _trouble(self, text: str, bug: Exception | None = None) -> None:
        if text != self._problem:
            _log.warning("the dashboard has no data: %s", text, exc_info=bug)
            self._problem = text
        self._caught_up.set()
