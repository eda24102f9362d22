"""One timer for the deadlines of many requests."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable

    from rain.memcache.addresses import Address
    from rain.memcache.requests import Request

NEVER = float("inf")
STEP = 0.005
"""Seconds between two looks, at least; callers are told at most so much later than their deadline."""


class Alarm:
    """A timer that looks at deadlines when the first of them is due, and sleeps while there are none.

    Attributes:
        at: when it rings next; `NEVER` while it is not set. Who has an earlier deadline calls `set`.

    Args:
        look: called with the time; returns when to look again, or `NEVER`.
    """

    def __init__(self, look: Callable[[float], float]) -> None:
        self.at = NEVER
        self._look = look
        self._loop = asyncio.get_running_loop()
        self._timer: asyncio.TimerHandle | None = None

    def set(self, when: float) -> None:
        """Ring at this time of the loop instead."""
        self.cancel()
        self.at = when
        self._timer = self._loop.call_at(when, self._ring)

    def cancel(self) -> None:
        """Do not ring."""
        self.at = NEVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _ring(self) -> None:
        now = max(self._loop.time(), self.at)  # loops may ring a clock tick early
        self.at = NEVER
        self._timer = None
        following = self._look(now)
        if following < self.at:
            self.set(max(following, now + STEP))


def expire(waiting: Iterable[Request], now: float, address: Address) -> tuple[list[Request], float]:
    """Fail the requests whose deadlines have passed.

    Returns:
        These requests, and the earliest deadline of the others, or `NEVER`.
    """
    expired = []
    following = NEVER
    for request in waiting:
        deadline = request.deadline
        if deadline is None or request.waiter.done():
            continue
        if deadline <= now:
            expired.append(request)
            fail(request, TimeoutError(f"{describe(request)} was not answered by {address} within the timeout"))
        elif deadline < following:
            following = deadline
    return expired, following


def fail(request: Request, error: Exception) -> None:
    """Give the caller of a request, who waits still, an exception."""
    request.waiter.set_exception(error)
    if request.own:
        request.waiter.exception()  # nobody may be interested; asyncio would log that


def describe(request: Request) -> str:
    """Operation and key, for texts."""
    if request.keys:
        return f"{request.command} of {len(request.keys)} keys ({request.keys[0]!r} ...)"
    return f"{request.command} of {request.key!r}" if request.key else request.command
