"""When one caller is alone, the reply to its request is taken on the spot instead of by way of the event loop.

A turn of the loop costs more than a request. For a moment (`STRETCH`) the connection waits for replies itself, as a
blocking client does, if a request that took the ordinary way has just shown that one task asks again and again, that
the loop had nothing else to do meanwhile, and that the server is quick. Then one request takes the ordinary way again:
no other task waits longer than that moment, and where there is anything else to do, all requests take the ordinary way.
"""

from __future__ import annotations

import asyncio
import os
import select
import time

STRETCH = 1e-3
"""Seconds during which requests take the shortcut."""
SOON = 200e-6
"""Seconds in which the reply must have come on the ordinary way."""
IDLE = 30e-6
"""Seconds of processor time that the loop may have used meanwhile; a turn of its own takes 5 to 15 microseconds."""
ALONE = 2.0
"""How often as much as the least ever it may have used: what came during a stretch was waiting for this turn."""
FIRST_PAUSE = 4
LONGEST_PAUSE = 1024
"""Requests that take the ordinary way without being looked at when the shortcut does not pay; doubled each time."""

_PATIENCE = 1
"""Milliseconds until a reply is left to the loop: the least that `poll` knows."""
_MOST_READ = 16 << 10

_task_of = asyncio.current_task


class Shortcut:
    """Decides whether the requests of a connection may take the shortcut, and exchanges bytes for them.

    Attributes:
        trying: the reply to a request on the ordinary way is going to be judged.

    Args:
        descriptor: of a connected socket that does not block.
    """

    def __init__(self, descriptor: int) -> None:
        self.trying = False
        self._loop = asyncio.get_running_loop()
        self._descriptor = descriptor
        waiter = select.poll()
        waiter.register(descriptor, select.POLLIN)
        self._wait = waiter.poll
        self._until = 0.0
        self._task = 0  # who sent the last lone request
        self._left = 0  # requests until the next is looked at
        self._pause = FIRST_PAUSE
        self._sent_at = 0.0
        self._used_before = 0.0
        self._least = IDLE  # processor time of a turn

    def try_out(self, now: float) -> None:
        """A lone request was just sent on the ordinary way."""
        task = id(_task_of(self._loop))
        if task != self._task:
            self._task = task
        elif self._left:
            self._left -= 1
        else:
            self.trying = True
            self._sent_at = now
            self._used_before = time.thread_time()

    def judge(self, now: float) -> bool:
        """Return whether a stretch begins, now that the first bytes of its reply are here."""
        self.trying = False
        used = time.thread_time() - self._used_before
        self._least = min(self._least, used)
        if now - self._sent_at > SOON or used > min(IDLE, ALONE * self._least):
            self.give_up()
            return False
        self._until = now + STRETCH
        return True

    def is_open(self, now: float) -> bool:
        """Return whether the current task may go on; it does not pay that another one asks."""
        if now < self._until:
            return id(_task_of(self._loop)) == self._task
        self._pause = FIRST_PAUSE
        return False

    def give_up(self) -> None:
        """It does not pay now."""
        self._left = self._pause
        self._pause = min(2 * self._pause, LONGEST_PAUSE)

    def write(self, data: bytes) -> int:
        """Return how many bytes were sent at once; the transport comes across any error, too."""
        try:
            return os.write(self._descriptor, data)
        except OSError:
            return 0

    def read(self) -> bytes:
        """Return what the server sends, or nothing if that is not soon; the transport comes across any end, too."""
        if self._wait(_PATIENCE):
            try:
                return os.read(self._descriptor, _MOST_READ)
            except OSError:
                return b""
        return b""
