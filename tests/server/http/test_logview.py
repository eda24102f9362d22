"""One thread reads the log, only while somebody looks."""

from __future__ import annotations

import asyncio
import contextlib
import json
import threading
import time
from dataclasses import dataclass, field
from typing import Any

import pytest

from rain.common.errors import RainException
from rain.server.http import logview
from rain.server.http.logview import LogView, Unavailable


@dataclass
class LoggedEvent:
    id: int
    time_text: str = "2026-01-01 00:00:00.000000000 UTC"
    event: dict[str, Any] = field(default_factory=lambda: {"type": "Test", "text": "x" * 100})


class Log:
    """Reader and overview in one. Checks that one thread uses it."""

    def __init__(self, count: int = 0, steps: int = 1) -> None:
        self.count = count
        self.steps = steps
        self.caught_up = 0
        self.is_behind = False
        self.thread = 0
        self.closed = False
        self.read = 0

    def _check(self) -> None:
        self.thread = self.thread or threading.get_ident()
        assert self.thread == threading.get_ident() != threading.main_thread().ident

    def last_id(self) -> int:
        self._check()
        return self.count

    def events(self, criteria, *, after, before):
        self._check()
        for number in range(after + 1, min(self.count + 1, before)):
            self.read += 1
            yield LoggedEvent(number)

    def catch_up(self) -> int:
        self._check()
        self.caught_up += 1
        self.steps -= 1
        self.is_behind = self.steps > 0
        return self.count

    def close(self) -> None:
        self._check()
        self.closed = True


@pytest.fixture
async def view(request):
    """Makes views; they end with the test."""
    made = []

    def make(log, told=lambda last: None):
        made.append(LogView(lambda: (log, log), told))
        return made[-1]

    yield make
    for each in made:
        each.close()


@pytest.fixture
def _quick(monkeypatch):
    monkeypatch.setattr(logview, "FOLLOW_SECONDS", 0.02)
    monkeypatch.setattr(logview, "WATCHED_SECONDS", 0.1)


async def until(condition) -> None:
    """Wait for something to be true."""
    async with asyncio.timeout(20):
        while not condition():  # noqa: ASYNC110 - nobody tells
            await asyncio.sleep(0.01)


async def whole(pieces) -> list[Any]:
    return json.loads(b"".join([piece async for piece in pieces]))


@pytest.mark.parametrize("count", [0, 1, 2, 10_000])
async def test_events(view, count):
    found = await whole(view(Log(count)).events({}))
    assert [event["id"] for event in found] == list(range(1, count + 1))
    assert all(event == {"id": event["id"], "time": LoggedEvent(1).time_text, "event": LoggedEvent(1).event}
               for event in found)  # fmt: skip


async def test_events_come_in_pieces_as_they_are_taken(view):
    """Who takes one piece has the log read for one piece; what comes later is not part of the answer."""
    log = Log(10_000)
    pieces = view(log).events({})
    first = await anext(pieces)
    assert logview.CHUNK_BYTES <= len(first) < 2 * logview.CHUNK_BYTES
    assert log.read < 5000
    await asyncio.sleep(0.05)
    assert log.read < 5000
    log.count = 20_000
    rest = b"".join([piece async for piece in pieces])
    assert len(json.loads(first + rest)) == 10_000


async def test_a_long_piece_does_not_keep_others_waiting(view, monkeypatch):
    monkeypatch.setattr(logview, "CHUNK_SECONDS", 0.0)
    log = Log(3)
    assert len([piece async for piece in view(log).events({})]) == 4


async def test_an_answer_waits_for_the_overview(view):
    log = Log(7, steps=3)
    assert await view(log).answer(lambda overview: (overview.count, overview.caught_up)) == (7, 3)


async def test_an_answer_does_not_wait_for_ever(view, monkeypatch):
    monkeypatch.setattr(logview, "PATIENCE_SECONDS", 0.1)
    log = Log(7, steps=1_000_000)
    started = time.monotonic()
    assert await view(log).answer(lambda overview: overview.is_behind)
    assert time.monotonic() - started < 30


@pytest.mark.usefixtures("_quick")
async def test_nobody_looks(view):
    """The overview is made at the first question, and is not kept up to date for ever."""
    opened = []
    log = Log(1)
    view = LogView(lambda: (opened.append(1), (log, log))[1], lambda last: None)
    assert not opened
    await view.answer(lambda overview: None)
    await until(lambda: log.caught_up >= 2)
    assert opened == [1]
    caught_up = 0
    async with asyncio.timeout(20):
        while log.caught_up > caught_up:
            caught_up = log.caught_up
            await asyncio.sleep(0.3)  # many times as long as between two looks
    log.steps = 3
    assert await view.answer(lambda overview: overview.is_behind) is False
    assert log.caught_up >= caught_up + 3
    view.close()


@pytest.mark.usefixtures("_quick")
async def test_watchers_are_told_when_the_log_grows(view):
    log, told = Log(1), []
    watched = view(log, told.append)
    watched.watch("me")
    await until(lambda: told == [1])
    log.count = 5
    await until(lambda: told == [1, 5])
    watched.unwatch("me")
    await asyncio.sleep(1.0)
    log.count = 6
    await asyncio.sleep(0.1)
    assert told == [1, 5]


class BrokenLog(Log):
    error: Exception | None = RainException("the log is gone; bring it back")

    def catch_up(self) -> int:
        if self.error is not None:
            raise self.error
        return super().catch_up()

    def last_id(self) -> int:
        if self.error is not None:
            raise self.error
        return super().last_id()


@pytest.mark.usefixtures("_quick")
async def test_a_log_that_cannot_be_read(view, caplog):
    """Those who ask are told, the server's log once; when it works again, it works again."""
    log = BrokenLog(3)
    watched = view(log)
    for _ in range(3):
        with pytest.raises(Unavailable, match="bring it back"):
            await watched.answer(lambda overview: overview.count)
        with pytest.raises(Unavailable, match="bring it back"):
            await whole(watched.events({}))
        await asyncio.sleep(0.05)
    assert caplog.text.count("bring it back") == 1
    log.error = None
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(Unavailable):
                assert await watched.answer(lambda overview: overview.count) == 3
                break
            await asyncio.sleep(0.02)


@pytest.mark.usefixtures("_quick")
async def test_a_broken_overview(view, caplog):
    log = BrokenLog(3)
    log.error = ZeroDivisionError("overview")
    watched = view(log)
    with pytest.raises(Unavailable, match="internal error"):
        await watched.answer(lambda overview: overview.count)
    assert "ZeroDivisionError" in caplog.text


async def test_closed():
    """What waits for the thread is not done any more, the file is closed."""
    log = Log(1)
    view = LogView(lambda: (log, log), lambda last: None)
    await view.answer(lambda overview: None)
    slow = [asyncio.ensure_future(view.answer(lambda overview: time.sleep(0.1))) for _ in range(50)]
    await asyncio.sleep(0)
    started = time.monotonic()
    view.close()
    results = await asyncio.gather(*slow, return_exceptions=True)
    assert sum(isinstance(result, Unavailable) for result in results) >= 48
    with pytest.raises(Unavailable, match="ends"):
        await view.answer(lambda overview: None)
    while not log.closed:
        assert time.monotonic() - started < 20
        await asyncio.sleep(0.01)
